"""architecture.md's import rules hold, and each one catches a planted violation."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"][
    "contracts"
]

# One planted module a rule: (rule, file, line).
PLANTED = [
    ("1.", "bot4_runtime/domain/planted.py", "import torch"),
    ("1.", "bot4_runtime/report/planted.py", "import bot4_pipelines.ingest"),
    ("2.", "bot4_pipelines/training/planted.py", "import bot4_runtime.risk.manager"),
    ("2.", "bot4_pipelines/defs/planted.py", "from bot4_runtime.state import store"),
    ("3.", "bot4_pipelines/training/planted.py", "import dagster"),
    ("4.", "bot4_runtime/strategy/planted.py", "import bot4_runtime.exchange.paper"),
    ("4.", "bot4_runtime/report/planted.py", "import bot4_runtime.state.sqlite"),
    ("5.", "bot4_runtime/risk/planted.py", "import time"),
    ("5.", "bot4_runtime/signals/planted.py", "import random"),
    ("6.", "bot4_runtime/strategy/planted.py", "import bot4_runtime.risk.limits"),
    ("7.", "bot4_runtime/venue/planted.py", "import bot4_runtime.exchange.binance.signing"),
    ("8.", "bot4_runtime/exchange/planted.py", "import bot4_runtime.venue.server"),
]


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).with_name("lint-imports")
    return subprocess.run(
        [program, "--no-cache", "--config", str(folder / "pyproject.toml")],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(folder)},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("planted")
    for package in ("bot4_runtime", "bot4_pipelines"):
        shutil.copytree(
            ROOT / package, folder / package, ignore=shutil.ignore_patterns("__pycache__", "*.so")
        )
    shutil.copy(ROOT / "pyproject.toml", folder)
    return folder


def test_every_rule_holds() -> None:
    result = lint(ROOT)
    assert result.returncode == 0, result.stdout
    assert f"{len(CONTRACTS)} kept, 0 broken" in result.stdout


@pytest.mark.parametrize(("rule", "file", "line"), PLANTED)
def test_a_planted_violation_is_caught_by_its_rule(
    copy: Path, rule: str, file: str, line: str
) -> None:
    planted = copy / file
    planted.write_text(f'"""Planted."""\n\n{line}\n')
    try:
        result = lint(copy)
    finally:
        planted.unlink()
    assert result.returncode != 0
    broken = [text for text in result.stdout.splitlines() if " BROKEN" in text]
    assert any(text.startswith(rule) for text in broken), result.stdout


def test_every_rule_has_a_planted_violation() -> None:
    assert {rule for rule, _, _ in PLANTED} == {c["name"].split(" ")[0] for c in CONTRACTS}


def test_the_top_level_holds_the_names_the_user_fixed() -> None:
    fixed = (
        "bot4_pipelines bot4_runtime dagster.yaml workspace.yaml docker-compose.yml models tests "
        "pyproject.toml"
    )
    assert all((ROOT / name).exists() for name in fixed.split())


def test_only_the_risk_manager_names_the_witness_of_approvals() -> None:
    naming = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "bot4_runtime").rglob("*.py")
        if "WITNESS" in path.read_text()
    }
    assert naming == {"bot4_runtime/risk/verdict.py", "bot4_runtime/risk/manager.py"}


def test_no_module_unpickles() -> None:
    words = ("import pickle", "torch.load(", "joblib.load", "yaml.load(", "import shelve")
    for package in ("bot4_runtime", "bot4_pipelines"):
        for path in (ROOT / package).rglob("*.py"):
            text = path.read_text()
            assert not any(word in text for word in words), path
