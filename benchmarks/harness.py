"""Times calls and prints them as claims: measured, specified, goal, floor and peer."""

import functools
import json
import math
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parent.parent
PEER_PYTHON: Final = ROOT / ".venv-peers" / "bin" / "python"
"""Other libraries live in an environment of their own; `make bench` makes it."""
PEER_SECONDS: Final = 300
ROUND_NS: Final = 100_000
"""Least length of a round: short, so that what other processes take falls on few of them."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """What one row says: the best, the middle and the worst percent of many rounds.

    Numbers that are not numbers say that it was not measured.

    Attributes:
        kind: ``ours``, ``floor`` (what Python itself costs) or ``peer`` (another library).
        min: the best round; the largest where more is better.
        p99: what 99 % of the rounds were no worse than.
        unit: of all numbers: ``ns``, ``/s``, ``bars/CPU-s``, ``ms``, ``MB`` …
        specified: what the specification asks for; None where it says nothing.
        goal: what we ask of ourselves.
        better: ``lower`` or ``higher``.
        note: what the row does not say by itself.
        floor: the row of the same benchmark that no Python can beat at this; "" where none is.
        peers: the rows of other libraries that do the same; in the same unit.
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
    floor: str = ""
    peers: tuple[str, ...] = ()

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

    @property
    def verdict(self) -> str:
        """``met``, ``MISSED`` or ``not measured``; "" where nothing is asked."""
        if not self.targets:
            return ""
        if math.isnan(self.median):
            return "not measured"
        return "met" if self.met else "MISSED"


def measure(
    name: str,
    call: Callable[..., object],
    *arguments: object,
    kind: str = "ours",
    specified: float | None = None,
    goal: float | None = None,
    seconds: float = 0.4,
    per_call: int = 1,
    floor: str = "",
    peers: tuple[str, ...] = (),
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
        floor: the row it is held beside; see `Result`.
        peers: the same.
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
    return of_rounds(
        name, rounds, kind=kind, specified=specified, goal=goal, floor=floor, peers=peers
    )


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
    floor: str = "",
    peers: tuple[str, ...] = (),
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
        floor: the row it is held beside; see `Result`.
        peers: the same.
    """
    rates = []
    for _ in range(rounds):
        start = clock()
        done = call()
        rates.append(done * 1e9 / (clock() - start))
    return of_rounds(
        name, rates, unit=unit, kind=kind, specified=specified, goal=goal,
        better="higher", note=note, floor=floor, peers=peers,
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
    floor: str = "",
    peers: tuple[str, ...] = (),
) -> Result:
    """Make a row of numbers that were taken elsewhere; of none, one that was not measured."""
    if not rounds:
        rounds = [math.nan]
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
        floor=floor,
        peers=peers,
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


EMPTY_CALL: Final = "empty Python call"
APPEND: Final = "deque.append"


def floors() -> list[Result]:
    """What an empty Python call and a deque append cost here, now."""
    from collections import deque

    box: deque[object] = deque(maxlen=1000)
    return [
        measure(EMPTY_CALL, empty_call, 1, kind="floor"),
        measure(APPEND, box.append, 1, kind="floor"),
    ]


def peers(script: str, names: Sequence[str], *arguments: str, unit: str = "ns") -> list[Result]:
    """Run `benchmarks/peers/SCRIPT.py` in the peers' own environment, now.

    Returns one row for each name. A peer that is not there, or fails, is a row that was not
    measured and says why, never an error.

    Args:
        script: the script, which ends with `tell`.
        names: the rows it is expected to tell.
        arguments: what it is called with.
        unit: of rows that it does not tell.
    """
    told: dict[str, Result] = {}
    why = "the library is not installed in .venv-peers"
    if PEER_PYTHON.exists():
        try:
            done = subprocess.run(
                [PEER_PYTHON, "-m", f"benchmarks.peers.{script}", *arguments],
                capture_output=True, text=True, timeout=PEER_SECONDS, check=True, cwd=ROOT,
            )  # fmt: skip
            for row in json.loads(done.stdout.strip().splitlines()[-1]):
                told[row["name"]] = Result(**row)
        except subprocess.CalledProcessError as error:
            why = (str(error.stderr).strip().splitlines() or ["it failed without a word"])[-1]
        except subprocess.TimeoutExpired:
            why = f"it took more than {PEER_SECONDS} s"
        except (ValueError, IndexError, TypeError, KeyError) as error:
            why = f"it told no rows: {error}"
    return [
        told.get(name) or of_rounds(name, [], kind="peer", unit=unit, note=f"not measured: {why}")
        for name in names
    ]


def tell(rows: Sequence[Result]) -> None:
    """Print what `peers` reads: the last line of a peer's script."""
    print(json.dumps([asdict(row) | {"kind": "peer"} for row in rows]))


def resident_bytes() -> int:
    """Return what this process holds in memory now (Linux)."""
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def machine() -> dict[str, object]:
    """What the numbers were taken on."""
    from bot4_runtime import build  # not at the top: where the peers live there is no Bot4

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
    if math.isnan(value):
        return "-"
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
        print(f"{row.kind:6} {row.name:48}{amount(row.min):>11}{amount(row.median):>11}"
              f"{amount(row.p99):>11} {row.unit:12}{amount(row.specified):>10}"
              f"{amount(row.goal):>10}  {row.verdict}".rstrip())  # fmt: skip
        if row.note:
            print(f"       {row.note}")
    folder.mkdir(parents=True, exist_ok=True)
    rows = [{key: _json(value) for key, value in asdict(row).items()} for row in results]
    body = {"title": title, "machine": facts, "results": rows}
    name = title.split(":", maxsplit=1)[0].strip().lower().replace(" ", "_")
    (folder / f"{name}.json").write_text(json.dumps(body, indent=1) + "\n")


def _json(value: object) -> object:
    """NaN is no JSON."""
    return None if isinstance(value, float) and math.isnan(value) else value
