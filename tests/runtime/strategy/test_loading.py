"""Strategies are found by name, or refused with a message that says what was wrong."""

from pathlib import Path

import pytest

from bot4_runtime.domain.errors import ConfigError
from bot4_runtime.strategy.drill import Drill
from bot4_runtime.strategy.protocol import BUILT_IN, Strategy, load_strategy
from bot4_runtime.strategy.regime_follower import RegimeFollower


@pytest.mark.parametrize("name", sorted(BUILT_IN))
def test_built_in_strategies_are_strategies(name: str) -> None:
    strategy = load_strategy(name)
    assert isinstance(strategy, Strategy)
    assert strategy.name == name


def test_a_strategy_is_loaded_by_module_and_class() -> None:
    assert type(load_strategy("bot4_runtime.strategy.drill:Drill")) is Drill
    assert type(load_strategy("regime_follower")) is RegimeFollower


def test_only_the_drill_is_judged_by_a_synthetic_history() -> None:
    assert {name for name in BUILT_IN if load_strategy(name).synthetic_rules} == {"drill"}


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("momentum", "unknown strategy 'momentum'; expected one of regime_follower, drill"),
        ("no.such.module:Thing", "cannot be built"),
        ("bot4_runtime.strategy.drill:Dril", "cannot be built"),
        ("bot4_runtime.strategy.drill:", "cannot be built"),
        (":Drill", "cannot be built"),
        (".drill:Drill", "cannot be built"),
        ("decimal:getcontext", "is no strategy"),
        ("bot4_runtime.strategy.rules:RegimeRule", "cannot be built"),
    ],
)
def test_what_is_no_strategy_is_refused(name: str, words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load_strategy(name)
    assert words in str(refused.value)
    assert name in str(refused.value)


def test_a_strategy_file_with_a_syntax_error_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torn_strategy.py").write_text("class Torn(:\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(ConfigError, match="torn_strategy:Torn"):
        load_strategy("torn_strategy:Torn")
