"""What happens at the USD-M venue because time passes: funding, countdowns, orders that end."""

from decimal import ROUND_DOWN, Decimal
from typing import Final

from bot4_runtime.venue.account import QUANTUM
from bot4_runtime.venue.futures_account import FuturesAccount, Position
from bot4_runtime.venue.futures_algo import AlgoDesk
from bot4_runtime.venue.futures_events import AccountChanged
from bot4_runtime.venue.futures_exchange import FuturesExchange
from bot4_runtime.venue.futures_ledger import FuturesMarket
from bot4_runtime.venue.orders import Status

KEPT_FUNDINGS: Final = 1_000


class Calendar:
    """Does what is due at an exchange.

    Args:
        algos: conditional orders that a countdown cancels too; None for a venue that leaves them.
            Binance's documentation does not say which it is.
    """

    def __init__(self, exchange: FuturesExchange, algos: AlgoDesk | None = None) -> None:
        self._exchange = exchange
        self._algos = algos
        self._countdowns: dict[tuple[str, str], int] = {}

    def next_ms(self) -> int | None:
        """Return when something is due next, ms UTC; None while there are no markets."""
        times = [market.next_funding_ms for market in self._exchange.markets]
        return min([*times, *self._countdowns.values()], default=None)

    def start_countdown(self, account: FuturesAccount, symbol: str, wait_ms: int) -> None:
        """Cancel a symbol's plain orders after a while unless told anew; 0 stops it."""
        self._exchange.market(symbol)
        self._countdowns.pop((account.api_key, symbol), None)
        if wait_ms:
            self._countdowns[account.api_key, symbol] = self._exchange.now_ms() + wait_ms

    def hasten(self, account: FuturesAccount, symbol: str) -> None:
        """Let a countdown that runs go off now."""
        if self._countdowns.pop((account.api_key, symbol), None) is not None:
            self._cancel_all(account, symbol)

    def charge(self, account: FuturesAccount, symbol: str, rate: Decimal) -> None:
        """Let what an account holds of a symbol pay, out of its time, a share of its worth."""
        for position in list(account.positions()):
            if position.symbol == symbol:
                market = self._exchange.market(symbol)
                paid = abs(position.quantity) * market.mark * rate
                self._move(account, position, -paid, self._exchange.now_ms())

    def pass_time(self) -> None:
        """Do what is due by now."""
        now_ms = self._exchange.now_ms()
        for (api_key, symbol), due_ms in list(self._countdowns.items()):
            account = self._exchange.account(api_key)
            if account is not None and due_ms <= now_ms:
                del self._countdowns[api_key, symbol]
                self._cancel_all(account, symbol)
        for account in self._exchange.accounts:
            for order in self._exchange.open_orders(account, None):
                if 0 < order.request.good_till_ms <= now_ms:
                    self._exchange.close(order, Status.EXPIRED, "EXPIRED")
        for market in self._exchange.markets:
            while market.next_funding_ms <= now_ms:
                self._fund(market)

    def _cancel_all(self, account: FuturesAccount, symbol: str) -> None:
        for order in self._exchange.open_orders(account, symbol):
            self._exchange.close(order, Status.CANCELED, "CANCELED")
        if self._algos is not None:
            for algo in self._algos.open(account, symbol):
                self._algos.cancel(algo)

    def _fund(self, market: FuturesMarket) -> None:
        """Let longs pay shorts quantity x mark x rate, or shorts longs when that is negative."""
        time_ms, rate = market.next_funding_ms, market.funding_rate
        for account in self._exchange.accounts:
            for position in list(account.positions()):
                if position.symbol == market.contract.symbol:
                    paid = position.quantity * market.mark * rate
                    self._move(account, position, -paid, time_ms)
        market.fundings.append((time_ms, rate, market.mark))
        del market.fundings[:-KEPT_FUNDINGS]
        market.next_funding_ms = market.contract.next_funding_ms(time_ms)

    def _move(
        self, account: FuturesAccount, position: Position, amount: Decimal, time_ms: int
    ) -> None:
        """Book a funding with an account and with the rest of the market, and tell it."""
        amount = amount.quantize(QUANTUM, ROUND_DOWN)
        account.fund(position, amount, time_ms)
        self._exchange.others.pay(position.asset, amount)
        held = (position,) if account.settings(position.symbol).isolated else ()
        self._exchange.tell(
            AccountChanged(account, "FUNDING_FEE", position.asset, amount, held, time_ms)
        )
