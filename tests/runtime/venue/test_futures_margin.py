"""Margin of the USD-M venue, against Binance's published examples to the cent."""

from decimal import Decimal

import pytest
from futures_venue import dec, request, venue
from hypothesis import given
from hypothesis import strategies as st

from bot4_runtime.domain.errors import DataError
from bot4_runtime.venue.brackets import LADDERS, SMALL, Ladder
from bot4_runtime.venue.contract import Contract
from bot4_runtime.venue.futures_account import FuturesAccount, PositionSide
from bot4_runtime.venue.futures_margin import MarginBook

# Ladders of early 2021, by which Binance's example was made: cum 16,300 and 135,365 follow.
BTC_2021 = Ladder(
    [
        ("0", "0.004", 125),
        ("50000", "0.005", 100),
        ("250000", "0.01", 50),
        ("1000000", "0.025", 20),
        ("10000000", "0.05", 10),
        ("20000000", "0.1", 5),
        ("50000000", "0.125", 4),
        ("100000000", "0.15", 3),
        ("200000000", "0.25", 2),
    ],
    "300000000",
)
ETH_2021 = Ladder(
    [
        ("0", "0.005", 100),
        ("10000", "0.0065", 75),
        ("100000", "0.01", 50),
        ("500000", "0.02", 25),
        ("1000000", "0.05", 10),
        ("2000000", "0.1", 5),
        ("5000000", "0.125", 4),
        ("10000000", "0.15", 3),
    ],
    "20000000",
)
MARKS = {"BTCUSDT": Decimal("31967.27"), "ETHUSDT": Decimal("1335.18")}
WALLET = Decimal("1535443.01")


def contract(symbol, ladder) -> Contract:
    step = Decimal("0.001")
    return Contract(
        symbol=symbol,
        base=symbol[:3],
        quote="USDT",
        tick_size=Decimal("0.01"),
        step_size=step,
        min_quantity=step,
        ladder=ladder,
    )


CONTRACTS = {
    "BTCUSDT": contract("BTCUSDT", BTC_2021),
    "ETHUSDT": contract("ETHUSDT", ETH_2021),
}


@pytest.fixture
def example():
    """Binance's FAQ "How to Calculate Liquidation Price of USD-M Futures Contracts"."""
    account = FuturesAccount(1, "key", "secret")
    account.deposit("USDT", WALLET)
    btc, eth = (account.position(CONTRACTS[name], PositionSide.BOTH) for name in MARKS)
    account.trade(btc, Decimal("109.488"), Decimal("32481.98"), 0)
    account.trade(eth, Decimal("3683.979"), Decimal("1456.84"), 0)
    return account, btc, eth, MarginBook(CONTRACTS.get, MARKS.get, lambda _account: ())


def cents(value) -> Decimal:
    return value.quantize(Decimal("0.01"))


def test_the_published_cross_example_comes_out_to_the_cent(example):
    account, btc, eth, margins = example
    assert cents(margins.maintenance(btc)) == Decimal("71200.81")
    assert cents(margins.maintenance(eth)) == Decimal("356512.51")
    assert cents(margins.unrealised(btc)) == Decimal("-56354.57")
    assert cents(margins.unrealised(eth)) == Decimal("-448192.89")
    assert cents(margins.liquidation_price(account, btc)) == Decimal("26316.89")
    assert cents(margins.liquidation_price(account, eth)) == Decimal("1153.26")


def test_the_published_isolated_examples_come_out_to_the_cent(example):
    account, btc, eth, margins = example
    prices = []
    for position in (btc, eth):
        account.settings(position.symbol).isolated = True
        position.isolated = WALLET
        prices.append(cents(margins.liquidation_price(account, position)))
    assert prices == [Decimal("18778.73"), Decimal("1114.78")]


def test_the_published_maintenance_amount_comes_out():
    """FAQ: notional 500,000 needs 1,300 less than 1 %, notional 264,000 has rate 1 %."""
    assert BTC_2021.at(Decimal(264_000)).rate == Decimal("0.01")
    assert 500_000 * Decimal("0.01") - BTC_2021.maintenance(Decimal(500_000)) == 1_300


@pytest.mark.parametrize(
    ("ladder", "last_cum"),
    [(LADDERS["BTCUSDT"], 421_481_450), (LADDERS["ETHUSDT"], 280_506_450), (SMALL, 10_529_550)],
)
def test_the_dated_ladders_end_with_their_published_amount(ladder, last_cum):
    assert ladder.told()[-1]["cum"] == last_cum
    assert ladder.brackets[-1].cum == last_cum


@pytest.mark.parametrize(
    ("steps", "cap"),
    [
        ([("1", "0.01", 20)], "5"),
        ([("0", "0.01", 20)], "0"),
        ([("0", "0.01", 20), ("9", "0.02", 25)], "10"),
    ],
)
def test_a_ladder_that_does_not_rise_is_refused(steps, cap):
    with pytest.raises(DataError, match="expected floors"):
        Ladder(steps, cap)


@given(
    legs=st.lists(
        st.tuples(
            st.sampled_from(["BTCUSDT", "ETHUSDT"]),
            st.sampled_from(["LONG", "SHORT"]),
            st.integers(1, 400),
        ),
        min_size=1,
        max_size=4,
    ),
    wallet=st.integers(2_000, 500_000),
)
def test_at_its_liquidation_price_a_wallet_has_just_its_maintenance_margin(legs, wallet):
    made = venue(customers=0)
    margins = made.exchange.margins
    account = made.open_account(1, "k", "s", [("USDT", Decimal(wallet))])
    account.hedge = True
    for symbol, side, size in legs:
        market = made.exchange.market(symbol)
        position = account.position(market.contract, PositionSide(side))
        sign = 1 if side == "LONG" else -1
        account.trade(position, sign * dec(size) / 100, market.mark, 0)
    for position in account.positions():
        if margins.of(account, position).liquidated:
            continue
        price = margins.liquidation_price(account, position)
        market = made.exchange.market(position.symbol)
        mark = market.mark
        if price:
            market.mark = price
            margin = margins.of(account, position)
            assert abs(margin.balance - margin.maintenance) < Decimal("1e-12")
        else:  # not even a price of nothing takes the margin
            market.mark = market.contract.tick_size
            assert not margins.of(account, position).liquidated
        market.mark = mark


def test_what_orders_need_is_what_the_larger_direction_would_leave():
    made = venue()
    exchange, account = made.exchange, made.exchange.account("key1")
    made.settings.set_leverage(account, "BTCUSDT", 10)
    exchange.place(account, request("0.1", 39_000))
    assert exchange.margins.order_margin(account, "BTCUSDT") == 390
    exchange.place(account, request("-0.05", 41_000))
    assert exchange.margins.order_margin(account, "BTCUSDT") == 390
    assert exchange.margins.available(account, "USDT") == 10_000 - 390
    made.trade("BTCUSDT", dec(41_000), dec(1))  # short 0.05; buying 0.1 would leave long 0.05
    assert exchange.margins.order_margin(account, "BTCUSDT") == 0
    assert exchange.margins.cross(account, "USDT").legs[0].quantity == dec("-0.05")
