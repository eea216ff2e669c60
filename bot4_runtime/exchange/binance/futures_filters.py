"""Trading rules of USD-M symbols, in the terms of `filters`.

A buy has a highest price and a sell a lowest one, by the mark; the least notional is one number,
and what only reduces need not have it. Ticks and steps are the filters', never the precisions'.
Source: Binance's USD-M documentation, "Filters", as of 2026-05-28.
"""

from collections.abc import Mapping
from decimal import Decimal
from typing import ClassVar, Final

import msgspec

from bot4_runtime.domain.candle import Market
from bot4_runtime.exchange.binance.filters import (
    KINDS,
    MOST,
    ZERO,
    Filter,
    MaxNumOrders,
    MinNotional,
    PercentPriceBySide,
    SymbolFields,
    SymbolRules,
)
from bot4_runtime.exchange.binance.limits import LimitFields
from bot4_runtime.exchange.binance.rule_book import ExchangeInfo

AT_MARKET: Final = frozenset({"MARKET", "STOP_MARKET", "TAKE_PROFIT_MARKET"})
"""Kinds that trade as market orders, at once or when they trigger."""


class ContractNotional(Filter):
    """`MIN_NOTIONAL`, in quote; an order at market is held against it too."""

    notional: Decimal

    def common(self) -> Filter:
        """Return the rule as it is on spot."""
        return MinNotional(self.notional, apply_to_market=True)


class ContractBand(Filter):
    """`PERCENT_PRICE`: of the mark, a roof for buys and a floor for sells."""

    multiplier_up: Decimal
    multiplier_down: Decimal

    def common(self) -> Filter:
        """Return the rule as it is on spot."""
        return PercentPriceBySide(self.multiplier_up, ZERO, MOST, self.multiplier_down)


class ContractCount(Filter):
    """`MAX_NUM_ORDERS`."""

    limit: int

    def common(self) -> Filter:
        """Return the rule as it is on spot."""
        return MaxNumOrders(self.limit)


class ContractFields(msgspec.Struct, rename="camel"):
    """A symbol as `GET /fapi/v1/exchangeInfo` tells it."""

    symbol: str
    status: str
    base_asset: str
    base_asset_precision: int
    quote_asset: str
    quote_precision: int
    order_types: list[str]
    filters: list[msgspec.Raw]

    def rules(self) -> SymbolRules:
        """Return what an order must keep to; raises DataError."""
        return ContractRules(
            SymbolFields(
                symbol=self.symbol,
                status=self.status,
                base_asset=self.base_asset,
                base_asset_precision=self.base_asset_precision,
                quote_asset=self.quote_asset,
                quote_asset_precision=self.quote_precision,
                order_types=[*self.order_types, *AT_MARKET],
                filters=self.filters,
            )
        )


class ContractRules(SymbolRules):
    """What an order in a USD-M symbol must keep to."""

    market = Market.USDM
    at_market = AT_MARKET
    kinds: ClassVar[Mapping[str, type[Filter]]] = KINDS | {
        "PERCENT_PRICE": ContractBand,
        "MIN_NOTIONAL": ContractNotional,
        "MAX_NUM_ORDERS": ContractCount,
    }


class ContractInfo(ExchangeInfo):
    """`GET /fapi/v1/exchangeInfo`."""

    rate_limits: list[LimitFields]
    symbols: list[ContractFields]  # type: ignore[assignment]
