"""A session whose HMM looks ahead: set, journaled, and refused where a file cannot do it."""

import threading
from pathlib import Path

import pytest

from bot4_runtime import app
from bot4_runtime.app import promoted
from bot4_runtime.app.promoted import PromotedModels
from bot4_runtime.clock import ManualClock
from bot4_runtime.domain.errors import ConfigError, ModelError
from bot4_runtime.domain.events import RegimeNamed
from bot4_runtime.domain.regime import EstimateSource, HmmMode
from bot4_runtime.regime.registry import ModelRegistry
from bot4_runtime.state.reader import JournalReader

START = 1_735_689_600_000
LOOKAHEAD = {"BOT4_RUNTIME__HMM_MODE": "lookahead"}


def test_the_hmm_looks_ahead_when_settings_say_so(promote, make_settings, tmp_path: Path) -> None:
    promote(alone=True)
    settings = make_settings(**LOOKAHEAD)
    assert settings.runtime.hmm_mode is HmmMode.LOOKAHEAD
    assert settings.trading_hash() != make_settings().trading_hash()
    options = app.RunOptions(source="simulated:7", to_ms=START + 20 * 3_600_000)
    run = app.build(settings, options, mode="paper", folder=tmp_path / "run")
    run.execute(threading.Event())
    with JournalReader.open(tmp_path / "run" / "journal.sqlite") as journal:
        named = [e.estimate for _, e in journal.events() if isinstance(e, RegimeNamed)]
    assert {one.source for one in named} == {EstimateSource.HMM_LOOKAHEAD}
    assert {one.confidence * 64 % 1 for one in named} == {0.0}


def test_a_mode_that_is_none_is_refused_by_name(make_settings) -> None:
    with pytest.raises(ConfigError, match=r"runtime.hmm_mode.*'filter' or 'lookahead'"):
        make_settings(BOT4_RUNTIME__HMM_MODE="smoothed")


def test_a_pair_that_cannot_look_ahead_is_refused_at_the_start_and_when_promoted(
    promote, make_settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(promoted, "POLL_SECONDS", 0.0)
    good, _ = promote()
    registry = ModelRegistry(make_settings().models)
    watched = PromotedModels(registry, "1h", ManualClock(), mode=HmmMode.LOOKAHEAD)
    promote(1.2, blocks=None)
    (told,) = watched.poll(None)
    assert told.outcome == "refused"
    assert "no readable pool" in told.reason
    assert watched.pair.hmm_sha256 == good
    options = app.RunOptions(source="simulated:7", to_ms=START + 3_600_000)
    with pytest.raises(ModelError, match="no readable pool"):
        app.build(make_settings(**LOOKAHEAD), options, mode="paper", folder=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    assert PromotedModels(registry, "1h", ManualClock()).pair.hmm_sha256 != good
