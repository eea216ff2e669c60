"""Sensors that start another training, and one that tells of failed runs. All are off at first.

Each asks `bot4_pipelines.triggers` one question, and every tick says why or why not. A reason
that was answered by a run is not answered again; a run that failed is tried again, at most
`ATTEMPTS` times a day and later each time; one training at a time.
"""

import json
import os
import time
import urllib.request
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import dagster as dg

from bot4_pipelines.defs.automation import WRITES, pipeline_job
from bot4_pipelines.records import Folders, digest
from bot4_pipelines.triggers import Triggers, Verdict
from bot4_runtime.domain.errors import Bot4Error

TICK_S: Final = 60
SLOW_TICK_S: Final = 3_600
"""Drift, likelihood and live accuracy read a month of candles; they move by the hour at most."""
ATTEMPTS: Final = 3
"""Runs a sensor starts for the same training a day, when they fail."""
RETRY_S: Final = 900
"""After a failed run the next waits this long, then twice as long."""
CAUSE: Final = "bot4/cause"
WHY: Final = "bot4/why"
WEBHOOK: Final = "BOT4_ALERT_WEBHOOK"
WEBHOOK_TIMEOUT_S: Final = 5.0

Answer = dg.SkipReason | dg.RunRequest


def answer(
    context: dg.SensorEvaluationContext,
    name: str,
    ask: Callable[[Triggers], Verdict],
    now: Callable[[], float] = time.time,
) -> Answer:
    """Ask one question and start a run, or say why not.

    Args:
        context: of the tick.
        name: of the sensor.
        ask: the question.
        now: the time in seconds since 1970.
    """
    triggers = Triggers(Folders.from_environment())
    try:
        verdict = ask(triggers)
    except Bot4Error as error:
        return dg.SkipReason(f"cannot tell: {error}")
    if not verdict.wanted:
        return dg.SkipReason(verdict.why)
    trained = triggers.training
    stamp = [None, 0] if trained is None else [trained.stamp, trained.finished_ms]
    cause = f"{name}-{digest(*stamp)[:12]}-{datetime.fromtimestamp(now(), UTC):%Y%m%d}"
    held = held_back(context.instance, cause, now())
    if isinstance(held, str):
        return dg.SkipReason(f"{verdict.why}; {held}")
    context.log.info(verdict.why)
    return dg.RunRequest(
        run_key=f"{cause}-{held}", tags={**WRITES, CAUSE: cause, WHY: verdict.why[:250]}
    )


def held_back(instance: dg.DagsterInstance, cause: str, now_s: float) -> str | int:
    """Return why no run is started for a cause, or else how many failed for it.

    Args:
        instance: knows the runs.
        cause: sensor, training and day: what a run is started for.
        now_s: seconds since 1970.
    """
    under_way = instance.get_run_records(
        dg.RunsFilter(
            job_name=pipeline_job.name,
            statuses=[
                dg.DagsterRunStatus.QUEUED,
                dg.DagsterRunStatus.NOT_STARTED,
                dg.DagsterRunStatus.STARTING,
                dg.DagsterRunStatus.STARTED,
                dg.DagsterRunStatus.CANCELING,
            ],
        ),
        limit=1,
    )
    if under_way:
        return f"run {_short(under_way[0])} is training already"
    earlier = instance.get_run_records(dg.RunsFilter(tags={CAUSE: cause}))
    for record in earlier:
        if record.dagster_run.status == dg.DagsterRunStatus.SUCCESS:
            return f"run {_short(record)} answered this already"
    if not earlier:
        return 0
    last = earlier[0]
    if len(earlier) >= ATTEMPTS:
        return (
            f"{len(earlier)} runs failed for this today, run {_short(last)} the last: see why; "
            "the next try is tomorrow"
        )
    wait = RETRY_S * 2 ** (len(earlier) - 1)
    ended = last.end_time or last.update_timestamp.timestamp()
    if now_s < ended + wait:
        left = (ended + wait - now_s) / 60
        return f"run {_short(last)} failed; the next try is in {left:.0f} min"
    return len(earlier)


def _short(record: Any) -> str:
    return str(record.dagster_run.run_id)[:8]


@dg.sensor(
    job=pipeline_job,
    minimum_interval_seconds=TICK_S,
    description="Trains again when 1 % more candles are there than the last training had.",
)
def retrain_on_new_candles(context: dg.SensorEvaluationContext) -> Answer:
    """Compare the candles in the store with those the last training had."""
    return answer(context, "new_candles", Triggers.new_candles)


@dg.sensor(
    job=pipeline_job,
    minimum_interval_seconds=SLOW_TICK_S,
    description="Trains again when a symbol's last 30 days are unlike the training range: a "
    "feature's PSI and KS distance both beyond 1.2 times those of training's own worst month.",
)
def retrain_on_drift(context: dg.SensorEvaluationContext) -> Answer:
    """Compare recent features with the training range's."""
    return answer(context, "drift", Triggers.feature_drift)


@dg.sensor(
    job=pipeline_job,
    minimum_interval_seconds=SLOW_TICK_S,
    description="Trains again when the HMM finds a symbol's last 30 days less likely than any "
    "month of its training range, by 1.2 times the distance from the median.",
)
def retrain_on_likelihood(context: dg.SensorEvaluationContext) -> Answer:
    """Compare the likelihood of recent trends with the training range's."""
    return answer(context, "likelihood", Triggers.likelihood)


@dg.sensor(
    job=pipeline_job,
    minimum_interval_seconds=SLOW_TICK_S,
    description="Trains again when the lower 95 % bound of the accuracy of regimes named live, "
    "against later hindsight labels, is below 90 %.",
)
def retrain_on_live_accuracy(context: dg.SensorEvaluationContext) -> Answer:
    """Compare regimes that the trading process journaled with hindsight labels."""
    return answer(context, "live_accuracy", Triggers.live_accuracy)


@dg.sensor(
    job=pipeline_job,
    minimum_interval_seconds=TICK_S,
    description="Trains again when candles that the last training had were restated since.",
)
def retrain_on_restated_history(context: dg.SensorEvaluationContext) -> Answer:
    """Count the restatements in the store since the last training."""
    return answer(context, "restated", Triggers.restated_history)


@dg.run_failure_sensor(
    minimum_interval_seconds=TICK_S,
    description="Writes a line to $BOT4_HOME/alerts.jsonl for each failed run, and posts it to "
    "BOT4_ALERT_WEBHOOK when that is set.",
)
def alert_on_failure(context: dg.RunFailureSensorContext) -> None:
    """Tell an operator that a run failed."""
    steps = [
        f"{event.step_key}: {innermost(event)}" for event in context.get_step_failure_events()
    ]
    line = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "run_id": context.dagster_run.run_id,
        "job": context.dagster_run.job_name,
        "why_started": context.dagster_run.tags.get(WHY, ""),
        "failed": steps or [context.failure_event.message or "failed before any step began"],
    }
    told = tell(Folders.from_environment().home, line, os.environ.get(WEBHOOK, ""))
    context.log.info(told)


def innermost(event: dg.DagsterEvent) -> str:
    """Return the innermost error of a failed step, one line."""
    error = event.step_failure_data.error
    while error is not None and error.cause is not None:
        error = error.cause
    return "unknown" if error is None else error.message.strip().splitlines()[0]


def tell(home: Path, line: dict[str, Any], webhook: str) -> str:
    """Write an alert to its file and, with a webhook, post it; return what was done.

    Args:
        home: BOT4_HOME.
        line: what to say, JSON values only.
        webhook: an http(s) address, or empty.
    """
    body = json.dumps(line)
    path = home / "alerts.jsonl"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(body + "\n")
    if not webhook:
        return f"written to {path}"
    if not webhook.startswith(("http://", "https://")):
        return f"written to {path}; {WEBHOOK} is no http(s) address and was not posted to"
    request = urllib.request.Request(  # noqa: S310 - http(s) only, see above
        webhook, body.encode(), {"Content-Type": "application/json"}, method="POST"
    )
    try:
        with urllib.request.urlopen(request, timeout=WEBHOOK_TIMEOUT_S):  # noqa: S310
            return f"written to {path} and posted"
    except OSError as error:
        return f"written to {path}; posting failed: {error}"


SENSORS = [
    retrain_on_new_candles,
    retrain_on_drift,
    retrain_on_likelihood,
    retrain_on_live_accuracy,
    retrain_on_restated_history,
    alert_on_failure,
]
