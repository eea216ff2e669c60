"""USD-M orders, trades, accounts and positions in Binance's words.

Amounts are texts with eight decimals, times are milliseconds since 1970 UTC.
"""

from collections.abc import Iterable
from decimal import Decimal
from typing import Any, Final

from bot4_runtime.domain.order import Side
from bot4_runtime.venue.account import ZERO
from bot4_runtime.venue.futures_account import FuturesAccount, Income, Position
from bot4_runtime.venue.futures_exchange import FuturesExchange
from bot4_runtime.venue.futures_liquidation import Liquidator
from bot4_runtime.venue.futures_orders import AlgoOrder, FuturesOrder, FuturesTrade
from bot4_runtime.venue.rules import plain

Message = dict[str, Any]
FORCED_KINDS: Final = {"LIQUIDATION": "LIQUIDATION", "ADL": "MARKET"}


def order_told(order: FuturesOrder) -> Message:
    """An order, as `GET /fapi/v1/order` and `openOrders` tell it."""
    request, algo = order.request, order.algo
    return {
        "orderId": order.order_id,
        "symbol": order.symbol,
        "status": order.status.value,
        "clientOrderId": order.client_id,
        "price": plain(order.price),
        "avgPrice": plain(order.average),
        "origQty": plain(order.quantity),
        "executedQty": plain(order.filled),
        "cumQuote": plain(order.spent),
        "timeInForce": request.tif.value,
        "type": FORCED_KINDS.get(order.venue_kind, request.kind),
        "reduceOnly": request.reduce_only,
        "closePosition": algo is not None and algo.request.close_all,
        "side": order.side.name,
        "positionSide": request.position_side.value,
        "stopPrice": plain(ZERO),
        "workingType": "CONTRACT_PRICE",
        "priceProtect": False,
        "origType": request.kind if algo is None else algo.request.kind.value,
        "priceMatch": "NONE",
        "selfTradePreventionMode": request.prevention.value,
        "goodTillDate": request.good_till_ms,
        "time": order.created_ms,
        "updateTime": order.updated_ms,
    }


def placed(order: FuturesOrder, detail: str) -> Message:
    """The answer to a new, modified or cancelled order; ``ACK`` says nothing of fills."""
    told = order_told(order) | {"cumQty": plain(order.filled)}
    if detail == "ACK":
        nothing = plain(ZERO)
        told |= {"status": "NEW", "executedQty": nothing, "cumQty": nothing}
        told |= {"cumQuote": nothing, "avgPrice": nothing}
    return told


def algo_told(algo: AlgoOrder) -> Message:
    """A conditional order, as `algoOrder` and `openAlgoOrders` tell it."""
    request, order, actual = algo.request, algo.request.order, algo.actual
    trailing = request.callback is not None
    return {
        "algoId": algo.algo_id,
        "clientAlgoId": algo.client_id,
        "algoType": "CONDITIONAL",
        "orderType": request.kind.value,
        "symbol": algo.symbol,
        "side": algo.side.name,
        "positionSide": order.position_side.value,
        "timeInForce": order.tif.value,
        "quantity": plain(order.quantity),
        "algoStatus": algo.status.value,
        "actualOrderId": "" if actual is None else str(actual.order_id),
        "actualPrice": plain(ZERO if actual is None else actual.average),
        "actualType": "" if actual is None else actual.request.kind,
        "actualQty": plain(ZERO if actual is None else actual.filled),
        "triggerPrice": plain(ZERO if trailing else request.trigger or ZERO),
        "price": plain(order.price or ZERO),
        "icebergQuantity": None,
        "selfTradePreventionMode": order.prevention.value,
        "workingType": "MARK_PRICE" if request.by_mark else "CONTRACT_PRICE",
        "priceMatch": "NONE",
        "closePosition": request.close_all,
        "priceProtect": request.price_protect,
        "reduceOnly": order.reduce_only,
        "activatePrice": plain(request.trigger or ZERO) if trailing else "",
        "callbackRate": f"{request.callback * 100:f}" if request.callback is not None else "",
        "createTime": algo.created_ms,
        "updateTime": algo.updated_ms,
        "triggerTime": algo.triggered_ms,
        "goodTillDate": order.good_till_ms,
    }


def trade_told(trade: FuturesTrade) -> Message:
    """A trade, as `userTrades` tells it."""
    return {
        "symbol": trade.symbol,
        "id": trade.trade_id,
        "orderId": trade.order_id,
        "side": trade.side.name,
        "price": plain(trade.price),
        "qty": plain(trade.quantity),
        "realizedPnl": plain(trade.realised),
        "quoteQty": plain(trade.price * trade.quantity),
        "commission": plain(trade.commission),
        "commissionAsset": trade.asset,
        "time": trade.time_ms,
        "positionSide": trade.position_side.value,
        "buyer": trade.side is Side.BUY,
        "maker": trade.maker,
    }


def income_told(income: Income) -> Message:
    """A change of a wallet, as `income` tells it."""
    return {
        "symbol": income.symbol,
        "incomeType": income.kind,
        "income": plain(income.amount),
        "asset": income.asset,
        "time": income.time_ms,
        "info": income.kind,
        "tranId": income.number,
        "tradeId": "" if income.trade_id is None else str(income.trade_id),
    }


class AccountTold:
    """Tells accounts of an exchange by its margins."""

    def __init__(self, exchange: FuturesExchange, liquidator: Liquidator) -> None:
        self._exchange = exchange
        self._margins = exchange.margins
        self._liquidator = liquidator

    def balances(self, account: FuturesAccount) -> list[Message]:
        """Answer `GET /fapi/v3/balance`."""
        return [
            {
                "accountAlias": f"venue{account.uid}",
                "asset": asset,
                "balance": plain(account.wallet(asset)),
                "crossWalletBalance": plain(cross),
                "crossUnPnl": plain(self._margins.cross(account, asset).unrealised),
                "availableBalance": plain(self._margins.available(account, asset)),
                "maxWithdrawAmount": plain(self._withdrawable(account, asset)),
                "marginAvailable": True,
                "updateTime": self._exchange.now_ms(),
            }
            for asset, cross in sorted(account.cross.items())
        ]

    def account(self, account: FuturesAccount) -> Message:
        """Answer `GET /fapi/v3/account`; totals are of all assets, each worth a dollar."""
        assets = [self._asset(account, asset) for asset in sorted(account.cross)]
        totals = {
            f"total{name[0].upper()}{name[1:]}": plain(
                sum((Decimal(a[name]) for a in assets), ZERO)
            )
            for name in (
                "initialMargin",
                "maintMargin",
                "walletBalance",
                "marginBalance",
                "positionInitialMargin",
                "openOrderInitialMargin",
                "crossWalletBalance",
                "crossUnPnl",
            )
        }
        for name, told in (
            ("unrealizedProfit", "totalUnrealizedProfit"),
            ("availableBalance", "availableBalance"),
            ("maxWithdrawAmount", "maxWithdrawAmount"),
        ):
            totals[told] = _total(assets, name)
        return totals | {
            "assets": assets,
            "positions": [self._brief(account, p) for p in self._shown(account)],
        }

    def positions(self, account: FuturesAccount, symbol: str | None) -> list[Message]:
        """Answer `GET /fapi/v3/positionRisk`: symbols with a position or open orders."""
        return [
            self._risk(account, position)
            for position in self._shown(account)
            if symbol in {None, position.symbol}
        ]

    def quantiles(self, account: FuturesAccount, symbol: str | None) -> list[Message]:
        """Answer `GET /fapi/v1/adlQuantile`."""
        found: dict[str, Message] = {}
        for position in account.positions():
            if symbol in {None, position.symbol}:
                told = found.setdefault(position.symbol, {})
                told[position.side.value] = self._liquidator.quantile(account, position)
        return [{"symbol": name, "adlQuantile": told} for name, told in found.items()]

    # --------------------------------------------------------------------- in detail
    def _shown(self, account: FuturesAccount) -> list[Position]:
        held = list(account.positions())
        for symbol in sorted({o.symbol for o in self._exchange.open_orders(account, None)}):
            contract = self._exchange.market(symbol).contract
            sides = (account.position(contract, side) for side in account.sides())
            held += [position for position in sides if not position.quantity]
        return held

    def _withdrawable(self, account: FuturesAccount, asset: str) -> Decimal:
        spare = self._margins.available(account, asset)
        return min(spare, max(account.cross.get(asset, ZERO), ZERO))

    def _orders(self, account: FuturesAccount, asset: str) -> Decimal:
        symbols = {o.symbol for o in self._exchange.open_orders(account, None)}
        return sum(
            (
                self._margins.order_margin(account, symbol)
                for symbol in symbols
                if self._exchange.market(symbol).contract.quote == asset
            ),
            ZERO,
        )

    def _asset(self, account: FuturesAccount, asset: str) -> Message:
        margins, held = self._margins, [p for p in account.positions() if p.asset == asset]
        profit = sum((margins.unrealised(p) for p in held), ZERO)
        initial = sum((margins.initial(account, p) for p in held), ZERO)
        orders = self._orders(account, asset)
        return {
            "asset": asset,
            "walletBalance": plain(account.wallet(asset)),
            "unrealizedProfit": plain(profit),
            "marginBalance": plain(account.wallet(asset) + profit),
            "maintMargin": plain(sum((margins.maintenance(p) for p in held), ZERO)),
            "initialMargin": plain(initial + orders),
            "positionInitialMargin": plain(initial),
            "openOrderInitialMargin": plain(orders),
            "crossWalletBalance": plain(account.cross.get(asset, ZERO)),
            "crossUnPnl": plain(margins.cross(account, asset).unrealised),
            "availableBalance": plain(margins.available(account, asset)),
            "maxWithdrawAmount": plain(self._withdrawable(account, asset)),
            "updateTime": self._exchange.now_ms(),
        }

    def _brief(self, account: FuturesAccount, position: Position) -> Message:
        margins = self._margins
        isolated = account.settings(position.symbol).isolated
        profit = margins.unrealised(position)
        initial = margins.initial(account, position)
        return {
            "symbol": position.symbol,
            "positionSide": position.side.value,
            "positionAmt": plain(position.quantity),
            "unrealizedProfit": plain(profit),
            "isolatedMargin": plain(position.isolated + profit if isolated else ZERO),
            "notional": plain(margins.notional(position)),
            "isolatedWallet": plain(position.isolated),
            "initialMargin": plain(initial + margins.order_margin(account, position.symbol)),
            "maintMargin": plain(margins.maintenance(position)),
            "updateTime": position.updated_ms,
        }

    def _risk(self, account: FuturesAccount, position: Position) -> Message:
        margins = self._margins
        told = self._brief(account, position)
        bid, ask = margins.order_notionals(account, position.symbol)
        held = bool(position.quantity)
        price = margins.liquidation_price(account, position) if held else ZERO
        return told | {
            "unRealizedProfit": told.pop("unrealizedProfit"),
            "entryPrice": plain(position.entry),
            "breakEvenPrice": plain(position.break_even),
            "markPrice": plain(self._exchange.market(position.symbol).mark),
            "liquidationPrice": plain(price),
            "marginAsset": position.asset,
            "positionInitialMargin": plain(margins.initial(account, position)),
            "openOrderInitialMargin": plain(margins.order_margin(account, position.symbol)),
            "adl": self._liquidator.quantile(account, position) if held else 0,
            "bidNotional": plain(bid),
            "askNotional": plain(ask),
        }


def _total(assets: Iterable[Message], name: str) -> str:
    return plain(sum((Decimal(asset[name]) for asset in assets), ZERO))
