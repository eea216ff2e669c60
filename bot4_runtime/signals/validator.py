"""The emotion-free validator: five questions in one order, each rejection with its numbers.

Bias, significance, expected value, Sharpe, confidence (specification 3.5.2.1, as amended by
the design). It decides by the evidence record alone; a number that is missing or not finite
rejects. Nothing is approved by default.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bot4_runtime.domain.errors import ConfigError
from bot4_runtime.domain.evidence import EvidenceRecord
from bot4_runtime.domain.position import ClosedTrade
from bot4_runtime.domain.signal import TradingSignal
from bot4_runtime.signals.bias import BiasThresholds, detect
from bot4_runtime.signals.context import MarketContext, SignalHistory, TradeCosts
from bot4_runtime.signals.statistics import expected_value, quarter_kelly
from bot4_runtime.signals.verdict import Approved, Rejected

__all__ = [
    "Approved",
    "MarketContext",
    "Rejected",
    "SignalHistory",
    "SignalValidator",
    "TradeCosts",
    "ValidatorSettings",
]

NS_PER_MS: Final = 1_000_000


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


class Payoff:
    """Running win rate and averages: the record's, and the trades closed since.

    Args:
        evidence: where they start; a record without payoff starts, and stays, NaN.
    """

    def __init__(self, evidence: EvidenceRecord) -> None:
        n = float(evidence.n_trades)
        rate = math.nan if evidence.win_rate is None else evidence.win_rate
        self.wins: float = n * rate
        self.losses: float = n - n * rate
        self.won: float = self.wins * (math.nan if evidence.avg_win is None else evidence.avg_win)
        self.lost: float = self.losses * (
            math.nan if evidence.avg_loss is None else evidence.avg_loss
        )

    def add_since(self, since_ns: int, rule_id: str, trades: Sequence[ClosedTrade]) -> None:
        """Take in a rule's trades opened since, of trades with the newest last."""
        for trade in reversed(trades):
            if trade.closed_ts_ns <= since_ns:
                break
            if trade.rule_id != rule_id or trade.opened_ts_ns < since_ns:
                continue
            if trade.return_net > 0.0:
                self.wins += 1.0
                self.won += trade.return_net
            else:
                self.losses += 1.0
                self.lost -= trade.return_net

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


class SignalValidator:
    """Judges entry signals.

    Args:
        settings: the bounds.
    """

    def __init__(self, settings: ValidatorSettings) -> None:
        self.settings = settings

    def validate(
        self,
        signal: TradingSignal,
        evidence: EvidenceRecord | None,
        history: SignalHistory,
        context: MarketContext,
        costs: TradeCosts,
    ) -> Approved | Rejected:
        """Return the verdict on an entry signal.

        Args:
            signal: the proposal.
            evidence: the record of its rule; None when there is none.
            history: what the book did lately.
            context: the market it was made in.
            costs: of a round trip now.
        """
        numbers: dict[str, float | None] = {
            "confidence": signal.confidence,
            "volatility": context.volatility,
            "recent_return": context.recent_return,
            "regime": None if context.regime is None else float(context.regime),
        }
        missing = _not_usable(signal, context, costs)
        if missing:
            return _reject(
                "NOT_FINITE",
                numbers,
                f"{missing} is missing, not finite or out of range",
                "wait until enough candles have been seen",
            )
        bias = detect(signal, history, context, self.settings.thresholds)
        if bias is not None:
            numbers["bias_value"] = bias.value
            numbers["bias_threshold"] = bias.threshold
            return _reject(bias.code, numbers, bias.text, bias.suggestion)
        if evidence is None or evidence.rule_id != signal.rule_id:
            return _reject(
                "NO_EVIDENCE",
                numbers,
                f"there is no evidence record of rule {signal.rule_id}",
                "let the pipeline write its evidence: bot4-pipelines run",
            )
        _show(numbers, evidence)
        return self._significance(signal, evidence, context, numbers) or self._worth(
            signal, evidence, history, costs, numbers
        )

    def _significance(
        self,
        signal: TradingSignal,
        evidence: EvidenceRecord,
        context: MarketContext,
        numbers: dict[str, float | None],
    ) -> Rejected | None:
        settings = self.settings
        now_ms = context.now_ns // NS_PER_MS
        if evidence.period_to_ms > now_ms:
            return _reject(
                "NO_EVIDENCE",
                numbers,
                f"the evidence of {signal.rule_id} holds candles from after the signal",
                "replay candles that come after the evidence's period",
            )
        if not now_ms < evidence.expires_ms:
            days = (now_ms - evidence.expires_ms) / 86_400_000
            return _reject(
                "EVIDENCE_EXPIRED",
                numbers,
                f"the evidence of {signal.rule_id} expired {days:.1f} days ago",
                "let the pipeline renew it: bot4-pipelines run",
            )
        trades, weeks = evidence.n_trades, evidence.n_eff_weeks
        if not (trades >= settings.min_trades and weeks >= settings.min_weeks):
            return _reject(
                "TOO_FEW",
                numbers,
                f"{trades} trades in {weeks} weeks; {settings.min_trades} trades in "
                f"{settings.min_weeks} weeks are needed",
                "gather a longer history or more symbols",
            )
        p_value = evidence.p_value_bh
        if p_value is None or not 0.0 <= p_value <= 1.0:
            return _unknown("the p-value", numbers)
        if not p_value < settings.max_p_value:
            return _reject(
                "NOT_SIGNIFICANT",
                numbers,
                f"p {p_value:.4f} over {evidence.rules_tried} rules tried; "
                f"below {settings.max_p_value} is needed",
                "the past does not tell this rule from chance: do not trade it",
            )
        return None

    def _worth(  # noqa: PLR0911 - one return a question
        self,
        signal: TradingSignal,
        evidence: EvidenceRecord,
        history: SignalHistory,
        costs: TradeCosts,
        numbers: dict[str, float | None],
    ) -> Approved | Rejected:
        settings = self.settings
        payoff = Payoff(evidence)
        if not evidence.synthetic:
            payoff.add_since(evidence.period_to_ms * NS_PER_MS, evidence.rule_id, history.trades)
        rate, win, loss = payoff.win_rate(), payoff.average_win(), payoff.average_loss()
        days = evidence.holding_days if costs.holding_days is None else costs.holding_days
        if days is None or not days >= 0.0:
            return _unknown("the holding time", numbers)
        # The record's returns are net of the costs of its time: only the difference counts.
        extra = (
            costs.fee_rate_round_trip
            + costs.slippage_round_trip
            - evidence.cost_round_trip
            + costs.funding_per_day * days
        )
        bound = 0.04 * days / 365.0
        numbers["extra_costs"] = extra
        numbers["win_rate"] = rate
        usable = 0.0 <= rate <= 1.0 and win > 0.0 and loss > 0.0
        if not (usable and math.isfinite(win + loss + extra + bound)):
            return _unknown("the payoff", numbers)
        value = expected_value(rate, win, loss, extra, days)
        numbers["expected_value"] = value
        if not value > 0.0:
            return _reject(
                "EXPECTED_VALUE",
                numbers,
                f"expected value {value * 1e4:+.1f} bps after all costs; above 0 is needed",
                "trade less often or cheaper",
            )
        sharpe = evidence.sharpe
        if sharpe is None or not math.isfinite(sharpe):
            return _unknown("the Sharpe ratio", numbers)
        if not sharpe > settings.min_sharpe:
            return _reject(
                "SHARPE",
                numbers,
                f"Sharpe {sharpe:.2f} a year; above {settings.min_sharpe:g} is needed",
                "the reward is too small for the risk: do not trade it",
            )
        if not signal.confidence > settings.min_confidence:
            return _reject(
                "CONFIDENCE",
                numbers,
                f"confidence {signal.confidence:.3f}; above {settings.min_confidence:g} is needed",
                "wait until the regime is clearer",
            )
        if not loss + extra + bound > 0.0:
            return _unknown("the size", numbers)
        size = quarter_kelly(
            rate, win - extra - bound, loss + extra + bound, cap=settings.max_size
        )
        numbers["size_fraction"] = size
        p_value = evidence.p_value_bh
        if p_value is None or not size > 0.0:
            return _unknown("the size", numbers)
        return Approved(_finite(numbers), value, sharpe, p_value, size)


def _not_usable(  # noqa: PLR0911 - one return an input
    signal: TradingSignal, context: MarketContext, costs: TradeCosts
) -> str:
    """Return the name of the first input that cannot be judged, or an empty string."""
    if not 0.0 <= signal.confidence <= 1.0:
        return "the confidence"
    if not 0.0 < signal.price < math.inf:
        return "the price"
    if not 0.0 < signal.stop_distance < 1.0:
        return "the stop distance"
    if signal.limit_price is not None and not 0.0 < signal.limit_price < math.inf:
        return "the limit price"
    volatility, recent = context.volatility, context.recent_return
    if volatility is None or not 0.0 < volatility < math.inf:
        return "the volatility"
    if recent is None or not -1.0 < recent < math.inf:
        return "the recent return"
    rates = costs.fee_rate_round_trip + costs.slippage_round_trip + costs.funding_per_day
    if not math.isfinite(rates):
        return "a cost"
    return ""


def _show(numbers: dict[str, float | None], evidence: EvidenceRecord) -> None:
    numbers["n_trades"] = float(evidence.n_trades)
    numbers["n_eff_weeks"] = float(evidence.n_eff_weeks)
    numbers["p_value"] = evidence.p_value_bh
    numbers["p_value_raw"] = evidence.p_value_raw
    numbers["p_newey_west"] = evidence.p_newey_west
    numbers["p_specification_t"] = evidence.p_spec_t
    numbers["mean_net"] = evidence.mean_net
    numbers["win_rate"] = evidence.win_rate
    numbers["sharpe"] = evidence.sharpe
    numbers["sharpe_low"] = evidence.sharpe_low
    numbers["sharpe_high"] = evidence.sharpe_high
    numbers["probabilistic_sharpe"] = evidence.psr
    numbers["deflated_sharpe"] = evidence.dsr
    numbers["expected_value"] = None
    numbers["size_fraction"] = None


def _unknown(what: str, numbers: dict[str, float | None]) -> Rejected:
    return _reject(
        "NOT_FINITE",
        numbers,
        f"{what} of the evidence is missing, not finite or out of range",
        "gather a longer history",
    )


def _reject(code: str, numbers: dict[str, float | None], text: str, suggestion: str) -> Rejected:
    return Rejected(code, _finite(numbers), text, suggestion)


def _finite(numbers: dict[str, float | None]) -> dict[str, float | None]:
    """Return the numbers with those that have no value as None."""
    return {
        name: value if value is not None and math.isfinite(value) else None
        for name, value in numbers.items()
    }
