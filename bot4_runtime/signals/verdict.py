"""The validator's verdicts: what was compared, and in words why it was decided so.

Words and the journaled mapping are made when somebody reads them: deciding does not need them.
"""

import math
from typing import Final

from bot4_runtime.domain.regime import Regime

NAN: Final = math.nan


class Figures:
    """Every number of the five questions, also of those after the one that rejected.

    NaN stands for no value. The bounds are those of the validator that measured.
    """

    def __init__(self) -> None:
        self.regime: Regime | None = None
        self.confidence: float = NAN
        self.volatility: float = NAN
        self.recent_return: float = NAN
        self.history_trades: int = 0
        self.history_entries: int = 0
        self.bias_value: float = NAN
        self.bias_threshold: float = NAN
        self.n_trades: float = NAN
        self.n_weeks: float = NAN
        self.rules_tried: int = 0
        self.evidence_days_left: float = NAN
        self.p_value: float = NAN
        self.p_value_raw: float = NAN
        self.p_newey_west: float = NAN
        self.p_specification_t: float = NAN
        self.mean_net: float = NAN
        self.std_net: float = NAN
        self.skewness_net: float = NAN
        self.kurtosis_net: float = NAN
        self.live_trades: float = NAN
        self.live_days: float = NAN
        self.win_rate: float = NAN
        self.average_win: float = NAN
        self.average_loss: float = NAN
        self.holding_days: float = NAN
        self.extra_costs: float = NAN
        self.opportunity_cost: float = NAN
        self.expected_value: float = NAN
        self.sharpe: float = NAN
        self.sharpe_low: float = NAN
        self.sharpe_high: float = NAN
        self.probabilistic_sharpe: float = NAN
        self.deflated_sharpe: float = NAN
        self.size_fraction: float = NAN
        self.max_p_value: float = NAN
        self.min_trades: int = 0
        self.min_weeks: int = 0
        self.min_sharpe: float = NAN
        self.min_confidence: float = NAN

    def told(self) -> dict[str, float | None]:
        """Return the numbers by name, as they are journaled; None where there is no value."""
        return {
            "confidence": _known(self.confidence),
            "confidence_above": _known(self.min_confidence),
            "volatility": _known(self.volatility),
            "recent_return": _known(self.recent_return),
            "regime": None if self.regime is None else float(self.regime),
            "history_trades": float(self.history_trades),
            "history_entries": float(self.history_entries),
            "bias_value": _known(self.bias_value),
            "bias_threshold": _known(self.bias_threshold),
            "n_trades": _known(self.n_trades),
            "n_trades_least": float(self.min_trades),
            "n_eff_weeks": _known(self.n_weeks),
            "n_eff_weeks_least": float(self.min_weeks),
            "rules_tried": float(self.rules_tried),
            "evidence_days_left": _known(self.evidence_days_left),
            "p_value": _known(self.p_value),
            "p_value_below": _known(self.max_p_value),
            "p_value_raw": _known(self.p_value_raw),
            "p_newey_west": _known(self.p_newey_west),
            "p_specification_t": _known(self.p_specification_t),
            "live_trades": _known(self.live_trades),
            "live_days": _known(self.live_days),
            "mean_net": _known(self.mean_net),
            "std_net": _known(self.std_net),
            "skewness_net": _known(self.skewness_net),
            "kurtosis_net": _known(self.kurtosis_net),
            "win_rate": _known(self.win_rate),
            "average_win": _known(self.average_win),
            "average_loss": _known(self.average_loss),
            "holding_days": _known(self.holding_days),
            "extra_costs": _known(self.extra_costs),
            "opportunity_cost": _known(self.opportunity_cost),
            "expected_value": _known(self.expected_value),
            "sharpe": _known(self.sharpe),
            "sharpe_above": _known(self.min_sharpe),
            "sharpe_low": _known(self.sharpe_low),
            "sharpe_high": _known(self.sharpe_high),
            "probabilistic_sharpe": _known(self.probabilistic_sharpe),
            "deflated_sharpe": _known(self.deflated_sharpe),
            "size_fraction": _known(self.size_fraction),
        }


class Approved:
    """The signal may be acted on, at most at `size_fraction` of capital."""

    code: Final = "APPROVED"
    suggestion: Final = ""

    def __init__(self, figures: Figures) -> None:
        self.figures = figures
        self.expected_value: float = figures.expected_value
        self.sharpe: float = figures.sharpe
        self.p_value: float = figures.p_value
        self.size_fraction: float = figures.size_fraction

    @property
    def numbers(self) -> dict[str, float | None]:
        """What was compared, by name."""
        return self.figures.told()

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
        figures: what was known when it was rejected.
        subject: the reason in words, or what is missing, where the numbers do not say it.
        remedy: what would have to change, where that does not follow from the code.
    """

    def __init__(self, code: str, figures: Figures, subject: str, remedy: str = "") -> None:
        self.code = code
        self.figures = figures
        self._subject = subject
        self._remedy = remedy

    @property
    def numbers(self) -> dict[str, float | None]:
        """What was compared, by name; None where a number has no value."""
        return self.figures.told()

    @property
    def suggestion(self) -> str:
        """What would have to change."""
        return self._remedy or _SUGGESTIONS[self.code]

    @property
    def text(self) -> str:  # noqa: PLR0911 - one return a reason
        """The reason in words."""
        figures, subject = self.figures, self._subject
        match self.code:
            case "NOT_FINITE":
                return f"{subject} is missing, not finite or out of range"
            case "TOO_FEW":
                return (
                    f"{figures.n_trades:.0f} trades in {figures.n_weeks:.0f} weeks; "
                    f"{figures.min_trades} trades in {figures.min_weeks} weeks are needed"
                )
            case "NOT_SIGNIFICANT":
                return (
                    f"p {figures.p_value:.4f} over {figures.rules_tried} rules tried; "
                    f"below {figures.max_p_value:g} is needed"
                )
            case "EXPECTED_VALUE":
                return (
                    f"expected value {figures.expected_value * 1e4:+.1f} bps after all costs; "
                    "above 0 is needed"
                )
            case "SHARPE":
                return (
                    f"Sharpe {figures.sharpe:.2f} a year; above {figures.min_sharpe:g} is needed"
                )
            case "CONFIDENCE":
                return (
                    f"confidence {figures.confidence:.3f}; "
                    f"above {figures.min_confidence:g} is needed"
                )
            case _:
                return subject


_SUGGESTIONS: Final = {
    "TOO_FEW": "gather a longer history or more symbols",
    "NOT_SIGNIFICANT": "the past does not tell this rule from chance: do not trade it",
    "EXPECTED_VALUE": "trade less often or cheaper",
    "SHARPE": "the reward is too small for the risk: do not trade it",
    "CONFIDENCE": "wait until the regime is clearer",
}


def _known(value: float) -> float | None:
    return value if -math.inf < value < math.inf else None
