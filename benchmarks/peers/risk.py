"""NautilusTrader's pre-trade check of one order: what its risk engine does before it sends.

A cash account of one instrument with one quote, nothing open. It checks steps of price and
quantity, the largest notional and the free balance; no drawdown, leverage, correlation, stop or
liquidity. Tells a row to `benchmarks.harness.peers`, timed as ours are.
"""

from nautilus_trader.accounting.factory import AccountFactory
from nautilus_trader.cache.cache import Cache
from nautilus_trader.common.component import MessageBus, TestClock
from nautilus_trader.common.factories import OrderFactory
from nautilus_trader.core.uuid import UUID4
from nautilus_trader.model.currencies import USDT
from nautilus_trader.model.data import QuoteTick
from nautilus_trader.model.enums import AccountType, OrderSide
from nautilus_trader.model.events import AccountState
from nautilus_trader.model.identifiers import AccountId, StrategyId, TraderId
from nautilus_trader.model.objects import AccountBalance, Money, Price, Quantity
from nautilus_trader.portfolio.portfolio import Portfolio
from nautilus_trader.risk.config import RiskEngineConfig
from nautilus_trader.risk.engine import RiskEngine
from nautilus_trader.test_kit.providers import TestInstrumentProvider

from benchmarks.harness import measure, tell


def build():
    clock, trader = TestClock(), TraderId("BENCH-001")
    bus, cache = MessageBus(trader_id=trader, clock=clock), Cache()
    portfolio = Portfolio(msgbus=bus, cache=cache, clock=clock)
    instrument = TestInstrumentProvider.btcusdt_binance()
    cache.add_instrument(instrument)
    balance = Money(1_000_000, USDT)
    state = AccountState(
        account_id=AccountId("BINANCE-001"), account_type=AccountType.CASH, base_currency=None,
        reported=True, balances=[AccountBalance(balance, Money(0, USDT), balance)], margins=[],
        info={}, event_id=UUID4(), ts_event=0, ts_init=0,
    )  # fmt: skip
    cache.add_account(AccountFactory.create(state))
    portfolio.update_account(state)
    cache.add_quote_tick(
        QuoteTick(
            instrument.id, Price.from_str("50000.00"), Price.from_str("50000.01"),
            Quantity.from_str("1.000000"), Quantity.from_str("1.000000"), 0, 0,
        )
    )  # fmt: skip
    engine = RiskEngine(
        portfolio=portfolio, msgbus=bus, cache=cache, clock=clock,
        config=RiskEngineConfig(max_notional_per_order={instrument.id.value: 100_000}),
    )  # fmt: skip
    orders = OrderFactory(trader_id=trader, strategy_id=StrategyId("S-001"), clock=clock)

    def order(quantity):
        return orders.limit(
            instrument.id, OrderSide.BUY, Quantity.from_str(quantity), Price.from_str("50000.00")
        )

    return engine, instrument, order


def main():
    engine, instrument, make = build()
    good = make("0.010000")

    steps, risk = engine._check_order, engine._check_orders_risk  # noqa: SLF001 - its only door

    def check():
        return steps(instrument, good) and risk(instrument, [good])

    if not check():
        raise SystemExit("the order that should pass was denied")
    if risk(instrument, [make("9.000000")]):
        raise SystemExit("the order over the maximum notional passed")
    tell([measure("NautilusTrader pre-trade check, limit order", check, seconds=1.0)])


main()
