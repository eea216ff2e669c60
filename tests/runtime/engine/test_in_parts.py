"""What one order may not sell at once is cut into orders that the venue's rules let pass."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.instrument import Instrument
from bot4_runtime.intents import in_parts

D = Decimal


def rules(step="1", least="1", most=None, market=None, notional="0", value=None, of=Market.SPOT) -> Instrument:  # fmt: skip
    return Instrument(
        symbol="BTCUSDT",
        market=of,
        base="BTC",
        quote="USDT",
        tick_size=D("0.01"),
        step_size=D(step),
        min_quantity=D(least),
        min_notional=D(notional),
        max_quantity=None if most is None else D(most),
        max_market_quantity=None if market is None else D(market),
        max_market_notional=None if value is None else D(value),
    )


@pytest.mark.parametrize(
    ("made", "quantity", "at_market", "parts"),
    [
        (rules(), "25", True, ["25"]),
        (rules(market="25"), "25", True, ["25"]),
        (rules(market="10"), "25", True, ["9", "8", "8"]),
        (rules(market="10"), "25", False, ["25"]),
        (rules(most="10"), "25", False, ["9", "8", "8"]),
        (rules(most="10", market="20"), "25", True, ["9", "8", "8"]),
        (rules(most="20", market="10"), "20", True, ["10", "10"]),
        (rules(market="10.7"), "20", True, ["10", "10"]),
        (rules(market="10", least="2"), "21", True, ["7", "7", "7"]),
        (rules(market="10", least="8"), "15", True, ["10"]),
        (rules(market="10", notional="800"), "15", True, ["10"]),
        (rules(market="0"), "15", True, ["15"]),
        (rules(step="0.01", least="0.01", market="0.1"), "0.25", True, ["0.09", "0.08", "0.08"]),
        (rules(value="1000"), "25", True, ["9", "8", "8"]),
        (rules(value="1000"), "25", False, ["25"]),
        (rules(market="10", of=Market.USDM), "25", False, ["9", "8", "8"]),
        (rules(market="10", notional="800", of=Market.USDM), "15", True, ["8", "7"]),
    ],
)
def test_parts_are_few_and_alike(made, quantity, at_market, parts) -> None:
    assert in_parts(made, D(quantity), D(100), at_market=at_market) == [D(part) for part in parts]


def test_a_price_of_nothing_values_nothing() -> None:
    assert in_parts(rules(value="1000"), D(25), D(0), at_market=True) == [D(25)]


def sellable(quantity: int, least: int, most: int) -> int:
    """The most of a quantity that orders from least to most can sell, by trying them all."""
    reached = {0}
    for _ in range(quantity // max(least, 1)):
        reached |= {a + b for a in reached for b in range(least, most + 1) if a + b <= quantity}
    return max(reached)


@given(
    quantity=st.integers(1, 40),
    least=st.integers(1, 12),
    most=st.integers(1, 40),
    step=st.sampled_from(["1", "0.001", "5"]),
    dearer=st.booleans(),
)
def test_parts_sell_as_much_as_can_be_and_never_more(quantity, least, most, step, dearer) -> None:
    least = min(least, most, quantity)
    notional = least * D(step) * 7 if dearer else D(0)
    made = rules(step=step, least=step if dearer else str(least * D(step)), market=str(most * D(step)), notional=str(notional))  # fmt: skip
    parts = in_parts(made, quantity * D(step), D(7), at_market=True)
    assert all(part % made.step_size == 0 for part in parts)
    assert all(least * D(step) <= part <= most * D(step) for part in parts)
    assert sum(parts) == sellable(quantity, least, most) * D(step)
    assert len(parts) <= -(-quantity // most)
    assert max(parts) - min(parts) <= D(step)
