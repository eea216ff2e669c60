"""EMA 10/20 cross in backtesting.py; bars per CPU-second.

Arguments: .npy of float64[n, 6], the name of the row.
"""

import sys
import time
import warnings

import numpy as np
import pandas as pd
from backtesting import Backtest, Strategy
from backtesting.lib import crossover

from benchmarks.harness import of_rounds, tell

warnings.simplefilter("ignore")
ROUNDS = 2


def ema(values, span):
    return pd.Series(values).ewm(span=span, adjust=False).mean()


class EmaCross(Strategy):
    def init(self):
        self.fast = self.I(ema, self.data.Close, 10)
        self.slow = self.I(ema, self.data.Close, 20)

    def next(self):
        if crossover(self.fast, self.slow):
            self.buy(size=0.02)
        elif crossover(self.slow, self.fast):
            self.position.close()


bars = np.load(sys.argv[1])
frame = pd.DataFrame(
    bars[:, 1:], columns=["Open", "High", "Low", "Close", "Volume"],
    index=pd.to_datetime(bars[:, 0], unit="ms"),
)  # fmt: skip
rates, trades = [], 0
for _ in range(ROUNDS):
    start = time.process_time()
    found = Backtest(frame, EmaCross, cash=1e8, commission=0.001, finalize_trades=True).run()
    rates.append(len(bars) / (time.process_time() - start))
    trades = int(found["# Trades"])
note = f"{len(bars):,} bars, {trades:,} round trips, floats, no journal, no risk"
tell([of_rounds(sys.argv[2], rates, unit="bars/CPU-s", better="higher", note=note)])
