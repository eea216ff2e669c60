"""What everybody else trades: prints in order of time, scripted or drawn from candles."""

from collections.abc import Iterable, Iterator, Mapping
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Final, NamedTuple

from bot4_runtime.domain.candle import Candle
from bot4_runtime.venue.rules import SymbolRules

PRINTS: Final = 4
"""Prints a candle becomes: open, the extreme nearer in time, the other one, close."""


class Print(NamedTuple):
    """A trade between others. Price in quote, quantity in base."""

    time_ms: int
    symbol: str
    price: Decimal
    quantity: Decimal


class Tape:
    """Prints up to a time; it only moves forward.

    Args:
        prints: in order of time; may be endless.
    """

    def __init__(self, prints: Iterable[Print]) -> None:
        self._prints = iter(prints)
        self._next = next(self._prints, None)

    def until(self, time_ms: int) -> Iterator[Print]:
        """Yield the prints before `time_ms` that were not yielded yet."""
        while self._next is not None and self._next.time_ms < time_ms:
            due, self._next = self._next, next(self._prints, None)
            yield due


def candle_prints(candles: Iterable[Candle], rules: Mapping[str, SymbolRules]) -> Iterator[Print]:
    """Expand candles of one time after the other to their prints.

    A rising candle goes open, low, high, close; a falling one open, high, low, close. Each
    print gets a quarter of the volume. Candles of the same time take turns.
    """
    gathered: list[Candle] = []
    for candle in candles:
        if gathered and gathered[0].open_time_ms != candle.open_time_ms:
            yield from _interleaved(gathered, rules)
            gathered = []
        gathered.append(candle)
    yield from _interleaved(gathered, rules)


def _interleaved(candles: list[Candle], rules: Mapping[str, SymbolRules]) -> Iterator[Print]:
    prints = [made for candle in candles for made in _path(candle, rules[candle.symbol])]
    yield from sorted(prints, key=lambda made: made.time_ms)


def _path(candle: Candle, rules: SymbolRules) -> Iterator[Print]:
    first, second = candle.low, candle.high
    if candle.close < candle.open:
        first, second = second, first
    length = candle.close_time_ms - candle.open_time_ms
    for number, price in enumerate((candle.open, first, second, candle.close)):
        yield Print(
            candle.open_time_ms + min(number * length // (PRINTS - 1), length - 1),
            candle.symbol,
            _to_step(price, rules.tick_size),
            _to_step(candle.volume / PRINTS, rules.step_size),
        )


def _to_step(value: float, step: Decimal) -> Decimal:
    return (Decimal(repr(value)) / step).to_integral_value(ROUND_HALF_EVEN) * step
