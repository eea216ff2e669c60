"""A venue's market streams without a network: what it says is called by the test, line by line.

`run_virtually` runs a coroutine on a loop whose time jumps to the next timer whenever nothing
else is to be done, so that hours pass in milliseconds and nothing depends on the machine.
"""

import asyncio
import selectors
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final, TypeVar

import msgspec

from bot4_runtime.exchange.binance.market_line import Frame, Kind, Line, LineLost

Result = TypeVar("Result")
_END: Final = object()


class ScriptedLine:
    """One connection; `say`, `ping` and `hang_up` are the venue's side of it.

    Attributes:
        said: (time of the loop, text) of all that the client said.
        pongs: what the client answered pings with.
        deaf: it takes what the client says and answers nothing, pings neither.
        hung_up: the client ended it.
    """

    def __init__(self, url: str, *, refuses: str = "", deaf: bool = False) -> None:
        self.url = url
        self.said: list[tuple[float, str]] = []
        self.pongs: list[bytes] = []
        self.pings = 0
        self.deaf = deaf
        self.hung_up = False
        self._refuses = refuses
        self._coming: asyncio.Queue[Frame | object] = asyncio.Queue()

    # ------------------------------------------------------------------ the venue's side
    def say(self, message: str | bytes | Mapping[str, Any]) -> None:
        """Send the client a text."""
        if isinstance(message, Mapping):
            message = msgspec.json.encode(message)
        self._coming.put_nowait(Frame(Kind.TEXT, message))

    def ask_pong(self, payload: bytes) -> None:
        """Ping the client."""
        self._coming.put_nowait(Frame(Kind.PING, payload))

    def hang_up(self) -> None:
        """End the connection."""
        self._coming.put_nowait(_END)

    # ----------------------------------------------------------------- the client's side
    async def receive(self) -> Frame:
        """Wait for the next frame."""
        frame = await self._coming.get()
        if not isinstance(frame, Frame):
            self._coming.put_nowait(_END)
            raise LineLost("the venue ended the connection")
        return frame

    async def send(self, text: str) -> None:
        """Take a request, and grant it unless told otherwise."""
        self.said.append((asyncio.get_running_loop().time(), text))
        if self.deaf:
            return
        number = msgspec.json.decode(text)["id"]
        if self._refuses:
            self.say({"error": {"code": 2, "msg": self._refuses}, "id": number})
        else:
            self.say({"result": None, "id": number})

    async def ping(self) -> None:
        """Answer with a pong."""
        self.pings += 1
        if not self.deaf:
            self._coming.put_nowait(Frame(Kind.PONG, b"bot4"))

    async def pong(self, payload: bytes) -> None:
        """Take the answer to a ping."""
        self.pongs.append(payload)

    async def close(self) -> None:
        """Let the client hang up."""
        self.hung_up = True


class ScriptedDialler:
    """Hands out lines; None of `plan` is a connection that fails.

    Args:
        plan: makes the n-th line, from 0; one that is granted everything when it is left out.

    Attributes:
        lines: all that were handed out.
        dialled: times of the loop at which a connection was tried.
    """

    def __init__(self, plan: Callable[[int, str], ScriptedLine | None] | None = None) -> None:
        self._plan = plan or (lambda _number, url: ScriptedLine(url))
        self.lines: list[ScriptedLine] = []
        self.dialled: list[float] = []

    async def dial(self, url: str) -> Line:
        """Connect; raises LineLost where the plan says so."""
        self.dialled.append(asyncio.get_running_loop().time())
        line = self._plan(len(self.dialled) - 1, url)
        if line is None:
            raise LineLost(f"no connection to {url} (planned)")
        self.lines.append(line)
        return line


class _Jumping(selectors.DefaultSelector):
    """Instead of waiting for the next timer, lets the loop's time jump to it."""

    now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise RuntimeError("nothing will ever happen: no timer, and nobody has anything to do")
        self.now += max(timeout, 0.0)
        return super().select(0)


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose time begins at 0 and jumps from timer to timer."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Return the loop's time in seconds."""
        return self._jumping.now


def run_virtually(work: Coroutine[Any, Any, Result]) -> Result:
    """Run a coroutine to its end on a `VirtualLoop`."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work)
