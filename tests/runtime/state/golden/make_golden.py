"""Builds a golden journal of the present schema version. Never overwrites one.

Run it once per schema version, when that version is new, and once for what the version learns to
journal later, with its name; a released file stays as it is:

    python tests/runtime/state/golden/make_golden.py [NAME]
"""

import json
import sqlite3
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parent
sys.path.insert(0, str(FOLDER.parent))

from state_scenario import Scenario  # noqa: E402

from bot4_runtime.domain.events import SCHEMA_VERSION  # noqa: E402
from bot4_runtime.state.journal import Journal  # noqa: E402
from bot4_runtime.state.sqlite import SqliteDisk  # noqa: E402
from bot4_runtime.state.store import StateStore  # noqa: E402


def main() -> None:
    name = "-".join([f"journal-v{SCHEMA_VERSION}", *sys.argv[1:]])
    target = FOLDER / f"{name}.db"
    if target.exists():
        sys.exit(f"{target.name} exists; a released golden journal is never rebuilt")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.db"
        store = StateStore(Journal(SqliteDisk.open(path, "paper")), None)
        store.recover()
        for batch in Scenario(seed=2_026, steps=120).batches():
            store.append(batch)
        store.close()
        with sqlite3.connect(path) as sql:
            sql.execute("PRAGMA journal_mode = DELETE")
            sql.execute("VACUUM")
        sql.close()
        target.write_bytes(path.read_bytes())
    facts = {"last_seq": store.state.seq, "state_hash": store.state.state_hash()}
    target.with_suffix(".json").write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main()
