"""What a regime model must beat: the commonest regime, a late label, fixed cuts, a linear model.

They are fitted on training candles and travel in the LSTM's manifest as plain numbers, so that
`bot4-pipelines evaluate` can put them beside the models on any candles.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from bot4_pipelines.training.cuts import split_slices
from bot4_pipelines.training.dataset import (
    CLASSES,
    INPUT_NAMES,
    Scaler,
    SymbolRows,
    fit_scaler,
    inside,
)
from bot4_pipelines.training.labels import hindsight_labels
from bot4_runtime.domain.errors import ModelError
from bot4_runtime.regime.hmm import HmmParameters
from bot4_runtime.regime.manifest import Cuts

LAG: Final = 6
"""Candles after which a hindsight label has almost surely (.994) stopped changing."""
_GRID: Final = np.linspace(-3.0, 3.0, 1_201)


@dataclass(frozen=True)
class FittedBaselines:
    """Baselines fitted on training candles.

    Attributes:
        majority: the commonest regime.
        cuts: float64[4], increasing; z between two of them names a regime.
        scaler: of the logistic regression's inputs.
        weights: float64[5, 28], of the logistic regression on the last candle.
        bias: float64[5].
    """

    majority: int
    cuts: np.ndarray
    scaler: Scaler
    weights: np.ndarray
    bias: np.ndarray

    def static_cuts(self, z: np.ndarray) -> np.ndarray:
        """Name regimes by four thresholds on z float64[n]; int64[n]."""
        return np.searchsorted(self.cuts, z)

    def logistic(self, inputs: np.ndarray) -> np.ndarray:
        """Return probabilities float64[n, 5] from the last candle's inputs float64[n, 28]."""
        logits = self.scaler.apply(inputs) @ self.weights.T + self.bias
        logits -= logits.max(axis=1, keepdims=True)
        shares = np.exp(logits)
        return np.asarray(shares / shares.sum(axis=1, keepdims=True))

    def numbers(self) -> dict[str, float | None]:
        """Return everything as one flat section of a manifest's metrics."""
        found: dict[str, float | None] = {"majority": float(self.majority)}
        found |= {f"cut_{k}": float(cut) for k, cut in enumerate(self.cuts)}
        found |= {f"bias_{k}": float(bias) for k, bias in enumerate(self.bias)}
        for column, name in enumerate(INPUT_NAMES):
            found[f"mean_{name}"] = float(self.scaler.mean[column])
            found[f"scale_{name}"] = float(self.scaler.deviation[column])
            for k in range(CLASSES):
                found[f"weight_{k}_{name}"] = float(self.weights[k, column])
        return found

    @classmethod
    def from_numbers(cls, numbers: Mapping[str, float | None]) -> "FittedBaselines":
        """Rebuild them from `numbers()`.

        Raises:
            ModelError: a number is missing.
        """

        def get(name: str) -> float:
            value = numbers.get(name)
            if value is None:
                raise ModelError(
                    f"the model's manifest has no baseline number {name!r}; "
                    "expected baselines fitted with the model: train again"
                )
            return value

        def column(prefix: str, names: Sequence[object]) -> np.ndarray:
            return np.array([get(f"{prefix}_{name}") for name in names])

        classes = range(CLASSES)
        return cls(
            majority=int(get("majority")),
            cuts=column("cut", range(CLASSES - 1)),
            scaler=Scaler(column("mean", INPUT_NAMES), column("scale", INPUT_NAMES)),
            weights=np.stack([column(f"weight_{k}", INPUT_NAMES) for k in classes]),
            bias=column("bias", classes),
        )


def fit_baselines(
    symbols: Sequence[SymbolRows], params: HmmParameters, cuts: Cuts, most: int = 30_000
) -> FittedBaselines:
    """Fit all baselines on the training range.

    Args:
        symbols: all training symbols, whole history.
        params: the HMM fitted on the training range.
        cuts: the splits' boundaries.
        most: rows the logistic regression is fitted on, spread evenly.
    """
    inputs, labels = [], []
    for rows in symbols:
        train = split_slices(rows.table.open_time_ms, cuts)["train"]
        known = hindsight_labels(rows.table.z, params, [train])
        use = rows.learnable & inside(len(rows.table), train) & (known >= 0)
        inputs.append(rows.inputs[use])
        labels.append(known[use])
    x, y = np.concatenate(inputs), np.concatenate(labels)
    stride = -(-len(y) // most)
    weights, bias, scaler = _fit_logistic(x[::stride], y[::stride])
    return FittedBaselines(
        majority=int(np.bincount(y, minlength=CLASSES).argmax()),
        cuts=fit_cuts(x[:, INPUT_NAMES.index("trend_0")], y),
        scaler=scaler,
        weights=weights,
        bias=bias,
    )


def fit_cuts(z: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Find the four mirror-symmetric cuts on z that agree with most labels.

    The agreement is a sum of one term a cut, so each is found by itself.

    Args:
        z: float64[n].
        labels: int64[n].

    Returns:
        float64[4], increasing.
    """
    both, names = np.concatenate([z, -z]), np.concatenate([labels, CLASSES - 1 - labels])
    below = [np.searchsorted(np.sort(both[names == k]), _GRID) for k in range(CLASSES)]
    cuts = np.array([_GRID[np.argmax(below[k] - below[k + 1])] for k in range(CLASSES - 1)])
    return np.sort(0.5 * (cuts - cuts[::-1]))


def _fit_logistic(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray, Scaler]:
    from sklearn.linear_model import LogisticRegression

    scaler = fit_scaler(x)
    model = LogisticRegression(max_iter=1_000, tol=1e-3).fit(scaler.apply(x), y)
    weights, bias = np.zeros((CLASSES, x.shape[1])), np.full(CLASSES, -1e3)
    weights[model.classes_], bias[model.classes_] = model.coef_, model.intercept_
    return weights, bias, scaler
