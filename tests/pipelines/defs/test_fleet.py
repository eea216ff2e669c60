"""Series by year, features by series, models by interval: in one process, on small markets."""

from base64 import b64encode
from datetime import UTC, datetime

import dagster as dg
import numpy as np
import polars as pl
import pytest

from bot4_pipelines.definitions import defs
from bot4_pipelines.defs import fleet as parts
from bot4_pipelines.defs import fleet_models as assets
from bot4_pipelines.defs.checks import CANDLE_CHECKS
from bot4_pipelines.fleet import Fleet, SeriesPart
from bot4_pipelines.ingest.reach import Reach
from bot4_pipelines.records import Folders, Record
from bot4_pipelines.steps import Outcome
from bot4_pipelines.training.schedule import Schedule
from bot4_pipelines.workflow import Workflow
from bot4_runtime.candles.resample import resample
from bot4_runtime.candles.series import COLUMNS, CandleSeries
from bot4_runtime.candles.simulated import SimulatedMarket
from bot4_runtime.candles.store import CandleStore
from bot4_runtime.domain.candle import Market, Origin, SeriesId
from bot4_runtime.domain.errors import ConfigError, DataError, StoreBusy, VenueUnreachable
from bot4_runtime.regime.registry import ModelRegistry

HOUR = 3_600_000
START = 1_577_836_800_000  # 2020-01-01
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
pytestmark = [
    pytest.mark.filterwarnings(f"ignore::{kind}")
    for kind in ("DeprecationWarning", "ResourceWarning", "FutureWarning", "UserWarning")
]


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """A home whose source is a folder of two symbols' 6h candles, three years of them."""
    source = tmp_path / "source"
    source.mkdir()
    for seed, symbol in enumerate(("BTCUSDT", "ETHUSDT")):
        one = SimulatedMarket(seed).series(symbol, "6h", START, START + 3 * 365 * 24 * HOUR)
        columns = {name: getattr(one, name) for name in COLUMNS}
        frame = pl.DataFrame({"timestamp": one.open_time_ms, **columns})
        frame.write_parquet(source / f"{symbol}.parquet")
    monkeypatch.setenv("BOT4_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("BOT4_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("BOT4_CANDLES_DIR", str(source))
    return Folders.from_environment()


def silent(message, share):
    assert 0.0 <= share <= 1.0, message


def launch(instance, selection, *, key=None, between=None, ops=None):
    """Materialise assets for one partition, or for a rectangle of them in one run."""
    job = dg.define_asset_job("some", selection=selection)
    tags = None
    if between is not None:
        first, last = (f"dagster/asset_partition_range_{edge}" for edge in ("start", "end"))
        tags = dict(zip((first, last), between, strict=True))
    return (
        dg.Definitions(assets=assets.FLEET_ASSETS, jobs=[job], executor=dg.in_process_executor)
        .resolve_job_def("some")
        .execute_in_process(
            instance=instance,
            partition_key=key,
            tags=tags,
            run_config=QUIET | {"ops": ops or {}},
            raise_on_error=False,
        )
    )


def words_of(result):
    return " ".join(
        event.step_failure_data.error.to_string()
        for event in result.all_events
        if event.is_step_failure
    )


def test_one_backfill_run_ingests_series_and_years_and_features_follow(folders):
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("series", ["BTCUSDT_6h", "ETHUSDT_6h"])
        done = launch(instance, ["series_candles"], between=("BTCUSDT_6h|2020", "ETHUSDT_6h|2021"))
        assert done.success, words_of(done)
        told = {
            event.partition: event.step_materialization_data.materialization.metadata
            for event in done.all_events
            if event.is_step_materialization
        }
        keys = [
            f"{symbol}_6h|{year}" for symbol in ("BTCUSDT", "ETHUSDT") for year in (2020, 2021)
        ]
        assert sorted(told) == keys
        assert [told[key]["candles"].value for key in keys] == [4 * 366, 4 * 365] * 2
        checks = {one.check_name: one for one in done.get_asset_check_evaluations()}
        assert all(checks[spec.name].passed for spec in CANDLE_CHECKS if spec.blocking)
        assert checks["history_unchanged"].passed
        features = launch(instance, ["series_features"], between=("BTCUSDT_6h", "ETHUSDT_6h"))
        assert features.success, words_of(features)
    store = CandleStore(folders.candles)
    assert [one.partition for one in store.list_series()] == ["BTCUSDT_6h", "ETHUSDT_6h"]
    for one in store.list_series():
        assert (folders.work / "fleet/6h/features" / f"{one.key}.parquet").is_file()


def test_models_of_an_interval_are_made_beside_the_one_machine_pipeline(folders, monkeypatch):
    monkeypatch.delenv("BOT4_CANDLES_DIR")
    monkeypatch.setenv("BOT4_CANDLES_SOURCE", "simulated")
    fleet = Fleet(folders, silent)
    for symbol in ("BTCUSDT", "ETHUSDT"):
        for year in (2022, 2023, 2024):
            fleet.candles(SeriesPart(symbol, "6h"), year)
    names = ["BTCUSDT_6h", "ETHUSDT_6h", "NEWUSDT_6h", "BTCUSDT_1d"]
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("series", names)
        instance.add_dynamic_partitions("interval", ["6h"])
        done = launch(instance, ["interval_hmm", "interval_labels"], key="6h")
        checks = {one.check_name: one for one in done.get_asset_check_evaluations()}
        assert "pool_complete" in checks, words_of(done)
        assert not checks["pool_complete"].passed
        assert checks["pool_complete"].metadata["left_out"].value == ["NEWUSDT_6h"]
        assert "gates_passed" in checks
        hmm = instance.get_latest_materialization_event(dg.AssetKey("interval_hmm"))
        assert hmm is not None
        pool = hmm.asset_materialization.metadata["pool"].value
        assert [row["symbol"] for row in pool] == ["BTCUSDT", "ETHUSDT"]
    archived = {path.name for path in (folders.models / "archive").iterdir()}
    flow = fleet.models("6h")
    assert flow.records.need("hmm_candidate", "interval_hmm").content in archived
    assert flow.records.root == folders.home / "pipelines/fleet/6h"
    assert not list((folders.home / "pipelines").glob("*.json"))

    # What comes while the LSTM learns was not learnt from.
    store = CandleStore(folders.candles)
    first = SeriesId(Origin.SIMULATED, Market.SPOT, "BTCUSDT", "6h")

    def restates(message, share):
        if message.startswith("training: step 1/"):
            columns = {name: getattr(store.read(first), name).copy() for name in COLUMNS}
            columns["volume"][5] *= 2.0
            store.write(CandleSeries(first, store.read(first).open_time_ms, *columns.values()))

    flow.hindsight_labels()  # a gate refused the HMM, so that the run ended there
    made = Workflow(flow.folders, restates).lstm_candidate(Schedule.QUICK, iterations=1)
    had = made.record.numbers["trained_on"]
    (restated,) = store.restatements(first)
    assert had["at_ms"] < restated.at_ms
    assert (
        had["content"]
        == ModelRegistry(folders.models)
        .manifest(flow.records.need("hmm_candidate", "").content)
        .data_sha256
    )
    assert had["candles"] == sum(row["candles"] for row in pool)

    # Features made anew since the HMM was fitted are not the LSTM's.
    fleet.candles(SeriesPart("BTCUSDT", "6h"), 2021)
    fleet.features(SeriesPart("BTCUSDT", "6h"))
    with pytest.raises(DataError, match=r"learnt from other features .*'interval_hmm'"):
        flow.lstm_candidate(Schedule.QUICK, iterations=2)


def test_the_checks_of_a_run_speak_of_all_its_parts(folders, tmp_path):
    path = tmp_path / "source" / "BTCUSDT.parquet"
    frame = pl.read_parquet(path)
    volume = frame["volume"].to_numpy().copy()
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("series", ["BTCUSDT_6h"])
        years = ("BTCUSDT_6h|2020", "BTCUSDT_6h|2022")
        assert launch(instance, ["series_candles"], between=years).success
        gaps = np.r_[10:14, 4 * 366 + 10]  # four candles of 2020 go, and one of 2021
        volume[[50, 4 * 366 + 50]] += 1.0
        frame.with_columns(volume=volume)[np.setdiff1d(np.arange(len(frame)), gaps)].write_parquet(
            path
        )
        done = launch(instance, ["series_candles"], between=years)
    checks = {one.check_name: one for one in done.get_asset_check_evaluations()}
    gap, unchanged = checks["gap"], checks["history_unchanged"]
    assert gap.metadata["rows"].value == 5
    of_2020 = Fleet(folders, silent)._records(SeriesPart("BTCUSDT", "6h")).root
    picture = of_2020 / "plots" / "candles-2020" / "finding GAP.png"
    assert b64encode(picture.read_bytes()).decode() in gap.metadata["worst"].value
    assert unchanged.metadata["candles"].value == 2
    assert len(unchanged.metadata["first_values"].records) == 2


def test_a_pool_is_the_same_until_its_candles_change(folders):
    fleet = Fleet(folders, silent)
    part = SeriesPart("BTCUSDT", "6h")
    fleet.candles(part, 2020)
    first = fleet.pool("6h", [part])
    before = {path: path.stat().st_mtime_ns for path in first.flow.records.root.glob("*.json")}
    assert sorted(path.name for path in before) == ["candles.json", "features.json"]
    content = first.flow.records.need("candles", "").content
    assert fleet.candles(part, 2020).reused
    fleet.pool("6h", [part])
    assert {path: path.stat().st_mtime_ns for path in before} == before
    fleet.candles(part, 2021)
    more = fleet.pool("6h", [part]).flow.records.need("candles", "")
    assert more.numbers["candles"] == 4 * 731
    assert more.content != content


def test_a_restated_year_says_what_changed_and_stops_nothing(folders, tmp_path):
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("series", ["BTCUSDT_6h"])
        assert launch(instance, ["series_candles"], key="BTCUSDT_6h|2021").success
        path = tmp_path / "source" / "BTCUSDT.parquet"
        frame = pl.read_parquet(path)
        row = 4 * 400
        volume = frame["volume"].to_numpy().copy()
        volume[row] += 1.0
        frame.with_columns(volume=volume).write_parquet(path)
        done = launch(instance, ["series_candles"], key="BTCUSDT_6h|2021")
        assert done.success
        (check,) = [
            one
            for one in done.get_asset_check_evaluations()
            if one.check_name == "history_unchanged"
        ]
    assert not check.passed
    assert check.severity is dg.AssetCheckSeverity.WARN
    assert check.metadata["candles"].value == 1
    (told,) = check.metadata["first_values"].records
    assert told.data["old"] + 1.0 == pytest.approx(told.data["new"])
    one = SeriesId(Origin.REAL, Market.SPOT, "BTCUSDT", "6h")
    (line,) = CandleStore(folders.candles).restatements(one)
    assert line.source == "folder source"
    assert line.open_time_ms == told.data["open_time_ms"]


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("BTCUSDT", "expected SYMBOL_INTERVAL as in BTCUSDT_1h"),
        ("BTCUSDT_7h", "is no interval"),
        ("btcusdt_1h", "expected capitals"),
        ("BTC-USDT_1h", "is no symbol"),
        ("_1h", "is no symbol"),
    ],
)
def test_a_partition_that_is_no_series_is_refused_and_not_tried_again(folders, key, says):
    with pytest.raises(ConfigError, match=says):
        SeriesPart.of(key)
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("series", [key])
        done = launch(instance, ["series_candles"], key=f"{key}|2020")
    assert not done.success
    assert says in words_of(done)
    assert not [event for event in done.all_events if event.is_step_up_for_retry]


def test_a_key_that_is_a_series_comes_back():
    part = SeriesPart.of("1000PEPEUSDT_15m")
    assert (part.symbol, part.interval, part.key) == ("1000PEPEUSDT", "15m", "1000PEPEUSDT_15m")


def test_a_longer_interval_is_made_of_the_stored_shorter_one(folders, monkeypatch):
    import bot4_pipelines.ingest.source as room

    fleet = Fleet(folders, silent)
    fleet.candles(SeriesPart("BTCUSDT", "6h"), 2020)
    monkeypatch.delenv("BOT4_CANDLES_DIR")
    monkeypatch.setenv("BOT4_ARCHIVE_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("BOT4_REST_URL", "http://127.0.0.1:1")
    offline = Fleet(folders, silent)
    outcome = offline.candles(SeriesPart("BTCUSDT", "1d"), 2020)
    assert outcome.record.numbers["candles"] == 366
    store = CandleStore(folders.candles)
    six, day = (SeriesId(Origin.REAL, Market.SPOT, "BTCUSDT", one) for one in ("6h", "1d"))
    np.testing.assert_array_equal(store.read(day).close, resample(store.read(six), "1d").close)
    with pytest.raises(VenueUnreachable, match="no shorter candles of it are stored"):
        offline.candles(SeriesPart("ETHUSDT", "1d"), 2020)
    assert Reach(archive=False, rest=False).any is False
    monkeypatch.setenv("BOT4_CANDLES_SOURCE", "stored")
    assert room.choose_source(interval="1d").kind is room.SourceKind.STORED
    assert Fleet(folders, silent).candles(SeriesPart("BTCUSDT", "3d"), 2020).record.numbers[
        "candles"
    ] == len(resample(store.read(six), "3d"))


def test_a_year_without_candles_is_empty_and_a_series_without_any_is_named(folders):
    fleet = Fleet(folders, silent)
    part = SeriesPart("BTCUSDT", "6h")
    assert fleet.candles(part, 2018).record.numbers["candles"] == 0
    with pytest.raises(DataError, match="has none; materialise"):
        fleet.features(part)
    with pytest.raises(DataError, match="no series of 6h has candles"):
        fleet.pool("6h", [part])


def test_mark_prices_and_funding_have_stores_of_their_own(folders, tmp_path, monkeypatch):
    from bot4_runtime.candles.funding import FundingStore

    monkeypatch.setenv("BOT4_MARK_DIR", str(tmp_path / "source"))
    monkeypatch.setenv("BOT4_FUNDING_DIR", str(tmp_path / "funding"))
    (tmp_path / "funding").mkdir()
    frame = pl.DataFrame({"timestamp": [START, START + 8 * HOUR], "funding_rate": [1e-4, -1e-4]})
    frame.write_parquet(tmp_path / "funding" / "BTCUSDT.parquet")
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("series", ["BTCUSDT_6h"])
        instance.add_dynamic_partitions("perpetual", ["BTCUSDT", "ETHUSDT"])
        mark = launch(instance, ["series_mark"], key="BTCUSDT_6h|2021")
        assert mark.success, words_of(mark)
        funding = launch(instance, ["funding_rates"], key="BTCUSDT")
        assert funding.success, words_of(funding)
        missing = launch(instance, ["funding_rates"], key="ETHUSDT")
        assert "no funding of ETHUSDT" in words_of(missing)
        told = instance.get_latest_materialization_event(dg.AssetKey("funding_rates"))
    assert told.asset_materialization.metadata["rates"].value == 2
    one = SeriesId(Origin.REAL, Market.USDM, "BTCUSDT", "6h")
    assert len(CandleStore(folders.mark).read(one)) == 4 * 365
    assert len(FundingStore(folders.funding).read("BTCUSDT")) == 2
    assert CandleStore(folders.candles).list_series() == []


def test_a_series_of_two_origins_is_not_learnt_from(folders, monkeypatch):
    fleet = Fleet(folders, silent)
    part = SeriesPart("BTCUSDT", "6h")
    fleet.candles(part, 2021)
    monkeypatch.delenv("BOT4_CANDLES_DIR")
    monkeypatch.setenv("BOT4_CANDLES_SOURCE", "simulated")
    Fleet(folders, silent).candles(part, 2022)
    with pytest.raises(DataError, match=r"is several series .*choose one source"):
        fleet.features(part)
    other = SeriesPart("ETHUSDT", "6h")
    Fleet(folders, silent).candles(other, 2022)
    ada = SeriesPart("BNBUSDT", "6h")
    monkeypatch.delenv("BOT4_CANDLES_SOURCE")
    monkeypatch.setenv("BOT4_CANDLES_DIR", str(folders.home.parent / "source"))
    path = folders.home.parent / "source" / "BTCUSDT.parquet"
    path.rename(path.with_name("BNBUSDT.parquet"))
    fleet.candles(ada, 2020)
    with pytest.raises(DataError, match="are of several markets"):
        fleet.pool("6h", [other, ada])


def test_what_may_pass_by_itself_is_tried_again_and_nothing_else():
    for passing in (VenueUnreachable, StoreBusy):
        with pytest.raises(passing), parts.told():
            raise passing("gone for a moment")
    with pytest.raises(dg.Failure, match="DataError: torn") as failed, parts.told():
        raise DataError("torn")
    assert not failed.value.allow_retries


def test_the_sensor_adds_what_the_settings_name_and_says_why_not(monkeypatch):
    with dg.DagsterInstance.ephemeral() as instance:

        def tick():
            return parts.fleet_partitions(dg.build_sensor_context(instance=instance))

        assert tick().skip_message == "BOT4_SYMBOLS names no symbol"
        monkeypatch.setenv("BOT4_SYMBOLS", "BTCUSDT,ETHUSDT")
        monkeypatch.setenv("BOT4_INTERVALS", "1h 4h")
        asked = {one.partitions_def_name: one for one in tick().dynamic_partitions_requests}
        assert set(asked) == {"series", "interval"}
        assert sorted(asked["series"].partition_keys) == [
            "BTCUSDT_1h", "BTCUSDT_4h", "ETHUSDT_1h", "ETHUSDT_4h",
        ]  # fmt: skip
        for one in asked.values():
            instance.add_dynamic_partitions(one.partitions_def_name, one.partition_keys)
        assert tick().skip_message == "all 4 series and 2 intervals are there"
        monkeypatch.setenv("BOT4_CANDLES_MARKET", " USDM")
        (request,) = tick().dynamic_partitions_requests
        assert request.partitions_def_name == "perpetual"
        assert list(request.partition_keys) == ["BTCUSDT", "ETHUSDT"]
        monkeypatch.setenv("BOT4_SYMBOLS", "BTC-USDT")
        assert "is no symbol" in tick().skip_message
        monkeypatch.setenv("BOT4_SYMBOLS", "BTCUSDT")
        monkeypatch.setenv("BOT4_CANDLES_MARKET", "coinm")
        assert "BOT4_CANDLES_MARKET is 'coinm'; expected one of" in tick().skip_message


def test_the_hourly_schedule_asks_for_the_years_that_may_have_new_candles():
    with dg.instance_for_test() as instance:
        moment = datetime(2026, 1, 9, 0, 4, tzinfo=UTC)

        def tick(moment=moment):
            return parts.fleet_candles_hourly(
                dg.build_schedule_context(instance=instance, scheduled_execution_time=moment)
            )

        assert "no series yet" in tick().skip_message
        instance.add_dynamic_partitions("series", ["ETHUSDT_4h", "BTCUSDT_1h"])
        assert [request.partition_key for request in tick()] == [
            "BTCUSDT_1h|2026",
            "ETHUSDT_4h|2026",
        ]
        assert len({request.run_key for request in tick()}) == 2
        # The last hour of a year closes in the next; its last week on the 7th at the latest.
        for day, hour in ((1, 0), (1, 6), (7, 23)):
            early = tick(datetime(2026, 1, day, hour, 4, tzinfo=UTC))
            assert [request.partition_key for request in early] == [
                "BTCUSDT_1h|2025",
                "BTCUSDT_1h|2026",
                "ETHUSDT_4h|2025",
                "ETHUSDT_4h|2026",
            ]
            assert len({request.run_key for request in early}) == 4


def test_the_weekly_schedule_trains_every_interval():
    asked = assets.fleet_models_weekly
    monday = datetime(2026, 11, 30, 4, 20, tzinfo=UTC)
    with dg.instance_for_test() as instance:
        context = dg.build_schedule_context(instance=instance, scheduled_execution_time=monday)
        assert "no interval yet" in asked(context).skip_message
        instance.add_dynamic_partitions("interval", ["4h", "1h"])
        requests = asked(context)
        assert [one.partition_key for one in requests] == ["1h", "4h"]
        assert {one.run_key for one in requests} == {"1h 2026-11-30", "4h 2026-11-30"}
        assert {one.tags["dagster/max_runtime"] for one in requests} == {"7200"}


def test_a_leak_blocks_an_intervals_models(folders, monkeypatch):
    """The candidate passes its gates and looks ahead; nothing after it is made in its run."""
    leak = {"symbol": "BTCUSDT", "column": "rsi", "says": "BTCUSDT rsi: 2 rows change"}

    def outcome(**numbers):
        made = Record(
            step="x", stamp="s", content="c", finished_ms=1, seconds=0.1, numbers=numbers
        )
        return lambda *_, **__: Outcome(made, True, folders.work)

    good = [{"passed": True, "says": "fine"}]
    monkeypatch.setattr(Workflow, "lstm_candidate", outcome(gates=good, goals=good))
    monkeypatch.setattr(
        Workflow, "leak_audit", outcome(leaks=[leak], left_out=[], values_compared=9, moments=2)
    )
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("interval", ["6h"])
        done = launch(instance, ["interval_lstm", "interval_models"], key="6h")
    assert not done.success
    failed = [one for one in done.get_asset_check_evaluations() if not one.passed]
    assert [(one.check_name, one.blocking) for one in failed] == [("nothing_looks_ahead", True)]
    assert failed[0].description == leak["says"]
    assert "interval_models" not in {event.step_key for event in done.get_step_success_events()}


def test_fleet_assets_are_described_owned_grouped_and_retried():
    graph = defs.resolve_asset_graph()
    for asset in assets.FLEET_ASSETS:
        node = graph.get(asset.key)
        assert len(node.description) > 40
        assert node.owners == ["team:bot4"]
        assert node.kinds
        assert node.group_name in {"fleet", "fleet_models", "perpetuals"}
        assert node.metadata["dagster/column_schema"].columns
        assert node.pools in ({"store"}, {"training"})
        if node.group_name == "fleet_models" or asset in (
            parts.series_candles,
            parts.series_features,
        ):
            stale = node.freshness_policy
            assert stale.warn_window.to_timedelta() < stale.fail_window.to_timedelta()
        policy = asset.op.retry_policy
        assert asset is assets.interval_models or policy.backoff is dg.Backoff.EXPONENTIAL
    for name in ("series_candles", "series_features"):
        assert graph.get(dg.AssetKey(name)).backfill_policy == dg.BackfillPolicy.single_run()
    blocking = {
        (spec.asset_key.to_user_string(), spec.name)
        for asset in assets.FLEET_ASSETS
        for spec in asset.check_specs
        if spec.blocking
    }
    assert {
        *(("series_candles", spec.name) for spec in CANDLE_CHECKS if spec.blocking),
        ("interval_hmm", "gates_passed"),
        ("interval_lstm", "gates_passed"),
        ("interval_lstm", "nothing_looks_ahead"),
    } <= blocking
    for one in (*assets.FLEET_SCHEDULES, *parts.FLEET_SENSORS):
        assert one.default_status.value == "STOPPED"
