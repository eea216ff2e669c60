"""An account's own commission, by Binance's worked example."""

import copy
from decimal import Decimal as D

import pytest

from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.errors import DataError
from bot4_runtime.domain.order import Liquidity, Side
from bot4_runtime.fees.account import spot_commission, usdm_commission
from bot4_runtime.fees.calculator import FeeCalculator
from bot4_runtime.fees.schedules import binance_schedule

# Binance, "Commission Rates" (spot documentation): 0.49975 BTC sold at 35,000, 1 BNB = 260 USDT
EXAMPLE = {
    "symbol": "BTCUSDT",
    "standardCommission": {
        "maker": "0.00000010", "taker": "0.00000020",
        "buyer": "0.00000030", "seller": "0.00000040",
    },
    "specialCommission": {
        "maker": "0.01000000", "taker": "0.02000000",
        "buyer": "0.03000000", "seller": "0.04000000",
    },
    "taxCommission": {
        "maker": "0.00000112", "taker": "0.00000114",
        "buyer": "0.00000118", "seller": "0.00000116",
    },
    "discount": {
        "enabledForAccount": True, "enabledForSymbol": True,
        "discountAsset": "BNB", "discount": "0.25000000",
    },
}  # fmt: skip
SALE = (D(35_000), D("0.49975"), Liquidity.TAKER, Side.SELL, "BTC", "USDT")


def changed(**parts):
    return copy.deepcopy(EXAMPLE) | parts


def calculator(answer):
    fees = FeeCalculator(binance_schedule(Market.SPOT))
    fees.set_account_commission("BTCUSDT", spot_commission(answer))
    return fees


def test_the_worked_example_in_bnb_comes_out():
    fee, asset = calculator(EXAMPLE).exact(*SALE, bnb_price=D(260))
    assert asset == "BNB"
    assert float(fee) == pytest.approx(0.000010091 + 0.00015473 + 4.036442308, abs=1e-8)


def test_the_worked_example_without_a_discount_is_charged_in_what_is_received():
    full = changed(discount=EXAMPLE["discount"] | {"enabledForSymbol": False})
    fee, asset = calculator(full).exact(*SALE, bnb_price=D(260))
    assert asset == "USDT"
    # each part rounded as the page states it: 0.01049475 + 0.04022988 + 1049.475
    assert float(fee) == pytest.approx(1049.52572463, abs=2e-8)
    buy = (D(35_000), D("0.5"), Liquidity.MAKER, Side.BUY, "BTC", "USDT")
    rate = D("0.00000040") + D("0.0400000") + D("0.00000230")
    assert calculator(full).exact(*buy) == ((rate / 2).quantize(D("1e-8")), "BTC")


@pytest.mark.parametrize(
    "discount",
    [None, {}, {"enabledForAccount": False, "enabledForSymbol": True, "discount": "0.75"}],
)
def test_no_discount_is_taken_where_it_is_not_enabled(discount):
    assert spot_commission(changed(discount=discount)).discount == 0


def test_the_accounts_discount_goes_before_the_settings():
    told = spot_commission(changed(discount=EXAMPLE["discount"] | {"discount": "0.75000000"}))
    assert told.discount == D("0.25")
    standard = told.standard.rate(Liquidity.TAKER, Side.SELL)
    kept = told.rate(Liquidity.TAKER, Side.SELL, D("0.9")) - told.rate(
        Liquidity.TAKER, Side.SELL, D(0)
    )
    assert (standard, kept) == (D("0.0000006"), D(0))


def test_an_answer_without_a_special_part_has_none():
    answer = changed()
    del answer["specialCommission"]
    assert spot_commission(answer).special.rate(Liquidity.MAKER, Side.BUY) == 0


def test_usdm_tells_maker_and_taker_and_may_rebate():
    told = usdm_commission(
        {"symbol": "BTCUSDT", "makerCommissionRate": "-0.0001", "takerCommissionRate": "0.0004"}
    )
    assert told.rate(Liquidity.MAKER, Side.BUY, D("0.1")) == D("-0.0001"), "no discount on it"
    assert told.rate(Liquidity.TAKER, Side.BUY, D("0.1")) == D("0.00036")
    assert told.discount is None, "the schedule and the settings know it"


@pytest.mark.parametrize("wrong", [None, "x", "NaN", "1.5", "-1.5", 0.001])
def test_what_is_no_share_is_refused(wrong):
    broken = EXAMPLE["standardCommission"] | {"maker": wrong}
    with pytest.raises(DataError, match="the account's maker is"):
        spot_commission(changed(standardCommission=broken))
    with pytest.raises(DataError, match="the account's discount is"):
        spot_commission(changed(discount=EXAMPLE["discount"] | {"discount": wrong}))
    with pytest.raises(DataError, match="takerCommissionRate"):
        usdm_commission({"makerCommissionRate": "0.0001", "takerCommissionRate": wrong})


def test_a_missing_part_is_refused():
    with pytest.raises(DataError, match="has no taxCommission"):
        spot_commission(changed(taxCommission=None))
