"""The accounts of one book: cash, positions, round trips, fees, dust.

Pure Decimal arithmetic over fills and funding. Cash flow is the base: a buy takes price x
quantity from cash, a sell adds it, and equity is cash plus the marked value of signed quantities,
which is right for spot and for linear futures alike. On spot the fee of a buy is charged in the
asset received, so less arrives than was bought (Binance, "Spot trading fees"). Funding is part of
the result of what was held when it was paid, though it is told later.

What is left of a position when it can no longer be sold is dust: it leaves equity, and its
cost is a loss of the round trip.
"""

from decimal import Decimal
from typing import Final

import msgspec

from bot4_runtime.domain.errors import DataError
from bot4_runtime.domain.instrument import Instrument, split_symbol
from bot4_runtime.domain.order import Book, Fill, OrderIntent, Purpose, Side
from bot4_runtime.domain.portfolio import BreakerState, Portfolio, RiskMetrics
from bot4_runtime.domain.position import ClosedTrade, Position

SETTLING_NS: Final = 60_000_000_000
"""How far a position's life and the time of its funding may be apart: the venue takes a while."""
KEPT: Final = 1_000
"""How many closed trades, entries and finished orders a book remembers one by one."""

ZERO: Final = Decimal(0)
_QUOTE_STEP: Final = Decimal("1e-12")
_EXIT_REASONS: Final = {
    Purpose.ENTRY: "signal",
    Purpose.EXIT: "signal",
    Purpose.STOP: "stop",
    Purpose.EMERGENCY: "emergency",
}


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """An entry that began to fill: its time (UTC), symbol and planned notional in quote."""

    ts_ns: int
    symbol: str
    notional: float


class Trip(msgspec.Struct, frozen=True, kw_only=True):
    """Sums of the round trip behind an open position so far, fees left out.

    Attributes:
        entry_quote: sum of price x quantity of the fills that opened or added.
        exit_quote: sum of price x quantity of the fills that reduced.
    """

    side: Side
    entry_quote: Decimal = ZERO
    entry_quantity: Decimal = ZERO
    exit_quote: Decimal = ZERO
    exit_quantity: Decimal = ZERO
    exit_reason: str = "signal"


class BookState(msgspec.Struct, kw_only=True):
    """One book's accounts; changed only by `TradingState.apply`.

    Attributes:
        cash: free and reserved quote together.
        positions: open positions by symbol.
        values: signed quantity x mark by symbol of `positions`, in quote.
        dust: base quantities too small to sell, by asset; not part of equity.
        unvalued_fees: fees in assets that had no price when they were charged, by asset.
        realised: net profit of closed round trips, in quote.
        funding_quote: all funding so far, in quote; negative when paid.
        closed_trades: the last `KEPT`, oldest first; `trades_total` counts all.
        amended_total: how often a closed trade's result changed, by funding told after its end.
        entries: the last `KEPT` entries that began to fill, oldest first.
    """

    book: Book
    quote: str
    initial_cash: Decimal
    cash: Decimal
    metrics: RiskMetrics
    breaker: BreakerState
    positions: dict[str, Position]
    trips: dict[str, Trip]
    values: dict[str, Decimal]
    dust: dict[str, Decimal]
    unvalued_fees: dict[str, Decimal]
    closed_trades: list[ClosedTrade]
    entries: list[Entry]
    realised: Decimal = ZERO
    fees_quote: Decimal = ZERO
    trades_total: int = 0
    wins_total: int = 0
    fills_total: int = 0
    orders_total: int = 0
    funding_quote: Decimal = ZERO
    amended_total: int = 0

    @classmethod
    def opened(cls, book: Book, quote: str, cash: Decimal) -> "BookState":
        """Return a book that holds nothing but cash."""
        return cls(
            book=book,
            quote=quote,
            initial_cash=cash,
            cash=cash,
            metrics=RiskMetrics(
                equity=cash,
                peak_equity=cash,
                drawdown=0.0,
                day=0,
                day_start_equity=cash,
                exposure=ZERO,
                leverage=0.0,
            ),
            breaker=BreakerState(),
            positions={},
            trips={},
            values={},
            dust={},
            unvalued_fees={},
            closed_trades=[],
            entries=[],
        )

    def portfolio(self) -> Portfolio:
        """Return a copy that later events do not change."""
        return Portfolio(
            quote=self.quote,
            initial_cash=self.initial_cash,
            cash=self.cash,
            positions=dict(self.positions),
            dust=dict(self.dust),
            realised=self.realised,
            fees_quote=self.fees_quote,
            metrics=self.metrics,
        )

    def fill(
        self, fill: Fill, intent: OrderIntent | None, base: str, fee_price: Decimal | None
    ) -> None:
        """Book one execution.

        Args:
            fill: the execution; the caller has made sure that it is new.
            intent: what it executes; None when no order of ours is known.
            base: the symbol's base asset.
            fee_price: quote per unit of `fill.fee_asset` where that is neither base nor
                quote; None when it has no price, and then the fee stands in `unvalued_fees`.
        """
        sign = fill.side.sign
        gross = fill.price * fill.quantity
        base_delta = sign * fill.quantity
        quote_delta = -sign * gross
        fee_quote = ZERO
        if fill.fee_asset == self.quote:
            quote_delta -= fill.fee
            fee_quote = fill.fee
        elif fill.fee_asset == base:
            base_delta -= fill.fee
            fee_quote = fill.fee * fill.price
        elif fee_price is not None:
            fee_quote = (fill.fee * fee_price).quantize(_QUOTE_STEP)
            quote_delta -= fee_quote
        elif fill.fee:
            owed = self.unvalued_fees.get(fill.fee_asset, ZERO)
            self.unvalued_fees[fill.fee_asset] = owed + fill.fee
        self.cash += quote_delta
        self.fees_quote += fee_quote
        self.fills_total += 1
        position = self.positions.get(fill.symbol)
        if position is None or position.quantity * base_delta >= 0:
            self._add(fill, intent, base_delta, quote_delta, fee_quote)
        elif abs(base_delta) <= abs(position.quantity):
            self._reduce(fill, intent, base_delta, quote_delta, fee_quote)
        else:
            part = abs(position.quantity) / abs(base_delta)
            quote_part = (quote_delta * part).quantize(_QUOTE_STEP)
            fee_part = (fee_quote * part).quantize(_QUOTE_STEP)
            rest = base_delta + position.quantity
            self._reduce(fill, intent, -position.quantity, quote_part, fee_part)
            self.close(fill.symbol, fill.ts_event_ns, base)
            self._add(fill, intent, rest, quote_delta - quote_part, fee_quote - fee_part)

    def _add(
        self,
        fill: Fill,
        intent: OrderIntent | None,
        base_delta: Decimal,
        quote_delta: Decimal,
        fee_quote: Decimal,
    ) -> None:
        symbol = fill.symbol
        trip = self.trips.get(symbol)
        if trip is None:
            trip = Trip(side=fill.side)
        trip = self.trips[symbol] = Trip(
            side=trip.side,
            entry_quote=trip.entry_quote + fill.price * fill.quantity,
            entry_quantity=trip.entry_quantity + fill.quantity,
            exit_quote=trip.exit_quote,
            exit_quantity=trip.exit_quantity,
            exit_reason=trip.exit_reason,
        )
        entry_price = trip.entry_quote / trip.entry_quantity
        stop = intent.stop_loss if intent is not None else None
        held = self.positions.get(symbol)
        if held is None:
            quantity = base_delta
            self.positions[symbol] = Position(
                book=self.book,
                symbol=symbol,
                quantity=quantity,
                cost=-quote_delta,
                entry_price=entry_price,
                stop_price=stop if stop is not None else ZERO,
                realised=ZERO,
                peak_quantity=abs(quantity),
                fees_quote=fee_quote,
                opened_ts_ns=fill.ts_event_ns,
                rule_id=intent.rule_id if intent is not None else "",
                signal_id=intent.signal_id if intent is not None else "",
            )
            return
        quantity = held.quantity + base_delta
        self.positions[symbol] = msgspec.structs.replace(
            held,
            quantity=quantity,
            cost=held.cost - quote_delta,
            entry_price=entry_price,
            stop_price=stop if stop is not None else held.stop_price,
            peak_quantity=max(held.peak_quantity, abs(quantity)),
            fees_quote=held.fees_quote + fee_quote,
        )

    def _reduce(
        self,
        fill: Fill,
        intent: OrderIntent | None,
        base_delta: Decimal,
        quote_delta: Decimal,
        fee_quote: Decimal,
    ) -> None:
        held = self.positions[fill.symbol]
        quantity = held.quantity + base_delta
        share = held.cost
        if quantity:
            share = (held.cost * abs(base_delta) / abs(held.quantity)).quantize(_QUOTE_STEP)
        trip = self.trips[fill.symbol]
        self.trips[fill.symbol] = Trip(
            side=trip.side,
            entry_quote=trip.entry_quote,
            entry_quantity=trip.entry_quantity,
            exit_quote=trip.exit_quote + fill.price * abs(base_delta),
            exit_quantity=trip.exit_quantity + abs(base_delta),
            exit_reason=_exit_reason(fill, intent, trip),
        )
        self.positions[fill.symbol] = msgspec.structs.replace(
            held,
            quantity=quantity,
            cost=held.cost - share,
            realised=held.realised + quote_delta - share,
            fees_quote=held.fees_quote + fee_quote,
        )

    def close(self, symbol: str, ts_ns: int, base: str) -> None:
        """End the round trip; what is left of the position becomes dust at full loss.

        A position of which nothing was ever sold leaves no closed trade, only its loss.
        """
        held = self.positions.pop(symbol)
        trip = self.trips.pop(symbol)
        self.values.pop(symbol, None)
        if held.quantity:
            self.dust[base] = self.dust.get(base, ZERO) + held.quantity
        pnl = held.realised - held.cost
        self.realised += pnl
        if not trip.exit_quantity:
            return
        self.trades_total += 1
        self.wins_total += pnl > 0
        self.closed_trades.append(
            ClosedTrade(
                book=self.book,
                symbol=symbol,
                side=trip.side,
                rule_id=held.rule_id,
                signal_id=held.signal_id,
                opened_ts_ns=held.opened_ts_ns,
                closed_ts_ns=ts_ns,
                quantity=held.peak_quantity,
                entry_price=held.entry_price,
                exit_price=trip.exit_quote / trip.exit_quantity,
                pnl=pnl,
                fees_quote=held.fees_quote,
                return_net=float(pnl / (held.entry_price * held.peak_quantity)),
                exit_reason=trip.exit_reason,
                funding_quote=held.funding_quote,
            )
        )
        if len(self.closed_trades) > KEPT:
            del self.closed_trades[0]

    def held_at(self, symbol: str, ts_ns: int) -> Position | ClosedTrade | None:
        """Return what was held of a symbol at a time (UTC), give or take `SETTLING_NS`.

        What was there at the very time counts before what was there shortly before or after
        it, and then what was closed since before what is open, so that it does not matter when
        this is asked. None when there was nothing.
        """
        held = self.positions.get(symbol)
        for slack_ns in (0, SETTLING_NS):
            for trade in reversed(self.closed_trades):
                lived = trade.opened_ts_ns - slack_ns <= ts_ns <= trade.closed_ts_ns + slack_ns
                if trade.symbol == symbol and lived:
                    return trade
            if held is not None and held.opened_ts_ns <= ts_ns + slack_ns:
                return held
        return None

    def fund(self, symbol: str, amount: Decimal, ts_ns: int) -> None:
        """Book a funding into cash and into the result of what was held at its time.

        Args:
            symbol: of the position.
            amount: in quote, negative when paid.
            ts_ns: funding time, UTC.
        """
        self.cash += amount
        self.funding_quote += amount
        held = self.held_at(symbol, ts_ns)
        if isinstance(held, Position):
            self.positions[symbol] = msgspec.structs.replace(
                held,
                realised=held.realised + amount,
                funding_quote=held.funding_quote + amount,
            )
            return
        self.realised += amount
        if held is None:
            return
        pnl = held.pnl + amount
        self.amended_total += 1
        self.wins_total += (pnl > 0) - (held.pnl > 0)
        at = next(n for n, trade in enumerate(self.closed_trades) if trade is held)
        self.closed_trades[at] = msgspec.structs.replace(
            held,
            pnl=pnl,
            return_net=float(pnl / (held.entry_price * held.quantity)),
            funding_quote=held.funding_quote + amount,
        )

    def entered(self, entry: Entry) -> None:
        """Remember an entry whose first fill arrived."""
        self.entries.append(entry)
        if len(self.entries) > KEPT:
            del self.entries[0]

    def value(self, symbol: str, mark: Decimal) -> None:
        """Mark a symbol's position, in quote per base; nothing held has no value."""
        held = self.positions.get(symbol)
        if held is None:
            self.values.pop(symbol, None)
        else:
            self.values[symbol] = held.quantity * mark

    def new_day(self, day: int) -> None:
        """Begin a UTC day (days since 1970) with the equity of the last marks before it."""
        metrics = self.metrics
        self.metrics = RiskMetrics(
            equity=metrics.equity,
            peak_equity=metrics.peak_equity,
            drawdown=metrics.drawdown,
            day=day,
            day_start_equity=metrics.equity,
            exposure=metrics.exposure,
            leverage=metrics.leverage,
        )

    def measure(self, *, reset_peak: bool = False) -> None:
        """Recompute equity, peak, drawdown, exposure and leverage from cash and values."""
        before = self.metrics
        equity = self.cash
        exposure = ZERO
        for value in self.values.values():
            equity += value
            exposure += abs(value)
        peak = equity if reset_peak else max(equity, before.peak_equity)
        leverage = 0.0
        if exposure:
            leverage = float(exposure / equity) if equity > 0 else float("inf")
        self.metrics = RiskMetrics(
            equity=equity,
            peak_equity=peak,
            drawdown=min(float(1 - equity / peak), 1.0) if peak > 0 else 1.0,
            day=before.day,
            day_start_equity=before.day_start_equity,
            exposure=exposure,
            leverage=leverage,
        )


def _exit_reason(fill: Fill, intent: OrderIntent | None, trip: Trip) -> str:
    if intent is not None:
        return _EXIT_REASONS[intent.purpose]
    return trip.exit_reason if fill.intent_no else "liquidation"


def base_asset(symbol: str, instrument: Instrument | None) -> str:
    """Return the base asset of a symbol, or the symbol where it cannot be split."""
    if instrument is not None:
        return instrument.base
    try:
        return split_symbol(symbol)[0]
    except DataError:
        return symbol
