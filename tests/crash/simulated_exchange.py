"""A spot exchange small enough to be right by reading: orders, trades, balances, a journal.

It keeps everything it was ever asked and did, which is what runs are judged by. Orders match
against a scripted price path; its own faults are those of the wire (`simulated_wire`). All
values are immutable, so that a copy of the containers is a copy of the exchange.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from decimal import ROUND_FLOOR, Decimal

import msgspec

from bot4_runtime.domain.order import Liquidity, OrderIntent, OrderStatus, OrderType, Side
from bot4_runtime.exchange.protocols import VenueOrder, VenueTrade

TICK_MS = 15_000
FEE = Decimal("0.001")
_FEE_STEP = Decimal("1e-8")
QUOTE = "USDT"


class HeldOrder(msgspec.Struct, frozen=True):
    """An order as the exchange holds it."""

    told: VenueOrder
    order_type: OrderType
    price: Decimal | None
    stop: Decimal | None


class Request(msgspec.Struct, frozen=True):
    """A request on its way: an order to place, or one to cancel."""

    due_ms: int
    client_id: str
    intent: OrderIntent | None


@dataclass
class SimulatedExchange:
    """One account on it.

    Attributes:
        prices: path by symbol, one price a `TICK_MS` from `start_ms` on.
        slices: draws how much of an order fills at once, from its number.
        journal: (ms, what happened, whose); the oracle.
        updates: told to whoever listens: the order, and its trade if one happened.
        version: rises with everything that changes.
    """

    start_ms: int
    prices: dict[str, list[Decimal]]
    slices: Callable[[int], float]
    balances: dict[str, Decimal]
    now_ms: int = 0
    orders: dict[str, HeldOrder] = field(default_factory=dict)
    open: dict[str, None] = field(default_factory=dict)
    trades: dict[str, list[VenueTrade]] = field(default_factory=dict)
    on_the_way: list[Request] = field(default_factory=list)
    journal: list[tuple[int, str, str]] = field(default_factory=list)
    updates: list[tuple[VenueOrder, VenueTrade | None]] = field(default_factory=list)
    listening: bool = False
    sends: dict[str, int] = field(default_factory=dict)
    version: int = 0
    on_order: Callable[[HeldOrder], None] | None = None

    def copy(self) -> "SimulatedExchange":
        return SimulatedExchange(
            self.start_ms,
            self.prices,
            self.slices,
            dict(self.balances),
            self.now_ms,
            dict(self.orders),
            dict(self.open),
            {symbol: list(trades) for symbol, trades in self.trades.items()},
            list(self.on_the_way),
            list(self.journal),
            [],
            False,
            dict(self.sends),
            self.version,
        )

    def disconnect(self) -> None:
        """Nobody listens any more."""
        self.updates.clear()
        self.listening = False
        self.on_order = None

    def price(self, symbol: str, now_ms: int | None = None) -> Decimal:
        path = self.prices[symbol]
        at = ((self.now_ms if now_ms is None else now_ms) - self.start_ms) // TICK_MS
        return path[min(max(at, 0), len(path) - 1)]

    # ------------------------------------------------------------------ time
    def advance(self, to_ms: int) -> None:
        """Let the market trade and requests arrive, in the order of their times."""
        while self.now_ms < to_ms:
            tick_ms = self.start_ms + ((self.now_ms - self.start_ms) // TICK_MS + 1) * TICK_MS
            next_ms = min(to_ms, tick_ms, *(r.due_ms for r in self.on_the_way))
            self.now_ms = max(next_ms, self.now_ms)
            for request in [r for r in self.on_the_way if r.due_ms <= self.now_ms]:
                self.on_the_way.remove(request)
                self.arrive(request)
            if self.now_ms == tick_ms:
                for client_id in list(self.open):
                    self._match(client_id)

    # -------------------------------------------------------------- requests
    def traded_after(self, ms: int) -> bool:
        """Whether anything traded later than a time."""
        return any(trades and trades[-1].time_ms > ms for trades in self.trades.values())

    def arrive(self, request: Request) -> str:
        """Take a request; return an error in words, empty when it was taken."""
        if request.intent is not None:
            return self.place(request.client_id, request.intent)
        return self.cancel(request.client_id)

    def place(self, client_id: str, intent: OrderIntent) -> str:
        self.version += 1
        cost = intent.quantity * (intent.price or self.price(intent.symbol))
        base = intent.symbol.removesuffix(QUOTE)
        short = (
            cost * (1 + FEE) > self.free(QUOTE)
            if intent.side is Side.BUY
            else intent.quantity > self.free(base)
        )
        if short:
            self.journal.append((self.now_ms, "refused", client_id))
            return "-2010 insufficient balance"
        number = len(self.orders) + 1
        self.journal.append((self.now_ms, "placed", client_id))
        key = client_id if client_id not in self.orders else f"{client_id}#{number}"
        held = HeldOrder(
            VenueOrder(
                client_id=client_id,
                venue_order_id=str(1_000 + number),
                symbol=intent.symbol,
                side=intent.side,
                status=OrderStatus.ACCEPTED,
                quantity=intent.quantity,
                filled=Decimal(0),
                spent=Decimal(0),
                updated_ms=self.now_ms,
            ),
            intent.order_type,
            intent.price,
            intent.stop_price,
        )
        self.orders[key] = held
        self.open[key] = None
        self._tell(held.told, None)
        if self.on_order is not None:
            self.on_order(held)
        if intent.order_type is OrderType.MARKET:
            self._match(key)
        return ""

    def cancel(self, client_id: str) -> str:
        if client_id not in self.open:
            return "-2011 unknown order"
        self.version += 1
        self.journal.append((self.now_ms, "canceled", client_id))
        self._end(client_id, OrderStatus.CANCELED)
        return ""

    def free(self, asset: str) -> Decimal:
        locked = Decimal(0)
        for key in self.open:
            held = self.orders[key]
            told = held.told
            left = told.quantity - told.filled
            if told.side is Side.BUY and asset == QUOTE:
                locked += left * (held.price or self.price(told.symbol))
            elif told.side is Side.SELL and told.symbol == asset + QUOTE:
                locked += left
        return self.balances.get(asset, Decimal(0)) - locked

    def meddle(self, client_id: str, symbol: str, quantity: Decimal) -> None:
        """Somebody else buys with this account, at once."""
        self.version += 1
        told = VenueOrder(
            client_id=client_id,
            venue_order_id=f"9{len(self.orders)}",
            symbol=symbol,
            side=Side.BUY,
            status=OrderStatus.ACCEPTED,
            quantity=quantity,
            filled=Decimal(0),
            spent=Decimal(0),
            updated_ms=self.now_ms,
        )
        self.journal.append((self.now_ms, "foreign", client_id))
        self.orders[client_id] = HeldOrder(told, OrderType.MARKET, None, None)
        self.open[client_id] = None
        self._fill(client_id, quantity)

    def deposit(self, asset: str, amount: Decimal) -> None:
        self.version += 1
        self.journal.append((self.now_ms, "deposit", asset))
        self.balances[asset] = self.balances.get(asset, Decimal(0)) + amount

    # -------------------------------------------------------------- matching
    def _match(self, key: str) -> None:
        held = self.orders[key]
        told = held.told
        price = self.price(told.symbol)
        if held.order_type is OrderType.LIMIT:
            assert held.price is not None
            if not (price <= held.price if told.side is Side.BUY else price >= held.price):
                return
        elif held.order_type is OrderType.STOP_MARKET and not told.filled:
            assert held.stop is not None
            if not (price <= held.stop if told.side is Side.SELL else price >= held.stop):
                return
        left = told.quantity - told.filled
        share = self.slices(len(self.trades.get(told.symbol, ())) * 2 + 1)
        first = (left * Decimal(repr(share))).quantize(Decimal("0.1"), ROUND_FLOOR)
        self._fill(key, first if share < 0.7 and 0 < first < left else left)

    def _fill(self, key: str, quantity: Decimal) -> None:
        self.version += 1
        held = self.orders[key]
        told = held.told
        price = self.price(told.symbol)
        if held.price is not None:
            price = min(price, held.price) if told.side is Side.BUY else max(price, held.price)
        base = told.symbol.removesuffix(QUOTE)
        bought = told.side is Side.BUY
        fee_asset = base if bought else QUOTE
        fee = ((quantity if bought else quantity * price) * FEE).quantize(_FEE_STEP, ROUND_FLOOR)
        trades = self.trades.setdefault(told.symbol, [])
        trade = VenueTrade(
            symbol=told.symbol,
            trade_id=50 + 3 * len(trades),
            venue_order_id=told.venue_order_id,
            side=told.side,
            price=price,
            quantity=quantity,
            fee=fee,
            fee_asset=fee_asset,
            liquidity=Liquidity.TAKER,
            time_ms=self.now_ms,
        )
        trades.append(trade)
        moved = (base, quantity), (QUOTE, -quantity * price), (fee_asset, -fee)
        sign = 1 if bought else -1
        for asset, amount in moved[:2]:
            self.balances[asset] = self.balances.get(asset, Decimal(0)) + sign * amount
        self.balances[fee_asset] -= fee
        filled = told.filled + quantity
        whole = filled == told.quantity
        told = msgspec.structs.replace(
            told,
            filled=filled,
            spent=told.spent + quantity * price,
            status=OrderStatus.FILLED if whole else OrderStatus.PARTIALLY_FILLED,
            updated_ms=self.now_ms,
        )
        self.orders[key] = msgspec.structs.replace(held, told=told)
        self.journal.append((self.now_ms, "filled", f"{told.symbol}:{trade.trade_id}"))
        if whole:
            del self.open[key]
        self._tell(told, trade)

    def _end(self, key: str, status: OrderStatus) -> None:
        held = self.orders[key]
        told = msgspec.structs.replace(held.told, status=status, updated_ms=self.now_ms)
        self.orders[key] = msgspec.structs.replace(held, told=told)
        del self.open[key]
        self._tell(told, None)

    def _tell(self, told: VenueOrder, trade: VenueTrade | None) -> None:
        if self.listening:
            self.updates.append((told, trade))
