"""The seven biases, each a pure function of the signal and the recent history.

A detector returns what it saw and the threshold, or None. They look at how the desk behaves
(sizes, frequency, stops, prices it comes back to), never at whether the rule is any good:
that is the evidence's part. Times are nanoseconds UTC, money is in quote.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from bot4_runtime.domain.order import Side
from bot4_runtime.domain.position import ClosedTrade
from bot4_runtime.domain.regime import Regime
from bot4_runtime.domain.signal import TradingSignal
from bot4_runtime.signals.context import MarketContext, SignalHistory

HOUR_NS: Final = 3_600_000_000_000
DAY_NS: Final = 24 * HOUR_NS
RECENT_CANDLES: Final = 24
"""Candles over which `MarketContext.recent_return` is measured."""


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
    """See size or frequency rising after losses (Coval & Shumway 2005: afternoon risk).

    After `losing_streak` losses in a row, the last within a day: the median size of the
    entries since against the ones before (three of each at least), or four entries of the
    last day against the daily mean of the week before. A human who re-enters the symbol of
    a loss within the cool-down is refused at once.
    """
    streak = _streak(history.trades, wins=False)
    if streak and signal.override_reason:
        for trade in reversed(history.trades[-streak:]):
            hours = (context.now_ns - trade.closed_ts_ns) / HOUR_NS
            if trade.symbol == signal.symbol and not hours >= limits.cooldown_hours:
                return Bias(
                    "BIAS_REVENGE",
                    "ordered by hand back into the symbol of a loss",
                    "let the cool-down pass",
                    hours,
                    limits.cooldown_hours,
                )
    if streak < limits.losing_streak:
        return None
    if context.now_ns - history.trades[-1].closed_ts_ns > DAY_NS:
        return None
    ratio = _size_ratio(history, history.trades[-streak].closed_ts_ns)
    if ratio >= limits.size_ratio:
        return Bias(
            "BIAS_REVENGE",
            f"sizes rose after {streak} losses in a row",
            "trade the size planned before the losses",
            ratio,
            limits.size_ratio,
        )
    rate = _rate_ratio(history, context.now_ns)
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
    """See an entry that chases an outsized move (Barber & Odean 2008: attention buying).

    The move over 24 candles in the entry's direction, in volatilities. The bound is lower
    where the regime does not back the side, and for orders by hand.
    """
    volatility, recent = context.volatility, context.recent_return
    if volatility is None or recent is None:
        return None
    sign = 1.0 if signal.side is Side.BUY else -1.0
    sigmas = sign * math.log1p(recent) / (volatility * math.sqrt(RECENT_CANDLES))
    regime = context.regime
    backed = regime is None or sign * (int(regime) - int(Regime.NEUTRAL)) > 0.0
    bound = limits.chase_sigmas
    if signal.override_reason or not backed:
        bound = limits.chase_sigmas_against
    if sigmas > bound:
        return Bias(
            "BIAS_FOMO",
            "the entry chases a move that has happened",
            "wait for the next planned entry",
            sigmas,
            bound,
        )
    return None


def overtrading(
    signal: TradingSignal, history: SignalHistory, context: MarketContext, limits: BiasThresholds
) -> Bias | None:
    """See more entries a day than a plan makes (Barber & Odean 2000: trading is hazardous)."""
    of_symbol = total = 0
    for entry in history.entries:
        if context.now_ns - DAY_NS < entry.ts_ns <= context.now_ns:
            total += 1
            of_symbol += entry.symbol == signal.symbol
    if of_symbol >= limits.symbol_entries_per_day:
        value, bound, what = of_symbol, limits.symbol_entries_per_day, signal.symbol
    elif total >= limits.entries_per_day:
        value, bound, what = total, limits.entries_per_day, "all symbols"
    else:
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

    Source: the disposition effect (Shefrin & Statman 1985, Odean 1998). Every open position
    counts, since an entry elsewhere is how a loss is left unlooked at. A position without a
    mark or with numbers that are not finite counts as held beyond its stop.
    """
    for position in history.positions:
        mark = history.marks.get(position.symbol, math.nan)
        sign = 1.0 if position.quantity > 0 else -1.0
        entry, stop = float(position.entry_price), float(position.stop_price)
        room = sign * (mark - stop) / entry if entry > 0.0 else math.nan
        if not room > 0.0:
            return Bias(
                "BIAS_LOSS_AVERSION",
                f"{position.symbol} is held beyond its stop",
                "close the loser first",
                room,
                0.0,
            )
        width = sign * (entry - stop) / entry
        if width > limits.stop_share:
            return Bias(
                "BIAS_LOSS_AVERSION",
                f"the stop of {position.symbol} was widened",
                "put the stop back where it was planned",
                width,
                limits.stop_share,
            )
        loss = sign * (entry - mark) / entry
        same_way = (signal.side is Side.BUY) == (sign > 0.0)
        if position.symbol == signal.symbol and same_way and loss > 0.0:
            return Bias(
                "BIAS_LOSS_AVERSION",
                f"the entry adds to the losing position in {position.symbol}",
                "never average down",
                loss,
                0.0,
            )
    return None


def anchoring(
    signal: TradingSignal, history: SignalHistory, context: MarketContext, limits: BiasThresholds
) -> Bias | None:
    """See a price that is clung to (Tversky & Kahneman 1974).

    Either the limit price lies further from the market than a few days' volatility, or the
    symbol's last `anchor_losses` trades all lost from entries at about this very price.
    """
    volatility = context.volatility
    if volatility is None:
        return None
    if signal.limit_price is not None:
        day = volatility * math.sqrt(RECENT_CANDLES)
        sigmas = abs(math.log(signal.limit_price / signal.price)) / day
        if sigmas > limits.limit_sigmas:
            return Bias(
                "BIAS_ANCHORING",
                "the limit price belongs to a market that is gone",
                "set the limit from the present price",
                sigmas,
                limits.limit_sigmas,
            )
    losses = 0
    for trade in reversed(history.trades):
        if trade.symbol != signal.symbol or trade.side is not signal.side:
            continue
        distance = abs(math.log(float(trade.entry_price) / signal.price))
        if trade.pnl >= 0 or distance > limits.anchor_sigmas * volatility:
            return None
        losses += 1
        if losses >= limits.anchor_losses:
            return Bias(
                "BIAS_ANCHORING",
                f"the last {losses} trades of {signal.symbol} lost from this same price",
                "wait until the price has moved away",
                float(losses),
                float(limits.anchor_losses),
            )
    return None


def recency(
    signal: TradingSignal,
    history: SignalHistory,
    context: MarketContext,  # noqa: ARG001 - detectors share a signature
    limits: BiasThresholds,
) -> Bias | None:
    """See a short run of wins outweigh a losing record (Gilovich, Vallone & Tversky 1985).

    The rule's last `recent_trades` all won, and its `record_trades` or more before them lost
    on average.
    """
    wins, count, total = 0, 0, 0.0
    for trade in reversed(history.trades):
        if trade.rule_id != signal.rule_id:
            continue
        if wins < limits.recent_trades:
            if trade.pnl <= 0:
                return None
            wins += 1
        else:
            count += 1
            total += trade.return_net
    if wins < limits.recent_trades or count < limits.record_trades:
        return None
    mean = total / count
    if mean < 0.0:
        return Bias(
            "BIAS_RECENCY",
            f"{wins} wins in a row stand against {count} trades that lost on average",
            "judge the rule by its whole record",
            mean,
            0.0,
        )
    return None


def overconfidence(
    signal: TradingSignal,  # noqa: ARG001 - detectors share a signature
    history: SignalHistory,
    context: MarketContext,  # noqa: ARG001 - detectors share a signature
    limits: BiasThresholds,
) -> Bias | None:
    """See size rising after wins (Gervais & Odean 2001, Barber & Odean 2001).

    After `winning_streak` wins in a row: the median size of the entries since the first of
    them against the ones before, three of each at least.
    """
    streak = _streak(history.trades, wins=True)
    if streak < limits.winning_streak:
        return None
    ratio = _size_ratio(history, history.trades[-streak].closed_ts_ns)
    if ratio >= limits.size_ratio:
        return Bias(
            "BIAS_OVERCONFIDENCE",
            f"sizes rose after {streak} wins in a row",
            "trade the size planned before the wins",
            ratio,
            limits.size_ratio,
        )
    return None


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


def _streak(trades: Sequence[ClosedTrade], *, wins: bool) -> int:
    length = 0
    for trade in reversed(trades):
        if (trade.pnl > 0) is not wins:
            break
        length += 1
    return length


def _rate_ratio(history: SignalHistory, now_ns: int) -> float:
    """Return entries of the last day over the daily mean of the week before.

    1 with fewer than four entries in the day, or none in the week.
    """
    today, week, first_ns = 0, 0, now_ns
    for entry in history.entries:
        entry_ns = entry.ts_ns
        if now_ns - DAY_NS < entry_ns <= now_ns:
            today += 1
        elif now_ns - 8 * DAY_NS < entry_ns <= now_ns - DAY_NS:
            week += 1
            first_ns = min(first_ns, entry_ns)
    if today < 4 or week == 0:
        return 1.0
    days = max((now_ns - DAY_NS - first_ns) / DAY_NS, 1.0)
    return today / (week / days)


def _size_ratio(history: SignalHistory, since_ns: int) -> float:
    """Return median size since over median of the last 20 before; 1 with fewer than three."""
    before: list[float] = []
    after: list[float] = []
    for entry in history.entries:
        (after if entry.ts_ns >= since_ns else before).append(entry.notional)
    if len(before) < 3 or len(after) < 3:
        return 1.0
    usual = _median(before[-20:])
    return _median(after) / usual if usual > 0.0 else 1.0


def _median(values: list[float]) -> float:
    ordered = sorted(values)
    middle = len(ordered) // 2
    if len(ordered) % 2:
        return ordered[middle]
    return 0.5 * (ordered[middle - 1] + ordered[middle])
