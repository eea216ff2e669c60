"""The candle source that a command names, and the candle it decides from on."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

from bot4_runtime.app.hosts import request_budget
from bot4_runtime.app.options import RunOptions
from bot4_runtime.candles.files import read_candle_folder
from bot4_runtime.candles.series import CandleSeries
from bot4_runtime.candles.simulated import DEFAULT_SEED, EPOCH_MS
from bot4_runtime.candles.store import CandleStore
from bot4_runtime.clock import LiveClock
from bot4_runtime.domain.candle import Market, Origin, interval_ms
from bot4_runtime.domain.errors import ConfigError, DataError, VenueUnreachable
from bot4_runtime.domain.instrument import split_symbol
from bot4_runtime.exchange.binance.candle_feed import CandleFeed, kline_streams
from bot4_runtime.exchange.binance.limits import RequestBudget
from bot4_runtime.exchange.binance.market_line import routes
from bot4_runtime.exchange.binance.polling import BinanceSource
from bot4_runtime.exchange.binance.route_reader import over_aiohttp
from bot4_runtime.exchange.binance.streamed import StreamedSource
from bot4_runtime.identity import WARM_CANDLES
from bot4_runtime.regime.registry import ModelRegistry
from bot4_runtime.settings import RuntimeSection, Settings
from bot4_runtime.sources import (
    SIMULATED_START_MS,
    CandleSource,
    RecordedSource,
    SimulatedSource,
    utc,
)

DEFAULT_BINANCE_SYMBOLS: Final = ("BNBUSDT", "BTCUSDT", "ETHUSDT")


def build_source(
    settings: Settings,
    options: RunOptions,
    registry: ModelRegistry | None,
    budget: RequestBudget | None = None,
) -> CandleSource:
    """Build the source a command names.

    Without a start of its own, recorded candles begin where the models' training and
    validation end; for strategies without models, once the windows are warm.

    Args:
        settings: of the runtime.
        options: what the command adds.
        registry: of models; None for strategies without.
        budget: of the account that trades, see `polled_candles`.

    Raises:
        ConfigError: the source is unknown, an option does not fit it, or a symbol is quoted in
            another asset than money is counted in.
        DataError: there are no candles, or none in the range.
    """
    from_ms, to_ms = options.from_ms, options.to_ms
    if from_ms is not None and to_ms is not None and not from_ms < to_ms:
        raise ConfigError(
            f"--from {utc(from_ms)} is not before --to {utc(to_ms)}; the end is exclusive: "
            "choose a later --to or an earlier --from"
        )
    _require_quote(settings.runtime.symbols, settings.runtime)
    source = _source(settings, options, registry, budget)
    _require_quote(source.symbols, settings.runtime)
    return source


def _require_quote(symbols: Sequence[str], runtime: RuntimeSection) -> None:
    """Refuse what is quoted in another asset: its prices would be booked as if they were ours."""
    foreign = sorted(symbol for symbol in symbols if split_symbol(symbol)[1] != runtime.quote)
    if foreign:
        raise ConfigError(
            f"{', '.join(foreign)} not quoted in {runtime.quote} (runtime.quote), in which money "
            "is counted; name symbols that are, with --symbols, or set runtime.quote to theirs"
        )


def _source(
    settings: Settings,
    options: RunOptions,
    registry: ModelRegistry | None,
    budget: RequestBudget | None,
) -> CandleSource:
    kind, _, argument = options.source.partition(":")
    runtime = settings.runtime
    if kind == "simulated":
        if runtime.market != SimulatedSource.market.value:
            raise ConfigError(
                f"runtime.market is {runtime.market!r}, and the simulated market is spot; set it "
                "to 'spot', or choose another --source"
            )
        return _simulated(options, argument, runtime, _trained_symbols(registry, runtime.interval))
    if kind == "binance":
        if (options.from_ms, options.to_ms, options.speed) != (None, None, None):
            raise ConfigError(
                "source binance begins now and runs at its own pace; leave out "
                "--from, --to and --speed, or choose another source"
            )
        return _binance(settings, budget)
    if kind == "recorded" and argument:
        series = read_candle_folder(
            Path(argument), Market(runtime.market), set(runtime.symbols) or None
        )
    elif kind == "store":
        series = _stored(settings, registry)
    else:
        raise ConfigError(
            f"unknown source {options.source!r}; expected simulated[:SEED], recorded:DIR, store "
            "or binance"
        )
    wrong = sorted({s.id.interval for s in series} - {runtime.interval})
    if wrong:
        raise DataError(
            f"{options.source} holds {', '.join(wrong)} candles, and runtime.interval is "
            f"{runtime.interval}; set BOT4_RUNTIME__INTERVAL or choose other candles"
        )
    recorded = RecordedSource(
        series,
        label=options.source,
        speed=options.speed,
        from_ms=options.from_ms,
        to_ms=options.to_ms,
    )
    if recorded.start_ms is None:
        recorded.start_ms = _first_decision(recorded, registry)
    if recorded.start_ms > recorded.last_ms:
        raise DataError(
            f"{options.source} ends at {utc(recorded.last_ms)}, before the first candle to decide "
            f"on, {utc(recorded.start_ms)}; choose an earlier --from, or train on earlier candles"
        )
    return recorded


def polled_candles(
    settings: Settings, symbols: Sequence[str], budget: RequestBudget | None = None
) -> BinanceSource:
    """Build what asks Binance for candles over REST, or the server that is traded at.

    A server that is traded at counts both together, and wants silence of both: they share
    `budget`.
    """
    runtime, binance = settings.runtime, settings.binance
    hosts = binance.hosts(runtime.mode, runtime.market)
    traded_at = hosts[0] if runtime.mode != "paper" else None
    base_url, market = settings.source.rest_url or traded_at, Market(runtime.market)
    if base_url is not None and (budget is None or base_url != traded_at):
        budget = request_budget(base_url, market)
    return BinanceSource(
        symbols=symbols,
        interval=runtime.interval,
        market=market,
        clock=LiveClock(),
        base_url=base_url,
        proxy=binance.proxy or None,
        budget=budget,
    )


def _binance(settings: Settings, budget: RequestBudget | None) -> CandleSource:
    """Build what brings Binance's candles: streams with REST beside them, or REST alone.

    Whether the venue knows the symbols is asked at once, or, where a venue outside the process
    may hold positions or this address is to be silent, with the first candles, as often as it
    takes: `bot4_runtime.patience`.
    """
    symbols = settings.runtime.symbols or DEFAULT_BINANCE_SYMBOLS
    polled = polled_candles(settings, symbols, budget)
    try:
        polled.check()
    except VenueUnreachable:
        if settings.runtime.mode == "paper" and not polled.held_off:
            raise
    hosts = settings.stream_hosts()
    if settings.source.feed == "poll" or hosts is None:
        return polled
    names = kline_streams(polled.symbols, polled.interval)
    dialler = partial(over_aiohttp, settings.binance.proxy or None)
    feed = CandleFeed(routes(polled.market, hosts, names), dialler=dialler)
    return StreamedSource(polled, feed, LiveClock())


def _simulated(
    options: RunOptions, seed: str, runtime: RuntimeSection, trained: Sequence[str]
) -> SimulatedSource:
    try:
        number = int(seed) if seed else DEFAULT_SEED
    except ValueError:
        raise ConfigError(f"source {options.source!r}: the seed must be a number") from None
    source = SimulatedSource(
        seed=number,
        interval=runtime.interval,
        symbols=runtime.symbols or trained,
        speed=options.speed,
        to_ms=options.to_ms,
    )
    start_ms = SIMULATED_START_MS if options.from_ms is None else options.from_ms
    least_ms = EPOCH_MS + (WARM_CANDLES + 1) * interval_ms(runtime.interval)
    if start_ms < least_ms:
        raise ConfigError(
            f"{source.label} cannot begin at {utc(start_ms)}; expected {utc(least_ms)} or later"
        )
    if options.to_ms is not None and options.to_ms <= start_ms:
        raise ConfigError(
            f"{source.label} would end at {utc(options.to_ms)}, before the first candle to decide "
            f"on, {utc(start_ms)}; choose a later --to or an earlier --from"
        )
    source.start_ms = start_ms
    return source


def _stored(settings: Settings, registry: ModelRegistry | None) -> list[CandleSeries]:
    store = CandleStore(settings.home / "candles")
    runtime = settings.runtime
    origins = {s.origin for s in store.list_series() if s.interval == runtime.interval}
    pair = registry.current(runtime.interval) if registry is not None else None
    if registry is not None and pair is not None:
        origins &= {registry.manifest(pair.hmm_sha256).origin}
    origin = Origin.REAL if Origin.REAL in origins else Origin.SIMULATED
    found = [
        identity
        for identity in store.list_series()
        if identity.origin is origin
        and identity.market.value == runtime.market
        and identity.interval == runtime.interval
        and (not runtime.symbols or identity.symbol in runtime.symbols)
    ]
    unknown = set(runtime.symbols) - {identity.symbol for identity in found}
    if unknown or not found:
        raise DataError(
            f"the candle store {settings.home / 'candles'} has no {runtime.interval} candles of "
            f"{', '.join(sorted(unknown)) or 'any symbol'}; run `make demo` or "
            "`bot4-pipelines run` to ingest some"
        )
    return [store.read(identity) for identity in found]


def _trained_symbols(registry: ModelRegistry | None, interval: str) -> tuple[str, ...]:
    """Return the symbols the promoted models were trained on; empty when none are wanted."""
    if registry is None:
        return ()
    current = registry.current(interval)
    return registry.manifest(current.hmm_sha256).symbols if current is not None else ()


def _first_decision(source: RecordedSource, registry: ModelRegistry | None) -> int:
    pair = registry.current(source.interval) if registry is not None else None
    if registry is not None and pair is not None:
        manifest = registry.manifest(pair.lstm_sha256 or pair.hmm_sha256)
        if manifest.origin is source.origin:
            return manifest.cuts.test_start_ms
    return source.first_ms + WARM_CANDLES * interval_ms(source.interval)
