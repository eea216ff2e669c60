"""What happens when a run fails: retries where they help, a line in a file, a post."""

import json
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer

import dagster as dg
import pytest

from bot4_pipelines.defs import audits, policies, sensors
from bot4_pipelines.records import Record
from bot4_pipelines.steps import Outcome
from bot4_pipelines.workflow import Workflow
from bot4_runtime.domain.errors import (
    DataError,
    LocationRefused,
    StoreBusy,
    VenueUnreachable,
)


def made(error, tags, attempts):
    """Run an asset whose work fails with an error; return the result."""

    @dg.asset(retry_policy=dg.RetryPolicy(max_retries=2, delay=0))
    def failing(context: dg.AssetExecutionContext):
        with policies.retrying(context):
            attempts.append(1)
            raise error

    return dg.materialize([failing], raise_on_error=False, tags=tags)


@pytest.mark.parametrize(
    ("error", "tags", "tries"),
    [
        (VenueUnreachable("no route"), {}, 3),
        (VenueUnreachable("no route"), {"bot4/started_by": "command line"}, 1),
        (LocationRefused("451"), {}, 1),
        (DataError("no candles"), {}, 1),
        (StoreBusy("another process writes"), {}, 3),
        (StoreBusy("another process writes"), {"bot4/started_by": "command line"}, 1),
    ],
)
def test_only_what_may_pass_is_tried_again_and_nobody_waits_at_a_terminal(error, tags, tries):
    attempts = []
    result = made(error, tags, attempts)
    assert not result.success
    assert len(attempts) == tries
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    assert sensors.innermost(failure).endswith(str(error))


def test_downloads_wait_longer_each_time():
    delays = [policies.RETRY_DOWNLOAD.calculate_delay(attempt) for attempt in (1, 2, 3)]
    for delay, expected in zip(delays, (20, 60, 140), strict=True):
        assert 0 <= delay <= 2 * expected


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("BOT4_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BOT4_MODELS", str(tmp_path / "models"))
    return tmp_path / "home"


def failed_run(instance):
    @dg.op
    def breaks():
        raise DataError("candles are unreadable")

    @dg.job
    def pipeline():
        breaks()

    result = pipeline.execute_in_process(
        instance=instance, raise_on_error=False, tags={"bot4/why": "10 new candles"}
    )
    return dg.build_run_status_sensor_context(
        "alert_on_failure",
        dagster_instance=instance,
        dagster_run=result.dagster_run,
        dagster_event=result.get_run_failure_event(),
    ).for_run_failure()


def test_a_failed_run_is_a_line_in_the_alerts(home, caplog):
    with dg.DagsterInstance.ephemeral() as instance:
        context = failed_run(instance)
        sensors.alert_on_failure(context)
    (line,) = (home / "alerts.jsonl").read_text().splitlines()
    told = json.loads(line)
    assert told["job"] == "pipeline"
    assert told["run_id"] == context.dagster_run.run_id
    assert told["why_started"] == "10 new candles"
    (failed,) = told["failed"]
    assert failed.startswith("breaks: ")
    assert failed.endswith("DataError: candles are unreadable")


def test_a_webhook_is_posted_the_same_line(tmp_path):
    got = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            got.append(self.rfile.read(int(self.headers["Content-Length"])))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}/hook"
        assert sensors.tell(tmp_path, {"job": "x"}, address).endswith("and posted")
        thread.join()
    assert [json.loads(body) for body in got] == [{"job": "x"}]
    assert json.loads((tmp_path / "alerts.jsonl").read_text()) == {"job": "x"}


@pytest.mark.parametrize(
    ("webhook", "says"),
    [
        ("", "alerts.jsonl"),
        ("file:///etc/passwd", "no http(s) address"),
        ("http://127.0.0.1:1/", "posting failed"),
    ],
)
def test_a_webhook_that_does_not_answer_loses_no_line(tmp_path, webhook, says):
    assert says in sensors.tell(tmp_path, {"job": "x"}, webhook)
    assert (tmp_path / "alerts.jsonl").read_text() == '{"job": "x"}\n'


# ------------------------------------------------------------------------ leak audit
LEAK = {"symbol": "BTCUSDT", "column": "rsi", "says": "BTCUSDT rsi: 2 rows change"}


def audited(monkeypatch, leaks):
    numbers = {
        "leaks": leaks,
        "values_compared": 10,
        "moments": 2,
        "left_out": ["XUSDT has 9 candles"],
    }
    record = Record(
        step="leak_audit", stamp="s", content="c", finished_ms=1, seconds=0.1, numbers=numbers
    )
    monkeypatch.setattr(
        Workflow, "leak_audit", lambda self: Outcome(record, True, self.folders.work)
    )


def test_the_check_names_the_leak_and_blocks(home, monkeypatch):
    audited(monkeypatch, [LEAK])
    result = audits.nothing_looks_ahead(dg.build_asset_check_context())
    assert not result.passed
    assert result.severity == dg.AssetCheckSeverity.ERROR
    assert result.description == "BTCUSDT rsi: 2 rows change"
    audited(monkeypatch, [])
    result = audits.nothing_looks_ahead(dg.build_asset_check_context())
    assert result.passed
    assert result.description == (
        "0 differ; 10 numbers compared at 2 moments; left out: XUSDT has 9 candles"
    )
