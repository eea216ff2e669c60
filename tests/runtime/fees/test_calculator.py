import dataclasses
import datetime as dt
import math
from decimal import ROUND_DOWN
from decimal import Decimal as D
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.errors import ConfigError, DataError
from bot4_runtime.domain.order import Liquidity, Side
from bot4_runtime.fees.calculator import FeeCalculator, bnb_price
from bot4_runtime.fees.ccxt_tables import ccxt_schedule
from bot4_runtime.fees.schedules import (
    CommissionPart,
    RebateProgramme,
    SymbolCommission,
    binance_schedule,
    binance_schedules,
)

SPOT = binance_schedule(Market.SPOT)
USDM = binance_schedule(Market.USDM)
DAY = 86_400_000
positive = st.decimals("0.00000001", "1000000", places=8)


@given(positive, positive, st.sampled_from(Liquidity), st.sampled_from(Side), st.integers(0, 9))
def test_exact_fees_equal_rational_arithmetic_cut_to_eight_decimals(
    price, quantity, liquidity, side, tier
):
    fee, asset = FeeCalculator(SPOT, tier).exact(price, quantity, liquidity, side, "ETH", "USDT")
    row = SPOT.tiers[tier]
    rate = row.maker if liquidity is Liquidity.MAKER else row.taker
    received = Fraction(quantity) * (1 if side is Side.BUY else Fraction(price))
    assert fee == D(math.floor(received * Fraction(rate) * 10**8)).scaleb(-8)
    assert asset == ("ETH" if side is Side.BUY else "USDT")


def test_spot_charges_what_is_received_and_usdm_charges_quote():
    for schedule, buy, sell in (
        (SPOT, (D("0.002"), "ETH"), (D(4), "USDT")),
        (USDM, (D(2), "USDT"), (D(2), "USDT")),
    ):
        fees = FeeCalculator(schedule)
        for side, expected in ((Side.BUY, buy), (Side.SELL, sell)):
            assert fees.exact(D(2000), D(2), Liquidity.TAKER, side, "ETH", "USDT") == expected


@pytest.mark.parametrize(
    ("fee_side", "buy", "sell"),
    [
        ("give", "USD", "BTC"),
        ("base", "BTC", "BTC"),
        ("quote", "USD", "USD"),
        ("get", "BTC", "USD"),
    ],
)
def test_other_venues_charge_the_side_they_state(fee_side, buy, sell):
    told = {"maker": 0.001, "taker": 0.002, "percentage": True, "feeSide": fee_side}
    fees = FeeCalculator(ccxt_schedule("other", "spot", told))
    for side, asset in ((Side.BUY, buy), (Side.SELL, sell)):
        assert fees.exact(D(10), D(1), Liquidity.MAKER, side, "BTC", "USD")[1] == asset


@pytest.mark.parametrize(("schedule", "kept"), [(SPOT, "0.75"), (USDM, "0.9")])
def test_the_bnb_discount_is_a_quarter_on_spot_and_a_tenth_on_usdm(schedule, kept):
    full, reduced = FeeCalculator(schedule), FeeCalculator(schedule, bnb_discount=True)
    order = (D(500), D(4), Liquidity.TAKER, Side.SELL, "SOL", "USDT")
    fee, asset = full.exact(*order)
    assert reduced.exact(*order, bnb_price=D(600)) == (
        (fee * D(kept) / 600).quantize(D("1e-8"), rounding=ROUND_DOWN),
        "BNB",
    )
    assert full.exact(*order, bnb_price=D(600)) == (fee, asset)
    assert reduced.exact(*order) == (fee, asset), "without BNB the full rate is charged"
    rate = reduced.rate("binance", "SOLUSDT", Liquidity.TAKER)
    assert rate == pytest.approx(full.rate("binance", "SOLUSDT", Liquidity.TAKER) * float(kept))


def test_the_discount_spares_tax_and_special_parts():
    fees = FeeCalculator(SPOT, bnb_discount=True)
    part = CommissionPart(D("0.001"), D("0.001"))
    fees.set_account_commission("ETHUSDT", SymbolCommission(part, part, part))
    order = (D(1000), D(1), Liquidity.MAKER, Side.SELL, "ETH", "USDT")
    assert fees.exact(*order, D(1)) == (D("2.75"), "BNB")
    assert fees.exact(*order) == (D(3), "USDT")


@pytest.mark.parametrize(
    ("side", "base", "quote", "price", "charged"),
    [
        (Side.SELL, "BNB", "USDT", "600", "0.0075"),
        (Side.BUY, "BNB", "USDT", "600", "0.0075"),
        (Side.SELL, "ETH", "BNB", "5", "0.0375"),
        (Side.BUY, "ETH", "BNB", "5", "0.0375"),
    ],
)
def test_in_a_market_of_bnb_its_price_is_the_fills_own(side, base, quote, price, charged):
    order = (D(price), D(10), Liquidity.TAKER, side, base, quote)
    fees = FeeCalculator(SPOT, bnb_discount=True)
    one = bnb_price(D(price), base, quote, mark=1.0)
    assert fees.exact(*order, one) == (D(charged), "BNB")


def test_a_bnb_price_is_the_mark_or_nobody_knows():
    assert bnb_price(D(2), "ETH", "USDT", 612.5) == D("612.5")
    assert bnb_price(D(2), "ETH", "USDT", None) is None


def test_a_rebate_is_credited_whole_where_a_fee_without_bnb_is_taken():
    for discounted in (False, True):
        fees = FeeCalculator(
            SPOT, 0, discounted, [programme(frozenset(), maker="-0.0001")], now_ms=DAY
        )
        order = (D(100), D(1000), Liquidity.MAKER, Side.SELL, "ETH", "USDT")
        assert fees.exact(*order) == fees.exact(*order, D(600)) == (D(-10), "USDT")
        assert fees.rate("binance", "ETHUSDT", Liquidity.MAKER) == -0.0001


def test_the_accounts_word_is_found_by_the_name_it_was_given_for():
    fees = FeeCalculator(SPOT)
    free = CommissionPart(D("0.0001"), D("0.0001"))
    fees.set_account_commission(
        "BTC/USDT", SymbolCommission(free, CommissionPart(), CommissionPart())
    )
    order = (D(1000), D(1), Liquidity.TAKER, Side.SELL, "BTC", "USDT")
    assert fees.exact(*order, symbol="BTC/USDT")[0] == D("0.1")
    assert fees.rate("binance", "BTC/USDT", Liquidity.TAKER) == 0.0001
    assert fees.exact(*order)[0] == 1


def test_the_accounts_word_ends_with_the_tier_it_was_told_in():
    told = SymbolCommission(
        CommissionPart(D("0.001"), D("0.001")), CommissionPart(), CommissionPart()
    )
    fees = FeeCalculator(SPOT)
    fees.set_account_commission("ETHUSDT", told)
    fees.set_tier(0)
    fees.record_volume(0, D(2_000_000))
    assert fees.rate("binance", "ETHUSDT", Liquidity.MAKER) == 0.001
    assert fees.advance(DAY, D(25))
    assert fees.rate("binance", "ETHUSDT", Liquidity.MAKER) == 0.0009
    fees.set_account_commission("ETHUSDT", told)
    fees.set_tier(9)
    assert fees.rate("binance", "ETHUSDT", Liquidity.MAKER) == 0.00012


@pytest.mark.parametrize("notional", [0.0, 1.0, 123456.789])
def test_an_estimate_is_the_notional_times_the_rate(notional):
    fees = FeeCalculator(USDM, 3, bnb_discount=True)
    assert fees.estimate(notional, Liquidity.MAKER) == pytest.approx(notional * 0.00012 * 0.9)
    assert fees.estimate(notional, Liquidity.TAKER) == pytest.approx(notional * 0.00032 * 0.9)


@pytest.mark.parametrize("notional", [math.nan, math.inf, -1.0])
def test_no_estimate_is_made_of_nonsense(notional):
    with pytest.raises(DataError, match="expected a finite number"):
        FeeCalculator(SPOT).estimate(notional, Liquidity.TAKER)


@pytest.mark.parametrize("bad", ["NaN", "Infinity", "0", "-1"])
@pytest.mark.parametrize("place", ["price", "quantity", "bnb_price"])
def test_no_exact_fee_is_made_of_nonsense(bad, place):
    numbers = {"price": D(1), "quantity": D(1), "bnb_price": D(1)} | {place: D(bad)}
    with pytest.raises(DataError, match="expected a finite number > 0"):
        FeeCalculator(SPOT, bnb_discount=True).exact(
            liquidity=Liquidity.MAKER, side=Side.BUY, base="A", quote="B", **numbers
        )


def test_rates_are_cached_and_the_hit_rate_is_counted():
    fees = FeeCalculator(SPOT)
    assert fees.hit_rate is None
    for _ in range(20):
        assert fees.rate("binance", "BTCUSDT", Liquidity.TAKER) == 0.001
    assert fees.hit_rate == 0.95
    assert fees.counters() == {"rate_hits": 19, "rate_misses": 1}


def test_a_new_tier_drops_the_cached_rates():
    fees = FeeCalculator(SPOT)
    assert fees.rate("binance", "BTCUSDT", Liquidity.MAKER) == 0.001
    fees.set_tier(0)
    fees.set_tier(9)
    assert fees.tier == 9
    assert fees.rate("binance", "BTCUSDT", Liquidity.MAKER) == 0.00012
    assert fees.estimate(100.0, Liquidity.MAKER) == pytest.approx(0.012)


def test_wrong_tiers_and_venues_are_refused():
    with pytest.raises(ConfigError, match="expected 0 to 9"):
        FeeCalculator(SPOT, 10)
    fees = FeeCalculator(SPOT)
    with pytest.raises(ConfigError, match="expected 0 to 9"):
        fees.set_tier(-1)
    with pytest.raises(DataError, match="'kraken'"):
        fees.rate("kraken", "BTCUSDT", Liquidity.MAKER)


def test_the_accounts_word_goes_before_the_schedule_and_the_dearer_side_is_estimated():
    fees = FeeCalculator(SPOT)
    standard = CommissionPart(D("0.0005"), D("0.0007"), seller=D("0.0002"))
    fees.set_account_commission(
        "ETHUSDT", SymbolCommission(standard, CommissionPart(), CommissionPart())
    )
    assert fees.rate("binance", "ETHUSDT", Liquidity.TAKER) == 0.0009
    assert fees.rate("binance", "BTCUSDT", Liquidity.TAKER) == 0.001
    buy, _ = fees.exact(D(1), D(1000), Liquidity.MAKER, Side.BUY, "ETH", "USDT")
    sell, _ = fees.exact(D(1), D(1000), Liquidity.MAKER, Side.SELL, "ETH", "USDT")
    assert (buy, sell) == (D("0.5"), D("0.7"))


def programme(
    symbols: frozenset[str], venue: str = "binance", maker: str = "-0.00005", at_ms: int = DAY
) -> RebateProgramme:
    return RebateProgramme(
        name="makers", venue=venue, symbols=symbols, from_ms=at_ms, to_ms=at_ms + DAY,
        maker=D(maker), taker=D("0.0003"), source="a test",
    )  # fmt: skip


def test_a_rebate_programme_runs_between_its_dates_for_its_symbols():
    fees = FeeCalculator(SPOT, programmes=[programme(frozenset({"ETHUSDT"}))], now_ms=0)
    order = (D(1000), D(1), Liquidity.MAKER, Side.SELL, "ETH", "USDT")
    assert fees.exact(*order)[0] == 1
    assert not fees.advance(DAY - 1)
    assert fees.advance(DAY)
    assert not fees.advance(DAY + 1)
    assert fees.exact(*order)[0] == D("-0.05")
    assert fees.rate("binance", "ETHUSDT", Liquidity.TAKER) == 0.0003
    assert fees.rate("binance", "BTCUSDT", Liquidity.MAKER) == 0.001
    assert fees.estimate(1000.0, Liquidity.MAKER) == 1.0
    assert fees.advance(2 * DAY)
    assert fees.exact(*order)[0] == 1


def test_a_programme_for_all_symbols_moves_the_estimate_and_another_venues_does_not():
    fees = FeeCalculator(
        SPOT, programmes=[programme(frozenset(), "other"), programme(frozenset())], now_ms=0
    )
    fees.advance(DAY)
    assert fees.estimate(1000.0, Liquidity.MAKER) == pytest.approx(-0.05)


def test_the_tier_follows_the_thirty_day_volume_and_the_bnb_balance():
    fees = FeeCalculator(SPOT)
    fees.record_volume(0, D(1_500_000))
    assert not fees.advance(DAY - 1, D(100))
    assert fees.advance(DAY, D(100)), "the day's volume counts from midnight on"
    assert fees.tier == 1
    assert not fees.advance(DAY + 5, D(0)), "once a day"
    assert not fees.advance(30 * DAY, D(100))
    assert fees.advance(31 * DAY, D(100))
    assert fees.tier == 0


def test_a_programme_is_never_passed_over_for_want_of_a_moment():
    makers = [programme(frozenset(), maker="-0.0001")]
    with pytest.raises(ConfigError, match="'makers' was given without a moment"):
        FeeCalculator(SPOT, programmes=makers)
    running = FeeCalculator(SPOT, programmes=makers, now_ms=DAY)
    assert running.rate("binance", "ETHUSDT", Liquidity.MAKER) == -0.0001


def test_a_programme_may_begin_and_end_within_a_day():
    noon = DAY // 2
    fees = FeeCalculator(SPOT, programmes=[programme(frozenset(), at_ms=noon)], now_ms=0)
    changes = [hour for hour in range(49) if fees.advance(hour * DAY // 24)]
    assert changes == [12, 36]


def test_the_configured_tier_is_the_least():
    fees = FeeCalculator(SPOT, 3)
    fees.record_volume(0, D(120_000_000))
    assert fees.advance(DAY, D(500))
    assert fees.tier == 4
    assert fees.advance(31 * DAY, D(0))
    assert fees.tier == 3


def test_an_earlier_moment_changes_nothing():
    fees = FeeCalculator(SPOT)
    fees.record_volume(9 * DAY, D(2_000_000))
    assert fees.advance(10 * DAY, D(25))
    assert not fees.advance(9 * DAY, D(25))
    assert fees.tier == 1


@pytest.mark.parametrize("market", Market)
def test_dated_schedules_are_used_from_their_day_on(market):
    day = dt.date(2021, 12, 31)
    first, *later = binance_schedules(market, day)
    fees = FeeCalculator(first, 5, later=later)
    while day < dt.date(2025, 2, 1):
        fees.advance((day - dt.date(1970, 1, 1)).days * DAY)
        row = binance_schedule(market, day).tiers[5]
        assert fees.rate("binance", "X", Liquidity.TAKER) == float(row.taker)
        day += dt.timedelta(15)


def test_a_schedule_may_change_where_the_fee_is_taken_and_its_discount():
    later = dataclasses.replace(SPOT, effective=dt.date(2030, 1, 1), fee_side="quote",
                                bnb_discount=D("0.5"))  # fmt: skip
    fees = FeeCalculator(SPOT, 0, True, later=[later])
    order = (D(100), D(1), Liquidity.TAKER, Side.BUY, "ETH", "USDT")
    assert fees.exact(*order) == (D("0.001"), "ETH")
    fees.advance(later.effective_ms)
    assert fees.exact(*order) == (D("0.1"), "USDT")
    assert fees.exact(*order, D(1)) == (D("0.05"), "BNB")


@pytest.mark.parametrize(
    ("fees", "bnb", "moves"),
    [
        (FeeCalculator(SPOT), "24.9", False),
        (FeeCalculator(SPOT), "25", True),
        (FeeCalculator(SPOT, 1), "25", False),
        (FeeCalculator(USDM), "0", True),
        (FeeCalculator(USDM, 9), "0", False),
        (FeeCalculator(SPOT, later=[SPOT]), "0", True),
    ],
)
def test_whether_time_can_change_anything_is_known(fees, bnb, moves):
    assert fees.moves(D(bnb)) is moves


def test_without_a_bnb_balance_the_configured_tier_stays():
    fees = FeeCalculator(SPOT, 5)
    assert not fees.advance(DAY)
    assert fees.tier == 5


def test_the_venues_own_word_replaces_rates_that_were_asked_for_before():
    fees = FeeCalculator(SPOT)
    before = fees.rate(SPOT.venue, "BTCUSDT", Liquidity.TAKER)
    buy = D(100), D(10), Liquidity.TAKER, Side.BUY, "BTC", "USDT"
    assert before == 0.001
    assert fees.exact(*buy) == (D("0.01"), "BTC")
    told = SymbolCommission(
        CommissionPart(D("0.002"), D("0.003")),
        CommissionPart(D(0), D(0)),
        CommissionPart(D(0), D(0)),
    )
    fees.set_account_commission("BTCUSDT", told)
    assert fees.rate(SPOT.venue, "BTCUSDT", Liquidity.TAKER) == 0.003
    assert fees.exact(*buy) == (D("0.03"), "BTC")
