"""Settings: frozen, typed, one section a room.

Read from ``bot4.toml`` (or the file named by ``BOT4_CONFIG``), overridden by the
environment: ``BOT4_RISK__MAX_LEVERAGE=2`` sets ``max_leverage`` of ``[risk]``,
``BOT4_HOME`` and ``BOT4_MODELS`` set the two folders. An unknown key is an error that names
the nearest one; a value of the wrong kind is refused, never converted. Limits of risk have
a second guard, `bot4_runtime.risk.limits`, whose hard limits no setting passes.
Secrets are not settings.
"""

import difflib
import hashlib
import json
import os
import re
import tomllib
from collections.abc import Mapping
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
)

from bot4_runtime.domain.candle import interval_ms
from bot4_runtime.domain.errors import ConfigError, DataError
from bot4_runtime.domain.instrument import QUOTE_ASSETS
from bot4_runtime.domain.regime import HmmMode
from bot4_runtime.exchange.gate import GateLimits
from bot4_runtime.exchange.paper_model import PaperModel
from bot4_runtime.exchange.stream_hosts import TESTNET_SPOT, TESTNET_USDM, StreamHosts
from bot4_runtime.regime.trial import TrialBounds
from bot4_runtime.risk.correlation import most_observations
from bot4_runtime.risk.limits import RiskLimits
from bot4_runtime.risk.liquidation import STEPS, LiquidationLimits

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
Folder = Annotated[Path, Field(strict=False), AfterValidator(Path.expanduser)]
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Names = Annotated[tuple[str, ...], Field(strict=False)]

DEFAULT_FILE = "bot4.toml"
PREFIX = "BOT4_"
FOLDERS = {"BOT4_HOME": "home", "BOT4_MODELS": "models"}
CONFIG = "BOT4_CONFIG"
SHAPING = {"runtime", "paper", "risk", "liquidation", "fees", "promotion"}
"""Sections that shape trading: an account goes on with others only when the user agrees."""
OF_THE_GATE = {"max_orders_per_minute", "max_turnover_per_minute", "max_reject_ratio"}
"""Keys of ``[risk]`` that are the gate's ceilings, not the risk manager's."""

_EXPECTED = {
    "float_type": "a number, without quotes",
    "int_type": "a whole number, without quotes",
    "int_from_float": "a whole number",
    "bool_type": "true or false, without quotes",
    "string_type": "text in quotes",
    "tuple_type": 'a list of texts, ["A", "B"]',
    "path_type": "the name of a folder, in quotes",
    "model_type": "a section",
    "model_attributes_type": "a section",
}
"""What each of pydantic's complaints means to somebody who wrote TOML."""


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


TESTNET = "https://testnet.binance.vision", "wss://ws-api.testnet.binance.vision/ws-api/v3"
REAL = "https://api.binance.com", "wss://ws-api.binance.com:443/ws-api/v3"
"""Binance's own servers of spot, REST and WebSocket API, of play money and of real money."""
USDM_TESTNET = "https://demo-fapi.binance.com", "wss://testnet.binancefuture.com/ws-fapi/v1"
USDM_REAL = "https://fapi.binance.com", "wss://ws-fapi.binance.com/ws-fapi/v1"
"""The same of USD-M."""


class RuntimeSection(_Section):
    """``[runtime]``: what runs.

    `symbols` empty means all the source has; `account` names the journal; `quote` is the asset
    that money is counted in, and every symbol's quote. `hmm_mode` says how the HMM names regimes:
    by its filter, or by looking ahead, which costs milliseconds a candle.
    """

    mode: Literal["paper", "testnet", "live"] = "paper"
    account: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,63}$")] = "paper"
    strategy: str = "regime_follower"
    source: str = "simulated"
    interval: str = "1h"
    symbols: Names = ()
    market: Literal["spot", "usdm"] = "spot"
    quote: str = "USDT"
    hmm_mode: Annotated[HmmMode, Field(strict=False)] = HmmMode.FILTER

    @field_validator("quote")
    @classmethod
    def _known_quote(cls, quote: str) -> str:
        if quote not in QUOTE_ASSETS:
            raise ValueError(f"the quote asset of the symbols, one of {', '.join(QUOTE_ASSETS)}")
        return quote

    @field_validator("symbols")
    @classmethod
    def _distinct_names(cls, symbols: tuple[str, ...]) -> tuple[str, ...]:
        wrong = [symbol for symbol in symbols if not re.fullmatch("[A-Z0-9]+", symbol)]
        if wrong or len(set(symbols)) != len(symbols):
            raise ValueError('different names in capitals without spaces, ["BTCUSDT", "ETHUSDT"]')
        return symbols


Host = Annotated[str, Field(pattern=r"^wss?://[^/\s?#]+(/[^\s?#]*)?$")]
OwnHost = Annotated[str, Field(pattern=r"^(wss?://[^/\s?#]+(/[^\s?#]*)?)?$")]
"""Empty for the one that Binance has."""


_HOSTS = StreamHosts()


class SourceSection(_Section):
    """``[source]``: where the candles of source ``binance`` come from, which shapes no trade.

    `feed` is ``stream`` (kline streams, with REST for gaps and silence) or ``poll`` (REST alone).
    The addresses are for Binance's other hosts, and for a venue on loopback whose market goes on
    with the clock. An empty `rest_url` is Binance's own, or in modes ``testnet`` and ``live``
    the server that is traded at. Of a named `usdm_market_stream` candles of USD-M come. An empty
    `spot_stream` is Binance's own, of its testnet in mode
    ``testnet``; where ``[binance]`` names another server and no `spot_stream` is named, candles
    are polled.
    """

    feed: Literal["stream", "poll"] = "stream"
    rest_url: Annotated[str, Field(pattern=r"^(https?://[^/\s?#]+)?$")] = ""
    spot_stream: OwnHost = ""
    usdm_public_stream: Host = _HOSTS.usdm_public
    usdm_market_stream: Host = _HOSTS.usdm_market


class PaperSection(_Section):
    """``[paper]``: the simulated venue; `bot4_runtime.exchange.paper` explains each."""

    initial_cash: Annotated[float, Field(gt=0, le=1e12, allow_inf_nan=False)] = 100_000.0
    seed: Seed = 7
    spread_bps: Annotated[float, Field(ge=0, le=1000)] = 2.0
    impact_bps: Annotated[float, Field(ge=0, le=1000)] = 10.0
    volume_share: Share = 0.05
    touch_fill: Annotated[float, Field(ge=0, le=1)] = 0.5
    depth_share: Share = 0.01

    def model(self) -> PaperModel:
        """Return the venue's assumptions."""
        return PaperModel(
            seed=self.seed,
            spread_bps=self.spread_bps,
            impact_bps=self.impact_bps,
            volume_share=self.volume_share,
            touch_fill=self.touch_fill,
            depth_share=self.depth_share,
        )


class RiskSection(_Section):
    """``[risk]``: limits; `bot4_runtime.risk.limits.BOUNDS` has each one's hard limit.

    The last three are the gate's own, whose hard limits stand here; `GateLimits` explains them.
    `max_turnover_per_minute` is notional of entries over the cash a book begins with.
    """

    max_position_pct: float = 0.02
    max_correlation: float = 0.7
    max_leverage: float = 3.0
    max_drawdown: float = 0.15
    require_stop_loss: bool = True
    min_liquidity_ratio: float = 1.5
    min_margin_ratio: float = 1.1
    max_loss_streak: int = 3
    max_daily_loss: float = 0.05
    cooldown_s: int = 86_400
    max_cooldown_s: int = 604_800
    probing_factor: float = 0.25
    correlation_half_life_hours: float = 720.0
    correlation_min_observations: int = 72
    max_orders_per_minute: Annotated[int, Field(ge=1, le=600)] = 120
    max_turnover_per_minute: Annotated[float, Field(gt=0, le=5)] = 2.0
    max_reject_ratio: Annotated[float, Field(gt=0, le=0.8)] = 0.5

    def limits(self) -> RiskLimits:
        """Return the limits, checked against the hard ones.

        Raises:
            ConfigError: a limit lies outside its bounds.
        """
        return RiskLimits(**self.model_dump(exclude=OF_THE_GATE))


class LiquidationSection(_Section):
    """``[liquidation]``: when margin positions are protected, and how.

    `actions` names the steps that are allowed; `interval_ms` is the pace between prices.
    """

    alert: float = 0.8
    act: float = 0.9
    critical: float = 0.95
    interval_ms: Annotated[int, Field(ge=10, le=1000)] = 100
    mark_stale_ms: int = 3000
    actions: Names = STEPS
    stop_watchdog_s: float = 5.0

    def limits(self) -> LiquidationLimits:
        """Return the thresholds, checked.

        Raises:
            ConfigError: they do not rise, or a step is unknown.
        """
        return LiquidationLimits(**self.model_dump(exclude={"interval_ms"}))


class FeesSection(_Section):
    """``[fees]``: what trades cost until the account's own commission is asked.

    `vip_tier` is the least; the volume of 30 days may raise it, on spot with `bnb_held` BNB.

    `funding_bps_per_day` is what a long USD-M position is expected to pay a day, in basis
    points of its notional; spot pays none. The default is the dearest of what BTC, ETH and ADA
    paid on average on Binance from their listing to June 2025: 3.6, 4.4 and 4.3.
    """

    vip_tier: Annotated[int, Field(ge=0, le=9)] = 0
    bnb_discount: bool = False
    bnb_held: Annotated[float, Field(ge=0, le=200_000_000)] = 0.0
    funding_bps_per_day: Annotated[float, Field(ge=0, le=1000)] = 4.4


class StateSection(_Section):
    """``[state]``: how the account is remembered; `bot4_runtime.state` explains each.

    `journal` is ``sqlite`` or ``postgresql://user@host/database``, without a password.
    """

    journal: Annotated[str, Field(pattern=r"^(sqlite|postgres(ql)?://([^:@/]*@)?[^@]+)$")] = (
        "sqlite"
    )
    history: Literal["all", "archive"] = "all"
    reserve_mb: Annotated[int, Field(ge=0, le=65_536)] = 64
    series: bool = False


class PromotionSection(_Section):
    """``[promotion]``: how a newly promoted pair of models is taken up; see `TrialBounds`."""

    trial_candles: Annotated[int, Field(ge=0, le=10_000)] = 24
    least_agreement: Annotated[float, Field(ge=0, le=1)] = 0.6
    latency_budget_ms: Annotated[float, Field(gt=0, le=60_000)] = 100.0

    def bounds(self) -> TrialBounds:
        """Return what a pair must keep to."""
        return TrialBounds(self.trial_candles, self.least_agreement, self.latency_budget_ms)


class TelemetrySection(_Section):
    """``[telemetry]``: logs and metrics. `metrics_port` 0 serves none; it binds to loopback."""

    log_level: Literal["debug", "info", "warning", "error"] = "info"
    metrics_port: Annotated[int, Field(ge=0, le=65535)] = 0


class BridgeSection(_Section):
    """``[bridge]``: events for other processes; `redis_url` empty forwards none.

    A URL with a password belongs into the environment: ``BOT4_BRIDGE__REDIS_URL``.
    """

    redis_url: str = ""


class BinanceSection(_Section):
    """``[binance]``: the venue outside this process that modes ``testnet`` and ``live`` trade at.

    `rest_url` and `stream_url` empty are Binance's own, of its testnet in mode ``testnet``; who
    names one names both. Plain http is for 127.0.0.1 alone. `proxy` is one of HTTP or SOCKS5,
    ``http://host:port`` or ``socks5://host:port``; `account_uid` is Binance's number of the
    account that a key must be of, 0 names none; `real_money` says that mode ``live`` is meant
    (`app.live`). `withdraw_s` is how long a run that ends waits for the venue's word that its
    entries ended. Keys are no settings.

    Of USD-M alone: `private_url` is the route of the user stream, named where the others are;
    `margin` and `hedge` say how positions are held; `dead_man_s` above 0 has the venue cancel
    entries that rest when this process has not spoken for so long.
    """

    rest_url: str = ""
    stream_url: str = ""
    proxy: str = ""
    account_uid: Annotated[int, Field(ge=0, le=10**12)] = 0
    real_money: bool = False
    withdraw_s: Annotated[float, Field(gt=0.0, le=3600.0)] = 60.0
    private_url: OwnHost = ""
    margin: Literal["isolated", "cross"] = "isolated"
    hedge: bool = False
    dead_man_s: Annotated[int, Field(ge=0, le=3600)] = 0

    def hosts(self, mode: str, market: str = "spot") -> tuple[str, str]:
        """Return the servers of REST and of the WebSocket API that a mode trades at.

        Raises:
            ConfigError: one is named and the other is not.
        """
        if bool(self.rest_url) != bool(self.stream_url):
            raise ConfigError(
                "of binance.rest_url and binance.stream_url one is named; they must be of the "
                "same venue: name both, or none for Binance's own"
            )
        if self.rest_url:
            return self.rest_url, self.stream_url
        if market == "usdm":
            return USDM_TESTNET if mode == "testnet" else USDM_REAL
        return TESTNET if mode == "testnet" else REAL

    def private_route(self, mode: str) -> str:
        """Return where a mode follows its USD-M account.

        Raises:
            ConfigError: it is named and the other servers are not, or the other way round.
        """
        if bool(self.private_url) != bool(self.rest_url):
            raise ConfigError(
                "of binance.rest_url and binance.private_url one is named; on USD-M they must be "
                "of the same venue: name both, or none for Binance's own"
            )
        own = TESTNET_USDM if mode == "testnet" else "wss://fstream.binance.com"
        return self.private_url or f"{own}/private"

    def market_route(self, mode: str) -> str:
        """Return where a mode hears of USD-M marks: beside the private route.

        Raises:
            ConfigError: as `private_route` does.
        """
        return f"{self.private_route(mode).rstrip('/').removesuffix('/private')}/market"


class Settings(_Section):
    """All settings of a runtime."""

    home: Folder = Path(".bot4")
    models: Folder = Path("models")
    runtime: RuntimeSection = RuntimeSection()
    source: SourceSection = SourceSection()
    paper: PaperSection = PaperSection()
    risk: RiskSection = RiskSection()
    liquidation: LiquidationSection = LiquidationSection()
    fees: FeesSection = FeesSection()
    state: StateSection = StateSection()
    promotion: PromotionSection = PromotionSection()
    telemetry: TelemetrySection = TelemetrySection()
    bridge: BridgeSection = BridgeSection()
    binance: BinanceSection = BinanceSection()

    @property
    def initial_cash(self) -> Decimal:
        """Quote each paper book starts with."""
        return Decimal(repr(self.paper.initial_cash))

    def gate_limits(self) -> GateLimits:
        """Return the gate's own ceilings."""
        return GateLimits(
            orders_per_minute=self.risk.max_orders_per_minute,
            notional_per_minute=self.initial_cash
            * Decimal(repr(self.risk.max_turnover_per_minute)),
            reject_ratio=self.risk.max_reject_ratio,
        )

    def stream_hosts(self) -> StreamHosts | None:
        """Return where candles are streamed; None where that is not known, at a named server."""
        spot, mode = self.source.spot_stream, self.runtime.mode
        public, market = self.source.usdm_public_stream, self.source.usdm_market_stream
        if self.runtime.market == "usdm" and mode != "paper" and market == _HOSTS.usdm_market:
            if self.binance.rest_url:
                return None
            if mode == "testnet":
                public, market = f"{TESTNET_USDM}/public", f"{TESTNET_USDM}/market"
            return StreamHosts(spot or _HOSTS.spot, public, market)
        if not spot:
            if mode != "paper" and self.binance.rest_url and self.runtime.market == "spot":
                return None
            spot = TESTNET_SPOT if mode == "testnet" else _HOSTS.spot
        return StreamHosts(spot, public, market)

    def shaping(self) -> str:
        """Return what shapes trading as JSON: all but folders, logs and how it is remembered."""
        return self.model_dump_json(include=SHAPING)

    def trading_hash(self) -> str:
        """Return the sha256 (hex) of what shapes trading."""
        return hashlib.sha256(self.shaping().encode()).hexdigest()


def changes(before: str, now: str) -> list[str]:
    """Name what differs between two `Settings.shaping`, as ``risk.max_leverage 3.0 -> 2.0``."""
    was, new = _flat(before), _flat(now)
    return [
        f"{key} {was.get(key, 'not there')} -> {new.get(key, 'not there')}"
        for key in sorted(was.keys() | new.keys())
        if was.get(key) != new.get(key)
    ]


def _flat(shaping: str) -> dict[str, object]:
    return {
        f"{section}.{key}": value
        for section, keys in json.loads(shaping).items()
        for key, value in keys.items()
    }


def load_settings(
    path: Path | None = None,
    environment: Mapping[str, str] | None = None,
    overrides: Mapping[str, Mapping[str, object]] | None = None,
) -> Settings:
    """Read settings from file, then environment, then `overrides` (command-line options).

    Raises:
        ConfigError: the file is missing or unreadable, a key is unknown, a value impossible.
    """
    env = os.environ if environment is None else environment
    values = _read(path, env)
    _overlay_environment(values, env)
    for section, entries in (overrides or {}).items():
        table = values.setdefault(section, {})
        if isinstance(table, dict):  # what is no section is refused below, by name
            table.update({key: value for key, value in entries.items() if value is not None})
    try:
        settings = Settings.model_validate(values)
    except ValidationError as error:
        raise ConfigError("\n".join(_explain(item) for item in error.errors())) from None
    settings.risk.limits()
    settings.liquidation.limits()
    try:
        spacing_ms = interval_ms(settings.runtime.interval)
    except DataError as error:
        raise ConfigError(f"runtime.interval: {error}") from None
    _check_memory(settings, spacing_ms)
    return settings


def _check_memory(settings: Settings, spacing_ms: int) -> None:
    """Refuse a half-life so short that no correlation would ever be known, nor entry pass."""
    risk, interval = settings.risk, settings.runtime.interval
    most = most_observations(risk.correlation_half_life_hours, spacing_ms)
    if not most >= risk.correlation_min_observations:
        raise ConfigError(
            f"risk.correlation_half_life_hours {risk.correlation_half_life_hours:g} makes all "
            f"{interval} candles worth {most:.0f}, and risk.correlation_min_observations asks for "
            f"{risk.correlation_min_observations}: raise the half-life or ask for fewer"
        )


def _read(path: Path | None, env: Mapping[str, str]) -> dict[str, Any]:
    named = path or (Path(env[CONFIG]) if env.get(CONFIG) else None)
    file = named or Path(DEFAULT_FILE)
    if named is None and not file.exists():
        return {}
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read settings {file}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not valid TOML: {error}") from None


def _overlay_environment(values: dict[str, Any], env: Mapping[str, str]) -> None:
    for name, key in FOLDERS.items():
        if env.get(name):
            values[key] = env[name]
    for name, text in env.items():
        section, separator, key = name.removeprefix(PREFIX).lower().partition("__")
        if not name.startswith(PREFIX):
            _refuse_small_letters(name)
            continue
        if name in FOLDERS or name == CONFIG:
            continue
        if not separator:
            _refuse_near_miss(name)
            continue
        table = values.setdefault(section, {})
        if not isinstance(table, dict):
            raise ConfigError(f"{name} sets a key of [{section}], which is not a section")
        table[key] = _toml_value(text)


def _toml_value(text: str) -> object:
    """Read an environment value as TOML would; what is no TOML is plain text."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _explain(item: Any) -> str:
    where = ".".join(str(part) for part in item["loc"])
    if item["type"] == "extra_forbidden":
        known = _keys_at(item["loc"][:-1])
        near = difflib.get_close_matches(str(item["loc"][-1]), known, n=1, cutoff=0.3)
        hint = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(known)}"
        return f"unknown setting {where!r}; {hint}"
    if where == "state.journal":
        return (
            "setting 'state.journal' must be 'sqlite' or a URL without a password, like "
            "postgresql://user@host/database; the password comes from PGPASSWORD or PGPASSFILE"
        )
    expected = _EXPECTED.get(item["type"]) or str(item["msg"]).removeprefix("Input should be ")
    expected = expected.removeprefix("Value error, ")
    if item["type"] in {"model_type", "model_attributes_type"}:
        expected += f", [{where}] and its keys"
    return f"setting {where!r} is {item['input']!r}; expected {expected}"


def _refuse_near_miss(name: str) -> None:
    """Refuse a name that sets nothing but looks as if it should."""
    section = name.removeprefix(PREFIX).lower()
    if section in _sections():
        keys = ", ".join(_keys_at((section,)))
        raise ConfigError(
            f"{name} in the environment sets nothing; [{section}] has keys: write "
            f"{PREFIX}{section.upper()}__KEY, with one of {keys}"
        )
    settings = [
        f"{PREFIX}{section}__{key}".upper()
        for section in _sections()
        for key in _keys_at((section,))
    ]
    near = difflib.get_close_matches(name, [*FOLDERS, CONFIG, *settings], n=1, cutoff=0.85)
    if near:
        raise ConfigError(f"{name} in the environment sets nothing; did you mean {near[0]} ?")


def _refuse_small_letters(name: str) -> None:
    """Refuse a name that would set something if it were written in capitals."""
    capitals = name.upper()
    section, separator, _ = capitals.removeprefix(PREFIX).lower().partition("__")
    sets = capitals in FOLDERS or capitals == CONFIG or (separator and section in _sections())
    if capitals.startswith(PREFIX) and sets:
        raise ConfigError(
            f"{name} in the environment sets nothing; write it in capitals: {capitals}"
        )


def _sections() -> list[str]:
    return [
        name
        for name, field in Settings.model_fields.items()
        if isinstance(field.default, BaseModel)
    ]


def _keys_at(location: tuple[int | str, ...]) -> list[str]:
    model: type[BaseModel] = Settings
    for part in location:
        annotation = model.model_fields[str(part)].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        model = annotation
    return list(model.model_fields)
