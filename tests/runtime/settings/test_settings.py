"""Settings are read strictly: nothing unknown, nothing converted, nothing beyond the ceilings."""

import dataclasses
from decimal import Decimal
from pathlib import Path

import pytest

from bot4_runtime.domain.errors import ConfigError
from bot4_runtime.exchange.gate import GateLimits
from bot4_runtime.risk.limits import BOUNDS, RiskLimits
from bot4_runtime.settings import OF_THE_GATE, RiskSection, Settings, load_settings

LOOSER_DOWNWARD = {"min_liquidity_ratio", "min_margin_ratio"}


def write(folder: Path, text: str) -> Path:
    path = folder / "bot4.toml"
    path.write_text(text)
    return path


def test_defaults_are_paper_and_the_documented_limits() -> None:
    settings = load_settings(environment={})
    assert settings.runtime.mode == "paper"
    assert settings.risk.limits() == RiskLimits()
    assert settings.initial_cash == Decimal("100000.0")


def test_the_risk_section_and_the_limits_have_the_same_keys_and_defaults() -> None:
    section = RiskSection().model_dump(exclude=OF_THE_GATE)
    assert section == dataclasses.asdict(RiskLimits())


def test_the_gate_has_ceilings_of_its_own_and_they_have_hard_limits() -> None:
    assert load_settings(environment={}).gate_limits() == GateLimits(120, Decimal(200_000), 0.5)
    hardest = {
        "BOT4_RISK__MAX_ORDERS_PER_MINUTE": "600",
        "BOT4_RISK__MAX_TURNOVER_PER_MINUTE": "5.0",
        "BOT4_RISK__MAX_REJECT_RATIO": "0.8",
        "BOT4_PAPER__INITIAL_CASH": "1000.5",
    }
    assert load_settings(environment=hardest).gate_limits() == GateLimits(
        600, Decimal("5002.5"), 0.8
    )
    for name, text in (
        ("MAX_ORDERS_PER_MINUTE", "601"),
        ("MAX_ORDERS_PER_MINUTE", "0"),
        ("MAX_TURNOVER_PER_MINUTE", "5.01"),
        ("MAX_TURNOVER_PER_MINUTE", "0.0"),
        ("MAX_TURNOVER_PER_MINUTE", "nan"),
        ("MAX_REJECT_RATIO", "0.81"),
        ("MAX_REJECT_RATIO", "0.0"),
        ("MAX_REJECT_RATIO", "nan"),
    ):
        with pytest.raises(ConfigError, match=name.lower()):
            load_settings(environment={f"BOT4_RISK__{name}": text})


def test_the_environment_overrides_the_file(tmp_path: Path) -> None:
    path = write(tmp_path, "[risk]\nmax_leverage = 2.0\n[paper]\nseed = 3\n")
    settings = load_settings(path, {"BOT4_RISK__MAX_LEVERAGE": "1.5", "BOT4_HOME": "/x/home"})
    assert settings.risk.max_leverage == 1.5
    assert settings.paper.seed == 3
    assert settings.home == Path("/x/home")


def test_the_file_can_be_named_by_the_environment(tmp_path: Path) -> None:
    path = write(tmp_path, '[runtime]\naccount = "second"\n')
    assert load_settings(environment={"BOT4_CONFIG": str(path)}).runtime.account == "second"


def test_command_line_options_override_everything_and_none_overrides_nothing() -> None:
    overrides = {"runtime": {"account": "third", "strategy": None}}
    settings = load_settings(environment={"BOT4_RUNTIME__ACCOUNT": "other"}, overrides=overrides)
    assert (settings.runtime.account, settings.runtime.strategy) == ("third", "regime_follower")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[risk]\nmax_levarage = 2.0\n", ["risk.max_levarage", "max_leverage"]),
        ("[rsk]\nmax_leverage = 2.0\n", ["'rsk'", "'risk'"]),
        ("[risk]\nmax_leverage = 30.0\n", ["max_leverage", "30", "5"]),
        ("[risk]\nmax_leverage = -3.0\n", ["max_leverage"]),
        (
            "[risk]\ncorrelation_half_life_hours = 24.0\n",
            ["correlation_half_life_hours", "1h", "69", "correlation_min_observations", "72"],
        ),
        ('[runtime]\ninterval = "1w"\n', ["correlation_half_life_hours", "1w", "12", "72"]),
        ("[risk]\nmax_leverage = nan\n", ["max_leverage"]),
        ('[risk]\nmax_leverage = "3"\n', ["risk.max_leverage", "'3'"]),
        ("[risk]\nrequire_stop_loss = false\n", ["require_stop_loss"]),
        ("[paper]\ninitial_cash = inf\n", ["paper.initial_cash"]),
        ("[runtime]\nmode = 'real'\n", ["runtime.mode"]),
        ("[runtime]\naccount = '../other'\n", ["runtime.account"]),
        ("[runtime]\ninterval = '7m'\n", ["runtime.interval", "7m"]),
        ("risk = 3\n", ["risk"]),
        ("[paper]\nseed = 100000000000000000000000\n", ["paper.seed"]),
        ("[runtime]\nquote = 'XYZ'\n", ["runtime.quote", "'XYZ'", "USDT"]),
        ("[runtime]\nquote = ''\n", ["runtime.quote", "USDT"]),
        ("[runtime]\nsymbols = ['BTC USDT']\n", ["runtime.symbols", "BTC USDT", "capitals"]),
        ("[runtime]\nsymbols = ['btcusdt']\n", ["runtime.symbols", "btcusdt", "capitals"]),
        ("[runtime]\nsymbols = ['A', 'B', 'A']\n", ["runtime.symbols", "different"]),
        ("this is not toml", ["not valid TOML"]),
    ],
)
def test_wrong_settings_are_refused_by_name(tmp_path: Path, text: str, words: list[str]) -> None:
    with pytest.raises(ConfigError) as refused:
        load_settings(write(tmp_path, text), {})
    assert all(word in str(refused.value) for word in words)


def test_a_section_key_of_the_environment_needs_a_section() -> None:
    with pytest.raises(ConfigError, match="not a section"):
        load_settings(environment={"BOT4_HOME": "x", "BOT4_HOME__PLACE": "y"})


def test_unknown_environment_sections_are_refused_too() -> None:
    with pytest.raises(ConfigError, match="max_levrage"):
        load_settings(environment={"BOT4_RISK__MAX_LEVRAGE": "2"})


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("BOT4_RISK", "BOT4_RISK__KEY"),
        ("bot4_risk__max_leverage", "BOT4_RISK__MAX_LEVERAGE"),
        ("Bot4_Home", "BOT4_HOME"),
    ],
)
def test_a_name_that_would_set_nothing_is_refused_with_the_right_one(name: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        load_settings(environment={name: "5"})


def test_names_of_other_programs_are_let_be() -> None:
    assert load_settings(environment={"bot4_candles": "x", "BOT4_REQUIRE": "data"}) == Settings()


def test_a_section_that_is_none_is_refused_though_options_set_keys_of_it(tmp_path: Path) -> None:
    path = write(tmp_path, "runtime = 5\n")
    with pytest.raises(ConfigError, match=r"'runtime' is 5; expected a section"):
        load_settings(path, {}, overrides={"runtime": {"account": "a"}})


def test_a_tilde_names_the_users_own_folder() -> None:
    settings = load_settings(environment={"BOT4_HOME": "~/bot4", "BOT4_MODELS": "~/models"})
    assert (settings.home, settings.models) == (Path.home() / "bot4", Path.home() / "models")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.toml"):
        load_settings(tmp_path / "gone.toml", {})


@pytest.mark.parametrize("key", sorted(BOUNDS))
@pytest.mark.parametrize("how", ["typo", "x10", "/10", "x100", "sign", "null", "string"])
def test_no_mutated_risk_key_passes_a_ceiling(tmp_path: Path, key: str, how: str) -> None:
    default = getattr(RiskLimits(), key)
    value: object = {
        "typo": default,
        "x10": default * 10,
        "/10": default / 10,
        "x100": default * 100,
        "sign": -default,
        "null": '""',
        "string": f'"{default}"',
    }[how]
    name = key[:-1] if how == "typo" else key
    try:
        settings = load_settings(write(tmp_path, f"[risk]\n{name} = {value}\n"), {})
    except ConfigError:
        return
    accepted, bound = getattr(settings.risk, key), BOUNDS[key]
    low, high = sorted((bound.tightest, bound.loosest))
    assert how not in {"typo", "null", "string"}
    assert low <= accepted <= high


def test_settings_cannot_be_changed() -> None:
    settings = Settings()
    with pytest.raises(ValueError, match="frozen"):
        settings.risk = RiskSection()  # type: ignore[misc]


def test_the_trading_hash_tells_trading_settings_and_nothing_else() -> None:
    plain = load_settings(environment={})
    moved = load_settings(environment={"BOT4_HOME": "/elsewhere"})
    riskier = load_settings(environment={"BOT4_RISK__MAX_LEVERAGE": "4.0"})
    assert plain.trading_hash() == moved.trading_hash() != riskier.trading_hash()


def test_the_example_file_states_the_defaults() -> None:
    example = Path(__file__).parents[3] / "bot4.example.toml"
    assert load_settings(example, {}) == Settings()
