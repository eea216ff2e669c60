"""Every key of every section, mistyped in every way: refused, or inside the ceilings, or told.

A mistake that is not refused must show: what shapes trading is in `trading_hash`, which a
session compares with the last one's and refuses without ``--accept`` (the engine's tests).
The keys that may change silently are named here, so that a new one has to be thought about.
"""

import difflib
import json
import math
import typing
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from bot4_runtime.domain.errors import ConfigError
from bot4_runtime.risk.limits import BOUNDS
from bot4_runtime.settings import SHAPING, Settings, load_settings

NO_RISK = {
    "home",  # another folder is another account, with its own journal
    "models",  # which models decide is checked and journaled by their hashes
    "source",  # by which way Binance's candles come; they are the same
    "state",  # how the account is remembered
    "telemetry",
    "bridge",
    "binance",  # the way there; another account holds something else, and entries wait
}
"""Sections and keys outside `trading_hash`."""

HOWS = ("typo", "x10", "/10", "x100", "sign", "null", "string", "bool", "number", "nan", "inf")


def keys() -> Iterator[tuple[str, str, object]]:
    """Return (section, key, default) of every setting; the section of top-level ones is ""."""
    for name, field in Settings.model_fields.items():
        default = getattr(Settings(), name)
        if isinstance(default, BaseModel):
            for key in type(default).model_fields:
                yield name, key, getattr(default, key)
        else:
            assert field.default == default
            yield "", name, default


def toml(value: object) -> str:
    """Write a value as TOML."""
    if isinstance(value, float) and not math.isfinite(value):
        return "nan" if math.isnan(value) else "inf"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Path):
        return json.dumps(str(value))
    return json.dumps(value)


def mutated(key: str, default: object, how: str) -> tuple[str, str] | None:
    """Return the mistyped key and its TOML text; None where the mutation says nothing."""
    text = toml(list(default) if isinstance(default, tuple) else default)
    number = isinstance(default, (int, float)) and not isinstance(default, bool)
    if how == "typo":
        return key[:-2] + key[-1] + key[-2] if key[-1] != key[-2] else key + "x", text
    if how in {"x10", "/10", "x100", "sign"}:
        if not number:
            return None
        value = {"x10": default * 10, "/10": default / 10, "x100": default * 100, "sign": -default}
        return key, toml(value[how])
    if how == "string":
        return (key, json.dumps(str(default))) if number or isinstance(default, bool) else None
    if how == "bool":
        return None if isinstance(default, bool) else (key, "true")
    return key, {"null": '""', "number": "7.25", "nan": "nan", "inf": "inf"}[how]


def load(folder: Path, section: str, key: str, text: str, where: str) -> Settings | None:
    """Return the settings with one key set in the file or the environment; None if refused."""
    try:
        if where == "environment":
            return load_settings(environment={f"BOT4_{section}__{key}".upper(): text})
        path = folder / "bot4.toml"
        path.write_text(f"{key} = {text}\n" if not section else f"[{section}]\n{key} = {text}\n")
        return load_settings(path, {})
    except ConfigError as refused:
        if key not in str(refused):
            raise  # a refusal names the setting
        return None


@pytest.mark.parametrize("where", ["file", "environment"])
@pytest.mark.parametrize("how", HOWS)
def test_no_mistyped_key_passes_a_ceiling_or_goes_unseen(tmp_path, how, where) -> None:
    plain = Settings()
    for section, key, default in keys():
        change = mutated(key, default, how)
        if change is None or (where == "environment" and not section):
            continue
        wrong, text = change
        loaded = load(tmp_path, section, wrong, text, where)
        if loaded is None:
            continue
        name = f"{section}.{wrong} = {text}"
        assert how != "typo", f"{name}: an unknown key was taken"
        assert how != "string", f"{name}: a string became a number"
        accepted = getattr(getattr(loaded, section), key) if section else getattr(loaded, key)
        assert type(accepted) in {
            type(default),
            float if type(default) is float else type(default),
        }
        if isinstance(accepted, float):
            assert math.isfinite(accepted), name
        if section == "risk" and key in BOUNDS:
            low, high = sorted((BOUNDS[key].tightest, BOUNDS[key].loosest))
            assert low <= accepted <= high, name
        if section == "risk" and key == "require_stop_loss":
            assert accepted is True, name
        if accepted != default and (section or key) not in NO_RISK:
            assert loaded.trading_hash() != plain.trading_hash(), f"{name} changes unseen"


def test_the_keys_that_change_silently_are_not_of_trading() -> None:
    sections = {section or key for section, key, _ in keys()}
    assert sections >= NO_RISK
    assert sections - NO_RISK == SHAPING


def test_every_number_has_a_ceiling() -> None:
    """A hundred times a hundred of a default is refused, or bounded by what it stands for."""
    unbounded = {
        ("paper", "seed"),
        ("state", "reserve_mb"),
        *(("liquidation", key) for key in ("mark_stale_ms", "stop_watchdog_s")),
    }
    for section, key, default in keys():
        number = isinstance(default, (int, float)) and not isinstance(default, bool)
        if not number or (section, key) in unbounded:
            continue
        huge = type(default)(1e15)
        with pytest.raises(ConfigError):
            load_settings(environment={}, overrides={section: {key: huge}})
        with pytest.raises(ConfigError):
            load_settings(environment={}, overrides={section: {key: -huge}})


@pytest.mark.parametrize(
    "name",
    [
        "BOT4_RISK_MAX_LEVERAGE",
        "BOT4_RISK_MAX_LEVRAGE",
        "BOT4_CONFGI",
        "BOT4_HOM",
        "BOT4_MODEL",
        "BOT4_PAPER_SEED",
    ],
)
def test_a_mistyped_name_in_the_environment_is_refused_with_the_right_one(name) -> None:
    with pytest.raises(ConfigError) as refused:
        load_settings(environment={name: "1"})
    assert name in str(refused.value)
    assert difflib.get_close_matches(name, str(refused.value).split(), n=2)[1:]


@pytest.mark.parametrize(
    "name",
    [
        "BOT4_INTERPRETED",
        "BOT4_COMPILED",
        "BOT4_REQUIRE",
        "BOT4_TEST_DATA",
        "BOT4_REST_URL",
        "BOT4_ARCHIVE_URL",
        "BOT4_POSTGRES_USER",
        "BOT4_CANDLES_DIR",
        "BOT4_CANDLES_SOURCE",
        "BOT4_REDIS_PASSWORD",
    ],
)
def test_names_of_other_things_are_left_alone(name) -> None:
    assert load_settings(environment={name: "1"}) == Settings()


@pytest.mark.parametrize(
    ("section", "key", "text", "words"),
    [
        ("risk", "max_leverage", '"3"', "expected a number, without quotes"),
        ("risk", "max_loss_streak", "2.5", "expected a whole number"),
        ("risk", "max_loss_streak", "true", "expected a whole number"),
        ("risk", "require_stop_loss", "1", "expected true or false"),
        ("runtime", "strategy", "3", "expected text in quotes"),
        ("runtime", "symbols", "3", "expected a list of texts"),
        ("runtime", "mode", '"real"', "expected 'paper', 'testnet' or 'live'"),
        ("paper", "initial_cash", "-1.0", "expected greater than 0"),
        ("paper", "initial_cash", "nan", "expected a finite number"),
        ("fees", "vip_tier", "10", "expected less than or equal to 9"),
    ],
)
def test_a_refusal_says_what_it_got_and_what_it_expects(tmp_path, section, key, text, words):
    path = tmp_path / "bot4.toml"
    path.write_text(f"[{section}]\n{key} = {text}\n")
    with pytest.raises(ConfigError) as refused:
        load_settings(path, {})
    message = str(refused.value)
    assert f"{section}.{key}" in message
    assert words in message


def test_a_section_that_is_a_value_is_refused_as_such(tmp_path) -> None:
    path = tmp_path / "bot4.toml"
    path.write_text("risk = 3\n")
    with pytest.raises(ConfigError, match=r"'risk' is 3; expected a section, \[risk\]"):
        load_settings(path, {})


def test_the_walk_finds_every_field() -> None:
    assert sum(1 for _ in keys()) > 40
    assert typing.get_type_hints(Settings)["risk"] is type(Settings().risk)
