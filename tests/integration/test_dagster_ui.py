"""An operator in a browser: opens Dagster's UI, sees the graph, materialises an asset by a click."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
GROUPS = {
    "models": ("hmm_candidate", "lstm_candidate", "promoted_models"),
    "regimes": ("hindsight_labels",),
    "evidence": ("evidence_records",),
    "features": ("features",),
    "candles": ("candles",),
}
QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
pytestmark = [
    pytest.mark.browser,
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(scope="module")
def ui(tmp_path_factory):
    """Webserver and daemon over a fresh BOT4_HOME, as `bot4-pipelines dev` starts them."""
    home = tmp_path_factory.mktemp("home")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        "BOT4_HOME": str(home),
        "BOT4_MODELS": str(home / "models"),
        "BOT4_CANDLES_SOURCE": "simulated",
        "OMP_NUM_THREADS": "1",
    }
    script = "from bot4_pipelines.cli import main; main()"
    log = (home / "dev.log").open("w")
    process = subprocess.Popen(
        [sys.executable, "-c", script, "dev", "--port", str(port)],
        env=environment,
        cwd=home,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    try:
        wait_for(f"http://127.0.0.1:{port}/server_info", process, 150)
        yield f"http://127.0.0.1:{port}", home
    finally:
        process.send_signal(signal.SIGINT)
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        log.close()


def wait_for(url, process, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert process.poll() is None, "the UI ended by itself"
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.5)
    pytest.fail(f"no answer from {url} in {seconds} s")


@pytest.fixture(scope="module")
def page(ui):
    playwright_api = pytest.importorskip("playwright.sync_api")
    with playwright_api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=QUIET)
        page = browser.new_page(viewport={"width": 1500, "height": 900})
        page.outside = []
        page.on(
            "request",
            lambda request: (
                None
                if request.url.startswith((ui[0], "data:", "blob:", ui[0].replace("http", "ws")))
                else page.outside.append(request.url)
            ),
        )
        yield page
        browser.close()


def shoot(page, name):
    """Keep a picture where ``SCREENSHOTS`` says, for people."""
    folder = os.environ.get("SCREENSHOTS")
    if folder:
        page.screenshot(path=str(Path(folder) / f"{name}.png"))


def test_the_graph_shows_every_asset_in_its_group(ui, page):
    graph = page.locator("foreignObject")
    for group, assets in GROUPS.items():
        page.goto(f"{ui[0]}/asset-groups/", wait_until="load")
        graph.get_by_text(group, exact=True).first.click(timeout=90_000)
        for asset in assets:
            graph.get_by_text(asset, exact=True).last.wait_for(timeout=60_000)
        page.get_by_role("button", name="Materialize all").wait_for(timeout=10_000)
        shoot(page, f"group_{group}")


def test_a_click_materialises_an_asset_and_the_ui_shows_its_numbers(ui, page):
    url, home = ui
    page.goto(f"{url}/assets/candles", wait_until="load")
    page.get_by_text("Materialize", exact=False).first.wait_for(timeout=60_000)
    page.get_by_role("button", name="Materialize").first.click()
    record = home / "pipelines" / "candles.json"
    end = time.monotonic() + 180
    while not record.exists() and time.monotonic() < end:
        time.sleep(0.5)
    assert record.exists(), (home / "dev.log").read_text()[-2000:]
    page.goto(f"{url}/assets/candles?view=overview", wait_until="load")
    page.get_by_text("no real prices", exact=False).first.wait_for(timeout=60_000)
    shoot(page, "candles")


def test_no_request_left_this_machine(page):
    assert page.outside == []
