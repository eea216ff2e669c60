"""A run's numbers as plain data: the same inputs give the same bytes.

Times of the run, paths, host and run id are not here; they are in ``run.json`` beside it.
A number that does not exist is null, never 0.
"""

import contextlib
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, Final

import numpy as np

from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.errors import UndefinedStatistic
from bot4_runtime.domain.order import Book, Liquidity
from bot4_runtime.domain.regime import REGIME_LABELS
from bot4_runtime.domain.signal import SignalAction
from bot4_runtime.exchange.paper_model import PaperModel
from bot4_runtime.report.record import BookRecord, RunRecord
from bot4_runtime.signals.statistics import (
    deflated_sharpe,
    probabilistic_sharpe,
    sample_moments,
    sharpe,
)
from bot4_runtime.strategy.protocol import synthetic_rules

DAY_MS: Final = 86_400_000
DAYS_A_YEAR: Final = 365
SHARPE_WORDS: Final = (
    "Sharpe ratios are of daily equity from the initial cash on, flat days and days without "
    "candles too, less 4 % a year, times sqrt 365. The probabilistic one is the probability that "
    "the true ratio is above 0; the deflated one, above the best that chance alone would give "
    "the rules tried, whose ratios then vary by 1 / (days - 1) (Bailey & Lopez de Prado 2014)."
)


def summarise(
    record: RunRecord, *, models: Mapping[str, Any] | None, paper: PaperModel
) -> dict[str, Any]:
    """Return the summary of a run.

    Args:
        record: what its journal says.
        models: what the manifests of the models say about them; None when none ran.
        paper: the venue's assumptions, restated in words.
    """
    session = record.sessions[0]
    entries = [d for d in record.decisions if d.signal.action is SignalAction.ENTER]
    rejected = Counter(d.code for d in entries if not d.approved)
    synthetic = sorted(
        {d.signal.rule_id for d in record.decisions} & {*synthetic_rules(session.strategy)}
    )
    return {
        "format": 1,
        "mode": session.mode,
        "source": session.source.partition(":")[0],
        "origin": session.origin.value,
        "strategy": session.strategy,
        "candles": record.candles,
        "symbols": sorted(record.closes),
        "from_ms": record.times_ms[0] if record.times_ms else None,
        "to_ms": record.times_ms[-1] if record.times_ms else None,
        "gaps": len(record.gaps),
        "models": models,
        "regimes": {
            label: record.regime_counts.get(index, 0) for index, label in enumerate(REGIME_LABELS)
        },
        "estimates_by": dict(sorted(record.estimate_sources.items())),
        "signals": {
            "entries": len(entries),
            "approved": len(entries) - rejected.total(),
            "rejected": dict(sorted(rejected.items())),
        },
        "books": {book.value: _book(record, book, kept) for book, kept in record.books.items()},
        "rules_tried": rules_tried(record),
        "buy_and_hold": buy_and_hold(record),
        "state_hash": record.state.state_hash(),
        "synthetic_rules": synthetic,
        "assumptions": [
            *assumptions(paper, synthetic),
            *_funding(record),
            SHARPE_WORDS,
        ],
    }


def rules_tried(record: RunRecord) -> int:
    """Return how many rules were tried before the run's: by its decisions' evidence, else 1."""
    tried = (decided.numbers.get("rules_tried") or 1.0 for decided in record.decisions)
    return int(max(tried, default=1.0))


def buy_and_hold(record: RunRecord) -> dict[str, Any]:
    """Equal weights bought at each symbol's first close, held to its last, no fees."""
    returns = {
        symbol: closes[-1][1] / closes[0][1] - 1.0
        for symbol, closes in sorted(record.closes.items())
    }
    mean = math.fsum(returns.values()) / len(returns) if returns else None
    return {
        "return": mean,
        "pnl_quote": mean * float(record.sessions[0].initial_cash) if mean is not None else None,
        "by_symbol": returns,
    }


def held(record: RunRecord, share: float) -> list[float]:
    """Equity of holding `share` of the capital in equal weights, at each of the run's times."""
    if not record.sessions:
        return []
    capital = float(record.sessions[0].initial_cash)
    waiting = {symbol: list(reversed(closes)) for symbol, closes in record.closes.items()}
    growth = dict.fromkeys(waiting, 1.0)
    equity = []
    for time_ms in record.times_ms:
        for symbol, closes in waiting.items():
            while closes and closes[-1][0] <= time_ms:
                growth[symbol] = closes.pop()[1] / record.closes[symbol][0][1]
        mean = math.fsum(growth.values()) / len(growth)
        equity.append(capital * (1.0 + share * (mean - 1.0)))
    return equity


def daily_equity(times_ms: Sequence[int], equity: Sequence[float]) -> list[float]:
    """Last equity of each UTC day, first to last; a day without candles keeps the one before."""
    by_day: dict[int, float] = {}
    for time_ms, value in zip(times_ms, equity, strict=True):
        by_day[(time_ms - 1) // DAY_MS] = value
    values: list[float] = []
    for day in range(min(by_day, default=0), max(by_day, default=-1) + 1):
        values.append(by_day.get(day, values[-1] if values else math.nan))
    return values


def drawdowns(equity: Sequence[float]) -> list[float]:
    """1 - equity / running peak, at each point."""
    peak, series = -math.inf, []
    for value in equity:
        peak = max(peak, value)
        series.append(1.0 - value / peak)
    return series


def assumptions(paper: PaperModel, synthetic: Sequence[str] = ()) -> list[str]:
    """What the simulated venue assumes, in words; and that the evidence of rules is drawn."""
    return [
        *(
            f"The evidence of the rule {rule} is SYNTHETIC, drawn with a true Sharpe ratio of 3: "
            "that its signals pass the validator says nothing about them."
            for rule in synthetic
        ),
        "An order decided at a candle's close can trade from the next candle's open on.",
        f"Takers pay half of a {paper.spread_bps:g} bps spread, drawn between half and one and a "
        f"half times, plus {paper.impact_bps:g} bps x sqrt(order / candle volume).",
        f"A book trades at most {paper.volume_share:.0%} of a candle's volume; the rest waits.",
        f"A resting limit fills when traded through; touched only, with probability "
        f"{paper.touch_fill:g}.",
        "A stop fills at its price, or at the open beyond it, as a taker.",
        "A stop is placed when its entry has filled and protects from the next candle on.",
        f"Depth within 10 bps is {paper.depth_share:.1%} of 24 candles' median quote volume.",
        "Trading rules (tick, step, least notional) are derived from prices, not from the venue.",
        "Fees are Binance's published VIP schedule of the day, in the asset that is received or, "
        "with the discount, in BNB.",
    ]


def _funding(record: RunRecord) -> list[str]:
    if all(one.market is Market.SPOT for one in record.state.instruments.values()):
        return []
    if record.sessions[0].mode in {"testnet", "live"}:
        return ["Funding is expected when an entry is judged, and booked as the venue paid it."]
    return ["Funding is expected when an entry is judged; the paper venue books none."]


def _book(record: RunRecord, book: Book, kept: BookRecord) -> dict[str, Any]:
    state = record.state.books[book]
    initial = record.sessions[0].initial_cash
    equity = state.metrics.equity
    daily = [float(initial), *daily_equity(record.times_ms, kept.equity)]
    falls = drawdowns(kept.equity)
    wins = sum(1 for trade in kept.trades if trade.pnl > 0)
    return {
        "orders": len(kept.intents),
        "orders_filled": len({fill.intent_no for fill in kept.fills}),
        "fills": len(kept.fills),
        "fills_by_liquidity": {
            side.value: sum(1 for fill in kept.fills if fill.liquidity is side)
            for side in Liquidity
        },
        "trades": len(kept.trades),
        "wins": wins,
        "win_rate": wins / len(kept.trades) if kept.trades else None,
        "exits": dict(sorted(Counter(trade.exit_reason for trade in kept.trades).items())),
        "risk": dict(sorted(Counter(codes[-1] for codes in kept.verdicts.values()).items())),
        "made_smaller": sum(
            1 for codes in kept.verdicts.values() if len(codes) > 1 and codes[-1] == "APPROVED"
        ),
        "rejected": dict(sorted(kept.rejections.items())),
        "breaker_trips": dict(sorted(Counter(t.state.reason for t in kept.trips).items())),
        "initial_quote": _text(initial),
        "equity_quote": _text(equity),
        "pnl_quote": _text(equity - initial),
        "return": float(equity / initial) - 1.0,
        "realised_quote": _text(state.realised),
        "fees_quote": _text(state.fees_quote),
        "funding_quote": _text(state.funding_quote),
        "unvalued_fees": {asset: _text(fee) for asset, fee in sorted(state.unvalued_fees.items())},
        "max_drawdown": max(falls) if falls else None,
        **_sharpes(daily, rules_tried(record)),
        "open_positions": sorted(state.positions),
        "by_regime": _by_regime(record, kept),
        "by_symbol": _by_symbol(kept),
    }


def _sharpes(daily: Sequence[float], rules: int) -> dict[str, float | None]:
    """Return the Sharpe ratios of a row of equity; see `SHARPE_WORDS`."""
    values = np.asarray(daily)
    returns = values[1:] / values[:-1] - 1.0
    annual = above_zero = deflated = None
    with contextlib.suppress(UndefinedStatistic):
        annual = sharpe(returns, DAYS_A_YEAR)
        _, _, skewness, kurtosis = sample_moments(returns)
        shape = (annual / math.sqrt(DAYS_A_YEAR), len(returns), skewness, kurtosis)
        above_zero = probabilistic_sharpe(*shape)
        deflated = deflated_sharpe(*shape, trials=rules, variance=1.0 / (len(returns) - 1))
    return {
        "sharpe_daily_365": annual,
        "probabilistic_sharpe": above_zero,
        "deflated_sharpe": deflated,
    }


def _by_regime(record: RunRecord, kept: BookRecord) -> dict[str, dict[str, Any]]:
    """Round trips by the regime their entry signal named."""
    named = {
        d.signal.signal_id: d.signal.regime.label if d.signal.regime is not None else "none"
        for d in record.decisions
    }
    totals: dict[str, dict[str, Any]] = {}
    for trade in kept.trades:
        row = totals.setdefault(
            named.get(trade.signal_id, "none"), {"trades": 0, "pnl": Decimal(0)}
        )
        row["trades"] += 1
        row["pnl"] += trade.pnl
    return {
        label: {"trades": row["trades"], "pnl_quote": _text(row["pnl"])}
        for label, row in sorted(totals.items())
    }


def _by_symbol(kept: BookRecord) -> dict[str, dict[str, Any]]:
    totals: dict[str, dict[str, Any]] = {}
    for trade in kept.trades:
        zero = {"trades": 0, "pnl": Decimal(0), "fees": Decimal(0), "funding": Decimal(0)}
        row = totals.setdefault(trade.symbol, zero)
        row["trades"] += 1
        row["pnl"] += trade.pnl
        row["fees"] += trade.fees_quote
        row["funding"] += trade.funding_quote
    return {
        symbol: {
            "trades": row["trades"],
            "pnl_quote": _text(row["pnl"]),
            "fees_quote": _text(row["fees"]),
            "funding_quote": _text(row["funding"]),
        }
        for symbol, row in sorted(totals.items())
    }


def _text(amount: Decimal) -> str:
    """Money as text with eight decimals: exact, and the same on every machine."""
    return f"{amount:.8f}"
