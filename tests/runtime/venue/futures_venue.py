"""A small USD-M venue for tests: BTCUSDT at 40,000, ETHUSDT at 2,000, customers with 10,000 each."""

from decimal import Decimal

from bot4_runtime.clock import LiveClock, ManualClock
from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.instrument import Instrument
from bot4_runtime.domain.order import Side
from bot4_runtime.venue.book import Depth
from bot4_runtime.venue.contract import Contract
from bot4_runtime.venue.futures_account import PositionSide
from bot4_runtime.venue.futures_loopback import FuturesLoopback
from bot4_runtime.venue.futures_orders import FuturesRequest
from bot4_runtime.venue.journal import no_sink

PRICES = {"BTCUSDT": 40_000.0, "ETHUSDT": 2_000.0}
NOW_NS = 1_800_000_000_000 * 1_000_000
INSURANCE = Decimal(1_000_000)
CASH = Decimal(10_000)


def dec(value) -> Decimal:
    return Decimal(str(value))


def venue(*, live=False, prints=(), depth=None, customers=2, insurance=INSURANCE, sink=no_sink):
    made = FuturesLoopback(
        LiveClock() if live else ManualClock(NOW_NS),
        [
            (Contract.of(Instrument.assume(symbol, Market.USDM, price)), dec(price))
            for symbol, price in PRICES.items()
        ],
        prints=prints,
        depth=depth or Depth(),
        insurance=[("USDT", insurance)],
        sink=sink,
    )
    for uid in range(1, customers + 1):
        made.open_account(uid, f"key{uid}", f"secret{uid}", [("USDT", CASH)])
    return made


def request(quantity, price=None, symbol="BTCUSDT", side="BOTH", **rest) -> FuturesRequest:
    """Ask for a signed quantity: negative sells."""
    amount = dec(quantity)
    return FuturesRequest(
        symbol=symbol,
        side=Side.BUY if amount > 0 else Side.SELL,
        quantity=abs(amount),
        price=None if price is None else dec(price),
        position_side=PositionSide(side),
        **rest,
    )


def held_in_all(made: FuturesLoopback) -> Decimal:
    """Return what all accounts, fees, insurance and the others hold together, at the marks."""
    exchange = made.exchange
    total = exchange.fees.get("USDT", Decimal(0)) + exchange.insurance["USDT"]
    total += exchange.others.cash.get("USDT", Decimal(0))
    for symbol, quantity in exchange.others.held.items():
        total += quantity * exchange.market(symbol).mark
    for account in exchange.accounts:
        total += account.wallet("USDT")
        total += sum(exchange.margins.unrealised(position) for position in account.positions())
    return total
