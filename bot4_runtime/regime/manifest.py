"""What a model file says about itself: everything needed to trust it, or to refuse it.

The same JSON lies beside the file and in its ONNX ``metadata_props["manifest"]``. Judging the
numbers is `bot4_pipelines.training.promotion`'s work, checking the file is `loader`'s.
"""

import math
from enum import StrEnum
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt

from bot4_runtime.domain.candle import Market, Origin
from bot4_runtime.domain.errors import ModelError
from bot4_runtime.domain.regime import REGIME_LABELS
from bot4_runtime.domain.unreadable import UNREADABLE
from bot4_runtime.regime.hmm import HmmParameters

FORMAT: Final = 1
"""Version of this layout; a manifest of another is refused."""
OPSET: Final = 17
"""The one ONNX operator set that models are written in."""
WINDOW: Final = 50
"""Valid rows, the current one included, that an LSTM reads if its manifest says nothing else."""
LEAST_WINDOW: Final = 10
MOST_WINDOW: Final = 180
"""A session shows its models 700 candles before it decides; 512 of them make the first row."""
METADATA_KEY: Final = "manifest"
"""Where the manifest lies in the ONNX file's metadata."""

Metrics = dict[str, dict[str, float | None]]
"""``metrics["test"]["accuracy"]``: section, then number; None where it has no value."""


class ModelKind(StrEnum):
    """Which of a pair's two files."""

    HMM = "hmm"
    LSTM = "lstm"


class Cuts(msgspec.Struct, frozen=True, kw_only=True):
    """Where the splits lie, UTC: [train_start, validation_start, test_start, end)."""

    train_start_ms: int
    validation_start_ms: int
    test_start_ms: int
    end_ms: int


class Tensor(msgspec.Struct, frozen=True):
    """An array written as JSON: shape, and the values in C order."""

    shape: tuple[int, ...]
    values: tuple[float, ...]

    @classmethod
    def of(cls, array: npt.ArrayLike) -> "Tensor":
        """Write down an array; its numbers are kept to the last bit of float64."""
        values = np.asarray(array, dtype=np.float64)
        return cls(values.shape, tuple(values.ravel().tolist()))

    def array(self) -> npt.NDArray[np.float64]:
        """Return float64[shape].

        Raises:
            ModelError: the values do not fill the shape.
        """
        if math.prod(self.shape) != len(self.values) or min(self.shape, default=0) < 0:
            raise ModelError(
                f"a recorded array has {len(self.values)} values; its shape {self.shape} needs "
                f"{math.prod(self.shape)}: export the model again"
            )
        return np.array(self.values, dtype=np.float64).reshape(self.shape)


class GoldenVector(msgspec.Struct, frozen=True, kw_only=True):
    """Inputs by name, and the outputs that the file gave for them when it was made."""

    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]


class GateVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """How one number stood against its gate.

    Attributes:
        value: None when the number is missing or not finite, which fails.
        threshold: the bound, on the side that `rule` says.
        rule: ``>=``, ``>`` or ``<=``.
    """

    name: str
    passed: bool
    value: float | None
    threshold: float | None
    rule: str = ">="

    def __str__(self) -> str:
        value, threshold = (
            "unknown" if number is None else f"{number:.4g}"
            for number in (self.value, self.threshold)
        )
        return f"{self.name} {value}, needs {self.rule} {threshold}"


class Scaler(msgspec.Struct, frozen=True, kw_only=True):
    """What is inside the LSTM's graph: clip((x - mean) / scale, -clip, clip)."""

    mean: tuple[float, ...]
    scale: tuple[float, ...]
    clip: float


class HmmDefinition(msgspec.Struct, frozen=True, kw_only=True):
    """The definition of the regimes: enough to recompute the labels from candles alone."""

    trend_window: int
    means: tuple[float, ...]
    variances: tuple[float, ...]
    transitions: tuple[tuple[float, ...], ...]

    @classmethod
    def of(cls, params: HmmParameters, trend_window: int) -> "HmmDefinition":
        """Write down fitted parameters."""
        return cls(
            trend_window=trend_window,
            means=tuple(params.means.tolist()),
            variances=tuple(params.variances.tolist()),
            transitions=tuple(tuple(row) for row in params.transitions.tolist()),
        )

    def parameters(self) -> HmmParameters:
        """Return the parameters in numpy.

        Raises:
            ModelError: they are no HMM of five ordered states.
        """
        try:
            return HmmParameters(
                np.array(self.means), np.array(self.variances), np.array(self.transitions)
            )
        except ValueError as error:
            raise ModelError(f"ragged HMM parameters ({error}): export the model again") from error


class UnseenVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """How the model did on symbols it was not trained on."""

    symbols: tuple[str, ...]
    accuracy: float
    passed: bool


class Manifest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything needed to trust a model file.

    Attributes:
        schema_id: of the candle features the model was made from.
        feature_names: columns of the input, in order; ``("z",)`` for the HMM.
        class_order: regime names by class index.
        origin: whether it was trained on a real or a simulated market.
        symbols: those it was trained on.
        data_sha256: over the training candles.
        scaler: of the LSTM.
        temperature: the LSTM's logits are divided by it.
        window: valid rows, the current one included, that the LSTM reads; an HMM goes from
            candle to candle and has no use for it.
        definition: of the HMM.
        hmm_sha256: for an LSTM, the HMM file whose labels and scores it was trained with.
        metrics: by section ``train validation test baselines_validation baselines_test …``.
        gates: verdicts as judged when the file was made; promotion judges again.
        golden: at least one.
        expires_ms: from when on the model is refused, UTC.
        unseen: None when it was never measured; other symbols are then refused.
        continued_from: sha256 of the LSTM whose weights it started from; empty without one.
    """

    kind: ModelKind
    schema_id: str
    feature_names: tuple[str, ...]
    interval: str
    origin: Origin
    market: Market
    symbols: tuple[str, ...]
    cuts: Cuts
    data_sha256: str
    metrics: Metrics
    golden: tuple[GoldenVector, ...]
    created_ms: int
    expires_ms: int
    code_version: str
    gates: tuple[GateVerdict, ...] = ()
    class_order: tuple[str, ...] = REGIME_LABELS
    scaler: Scaler | None = None
    temperature: float | None = None
    window: int = WINDOW
    definition: HmmDefinition | None = None
    hmm_sha256: str = ""
    unseen: UnseenVerdict | None = None
    continued_from: str = ""
    format: int = FORMAT

    @property
    def gates_passed(self) -> bool:
        """Whether there are verdicts and none of them failed."""
        return bool(self.gates) and all(gate.passed for gate in self.gates)

    def admits(self, symbol: str) -> bool:
        """Whether the model may name regimes of this symbol: trained on it, or proven unseen."""
        return symbol in self.symbols or (self.unseen is not None and self.unseen.passed)

    def encode(self) -> bytes:
        """Return the canonical JSON."""
        return msgspec.json.encode(self, order="sorted")


def decode_manifest(data: bytes | str) -> Manifest:
    """Read a manifest.

    Raises:
        ModelError: it is no manifest of this format.
    """
    try:
        return msgspec.json.decode(data, type=Manifest)
    except UNREADABLE as error:
        raise ModelError(
            f"unreadable manifest: {error}; expected a manifest of format {FORMAT}: "
            "train and export the model again with this version"
        ) from error
