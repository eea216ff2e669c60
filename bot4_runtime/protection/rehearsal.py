"""The stress replay as a command runs it: candles and positions in, a written report out."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from bot4_runtime.candles.files import read_candle_folder
from bot4_runtime.candles.series import CandleSeries
from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.errors import ConfigError, DataError
from bot4_runtime.fees.schedules import binance_schedule
from bot4_runtime.protection.holdings import Holdings, read_holdings
from bot4_runtime.protection.simulated import Costs, Faults
from bot4_runtime.protection.stress import (
    StressSettings,
    default_holdings,
    first_prices,
    points,
    stress,
)
from bot4_runtime.report.stress import write_stress
from bot4_runtime.risk.brackets import (
    Brackets,
    assumed_brackets,
    published_brackets,
    published_symbols,
    venue_brackets,
)
from bot4_runtime.settings import Settings


@dataclass(frozen=True, kw_only=True)
class StressRequest:
    """What to replay; `out` gets the report. None leaves nothing out."""

    candles: Path
    symbols: Sequence[str] | None = None
    from_ms: int | None = None
    to_ms: int | None = None
    positions: Path | None = None
    brackets: Path | None = None
    leverage: float = 3.0
    latency_ms: int = 300
    out: Path


def rehearse_crash(settings: Settings, request: StressRequest) -> dict[str, Any]:
    """Replay a crash and write its report; return the document.

    Raises:
        ConfigError: the leverage or the latency is impossible.
        DataError: candles, positions or brackets cannot be read, or do not fit each other.
    """
    if not 1.0 <= request.leverage <= 50.0:
        raise ConfigError(f"--leverage is {request.leverage}; expected 1 to 50")
    if not 0 <= request.latency_ms <= 10_000:
        raise ConfigError(f"--latency-ms is {request.latency_ms}; expected 0 to 10000")
    given = None if request.positions is None else read_holdings(request.positions)
    series = _series(request, given)
    symbols = [one.id.symbol for one in series]
    ladders, unknown = _ladders(symbols, request.brackets)
    assumed = StressSettings(
        limits=settings.liquidation.limits(),
        costs=Costs(taker=_taker(settings)),
        faults=Faults(latency_ms=(request.latency_ms, request.latency_ms)),
        interval_ms=settings.liquidation.interval_ms,
    )
    accounts = (
        {"account": given}
        if given is not None
        else default_holdings(first_prices(series), Decimal(repr(request.leverage)))
    )
    results = [
        stress(name, holdings, list(points(series, holdings)), assumed, ladders)
        for name, holdings in accounts.items()
    ]
    facts = {
        "candles": series[0].id.interval,
        "market": Market.SPOT.value,
        "symbols": symbols,
        "brackets": None if request.brackets is None else request.brackets.name,
        "assumed_brackets": unknown,
        "from_ms": int(min(one.open_time_ms[0] for one in series)),
        "to_ms": int(max(one.open_time_ms[-1] for one in series)) + series[0].interval_ms,
        "leverage": None if given is not None else request.leverage,
    }
    return write_stress(request.out, results, facts, assumed)


def _ladders(symbols: Sequence[str], file: Path | None) -> tuple[dict[str, Brackets], list[str]]:
    """Return the brackets of symbols, and those whose brackets had to be assumed."""
    told = {} if file is None else _read_brackets(file)
    known = set(published_symbols())
    found: dict[str, Brackets] = {}
    for symbol in symbols:
        published = published_brackets if symbol in known else assumed_brackets
        found[symbol] = told.get(symbol) or published(symbol)
    return found, [symbol for symbol in symbols if symbol not in told and symbol not in known]


def _read_brackets(file: Path) -> dict[str, Brackets]:
    try:
        answer = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"cannot read leverage brackets from {file}: {error}; expected the venue's answer to "
            "leverageBracket, as JSON"
        ) from error
    return venue_brackets(answer)


def _series(request: StressRequest, given: Holdings | None) -> list[CandleSeries]:
    held = None if given is None else sorted({p.symbol for p in given.positions})
    if held == []:
        raise DataError(f"{request.positions} holds no position; there is nothing to replay")
    read = read_candle_folder(request.candles, Market.SPOT, held or request.symbols)
    series = [one.between(request.from_ms, request.to_ms) for one in read]
    empty = [one.id.symbol for one in series if not len(one)]
    if empty:
        raise DataError(
            f"{request.candles} has no candles of {', '.join(empty)} in that time; choose "
            "another --from or --to"
        )
    starts = {int(one.open_time_ms[0]) for one in series}
    if len(starts) > 1:
        raise DataError(
            f"the candles of {', '.join(one.id.symbol for one in series)} begin at different "
            "times; name a common one with --from"
        )
    return series


def _taker(settings: Settings) -> float:
    return float(binance_schedule(Market.USDM).tiers[settings.fees.vip_tier].taker)
