"""Faults that the USD-M venue acts out itself, whichever way a call came.

Some want silence or open no more (`door`), some hit what a new order asked for: it ends after it
was taken, finds no margin, is refused when it triggers. Funding and countdowns come when they
hurt. All leave the books as a real venue would.
"""

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from decimal import Decimal
from typing import Final

from bot4_runtime.venue.account import ZERO
from bot4_runtime.venue.door import Door, Refusal
from bot4_runtime.venue.faults import OF_ORDERS, Fault, FaultRule
from bot4_runtime.venue.futures_account import FuturesAccount, PositionSide
from bot4_runtime.venue.futures_algo import AlgoDesk
from bot4_runtime.venue.futures_calendar import Calendar
from bot4_runtime.venue.futures_exchange import FuturesExchange
from bot4_runtime.venue.futures_orders import AlgoStatus
from bot4_runtime.venue.futures_stream import FuturesHub
from bot4_runtime.venue.futures_wsapi import SIGNED
from bot4_runtime.venue.limits import Limiter
from bot4_runtime.venue.orders import Status

PLAIN: Final = "POST /fapi/v1/order"
ALGO: Final = "POST /fapi/v1/algoOrder"
NEW_ORDERS: Final = frozenset({PLAIN, ALGO})
COUNTDOWN: Final = "POST /fapi/v1/countdownCancelAll"
HIGHEST_RATE: Final = Decimal("0.02")
"""Of a funding, as a share of the notional: the cap that Binance sets most contracts."""


def spared(call: str, values: Mapping[str, object]) -> AbstractSet[Fault]:
    """Return the faults that a call cannot have.

    Args:
        call: ``POST /fapi/v1/order`` and the like, or a method of the WebSocket API.
        values: its parameters.
    """
    method, path = SIGNED.get(call, ("", call))
    name = f"{method} {path}" if method else call
    spares = set() if name == COUNTDOWN else {Fault.COUNTDOWN}
    if name not in NEW_ORDERS:
        return spares | OF_ORDERS
    if name != ALGO:
        spares.add(Fault.TRIGGER_REFUSED)
    if _only_reduces(values):
        spares.add(Fault.THROTTLED)
    return spares


def _only_reduces(values: Mapping[str, object]) -> bool:
    """Whether a new order says that it makes a position smaller and nothing else."""
    told = {name: str(value) for name, value in values.items()}
    if "true" in {told.get(name, "").lower() for name in ("reduceOnly", "closePosition")}:
        return True
    closing = {PositionSide.LONG.value: "SELL", PositionSide.SHORT.value: "BUY"}
    side = told.get("side")
    return side is not None and closing.get(told.get("positionSide", "")) == side


class FuturesFaults:
    """Lets faults of the core happen."""

    def __init__(
        self,
        exchange: FuturesExchange,
        algos: AlgoDesk,
        calendar: Calendar,
        door: Door,
        hub: FuturesHub,
        limiter: Limiter,
    ) -> None:
        self._exchange = exchange
        self._algos = algos
        self._calendar = calendar
        self._door = door
        self._hub = hub
        self._limiter = limiter

    def strike(self, rule: FaultRule, api_key: str) -> Refusal | None:
        """Let a fault of the door begin; return why the request that it hit is sent away."""
        now_ms = self._exchange.now_ms()
        fault = rule.fault
        if fault is Fault.ORDER_LIMIT:
            self._door.limit_orders(now_ms, rule.seconds)
            return self._door.order_limit(now_ms)
        if fault in {Fault.RATE_LIMITED, Fault.BANNED}:
            want = self._door.limit if fault is Fault.RATE_LIMITED else self._door.ban
            want(now_ms, rule.seconds)
            return self._door.silence(now_ms)
        if fault is Fault.FOREIGN_WEIGHT:
            self._limiter.use(now_ms)
        elif fault is Fault.KEY_REVOKED and api_key:
            self._door.revoke(api_key, now_ms, rule.seconds)
            account = self._exchange.account(api_key)
            if account is not None:
                self._hub.terminate(account)
        return None

    @contextmanager
    def spoiled(self, rule: FaultRule, api_key: str, values: Mapping[str, str]) -> Iterator[None]:
        """Let a request have its effect in between, and spoil what came of it."""
        account = self._exchange.account(api_key)
        symbol, fault = values.get("symbol", ""), rule.fault
        taken: dict[str, Decimal] = {}
        if account is not None and fault is Fault.FUNDS_TAKEN:
            taken = {asset: max(cash, ZERO) for asset, cash in account.cross.items()}
            account.cross = {asset: account.cross[asset] - cash for asset, cash in taken.items()}
        yield
        if account is None:
            return
        for asset, cash in taken.items():
            account.cross[asset] += cash
        if fault in {Fault.ORDER_EXPIRED, Fault.ORDER_PULLED}:
            self._end(account, symbol, values, expired=fault is Fault.ORDER_EXPIRED)
        elif fault is Fault.TRIGGER_REFUSED:
            algo = self._algos.find(account, None, values.get("clientAlgoId", ""))
            if algo is not None:
                algo.doomed = True
        elif fault is Fault.FUNDED:
            self._calendar.charge(account, symbol, HIGHEST_RATE)
        elif fault is Fault.COUNTDOWN:
            self._calendar.hasten(account, symbol)

    def _end(
        self, account: FuturesAccount, symbol: str, values: Mapping[str, str], *, expired: bool
    ) -> None:
        """Let an order end that rests; one that filled stays as it is."""
        algo = self._algos.find(account, None, values.get("clientAlgoId", ""))
        if algo is not None:
            if algo.status is AlgoStatus.NEW:
                self._algos.end(algo, AlgoStatus.EXPIRED if expired else AlgoStatus.CANCELED)
            return
        name = values.get("newClientOrderId", "")
        known = symbol in {market.contract.symbol for market in self._exchange.markets}
        order = self._exchange.find(account, symbol, None, name) if known else None
        if order is not None and order.status.open:
            status = Status.EXPIRED if expired else Status.CANCELED
            self._exchange.close(order, status, status.value)
