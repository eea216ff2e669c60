"""A loop on a thread of its own ends when it is told to, whenever that is."""

import asyncio
import threading

import pytest

from bot4_runtime.exchange.binance.loop_thread import LoopThread


class Work:
    """Waits for ever, and remembers how often it began and ended."""

    def __init__(self) -> None:
        self.begun = threading.Event()
        self.count = 0
        self.ended = 0

    async def __call__(self) -> None:
        self.count += 1
        self.begun.set()
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            self.ended += 1


def test_it_is_begun_asked_ended_and_begun_again() -> None:
    work = Work()
    thread = LoopThread("work", work)
    thread.soon(pytest.fail, "nobody is there yet")
    assert not thread.alive
    for number in (1, 2):
        work.begun.clear()
        thread.start()
        assert work.begun.wait(5)
        assert thread.alive
        called: list[str] = []
        done = threading.Event()
        thread.soon(lambda called=called, done=done: (called.append(threading.current_thread().name), done.set()))  # fmt: skip
        assert done.wait(5)
        assert called == ["work"]
        for _ in range(2):
            thread.close()
            assert not thread.alive
        assert (work.count, work.ended) == (number, number)
    thread.soon(pytest.fail, "nobody is there any more")


def test_whenever_it_is_closed_it_has_ended_then() -> None:
    for _ in range(50):  # at once: before, while or after the loop begins
        work = Work()
        thread = LoopThread("work", work)
        thread.start()
        thread.close()
        assert not thread.alive
        assert work.count == work.ended <= 1


def test_work_that_ends_by_itself_ends_the_thread() -> None:
    async def nothing() -> None:
        pass

    thread = LoopThread("work", nothing)
    thread.start()
    ended = thread._thread
    assert ended is not None
    ended.join(5)
    assert not thread.alive
    thread.soon(pytest.fail, "nobody is there any more")
    thread.close()


def test_one_that_was_never_begun_may_be_closed() -> None:
    LoopThread("work", Work()).close()
