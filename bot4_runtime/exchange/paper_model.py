"""The paper venue's assumptions, apart from it so that settings and reports may name them."""

import math

import msgspec


class PaperModel(msgspec.Struct, frozen=True, kw_only=True):
    """How simulated fills behave; `bot4_runtime.exchange.paper` explains the model.

    Attributes:
        seed: of all draws, which are keyed by intent number and candle time besides.
        spread_bps: whole spread between bid and ask.
        impact_bps: cost of taking a whole candle's volume.
        volume_share: largest share of a candle's base volume one book may trade.
        touch_fill: probability that a touched, not crossed, limit fills.
        depth_share: depth within 10 bps as a share of the median quote volume of 24 candles.
    """

    seed: int = 7
    spread_bps: float = 2.0
    impact_bps: float = 10.0
    volume_share: float = 0.05
    touch_fill: float = 0.5
    depth_share: float = 0.01

    @property
    def slippage(self) -> float:
        """Expected slippage of one fill, as a share of price: 2 bps by default.

        Half the spread, and the impact of an order as large as the stated depth: risk lets
        none through that is larger. What evidence is net of and what an entry is judged by.
        """
        return (self.spread_bps / 2 + self.impact_bps * math.sqrt(self.depth_share)) / 10_000
