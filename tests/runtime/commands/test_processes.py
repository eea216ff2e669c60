"""The operator against a real running process: obeyed, journaled, never twice, also when killed."""

import contextlib
import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from bot4_runtime.commands import CommandBox, Order
from bot4_runtime.domain.errors import Bot4Error
from bot4_runtime.domain.events import (
    BreakerChanged,
    OperatorCommand,
    OrderIntended,
    OverrideSet,
    RiskDecided,
)
from bot4_runtime.domain.order import Purpose
from bot4_runtime.state.reader import JournalReader

PROGRAM = str(Path(sys.executable).with_name("bot4-runtime"))
START = [PROGRAM, "start", "--strategy", "drill", "--source", "simulated:5", "--symbols",
         "BTCUSDT,ETHUSDT"]  # fmt: skip


class Runtime:
    def __init__(self, folder):
        self.home = folder / "home"
        self.folder = self.home / "state" / "paper"
        self.environment = {k: v for k, v in os.environ.items() if not k.startswith("BOT4_")} | {
            "BOT4_HOME": str(self.home),
            "BOT4_MODELS": str(folder / "models"),
            "BOT4_RISK__MAX_CORRELATION": "1.0",
            "OMP_NUM_THREADS": "1",
        }
        self.cwd = folder
        self.process = None

    def start(self, speed="72000"):
        self.process = subprocess.Popen(
            [*START, "--speed", speed], env=self.environment, cwd=self.cwd,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        return self

    def stop(self, number=signal.SIGTERM):
        self.process.send_signal(number)
        self.process.wait(30)

    def say(self, *words):
        return subprocess.run(
            [PROGRAM, *words], env=self.environment, cwd=self.cwd, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=60,
        )  # fmt: skip

    def events(self, *kinds):
        with JournalReader.open(self.folder / "journal.sqlite") as journal:
            return list(journal.events(kinds=kinds or None))

    def state(self):
        with JournalReader.open(self.folder / "journal.sqlite") as journal:
            return journal.state(self.folder / "snapshots")

    def wait(self, what, seconds=60):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            with contextlib.suppress(Bot4Error):
                if what():
                    return
            time.sleep(0.05)
        pytest.fail("it did not come within a minute")

    def obeyed(self):
        return Counter(e.command_id for _, e in self.events(OperatorCommand))


@pytest.fixture
def runtime(tmp_path):
    runtime = Runtime(tmp_path)
    yield runtime
    if runtime.process is not None and runtime.process.poll() is None:
        runtime.process.kill()
        runtime.process.wait(30)


def test_halt_refuses_entries_resume_lets_them_in_and_flatten_leaves_nothing(runtime):
    runtime.start()
    runtime.wait(lambda: len(runtime.events(RiskDecided)) >= 3)
    halted = runtime.say("halt", "--reason", "looking at it")
    assert halted.returncode == 0, halted.stderr
    assert "done, at sequence number" in halted.stdout
    seq = int(halted.stdout.split("number ")[1].split()[0])
    assert dict(runtime.events(OperatorCommand))[seq].reason == "looking at it"
    runtime.wait(
        lambda: [e for s, e in runtime.events(RiskDecided) if s > seq and e.code == "HALTED"]
    )
    entered = [
        e.intent for s, e in runtime.events(OrderIntended)
        if s > seq and e.intent.purpose is Purpose.ENTRY
    ]  # fmt: skip
    assert entered == []
    found = json.loads(runtime.say("status", "--json").stdout)
    assert found["books"]["validated"]["breaker"].startswith("halted: looking at it; ")
    resumed = runtime.say("resume", "--reset-peak", "--reason", "fine again", "--json")
    back = json.loads(resumed.stdout)
    assert back["running_pid"] == runtime.process.pid
    verbs = [(e.verb, e.reason) for _, e in runtime.events(OperatorCommand)]
    assert verbs == [
        ("halt", "looking at it"), ("reset_peak", "fine again"), ("resume", "fine again"),
    ]  # fmt: skip
    runtime.wait(
        lambda: any(book.positions for book in runtime.state().books.values())
        and [1 for s, e in runtime.events(OrderIntended)
             if s > back["seq"] and e.intent.purpose is Purpose.ENTRY]
    )  # fmt: skip
    flat = runtime.say("flatten", "--yes", "--reason", "out of here")
    assert "done" in flat.stdout
    runtime.wait(lambda: not any(book.positions for book in runtime.state().books.values()))
    runtime.stop()
    state = runtime.state()
    assert all(b.breaker.flattening and b.breaker.halted for b in state.books.values())
    assert state.all_live_orders() == []
    after = int(flat.stdout.split("number ")[1].split()[0])
    left = [e.intent for s, e in runtime.events(OrderIntended) if s > after]
    assert all(intent.reduce_only for intent in left)
    runtime.start("max")
    time.sleep(1.0)
    runtime.stop()
    later = [e.intent for s, e in runtime.events(OrderIntended) if s > after]
    assert all(intent.reduce_only for intent in later)
    assert not any(book.positions for book in runtime.state().books.values())


def test_what_nobody_runs_to_obey_is_obeyed_at_the_next_start(runtime):
    runtime.start()
    runtime.wait(lambda: runtime.events(RiskDecided))
    runtime.stop()
    queued = runtime.say("halt", "--reason", "before it starts")
    assert queued.stdout == (
        "halt: queued; no runtime is running, it will be obeyed at the next start.\n"
    )
    again = json.loads(runtime.say("resume", "--reason", "and back", "--json").stdout)
    assert (again["seq"], again["running_pid"]) == (None, None)
    runtime.start()
    runtime.wait(lambda: len(runtime.obeyed()) == 2)
    runtime.stop()
    assert [e.verb for _, e in runtime.events(OperatorCommand)] == ["halt", "resume"]
    changed = [e.state.halted for _, e in runtime.events(BreakerChanged)]
    assert changed.count(True) >= 1


@pytest.mark.crash
def test_killed_again_and_again_every_order_is_obeyed_exactly_once(runtime):
    runtime.start()
    runtime.wait(lambda: runtime.events(RiskDecided))
    box, given = CommandBox(runtime.folder), []
    verbs = ("halt", "resume", "flatten", "resume")
    for turn in range(8):
        for _ in range(4):
            given.append(box.put(Order(verb=verbs[len(given) % 4], reason=f"turn {turn}")))
        time.sleep(0.02 + 0.03 * turn)
        runtime.stop(signal.SIGKILL)
        runtime.start()
    runtime.wait(lambda: len(runtime.obeyed()) == len(given))
    time.sleep(0.3)
    runtime.stop()
    assert runtime.obeyed() == dict.fromkeys(given, 1)
    verbs_told = [e.verb for _, e in runtime.events(OperatorCommand)]
    assert verbs_told == [verbs[k % 4] for k in range(len(given))]
    assert not any(b.breaker.halted for b in runtime.state().books.values())


def test_flatten_asks_a_person_and_refuses_where_it_cannot(runtime):
    runtime.start("max")
    runtime.wait(lambda: runtime.events(RiskDecided))
    runtime.stop()
    unasked = runtime.say("flatten", "--reason", "x")
    assert unasked.returncode == 2
    assert "add --yes" in unasked.stderr
    for typed, code in ((b"other\n", 2), (b"paper\n", 0)):
        ours, theirs = pty.openpty()
        asked = subprocess.Popen(
            [PROGRAM, "flatten", "--reason", "x"], env=runtime.environment, cwd=runtime.cwd,
            stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        os.close(theirs)
        os.write(ours, typed)
        out, err = asked.communicate(timeout=60)
        os.close(ours)
        assert asked.returncode == code, err
        assert ("queued" in out) is (code == 0)
        if code:
            assert "nothing was ordered" in err


@pytest.mark.parametrize("verb", ["halt", "resume", "flatten", "accept"])
def test_an_order_to_nobody_or_without_a_reason_is_refused(runtime, verb):
    yes = ["--yes"] if verb == "flatten" else []
    unknown = runtime.say(verb, "--reason", "x", "--account", "nobody", *yes)
    assert unknown.returncode != 0
    assert "no journal" in unknown.stderr
    unreasoned = runtime.say(verb, *yes)
    assert unreasoned.returncode == 2
    assert "--reason" in unreasoned.stderr
    assert not (runtime.home / "state" / "nobody").exists()


def test_an_order_that_the_runtime_refuses_says_why(runtime):
    runtime.start()
    runtime.wait(lambda: runtime.events(RiskDecided))
    accepted = runtime.say("accept", "--reason", "the venue is right")
    assert "done" in accepted.stdout
    tight = runtime.say(
        "override", "--reason", "storm", "--for", "24h", "--max-position-pct", "0.01"
    )
    assert "done" in tight.stdout, tight.stderr
    assert [e.limits for _, e in runtime.events(OverrideSet)] == [{"max_position_pct": 0.01}]
    loose = runtime.say("override", "--reason", "x", "--for", "24h", "--max-position-pct", "0.09")
    assert loose.returncode == 2
    assert "would loosen" in loose.stderr
    unclear = runtime.say("override", "--reason", "x", "--for", "long", "--halt")
    assert unclear.returncode == 2
    assert "expected 30m, 24h or 7d" in unclear.stderr
    empty = runtime.say("halt", "--reason", "  ")
    assert empty.returncode == 2
    assert "needs a reason" in empty.stderr
