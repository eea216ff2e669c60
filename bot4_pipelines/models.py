"""The archived models, as the command line has them: promoted, rolled back, listed, scored."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bot4_pipelines.records import Folders, Records, now_ms
from bot4_pipelines.step_numbers import pair_numbers
from bot4_runtime.domain.candle import Market

if TYPE_CHECKING:
    from bot4_runtime.candles.series import CandleSeries
    from bot4_runtime.regime.manifest import Manifest


def promote_pair(
    folders: Folders, interval: str, pair: tuple[str, str] | None, despite: str = ""
) -> dict[str, Any]:
    """Judge a pair again, audit it and compare it with the champion, and promote it.

    Both are done on the stored candles of its interval, market and origin.

    Args:
        folders: where to work.
        interval: of the models.
        pair: sha256, or its first digits, of HMM and LSTM; None takes the last candidates.
        despite: the reason to promote it though it is worse than the champion.

    Raises:
        ModelError: a model is unknown, refused by a gate, looks ahead, or does not hold.
    """
    from bot4_pipelines.training.promotion import promote
    from bot4_runtime.candles.store import CandleStore
    from bot4_runtime.regime.archive import ModelArchive
    from bot4_runtime.regime.registry import ModelRegistry

    registry = ModelRegistry(folders.models)
    if pair is None:
        records = Records(folders.of_interval(interval).work)
        hmm, lstm = (
            records.need(name, name).content for name in ("hmm_candidate", "lstm_candidate")
        )
    else:
        archive = ModelArchive(folders.models)
        hmm, lstm = (archive.whole(prefix) for prefix in pair)
    store = CandleStore(folders.candles)

    def candles(challenger: "Manifest") -> "list[CandleSeries]":
        return [
            store.read(one)
            for one in store.list_series()
            if one.interval == challenger.interval
            and one.market is challenger.market
            and one.origin is challenger.origin
        ]

    made = promote(registry, interval, hmm, lstm, now_ms(), candles=candles, despite=despite)
    _announce(interval)
    return pair_numbers(interval, made, registry.activations(interval)[-1])


def rollback_pair(folders: Folders, interval: str) -> dict[str, Any]:
    """Activate the pair that was promoted before the present one.

    Raises:
        ModelError: there is none, or it does not hold any more.
    """
    from bot4_pipelines.training.promotion import rollback
    from bot4_runtime.regime.registry import ModelRegistry

    made = rollback(ModelRegistry(folders.models), interval, now_ms())
    _announce(interval)
    return pair_numbers(interval, made)


def _announce(interval: str) -> None:
    """Tell running processes, where there is a Redis; they notice by themselves else."""
    from bot4_runtime.regime.notice import REDIS_URL, announce

    url = os.environ.get(REDIS_URL, "")
    failed = announce(url, interval) if url else ""
    if failed:
        sys.stderr.write(f"{failed}\n")


def list_models(folders: Folders) -> list[dict[str, Any]]:
    """Return every archived model, newest first."""
    from bot4_runtime.regime.registry import ModelRegistry

    rows = []
    for model in ModelRegistry(folders.models).list():
        row: dict[str, Any] = {
            "sha256": model.sha256,
            "current": list(model.active),
            "problem": model.problem,
        }
        if model.manifest is not None:
            manifest = model.manifest
            row |= {
                "kind": manifest.kind.value,
                "interval": manifest.interval,
                "lookback": manifest.window if manifest.hmm_sha256 else None,
                "origin": manifest.origin.value,
                "market": manifest.market.value,
                "symbols": list(manifest.symbols),
                "created_ms": manifest.created_ms,
                "expires_ms": manifest.expires_ms,
                "gates_passed": manifest.gates_passed,
                "validation_accuracy": manifest.metrics.get("validation", {}).get("accuracy"),
                "test_accuracy": manifest.metrics.get("test", {}).get("accuracy"),
                "hmm_sha256": manifest.hmm_sha256,
            }
        rows.append(row)
    return rows


def evaluate_folder(
    folders: Folders,
    folder: Path,
    market: Market,
    symbols: Sequence[str] | None,
    since_ms: int | None,
) -> dict[str, Any]:
    """Score the promoted models on a folder of candle files.

    Returns:
        What `evaluate_candles` returns, and ``findings``: what quality rules say of the candles.
        No candle is left out of the scores for it.

    Raises:
        DataError: files are unreadable, a symbol is not there, or nothing can be scored.
        ModelError: no models are promoted for the files' interval.
    """
    from bot4_pipelines.ingest.quality import judge_series
    from bot4_pipelines.training.evaluation import evaluate_candles
    from bot4_runtime.candles.files import read_candle_folder
    from bot4_runtime.regime.registry import ModelRegistry

    series = read_candle_folder(folder, market, symbols)
    document = evaluate_candles(ModelRegistry(folders.models), series, since_ms, symbols)
    document["findings"] = [
        {
            "symbol": one.id.symbol,
            "severity": finding.severity.value,
            "code": finding.code.value,
            "rows": finding.count,
            "says": finding.message,
        }
        for one in series
        for finding in judge_series(one)
    ]
    return document
