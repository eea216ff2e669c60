"""EMA 10/20 cross in NautilusTrader; bars per CPU-second.

Arguments: .npy of float64[n, 6], the name of the row.
"""

import sys
import time
from decimal import Decimal

import numpy as np
import pandas as pd
from nautilus_trader.backtest.engine import BacktestEngine, BacktestEngineConfig
from nautilus_trader.config import LoggingConfig, RiskEngineConfig
from nautilus_trader.examples.strategies.ema_cross_long_only import (
    EMACrossLongOnly,
    EMACrossLongOnlyConfig,
)
from nautilus_trader.model.currencies import USDT
from nautilus_trader.model.data import BarType
from nautilus_trader.model.enums import AccountType, OmsType
from nautilus_trader.model.identifiers import Venue
from nautilus_trader.model.objects import Money
from nautilus_trader.persistence.wranglers import BarDataWrangler
from nautilus_trader.test_kit.providers import TestInstrumentProvider

from benchmarks.harness import of_rounds, tell

bars = np.load(sys.argv[1])
instrument = TestInstrumentProvider.btcusdt_binance()
bar_type = BarType.from_str(f"{instrument.id}-1-MINUTE-LAST-EXTERNAL")
frame = pd.DataFrame(
    bars[:, 1:], columns=["open", "high", "low", "close", "volume"],
    index=pd.to_datetime(bars[:, 0], unit="ms", utc=True),
)  # fmt: skip
data = BarDataWrangler(bar_type, instrument).process(frame)
engine = BacktestEngine(
    BacktestEngineConfig(
        logging=LoggingConfig(bypass_logging=True), risk_engine=RiskEngineConfig(bypass=False)
    )
)
engine.add_venue(
    Venue("BINANCE"), oms_type=OmsType.NETTING, account_type=AccountType.CASH,
    base_currency=None, starting_balances=[Money(10_000_000, USDT)],
)  # fmt: skip
engine.add_instrument(instrument)
engine.add_data(data)
engine.add_strategy(
    EMACrossLongOnly(
        EMACrossLongOnlyConfig(
            instrument_id=instrument.id, bar_type=bar_type, trade_size=Decimal("0.01"),
            fast_ema_period=10, slow_ema_period=20, request_historical_bars=False,
        )
    )
)  # fmt: skip
start = time.process_time()
engine.run()
rate = len(bars) / (time.process_time() - start)
trips = len(engine.cache.positions_closed()) + len(engine.cache.position_snapshots())
engine.dispose()
note = f"{len(bars):,} bars, {trips:,} round trips, its risk engine on, no journal"
tell([of_rounds(sys.argv[2], [rate], unit="bars/CPU-s", better="higher", note=note)])
