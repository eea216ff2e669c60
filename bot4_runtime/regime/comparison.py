"""What is kept of a comparison between a challenger and the champion it would replace."""

import msgspec


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Two pairs, scored on the same candles; accuracy is agreement with the same labels.

    Attributes:
        champion_hmm: sha256 of the champion's HMM.
        champion_lstm: of its LSTM; empty without one.
        symbols: whose candles.
        from_ms: open time of the first candle that was scored, UTC.
        to_ms: from where on none was.
        rows: symbol-candles scored.
        challenger: accuracy, the unweighted mean over symbols.
        champion: the same of the champion.
        difference: challenger - champion.
        low: lower bound of the 95 % interval of the difference.
        high: upper bound.
        named_alike: share of the rows that both named the same.
    """

    champion_hmm: str
    champion_lstm: str
    symbols: tuple[str, ...]
    from_ms: int
    to_ms: int
    rows: int
    challenger: float
    champion: float
    difference: float
    low: float
    high: float
    named_alike: float

    def __str__(self) -> str:
        return (
            f"challenger {self.challenger:.4f}, champion {self.champion:.4f}, difference "
            f"{self.difference:+.4f} [{self.low:+.4f}, {self.high:+.4f}] on {self.rows} candles "
            f"of {len(self.symbols)} symbols"
        )
