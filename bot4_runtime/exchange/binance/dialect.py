"""How a market of Binance is asked, where markets differ in words alone."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from bot4_runtime.domain.candle import Market
from bot4_runtime.exchange.binance.failures import Judge, failure
from bot4_runtime.exchange.binance.rule_book import ExchangeInfo
from bot4_runtime.exchange.protocols import VenueTrade


class TradeMessage(Protocol):
    """An execution as a market tells it."""

    def meaning(self) -> VenueTrade:
        """Return it as the engine knows executions; raises DataError."""
        ...


class Request(NamedTuple):
    """What is asked about an order: a method of the WebSocket API, and its parameters."""

    method: str
    fields: dict[str, str | int]


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a market of Binance is asked.

    Attributes:
        market: whose limits hold until others are learnt.
        time: path of its clock.
        rules: path of its trading rules; `info` reads them.
        named: whether rules can be asked for by symbol.
        trades: path of the account's executions; `trade` reads one.
        rest: methods of the WebSocket API, and what they are called in REST.
        rules_broken: codes after which the rules are learnt again.
        judge: what an answer that is no success means.
        ping_s: of a line's silence after which a pong is asked for; None where the venue pings.
    """

    market: Market
    time: str
    rules: str
    info: type[ExchangeInfo]
    named: bool
    trades: str
    trade: type[TradeMessage]
    rest: Mapping[str, tuple[str, str]]
    rules_broken: frozenset[str]
    judge: Judge = failure
    ping_s: float | None = None
