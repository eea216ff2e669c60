"""What the user should know of a run before it starts."""

from bot4_runtime.app.options import RunOptions
from bot4_runtime.app.promoted import PromotedModels
from bot4_runtime.domain.candle import Origin
from bot4_runtime.domain.events import SessionStarted
from bot4_runtime.sources import CandleSource, utc
from bot4_runtime.state.store import StateStore


def source_notices(source: CandleSource) -> list[str]:
    """Return what the source has to say: whether its market is made up."""
    if source.origin is Origin.SIMULATED:
        return ["The market is SIMULATED: prices are made up, results mean nothing for real ones."]
    return []


def model_notices(models: PromotedModels | None, source: CandleSource, start_ms: int) -> list[str]:
    """Return how far the models may be believed on these candles; nothing where none are used."""
    if models is None:
        return []
    notices = list(models.warnings)
    manifest = models.pair.deciding
    if manifest.origin is not source.origin:
        notices.append(
            f"The models were trained on {manifest.origin.value} candles, the source is "
            f"{source.origin.value}."
        )
    elif start_ms < manifest.cuts.test_start_ms:
        notices.append(
            f"Candles before {utc(manifest.cuts.test_start_ms)} were seen in training or "
            "validation: results on them are in sample."
        )
    if not models.evidence():
        notices.append(
            "There is no evidence record of these models: every entry will be rejected "
            "(NO_EVIDENCE). `bot4-pipelines run` writes it."
        )
    return notices


def standing_notices(
    store: StateStore, first: SessionStarted | None, options: RunOptions, held: str
) -> list[str]:
    """Return what the state of an account has to say about going on with it.

    `held` says why no entry may be sent in this run; it is empty when some may.
    """
    notices = [
        f"No entry will be sent, exits and stops will: {why}"
        for why in (held, store.distress)
        if why
    ]
    if first is not None and options.from_ms not in {None, first.start_ms}:
        notices.append(
            f"This account decides from {utc(first.start_ms)} on and goes on where it stopped: "
            "--from is ignored. Another --account begins anew."
        )
    stands_ms = max(store.state.cursor.values(), default=0)
    if options.to_ms is not None and options.to_ms <= stands_ms:
        notices.append(
            f"This account's last candle opened at {utc(stands_ms)}, past --to "
            f"{utc(options.to_ms)}: there is nothing left to trade before it."
        )
    return notices
