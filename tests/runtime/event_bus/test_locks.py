"""What the locks of queue and bus are for: beside each test runs its twin without the lock.

The other thread is let in at the one moment that matters, so that no chance is in it: it goes
on to its end where nothing keeps it out, and until it waits for the lock where it is kept out.
"""

import threading
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from bot4_runtime.domain.events import Heartbeat
from bot4_runtime.event_bus import EventBus
from bot4_runtime.event_queue import EventQueue, Overflow


class WatchedLock:
    """A lock, or with `real` False none, that lets others in and sees them wait."""

    def __init__(self, *, real: bool) -> None:
        self._lock = threading.Lock() if real else None
        self._waiting = threading.Event()
        self._others: list[threading.Thread] = []

    def __enter__(self) -> bool:
        if self._lock is not None and not self._lock.acquire(blocking=False):
            self._waiting.set()
            self._lock.acquire()
        return True

    def __exit__(self, *_: object) -> None:
        if self._lock is not None:
            self._lock.release()

    def let_in(self, action: Callable[[], object]) -> None:
        """Run an action in another thread until it ends or waits for the lock."""
        other = threading.Thread(target=action, daemon=True)
        self._others.append(other)
        other.start()
        while other.is_alive() and not self._waiting.is_set():
            other.join(0.001)

    def join(self) -> None:
        """Wait for those who were let in."""
        for other in self._others:
            other.join(10)
            assert not other.is_alive()


class Once:
    """Runs an action the first time it is called."""

    def __init__(self, action: Callable[[], object]) -> None:
        self._actions = [action]

    @property
    def called(self) -> bool:
        return not self._actions

    def __call__(self) -> None:
        if self._actions:
            self._actions.pop()()


def beat(number: int) -> Heartbeat:
    return Heartbeat(ts_event_ns=number, events_total=number)


def watched(
    monkeypatch: pytest.MonkeyPatch, make: Callable[[], Any], *, real: bool
) -> tuple[Any, WatchedLock]:
    """Make a queue or bus whose lock is a watched one."""
    lock = WatchedLock(real=real)
    with monkeypatch.context() as patched:
        patched.setattr(threading, "Lock", lambda: lock)
        made = make()
    return made, lock


class Key:
    """A key that lets others in while it is looked for."""

    def __init__(self, looked_for: Callable[[], object]) -> None:
        self._looked_for = looked_for

    def __hash__(self) -> int:
        return 1

    def __eq__(self, other: object) -> bool:
        self._looked_for()
        return True


@pytest.mark.parametrize("locked", [True, False])
def test_a_newer_event_replaces_an_older_one_while_a_reader_drains(monkeypatch, locked):
    queue, lock = watched(
        monkeypatch,
        lambda: EventQueue(
            "q", 10, Overflow.CONFLATE, lambda event: first if event == beat(1) else second
        ),
        real=locked,
    )
    drained: list[object] = []
    once = Once(lambda: lock.let_in(lambda: drained.extend(queue.drain())))
    first, second = Key(once), Key(once)
    queue.push(beat(1))
    if locked:
        queue.push(beat(2))
        lock.join()
        assert [*drained, *queue.drain()] == [beat(2)]
        assert queue.conflated == 1
    else:
        with pytest.raises(KeyError):  # the older one went with the reader in between
            queue.push(beat(2))


class Counted(deque):
    """Waiting events that let others in after they were counted."""

    def __init__(self, events: Iterator[object], counted: Callable[[], object]) -> None:
        super().__init__(events)
        self._counted = counted

    def __len__(self) -> int:
        found = super().__len__()
        self._counted()
        return found


@pytest.mark.parametrize("locked", [True, False])
def test_a_full_queue_drops_its_oldest_while_a_reader_drains(monkeypatch, locked):
    queue, lock = watched(
        monkeypatch, lambda: EventQueue("q", 2, Overflow.DROP_OLDEST), real=locked
    )
    drained: list[tuple[int, list[object]]] = []
    once = Once(lambda: lock.let_in(lambda: drained.append(queue.drain_numbered())))
    queue.push(beat(0))
    queue.push(beat(1))
    queue._events = Counted(queue._events, once)
    if locked:
        queue.push(beat(2))
        lock.join()
        assert drained == [(1, [beat(1), beat(2)])]
        assert queue.drain_numbered() == (3, [])
    else:
        with pytest.raises(IndexError):  # nothing is left to drop
            queue.push(beat(2))


class Iterated(list):
    """Subscriptions that let others in after they were read."""

    def __init__(self, items: Iterator[object], read: Callable[[], object]) -> None:
        super().__init__(items)
        self._read = read

    def __iter__(self) -> Iterator[object]:
        found = [*super().__iter__()]
        self._read()
        return iter(found)


@pytest.mark.parametrize("locked", [True, False])
@pytest.mark.parametrize("change", ["subscribe", "unsubscribe"])
def test_nobody_is_lost_who_subscribes_while_others_come_and_go(monkeypatch, locked, change):
    bus, lock = watched(monkeypatch, EventBus, real=locked)
    seen: list[str] = []
    going = bus.subscribe(Heartbeat, lambda _: seen.append("going"))
    once = Once(lambda: lock.let_in(lambda: bus.subscribe(Heartbeat, other)))

    def other(_: object) -> None:
        seen.append("other")

    bus._subscriptions = Iterated(bus._subscriptions, once)
    if change == "subscribe":
        bus.subscribe(Heartbeat, lambda _: seen.append("ours"))
    else:
        bus.unsubscribe(going)
    if not once.called:
        pytest.skip("interpreted sources: a compiled comprehension reads a list unasked")
    lock.join()
    bus.publish(beat(1))
    assert ("other" in seen) is locked
    assert ("ours" in seen) is (change == "subscribe")
