"""A drifted series makes a sensor train again, and the challenger it makes, a bad one, is refused.

So it is when its promotion is launched alone afterwards. On the models that the demo promoted: what trades stays as it was, to the byte.
"""

import shutil

import dagster as dg
import numpy as np
import polars as pl
import pytest

from bot4_pipelines.definitions import defs
from bot4_pipelines.defs import sensors
from bot4_pipelines.defs.assets import promoted_models
from bot4_pipelines.records import Folders, Records
from bot4_pipelines.workflow import Workflow
from bot4_runtime.candles.series import COLUMNS, CandleSeries
from bot4_runtime.candles.store import CandleStore
from bot4_runtime.domain.candle import SeriesId

HOUR = 3_600_000
KEPT_DAYS = 900
"""Days of history that the challenger learns from: a few minutes' work less."""
DRIFT_DAYS = 35
pytestmark = [
    pytest.mark.data,
    pytest.mark.slow,
    pytest.mark.long,
    pytest.mark.timeout(900),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


def longer(series: CandleSeries, drift: float) -> CandleSeries:
    """Go on with a month drawn from the last one's returns, one way where there is a drift."""
    rng = np.random.default_rng(6)
    month = series.rows(slice(len(series) - 24 * DRIFT_DAYS, len(series)))
    steps = np.diff(np.log(month.close), prepend=np.log(month.open[0]))
    blocks = rng.integers(0, len(steps) - 24, DRIFT_DAYS)
    drawn = (blocks[:, None] + np.arange(24)).ravel()
    close = series.close[-1] * np.exp(np.cumsum(steps[drawn] + drift * steps.std()))
    opened = np.concatenate([series.close[-1:], close[:-1]])
    up = month.high[drawn] / np.maximum(month.open, month.close)[drawn]
    down = month.low[drawn] / np.minimum(month.open, month.close)[drawn]
    tail = {
        "open": opened,
        "high": np.maximum(opened, close) * up,
        "low": np.minimum(opened, close) * down,
        "close": close,
        "volume": month.volume[drawn],
    }
    times = series.open_time_ms[-1] + HOUR * np.arange(1, len(close) + 1)
    return CandleSeries(
        series.id,
        np.concatenate([series.open_time_ms, times]),
        *(np.concatenate([getattr(series, name), tail[name]]) for name in COLUMNS),
    )


def offer(folder, store: CandleStore, ids: list[SeriesId], drifts: tuple[float, ...]) -> None:
    """Write a folder of candles, the end of what is stored and a month more, and empty the store."""
    folder.mkdir()
    for one, drift in zip(ids, drifts, strict=True):
        series = longer(store.read(one).rows(slice(-24 * KEPT_DAYS, None)), drift)
        columns = {"timestamp": pl.Series(series.open_time_ms).cast(pl.Datetime("ms", "UTC"))}
        columns |= {name: pl.Series(getattr(series, name)) for name in COLUMNS}
        pl.DataFrame(columns).write_parquet(folder / f"{one.symbol}.parquet")
    shutil.rmtree(store.root)
    store.root.mkdir()


@pytest.fixture
def home(real_demo, tmp_path, monkeypatch):
    """A copy of what the demo left: candles, records, promoted models, and the reference."""
    shutil.copytree(real_demo.home, tmp_path / "home", ignore=shutil.ignore_patterns("dagster"))
    shutil.copytree(real_demo.models, tmp_path / "models")
    monkeypatch.setenv("BOT4_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BOT4_MODELS", str(tmp_path / "models"))
    return Folders.from_environment()


def tick(instance):
    return sensors.retrain_on_drift(dg.build_sensor_context(instance=instance))


def run(instance, job, tags, **ops):
    return defs.resolve_job_def(job).execute_in_process(
        instance=instance,
        run_config={"ops": {name: {"config": config} for name, config in ops.items()}},
        tags={**tags, "bot4/started_by": "command line"},
        raise_on_error=False,
    )


def test_a_drifted_series_trains_again_and_a_bad_challenger_is_refused(
    home, tmp_path, monkeypatch
):
    before = (home.models / "current.json").read_bytes()
    store, records = CandleStore(home.candles), Records(home.work)
    held = [one for one in store.list_series() if one.interval == "1h"]
    pair = [one for one in held if one.symbol in {"BTCUSDT", "ETHUSDT"}]
    assert len(pair) == 2
    promoted = Workflow(home, lambda *_: None).training_reference().record.numbers
    folder = tmp_path / "candles"
    monkeypatch.delenv("BOT4_CANDLES_SOURCE", raising=False)
    monkeypatch.setenv("BOT4_CANDLES_DIR", str(folder))
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        quiet = tick(instance).skip_message
        print(f"before: {quiet}")
        assert "like training" in quiet
        offer(folder, store, pair, (0.0, 1.2))
        assert run(instance, "refresh_candles", {}).success
        assert [one["symbol"] for one in records.find("candles").numbers["by_symbol"]] == [
            "BTCUSDT",
            "ETHUSDT",
        ]

        request = tick(instance)
        assert isinstance(request, dg.RunRequest), request.skip_message
        print(f"the sensor asks for a training: {request.tags['bot4/why']}")
        assert "unlike training: ETHUSDT " in request.tags["bot4/why"]

        result = run(instance, "pipeline", request.tags, lstm_candidate={"iterations": 3})
        assert not result.success
        refused = [
            evaluation
            for event in result.all_events
            if event.event_type_value == "ASSET_CHECK_EVALUATION"
            and not (evaluation := event.asset_check_evaluation_data).passed
            and evaluation.blocking
        ]
        assert [(one.asset_key.to_user_string(), one.check_name) for one in refused] == [
            ("lstm_candidate", "gates_passed")
        ]
        print(f"its run refuses: {refused[0].description}")
        assert "needs >= " in refused[0].description
        done = {event.step_key for event in result.get_step_success_events()}
        assert "promoted_models" not in done
        assert (home.models / "current.json").read_bytes() == before
        assert records.find("training_reference").numbers == promoted

        alone = dg.materialize([promoted_models], instance=instance, raise_on_error=False)
        (failure,) = [event for event in alone.all_events if event.is_step_failure]
        said = sensors.innermost(failure)
        print(f"promotion alone refuses: {said}")
        assert "is not promoted: " in said
        assert (home.models / "current.json").read_bytes() == before

        with dg.DagsterInstance.ephemeral() as another:  # whatever becomes of that run's record
            assert "all but 0.0 days of these candles" in tick(another).skip_message
