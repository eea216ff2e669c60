"""What the venue does with a wallet that its maintenance margin has used up.

All its orders are cancelled, conditional ones too. The position that needs most is offered to
the market at its bankruptcy price, at which the wallet is left nothing; a clearance fee goes to
the insurance fund out of what remains. What the market does not take the fund takes over and
sells, if it can bear the loss; else those who gained on the other side are deleveraged at the
bankruptcy price (ADL). That is repeated until the wallet is sound or empty, and the fund fills
what is below zero.
"""

from decimal import ROUND_CEILING, ROUND_DOWN, ROUND_FLOOR, Decimal
from typing import Final

from bot4_runtime.domain.order import Side
from bot4_runtime.venue.account import QUANTUM, ZERO
from bot4_runtime.venue.futures_account import FuturesAccount, Position
from bot4_runtime.venue.futures_algo import AlgoDesk
from bot4_runtime.venue.futures_events import AccountChanged, Forced, MarginCalled
from bot4_runtime.venue.futures_exchange import FuturesExchange
from bot4_runtime.venue.futures_ledger import FuturesMarket
from bot4_runtime.venue.futures_orders import FuturesOrder, FuturesRequest, FuturesTif
from bot4_runtime.venue.orders import Status

CALL_AT: Final = Decimal("0.8")
"""Maintenance margin / margin balance from which the customer is called."""


class Liquidator:
    """Watches all accounts of an exchange."""

    def __init__(self, exchange: FuturesExchange, algos: AlgoDesk) -> None:
        self._exchange = exchange
        self._algos = algos
        self._called: set[tuple[int, str, str]] = set()

    def check(self) -> None:
        """Call for margin, and liquidate what must be."""
        for account in self._exchange.accounts:
            for position in list(account.positions()):
                if not position.quantity:  # gone with another one of its wallet
                    continue
                margin = self._exchange.margins.of(account, position)
                if margin.liquidated:
                    self._liquidate(account, position)
                else:
                    self._call(account, position)

    def rank(self, account: FuturesAccount, position: Position) -> Decimal:
        """Return how soon a position is deleveraged: gain as a share of cost, times leverage."""
        gain = self._exchange.margins.unrealised(position) / abs(position.cost)
        leverage = account.settings(position.symbol).leverage
        return gain * leverage if gain > 0 else gain / leverage

    def quantile(self, account: FuturesAccount, position: Position) -> int:
        """Return a position's place among those of its direction, 0 (last) to 4 (next)."""
        own = self.rank(account, position)
        ranks = [
            self.rank(other, held)
            for other in self._exchange.accounts
            for held in other.positions()
            if held.symbol == position.symbol and held.quantity * position.quantity > 0
        ]
        below = sum(rank < own for rank in ranks)
        return min(5 * below // len(ranks), 4)

    # --------------------------------------------------------------------- in detail
    def _call(self, account: FuturesAccount, position: Position) -> None:
        margin = self._exchange.margins.of(account, position)
        isolated = account.settings(position.symbol).isolated
        name = position.symbol if isolated else position.asset
        key = (account.uid, name, position.side if isolated else "")
        if not margin.maintenance >= CALL_AT * margin.balance:
            self._called.discard(key)
        elif key not in self._called:
            self._called.add(key)
            self._exchange.tell(MarginCalled(account, margin, self._exchange.now_ms()))

    def _liquidate(self, account: FuturesAccount, position: Position) -> None:
        exchange, asset = self._exchange, position.asset
        isolated = account.settings(position.symbol).isolated
        self._cancel_orders(account, position.symbol if isolated else None)
        before = account.cross.get(asset, ZERO) if isolated else ZERO
        while (margin := exchange.margins.of(account, position)).liquidated:
            leg = max(margin.legs, key=exchange.margins.maintenance)
            spent = self._close(account, leg)
            fee = exchange.market(leg.symbol).contract.liquidation_fee * spent
            rest = exchange.margins.of(account, position).balance
            if isolated:
                rest = account.cross.get(asset, ZERO) - before
            paid = min(fee, max(rest, ZERO)).quantize(QUANTUM, ROUND_DOWN)
            self._move(account, leg, -paid)
        short = account.cross.get(asset, ZERO) - before
        if short < 0 and (isolated or not exchange.margins.cross(account, asset).legs):
            self._move(account, position, -short)

    def _move(self, account: FuturesAccount, leg: Position, amount: Decimal) -> None:
        """Pay an amount out of the insurance fund; into it when negative."""
        if not amount:
            return
        exchange, now_ms = self._exchange, self._exchange.now_ms()
        exchange.insurance[leg.asset] = exchange.insurance.get(leg.asset, ZERO) - amount
        account.earn("INSURANCE_CLEAR", leg.symbol, leg.asset, amount, now_ms)
        told = AccountChanged(account, "INSURANCE_CLEAR", leg.asset, amount, (leg,), now_ms)
        exchange.tell(told)

    def _cancel_orders(self, account: FuturesAccount, symbol: str | None) -> None:
        for order in self._exchange.open_orders(account, symbol):
            self._exchange.close(order, Status.CANCELED, "CANCELED")
        for algo in self._algos.open(account, symbol):
            self._algos.cancel(algo)

    def _close(self, account: FuturesAccount, leg: Position) -> Decimal:
        """Close a position; return price x quantity, in quote."""
        exchange = self._exchange
        market = exchange.market(leg.symbol)
        tick = market.contract.tick_size
        rounding = ROUND_CEILING if leg.quantity > 0 else ROUND_FLOOR
        worst = exchange.margins.bankruptcy_price(account, leg)
        worst = max((worst / tick).to_integral_value(rounding) * tick, tick)
        order = self._forced(account, leg, worst, f"autoclose-{exchange.now_ms()}", "LIQUIDATION")
        exchange.sweep(market, order)
        if order.status.open:
            self._take_over(market, order)
        exchange.tell(Forced(order, exchange.now_ms()))
        return order.spent

    def _forced(
        self, account: FuturesAccount, leg: Position, price: Decimal, client_id: str, kind: str
    ) -> FuturesOrder:
        now_ms = self._exchange.now_ms()
        request = FuturesRequest(
            symbol=leg.symbol,
            side=Side.SELL if leg.quantity > 0 else Side.BUY,
            position_side=leg.side,
            price=price,
            quantity=abs(leg.quantity),
            tif=FuturesTif.IOC,
        )
        order = FuturesOrder(
            order_id=0,
            client_id=client_id,
            account=account,
            request=request,
            quantity=request.quantity,
            price=price,
            closes_only=True,
            created_ms=now_ms,
            updated_ms=now_ms,
            venue_kind=kind,
        )
        self._exchange.take_in(order)
        return order

    def _take_over(self, market: FuturesMarket, order: FuturesOrder) -> None:
        """Close the rest at the bankruptcy price, at the insurance fund's cost or by ADL."""
        exchange, asset = self._exchange, market.contract.quote
        sign, left, loss = order.side.sign, order.left, ZERO
        taken: list[tuple[Decimal, Decimal]] = []
        for offer in market.book.offers(order.side):
            if offer.resting is None and left > 0:
                amount = min(left, offer.quantity)
                left -= amount
                loss += (offer.price - order.price) * sign * amount
                taken.append((offer.price, amount))
        if left > 0 or not loss <= exchange.insurance.get(asset, ZERO):
            self._deleverage(market, order)
            return
        exchange.insurance[asset] = exchange.insurance.get(asset, ZERO) - loss
        for price, amount in taken:
            exchange.others.trade(market.contract, -sign * amount, price)
            market.book.take(order.side, amount)
        self._fill_rest(market, order, order.left)

    def _deleverage(self, market: FuturesMarket, order: FuturesOrder) -> None:
        """Close gainers of the other side at the bankruptcy price, then the rest of the market."""
        exchange = self._exchange
        gainers = [
            (account, held)
            for account in exchange.accounts
            if account is not order.account
            for held in account.positions()
            if held.symbol == order.symbol and held.quantity * order.side.sign > 0
        ]
        gainers.sort(key=lambda one: self.rank(*one), reverse=True)
        for account, held in gainers:
            amount = min(order.left, abs(held.quantity))
            if not amount > 0:
                return
            self._cancel_orders(account, order.symbol)
            other = self._forced(account, held, order.price, "adl_autoclose", "ADL")
            other.quantity = amount
            self._fill_rest(market, other, amount)
            self._fill_rest(market, order, amount)
            exchange.tell(Forced(other, exchange.now_ms()))
        if order.left > 0:
            exchange.others.trade(market.contract, -order.side.sign * order.left, order.price)
            self._fill_rest(market, order, order.left)

    def _fill_rest(self, market: FuturesMarket, order: FuturesOrder, amount: Decimal) -> None:
        self._exchange.fill(
            market,
            order,
            next(market.trade_ids),
            order.price,
            amount,
            maker=False,
            against_others=False,
            free=True,
        )
