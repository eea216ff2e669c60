"""The emotion-free validator: five questions in one order, each rejection with its numbers.

Bias, significance, expected value, Sharpe, confidence (specification 3.5.2.1, as amended by
the design). All numbers are taken first, so that a verdict also tells those of the questions
after the one that rejected; then they are asked in order. It decides by the evidence record
and what live trades added to it; a number that is missing or not finite rejects. Nothing is
approved by default, and an entry ordered by hand is asked the same.
"""

import math
from dataclasses import dataclass
from typing import Final

from bot4_runtime.domain.errors import ConfigError
from bot4_runtime.domain.signal import TradingSignal
from bot4_runtime.signals.bias import BiasThresholds, detect
from bot4_runtime.signals.context import MarketContext, TradeCosts
from bot4_runtime.signals.evidence import NS_PER_MS, LiveEvidence
from bot4_runtime.signals.history import SignalHistory
from bot4_runtime.signals.statistics import RISK_FREE
from bot4_runtime.signals.verdict import Approved, Figures, Rejected

__all__ = [
    "Approved",
    "LiveEvidence",
    "MarketContext",
    "Rejected",
    "SignalHistory",
    "SignalValidator",
    "TradeCosts",
    "ValidatorSettings",
]

MS_PER_DAY: Final = 86_400_000.0
KELLY_SHARE: Final = 0.25


@dataclass(frozen=True)
class ValidatorSettings:
    """The bounds. They can be tightened, never loosened beyond the specification.

    Attributes:
        max_p_value: p must lie below it.
        min_trades: least trades.
        min_weeks: least effective sample, in calendar weeks.
        min_sharpe: the Sharpe ratio must exceed it.
        min_confidence: the calibrated posterior must exceed it.
        max_size: cap of the size, as a share of capital.
        thresholds: of the bias detectors.
    """

    max_p_value: float = 0.05
    min_trades: int = 30
    min_weeks: int = 30
    min_sharpe: float = 2.0
    min_confidence: float = 0.75
    max_size: float = 0.10
    thresholds: BiasThresholds = BiasThresholds()  # noqa: RUF009 - frozen

    def __post_init__(self) -> None:
        """Refuse bounds looser than the specification's.

        Raises:
            ConfigError: one is, or is not a number.
        """
        _bound("max_p_value", self.max_p_value, 0.0, 0.05)
        _bound("min_trades", self.min_trades, 30.0, 1e9)
        _bound("min_weeks", self.min_weeks, 30.0, 1e9)
        _bound("min_sharpe", self.min_sharpe, 2.0, 1e9)
        _bound("min_confidence", self.min_confidence, 0.75, 1.0)
        _bound("max_size", self.max_size, 0.0, 0.10)


def _bound(name: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        raise ConfigError(
            f"validator setting {name} is {value}; expected {least:g} to {most:g}: "
            "bounds can be tightened, not loosened"
        )


class SignalValidator:
    """Judges entry signals; it keeps nothing between two of them.

    Args:
        settings: the bounds.
    """

    def __init__(self, settings: ValidatorSettings) -> None:
        self.settings = settings

    def validate(
        self,
        signal: TradingSignal,
        evidence: LiveEvidence | None,
        history: SignalHistory,
        context: MarketContext,
        costs: TradeCosts,
    ) -> Approved | Rejected:
        """Return the verdict on an entry signal.

        Args:
            signal: the proposal.
            evidence: of its rule; None when there is none.
            history: what the book did lately.
            context: the market it was made in.
            costs: of a round trip now.
        """
        settings = self.settings
        figures = Figures()
        figures.max_p_value = settings.max_p_value
        figures.min_trades = settings.min_trades
        figures.min_weeks = settings.min_weeks
        figures.min_sharpe = settings.min_sharpe
        figures.min_confidence = settings.min_confidence
        figures.confidence = signal.confidence
        figures.history_trades = len(history.trades)
        figures.history_entries = history.entries_total()
        missing = _read_market(signal, context, costs, figures)
        known = evidence is not None and evidence.rule_id == signal.rule_id
        if evidence is not None and known:
            _read_evidence(evidence, context.now_ns, figures)
            _weigh(evidence, costs, settings.max_size, figures)
        if missing:
            return Rejected(
                "NOT_FINITE", figures, missing, "wait until enough candles have been seen"
            )
        bias = detect(signal, history, context, settings.thresholds)
        if bias is not None:
            figures.bias_value = bias.value
            figures.bias_threshold = bias.threshold
            return Rejected(bias.code, figures, bias.text, bias.suggestion)
        if evidence is None or not known:
            return Rejected(
                "NO_EVIDENCE",
                figures,
                f"there is no evidence record of rule {signal.rule_id}",
                "let the pipeline write its evidence: bot4-pipelines run",
            )
        foreign = _foreign(signal, evidence, context)
        if foreign:
            return Rejected(
                "NO_EVIDENCE",
                figures,
                f"the evidence of {evidence.rule_id} is of {foreign}",
                "trade what the evidence is of, or let the pipeline gather it: bot4-pipelines run",
            )
        return self._judge(evidence, context.now_ns // NS_PER_MS, figures)

    def _judge(  # noqa: C901, PLR0911 - one return a question
        self, evidence: LiveEvidence, now_ms: int, figures: Figures
    ) -> Approved | Rejected:
        settings = self.settings
        if evidence.period_to_ms > now_ms:
            return Rejected(
                "NO_EVIDENCE",
                figures,
                f"the evidence of {evidence.rule_id} holds candles from after the signal",
                "replay candles that come after the evidence's period",
            )
        if not now_ms < evidence.expires_ms:
            return Rejected(
                "NO_EVIDENCE",
                figures,
                f"the evidence of {evidence.rule_id} expired "
                f"{-figures.evidence_days_left:.1f} days ago",
                "let the pipeline renew it: bot4-pipelines run",
            )
        if evidence.n_trades < settings.min_trades or evidence.n_weeks < settings.min_weeks:
            return Rejected("TOO_FEW", figures, "")
        if not 0.0 <= figures.p_value <= 1.0:
            return _unknown("the p-value", figures)
        if not figures.p_value < settings.max_p_value:
            return Rejected("NOT_SIGNIFICANT", figures, "")
        if not 0.0 <= figures.holding_days < math.inf:
            return _unknown("the holding time", figures)
        if not -math.inf < figures.expected_value < math.inf:
            return _unknown("the payoff", figures)
        if not figures.expected_value > 0.0:
            return Rejected("EXPECTED_VALUE", figures, "")
        if not -math.inf < figures.sharpe < math.inf:
            return _unknown("the Sharpe ratio", figures)
        if not figures.sharpe > settings.min_sharpe:
            return Rejected("SHARPE", figures, "")
        if not figures.confidence > settings.min_confidence:
            return Rejected("CONFIDENCE", figures, "")
        if not 0.0 < figures.size_fraction <= settings.max_size:
            return _unknown("the size", figures)
        return Approved(figures)


def _foreign(signal: TradingSignal, evidence: LiveEvidence, context: MarketContext) -> str:
    """Say what else than this signal the evidence is of; an empty string where it is of it.

    A synthetic record is of nothing, and says so.
    """
    record = evidence.record
    if record.synthetic:
        return ""
    if context.origin is None or record.origin != context.origin:
        traded = "unknown" if context.origin is None else context.origin.value
        return f"a {record.origin.value} market, and the one traded is {traded}"
    if record.side != signal.side:
        return f"{record.side.value} entries, not {signal.side.value}"
    if signal.symbol not in evidence.symbols and not context.admitted:
        pooled = ", ".join(record.symbols) or "no symbol"
        return f"{pooled}, not {signal.symbol}, and the models are not proven on unseen symbols"
    return ""


def _read_market(  # noqa: PLR0911 - one return an input
    signal: TradingSignal, context: MarketContext, costs: TradeCosts, figures: Figures
) -> str:
    """Read what is known of now; return the first that cannot be judged, or an empty string."""
    volatility, recent = context.volatility, context.recent_return
    figures.regime = context.regime
    if volatility is not None:
        figures.volatility = volatility
    if recent is not None:
        figures.recent_return = recent
    if not 0.0 <= figures.confidence <= 1.0:
        return "the confidence"
    price = signal.price
    if not 0.0 < price < math.inf:
        return "the price"
    stop_distance = signal.stop_distance
    if not 0.0 < stop_distance < 1.0:
        return "the stop distance"
    limit_price = signal.limit_price
    if limit_price is not None and not 0.0 < limit_price < math.inf:
        return "the limit price"
    if not 0.0 < figures.volatility < math.inf:
        return "the volatility"
    if not -1.0 < figures.recent_return < math.inf:
        return "the recent return"
    rates = costs.fee_rate_round_trip + costs.slippage_round_trip + costs.funding_per_day
    if not -math.inf < rates < math.inf:
        return "a cost"
    return ""


def _read_evidence(evidence: LiveEvidence, now_ns: int, figures: Figures) -> None:
    """Read the record, and what live trades made of it."""
    sharpe, above_zero = evidence.sharpes(now_ns)
    trades = evidence.trades
    figures.n_trades = float(evidence.n_trades)
    figures.n_weeks = float(evidence.n_weeks)
    figures.rules_tried = evidence.rules_tried
    figures.evidence_days_left = (evidence.expires_ms - now_ns // NS_PER_MS) / MS_PER_DAY
    figures.p_value = evidence.p_value
    figures.p_value_raw = evidence.p_value_raw
    figures.p_newey_west = evidence.p_newey_west
    figures.p_specification_t = evidence.p_specification_t
    figures.mean_net = trades.mean
    figures.std_net = trades.std()
    figures.skewness_net = trades.skewness()
    figures.kurtosis_net = trades.kurtosis()
    figures.live_trades = float(evidence.live_trades)
    figures.live_days = float(evidence.live_days(now_ns))
    figures.win_rate = evidence.win_rate()
    figures.average_win = evidence.average_win()
    figures.average_loss = evidence.average_loss()
    figures.sharpe = sharpe
    figures.sharpe_low = evidence.sharpe_low
    figures.sharpe_high = evidence.sharpe_high
    figures.probabilistic_sharpe = above_zero
    figures.deflated_sharpe = evidence.deflated_sharpe


def _weigh(evidence: LiveEvidence, costs: TradeCosts, max_size: float, figures: Figures) -> None:
    """Take the expected value and the size; a number without value stays NaN.

    The same formulas as `statistics.expected_value` and `quarter_kelly`. The record's returns
    are net of the costs of its time: only the difference to those of now counts. Costs that fell
    by more than the average loss leave nothing at risk on average: Kelly's f = p - q / b has a
    value there too, and the cap holds.
    """
    days = evidence.holding_days if costs.holding_days is None else costs.holding_days
    extra = (
        costs.fee_rate_round_trip
        + costs.slippage_round_trip
        - evidence.cost_round_trip
        + costs.funding_per_day * days
    )
    bound = RISK_FREE * days / 365.0
    rate, win, loss = figures.win_rate, figures.average_win, figures.average_loss
    figures.holding_days = days
    figures.extra_costs = extra
    figures.opportunity_cost = bound
    if not (0.0 <= rate <= 1.0 and win > 0.0 and loss > 0.0):
        return
    figures.expected_value = rate * win - (1.0 - rate) * loss - extra - bound
    gain, risk = win - extra - bound, loss + extra + bound
    if gain > 0.0:
        kelly = rate - (1.0 - rate) * risk / gain
        figures.size_fraction = min(max(KELLY_SHARE * kelly, 0.0), max_size)


def _unknown(what: str, figures: Figures) -> Rejected:
    return Rejected("NOT_FINITE", figures, f"{what} of the evidence", "gather a longer history")
