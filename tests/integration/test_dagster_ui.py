"""An operator in a browser: Dagster's graph, a run by a click, a check that blocks, a plot."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import polars as pl
import pytest

from bot4_runtime.candles.files import read_candle_folder
from bot4_runtime.candles.series import COLUMNS
from bot4_runtime.candles.simulated import SimulatedMarket
from bot4_runtime.domain.candle import Market

HOUR = 3_600_000
NEW_YEAR = 1_735_689_600_000
"""2025-01-01."""
ROOT = Path(__file__).parents[2]
GROUPS = {
    "models": ("hmm_candidate", "lstm_candidate", "promoted_models", "training_reference"),
    "regimes": ("hindsight_labels",),
    "evidence": ("evaluation", "evidence_records"),
    "features": ("features",),
    "search": ("lstm_search",),
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
    offer(home / "offered", torn=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {
        **os.environ,
        "BOT4_HOME": str(home),
        "BOT4_MODELS": str(home / "models"),
        "BOT4_CANDLES_DIR": str(home / "offered"),
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


def real_candles():
    named = os.environ.get("BOT4_TEST_DATA")
    folder = Path(named) if named else ROOT.parent / "shared" / "data"
    return folder if folder.is_dir() else None


def offer(folder, *, torn):
    """Put two months of one symbol in the folder of candles; torn, one high lies below its low."""
    around_new_year = (NEW_YEAR - 700 * HOUR, NEW_YEAR + 800 * HOUR)
    data = real_candles()
    if data is None:
        series = SimulatedMarket(3).series("BTCUSDT", "1h", *around_new_year)
    else:
        (series,) = read_candle_folder(data / "spot" / "1h", Market.SPOT, ["BTCUSDT"])
        series = series.between(*around_new_year)
    columns = {name: getattr(series, name).copy() for name in COLUMNS}
    if torn:
        columns["high"][700] = columns["low"][700] * 0.9
    folder.mkdir(exist_ok=True)
    times = pl.Series(series.open_time_ms).cast(pl.Datetime("ms", "UTC"))
    pl.DataFrame({"timestamp": times} | columns).write_parquet(folder / "BTCUSDT.parquet")


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


def test_materialise_all_stops_at_the_check_that_blocks_and_says_why(ui, page):
    url, home = ui
    page.goto(f"{url}/locations/bot4_pipelines/jobs/pipeline", wait_until="load")
    page.get_by_role("button", name="Materialize all").click(timeout=90_000)
    assert ended_run(url, home, "FAILURE") is not None
    page.goto(f"{url}/assets/candles?view=checks", wait_until="load")
    page.get_by_text("ohlc", exact=True).first.click(timeout=60_000)
    page.get_by_text("BTCUSDT", exact=False).first.wait_for(timeout=60_000)
    shoot(page, "check_blocks")
    assert not (home / "pipelines" / "features.json").exists()
    page.goto(f"{url}/runs", wait_until="load")
    page.get_by_text("Failure", exact=False).first.wait_for(timeout=60_000)
    shoot(page, "runs")


def test_a_click_materialises_an_asset_and_the_ui_shows_its_numbers(ui, page):
    url, home = ui
    offer(home / "offered", torn=False)
    page.goto(f"{url}/assets/candles", wait_until="load")
    page.get_by_text("Materialize", exact=False).first.wait_for(timeout=60_000)
    page.get_by_role("button", name="Materialize").first.click()
    assert ended_run(url, home, "SUCCESS") is not None
    page.goto(f"{url}/assets/candles?view=overview", wait_until="load")
    page.get_by_text("folder offered", exact=False).first.wait_for(timeout=60_000)
    shoot(page, "candles")


def test_a_plot_opens_from_the_numbers_of_an_asset(ui, page):
    url, _ = ui
    page.goto(f"{url}/assets/candles?view=overview", wait_until="load")
    page.get_by_text("plot: price history", exact=False).first.wait_for(timeout=60_000)
    page.get_by_text("Show Markdown", exact=False).first.click(timeout=60_000)
    plot = page.locator("img[src^='data:image/png']").last
    plot.wait_for(timeout=60_000)
    page.wait_for_timeout(500)
    assert plot.evaluate("image => image.complete && image.naturalWidth") > 500
    shoot(page, "plot")


def test_sensors_and_schedules_are_listed_and_off(ui, page):
    url, _ = ui
    page.goto(f"{url}/automation", wait_until="load")
    for name in ("retrain_on_drift", "retrain_on_live_accuracy", "candles_hourly"):
        page.get_by_text(name, exact=True).first.wait_for(timeout=60_000)
    where = '(repositorySelector: {repositoryName: "__repository__", '
    where += 'repositoryLocationName: "bot4_pipelines"})'
    found = ask(
        url,
        f"{{sensorsOrError{where}{{... on Sensors{{results{{sensorState{{status}}}}}}}} "
        f"schedulesOrError{where}{{... on Schedules{{results{{scheduleState{{status}}}}}}}}}}",
    )
    sensors = [one["sensorState"]["status"] for one in found["sensorsOrError"]["results"]]
    schedules = [one["scheduleState"]["status"] for one in found["schedulesOrError"]["results"]]
    assert set(sensors) == set(schedules) == {"STOPPED"}
    assert len(sensors) >= 6
    page.wait_for_timeout(4_000)  # the switches come after the names
    shoot(page, "automation")


def test_a_backfill_of_some_years_is_launched_and_done(ui, page):
    url, home = ui
    offer(home / "offered", torn=False)
    added = ask(
        url,
        'mutation {addDynamicPartition(repositorySelector: {repositoryName: "__repository__", '
        'repositoryLocationName: "bot4_pipelines"}, partitionsDefName: "series", '
        'partitionKey: "BTCUSDT_1h") {__typename}}',
    )
    assert added["addDynamicPartition"]["__typename"] == "AddDynamicPartitionSuccess"
    page.goto(f"{url}/assets/series_candles", wait_until="load")
    page.get_by_role("button", name="Materialize").first.click(timeout=60_000)
    page.get_by_role("button", name="All").first.click(timeout=60_000)  # every series
    years = page.get_by_placeholder("ex: 2017", exact=False)
    years.fill("2024, 2025")
    years.press("Enter")
    page.get_by_text("2 partitions", exact=False).first.wait_for(timeout=30_000)
    shoot(page, "backfill_dialog")
    page.get_by_role("button", name="Launch backfill").click(timeout=30_000)
    query = "{partitionBackfillsOrError(limit: 1){... on PartitionBackfills{results{status}}}}"
    end = time.monotonic() + 180
    while time.monotonic() < end:
        asked = ask(url, query)["partitionBackfillsOrError"]["results"]
        if asked and asked[0]["status"] == "COMPLETED_SUCCESS":
            break
        time.sleep(1)
    else:
        pytest.fail(f"no backfill done: {asked} {(home / 'dev.log').read_text()[-2000:]}")
    page.goto(f"{url}/assets/series_candles?view=partitions", wait_until="load")
    page.get_by_text("BTCUSDT_1h", exact=False).first.wait_for(timeout=60_000)
    shoot(page, "backfilled")


def ask(url, query):
    """Ask the webserver as its pages do."""
    body = json.dumps({"query": query}).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/graphql", body, headers)
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)["data"]


def ended_run(url, home, status):
    """Return the newest run's id once one has this status."""
    query = "{runsOrError(limit: 1){... on Runs{results{runId status}}}}"
    end = time.monotonic() + 180
    while time.monotonic() < end:
        runs = ask(url, query)["runsOrError"]["results"]
        if runs and runs[0]["status"] == status:
            return runs[0]["runId"]
        time.sleep(1)
    return pytest.fail(f"no {status} in 180 s: {(home / 'dev.log').read_text()[-2000:]}")


def test_no_request_left_this_machine(page):
    assert page.outside == []
