"""What all tests share: the real candles, required services, one line a skip.

``BOT4_TEST_DATA`` names a folder of real market data; without it, ``shared/data`` beside the
project is taken when it is there. ``BOT4_REQUIRE=postgres,redis,browser,data,sdk`` turns a skip
for want of one of these into a failure.
"""

import os
import shutil
import socket
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import hypothesis
import pytest

from bot4_runtime.build import require_fresh

ROOT = Path(__file__).parents[1]
REQUIRED = frozenset(filter(None, os.environ.get("BOT4_REQUIRE", "").split(",")))
os.environ.setdefault("OMP_NUM_THREADS", "1")


# A noisy machine must not fail a property: no deadline, no complaint about slow generation.
hypothesis.settings.register_profile(
    "bot4",
    deadline=None,
    print_blob=True,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("bot4")


def pytest_report_header() -> str:
    """Say which modules are tested; stale compiled ones are refused."""
    return require_fresh().notice.splitlines()[0]


def find_test_data() -> Path | None:
    named = os.environ.get("BOT4_TEST_DATA")
    folder = Path(named) if named else ROOT.parent / "shared" / "data"
    return folder if folder.is_dir() else None


def missing(what: str, why: str) -> None:
    """Skip for want of a service or folder, or fail where it is required."""
    if what in REQUIRED:
        pytest.fail(f"{what} is required (BOT4_REQUIRE) but {why}")
    pytest.skip(f"{what}: {why}")


def listening(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.fixture(autouse=True)
def _services(request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("postgres") and not listening(5432):
        missing("postgres", "no PostgreSQL server listens on 127.0.0.1:5432")
    if request.node.get_closest_marker("redis") and not listening(6379):
        missing("redis", "no Redis server listens on 127.0.0.1:6379")
    if request.node.get_closest_marker("browser") and shutil.which("chromium") is None:
        missing("browser", "chromium is not installed")
    if request.node.get_closest_marker("sdk") and find_spec("binance_common") is None:
        missing("sdk", "binance-sdk-derivatives-trading-usds-futures is not installed")
    if request.node.get_closest_marker("data") and find_test_data() is None:
        missing("data", "there is no folder of real candles; set BOT4_TEST_DATA")


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of real market data; the test is skipped, or fails, without it."""
    folder = find_test_data()
    if folder is None:
        missing("data", "there is no folder of real candles; set BOT4_TEST_DATA")
    assert folder is not None
    return folder


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tests see neither the developer's settings nor their folders."""
    for name in os.environ:
        if name.startswith("BOT4_") and name not in {
            "BOT4_TEST_DATA",
            "BOT4_REQUIRE",
            "BOT4_INTERPRETED",
            "BOT4_COMPILED",
        }:
            monkeypatch.delenv(name)
    yield
