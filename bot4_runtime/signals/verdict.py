"""The validator's two verdicts. Their numbers go to the journal; None means no value."""

from typing import Final


class Approved:
    """The signal may be acted on, at most at `size_fraction` of capital."""

    code: Final = "APPROVED"
    suggestion: Final = ""

    def __init__(
        self,
        numbers: dict[str, float | None],
        expected: float,
        sharpe: float,
        p_value: float,
        size_fraction: float,
    ) -> None:
        self.numbers = numbers
        self.expected_value = expected
        self.sharpe = sharpe
        self.p_value = p_value
        self.size_fraction = size_fraction

    @property
    def text(self) -> str:
        """The reasoning in words."""
        return (
            f"no bias; p {self.p_value:.4f}; expected value {self.expected_value * 1e4:+.1f} bps; "
            f"Sharpe {self.sharpe:.2f}; size {self.size_fraction:.2%} of capital"
        )


class Rejected:
    """The signal may not be acted on.

    Args:
        code: the reason.
        numbers: what was known when it was rejected; None where a number has no value.
        text: the reason in words.
        suggestion: what would have to change.
    """

    def __init__(
        self, code: str, numbers: dict[str, float | None], text: str, suggestion: str
    ) -> None:
        self.code = code
        self.numbers = numbers
        self.text = text
        self.suggestion = suggestion
