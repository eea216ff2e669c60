"""EMA 10/20 cross, long only, for freqtrade, which loads strategies from files."""

from freqtrade.strategy import IStrategy


class EmaCross(IStrategy):
    INTERFACE_VERSION = 3
    timeframe = "1m"
    minimal_roi = {}  # noqa: RUF012  freqtrade's own way
    stoploss = -0.99
    process_only_new_candles = True
    startup_candle_count = 0

    def populate_indicators(self, dataframe, metadata):
        dataframe["fast"] = dataframe["close"].ewm(span=10, adjust=False).mean()
        dataframe["slow"] = dataframe["close"].ewm(span=20, adjust=False).mean()
        dataframe["above"] = dataframe["fast"] > dataframe["slow"]
        return dataframe

    def populate_entry_trend(self, dataframe, metadata):
        before = dataframe["above"].shift(1, fill_value=True)
        dataframe.loc[dataframe["above"] & ~before, "enter_long"] = 1
        return dataframe

    def populate_exit_trend(self, dataframe, metadata):
        before = dataframe["above"].shift(1, fill_value=False)
        dataframe.loc[~dataframe["above"] & before, "exit_long"] = 1
        return dataframe
