"""A loop of asyncio on a thread of its own: begun, asked from other threads, ended."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any


class LoopThread:
    """Does one piece of work until it is done, or closed.

    Args:
        name: of the thread.
        work: what is done on the loop; `close` cancels it.

    Attributes:
        closing: whether it is to end.
    """

    def __init__(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._name = name
        self._work = work
        self._loop: asyncio.AbstractEventLoop | None = None
        self._task: asyncio.Task[None] | None = None
        self._thread: threading.Thread | None = None
        self.closing = False

    def start(self) -> None:
        """Begin; returns at once."""
        self.closing = False
        self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End, and wait for it; may be repeated."""
        self.closing = True
        task = self._task
        if task is not None:
            self.soon(task.cancel)
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread is not None and self._thread.is_alive()

    def soon(self, call: Callable[..., object], *arguments: object) -> None:
        """Have something called on the loop; nothing where it has not begun or is over."""
        if self._loop is not None:
            with suppress(RuntimeError):  # the loop ended on its own
                self._loop.call_soon_threadsafe(call, *arguments)

    def _run(self) -> None:
        with suppress(asyncio.CancelledError):
            asyncio.run(self._begin())

    async def _begin(self) -> None:
        self._loop, self._task = asyncio.get_running_loop(), asyncio.current_task()
        if not self.closing:
            await self._work()
