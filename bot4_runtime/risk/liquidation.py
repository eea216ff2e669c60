"""How near every wallet is to liquidation, looked at on every price and ten times a second.

The larger of margin ratio and margin consumed is held against the thresholds: above `alert`
people are told, from `act` on the ladder acts (`bot4_runtime.risk.ladder`), from `critical` on
it may close. Legs are valued at the mark; between marks, at the worse of mark and mid. A mark
that is too old alarms and stops entries; so does a measure that is not known. Prices and times
are arguments: the same calls give the same answers.

Silence is no recovery: a stale leg keeps its last price, counts in its wallet, and is acted on,
for a venue lags most in a crash, and a needless cut costs a fee where a missed one costs the
margin. But only for `BLIND_AFTER_MS`: older than that, a mark says nothing of now, and step after
step would sell a position whole on it. From then on the mid alone values the leg, and without
one as young the leg is blind: no step begins on it and no stop counts as newly crossed until a
price arrives; its wallet's other legs are acted on as ever, and a wallet of blind legs alone is
told as one without a possible step.

Our clock may run `CLOCK_ERROR_MS` behind the venue's before entries stop. A price stamped more
than `FUTURE_MS` ahead of it is refused: kept, it would shut out every true one after it.
"""

import math
from dataclasses import dataclass
from typing import Final

from bot4_runtime.domain.errors import ConfigError
from bot4_runtime.risk.alarm import (
    CRITICAL,
    INFO,
    MARGIN_ACT,
    MARGIN_ALERT,
    MARGIN_CLEARED,
    MARGIN_CRITICAL,
    MARGIN_UNKNOWN,
    MARK_STALE,
    VENUE_DIFFERS,
    WARNING,
    Alarm,
)
from bot4_runtime.risk.margin import Leg, Wallet

REDUCE: Final = "reduce"
ADD_MARGIN: Final = "add_margin"
CLOSE: Final = "close"
STEPS: Final = (REDUCE, ADD_MARGIN, CLOSE)
"""The ladder's steps, in the order they are tried."""

_CALM: Final = 0
_ALERT: Final = 1
_ACT: Final = 2
_CRITICAL: Final = 3
_UNKNOWN: Final = 4

HYSTERESIS: Final = 0.02
"""How far a measure falls below a threshold before the alarm counts as over."""

VENUE_TOLERANCE: Final = 0.001
"""Share by which the venue's own liquidation price may differ from ours."""

CLOCK_ERROR_MS: Final = 500
"""How far ahead of our clock a mark may be stamped while entries are allowed."""

BLIND_AFTER_MS: Final = 60_000
"""Age from which nothing new is begun on a price."""

FUTURE_MS: Final = 1_000
"""How far ahead of our clock a price may be stamped at most."""

_NS_PER_MS: Final = 1_000_000
_CLOCK_ERROR_NS: Final = CLOCK_ERROR_MS * _NS_PER_MS
_BLIND_NS: Final = BLIND_AFTER_MS * _NS_PER_MS


@dataclass(frozen=True, kw_only=True)
class LiquidationLimits:
    """When protection alerts and acts, and what it may do.

    Attributes:
        alert, act, critical: of the larger measure; 1 is liquidation.
        mark_stale_ms: age from which a mark alarms and stops entries.
        actions: steps that are allowed, of `STEPS`.
        stop_watchdog_s: seconds a crossed stop may take to be done.

    Raises:
        ConfigError: the thresholds do not rise within (0, 1), a step is unknown, or a time is
            not positive.
    """

    alert: float = 0.8
    act: float = 0.9
    critical: float = 0.95
    mark_stale_ms: int = 3000
    actions: tuple[str, ...] = STEPS
    stop_watchdog_s: float = 5.0

    def __post_init__(self) -> None:
        if not 0.0 < self.alert < self.act <= self.critical < 1.0:
            raise ConfigError(
                f"liquidation thresholds are alert {self.alert}, act {self.act}, critical "
                f"{self.critical}; expected 0 < alert < act <= critical < 1, 1 being liquidation"
            )
        unknown = [action for action in self.actions if action not in STEPS]
        if unknown:
            raise ConfigError(
                f"liquidation.actions names {', '.join(unknown)}; expected of {', '.join(STEPS)}"
            )
        if not (0 < self.mark_stale_ms <= 60_000 and 0.0 < self.stop_watchdog_s <= 300.0):
            raise ConfigError(
                f"liquidation.mark_stale_ms is {self.mark_stale_ms}, stop_watchdog_s "
                f"{self.stop_watchdog_s}; expected up to 60000 ms and up to 300 s, above 0"
            )


class _Quote:
    """The latest prices of a symbol, in quote, and when they were made (UTC, ns).

    `outlived`: the mark is too old to be held against a newer mid. `ahead`: it came with a stamp
    further ahead than clocks may differ. `refused` counts prices from the future since it came.
    """

    def __init__(self) -> None:
        self.mark = math.nan
        self.mark_ns = -1
        self.mid = math.nan
        self.mid_ns = -1
        self.ahead = False
        self.refused = 0
        self.stale = False
        self.outlived = False
        self.legs: list[Leg] = []

    def value(self) -> None:
        """Value the symbol's legs at the mark, or at a newer mid where that is worse."""
        mark = self.mark
        mid = self.mid if self.mid_ns > self.mark_ns else mark
        if self.outlived and 0.0 < mid < math.inf:
            mark = mid
        for leg in self.legs:
            if leg.side > 0:
                leg.price = mid if 0.0 < mid < mark else mark
            else:
                leg.price = mid if mark < mid < math.inf else mark


class LiquidationMonitor:
    """Measures wallets and says what changed.

    Attributes:
        wallets: what is watched.
        entries_allowed: False while a mark is stale, a measure unknown, or action is due.
        refused: prices that were stamped more than `FUTURE_MS` ahead.
    """

    def __init__(self, limits: LiquidationLimits) -> None:
        self._limits: Final = limits
        self._stale_ns: Final = limits.mark_stale_ms * _NS_PER_MS
        self._quotes: dict[str, _Quote] = {}
        self._held: list[str] = []
        self._told: dict[str, int] = {}
        self.wallets: list[Wallet] = []
        self.entries_allowed = True
        self.refused = 0

    def hold(self, wallets: list[Wallet]) -> None:
        """Watch these wallets from now on; prices seen so far stay."""
        self.wallets = wallets
        for quote in self._quotes.values():
            quote.legs = []
        held: list[str] = []
        for wallet in wallets:
            for leg in wallet.legs:
                self._quote(leg.symbol).legs.append(leg)
                if leg.symbol not in held:
                    held.append(leg.symbol)
        for symbol in held:
            self._quotes[symbol].value()
        self._held = held
        names = {wallet.name for wallet in wallets} | set(held)
        self._told = {name: level for name, level in self._told.items() if name in names}

    def on_mark(self, symbol: str, price: float, ts_ns: int, now_ns: int) -> None:
        """Take a mark price; one older than the last, or of the future, is left aside."""
        quote = self._quote(symbol)
        if self._future(quote, ts_ns, now_ns):
            return
        if ts_ns >= quote.mark_ns:
            quote.mark = price
            quote.mark_ns = ts_ns
            quote.ahead = ts_ns - now_ns > _CLOCK_ERROR_NS
            quote.refused = 0
            quote.value()

    def on_mid(self, symbol: str, price: float, ts_ns: int, now_ns: int) -> None:
        """Take the middle of the book; it counts while it is newer than the mark."""
        quote = self._quote(symbol)
        if self._future(quote, ts_ns, now_ns):
            return
        if ts_ns >= quote.mid_ns:
            quote.mid = price
            quote.mid_ns = ts_ns
            quote.value()

    def look(self, now_ns: int) -> list[Alarm]:
        """Measure every wallet; return what people do not know yet."""
        alarms: list[Alarm] = []
        allowed = True
        for symbol in self._held:
            quote = self._quotes[symbol]
            in_time = -_CLOCK_ERROR_NS <= now_ns - quote.mark_ns <= self._stale_ns
            stale = quote.mark_ns < 0 or quote.ahead or not in_time
            if stale:
                allowed = False
            if stale != quote.stale:
                quote.stale = stale
                alarms.append(_staleness(symbol, quote, now_ns))
            outlived = now_ns - quote.mark_ns > _BLIND_NS
            if outlived != quote.outlived:
                quote.outlived = outlived
                quote.value()
            young = 0.0 < quote.mid < math.inf and now_ns - quote.mid_ns <= _BLIND_NS
            blind = outlived and not young
            for leg in quote.legs:
                leg.blind = blind
        for wallet in self.wallets:
            level = self._level(wallet.measure())
            if level >= _ACT:
                allowed = False
            told = self._told.get(wallet.name, _CALM)
            if level != told:
                self._tell(wallet, level, told, alarms)
        self.entries_allowed = allowed
        return alarms

    def check_venue(self) -> list[Alarm]:
        """Compare our liquidation prices with the venue's own, where both are known."""
        alarms: list[Alarm] = []
        for wallet in self.wallets:
            if math.isnan(wallet.measure()):
                continue
            for leg in wallet.legs:
                theirs = leg.venue_liquidation_price
                if math.isnan(theirs):
                    continue
                ours = wallet.liquidation_price(leg)
                mine = 0.0 if ours is None else ours
                if not abs(mine - theirs) <= VENUE_TOLERANCE * abs(theirs):
                    alarms.append(
                        Alarm(
                            WARNING,
                            VENUE_DIFFERS,
                            leg.symbol,
                            f"{leg.symbol}: the venue says it liquidates at {theirs:g}, we say "
                            f"{mine:g}; check brackets, margin mode and wallet balance",
                            {"ours": mine, "venue": theirs, "tolerance": VENUE_TOLERANCE},
                        )
                    )
        return alarms

    def _future(self, quote: _Quote, ts_ns: int, now_ns: int) -> bool:
        """Whether a price is of the future; it is counted, and so are all of them together."""
        future = ts_ns - now_ns > FUTURE_MS * _NS_PER_MS
        if future:
            quote.refused += 1
            self.refused += 1
        return future

    def _quote(self, symbol: str) -> _Quote:
        quote = self._quotes.get(symbol)
        if quote is None:
            quote = _Quote()
            self._quotes[symbol] = quote
        return quote

    def _level(self, worst: float) -> int:
        limits = self._limits
        if worst < limits.alert:
            return _CALM
        if worst >= limits.critical:
            return _CRITICAL
        if worst >= limits.act:
            return _ACT
        return _ALERT if worst >= limits.alert else _UNKNOWN  # NaN is below and above nothing

    def _tell(self, wallet: Wallet, level: int, told: int, alarms: list[Alarm]) -> None:
        """Tell of a worse level at once, of a better one only when it is clearly better."""
        if level < told < _UNKNOWN and not wallet.worst < self._threshold(told) - HYSTERESIS:
            return
        self._told[wallet.name] = level
        if level == _CALM or level > told or told == _UNKNOWN:
            alarms.append(_margin_alarm(wallet, level))

    def _threshold(self, level: int) -> float:
        limits = self._limits
        if level == _CRITICAL:
            return limits.critical
        return limits.act if level == _ACT else limits.alert


def _margin_alarm(wallet: Wallet, level: int) -> Alarm:
    numbers = {
        "worst": wallet.worst,
        "ratio": wallet.ratio,
        "consumed": wallet.consumed,
        "maintenance": wallet.maintenance,
        "margin_balance": wallet.margin_balance,
    }
    told = f"margin ratio {wallet.ratio:.2%}, margin consumed {wallet.consumed:.2%}"
    if level == _UNKNOWN:
        text = f"{wallet.name}: a price or size is not known, so neither is the margin"
        return Alarm(CRITICAL, MARGIN_UNKNOWN, wallet.name, text, numbers)
    if level == _CALM:
        return Alarm(INFO, MARGIN_CLEARED, wallet.name, f"{wallet.name}: {told}", numbers)
    if level == _ALERT:
        return Alarm(WARNING, MARGIN_ALERT, wallet.name, f"{wallet.name}: {told}", numbers)
    code = MARGIN_ACT if level == _ACT else MARGIN_CRITICAL
    return Alarm(CRITICAL, code, wallet.name, f"{wallet.name}: {told}; acting", numbers)


def _staleness(symbol: str, quote: _Quote, now_ns: int) -> Alarm:
    age_ms = (now_ns - quote.mark_ns) / _NS_PER_MS if quote.mark_ns >= 0 else math.nan
    numbers = {"age_ms": age_ms}
    if not quote.stale:
        return Alarm(INFO, MARK_STALE, symbol, f"{symbol}: marks arrive again", numbers)
    text = f"{symbol}: the last mark is {age_ms:.0f} ms old; entries stop until one arrives"
    if quote.ahead or quote.refused or age_ms < 0.0:
        numbers["refused"] = float(quote.refused)
        text = (
            f"{symbol}: marks are stamped ahead of this clock, {quote.refused} of them refused "
            "since the last one that was taken; entries stop; set the clock"
        )
    return Alarm(CRITICAL, MARK_STALE, symbol, text, numbers)
