"""M4: every cut and every flipped bit of a journal and of a snapshot is found, or changes nothing.

The journal is one as kill -9 leaves it: 64 KiB, about half of it in the database and half in
the log. A changed one must be refused, or hold exactly the frames it held after one of its whole
commits: frames equal byte for byte fold to the same state. A bit of the log's last commit may be
a tear, so that commit may be dropped; an earlier one never, except by a cut. Unique keys are a
second line behind the fold and are compared too: where only they differ, `verify` must say so.
"""

import os
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from state_scenario import Scenario, candle

from bot4_runtime.domain.errors import JournalCorrupt, JournalError
from bot4_runtime.state import snapshot
from bot4_runtime.state.frames import Frame, Keys, decode_frame
from bot4_runtime.state.journal import Journal
from bot4_runtime.state.reader import JournalReader
from bot4_runtime.state.sqlite import SqliteDisk
from bot4_runtime.state.sqlite_file import read_keys
from bot4_runtime.state.store import StateStore

TITLE: Final = "M4 cuts and flipped bits of a journal and a snapshot"
GOALS: Final = {"journal_bytes": (">=", 64 * 1_024), "silent_wrong_states": ("==", 0)}
SEED: Final = 404
KIB: Final = 1_024
SIZE: Final = 64 * KIB
SAMPLE: Final = 150
CHUNK: Final = 2_000
Progress = Callable[[float, str], object]


@dataclass(frozen=True)
class Subject:
    """What is damaged: its files' bytes, and what they hold.

    Attributes:
        files: name to bytes: ``journal.db``, ``journal.db-wal`` and ``snapshot``.
        frames: of the whole journal, one a commit.
        checkpointed: frames that are in the database; the rest is in the log.
    """

    files: dict[str, bytes]
    frames: list[Frame]
    keys: Keys
    checkpointed: int
    snapshot_name: str


@dataclass(frozen=True)
class Case:
    """One damage: ``cut`` to `place` bytes, or ``flip`` of bit `place`."""

    name: str
    kind: str
    place: int


def subject() -> Subject:
    """Write the journal and the snapshot, and leave them as a kill would."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "journal.db"
        disk = SqliteDisk.open(path, "paper")
        store = StateStore(Journal(disk, threaded=False), Path(folder) / "snapshots")
        store.recover()
        batches = iter(Scenario(SEED, 400).batches())
        log = path.with_name("journal.db-wal")
        for batch in batches:
            store.wait_durable(store.append(batch))
            if log.stat().st_size > SIZE * 2:
                break
        store.create_snapshot()
        disk._checkpoint()
        checkpointed = len(list(disk.read(0)))
        hour = max(store.state.cursor.values())
        # The log begins anew at its head; what is left behind it is cut off, as a new file is.
        at = 0
        while at < SIZE - path.stat().st_size:
            batch = [candle("ETHUSDT", hour + 3_600_000 * (1 + at), 1.0 + at)]
            before = log.read_bytes()
            store.wait_durable(store.append(batch))
            at = changed_to(before, log.read_bytes())
        files = {
            "journal.db": path.read_bytes(),
            "journal.db-wal": log.read_bytes()[:at],
            "snapshot": next((Path(folder) / "snapshots").iterdir()).read_bytes(),
        }
        name = next((Path(folder) / "snapshots").iterdir()).name
        found = Subject(files, list(disk.read(0)), read_keys(disk._sql), checkpointed, name)
        store.close()
    return found


def changed_to(before: bytes, after: bytes) -> int:
    """Return up to where two logs differ, in whole frames."""
    step = 24 + 4_096
    end = len(after)
    while end > 32 and before[end - step : end] == after[end - step : end]:
        end -= step
    return end


def cases(found: Subject, *, full: bool) -> list[Case]:
    """Every cut and flip, or a sample of each that holds the ends."""
    rng = random.Random(SEED)
    made = []
    for name, data in found.files.items():
        for kind, places in (("cut", len(data)), ("flip", len(data) * 8)):
            chosen: Iterator[int] | list[int] = iter(range(places))
            if not full:
                chosen = sorted({0, places - 1, *rng.sample(range(places), SAMPLE)})
            made += [Case(name, kind, place) for place in chosen]
    return made


def damaged(data: bytes, case: Case) -> bytes:
    if case.kind == "cut":
        return data[: case.place]
    changed = bytearray(data)
    changed[case.place // 8] ^= 1 << case.place % 8
    return bytes(changed)


def look(found: Subject, case: Case, folder: Path) -> str:
    """Return how a damage ended: ``refused``, ``recovered`` or ``keys``; assert nothing else."""
    if case.name == "snapshot":
        path = folder / found.snapshot_name
        path.write_bytes(damaged(found.files["snapshot"], case))
        try:
            snapshot.read(path)
        except JournalCorrupt:
            return "refused"
        raise AssertionError(f"{case}: a changed snapshot was read")
    for name in ("journal.db", "journal.db-wal"):
        data = found.files[name]
        (folder / name).write_bytes(damaged(data, case) if name == case.name else data)
    (folder / "journal.db-shm").unlink(missing_ok=True)
    try:
        disk = SqliteDisk.open(folder / "journal.db", "paper", durable=False)
    except JournalError:
        return "refused"
    try:
        frames = list(disk.read(0))
        for frame in frames[: 0 if frames == found.frames[: len(frames)] else None]:
            decode_frame(frame)
        keys = None
        with suppress(JournalCorrupt):
            keys = read_keys(disk._sql)
    except JournalCorrupt:
        return "refused"
    finally:
        disk.close()
    least = len(found.frames) - 1
    if case.name == "journal.db":
        least += 1
    elif case.kind == "cut":
        least = found.checkpointed
    assert len(frames) >= least, f"{case}: {len(frames)} frames left of {len(found.frames)}"
    assert frames == found.frames[: len(frames)], f"{case}: other frames, and none noticed"
    if keys == found.keys:
        return "recovered"
    try:
        with JournalReader.open(folder / "journal.db") as reader:
            reader.verify()
    except JournalCorrupt:
        return "keys"
    raise AssertionError(f"{case}: other unique keys, and verify did not notice")


def _chunk(found: Subject, some: list[Case]) -> Counter[str]:
    room = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    folder = Path(tempfile.mkdtemp(dir=room))
    try:
        return Counter(f"{case.name} {case.kind} {look(found, case, folder)}" for case in some)
    finally:
        shutil.rmtree(folder)


def run(full: bool, jobs: int, progress: Progress) -> dict[str, object]:
    """Damage and look; AssertionError when a change went unnoticed."""
    found = subject()
    assert len(found.files["journal.db"]) + len(found.files["journal.db-wal"]) >= SIZE
    todo = cases(found, full=full)
    chunks = [todo[at : at + CHUNK] for at in range(0, len(todo), CHUNK)]
    counts: Counter[str] = Counter()
    if jobs <= 1:
        for number, some in enumerate(chunks, 1):
            counts += _chunk(found, some)
            progress(number / len(chunks), f"{counts.total():,} of {len(todo):,}")
    else:
        with ProcessPoolExecutor(jobs) as pool:
            pending = [pool.submit(_chunk, found, some) for some in chunks]
            for number, done in enumerate(as_completed(pending), 1):
                counts += done.result()
                progress(number / len(chunks), f"{counts.total():,} of {len(todo):,}")
    assert counts.total() == len(todo)
    return {
        "journal_bytes": len(found.files["journal.db"]) + len(found.files["journal.db-wal"]),
        "snapshot_bytes": len(found.files["snapshot"]),
        "commits": len(found.frames),
        "cases": len(todo),
        "silent_wrong_states": 0,  # the first would have raised
        **dict(sorted(counts.items())),
    }
