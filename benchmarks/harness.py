"""Times calls and prints them as claims: minimum, median, p99, target, machine."""

import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from bot4_runtime import build


@dataclass(frozen=True)
class Result:
    """Nanoseconds an operation took, over rounds of many calls.

    Attributes:
        kind: ``ours``, ``floor`` (what Python itself costs) or ``peer`` (another library).
        target_ns: what was specified; None where nothing was.
    """

    name: str
    kind: str
    min_ns: float
    median_ns: float
    p99_ns: float
    target_ns: float | None


def measure(
    name: str,
    call: Callable[..., object],
    *arguments: object,
    kind: str = "ours",
    target_ns: float | None = None,
    seconds: float = 0.4,
    per_call: int = 1,
) -> Result:
    """Time a call, loop cost taken off.

    Args:
        name: what the row says.
        call: the operation, called with `arguments`.
        kind: ``ours``, ``floor`` or ``peer``.
        target_ns: the specified time.
        seconds: how long to measure for.
        per_call: operations one call performs.
    """
    clock = time.perf_counter_ns
    loops = 1
    while True:
        start = clock()
        for _ in range(loops):
            call(*arguments)
        if clock() - start > 1_000_000 or loops > 1_000_000:
            break
        loops *= 2
    empty = min(_empty_loop(loops) for _ in range(20))
    rounds: list[float] = []
    end = clock() + int(seconds * 1e9)
    while clock() < end or len(rounds) < 20:
        start = clock()
        for _ in range(loops):
            call(*arguments)
        rounds.append((clock() - start - empty) / loops / per_call)
    rounds.sort()
    return Result(
        name,
        kind,
        rounds[0],
        statistics.median(rounds),
        rounds[min(len(rounds) - 1, int(0.99 * len(rounds)))],
        target_ns,
    )


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


def machine() -> dict[str, object]:
    """What the numbers were taken on."""
    cpu = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.exists():
        names = [line for line in info.read_text().splitlines() if line.startswith("model name")]
        cpu = names[0].split(":", 1)[1].strip() if names else cpu
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "system": platform.system(),
        "bot4": build.compiled_state().notice,
    }


def report(title: str, results: list[Result], folder: Path) -> None:
    """Print the table and write it as JSON."""
    facts = machine()
    print(f"\n{title}")
    print(f"{facts['cpu']}, {facts['cores']} cores, load {facts['load']:.1f}, "
          f"CPython {facts['python']}; {str(facts['bot4']).splitlines()[0]}")  # fmt: skip
    call = next((row.min_ns for row in results if row.name == "empty Python call"), None)
    print(f"{'':48}{'min':>9}{'median':>9}{'p99':>9}{'calls':>8}{'target':>9}   (ns)")
    for row in results:
        ratio = f"{row.min_ns / call:.1f}" if call else ""
        target = "" if row.target_ns is None else f"< {row.target_ns:g}"
        missed = row.target_ns is not None and row.min_ns >= row.target_ns
        print(f"{row.kind:6} {row.name:41}{row.min_ns:9.1f}{row.median_ns:9.1f}{row.p99_ns:9.1f}"
              f"{ratio:>8}{target:>9}{' MISSED' if missed else ''}")  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    body = {"title": title, "machine": facts, "results": [asdict(row) for row in results]}
    name = title.split(":", maxsplit=1)[0].strip().lower().replace(" ", "_")
    (folder / f"{name}.json").write_text(json.dumps(body, indent=1) + "\n")
