import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PACKAGE = "bot4_runtime"


class Tree:
    """A throw-away copy of the project with two compiled rooms, and ways to build and ask it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.package = root / PACKAGE

    def copy(self, root: Path) -> "Tree":
        shutil.copytree(self.root, root)
        return Tree(root)

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("BOT4_", "COV_", "COVERAGE_")) and name != "CC"
        }
        return subprocess.run(
            [sys.executable, *arguments], cwd=self.root, text=True, capture_output=True,
            timeout=240, check=False, env=kept | {"PYTHONPATH": str(self.root)} | environment,
        )  # fmt: skip

    def build(self, **environment: str) -> subprocess.CompletedProcess[str]:
        return self.run("setup.py", "build_ext", "--inplace", **environment)

    def ask(self, code: str, **environment: str) -> str:
        done = self.run("-c", code, **environment)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def extensions(self) -> list[Path]:
        return sorted(self.package.rglob("*.so"))


def make_tree(root: Path) -> Tree:
    """Copy what the bus needs: the build machinery, the vocabulary, the bus and one fee module."""
    package = root / PACKAGE
    (package / "fees").mkdir(parents=True)
    (root / "bot4_pipelines").mkdir()
    (root / "bot4_pipelines/__init__.py").touch()
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, root / name)
    for name in ("__init__.py", "build.py", "event_bus.py", "event_queue.py", "py.typed"):
        shutil.copy(ROOT / PACKAGE / name, package / name)
    for name in ("__init__.py", "volume.py"):
        shutil.copy(ROOT / PACKAGE / "fees" / name, package / "fees" / name)
    shutil.copytree(
        ROOT / PACKAGE / "domain", package / "domain", ignore=shutil.ignore_patterns("__pycache__")
    )
    return Tree(root)


@pytest.fixture(scope="session")
def plain_tree(tmp_path_factory) -> Tree:
    """Never built; copy it before changing it."""
    return make_tree(tmp_path_factory.mktemp("plain") / "tree")


@pytest.fixture(scope="session")
def built_tree(tmp_path_factory) -> Tree:
    """Built in place; copy it before changing it."""
    pytest.importorskip("mypyc", reason="mypy is not installed")
    compiler = os.environ.get("CC", sysconfig.get_config_var("CC") or "cc").split()[0]
    if shutil.which(compiler) is None:
        pytest.skip(f"no C compiler: {compiler} is not on PATH")
    tree = make_tree(tmp_path_factory.mktemp("built") / "tree")
    done = tree.build()
    assert done.returncode == 0, done.stdout + done.stderr
    return tree
