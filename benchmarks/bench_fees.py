"""Fees: an estimate in < 50 ns, a routing decision in < 1 ms, cache hits above 90 %."""

from decimal import Decimal

from benchmarks.harness import Result, floors, measure
from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.order import Liquidity, Side
from bot4_runtime.fees.calculator import FeeCalculator
from bot4_runtime.fees.optimizer import OrderToRoute, VenueQuote, optimize_order_routing
from bot4_runtime.fees.schedules import binance_schedule

TITLE = "Fees: Binance spot, VIP 0"


def run() -> list[Result]:
    fees = FeeCalculator(binance_schedule(Market.SPOT))
    usdm = FeeCalculator(binance_schedule(Market.USDM))
    taker = Liquidity.TAKER
    price, quantity = Decimal("65123.45"), Decimal("0.01234")
    order = OrderToRoute("BTCUSDT", 1000.0)
    venues = [VenueQuote(each, 1e-4, 1e5, 0.5, 1e-4) for each in (fees, usdm)]
    results = floors()
    results += [
        measure("float estimate", fees.estimate, 1000.0, taker, specified=50),
        measure("cached rate", fees.rate, "binance", "BTCUSDT", taker, specified=50),
        measure(
            "exact fee of a fill, Decimal",
            fees.exact, price, quantity, taker, Side.BUY, "BTC", "USDT",
        ),
        measure(
            "optimize_order_routing, 2 venues",
            optimize_order_routing, order, venues, specified=1_000_000,
        ),
    ]  # fmt: skip
    print(f"fee rate cache: {fees.hit_rate:.4%} hits (target > 90 %)")
    return results + peers()


def peers() -> list[Result]:
    """ccxt's calculate_fee, where it is installed."""
    try:
        import ccxt
    except ImportError:
        return []
    exchange = ccxt.binance()
    exchange.markets = {
        "BTC/USDT": {
            "symbol": "BTC/USDT", "base": "BTC", "quote": "USDT", "settle": None, "spot": True,
            "taker": 0.001, "maker": 0.001, "feeSide": "get", "type": "spot", "contract": False,
            "inverse": None, "linear": None, "precision": {"amount": 1e-5, "price": 0.01},
        }
    }  # fmt: skip
    arguments = ("BTC/USDT", "market", "buy", 0.01234, 65123.45, "taker")
    return [measure("ccxt calculate_fee", exchange.calculate_fee, *arguments, kind="peer")]
