"""Real kill -9 of a process that writes the journal: no acknowledged batch is ever lost."""

import os
import random
import select
import signal
import struct
import time
from pathlib import Path

import pytest
from state_scenario import Scenario, session

from bot4_runtime.state.journal import Journal
from bot4_runtime.state.reader import JournalReader
from bot4_runtime.state.sqlite import LOG_BYTES, SqliteDisk
from bot4_runtime.state.store import StateStore

KILLS = 100
ACK = struct.Struct("<q")


def run_session(folder: Path, scenario: Scenario, acks: int) -> None:
    """Go on with the scenario wherever the journal stands, telling each durable batch."""
    store = StateStore(
        Journal(SqliteDisk.open(folder / "journal.db", "paper", log_bytes=LOG_BYTES)),
        folder / "snapshots",
    )
    store.recover()

    def say(events) -> None:
        seq = store.append(events)
        store.wait_durable(seq)
        os.write(acks, ACK.pack(seq))

    say([session(store.epoch)] if store.state.first_session else scenario.first)
    done = store.state.inputs
    if store.state.unanswered():  # intents whose outcome was not journaled: hand over again
        say(scenario.steps[done - 1].outcomes)
    for number, step in enumerate(scenario.steps[done:]):
        say(step.main)
        if step.outcomes:
            say(step.outcomes)
        if number % 7 == 0:
            store.create_snapshot()
    store.close()


def killed_after(folder: Path, scenario: Scenario, seconds: float) -> tuple[int, bool]:
    """Fork a writer and kill it; return what it acknowledged last and whether it ended alone."""
    from_child, to_parent = os.pipe()
    child = os.fork()
    if child == 0:
        code = 1
        try:
            os.close(from_child)
            run_session(folder, scenario, to_parent)
            code = 0
        finally:
            os._exit(code)
    os.close(to_parent)
    select.select([from_child], [], [], 10)  # the clock starts when it writes
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    told = b""
    while chunk := os.read(from_child, 65_536):
        told += chunk
    os.close(from_child)
    whole = len(told) // ACK.size * ACK.size
    assert not os.WIFEXITED(status) or os.WEXITSTATUS(status) == 0, "the writer failed"
    last = ACK.unpack(told[whole - ACK.size : whole])[0] if whole else 0
    return last, os.WIFEXITED(status)


@pytest.mark.crash
def test_a_hundred_kills_lose_no_acknowledged_batch_and_end_with_the_same_hash(tmp_path):
    scenario = Scenario(seed=77, steps=120, every_hash=True)
    expected = {False: [scenario.hashes[0]], True: [""]}
    expected[False] += scenario.hashes[1:]
    expected[True] += scenario.unanswered_hashes
    rng = random.Random(5)
    kills = rounds = 0
    while kills < KILLS:
        folder = tmp_path / str(rounds)
        rounds += 1
        ended = False
        while not ended:
            acknowledged, ended = killed_after(folder, scenario, rng.uniform(0, 0.02))
            kills += not ended
            with JournalReader.open(folder / "journal.db") as reader:
                assert reader.last_seq() >= acknowledged
                state = reader.state(folder / "snapshots")
            answers_due = bool(state.unanswered())
            assert state.state_hash() == expected[answers_due][state.inputs]
        assert state.inputs == len(scenario.steps)
        assert state.state_hash() == scenario.hashes[-1]
    assert kills >= KILLS
