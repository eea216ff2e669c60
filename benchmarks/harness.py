"""Times calls and prints them as claims: measured, specified, goal, floor and peer."""

import functools
import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from bot4_runtime import build

ROOT: Final = Path(__file__).resolve().parent.parent
PEER_PYTHON: Final = ROOT / ".venv-peers" / "bin" / "python"
"""Other libraries live in an environment of their own; `make bench` makes it."""
PEER_SECONDS: Final = 900
ROUND_NS: Final = 100_000
"""Least length of a round: short, so that what other processes take falls on few of them."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What one row says: the best, the middle and the worst percent of many rounds.

    Attributes:
        kind: ``ours``, ``floor`` (what Python itself costs) or ``peer`` (another library).
        min: the best round; the largest where more is better.
        p99: what 99 % of the rounds were no worse than.
        unit: of all numbers: ``ns``, ``/s``, ``bars/CPU-s``, ``ms``, ``MB`` …
        specified: what the specification asks for; None where it says nothing.
        goal: what we ask of ourselves.
        better: ``lower`` or ``higher``.
        note: what the row does not say by itself.
    """

    name: str
    kind: str
    min: float
    median: float
    p99: float
    unit: str = "ns"
    specified: float | None = None
    goal: float | None = None
    better: str = "lower"
    note: str = ""

    @property
    def targets(self) -> bool:
        """Whether anything is asked of it."""
        return self.specified is not None or self.goal is not None

    @property
    def met(self) -> bool:
        """Whether the median keeps what was specified and the goal; NaN keeps nothing."""
        return all(
            self.median <= wanted if self.better == "lower" else self.median >= wanted
            for wanted in (self.specified, self.goal)
            if wanted is not None
        )


def measure(
    name: str,
    call: Callable[..., object],
    *arguments: object,
    kind: str = "ours",
    specified: float | None = None,
    goal: float | None = None,
    seconds: float = 0.4,
    per_call: int = 1,
) -> Result:
    """Time a call in nanoseconds, loop cost taken off.

    Args:
        name: what the row says.
        call: the operation, called with `arguments`.
        kind: ``ours``, ``floor`` or ``peer``.
        specified: nanoseconds it may take.
        goal: nanoseconds it should take.
        seconds: how long to measure for.
        per_call: operations one call performs.
    """
    clock, timed = time.perf_counter_ns, _timer(len(arguments))
    loops = 1
    while True:
        if min(timed(loops, call, *arguments) for _ in range(5)) > ROUND_NS:
            break
        loops *= 2
    empty = min(_empty_loop(loops) for _ in range(20))
    rounds: list[float] = []
    end = clock() + int(seconds * 1e9)
    while clock() < end or len(rounds) < 20:
        rounds.append((timed(loops, call, *arguments) - empty) / loops / per_call)
    return of_rounds(name, rounds, kind=kind, specified=specified, goal=goal)


def throughput(
    name: str,
    call: Callable[[], int],
    *,
    unit: str = "/s",
    kind: str = "ours",
    specified: float | None = None,
    goal: float | None = None,
    rounds: int = 5,
    clock: Callable[[], int] = time.perf_counter_ns,
    note: str = "",
) -> Result:
    """Count what is done in a second; more is better.

    Args:
        name: what the row says.
        call: does the work and returns how many operations it was.
        unit: of the numbers.
        kind: ``ours``, ``floor`` or ``peer``.
        specified: operations a second there must be.
        goal: operations a second there should be.
        rounds: calls.
        clock: nanoseconds; `time.process_time_ns` counts the CPU of all threads.
        note: what the row does not say by itself.
    """
    rates = []
    for _ in range(rounds):
        start = clock()
        done = call()
        rates.append(done * 1e9 / (clock() - start))
    return of_rounds(
        name, rates, unit=unit, kind=kind, specified=specified, goal=goal,
        better="higher", note=note,
    )  # fmt: skip


def of_rounds(
    name: str,
    rounds: Sequence[float],
    *,
    unit: str = "ns",
    kind: str = "ours",
    specified: float | None = None,
    goal: float | None = None,
    better: str = "lower",
    note: str = "",
) -> Result:
    """Make a row of numbers that were taken elsewhere."""
    ordered = sorted(rounds, reverse=better == "higher")
    return Result(
        name=name,
        kind=kind,
        min=ordered[0],
        median=statistics.median(ordered),
        p99=ordered[min(len(ordered) - 1, int(0.99 * len(ordered)))],
        unit=unit,
        specified=specified,
        goal=goal,
        better=better,
        note=note,
    )


@functools.cache
def _timer(count: int) -> Callable[..., int]:
    """Return a function that times calls of so many arguments, passed as programs pass them."""
    names = "".join(f", a{number}" for number in range(count))
    source = (
        f"def timed(loops, call{names}):\n"
        "    start = clock()\n"
        "    for _ in range(loops):\n"
        f"        call({names.removeprefix(', ')})\n"
        "    return clock() - start\n"
    )
    made: dict[str, Callable[..., int]] = {}
    exec(source, {"clock": time.perf_counter_ns}, made)  # as timeit does
    return made["timed"]


def _empty_loop(loops: int) -> int:
    start = time.perf_counter_ns()
    for _ in range(loops):
        pass
    return time.perf_counter_ns() - start


def empty_call(event: object) -> None:
    """Do nothing; the cost of a Python call."""


def floors() -> list[Result]:
    """What an empty Python call and a deque append cost here, now."""
    from collections import deque

    box: deque[object] = deque(maxlen=1000)
    return [
        measure("empty Python call", empty_call, 1, kind="floor"),
        measure("deque.append", box.append, 1, kind="floor"),
    ]


def peers(name: str, *arguments: str) -> list[Result]:
    """Run `benchmarks/peers/NAME.py` in the peers' own environment, now.

    The script prints a JSON list of {"name", "min", "median", "p99", "unit"}, and may add
    "better" and "note". A peer that is not there, or fails, is said, never an error.
    """
    script = ROOT / "benchmarks" / "peers" / f"{name}.py"
    if not PEER_PYTHON.exists():
        print(f"no peers for {name}: there is no {PEER_PYTHON.parent.parent.name} (`make bench`)")
        return []
    try:
        done = subprocess.run(
            [PEER_PYTHON, script, *arguments],
            capture_output=True, text=True, timeout=PEER_SECONDS, check=True, cwd=ROOT,
        )  # fmt: skip
        rows = json.loads(done.stdout.strip().splitlines()[-1])
        return [Result(kind="peer", **row) for row in rows]
    except subprocess.CalledProcessError as error:
        words = str(error.stderr).strip().splitlines() or ["no words"]
        print(f"no peer {name}: {words[-1]}")
    except (subprocess.TimeoutExpired, ValueError, IndexError, TypeError) as error:
        print(f"no peer {name}: {error}")
    return []


def machine() -> dict[str, object]:
    """What the numbers were taken on."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0].split(":", 1)[1].strip() if names else cpu
    return {
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "cpu": cpu,
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "system": platform.system(),
        "bot4": build.compiled_state().notice.splitlines()[0],
    }


def amount(value: float | None) -> str:
    """Return a number as people read it, four digits at most before the point is given up."""
    if value is None:
        return ""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def report(title: str, results: Sequence[Result], folder: Path) -> None:
    """Print a benchmark's rows and write them as JSON."""
    facts = machine()
    print(f"\n{title}")
    print(f"{facts['cpu']}, {facts['cores']} cores, load {facts['load']}, "
          f"CPython {facts['python']}; {facts['bot4']}")  # fmt: skip
    print(f"{'':55}{'best':>11}{'median':>11}{'p99':>11} {'unit':12}{'specified':>10}{'goal':>10}")
    for row in results:
        verdict = ("  met" if row.met else "  MISSED") if row.targets else ""
        print(f"{row.kind:6} {row.name:48}{amount(row.min):>11}{amount(row.median):>11}"
              f"{amount(row.p99):>11} {row.unit:12}{amount(row.specified):>10}"
              f"{amount(row.goal):>10}{verdict}")  # fmt: skip
        if row.note:
            print(f"       {row.note}")
    folder.mkdir(parents=True, exist_ok=True)
    body = {"title": title, "machine": facts, "results": [asdict(row) for row in results]}
    name = title.split(":", maxsplit=1)[0].strip().lower().replace(" ", "_")
    (folder / f"{name}.json").write_text(json.dumps(body, indent=1) + "\n")
