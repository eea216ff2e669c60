"""Writes a run's report: ``report.html``, ``summary.json`` and ``run.json`` beside its journal.

``summary.json`` is a pure function of the journal: the same inputs give the same bytes. What
differs from run to run (times, paths, host) is in ``run.json``.
"""

import json
import os
import platform
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bot4_runtime import __version__
from bot4_runtime.domain.candle import Origin
from bot4_runtime.domain.errors import InvariantViolated
from bot4_runtime.exchange.paper_model import PaperModel
from bot4_runtime.report.html import render
from bot4_runtime.report.record import gather
from bot4_runtime.report.summary import summarise
from bot4_runtime.session import SessionResult
from bot4_runtime.state.reader import JournalReader


@dataclass(frozen=True, slots=True)
class WrittenReport:
    """Where a report is, as one document and in words."""

    document: dict[str, Any]
    told: str


def write_report(
    folder: Path,
    *,
    models: dict[str, Any] | None,
    paper: PaperModel,
    result: SessionResult,
    started: datetime,
    account: str,
) -> WrittenReport:
    """Write the report of the journal in `folder`.

    Raises:
        InvariantViolated: recovery or a full replay of the journal ends in another state
            than the run did.
    """
    with JournalReader.open(folder / "journal.sqlite") as journal:
        record = gather(event for _, event in journal.events())
        recovered = journal.state(folder / "snapshots")
    hashes = {
        "state_hash": result.state_hash,
        "recovered_state_hash": recovered.state_hash(),
        "replayed_state_hash": record.state.state_hash(),
    }
    if len(set(hashes.values())) != 1:
        raise InvariantViolated(f"the journal does not lead back to the run's state: {hashes}")
    summary = summarise(record, models=models, paper=paper)
    run = {
        "run": folder.name,
        "account": account,
        "started": started.isoformat(),
        "ended": datetime.now(UTC).isoformat(),
        "host": platform.node(),
        "python": platform.python_version(),
        "bot4": __version__,
        "source": record.sessions[-1].source,
        "candles_this_process": result.candles,
        "stopped": result.stopped,
        "sessions": len(record.sessions),
        "recovery_seconds": result.recovery.seconds,
        **hashes,
    }
    report_html = folder / "report.html"
    summary_json = folder / "summary.json"
    _write(summary_json, _encode(summary))
    _write(folder / "run.json", _encode(run))
    _write(report_html, render(record, summary))
    document = {
        **summary,
        **hashes,
        "run": run,
        "report_html": str(report_html.resolve()),
        "summary_json": str(summary_json.resolve()),
        "simulated": summary["origin"] == Origin.SIMULATED.value,
    }
    return WrittenReport(document, _told(document))


def _told(document: dict[str, Any]) -> str:
    lines = [
        f"{document['candles']:,} candles of {', '.join(document['symbols'])}; "
        f"{document['signals']['entries']} entry signals, "
        f"{document['signals']['approved']} approved.",
    ]
    for name, book in document["books"].items():
        lines.append(
            f"{name:>9} book: {book['orders_filled']} orders filled, profit and loss "
            f"{float(book['pnl_quote']):+,.2f}, fees {float(book['fees_quote']):,.2f}"
            + (f", funding {funding:+,.2f}." if (funding := float(book["funding_quote"])) else ".")
        )
        rejected = ", ".join(f"{code} {count}" for code, count in book["rejected"].items())
        if rejected:
            lines.append(f"{name:>9} book: orders rejected by the gate or the venue: {rejected}.")
        for asset, fee in book["unvalued_fees"].items():
            lines.append(
                f"{name:>9} book: {fee} {asset} of fees had no price and are NOT counted."
            )
    lines += [
        f"The evidence of the rule {rule} is SYNTHETIC: an exercise, no strategy."
        for rule in document["synthetic_rules"]
    ]
    lines.append(f"State {document['state_hash'][:16]}, the same after recovery.")
    lines.append(f"Report: {document['report_html']}")
    return "\n".join(lines)


def _encode(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=1, sort_keys=True, allow_nan=False) + "\n"


def _write(path: Path, text: str) -> None:
    beside = path.with_name(path.name + ".tmp")
    with beside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    beside.replace(path)
