"""One worker of one cell of `benchmarks.bench_pipeline`: a process of its own, as peak memory is.

``python -m benchmarks.pipeline_cell`` reads a `Work` as JSON, says ``ready`` once everything is
imported, waits for a line, works on the simulated market, and says what it did in lines of JSON:
``{"says": …}`` while it works, ``{"done": …}`` at the end.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec

from bot4_pipelines.fleet import Fleet, SeriesPart
from bot4_pipelines.records import Folders
from bot4_runtime.candles import simulated
from bot4_runtime.features.schema import feature_schema_id
from bot4_runtime.regime.registry import CurrentPair

LAST_YEAR = 2024
"""The simulated market ends with it."""


@dataclass(frozen=True)
class Work:
    """What a worker does.

    Attributes:
        symbols: whose series it ingests, year by year, and computes features of.
        years: of history.
        home: BOT4_HOME, shared with other workers of the cell.
        learn: whether it also makes the interval's models, as far as they cost by the candle.
    """

    symbols: tuple[str, ...]
    years: int
    interval: str
    home: str
    learn: bool = False


def prepare(work: Work, say: Callable[[str], None]) -> dict[str, float]:
    """Ingest and compute features; return CPU seconds, wall seconds, candles and bytes."""
    folders = Folders(Path(work.home), Path(work.home) / "models")
    fleet = Fleet(folders, _silent)
    parts = [SeriesPart(symbol, work.interval) for symbol in work.symbols]
    began, busy = time.perf_counter(), time.process_time()
    candles = 0
    for part in parts:
        say(f"ingesting {part.key}")
        for year in range(LAST_YEAR - work.years + 1, LAST_YEAR + 1):
            candles += fleet.candles(part, year).record.numbers["candles"]
        simulated._block.cache_clear()  # noqa: SLF001 - the market's own memory is not a fleet's
    ingested = time.process_time()
    for part in parts:
        say(f"computing {part.key}")
        fleet.features(part)
    return {
        "candles": candles,
        "ingest_cpu_s": ingested - busy,
        "features_cpu_s": time.process_time() - ingested,
        "wall_s": time.perf_counter() - began,
    }


def learn(work: Work, say: Callable[[str], None]) -> dict[str, dict[str, float]]:
    """Make an interval's models of what is prepared; return CPU seconds and peak MB by step.

    The LSTM is trained one step, since steps cost the same whatever the pool. It could not pass
    its gates, so nothing is promoted: evidence is gathered as of a pair that was.
    """
    folders = Folders(Path(work.home), Path(work.home) / "models")
    parts = [SeriesPart(symbol, work.interval) for symbol in work.symbols]
    flow = Fleet(folders, lambda message, _: say(message)).pool(work.interval, parts).flow
    told = {}

    def step(name: str, call: Callable[[], Any]) -> Any:
        forget_peak()
        busy = time.process_time()
        made = call()
        told[name] = {"cpu_s": time.process_time() - busy, "peak_mb": peak_mb()}
        return made

    hmm = step("hmm", flow.hmm_candidate).record.content
    step("labels", flow.hindsight_labels)
    lstm = step("lstm", lambda: flow.lstm_candidate(iterations=1)).record.content
    step("leak audit", flow.leak_audit)
    pair = CurrentPair(
        hmm_sha256=hmm,
        lstm_sha256=lstm,
        schema_id=feature_schema_id(),
        hmm_code_version="",
        lstm_code_version="",
        activated_ms=0,
    )
    path = folders.models / "evidence.json"
    step("evidence", lambda: flow._evidence(pair, path))  # noqa: SLF001 - behind the gates
    return told


def disk(home: Path) -> dict[str, int]:
    """Return the bytes below BOT4_HOME by what they are."""
    found = {
        "candles": [*(home / "candles").rglob("*.parquet")],
        "features": [*(home / "pipelines").rglob("features/**/*.parquet")],
        "labels": [*(home / "pipelines").rglob("labels/**/*.parquet")],
        "records": [*(home / "pipelines").rglob("series/**/*.json")],
    }
    return {name: sum(path.stat().st_size for path in paths) for name, paths in found.items()}


def peak_mb() -> float:
    """Return the most memory this process held since it was forgotten, MB (Linux)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    (line,) = (line for line in lines if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024 / 1e6


def forget_peak() -> None:
    """Let the peak begin anew from what is held now."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")


def worked(work: Work, say: Callable[[str], None]) -> dict[str, Any]:
    """Do the work; memory is that above what the process held before."""
    forget_peak()
    before = peak_mb()
    told: dict[str, Any] = prepare(work, say)
    told |= {"before_mb": before, "peak_mb": peak_mb()}
    if work.learn:
        told["steps"] = learn(work, say)
    return told | {"bytes": disk(Path(work.home))}


def _silent(*_: object) -> None:
    return None


def main() -> None:
    work = msgspec.json.decode(sys.argv[1], type=Work)
    os.environ["BOT4_CANDLES_SOURCE"] = "simulated"
    os.environ["BOT4_YEARS"] = str(work.years + 1)  # so that the first is whole
    warm = Work((work.symbols[0],), 1, work.interval, f"{work.home}/warm-{os.getpid()}")
    prepare(warm, _silent)  # what is imported, and computed once, inside functions
    print("ready", flush=True)
    sys.stdin.readline()
    told = worked(work, lambda words: print(json.dumps({"says": words}), flush=True))
    print(json.dumps({"done": told, "work": asdict(work)}), flush=True)


if __name__ == "__main__":
    main()
