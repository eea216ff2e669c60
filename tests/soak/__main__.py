"""`python -m tests.soak [--minutes N] [--seed N] [--write]`: the engine for an hour, by the clock.

`bot4-runtime start --mode testnet` runs as a process against a venue in this one, whose faults
change every minute. Its memory is watched; at the end both sides must agree on every order,
trade and balance. --write puts the numbers into docs/soak.md. Unless it passes, the folder of the
run stays and is named: log, journal, and what the venue saw. Exit code 1: something is wrong; 3:
too little happened to say anything.
"""

import argparse
import os
import platform
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from statistics import median

import msgspec
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
REPORT = ROOT / "docs" / "soak.md"
sys.path[:0] = [str(HERE), str(ROOT)]

from soak_venue import INTERVAL, KEY, LEFT_OUT, SYMBOLS, SoakVenue  # noqa: E402

from bot4_runtime.rehearsal.exposure import overdue, unprotected  # noqa: E402
from bot4_runtime.rehearsal.oracles import judge  # noqa: E402
from bot4_runtime.rehearsal.performance import LOOSE  # noqa: E402
from bot4_runtime.rehearsal.verdict import EXIT_CODES, Outcome  # noqa: E402
from bot4_runtime.state.reader import JournalReader  # noqa: E402
from bot4_runtime.venue.hosting import hosted  # noqa: E402

DEPOSITS = {"USDT": Decimal(100_000)}
TICK_S = 0.25
SAMPLE_S = 5.0
CALM_S = 80.0
"""Without faults and entries at the end, until all that is unclear has cleared up."""
FLAT = 0.05
"""Share by which memory may grow from the second quarter of the time to the last."""
RISK = {f"BOT4_RISK__{name.upper()}": str(value) for name, value in LOOSE.items()}
LEAST = {"minutes": 60, "orders_held_by_venue": 60, "trades": 30, "faults": 120}
"""What must have happened, for anything to be shown."""


def main(arguments=None):
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=4)
    parser.add_argument("--write", action="store_true", help="write docs/soak.md")
    options = parser.parse_args(arguments)
    home = Path(tempfile.mkdtemp(prefix="bot4-soak-"))
    measured = soak(home, options.minutes, options.seed)
    text = told(measured)
    Console().print(text, markup=False, highlight=False)
    if options.write:
        REPORT.write_text(text)
    if outcome(measured) is Outcome.PASSED:
        shutil.rmtree(home)
    else:
        Console(stderr=True).print(f"log and journals: {home}", markup=False, highlight=False)
    return EXIT_CODES[outcome(measured)]


def outcome(measured):
    """Return what the numbers show: silence never passes, and a violation always counts."""
    if measured["violations"] or not measured["memory_growth"] <= FLAT:
        return Outcome.VIOLATED
    enough = all(measured[name] >= least for name, least in LEAST.items())
    return Outcome.PASSED if enough else Outcome.INCONCLUSIVE


def soak(home, minutes, seed):
    """Let the engine run; return what was measured."""
    made = SoakVenue(DEPOSITS, minutes / 60 + 2, seed)
    memory = []
    with hosted(made.venue) as server, _progress(minutes) as advance:
        log = (home / "engine.log").open("w")
        engine = _started(home, server.port, log)
        began = time.monotonic()
        minute = 0  # in which the engine starts undisturbed
        while (elapsed_s := time.monotonic() - began) < minutes * 60 + CALM_S:
            if elapsed_s >= minutes * 60:
                if minute is not None:
                    minute = None
                    server.do(made.calm)
                    _halted(home)
            elif minute is not None and int(elapsed_s // 60) != minute:
                minute = int(elapsed_s // 60)
                server.do(lambda now=minute: made.misbehave(now))
            server.do(made.move)
            if len(memory) * SAMPLE_S <= elapsed_s:
                memory.append(_memory_mb(engine.pid))
            advance(min(elapsed_s, minutes * 60))
            assert engine.poll() is None, (home / "engine.log").read_text()[-4_000:]
            time.sleep(TICK_S)
        seconds = _ended(engine)
        log.close()
    return {"minutes": minutes, "seed": seed, "end_s": seconds, **_judged(home, made, memory)}


def growth(memory):
    """Return the share by which memory grew from the second quarter to the last."""
    quarter = max(1, len(memory) // 4)
    return median(memory[-quarter:]) / median(memory[quarter : 2 * quarter] or memory) - 1.0


def _judged(home, made, memory):
    entries, account = made.sink.entries, made.account
    (home / "venue.jsonl").write_bytes(b"\n".join(map(msgspec.json.encode, entries)))
    folder = home / "state" / "soak"
    with JournalReader.open(folder / "journal.sqlite") as journal:
        found = judge(
            entries,
            account,
            made.venue.exchange.orders(account),
            (event for _, event in journal.events()),
            journal.state(folder / "snapshots"),
            DEPOSITS,
        )
    spans, bare = unprotected(entries, made.least)
    for symbol in sorted(bare):
        found.violated(f"what is held of {symbol} has no stop at the end")
    for span in overdue(spans, entries):
        found.violated(f"what was held of {span.symbol} had no stop for {span.length_s:,.0f} s")
    faults = Counter(entry.body["fault"] for entry in entries if entry.kind == "fault")
    return {
        "orders_intended": found.intended,
        "orders_held_by_venue": found.held,
        "duplicates": found.duplicates,
        "lost": found.lost,
        "trades": found.trades,
        "fills_missing": found.fills_missing,
        "fills_invented": found.fills_invented,
        "limits_exceeded": found.limits_exceeded,
        "requests": sum(entry.kind == "request" for entry in entries),
        "faults": faults.total(),
        "kinds_of_faults": len(faults),
        "without_stop_longest_s": max((span.length_s for span in spans), default=0),
        "memory_mb_first": round(memory[0], 1),
        "memory_mb_median": round(median(memory), 1),
        "memory_mb_most": round(max(memory), 1),
        "memory_growth": round(growth(memory), 4),
        "violations": found.violations,
    }


def told(measured):
    """Return the numbers as the page docs/soak.md."""
    goals = {name: (f">= {least}", measured[name] >= least) for name, least in LEAST.items()} | {
        "memory_growth": (f"<= {FLAT}", measured["memory_growth"] <= FLAT),
        "violations": ("0", not measured["violations"]),
    }
    rows = []
    for name, value in measured.items():
        goal, met = goals.get(name, ("", None))
        shown = len(value) if isinstance(value, list) else f"{value:,}"
        word = "" if met is None else ("met" if met else "MISSED")
        rows.append(f"| {name} | {shown} | {goal} | {word} |")
    lines = [
        "# Soak",
        "",
        "Written by `make soak` (an hour; `MINUTES=10` for less): `bot4-runtime start --mode "
        "testnet` as a process against a venue on the same machine, whose faults change every "
        "minute. The market is SIMULATED: it rises, so that no row of losses ends the trading, and "
        "falls every tenth minute, so that stops are hit. The strategy enters each symbol every "
        "third minute and leaves it in the next.",
        "",
        f"Measured {datetime.now(UTC):%Y-%m-%d} for {measured['minutes']:g} minutes, "
        f"{os.cpu_count()} cores, Python {platform.python_version()}. Memory is what the "
        "engine's process has in it besides files (RssAnon), every five seconds; its growth is "
        "that of the last quarter's median over the second's. Some faults are left out, since they would leave little of "
        f"the hour to trade in: {', '.join(sorted(LEFT_OUT))}; `bot4-runtime rehearse` has them.",
        "",
        "| what | measured | goal | |",
        "|---|---|---|---|",
        *rows,
        "",
        f"Verdict: {outcome(measured)}."
        + (" Too little happened to show anything." * (outcome(measured) is Outcome.INCONCLUSIVE)),
        "",
        *(f"- {violation}" for violation in measured["violations"]),
    ]
    return "\n".join(lines).rstrip() + "\n"


def _started(home, port, log):
    environment = os.environ | {
        "BOT4_HOME": str(home),
        "BOT4_MODELS": str(home / "models"),
        "BOT4_BINANCE__REST_URL": f"http://127.0.0.1:{port}",
        "BOT4_BINANCE__STREAM_URL": f"ws://127.0.0.1:{port}/ws-api/v3",
        "BOT4_BINANCE_API_KEY": KEY,
        "BOT4_BINANCE_SECRET": KEY,
        **RISK,
        "PYTHONPATH": f"{HERE}:{ROOT}",
    }
    words = ["start", "--mode", "testnet", "--source", "binance", "--interval", INTERVAL,
             "--symbols", ",".join(SYMBOLS), "--strategy", "soak_strategy:Busy",
             "--account", "soak"]  # fmt: skip
    return subprocess.Popen(
        [sys.executable, "-m", "bot4_runtime", *words],
        env=environment,
        stdout=log,
        stderr=log,
        cwd=home,
    )


def _halted(home):
    """Let the operator halt: entries that rest are called back while the engine still listens."""
    subprocess.run(
        [sys.executable, "-m", "bot4_runtime", "halt", "--account", "soak", "--reason", "the end"],
        env=os.environ | {"BOT4_HOME": str(home), "PYTHONPATH": str(ROOT)},
        check=True,
        capture_output=True,
    )


def _ended(engine):
    began = time.monotonic()
    engine.send_signal(signal.SIGTERM)
    code = engine.wait(60)
    assert code == 0, f"the engine ended with {code}"
    return round(time.monotonic() - began, 2)


def _memory_mb(pid):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) / 1024
    return 0.0


class _progress:
    """A progress bar over the minutes."""

    def __init__(self, minutes):
        columns = (TextColumn("Soaking"), BarColumn(), TimeRemainingColumn())
        self._bar = Progress(*columns, console=Console(stderr=True), transient=True)
        self._task = self._bar.add_task("soak", total=minutes * 60)

    def __enter__(self):
        self._bar.start()
        return lambda done_s: self._bar.update(self._task, completed=done_s)

    def __exit__(self, *_):
        self._bar.stop()


if __name__ == "__main__":
    sys.exit(main())
