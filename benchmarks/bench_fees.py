"""Fees: an estimate in < 50 ns, a routing decision in < 1 ms, cache hits above 90 %.

The estimate is a float for decisions before a trade; the exact fee is Decimal, for booking. The
hit rate is that of a day's estimates over 30 symbols in which the tier changes once an hour.
"""

import random
from decimal import Decimal

import ccxt

from benchmarks.harness import EMPTY_CALL, Result, floors, measure, of_rounds
from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.order import Liquidity, OrderType, Side
from bot4_runtime.fees.calculator import FeeCalculator
from bot4_runtime.fees.ccxt_tables import ccxt_schedules
from bot4_runtime.fees.optimizer import (
    OrderToRoute,
    VenueQuote,
    optimize_order_routing,
    suggest_order_type,
)
from bot4_runtime.fees.schedules import binance_schedule

TITLE = "Fees: Binance spot, VIP 0"
VENUES = ("kraken", "okx", "bybit", "kucoin", "gate", "bitfinex", "htx", "bitstamp", "mexc")
TAKER = Liquidity.TAKER
CCXT = "ccxt calculate_fee"
SALE = (Decimal("65123.45"), Decimal("0.01234"), TAKER, Side.SELL, "BTC", "USDT")


def run() -> list[Result]:
    fees = FeeCalculator(binance_schedule(Market.SPOT))
    discounted = FeeCalculator(binance_schedule(Market.SPOT), bnb_discount=True)
    order = OrderToRoute("BTCUSDT", 1000.0)
    venues = [VenueQuote(fees, 1e-4, 1e5, 0.5, 1e-4), *map(elsewhere, VENUES)]
    assert optimize_order_routing(order, venues).order_type in OrderType
    return [
        *floors(),
        measure(
            "float estimate", fees.estimate, 1000.0, TAKER, specified=50, goal=50,
            floor=EMPTY_CALL, peers=(CCXT,),
        ),
        measure(
            "cached rate", fees.rate, "binance", "BTCUSDT", TAKER, specified=50, floor=EMPTY_CALL
        ),
        measure("exact fee of a fill, Decimal", fees.exact, *SALE),
        measure("the same, in BNB", discounted.exact, *SALE, Decimal(600)),
        measure("suggest_order_type", suggest_order_type, order, venues[0]),
        measure(
            f"optimize_order_routing, {len(venues)} venues",
            optimize_order_routing, order, venues, specified=1e6, goal=1e5,
        ),
        hit_rate(),
        ccxts_own(),
    ]  # fmt: skip


def elsewhere(name: str) -> VenueQuote:
    schedules = ccxt_schedules(name, getattr(ccxt, name)().fees)
    chosen = schedules.get("spot") or schedules["trading"]
    return VenueQuote(FeeCalculator(chosen), 2e-4, 1e5, 0.5, 1e-4)


def hit_rate() -> Result:
    fees, rng = FeeCalculator(binance_schedule(Market.SPOT)), random.Random(7)
    symbols = [f"S{number}USDT" for number in range(30)]
    for hour in range(24):
        fees.set_tier(hour % 2)
        for _ in range(3_600):
            fees.rate("binance", rng.choice(symbols), rng.choice(list(Liquidity)))
    rate = fees.hit_rate
    assert rate is not None
    return of_rounds(
        "hit rate of the rate cache", [100 * rate], unit="%", specified=90, better="higher"
    )


def ccxts_own() -> Result:
    """Time ccxt's calculate_fee on the same trade."""
    exchange = ccxt.binance()
    exchange.markets = {
        "BTC/USDT": {
            "symbol": "BTC/USDT", "base": "BTC", "quote": "USDT", "settle": None, "spot": True,
            "taker": 0.001, "maker": 0.001, "feeSide": "get", "type": "spot", "contract": False,
            "inverse": None, "linear": None, "precision": {"amount": 1e-5, "price": 0.01},
        }
    }  # fmt: skip
    arguments = ("BTC/USDT", "market", "buy", 0.01234, 65123.45, "taker")
    return measure(CCXT, exchange.calculate_fee, *arguments, kind="peer")
