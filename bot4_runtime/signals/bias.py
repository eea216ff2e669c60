"""The seven biases, each a pure function of the signal and the recent history.

A detector returns what it saw and the threshold, or None. They look at how the desk behaves
(sizes, frequency, stops, prices it comes back to), never at whether the rule is any good:
that is the evidence's part. Times are nanoseconds UTC, money is in quote. The sources say that
the behaviour exists and costs money; where it begins is a choice, and `BiasThresholds` makes it.
"""

import math
from dataclasses import dataclass, fields
from typing import Final

from bot4_runtime.domain.errors import ConfigError
from bot4_runtime.domain.order import Side
from bot4_runtime.domain.regime import Regime
from bot4_runtime.domain.signal import TradingSignal
from bot4_runtime.signals.context import MarketContext
from bot4_runtime.signals.history import DAY_NS, HOUR_NS, SignalHistory

RECENT_CANDLES: Final = 24
"""Candles over which `MarketContext.recent_return` is measured."""
DAY_ROOT: Final = math.sqrt(RECENT_CANDLES)
"""From one candle's volatility to that of `RECENT_CANDLES`."""


@dataclass(frozen=True)
class BiasThresholds:
    """Where behaviour counts as biased.

    Attributes:
        size_ratio: median size now over median size before, for revenge and overconfidence.
        rate_ratio: entries of the last day over the daily mean of the week before.
        losing_streak: losses in a row within a day that make revenge possible.
        winning_streak: wins in a row that make overconfidence possible.
        cooldown_hours: after a loss, during which a human may not re-enter the symbol.
        chase_sigmas: move over 24 candles, in volatilities, beyond which an entry chases it.
        chase_sigmas_against: the same where the regime does not back the entry's side, or a
            human orders it.
        symbol_entries_per_day: of one symbol.
        entries_per_day: of all symbols.
        stop_share: widest distance of a stop from its entry, as a share of price.
        anchor_sigmas: width of "the same price again", in one candle's volatility.
        anchor_losses: losses there in a row that make it an anchor.
        limit_sigmas: distance of a limit price from the market, in a day's volatility.
        recent_trades: length of the run that recency leans on.
        record_trades: trades that make a record.
    """

    size_ratio: float = 2.0
    rate_ratio: float = 3.0
    losing_streak: int = 2
    winning_streak: int = 3
    cooldown_hours: float = 1.0
    chase_sigmas: float = 3.0
    chase_sigmas_against: float = 2.0
    symbol_entries_per_day: int = 24
    entries_per_day: int = 240
    stop_share: float = 0.20
    anchor_sigmas: float = 0.5
    anchor_losses: int = 3
    limit_sigmas: float = 4.0
    recent_trades: int = 5
    record_trades: int = 20

    def __post_init__(self) -> None:
        """Refuse what no behaviour could ever reach.

        Raises:
            ConfigError: a threshold is not a positive, finite number.
        """
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0.0 < value < math.inf:
                raise ConfigError(
                    f"bias threshold {field.name} is {value}; expected a positive, finite number"
                )


class Bias:
    """What a detector saw.

    Args:
        code: ``BIAS_...``.
        text: what was seen, in words.
        suggestion: what to do about it.
        value: the number that was compared.
        threshold: what it was compared with.
    """

    def __init__(
        self, code: str, text: str, suggestion: str, value: float, threshold: float
    ) -> None:
        self.code = code
        self.text = text
        self.suggestion = suggestion
        self.value = value
        self.threshold = threshold


def revenge(
    signal: TradingSignal, history: SignalHistory, context: MarketContext, limits: BiasThresholds
) -> Bias | None:
    """See size or frequency rising after losses.

    Source: Coval & Shumway 2005, "Do behavioral biases affect prices?": traders who lost in the
    morning take more risk in the afternoon; the house-money and break-even effects are Thaler &
    Johnson 1990. Thresholds: after `losing_streak` losses in a row, the last within a day, the
    median size of the entries since is `size_ratio` times the usual (three of each at least), or
    the last day had four entries or more and `rate_ratio` times the daily mean of the week
    before. A human who orders an entry into the symbol of a loss of the present streak within
    `cooldown_hours` is refused at once.
    """
    streak = history.losses()
    if not streak:
        return None
    now_ns = context.now_ns
    if signal.override_reason:
        for trade in history.trades[-streak:]:
            hours = (now_ns - trade.closed_ts_ns) / HOUR_NS
            if hours < limits.cooldown_hours and trade.symbol == signal.symbol:
                return Bias(
                    "BIAS_REVENGE",
                    "ordered by hand back into the symbol of a loss",
                    "let the cool-down pass",
                    hours,
                    limits.cooldown_hours,
                )
    if streak < limits.losing_streak or now_ns - history.last_closed_ns() > DAY_NS:
        return None
    ratio = history.size_ratio()
    if ratio >= limits.size_ratio:
        return Bias(
            "BIAS_REVENGE",
            f"sizes rose after {streak} losses in a row",
            "trade the size planned before the losses",
            ratio,
            limits.size_ratio,
        )
    rate = history.rate_ratio(now_ns)
    if rate >= limits.rate_ratio:
        return Bias(
            "BIAS_REVENGE",
            f"entries became more frequent after {streak} losses in a row",
            "return to the usual frequency",
            rate,
            limits.rate_ratio,
        )
    return None


def fomo(
    signal: TradingSignal,
    history: SignalHistory,  # noqa: ARG001 - detectors share a signature
    context: MarketContext,
    limits: BiasThresholds,
) -> Bias | None:
    """See an entry that chases an outsized move: the fear of missing out.

    Source: Barber & Odean 2008, "All that glitters": individuals buy what caught their attention
    by an extreme return of the day. Threshold: the move over 24 candles in the entry's
    direction, in the volatility of 24 candles, exceeds `chase_sigmas`; `chase_sigmas_against`
    where the regime does not back the side, or a human ordered it.
    """
    volatility, recent = context.volatility, context.recent_return
    if volatility is None or recent is None:
        return None
    sign = 1.0 if signal.side is Side.BUY else -1.0
    sigmas = sign * math.log1p(recent) / (volatility * DAY_ROOT)
    if sigmas <= limits.chase_sigmas_against and sigmas <= limits.chase_sigmas:
        return None
    regime = context.regime
    backed = regime is None or sign * (int(regime) - int(Regime.NEUTRAL)) > 0.0
    bound = limits.chase_sigmas
    if signal.override_reason or not backed:
        bound = limits.chase_sigmas_against
    if sigmas <= bound:
        return None
    return Bias(
        "BIAS_FOMO",
        "the entry chases a move that has happened",
        "wait for the next planned entry",
        sigmas,
        bound,
    )


def overtrading(
    signal: TradingSignal, history: SignalHistory, context: MarketContext, limits: BiasThresholds
) -> Bias | None:
    """See more entries a day than a plan makes.

    Source: Barber & Odean 2000, "Trading is hazardous to your wealth": those who traded most
    earned 7 % a year less than the market. Thresholds: `symbol_entries_per_day` of the symbol
    or `entries_per_day` of all within the last 24 hours.
    """
    now_ns = context.now_ns
    symbol = signal.symbol
    value = history.symbol_entries_between(symbol, now_ns - DAY_NS, now_ns)
    bound, what = limits.symbol_entries_per_day, symbol
    if value < bound:
        value = history.entries_between(now_ns - DAY_NS, now_ns)
        bound, what = limits.entries_per_day, "all symbols"
    if value < bound:
        return None
    return Bias(
        "BIAS_OVERTRADING",
        f"{value} entries of {what} within a day",
        "wait until fewer entries lie within the last 24 hours",
        float(value),
        float(bound),
    )


def loss_aversion(
    signal: TradingSignal,
    history: SignalHistory,
    context: MarketContext,  # noqa: ARG001 - detectors share a signature
    limits: BiasThresholds,
) -> Bias | None:
    """See losers held beyond their stop, stops widened, losers added to.

    Source: the disposition effect (Shefrin & Statman 1985; Odean 1998, "Are investors reluctant
    to realize their losses?"), from prospect theory (Kahneman & Tversky 1979). Thresholds: any
    open position at or beyond its stop, or with a stop wider than `stop_share` of its entry
    price; any loss in the symbol that the entry would add to. Every position counts, since an
    entry elsewhere is how a loss is left unlooked at. A position without a mark, or with
    numbers that are not finite, counts as held beyond its stop.
    """
    for held in history.held:
        mark = history.marks.get(held.symbol, math.nan)
        room = held.sign * (mark - held.stop) / held.entry if held.entry > 0.0 else math.nan
        if not 0.0 < room < math.inf:
            return Bias(
                "BIAS_LOSS_AVERSION",
                f"{held.symbol} is held beyond its stop",
                "close the loser first",
                room,
                0.0,
            )
        width = held.sign * (held.entry - held.stop) / held.entry
        if not width <= limits.stop_share:
            return Bias(
                "BIAS_LOSS_AVERSION",
                f"the stop of {held.symbol} was widened",
                "put the stop back where it was planned",
                width,
                limits.stop_share,
            )
        loss = held.sign * (held.entry - mark) / held.entry
        if loss > 0.0 and held.symbol == signal.symbol:
            same_way = (signal.side is Side.BUY) == (held.sign > 0.0)
            if same_way:
                return Bias(
                    "BIAS_LOSS_AVERSION",
                    f"the entry adds to the losing position in {held.symbol}",
                    "never average down",
                    loss,
                    0.0,
                )
    return None


def anchoring(
    signal: TradingSignal, history: SignalHistory, context: MarketContext, limits: BiasThresholds
) -> Bias | None:
    """See a price that is clung to.

    Source: Tversky & Kahneman 1974, "Judgment under uncertainty"; for prices of the past as
    anchors of traders, George & Hwang 2004. Thresholds: the limit price lies further than
    `limit_sigmas` of a day's volatility from the market, or the symbol's last `anchor_losses`
    trades on this side all lost from entries within `anchor_sigmas` of one candle's volatility
    of this very price.
    """
    volatility = context.volatility
    if volatility is None:
        return None
    price = signal.price
    limit = signal.limit_price
    if limit is not None:
        sigmas = abs(math.log(limit / price)) / (volatility * DAY_ROOT)
        if not sigmas <= limits.limit_sigmas:
            return Bias(
                "BIAS_ANCHORING",
                "the limit price belongs to a market that is gone",
                "set the limit from the present price",
                sigmas,
                limits.limit_sigmas,
            )
    trades = history.of(signal.symbol, signal.side)
    losses = limits.anchor_losses
    if len(trades) < losses:
        return None
    for i in range(1, losses + 1):
        trade = trades[-i]
        if (
            not trade.lost
            or abs(math.log(trade.entry_price / price)) > limits.anchor_sigmas * volatility
        ):
            return None
    return Bias(
        "BIAS_ANCHORING",
        f"the last {losses} trades of {signal.symbol} lost from this same price",
        "wait until the price has moved away",
        float(losses),
        float(losses),
    )


def recency(
    signal: TradingSignal,
    history: SignalHistory,
    context: MarketContext,  # noqa: ARG001 - detectors share a signature
    limits: BiasThresholds,
) -> Bias | None:
    """See a short run of wins outweigh a losing record.

    Source: Gilovich, Vallone & Tversky 1985, "The hot hand in basketball"; for returns,
    Greenwood & Shleifer 2014, "Expectations of returns". Thresholds: the rule's last
    `recent_trades` all won, and its `record_trades` or more before them lost on average.
    """
    past = history.rule(signal.rule_id)
    if past is None:
        return None
    wins, count = limits.recent_trades, len(past.returns)
    if count - wins < limits.record_trades:
        return None
    for i in range(1, wins + 1):
        if past.returns[-i] <= 0.0:
            return None
    mean = past.mean_before(wins)
    if mean >= 0.0:
        return None
    return Bias(
        "BIAS_RECENCY",
        f"{wins} wins in a row stand against {count - wins} trades that lost on average",
        "judge the rule by its whole record",
        mean,
        0.0,
    )


def overconfidence(
    signal: TradingSignal,  # noqa: ARG001 - detectors share a signature
    history: SignalHistory,
    context: MarketContext,  # noqa: ARG001 - detectors share a signature
    limits: BiasThresholds,
) -> Bias | None:
    """See size rising after wins.

    Source: Gervais & Odean 2001, "Learning to be overconfident"; Barber & Odean 2001, "Boys will
    be boys". Threshold: after `winning_streak` wins in a row, the median size of the entries
    since the first of them is `size_ratio` times the usual, three of each at least.
    """
    streak = history.wins()
    if streak < limits.winning_streak:
        return None
    ratio = history.size_ratio()
    if ratio < limits.size_ratio:
        return None
    return Bias(
        "BIAS_OVERCONFIDENCE",
        f"sizes rose after {streak} wins in a row",
        "trade the size planned before the wins",
        ratio,
        limits.size_ratio,
    )


def detect(
    signal: TradingSignal, history: SignalHistory, context: MarketContext, limits: BiasThresholds
) -> Bias | None:
    """Return the first bias seen, in the order of this module, or None."""
    return (
        revenge(signal, history, context, limits)
        or fomo(signal, history, context, limits)
        or overtrading(signal, history, context, limits)
        or loss_aversion(signal, history, context, limits)
        or anchoring(signal, history, context, limits)
        or recency(signal, history, context, limits)
        or overconfidence(signal, history, context, limits)
    )
