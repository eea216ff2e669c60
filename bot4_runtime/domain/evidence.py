"""What is known of a rule's past: the record a signal is judged by.

The pipeline writes one record a rule beside the models; the validator reads it. A number
that has no value is None, never 0. How the numbers are made: `bot4_runtime.regime.evidence`.
"""

import msgspec

from bot4_runtime.domain.candle import Origin
from bot4_runtime.domain.order import Side


class EvidenceRecord(msgspec.Struct, frozen=True, kw_only=True):
    """Net results of a rule's trades over a period no later candle touches.

    Returns are shares of the notional, net of fees and slippage. Sharpe ratios are annual,
    of the daily pooled equity times sqrt(365), flat days included, 4 % a year taken off.

    Attributes:
        rule_id: the rule, as in ``TradingSignal.rule_id``.
        synthetic: made from a drawn history, for exercisers; never of a market.
        symbols: what was pooled.
        side: of the entries; says nothing of the other side.
        period_from_ms: first candle of the history, UTC.
        period_to_ms: end of the history, exclusive, UTC; signals before it are refused.
        n_eff_weeks: calendar weeks with at least one entry: the effective sample size.
        mean_net: mean net return of a trade; so `std_net` (n - 1), `skewness_net` and
            `kurtosis_net` (normal = 3): the moments that live trades are added to.
        win_rate: share of trades with a net return above 0.
        avg_win: mean net return of winning trades, > 0.
        avg_loss: mean size of the losing trades' net return, >= 0.
        cost_round_trip: fees and slippage already inside the returns, as a share.
        p_value_raw: week-cluster bootstrap, H0: mean net return <= 0.
        p_value_bh: the same after Benjamini-Hochberg over the rules tried.
        p_newey_west: one-sided, of the daily pooled profit.
        p_spec_t: the specification's t test against break-even, two-sided, trades taken as
            independent; shown beside, never decided by.
        n_days: UTC days of the period, flat ones too.
        mean_daily: mean pooled profit of a day, as a share of capital; so `std_daily` (n - 1),
            `skewness_daily` and `kurtosis_daily`: the moments that live days are added to.
        sharpe_low: lower bound of the Sharpe ratio's 95 % bootstrap interval.
        sharpe_high: upper bound of it.
        psr: probabilistic Sharpe ratio against 0.
        dsr: deflated Sharpe ratio over the rules tried.
        holding_days: mean length of a trade, in days.
        rules_tried: how many rules were looked at.
        method: how `p_value_raw` was made, in words.
        seed: of the bootstrap.
        hmm_sha256: the promoted HMM beside which the record lies; empty when synthetic.
        lstm_sha256: the promoted LSTM; empty when synthetic.
    """

    rule_id: str
    origin: Origin
    synthetic: bool
    interval: str
    symbols: tuple[str, ...]
    side: Side = Side.BUY
    period_from_ms: int
    period_to_ms: int
    n_trades: int
    n_eff_weeks: int
    mean_net: float | None
    std_net: float | None
    skewness_net: float | None
    kurtosis_net: float | None
    win_rate: float | None
    avg_win: float | None
    avg_loss: float | None
    cost_round_trip: float
    p_value_raw: float | None
    p_value_bh: float | None
    p_newey_west: float | None
    p_spec_t: float | None
    n_days: int
    mean_daily: float | None
    std_daily: float | None
    skewness_daily: float | None
    kurtosis_daily: float | None
    sharpe: float | None
    sharpe_low: float | None
    sharpe_high: float | None
    psr: float | None
    dsr: float | None
    holding_days: float | None
    rules_tried: int
    method: str
    seed: int
    computed_ms: int
    expires_ms: int
    hmm_sha256: str
    lstm_sha256: str
