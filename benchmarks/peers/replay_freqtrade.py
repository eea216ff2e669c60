"""EMA 10/20 cross in freqtrade's backtesting; bars per CPU-second.

Arguments: .npy of float64[n, 6], the name of the row. Its backtesting asks the exchange for its
markets; here an exchange is handed in that knows the one market, so that nothing is asked.
"""

import logging
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pandas as pd
from freqtrade.enums import CandleType, RunMode
from freqtrade.exchange import Exchange
from freqtrade.optimize.backtesting import Backtesting

from benchmarks.harness import of_rounds, tell

STRATEGIES = Path(__file__).parent / "freqtrade_strategies"
PAIR = "BTC/USDT"
MARKET = {
    "id": "BTCUSDT", "symbol": PAIR, "base": "BTC", "quote": "USDT", "settle": None,
    "active": True, "type": "spot", "spot": True, "margin": False, "swap": False, "future": False,
    "contract": False, "linear": None, "inverse": None, "contractSize": None,
    "taker": 0.001, "maker": 0.001, "precision": {"amount": 1e-5, "price": 0.01},
    "limits": {
        "amount": {"min": 1e-5, "max": 9000}, "cost": {"min": 5, "max": 9e6},
        "price": {"min": 0.01, "max": 1e6}, "leverage": {"min": None, "max": None},
    },
    "info": {},
}  # fmt: skip


def backtesting(folder):
    config = {
        "runmode": RunMode.BACKTEST, "dry_run": True, "dry_run_wallet": 1e7,
        "stake_currency": "USDT", "stake_amount": 1000, "max_open_trades": 1,
        "trading_mode": "spot", "candle_type_def": CandleType.SPOT, "timeframe": "1m",
        "fee": 0.001, "pairlists": [{"method": "StaticPairList"}],
        "exchange": {"name": "binance", "pair_whitelist": [PAIR], "pair_blacklist": []},
        "entry_pricing": {"price_side": "same"}, "exit_pricing": {"price_side": "same"},
        "strategy": "EmaCross", "strategy_path": str(STRATEGIES),
        "user_data_dir": folder, "datadir": folder, "exportdirectory": folder,
    }  # fmt: skip
    config["original_config"] = dict(config)
    exchange = Exchange(config, validate=False)
    exchange._api.set_markets([MARKET])  # noqa: SLF001 - its only door without a network
    exchange._api_async.set_markets([MARKET])  # noqa: SLF001
    exchange._markets = exchange._api.markets  # noqa: SLF001
    return Backtesting(config, exchange)


def main():
    logging.disable(logging.CRITICAL)
    bars = np.load(sys.argv[1])
    frame = pd.DataFrame(bars[:, 1:], columns=["open", "high", "low", "close", "volume"])
    frame.insert(0, "date", pd.to_datetime(bars[:, 0], unit="ms", utc=True))
    with tempfile.TemporaryDirectory() as name:
        engine = backtesting(Path(name))
        strategy = engine.strategylist[0]
        engine._set_strategy(strategy)  # noqa: SLF001 - as its `backtest_one_strategy` does
        start = time.process_time()
        processed = strategy.advise_all_indicators({PAIR: frame})
        found = engine.backtest(processed, frame["date"].iloc[0], frame["date"].iloc[-1])
        rate = len(bars) / (time.process_time() - start)
    note = f"{len(bars):,} bars, {len(found['results']):,} round trips, no journal"
    tell([of_rounds(sys.argv[2], [rate], unit="bars/CPU-s", better="higher", note=note)])


main()
