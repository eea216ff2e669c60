"""Calls of a USD-M customer about the account: balances, positions, settings, fees, income."""

from collections.abc import Callable
from typing import Any, Final

from bot4_runtime.venue import futures_messages as messages
from bot4_runtime.venue.futures_account import FuturesAccount
from bot4_runtime.venue.futures_exchange import FuturesExchange
from bot4_runtime.venue.futures_liquidation import Liquidator
from bot4_runtime.venue.futures_messages import AccountTold
from bot4_runtime.venue.futures_reading import flag, position_side
from bot4_runtime.venue.futures_settings import SettingsDesk
from bot4_runtime.venue.refusals import Refused, mandatory
from bot4_runtime.venue.rest import Values, amount, text, whole
from bot4_runtime.venue.rules import plain

OK: Final = {"code": 200, "msg": "success"}
MAX_PAGE: Final = 1_000
RECENT_MS: Final = 7 * 86_400_000
"""Of income that is asked for without a time."""
KEPT_MS: Final = 90 * 86_400_000
"""Older income is not told: the documentation says three months."""


class Accounting:
    """Answers calls about the account; the public ones serve both REST and WebSocket."""

    def __init__(
        self, exchange: FuturesExchange, desk: SettingsDesk, liquidator: Liquidator
    ) -> None:
        self._exchange = exchange
        self._desk = desk
        self._told = AccountTold(exchange, liquidator)
        self.calls: Final[dict[tuple[str, str], Callable[[FuturesAccount, Values], Any]]] = {
            ("GET", "/fapi/v3/account"): self.account,
            ("GET", "/fapi/v3/balance"): self.balance,
            ("GET", "/fapi/v3/positionRisk"): self.positions,
            ("GET", "/fapi/v1/accountConfig"): self._account_config,
            ("GET", "/fapi/v1/symbolConfig"): self._symbol_config,
            ("GET", "/fapi/v1/leverageBracket"): self._brackets,
            ("GET", "/fapi/v1/commissionRate"): self._commission,
            ("GET", "/fapi/v1/adlQuantile"): self._quantiles,
            ("GET", "/fapi/v1/income"): self._income,
            ("GET", "/fapi/v1/positionSide/dual"): self._mode,
            ("POST", "/fapi/v1/positionSide/dual"): self._set_mode,
            ("POST", "/fapi/v1/leverage"): self._set_leverage,
            ("POST", "/fapi/v1/marginType"): self._set_margin_type,
            ("POST", "/fapi/v1/positionMargin"): self._move_margin,
            ("GET", "/fapi/v1/multiAssetsMargin"): lambda *_: {"multiAssetsMargin": False},
        }

    def account(self, account: FuturesAccount, values: Values) -> Any:
        """Tell wallets, margins and positions."""
        return self._told.account(account)

    def balance(self, account: FuturesAccount, values: Values) -> Any:
        """Tell balances."""
        return self._told.balances(account)

    def positions(self, account: FuturesAccount, values: Values) -> Any:
        """Tell positions."""
        return self._told.positions(account, values.get("symbol") or None)

    def _account_config(self, account: FuturesAccount, values: Values) -> Any:
        return {
            "feeTier": 0,
            "canTrade": True,
            "canDeposit": False,
            "canWithdraw": False,
            "dualSidePosition": account.hedge,
            "updateTime": 0,
            "multiAssetsMargin": False,
            "tradeGroupId": -1,
        }

    def _symbol_config(self, account: FuturesAccount, values: Values) -> Any:
        told = []
        for market in self._exchange.markets:
            contract = market.contract
            settings = account.settings(contract.symbol)
            if values.get("symbol") in {None, "", contract.symbol}:
                most = contract.ladder.max_notional(settings.leverage)
                told.append(
                    {
                        "symbol": contract.symbol,
                        "marginType": "ISOLATED" if settings.isolated else "CROSSED",
                        "isAutoAddMargin": False,
                        "leverage": settings.leverage,
                        "maxNotionalValue": f"{most:f}",
                    }
                )
        return told

    def _brackets(self, account: FuturesAccount, values: Values) -> Any:
        symbol = values.get("symbol")
        markets = [self._exchange.market(symbol)] if symbol else self._exchange.markets
        return [
            {
                "symbol": market.contract.symbol,
                "notionalCoef": 1.0,
                "brackets": market.contract.ladder.told(),
            }
            for market in markets
        ]

    def _commission(self, account: FuturesAccount, values: Values) -> Any:
        return {
            "symbol": self._exchange.market(text(values, "symbol")).contract.symbol,
            "makerCommissionRate": plain(account.maker),
            "takerCommissionRate": plain(account.taker),
            "rpiCommissionRate": plain(account.maker),
        }

    def _quantiles(self, account: FuturesAccount, values: Values) -> Any:
        return self._told.quantiles(account, values.get("symbol") or None)

    def _income(self, account: FuturesAccount, values: Values) -> Any:
        start, end = whole(values, "startTime"), whole(values, "endTime")
        limit = whole(values, "limit", 100) or 0
        if not 0 < limit <= MAX_PAGE:
            raise Refused(-1130, "Data sent for parameter 'limit' is not valid.")
        asked_ms = RECENT_MS if start is None and end is None else KEPT_MS
        least_ms = self._exchange.now_ms() - asked_ms
        rows = [
            messages.income_told(income)
            for income in account.incomes
            if values.get("symbol") in {None, "", income.symbol}
            and values.get("incomeType") in {None, "", income.kind}
            and income.time_ms >= max(start or 0, least_ms)
            and (end is None or income.time_ms <= end)
        ]
        return rows[:limit] if start is not None else rows[-limit:]

    # ----------------------------------------------------------------------- settings
    def _mode(self, account: FuturesAccount, values: Values) -> Any:
        return {"dualSidePosition": account.hedge}

    def _set_mode(self, account: FuturesAccount, values: Values) -> Any:
        text(values, "dualSidePosition")
        self._desk.set_hedge(account, hedge=flag(values, "dualSidePosition"))
        return OK

    def _set_leverage(self, account: FuturesAccount, values: Values) -> Any:
        symbol, leverage = text(values, "symbol"), whole(values, "leverage")
        if leverage is None:
            raise mandatory("leverage")
        most = self._desk.set_leverage(account, symbol, leverage)
        return {"symbol": symbol, "leverage": leverage, "maxNotionalValue": f"{most:f}"}

    def _set_margin_type(self, account: FuturesAccount, values: Values) -> Any:
        wanted = text(values, "marginType")
        if wanted not in {"ISOLATED", "CROSSED"}:
            raise mandatory("marginType")
        symbol = text(values, "symbol")
        self._desk.set_margin_type(account, symbol, isolated=wanted == "ISOLATED")
        return OK

    def _move_margin(self, account: FuturesAccount, values: Values) -> Any:
        moved, kind = amount(values, "amount"), whole(values, "type")
        if moved is None:
            raise mandatory("amount")
        if kind not in {1, 2}:
            raise mandatory("type")
        signed = moved if kind == 1 else -moved
        self._desk.move_margin(account, text(values, "symbol"), position_side(values), signed)
        told = {"amount": float(moved), "type": kind}
        return told | {"code": 200, "msg": "Successfully modify position margin."}
