"""Whoever replaces a champion must not be worse than it, on candles neither was fitted to."""

import json
import math

import msgspec
import numpy as np
import pytest
from gate_numbers import hmm_metrics, lstm_metrics

from bot4_pipelines.models import promote_pair
from bot4_pipelines.records import Folders
from bot4_pipelines.training import champion as champion_module
from bot4_pipelines.training.champion import card_section, compare, standing
from bot4_pipelines.training.dataset import INPUT_NAMES, symbol_rows, training_set
from bot4_pipelines.training.hmm_export import golden_of, hmm_golden, hmm_graph, seal
from bot4_pipelines.training.lstm import fit_lstm
from bot4_pipelines.training.lstm_export import lstm_graph
from bot4_pipelines.training.promotion import judge_against, promote
from bot4_pipelines.training.schedule import LstmSettings
from bot4_runtime.candles.series import CandleSeries
from bot4_runtime.candles.store import CandleStore
from bot4_runtime.domain.candle import Market, Origin
from bot4_runtime.domain.errors import ModelError
from bot4_runtime.features.schema import feature_schema_id
from bot4_runtime.regime.comparison import Comparison
from bot4_runtime.regime.hmm import HmmParameters
from bot4_runtime.regime.manifest import Cuts, HmmDefinition, Manifest, ModelKind
from bot4_runtime.regime.registry import ModelRegistry
from bot4_runtime.regime.signature import make_keys

NOW = 30_000_000_000
HOUR = 3_600_000
WINDOWS = {"short": 20, "long": 80}


@pytest.fixture(scope="module")
def networks(small_market) -> dict[str, bytes]:
    """Return small networks: four trained alike, two of them on other windows, one hardly."""
    graphs = {}
    for name, iterations, seed in (
        ("first", 60, 1), ("second", 60, 2), ("hasty", 3, 3), ("short", 60, 4), ("long", 60, 5),
    ):  # fmt: skip
        settings = LstmSettings(
            iterations=iterations, batch=8, hidden=16, layers=1, segment=100, seed=seed,
            check_every=iterations, check_windows=100, learning_rate=2e-2, averaging=0.9,
            window=WINDOWS.get(name, 50),
        )  # fmt: skip
        data = training_set(
            small_market.rows, small_market.params, small_market.cuts, segment=100,
            window=settings.window,
        )  # fmt: skip
        graphs[name] = lstm_graph(fit_lstm(data, settings), settings.window)
    return graphs


@pytest.fixture
def registry(tmp_path) -> ModelRegistry:
    return ModelRegistry(tmp_path / "models")


@pytest.fixture
def archive(registry, small_market, networks):
    """Archive a pair with numbers that pass every other gate."""

    def add(
        network: str = "", *, params: HmmParameters | None = None, **changes
    ) -> tuple[str, str]:
        params = params or small_market.params
        base = Manifest(**{
            "kind": ModelKind.HMM, "schema_id": feature_schema_id(), "feature_names": ("z",),
            "interval": "1h", "origin": Origin.SIMULATED, "market": Market.SPOT,
            "symbols": ("BTCUSDT", "ETHUSDT"), "cuts": small_market.cuts, "data_sha256": "",
            "metrics": hmm_metrics(), "created_ms": 0, "expires_ms": 10**13, "code_version": "",
            "golden": hmm_golden(hmm_graph(params), params),
            "definition": HmmDefinition.of(params, 72),
        } | changes)  # fmt: skip
        hmm = _put(registry, hmm_graph(params), base)
        if not network:
            return hmm, ""
        graph, window = networks[network], WINDOWS.get(network, 50)
        windows = np.random.default_rng(0).normal(size=(1, window, len(INPUT_NAMES)))
        lstm = msgspec.structs.replace(
            base, kind=ModelKind.LSTM, feature_names=INPUT_NAMES, hmm_sha256=hmm,
            temperature=1.0, definition=None, metrics=lstm_metrics(), window=window,
            golden=(golden_of(graph, {"features": windows.astype(np.float32)}),),
        )  # fmt: skip
        return hmm, _put(registry, graph, lstm)

    return add


def _put(registry: ModelRegistry, graph: bytes, manifest: Manifest) -> str:
    from bot4_pipelines.training.promotion import judge

    judged = msgspec.structs.replace(manifest, gates=tuple(judge(manifest)))
    return registry.add(seal(graph, judged), judged, "<html><p>card</p></html>")


@pytest.fixture
def candles(small_market):
    return lambda _: small_market.series


def test_a_hasty_challenger_is_refused_and_one_of_the_same_quality_is_not(
    registry, archive, candles
) -> None:
    first, second, hasty = (archive(name) for name in ("first", "second", "hasty"))
    promote(registry, "1h", *first, NOW, candles=candles)
    with pytest.raises(ModelError, match=r"is worse than the champion .* difference -0\.") as told:
        promote(registry, "1h", *hasty, NOW, candles=candles)
    assert "upper bound of challenger - champion" in str(told.value)
    assert registry.current("1h").shas == first
    assert "The challenger is worse" in card(registry, hasty)
    promote(registry, "1h", *second, NOW, candles=candles)
    assert registry.current("1h").shas == second
    (begun, replaced) = registry.activations("1h")
    assert begun.champion is None
    assert begun.note == "nothing was promoted for 1h before"
    assert "There was no champion: nothing was promoted" in card(registry, first)
    found = replaced.champion
    assert (found.champion_hmm, found.champion_lstm) == first
    assert found.symbols == ("BTCUSDT", "ETHUSDT")
    assert found.low <= found.difference <= found.high
    assert found.challenger - found.champion == pytest.approx(found.difference)
    assert f"{found.difference:+.4f}" in card(registry, second)
    assert card(registry, second).endswith("</html>")


def card(registry: ModelRegistry, pair: tuple[str, str]) -> str:
    return (registry.root / "archive" / (pair[1] or pair[0]) / "card.html").read_text()


def test_pairs_of_other_windows_replace_each_other_by_the_same_rule(
    registry, archive, candles
) -> None:
    """The pair is audited at its own window, and compared where both windows are whole."""
    first, short, long, hasty = (archive(name) for name in ("first", "short", "long", "hasty"))
    for pair in (first, short, long):
        promote(registry, "1h", *pair, NOW, candles=candles)
        assert registry.current("1h").shas == pair
    with pytest.raises(ModelError, match="is worse than the champion"):
        promote(registry, "1h", *hasty, NOW, candles=candles)
    assert [registry.manifest(lstm).window for _, lstm in (first, short, long)] == [50, 20, 80]
    found = registry.activations("1h")[-1].champion
    assert (found.champion_lstm, found.challenger) != (long[1], found.champion)
    assert found.rows == registry.activations("1h")[1].champion.rows


@pytest.mark.parametrize("names", [("short", "long"), ("long", "short")])
def test_two_windows_are_compared_on_the_rows_where_both_are_whole(
    registry, archive, small_market, names
) -> None:
    """By brute force, beside a gap in the test period that keeps the longer one silent longer."""
    torn = without(small_market.series[0], 5_200)
    pairs = [registry.open("1h", *archive(name), NOW) for name in names]
    found = compare(*pairs, [torn])
    rows = symbol_rows(torn, small_market.params)
    part = slice(4_800, len(torn))
    truth = champion_module.hindsight_labels(rows.table.z, champion_module.reference_hmm(), [part])
    run, whole = 0, []
    for at, valid in enumerate(rows.table.valid):
        run = run + 1 if valid else 0
        if run >= 80 and part.start + 200 <= at < part.stop - 24 and truth[at] >= 0:
            whole.append(at)
    asked = whole[::2]
    assert found.rows == len(asked) < (1_200 - 224) // 2 - 80
    right = []
    for pair in pairs:
        length = pair.lstm.manifest.window
        windows = np.array([rows.inputs[at + 1 - length : at + 1] for at in asked])
        (answers,) = pair.lstm.run({"features": windows.astype(np.float32)})
        right.append(float((answers.argmax(axis=1) == truth[asked]).mean()))
    assert [found.challenger, found.champion] == pytest.approx(right, abs=1e-12)


def without(series: CandleSeries, gone: int) -> CandleSeries:
    keep = np.arange(len(series)) != gone
    names = ("open_time_ms", "open", "high", "low", "close", "volume")
    return CandleSeries(series.id, *(getattr(series, name)[keep] for name in names))


def test_labels_are_of_the_reference_and_rows_of_both_tests_alone(
    registry, archive, small_market
) -> None:
    """By brute force: the accuracies are what one gets by naming the rows one by one."""
    later = msgspec.structs.replace(small_market.cuts, test_start_ms=5_000 * HOUR)
    one, other = archive(), archive(params=shifted(small_market.params), cuts=later)
    pairs = [registry.open("1h", *shas, NOW) for shas in (one, other)]
    found = compare(*pairs, small_market.series)
    assert found.from_ms == 5_000 * HOUR
    assert found.to_ms == small_market.cuts.end_ms
    reference = champion_module.reference_hmm()
    accuracies = []
    for pair in pairs:
        shares = []
        for rows in small_market.rows:
            times, z = rows.table.open_time_ms, rows.table.z
            part = slice(int(np.searchsorted(times, 5_000 * HOUR)), len(z))
            truth = champion_module.hindsight_labels(z, reference, [part])
            named = champion_module.filtered_regimes(z, pair.hmm.parameters(), [part])
            scored = np.arange(part.start + 200, part.stop - 24)[::2]
            shares.append(float((named[scored].argmax(axis=1) == truth[scored]).mean()))
        accuracies.append(float(np.mean(shares)))
    assert [found.challenger, found.champion] == pytest.approx(accuracies, abs=1e-12)
    assert found.rows == 2 * len(scored)


def shifted(params: HmmParameters) -> HmmParameters:
    return HmmParameters(params.means * 1.3, params.variances, params.transitions)


def test_a_comparison_that_cannot_be_made_refuses(registry, archive, small_market) -> None:
    first, second = archive("first"), archive("second")
    cut = [one.between(None, small_market.cuts.test_start_ms) for one in small_market.series]
    promote(registry, "1h", *first, NOW, candles=lambda _: cut)
    with pytest.raises(ModelError, match=r"cannot be compared .* ingest these candles"):
        promote(registry, "1h", *second, NOW, candles=lambda _: cut)
    foreign = archive("second", symbols=("XRPUSDT",))
    with pytest.raises(ModelError, match=r"symbols both know \(none\)"):
        promote(registry, "1h", *foreign, NOW, candles=lambda _: small_market.series)
    assert registry.current("1h").shas == first


def test_a_reason_sets_the_champion_aside_and_nothing_else(
    registry, archive, candles, small_market
) -> None:
    promote(registry, "1h", *archive("first"), NOW, candles=candles)
    hasty = archive("hasty")
    promote(registry, "1h", *hasty, NOW, candles=candles, despite="a drill")
    last = registry.activations("1h")[-1]
    assert last.note == "worse than the champion, promoted despite it: a drill"
    assert last.champion.difference < 0
    early = [small_market.series[0].rows(slice(0, 1_000))]
    promote(registry, "1h", *archive("first"), NOW, candles=lambda _: early, despite="no candles")
    assert "not compared" in registry.activations("1h")[-1].note
    assert registry.activations("1h")[-1].note.endswith("promoted despite it: no candles")
    bad = hmm_metrics()
    bad["test"]["accuracy"] = 0.5
    with pytest.raises(ModelError, match=r"test accuracy 0\.5"):
        promote(registry, "1h", *archive(metrics=bad), NOW, candles=candles, despite="a drill")


def test_what_does_not_hold_any_more_is_no_champion_and_is_said_so(
    registry, archive, candles
) -> None:
    expiring, hasty = archive("first", expires_ms=NOW + 1), archive("hasty")
    promote(registry, "1h", *expiring, NOW, candles=candles)
    with pytest.raises(ModelError, match="worse than the champion"):
        promote(registry, "1h", *hasty, NOW, candles=candles)
    promote(registry, "1h", *hasty, NOW + 1, candles=candles)
    assert "does not hold any more" in registry.activations("1h")[-1].note
    assert "expiry" in registry.activations("1h")[-1].note
    (registry.root / "archive" / hasty[1] / "model.onnx").write_bytes(b"torn")
    (registry.root / "archive" / archive("second")[1] / "card.html").unlink()
    promote(registry, "1h", *archive("second"), NOW, candles=candles)
    assert "sha256" in registry.activations("1h")[-1].note
    assert "There was no champion: what was promoted" in card(registry, archive("second"))


def test_the_pair_itself_another_market_and_simulation(registry, archive, candles) -> None:
    first = archive("first", origin=Origin.REAL)
    shas = (first[0], first[1])
    promote(registry, "1h", *first, NOW, candles=candles)
    manifest = registry.manifest(first[1])
    assert standing(registry, manifest, shas, NOW).why == "the pair is promoted already"
    margin = msgspec.structs.replace(manifest, market=Market.USDM)
    assert "another market, spot" in standing(registry, margin, ("a", "b"), NOW).why
    unreal = archive("second")
    with pytest.raises(ModelError, match=r"trained on simulated candles, the champion .* on real"):
        promote(registry, "1h", *unreal, NOW, candles=candles, despite="no such door")
    registry.activate("1h", *unreal, now_ms=NOW)
    promote(registry, "1h", *first, NOW, candles=candles)
    assert "simulated candles" in registry.activations("1h")[-1].note


@pytest.mark.parametrize("fate", ["another market", "expired", "torn", "unsigned", "unreadable"])
def test_real_models_that_do_not_stand_any_more_are_not_replaced_by_simulated_ones(
    registry, archive, candles, tmp_path, fate
) -> None:
    """Whatever became of them: an origin is not forgotten."""
    market = Market.USDM if fate == "another market" else Market.SPOT
    real = archive("first", origin=Origin.REAL, market=market, expires_ms=NOW + 1)
    unreal = archive("second")
    promote(registry, "1h", *real, NOW, candles=candles)
    folder = registry.root / "archive" / real[1]
    now_ms, told, guarded = NOW, r"the champion .* on real ones", registry
    if fate == "expired":
        now_ms += 1
    elif fate == "torn":
        (folder / "model.onnx").write_bytes(b"torn")
    elif fate == "unsigned":
        guarded = ModelRegistry(registry.root, make_keys(tmp_path / "keys"))
    elif fate == "unreadable":
        (folder / "manifest.json").write_bytes(b"{")
        (registry.root / "archive" / real[0] / "manifest.json").unlink()
        told = r"what the champion .* was trained on cannot be read"
    with pytest.raises(ModelError, match=told):
        promote(guarded, "1h", *unreal, now_ms, candles=candles, despite="no such door")
    assert registry.current("1h").shas == real


def test_where_both_keys_are_what_was_never_signed_is_promoted_and_signed(
    registry, archive, candles, tmp_path
) -> None:
    guarded = ModelRegistry(registry.root, make_keys(tmp_path / "keys"))
    for pair in (archive("first"), archive("second")):
        promote(guarded, "1h", *pair, NOW, candles=candles)
        assert guarded.load("1h", NOW).lstm_sha256 == pair[1]
    assert guarded.activations("1h")[-1].champion is not None


def test_a_pair_promoted_during_the_comparison_is_not_replaced_unseen(
    registry, archive, small_market
) -> None:
    first, second, hasty = (archive(name) for name in ("first", "second", "hasty"))
    promote(registry, "1h", *hasty, NOW, candles=lambda _: small_market.series)

    def meanwhile(_):
        registry.activate("1h", *second, now_ms=NOW)
        return small_market.series

    with pytest.raises(ModelError, match=f"{second[1][:12]} is promoted for 1h; expected"):
        promote(registry, "1h", *first, NOW, candles=meanwhile)
    assert registry.current("1h").shas == second
    promote(registry, "1h", *first, NOW, candles=lambda _: small_market.series)
    assert registry.activations("1h")[-1].champion.champion_lstm == second[1]


def test_the_command_audits_the_pair_on_the_stored_candles(
    registry, archive, small_market, tmp_path
) -> None:
    first = archive("first")
    folders = Folders(tmp_path / "home", registry.root)
    store = CandleStore(folders.candles)
    btc, eth = small_market.series
    for stored, says in ((None, "there are no candles"), (999, "ETHUSDT has 999 candles")):
        if stored is not None:
            store.write(eth.rows(slice(0, stored)))
        with pytest.raises(ModelError, match=says):
            promote_pair(folders, "1h", (first[0][:9], first[1][:9]), "a drill")
        assert registry.current("1h") is None
    store.write(btc.rows(slice(0, 1_000)))
    promoted = promote_pair(folders, "1h", (first[0][:9], first[1][:9]))
    assert promoted["lstm_sha256"] == first[1]


def test_only_a_difference_beyond_chance_refuses() -> None:
    fields = dict.fromkeys(("challenger", "champion", "difference", "low", "named_alike"), 0.5)
    told = Comparison(
        champion_hmm="a", champion_lstm="", symbols=("B",), from_ms=0, to_ms=1, rows=1, high=0.0,
        **fields,
    )  # fmt: skip
    assert judge_against(told).passed
    for high in (-1e-9, math.nan, -math.inf, math.inf):
        verdict = judge_against(msgspec.structs.replace(told, high=high))
        assert not verdict.passed
    assert "<td>a</tr>" in card_section(told, "<said>")
    assert "&lt;said&gt;" in card_section(None, "<said>")
    assert json.loads(msgspec.json.encode(told))["rows"] == 1


def test_cuts_that_leave_no_common_test_are_said_to(registry, archive, small_market) -> None:
    late = Cuts(
        train_start_ms=0, validation_start_ms=5_900 * HOUR, test_start_ms=5_990 * HOUR,
        end_ms=6_000 * HOUR,
    )  # fmt: skip
    pair = registry.open("1h", *archive(), NOW)
    after = registry.open("1h", *archive(cuts=late), NOW)
    with pytest.raises(ModelError, match="cannot be compared"):
        compare(pair, after, small_market.series)
