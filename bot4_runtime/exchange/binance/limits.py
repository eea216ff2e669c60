"""How often Binance may be asked: one budget for all processes of this machine.

Binance counts request weight by IP address and orders by account, in windows of the wall clock,
and tells with each answer what it counted. What is over is answered with 429; who goes on asking
is banned with 418, for minutes to days. So the count, and until when the venue wants silence,
lie in a small file under a lock that all processes share and that outlives them.

Lanes share a limit by rank: data may use half of it, orders that open and readings of the whole
account more, those that reduce still more, and cancels all. Source: binance-spot-api-docs,
rest-api.md, "LIMITS".
"""

import fcntl
import hashlib
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

import msgspec

from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.errors import ConfigError
from bot4_runtime.domain.unreadable import UNREADABLE

LONGEST_BAN_MS: Final = 3 * 86_400_000
"""Binance's longest ban; a longer wish for silence is a slip."""
DEFAULT_PAUSE_MS: Final = 60_000
"""How long to be silent when the venue does not say it readably."""
LOCK_MS: Final = 50
"""How long a process waits for another that holds the file."""
BUSY_MS: Final = 100
"""When to try again after that; what cancels or reduces goes without being counted."""
_PAGE: Final = 4_096
_STALE_MS: Final = 2 * 86_400_000
_BANNED_UNTIL: Final = re.compile(r"banned until (\d{13})")
_HEADER: Final = re.compile(r"x-mbx-(used-weight|order-count)-(\d+)([smhd])", re.IGNORECASE)
_UNITS_MS: Final = {"S": 1_000, "M": 60_000, "H": 3_600_000, "D": 86_400_000}

Result = TypeVar("Result")


class Lane(Enum):
    """What a request is for; its value is the share of a limit that it may use up."""

    DATA = 0.5
    OPEN = 0.8
    REDUCE = 0.95
    CANCEL = 1.0


class Limit(NamedTuple):
    """A limit of the venue: so much in each window of the wall clock."""

    length_ms: int
    most: int


class LimitFields(msgspec.Struct, rename="camel"):
    """A limit as `exchangeInfo` and the WebSocket API tell it; `count` is of the latter."""

    rate_limit_type: str
    interval: str
    interval_num: int
    limit: int
    count: int | None = None

    @property
    def length_ms(self) -> int:
        """Length of its window; 0 when it is one nobody knows."""
        return _UNITS_MS.get(self.interval[:1].upper(), 0) * self.interval_num


WEIGHT: Final = {Market.SPOT: Limit(60_000, 6_000), Market.USDM: Limit(60_000, 2_400)}
"""Of an IP address, until `exchangeInfo` was read."""
ORDERS: Final = {
    Market.SPOT: (Limit(10_000, 50), Limit(86_400_000, 160_000)),
    Market.USDM: (Limit(10_000, 300), Limit(60_000, 1_200)),
}
"""Of an account: the lower of what Binance's documentation shows."""


class _Used(msgspec.Struct):
    """A count in one window, which is named by its number since 1970."""

    window: int = 0
    count: int = 0

    def at(self, window: int) -> int:
        """Return what counts in a window; a clock slightly behind another's sees its count."""
        return self.count if self.window in {window, window + 1} else 0

    def add(self, window: int, count: int) -> None:
        self.count = self.at(window) + count
        self.window = self.window if self.window == window + 1 else window


class _Account(msgspec.Struct):
    until_ms: int = 0
    seen_ms: int = 0
    used: dict[str, _Used] = {}


class _State(msgspec.Struct):
    """What the file holds.

    Attributes:
        until_ms: nothing is sent before.
        used: weight by the length of its window in ms.
        accounts: by a digest of the API key.
    """

    until_ms: int = 0
    used: dict[str, _Used] = {}
    accounts: dict[str, _Account] = {}


class _Asked(NamedTuple):
    """How much of a limit a request uses up, and what was used of it before."""

    used: dict[str, _Used]
    limit: Limit
    much: int


class RequestBudget:
    """What this machine may still ask of one market.

    Args:
        path: of the shared file; None counts for this object alone.
        market: whose limits hold until others are learnt.
        clock_ms: the venue's time as well as it is known, UTC.

    Raises:
        ConfigError: the file cannot be made.
    """

    def __init__(
        self,
        path: Path | None,
        market: Market = Market.SPOT,
        clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self.path = path
        self.clock_ms = clock_ms
        self.weight = WEIGHT[market]
        self.orders: tuple[Limit, ...] = ORDERS[market]
        self._own = _State()
        if path is not None:
            try:
                path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))
            except OSError as error:
                raise ConfigError(
                    f"the count of requests cannot be kept in {path} ({error.strerror}); it "
                    "must be writable: without it processes add up to a ban"
                ) from error

    def take(self, lane: Lane, weight: int = 1, *, account: str = "", orders: int = 0) -> int:
        """Use weight, and count new orders of an account.

        Args:
            lane: what for.
            weight: what the venue counts for the request.
            account: its API key, when `orders` are sent.
            orders: new orders in the request.

        Returns:
            0 when the request may be sent now; else in how many milliseconds to try again.
        """
        now_ms = self.clock_ms()

        def taken(state: _State) -> int:
            asked, until_ms = self._asked(state, weight, account, orders)
            wait_ms = _wait_ms(asked, until_ms, lane, now_ms)
            if not wait_ms:
                for used, limit, count in asked:
                    _of(used, limit).add(now_ms // limit.length_ms, count)
            return wait_ms

        answer = self._change(taken)
        if answer is not None:
            return answer
        if lane in {Lane.REDUCE, Lane.CANCEL}:
            return max(self._peek().until_ms - now_ms, 0)
        return BUSY_MS

    def look(self, lane: Lane, weight: int, *, account: str, orders: int) -> int:
        """Return in how many milliseconds as much could be sent, and use nothing."""
        asked, until_ms = self._asked(self._peek(), weight, account, orders)
        return _wait_ms(asked, until_ms, lane, self.clock_ms())

    def _asked(
        self, state: _State, weight: int, account: str, orders: int
    ) -> tuple[list[_Asked], int]:
        """Return what a request uses up, and before when it must not be sent."""
        asked, until_ms = [_Asked(state.used, self.weight, weight)], state.until_ms
        if orders:
            held = state.accounts.setdefault(_digest(account), _Account())
            held.seen_ms = self.clock_ms()
            asked += [_Asked(held.used, limit, orders) for limit in self.orders]
            until_ms = max(until_ms, held.until_ms)
        return asked, until_ms

    def stay_away(self, pause_ms: float) -> None:
        """Let no process of this machine ask before this long."""
        until_ms = self.clock_ms() + _pause(pause_ms)

        def told(state: _State) -> None:
            state.until_ms = max(state.until_ms, until_ms)

        self._surely(told)

    def hold_orders(self, account: str, pause_ms: float) -> None:
        """Let no process send new orders of an account before this long; cancels may go."""
        until_ms = self.clock_ms() + _pause(pause_ms)

        def told(state: _State) -> None:
            held = state.accounts.setdefault(_digest(account), _Account())
            held.until_ms, held.seen_ms = max(held.until_ms, until_ms), self.clock_ms()

        self._surely(told)

    def told(self, headers: Mapping[str, str], sent_ms: int, account: str = "") -> None:
        """Take over what the venue says it counted.

        Args:
            headers: of an answer.
            sent_ms: by `clock_ms`; a window that ended since then is left alone.
            account: whose API key was sent.
        """
        counts = [
            (match[1].lower() == "used-weight", int(match[2]) * _UNITS_MS[match[3].upper()], count)
            for name, text in headers.items()
            if (match := _HEADER.fullmatch(name)) and (count := _whole(text)) is not None
        ]
        self._counted(counts, sent_ms, account)

    def learn(self, limits: Iterable[LimitFields], sent_ms: int = 0, account: str = "") -> None:
        """Take over limits as the venue tells them, and its counts where it tells them too."""
        counts, orders = [], []
        for told in limits:
            length_ms = told.length_ms
            if not (length_ms > 0 and told.limit > 0):
                continue
            is_weight = told.rate_limit_type == "REQUEST_WEIGHT"
            if is_weight:
                self.weight = Limit(length_ms, told.limit)
            elif told.rate_limit_type == "ORDERS":
                orders.append(Limit(length_ms, told.limit))
            else:
                continue
            if told.count is not None:
                counts.append((is_weight, length_ms, told.count))
        known = {limit.length_ms: limit for limit in self.orders}
        self.orders = tuple((known | {limit.length_ms: limit for limit in orders}).values())
        self._counted(counts, sent_ms, account)

    def _counted(self, counts: Iterable[tuple[bool, int, int]], sent_ms: int, who: str) -> None:
        now_ms = self.clock_ms()
        current = [
            (is_weight, str(length_ms), now_ms // length_ms, count)
            for is_weight, length_ms, count in counts
            if sent_ms // length_ms == now_ms // length_ms and (is_weight or who)
        ]
        if not current:
            return

        def taken_over(state: _State) -> None:
            for is_weight, length, window, count in current:
                if is_weight:  # others of this address are in it, requests on their way are not
                    used = state.used.setdefault(length, _Used())
                    used.add(window, max(count - used.at(window), 0))
                else:  # a fill gives some back: the venue's count is the truth
                    held = state.accounts.setdefault(_digest(who), _Account())
                    held.used[length], held.seen_ms = _Used(window, count), now_ms

        self._change(taken_over)

    # ------------------------------------------------------------------------ the file
    def _surely(self, change: Callable[[_State], None]) -> None:
        """Keep a ban, whoever holds the file: at least this process knows it."""
        change(self._own)
        self._change(change)

    def _change(self, change: Callable[[_State], Result]) -> Result | None:
        """Change the state under the lock; None when another process does not let go of it."""
        if self.path is None:
            return change(self._own)
        try:
            file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError:
            return None
        try:
            if not _locked(file):
                return None
            state = self._merged(_read(file))
            answer = change(state)
            _write(file, state, self.clock_ms())
        except OSError:
            return None
        finally:
            os.close(file)
        return answer

    def _peek(self) -> _State:
        """Return the state without the lock."""
        if self.path is None:
            return self._own
        try:
            file = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return self._own
        try:
            return self._merged(_read(file))
        finally:
            os.close(file)

    def _merged(self, state: _State) -> _State:
        """Return the file's state with the bans that only this process knows."""
        state.until_ms = max(state.until_ms, self._own.until_ms)
        for digest, own in self._own.accounts.items():
            held = state.accounts.setdefault(digest, _Account(seen_ms=own.seen_ms))
            held.until_ms = max(held.until_ms, own.until_ms)
        return state


def shared_budget(
    market: Market,
    clock_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    *,
    testnet: bool = False,
) -> RequestBudget:
    """Return the budget of Binance's own servers, which count by this machine's address.

    It lies in the machine's folder: it outlives processes. Testnets count and ban for
    themselves: what they want must not silence exits at the real market.
    """
    name = f"rate-{market.value}{'-testnet' if testnet else ''}.json"
    return RequestBudget(machine_folder() / name, market, clock_ms)


def machine_folder() -> Path:
    """Return where all processes of this user on this machine meet, whatever their homes are."""
    return Path(tempfile.gettempdir()) / f"bot4-{os.getuid()}"


def pause_ms(retry_after: str | None, message: str, now_ms: int) -> float:
    """Return how long the venue wants silence.

    Args:
        retry_after: the header, in seconds.
        message: of the error, which may name the end of a ban.
        now_ms: the present.
    """
    banned = _BANNED_UNTIL.search(message)
    until = float(banned[1]) - now_ms if banned else 0.0
    try:
        asked = float(retry_after or "nan") * 1000
    except ValueError:
        asked = float("nan")
    told = max(until, asked if asked >= 0 else 0.0)
    return told if told > 0 or asked == 0 else DEFAULT_PAUSE_MS


def _pause(asked_ms: float) -> int:
    return round(min(asked_ms, LONGEST_BAN_MS)) if asked_ms >= 0 else DEFAULT_PAUSE_MS


def _whole(text: str) -> int | None:
    return int(text) if re.fullmatch(r"\d{1,12}", text) else None


def _wait_ms(asked: Iterable[_Asked], until_ms: int, lane: Lane, now_ms: int) -> int:
    """Return in how many milliseconds a request may be sent."""
    if until_ms > now_ms:
        return min(until_ms - now_ms, LONGEST_BAN_MS)
    for used, limit, count in asked:
        window = now_ms // limit.length_ms
        there = _of(used, limit).at(window)
        if there and there + count > limit.most * lane.value:
            return (window + 1) * limit.length_ms - now_ms
    return 0


def _of(used: dict[str, _Used], limit: Limit) -> _Used:
    return used.setdefault(str(limit.length_ms), _Used())


def _digest(account: str) -> str:
    """Return what stands for an API key in the file."""
    return hashlib.sha256(account.encode()).hexdigest()[:16]


def _locked(file: int) -> bool:
    deadline = time.monotonic() + LOCK_MS / 1000
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.001)
        else:
            return True


def _read(file: int) -> _State:
    """Read the file; one that is no state counts as nothing used."""
    try:
        return msgspec.json.decode(os.pread(file, 1 << 20, 0), type=_State)
    except UNREADABLE:
        return _State()


def _write(file: int, state: _State, now_ms: int) -> None:
    """Write whole pages at once, so that a process that is killed leaves the old or the new."""
    for digest, held in list(state.accounts.items()):
        if max(held.seen_ms, held.until_ms) < now_ms - _STALE_MS:
            del state.accounts[digest]
    data = msgspec.json.encode(state)
    pages = -(-max(len(data), os.fstat(file).st_size) // _PAGE)
    os.pwrite(file, data.ljust(pages * _PAGE), 0)
