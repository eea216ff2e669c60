"""Trading rules of the symbols that are traded, learnt from the venue while it runs.

What only reduces is held against the rules that are certain (ticks, steps, whether the market is
open), never against counts, bands or amounts that may have changed since they were read. A rule
that refuses an order makes the rules due again.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Final
from urllib.parse import quote

import msgspec

from bot4_runtime.domain.errors import DataError, OutcomeUnknown
from bot4_runtime.domain.order import OrderIntent, OrderType, Side
from bot4_runtime.exchange.binance.filters import (
    Ask,
    Broken,
    Surroundings,
    SymbolFields,
    SymbolRules,
)
from bot4_runtime.exchange.binance.limits import LimitFields, RequestBudget
from bot4_runtime.exchange.protocols import VenueOrder

FRESH_S: Final = 300.0
"""How long rules are taken for the present ones."""
CERTAIN: Final = frozenset(
    {"MARKET_CLOSED", "ORDER_TYPE", "PRECISION", "PRICE_FILTER", "LOT_SIZE", "MARKET_LOT_SIZE"}
)
"""Rules that depend on the order alone."""


class ExchangeInfo(msgspec.Struct, rename="camel"):
    """`GET /api/v3/exchangeInfo`."""

    rate_limits: list[LimitFields]
    symbols: list[SymbolFields]


class RuleBook:
    """Rules by symbol, and what of the account they look at.

    Args:
        symbols: those whose rules are kept; empty keeps none, and the venue judges alone.
        budget: learns the venue's limits.
        account: the API key whose orders are counted.
        timer: seconds of a clock that never jumps.
    """

    def __init__(
        self,
        symbols: Sequence[str],
        budget: RequestBudget,
        account: str,
        timer: Callable[[], float] = time.monotonic,
    ) -> None:
        self._symbols = tuple(symbols)
        self._budget = budget
        self._account = account
        self._timer = timer
        self._due_s = float("-inf")
        self._rules: dict[str, SymbolRules] = {}
        self._open: Counter[str] | None = None
        self._stops: Counter[str] = Counter()
        self._bids: dict[str, Decimal] = {}
        self._held: Mapping[str, Decimal] | None = None
        self._marks: Mapping[str, Decimal] = {}

    def of(self, symbol: str) -> SymbolRules | None:
        """Return a symbol's rules as they were last told."""
        return self._rules.get(symbol)

    def doubt(self) -> None:
        """Ask for the rules again before the next reading of the account."""
        self._due_s = float("-inf")

    def due_query(self) -> str | None:
        """Return the query by which rules are asked for; None when they are fresh."""
        if not self._symbols or self._timer() < self._due_s:
            return None
        return f"symbols={quote(json.dumps(self._symbols, separators=(',', ':')))}"

    def take_over(self, info: ExchangeInfo, sent_ms: int) -> None:
        """Keep what the venue told.

        Raises:
            OutcomeUnknown: a symbol is missing or a rule unreadable; the former ones stay.
        """
        wanted = frozenset(self._symbols)
        try:
            rules = {told.symbol: told.rules() for told in info.symbols if told.symbol in wanted}
        except DataError as error:
            raise OutcomeUnknown(f"the trading rules cannot be read: {error}") from error
        missing = [symbol for symbol in self._symbols if symbol not in rules]
        if missing:
            raise OutcomeUnknown(f"the venue told no trading rules of {', '.join(missing)}")
        self._budget.learn(info.rate_limits, sent_ms, self._account)
        self._rules = rules
        self._due_s = self._timer() + FRESH_S

    # ------------------------------------------------------------------- the account
    def open_orders(self, kinds: Iterable[tuple[str, str]], orders: Sequence[VenueOrder]) -> None:
        """Take over what is open: symbol and Binance's type of each, and the orders."""
        self._open, self._stops, self._bids = Counter(), Counter(), {}
        for (symbol, kind), order in zip(kinds, orders, strict=True):
            self._open[symbol] += 1
            self._stops[symbol] += kind.startswith(("STOP", "TAKE"))
            if order.side is Side.BUY:
                left = order.quantity - order.filled
                self._bids[symbol] = self._bids.get(symbol, Decimal(0)) + left

    def balances(self, held: Mapping[str, Decimal]) -> None:
        """Take over what the account holds by asset."""
        self._held = held

    def marks(self, told: Mapping[str, Decimal]) -> None:
        """Take over the prices that bands are measured by, where they are not the last ones."""
        self._marks = told

    def placed(self, intent: OrderIntent) -> None:
        """Count an order that was taken, until the next reading of what is open."""
        if self._open is None:
            return
        self._open[intent.symbol] += 1
        self._stops[intent.symbol] += intent.stop_price is not None
        if intent.side is Side.BUY:
            bids = self._bids.get(intent.symbol, Decimal(0))
            self._bids[intent.symbol] = bids + intent.quantity

    def broken(self, intent: OrderIntent, kind: str) -> Broken | None:
        """Return the first rule that an order breaks, if any is known.

        Args:
            intent: the order.
            kind: Binance's word for its type.
        """
        rules = self._rules.get(intent.symbol)
        if rules is None:
            return None
        ask = Ask(
            intent.side,
            kind,
            intent.quantity,
            None,
            intent.price if intent.order_type is OrderType.LIMIT else None,
            intent.stop_price,
        )
        for found in rules.broken(ask, self._around(intent, rules)):
            if not intent.reduce_only or found.rule in CERTAIN:
                self.doubt()
                return found
        return None

    def _around(self, intent: OrderIntent, rules: SymbolRules) -> Surroundings:
        symbol, known = intent.symbol, self._open is not None
        owned = None
        if self._held is not None and known:
            owned = self._held.get(rules.base, Decimal(0)) + self._bids.get(symbol, Decimal(0))
        return Surroundings(
            last=self._marks.get(symbol, intent.reference_price),
            orders=self._open[symbol] if self._open is not None else None,
            stops=self._stops[symbol] if known else None,
            owned=owned,
        )
