"""A venue in the present: the invented market shifted to now, with faults by the minute."""

from decimal import Decimal

import msgspec

from bot4_runtime.clock import LiveClock
from bot4_runtime.domain.candle import Market, interval_ms
from bot4_runtime.domain.instrument import Instrument
from bot4_runtime.rehearsal.schedules import drawn, on_both_ways
from bot4_runtime.sources import SIMULATED_START_MS, SimulatedSource, wall_ms
from bot4_runtime.venue.faults import Fault, FaultSchedule
from bot4_runtime.venue.journal import MemorySink
from bot4_runtime.venue.loopback import Loopback
from bot4_runtime.venue.order_counts import SPOT_ORDERS
from bot4_runtime.venue.rules import SymbolRules
from bot4_runtime.venue.tape import candle_prints

KEY = "soak"
INTERVAL = "1m"
STEP_MS = interval_ms(INTERVAL)
SYMBOLS = ("ADAUSDT", "BNBUSDT", "BTCUSDT", "ETHUSDT", "LTCUSDT")
LONGEST_S = 15.0
"""Of anything that lasts: an hour is to hold many faults."""
OFTENER = 5
"""Than in the venue's time: a minute of the clock holds few orders."""
LEFT_OUT = {Fault.KEY_REVOKED, Fault.CLOCK_STEP, Fault.BANNED, Fault.RESTRICTED}
"""What would leave little of the hour to trade in; a refused location ends the engine by right."""


RISE, FALL = 1.006, 0.975
"""By what prices move within a minute besides their noise, and within each tenth one instead. A
position held for a minute pays its commissions, and all of them pay for the falls, in which what
is held is sold by its stop: no row of losses or record of them ends the trading."""
FALLS_EVERY = 10


class SoakMarket:
    """The invented market, rising and falling all the time."""

    def __init__(self, seed):
        self._source = SimulatedSource(seed=seed, interval=INTERVAL, symbols=SYMBOLS, speed=None)

    def history(self, from_ms, to_ms):
        """Candles with open times in [from_ms, to_ms), merged over symbols."""
        for candle in self._source.history(from_ms, to_ms):
            number = (candle.open_time_ms - SIMULATED_START_MS) // STEP_MS
            before, after = height(number), height(number + 1)
            opened, closed = candle.open * before, candle.close * after
            yield msgspec.structs.replace(
                candle,
                open=opened,
                high=max(opened, closed, candle.high * before),
                low=min(opened, closed, candle.low * before),
                close=closed,
            )


def height(minutes):
    """Return what rises and falls have made of a price since the session's begin."""
    falls, rises = divmod(minutes, FALLS_EVERY)
    return (RISE ** (FALLS_EVERY - 1) * FALL) ** falls * RISE**rises


class SoakVenue:
    """Builds the venue and moves it with the machine's clock.

    Args:
        deposits: what the account begins with.
        hours: of market to prepare.
        seed: of market and faults.
    """

    def __init__(self, deposits, hours, seed):
        self.seed = seed
        self.sink = MemorySink()
        self._source = SoakMarket(seed)
        self._shift_ms = wall_ms() // STEP_MS * STEP_MS - SIMULATED_START_MS
        end_ms = SIMULATED_START_MS + round(hours * 3_600_000)
        firsts = list(self._source.history(SIMULATED_START_MS, SIMULATED_START_MS + STEP_MS))
        rules = {c.symbol: SymbolRules.of(Instrument.assume(c.symbol, Market.SPOT, c.close)) for c in firsts}  # fmt: skip
        self.least = {c.symbol: max(rules[c.symbol].step_size, rules[c.symbol].min_notional / _price(c)) for c in firsts}  # fmt: skip
        prints = candle_prints(self._source.history(SIMULATED_START_MS, end_ms), rules)
        self.venue = Loopback(
            LiveClock(),
            [(rules[c.symbol], _price(c) // rules[c.symbol].tick_size * rules[c.symbol].tick_size) for c in firsts],
            prints=(made._replace(time_ms=made.time_ms + self._shift_ms) for made in prints),
            sink=self.sink,
            order_limits=SPOT_ORDERS,
        )  # fmt: skip
        self.account = self.venue.open_account(1, KEY, KEY, deposits.items())
        self.venue.rest._public["GET", "/api/v3/klines"] = self.klines

    def move(self):
        """Let the market come to the present."""
        self.venue.advance(wall_ms())

    def klines(self, values):
        """Answer as Binance: closed candles, and the one that forms as far as its open."""
        from_ms = int(values.get("startTime", wall_ms() - 500 * STEP_MS))
        limit, now_ms = int(values.get("limit", 500)), wall_ms()
        to_ms = min(from_ms + limit * STEP_MS, now_ms + 1)
        if to_ms <= -(-from_ms // STEP_MS) * STEP_MS:
            return []
        candles = self._source.history(from_ms - self._shift_ms, to_ms - self._shift_ms)
        return [self._row(c, now_ms) for c in candles if c.symbol == values["symbol"]]

    def _row(self, candle, now_ms):
        open_ms = candle.open_time_ms + self._shift_ms
        closed = open_ms + STEP_MS <= now_ms
        high, low, close = (
            (candle.high, candle.low, candle.close) if closed else (candle.open,) * 3
        )
        volume = candle.volume if closed else 0.0
        return [open_ms, *(f"{value:.8f}" for value in (candle.open, high, low, close, volume)), open_ms + STEP_MS - 1, "0", 0, "0", "0", "0"]  # fmt: skip

    def misbehave(self, minute):
        """Let other things go wrong from this minute on."""
        rules = [
            msgspec.structs.replace(
                rule,
                seconds=min(rule.seconds, LONGEST_S),
                probability=min(rule.probability * OFTENER, 1.0),
                after=0,
            )
            for rule in drawn(self.seed * 1_000 + minute)
            if rule.fault not in LEFT_OUT
        ]
        self.venue.schedule(FaultSchedule(on_both_ways(rules), self.seed + minute))

    def calm(self):
        """Let nothing go wrong any more."""
        self.venue.schedule(FaultSchedule())


def _price(candle):
    return Decimal(repr(candle.open))
