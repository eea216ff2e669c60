"""The way to the simulated exchange: a `RemoteVenue` whose calls fail as real ones do.

Every call is a boundary before and after. Faults come from the world's seed and stop when the
market's script ends: outages, lost requests, lost replies, effects that come late, stale or
empty answers, a dead user stream, updates that are lost, doubled, late or out of order.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal

from simulated_exchange import Request
from virtual_world import World, chance

from bot4_runtime.domain.candle import Candle
from bot4_runtime.domain.errors import OutcomeUnknown, VenueUnreachable
from bot4_runtime.domain.events import OrderAccepted, OrderEvent, OrderRejected
from bot4_runtime.domain.instrument import Instrument
from bot4_runtime.domain.order import Order, OrderIntent
from bot4_runtime.exchange.binance.signing import Secret, Signer
from bot4_runtime.exchange.protocols import UserUpdate, VenueOrder, VenueTrade
from bot4_runtime.exchange.unknown import RECV_WINDOW_MS

RTT_MS = 40
STALE_MS = 1_000
KEY, SECRET = "canary-key-77d1", "canary-5f1c0de9"
"""The credentials of every process; nothing that is kept may show them."""


class SimulatedWire:
    """One process's connection to the exchange.

    Args:
        world: with the exchange behind it.
        calm_from_ms: from here on nothing fails.
        windows: (from ms, to ms) when nothing reaches the exchange, and when the user
            stream is dead.
    """

    name = "simulated"
    in_process = False

    def __init__(
        self,
        world: World,
        calm_from_ms: int,
        outages: Sequence[tuple[int, int]],
        silences: Sequence[tuple[int, int]],
        judge: "Judge",
    ) -> None:
        self._world = world
        self._exchange = world.exchange
        self._calm_from_ms = calm_from_ms
        self._outages = outages
        self._silences = silences
        self._judge = judge
        self._signer = Signer(Secret(KEY), Secret(SECRET))
        self._late: list[tuple[int, int, UserUpdate]] = []
        self._lied: set[str] = set()
        world.exchange.listening = True
        world.exchange.on_order = judge.placed

    # -------------------------------------------------------------- the wire
    def _fault(self) -> float:
        """A draw below 1 decides the call's fate; 1 when nothing may fail."""
        return self._world.draw() if self._world.now_ms < self._calm_from_ms else 1.0

    def _inside(self, windows: Sequence[tuple[int, int]]) -> bool:
        return any(start <= self._world.now_ms < end for start, end in windows)

    def _lies(self, about: str, luck: float, below: float) -> bool:
        """Whether an answer is wrong this time; never twice in a row about one thing."""
        if about in self._lied:
            self._lied.discard(about)
            return False
        if luck < below:
            self._lied.add(about)
            return True
        return False

    def _shown(self, name: str) -> str:
        """Say of a signed request what the real client says: its path, and no query."""
        target = f"{name}?{self._signer.query({'apiKey': self._signer.api_key})}"
        return target.partition("?")[0]

    def _ask(self, name: str) -> float:
        """Begin a reading call; return its draw."""
        world = self._world
        world.boundary(f"venue: {name}")
        luck = self._fault()
        if luck < 0.01 or self._inside(self._outages):
            raise VenueUnreachable(f"{self._shown(name)}: connection refused")
        world.advance(world.now_ms + RTT_MS)
        if luck < 0.02:
            raise OutcomeUnknown(f"{self._shown(name)}: the answer is cut short")
        return luck

    def _request(self, request: Request, name: str) -> str:
        """Send what has an effect; return the exchange's error, empty when it took it."""
        world, exchange = self._world, self._exchange
        world.boundary(f"venue: {name}")
        luck = self._fault()
        if luck < 0.05 or self._inside(self._outages):
            raise VenueUnreachable(f"{self._shown(name)}: connection refused")
        world.advance(world.now_ms + RTT_MS // 2)
        if luck < 0.10:
            world.advance(world.now_ms + 1_000)
            raise OutcomeUnknown(f"{self._shown(name)}: timeout")  # never arrived
        if luck < 0.17:
            due_ms = world.now_ms + int(chance(world.seed, 21, world.calls) * RECV_WINDOW_MS)
            exchange.on_the_way.append(Request(due_ms, request.client_id, request.intent))
            exchange.version += 1
            world.boundary(f"venue: {name} on its way")
            world.advance(world.now_ms + 1_000)
            raise OutcomeUnknown(f"{self._shown(name)}: -1007 timeout waiting for response")
        error = exchange.arrive(request)
        world.boundary(f"venue: {name} arrived")
        if luck < 0.24:
            raise OutcomeUnknown(f"{self._shown(name)}: connection reset")
        world.advance(world.now_ms + RTT_MS // 2)
        return error

    # ----------------------------------------------------------------- Venue
    def submit(self, intent: OrderIntent, client_id: str, cash_free: float) -> list[OrderEvent]:
        self._judge.submitted(intent, client_id)
        error = self._request(Request(0, client_id, intent), f"submit {client_id}")
        if error:
            return [
                OrderRejected(
                    ts_event_ns=self._world.now_ms * 1_000_000,
                    intent_no=intent.intent_no,
                    code="-2010",
                    reason=error,
                )
            ]
        told = self._exchange.orders[client_id].told
        return [
            OrderAccepted(
                ts_event_ns=told.updated_ms * 1_000_000,
                intent_no=intent.intent_no,
                venue_order_id=told.venue_order_id,
            )
        ]

    def cancel(self, order: Order, now_ns: int) -> list[OrderEvent]:
        self._request(Request(0, order.client_id, None), f"cancel {order.client_id}")
        return []

    def on_candle(
        self, candle: Candle, orders: Sequence[Order], instrument: Instrument
    ) -> list[OrderEvent]:
        return []

    # ----------------------------------------------------------- RemoteVenue
    def stream_alive(self) -> bool:
        return not self._inside(self._silences)

    def poll(self) -> Sequence[UserUpdate]:
        world, exchange = self._world, self._exchange
        for told, trade in exchange.updates:
            update = UserUpdate(order=told, trade=trade)
            luck = self._fault()
            if self._inside(self._silences) or luck < 0.08:
                continue
            due_ms = world.now_ms + (int(luck * 12_000) if luck < 0.25 else 0)
            self._late.append((due_ms, len(self._late), update))
            if 0.25 <= luck < 0.32:
                self._late.append((due_ms + 1_500, len(self._late), update))
        exchange.updates.clear()
        if not self._late:
            return ()
        due = sorted((late for late in self._late if late[0] <= world.now_ms), key=_when)
        self._late = [late for late in self._late if late[0] > world.now_ms]
        return [update for _, _, update in due]

    def query(self, symbol: str, client_id: str) -> VenueOrder | None:
        luck = self._ask("query")
        held = self._exchange.orders.get(client_id)
        if held is None or self._lies(client_id, luck, 0.05):
            return None
        return held.told

    def open_orders(self) -> Sequence[VenueOrder]:
        luck = self._ask("open orders")
        if self._lies("open orders", luck, 0.06):
            return ()
        return [self._exchange.orders[key].told for key in self._exchange.open]

    def trades(self, symbol: str, after_trade_id: int) -> Sequence[VenueTrade]:
        self._ask("trades")
        trades = self._exchange.trades.get(symbol, ())
        return [trade for trade in trades if trade.trade_id > after_trade_id]

    def balances(self) -> Mapping[str, Decimal]:
        luck = self._ask("balances")
        if self._lies("balances", luck, 0.06):
            return {}
        return {asset: amount for asset, amount in self._exchange.balances.items() if amount}

    def positions(self) -> None:
        return None

    def name_of(self, trade: VenueTrade) -> str:
        return ""

    def server_time_ms(self) -> int:
        self._ask("time")
        return self._world.now_ms - RTT_MS // 2


def _when(late: tuple[int, int, UserUpdate]) -> tuple[int, int]:
    return late[:2]


class Judge:
    """Sees every order on its way out and at the exchange; see `invariants`."""

    def submitted(self, intent: OrderIntent, client_id: str) -> None:
        """An order leaves the gate."""
        raise NotImplementedError

    def placed(self, held: object) -> None:
        """The exchange holds a new order."""
        raise NotImplementedError
