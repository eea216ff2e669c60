"""A rule's evidence record, and what its trades have brought since.

The record is the pipeline's and never changes. Live trades of the rule, opened after the
record's period, move the win rate and averages (and so the expected value) and the daily
profit (and so the Sharpe ratio). They never move the p-value: that takes a bootstrap, which the
pipeline makes anew. Trades under a synthetic record count for nothing.
"""

import math
from collections.abc import Iterable
from typing import Final

from bot4_runtime.domain.errors import UndefinedStatistic
from bot4_runtime.domain.evidence import EvidenceRecord
from bot4_runtime.domain.position import ClosedTrade
from bot4_runtime.signals.history import DAY_NS
from bot4_runtime.signals.moments import RunningMoments, moments_of, repeated
from bot4_runtime.signals.statistics import RISK_FREE, probabilistic_sharpe

NS_PER_MS: Final = 1_000_000
NEVER: Final = 1 << 60
"""A day that does not come."""
YEAR_DAYS: Final = 365.0
YEAR_ROOT: Final = math.sqrt(YEAR_DAYS)


class LiveEvidence:
    """The record of a rule and running moments that go on from it; NaN where it has no value.

    A trade's profit falls on the UTC day it closed, as a share of capital: its net return over
    the number of symbols the record pools, as in the record itself. Live days, flat ones too,
    count from the one on which the rule was first followed (`begin`), or on which a live trade
    opened where that is earlier. `observe` is given trades in the order they closed; one that is
    told late falls on the latest day.

    Args:
        record: as the pipeline wrote it.
        trades: closed since, oldest first; others are passed over.

    Attributes:
        trades: moments of the net returns of all trades, the record's and the live ones.
    """

    def __init__(self, record: EvidenceRecord, trades: Iterable[ClosedTrade] = ()) -> None:
        self.record = record
        self.rule_id: str = record.rule_id
        self.period_to_ms: int = record.period_to_ms
        self.expires_ms: int = record.expires_ms
        self.symbols: frozenset[str] = frozenset(record.symbols)
        self.n_trades: int = record.n_trades
        self.n_weeks: int = record.n_eff_weeks
        self.rules_tried: int = record.rules_tried
        self.p_value: float = _known(record.p_value_bh)
        self.p_value_raw: float = _known(record.p_value_raw)
        self.p_newey_west: float = _known(record.p_newey_west)
        self.p_specification_t: float = _known(record.p_spec_t)
        self.sharpe_low: float = _known(record.sharpe_low)
        self.sharpe_high: float = _known(record.sharpe_high)
        self.deflated_sharpe: float = _known(record.dsr)
        self.cost_round_trip: float = record.cost_round_trip
        self.holding_days: float = _known(record.holding_days)
        self.trades = moments_of(
            record.n_trades,
            _known(record.mean_net),
            _known(record.std_net),
            _known(record.skewness_net),
            _known(record.kurtosis_net),
        )
        rate = _known(record.win_rate)
        self.wins: float = record.n_trades * rate
        self.losses: float = record.n_trades - record.n_trades * rate
        self.won: float = self.wins * _known(record.avg_win)
        self.lost: float = self.losses * _known(record.avg_loss)
        self.live_trades: int = 0
        self._record_sharpe: float = _known(record.sharpe)
        self._record_psr: float = _known(record.psr)
        self._days = moments_of(
            record.n_days,
            _known(record.mean_daily),
            _known(record.std_daily),
            _known(record.skewness_daily),
            _known(record.kurtosis_daily),
        )
        self._share: float = 1.0 / max(len(record.symbols), 1)
        self._traded_days = RunningMoments()
        self._first_day: int = NEVER
        self._day: int = 0
        self._day_profit: float = 0.0
        for trade in trades:
            self.observe(trade)

    def begin(self, since_ns: int) -> None:
        """Count the days since the rule is followed, after the record's own last day."""
        if not self.record.synthetic:
            after_period = -(-self.period_to_ms * NS_PER_MS // DAY_NS)
            self._first_day = min(self._first_day, max(since_ns // DAY_NS, after_period))

    def counts(self, trade: ClosedTrade) -> bool:
        """Tell whether a trade is the rule's own and from after the record's period."""
        return (
            trade.rule_id == self.rule_id
            and not self.record.synthetic
            and trade.opened_ts_ns >= self.period_to_ms * NS_PER_MS
        )

    def observe(self, trade: ClosedTrade) -> None:
        """Take in a closed trade, if it counts."""
        if not self.counts(trade):
            return
        value = trade.return_net
        self.trades.add(value)
        if value > 0.0:
            self.wins += 1.0
            self.won += value
        else:
            self.losses += 1.0
            self.lost -= value
        self._first_day = min(self._first_day, trade.opened_ts_ns // DAY_NS)
        day = trade.closed_ts_ns // DAY_NS
        if not self.live_trades:
            self._day = day
        elif day > self._day:
            self._traded_days.add(self._day_profit)
            self._day = day
            self._day_profit = 0.0
        self._day_profit += value * self._share
        self.live_trades += 1

    def live_days(self, now_ns: int) -> int:
        """Count the UTC days since the rule is followed live, today too."""
        return max(max(now_ns // DAY_NS, self._day) - self._first_day + 1, 0)

    def days(self, now_ns: int) -> RunningMoments:
        """Return the moments of daily profit: the record's days and the live ones."""
        every = self._days.copy()
        flat = self.live_days(now_ns)
        if self.live_trades:
            every.merge(self._traded_days)
            every.add(self._day_profit)
            flat -= self._traded_days.n + 1
        every.merge(repeated(0.0, flat))
        return every

    def sharpes(self, now_ns: int) -> tuple[float, float]:
        """Return the annual and the probabilistic Sharpe ratio of daily profit.

        The annual one has 4 % a year taken off; the other is P(true Sharpe > 0). What the
        record does not know, live days do not supply.
        """
        annual, above_zero = self._record_sharpe, self._record_psr
        if self.live_days(now_ns) and not math.isnan(annual):
            days = self.days(now_ns)
            annual = (days.mean * YEAR_DAYS - RISK_FREE) / (days.std() * YEAR_ROOT)
            try:
                above_zero = probabilistic_sharpe(
                    annual / YEAR_ROOT, days.n, days.skewness(), days.kurtosis()
                )
            except UndefinedStatistic:
                above_zero = math.nan
        return annual, above_zero

    def win_rate(self) -> float:
        """Return the share of winning trades, NaN when unknown."""
        n = self.wins + self.losses
        return self.wins / n if n > 0.0 else math.nan

    def average_win(self) -> float:
        """Return the winners' mean net return, NaN without one."""
        return self.won / self.wins if self.wins > 0.0 else math.nan

    def average_loss(self) -> float:
        """Return the losers' mean size, NaN without one."""
        return self.lost / self.losses if self.losses > 0.0 else math.nan


def _known(value: float | None) -> float:
    return math.nan if value is None else value
