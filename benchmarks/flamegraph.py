"""Where a replay's time goes: ``python -m benchmarks.flamegraph [BARS]``.

A thread samples the stacks of all others every millisecond; what they add up to becomes an SVG
in docs/images. Compiled functions have no Python frame: their time stands in their callers'.
"""

import sys
import tempfile
import threading
import zlib
from collections import Counter
from html import escape
from pathlib import Path
from typing import Self

from benchmarks.harness import ROOT, machine
from benchmarks.replay import any_loss_streak, random_walk, replay, settings

BARS = 120_000
INTERVAL_S = 0.001
WIDTH, ROW, LEAST = 1200, 17, 0.6
TARGET = ROOT / "docs" / "images" / "replay-flamegraph.svg"


class Sampler:
    """Counts the stacks of all threads but its own until it is stopped."""

    def __init__(self) -> None:
        self.stacks: Counter[tuple[str, ...]] = Counter()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        own = threading.get_ident()
        while not self._done.wait(INTERVAL_S):
            names = {thread.ident: thread.name for thread in threading.enumerate()}
            for ident, top in sys._current_frames().items():  # noqa: SLF001 - the documented way
                if ident != own:
                    stack, frame = [], top
                    while frame is not None:
                        stack.append(_told(frame.f_code.co_filename, frame.f_code.co_qualname))
                        frame = frame.f_back
                    if not stack[0].startswith("threading:"):  # asleep
                        stack.append(f"thread {names.get(ident, ident)}")
                        self.stacks[tuple(reversed(stack))] += 1


def _told(file: str, function: str) -> str:
    path = Path(file)
    inside = path.is_relative_to(ROOT)
    return f"{path.relative_to(ROOT).with_suffix('') if inside else path.stem}:{function}"


def svg(stacks: Counter[tuple[str, ...]], title: str) -> str:
    """Return the flame graph of collapsed stacks, roots at the bottom."""
    total = sum(stacks.values())
    boxes: list[str] = []
    deepest = 0

    def draw(items: list[tuple[tuple[str, ...], int]], depth: int, left: float) -> None:
        nonlocal deepest
        groups: dict[str, list[tuple[tuple[str, ...], int]]] = {}
        for stack, count in items:
            if len(stack) > depth:
                groups.setdefault(stack[depth], []).append((stack, count))
        for name in sorted(groups):
            count = sum(each for _, each in groups[name])
            width = count / total * WIDTH
            if width >= LEAST:
                deepest = max(deepest, depth)
                boxes.append(_box(name, count / total, depth, left, width))
                draw(groups[name], depth + 1, left)
            left += width

    draw(list(stacks.items()), 0, 0.0)
    height = (deepest + 1) * ROW + 40
    moved = "".join(boxes)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'font-family="monospace" font-size="11"><rect width="100%" height="100%" fill="#fff"/>'
        f'<text x="8" y="18" font-size="13">{escape(title)}</text>'
        f'<g transform="translate(0 {height - 8})">{moved}</g></svg>\n'
    )


def _box(name: str, share: float, depth: int, left: float, width: float) -> str:
    hue = 20 + zlib.crc32(name.split(":", maxsplit=1)[0].encode()) % 40
    y = -(depth + 1) * ROW
    short = name.rsplit("/", maxsplit=1)[-1][: int(width / 6.7)]
    text = f'<text x="{left + 3:.1f}" y="{y + 12}">{escape(short)}</text>' if width > 30 else ""
    return (
        f'<g><title>{escape(name)} {share:.1%}</title><rect x="{left:.1f}" y="{y}" '
        f'width="{width:.1f}" height="{ROW - 1}" fill="hsl({hue} 85% 70%)"/>{text}</g>'
    )


def where(stacks: Counter[tuple[str, ...]], most: int = 6) -> str:
    """Return a paragraph on where the samples fell: by thread, and by module of the innermost
    frame that is ours.
    """
    total = sum(stacks.values())
    other: Counter[str] = Counter()
    modules: Counter[str] = Counter()
    for stack, count in stacks.items():
        if stack[0].startswith("thread "):
            other[stack[0].removeprefix("thread ")] += count
        inner = next((frame for frame in reversed(stack) if "/" in frame), stack[0])
        modules[inner.split(":", maxsplit=1)[0].replace("/", ".")] += count
    threads = [("the engine's own", total - other.total()), *other.most_common(2)]
    told = ", ".join(f"{name} {count / total:.0%}" for name, count in threads if count)
    parts = ", ".join(f"`{name}` {count / total:.0%}" for name, count in modules.most_common(most))
    return (
        f"Of {total:,} samples of a replay's threads, by thread: {told}. By the module whose code "
        f"ran or called what ran: {parts}. A compiled function has no Python frame: its time "
        "stands in its caller's module. Threads asleep are left out."
    )


def write(bars: int = BARS) -> str:
    """Sample a replay, write its flame graph, and return where its time went."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(INTERVAL_S / 5)  # else the sampler waits for the interpreter lock
    try:
        with tempfile.TemporaryDirectory() as name, any_loss_streak():
            folder = Path(name)
            (folder / "candles").mkdir()
            random_walk(bars).write_parquet(folder / "candles" / "BTCUSDT.parquet")
            with_ = settings(folder / "home", "benchmarks.ema_cross:EmaCross")
            with Sampler() as sampler:
                done = replay(folder / "candles", folder / "journal", with_)
    finally:
        sys.setswitchinterval(before)
    stacks: Counter[tuple[str, ...]] = Counter()
    for stack, count in sampler.stacks.items():
        at = next((i for i, frame in enumerate(stack) if frame.endswith(":Run.execute")), None)
        if at is not None or stack[0] != "thread MainThread":
            stacks[stack[at or 0 :]] += count
    title = (
        f"Replay of {done.bars:,} bars, {done.trips:,} round trips; "
        f"{machine()['bot4']}; {machine()['date']}"
    )
    TARGET.write_text(svg(stacks, title), encoding="utf-8")
    return where(stacks)


if __name__ == "__main__":
    print(write(int(sys.argv[1]) if len(sys.argv) > 1 else BARS))
