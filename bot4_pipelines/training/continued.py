"""Goes on from an archived LSTM: its weights and its scaler are where the next training starts."""

from dataclasses import dataclass

import numpy as np

from bot4_pipelines.training.dataset import INPUT_NAMES, Scaler
from bot4_pipelines.training.lstm_export import graph_weights
from bot4_runtime.domain.errors import ModelError
from bot4_runtime.regime.archive import MODEL, ModelArchive
from bot4_runtime.regime.manifest import WINDOW, Cuts, Manifest, ModelKind
from bot4_runtime.regime.registry import ModelRegistry


@dataclass(frozen=True)
class Start:
    """Where a training starts.

    Attributes:
        sha256: of the model gone on from.
        weights: as `LstmFit` has them.
        scaler: kept, since the weights were learnt on inputs scaled by it.
    """

    sha256: str
    weights: dict[str, np.ndarray]
    scaler: Scaler


def start_from(
    registry: ModelRegistry,
    prefix: str,
    *,
    interval: str,
    cuts: Cuts,
    held_out: tuple[str, ...] = (),
    window: int = WINDOW,
) -> Start:
    """Read where to go on from; the model may have expired, but must hold otherwise.

    Args:
        registry: the model store.
        prefix: sha256 of the LSTM, or its first digits.
        interval: of the candles to train on.
        cuts: of the training to come.
        held_out: symbols the next model is to be judged on as unseen.
        window: candles the next model is to read.

    Raises:
        ModelError: there is no such LSTM, it does not hold, is of another interval, other
            inputs or another window, or has learnt from candles that the next model is to be
            judged on.
    """
    archive = ModelArchive(registry.root)
    sha256 = archive.whole(prefix)
    manifest = registry.verify(sha256).manifest
    _check(sha256, manifest, interval, cuts, held_out, window)
    assert manifest.scaler is not None  # _check  # noqa: S101
    scaler = Scaler(np.array(manifest.scaler.mean), np.array(manifest.scaler.scale))
    return Start(sha256, graph_weights(archive.read(sha256, MODEL)), scaler)


def _check(
    sha256: str,
    manifest: Manifest,
    interval: str,
    cuts: Cuts,
    held_out: tuple[str, ...],
    window: int,
) -> None:
    seen = sorted(set(held_out) & set(manifest.symbols))
    problem = ""
    if manifest.kind is not ModelKind.LSTM or manifest.scaler is None:
        problem = "it is no LSTM"
    elif manifest.feature_names != INPUT_NAMES or manifest.interval != interval:
        problem = f"it reads other inputs, or candles of {manifest.interval}, not {interval}"
    elif manifest.window != window:
        problem = f"it reads {manifest.window} candles, not {window} (BOT4_LOOKBACK)"
    elif manifest.cuts.validation_start_ms > cuts.validation_start_ms:
        problem = "it was trained on candles that the next model is to be judged on"
    elif seen:
        problem = f"it was trained on {', '.join(seen)}, which is held out"
    if problem:
        raise ModelError(
            f"cannot go on from model {sha256[:12]}: {problem}; train anew without --from-model"
        )
