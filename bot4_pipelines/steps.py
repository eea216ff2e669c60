"""How a step runs: not at all when nothing changed, else its numbers and plots are kept."""

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bot4_pipelines.progress import Report
from bot4_pipelines.records import Record, Records, now_ms


@dataclass(frozen=True)
class Outcome:
    """What a step did.

    Attributes:
        reused: nothing had changed, so nothing was done.
        folder: where its plots lie.
    """

    record: Record
    reused: bool
    folder: Path

    def plots(self) -> dict[str, bytes]:
        """Return the step's plots, title to PNG."""
        return {path.stem: path.read_bytes() for path in sorted(self.folder.glob("*.png"))}


Made = tuple[str, dict[str, Any], dict[str, bytes]]
"""What a step made: content hash, numbers, plots by title."""


class Steps:
    """Runs steps and keeps what they made.

    Args:
        records: of the steps.
        plots: folder of their plots.
        report: told of the progress.
    """

    def __init__(self, records: Records, plots: Path, report: Report) -> None:
        self._records = records
        self._plots = plots
        self._report = report

    def run(
        self,
        name: str,
        stamp: str,
        work: Callable[[], Made],
        outputs: Sequence[Path],
        *,
        again: bool = False,
    ) -> Outcome:
        """Run a step's work unless its record bears this stamp and its outputs are there."""
        with self._records.one_writer():
            before = self._records.find(name)
            there = not again and all(path.exists() for path in outputs)
            if before and before.stamp == stamp and there:
                return self.reused(before)
            began = time.monotonic()
            self._report("working", 0.0)
            return self.keep(name, stamp, work(), began)

    def reused(self, record: Record) -> Outcome:
        """Return what a step left the last time."""
        self._report("up to date", 1.0)
        return Outcome(record, True, self._plots / record.step)

    def keep(
        self,
        name: str,
        stamp: str,
        made: Made,
        began: float,
        *,
        reused: bool = False,
    ) -> Outcome:
        """Write a step's plots and record."""
        content, numbers, plots = made
        folder = self._plots / name
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for title, png in plots.items():
            (folder / f"{title}.png").write_bytes(png)
        seconds = time.monotonic() - began
        record = Record(
            step=name,
            stamp=stamp,
            content=content,
            finished_ms=now_ms(),
            seconds=round(seconds, 3),
            numbers=numbers,
        )
        self._records.write(record)
        self._report("up to date" if reused else f"took {seconds:.1f} s", 1.0)
        return Outcome(record, reused, folder)
