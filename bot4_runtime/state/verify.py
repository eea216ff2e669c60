"""Checks an account offline: every frame, unique key and snapshot, and where they lead."""

from pathlib import Path
from typing import Any

from bot4_runtime.domain.errors import InvariantViolated, JournalError, JournalMissing
from bot4_runtime.state import snapshot
from bot4_runtime.state.place import JOURNAL
from bot4_runtime.state.reader import JournalReader
from bot4_runtime.state.trading_state import TradingState
from bot4_runtime.state.wal import check_log


def verify_account(
    folder: Path, account: str, *, running: bool, configured: str = "sqlite"
) -> dict[str, Any]:
    """Return what holds and what does not, as plain data; `problems` is empty when all does.

    Each snapshot is read and its state compared with a replay of the journal up to there.

    Args:
        folder: of the account.
        account: its name; another account's journal is a problem.
        running: whether a runtime writes the journal now; its log is left alone then.
        configured: ``state.journal``, asked where the folder has neither journal nor note.

    Raises:
        JournalMissing: there is no journal.
    """
    problems: list[str] = []
    found: dict[str, Any] = {"journal": str(folder / JOURNAL), "events": None, "state_hash": None}
    try:
        if not running:
            check_log(folder / JOURNAL)
        with JournalReader.of_account(folder, account, configured) as journal:
            found["journal"] = journal.where
            found["events"] = journal.verify()
            state, hashes = _replay(journal, _seqs(folder))
            found["state_hash"] = state.state_hash()
    except JournalMissing:
        raise
    except (JournalError, InvariantViolated) as error:
        problems.append(str(error))
        hashes = {}
    found["snapshots"] = [_snapshot(path, hashes) for path in _paths(folder)]
    problems += [found["problem"] for found in found["snapshots"] if found["problem"]]
    return {**found, "problems": problems}


def _paths(folder: Path) -> list[Path]:
    return snapshot.list_snapshots(folder / "snapshots")


def _seqs(folder: Path) -> set[int]:
    return {int(path.stem) for path in _paths(folder) if path.stem.isdigit()}


def _replay(journal: JournalReader, stops: set[int]) -> tuple[TradingState, dict[int, str]]:
    """Fold the whole journal; return its state and the hashes at `stops`."""
    state, hashes = TradingState(), {}
    for seq, event in journal.events():
        state.apply(event)
        state.seq = seq
        if seq in stops:
            hashes[seq] = state.state_hash()
    return state, hashes


def _snapshot(path: Path, hashes: dict[int, str]) -> dict[str, Any]:
    problem = ""
    try:
        state = snapshot.read(path)
        replayed = hashes.get(state.seq)
        if replayed is None:
            problem = f"{path.name}: the journal does not lead there"
        elif state.state_hash() != replayed:
            problem = f"{path.name}: its state is not that of a replay up to there"
    except JournalError as error:
        problem = str(error)
    return {"snapshot": path.name, "problem": problem}
