"""Reports on disk: the same bytes for the same run, no paths or times, and one honest document."""

import dataclasses
import json
import re
from pathlib import Path

import pytest

from bot4_runtime.domain.errors import InvariantViolated


def test_the_same_run_gives_the_same_summary_bytes(run, run_again, tmp_path: Path) -> None:
    first, second = run, run_again(tmp_path / "elsewhere")
    first.write()
    second.write()
    one, two = ((r.folder / "summary.json").read_bytes() for r in (first, second))
    assert one == two
    text = one.decode()
    assert str(run.folder) not in text
    assert run.folder.name not in text
    assert not re.search(r"\d{4}-\d{2}-\d{2}", text)


def test_writing_a_report_again_changes_nothing(run) -> None:
    run.write()
    before = {n: (run.folder / n).read_bytes() for n in ("summary.json", "report.html")}
    run.write()
    assert before == {n: (run.folder / n).read_bytes() for n in before}
    assert list(run.folder.glob("*.tmp")) == []


def test_the_document_is_the_summary_and_where_it_lies(run) -> None:
    written = run.write()
    summary = json.loads((run.folder / "summary.json").read_text())
    assert {key: written.document[key] for key in summary} == summary
    assert Path(written.document["report_html"]).is_file()
    assert Path(written.document["summary_json"]).is_file()
    assert written.document["simulated"] is False
    assert (
        written.document["state_hash"]
        == written.document["recovered_state_hash"]
        == written.document["replayed_state_hash"]
        == run.result.state_hash
    )
    about = json.loads((run.folder / "run.json").read_text())
    assert about["candles_this_process"] == run.result.candles
    assert about["source"].startswith("recorded:")
    assert "Report: " in written.told
    assert "validated book" in written.told


def test_a_state_the_journal_does_not_lead_to_is_an_error(run) -> None:
    other = dataclasses.replace(run.result, state_hash="0" * 64)
    with pytest.raises(InvariantViolated, match="does not lead back"):
        run.write(other)
