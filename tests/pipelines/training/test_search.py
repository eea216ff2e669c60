"""A search of settings: every trial counted and costed, gone on with, the data as it was."""

import shutil

import numpy as np
import pytest

from bot4_pipelines.step_numbers import search_numbers
from bot4_pipelines.training import search as s
from bot4_pipelines.training.dataset import training_set
from bot4_pipelines.training.search_plots import search_plots
from bot4_runtime.domain.errors import ConfigError, DataError

pytestmark = [
    # Optuna calls its constant liar experimental.
    pytest.mark.filterwarnings("ignore::optuna.exceptions.ExperimentalWarning"),
]
TINY = s.LstmSettings(
    iterations=12, batch=2, segment=60, warm=50, hidden=4, layers=1, check_every=2,
    check_from=0.1, patience=9, check_windows=200, soft_paths=0, seed=3,
)  # fmt: skip


@pytest.fixture(scope="module")
def data(small_market):
    made = training_set(
        small_market.rows, small_market.params, small_market.cuts, segment=60, window=50
    )
    return made, np.eye(5, dtype=np.float32)[np.maximum(made.labels, 0)]


@pytest.fixture(scope="module")
def found(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    told = []
    first = s.search(
        *data, folder, TINY, trials=2, workers=2, report=lambda *said: told.append(said)
    )
    again = s.search(*data, folder, TINY, trials=5, workers=1)
    return folder, first, again, told


def test_a_search_makes_the_trials_it_was_asked_for_and_goes_on_later(found, data):
    folder, first, again, told = found
    assert first.made == 2
    assert [one.number for one in first.trials] == [0, 1]
    assert told[-1] == ("trial 2 of 2", 1.0)
    assert again.made == 3
    assert again.trials[:2] == first.trials
    done = s.search(*data, folder, TINY, trials=5, workers=2)
    assert done.made == 0
    assert done.trials == again.trials
    assert s.known_trials(folder, TINY) == done
    assert s.known_trials(folder / "none", TINY) == s.SearchResult((), 0, 0)


def test_trials_that_begin_together_differ_and_repeat_from_search_to_search(data, tmp_path):
    """Whatever the workers: a trial's seed is its number's. Later draws follow what is known."""
    drawn = []
    for workers in (2, 1):
        folder = tmp_path / str(workers)
        done = s.search(*data, folder, TINY, trials=s.STARTUP, workers=workers)
        drawn.append([one.params for one in done.trials])
    assert drawn[0] == drawn[1]
    assert len({one["learning_rate"] for one in drawn[0]}) == s.STARTUP


def test_every_trial_says_its_settings_its_accuracy_and_its_cost(found):
    _, _, again, _ = found
    for trial in again.trials:
        assert trial.state in {"COMPLETE", "PRUNED"}
        assert set(trial.params) == set(s.SPACE)
        for name, (low, high, _) in s.SPACE.items():
            assert low <= trial.params[name] <= high
        assert 0.0 < trial.accuracy < 1.0
        assert trial.cpu_s > 0.0
        assert trial.iterations == 12 or trial.state == "PRUNED"
    assert len({trial.params["learning_rate"] for trial in again.trials}) == 5
    assert again.cpu_s == pytest.approx(sum(trial.cpu_s for trial in again.trials))
    assert again.best.accuracy == max(
        trial.accuracy for trial in again.trials if trial.state == "COMPLETE"
    )


def test_numbers_and_plots_show_the_search(found):
    _, _, again, _ = found
    numbers = search_numbers(again, "study")
    assert numbers["best_settings"] == again.best.params
    assert numbers["complete"] + numbers["pruned"] == 5
    assert numbers["cpu_seconds"] == round(again.cpu_s, 2)
    assert [row["trial"] for row in numbers["trials"]] == list(range(5))
    plots = search_plots(again)
    assert set(plots) == {"trials", "settings"}
    assert all(png.startswith(b"\x89PNG") for png in plots.values())
    assert search_plots(s.SearchResult((), 0, 0.0)) == {}
    assert search_numbers(s.SearchResult((), 0, 0.0), "study")["best_settings"] == {}


@pytest.fixture
def study(found, tmp_path):
    """A study of its own with the trials that were made."""
    shutil.copytree(found[0], tmp_path / "copy")
    return tmp_path / "copy"


def test_a_hopeless_trial_is_stopped(data, study):
    """Four trials at random and one, then one that names nothing right at its first look."""
    import optuna

    opened = s.open_study(study, TINY)
    trial = opened.ask()
    trial.report(0.0, 2)
    assert trial.should_prune()
    opened.tell(trial, state=optuna.trial.TrialState.PRUNED)
    assert s.search(*data, study, TINY, trials=6, workers=1).made == 0  # it counts


def test_what_a_killed_search_left_running_is_made_anew(data, study):
    s.open_study(study, TINY).ask()
    again = s.search(*data, study, TINY, trials=6, workers=1)
    assert again.made == 1
    assert [one.state for one in again.trials][5] == "FAIL"
    assert len(again.trials) == 7


def test_a_second_search_on_a_study_is_refused_and_harms_nothing(data, study):
    made, hard = data
    before = (study / s.DATA).read_bytes()
    refused = []

    def beside(*_):
        with pytest.raises(DataError, match="another search works on the study"):
            s.search(made, hard[:10], study, TINY, trials=9, workers=1)
        refused.append((study / s.DATA).read_bytes() == before)

    found = s.search(*data, study, TINY, trials=6, workers=1, report=beside)
    assert refused == [True]
    assert [one.state in {"COMPLETE", "PRUNED"} for one in found.trials] == [True] * 6
    assert s.search(*data, study, TINY, trials=6, workers=1).made == 0  # the lock is free again


def test_the_data_comes_back_with_its_targets_mixed(data, tmp_path):
    made, hard = data
    s.write_data(tmp_path / "d.npz", made, hard)
    back = s.read_data(tmp_path / "d.npz", 0.25)
    np.testing.assert_allclose(back.targets, 0.25 * made.targets + 0.75 * hard, atol=1e-6)
    np.testing.assert_array_equal(back.inputs, made.inputs)
    np.testing.assert_array_equal(back.windows, made.windows)
    assert back.targets.dtype == np.float32


def test_impossible_numbers_are_refused(data, tmp_path):
    for trials, workers in ((0, 1), (1, 0)):
        with pytest.raises(ConfigError, match="a search needs"):
            s.search(*data, tmp_path, TINY, trials=trials, workers=workers)
    with pytest.raises(ConfigError, match="at least 12 iterations"):
        s.search_settings(11, 1)
    assert s.search_settings(600, 1).check_every == 50


def test_trials_keep_the_window_that_is_asked_for(data, tmp_path):
    """A trial's accuracy is that of the same training on that window, and on no other."""
    assert (s.search_settings(12, 1, 20).window, s.search_settings(12, 1).window) == (20, 50)
    wider = s.replace(TINY, hidden=16, iterations=40)
    base = s.replace(wider, window=4)
    (trial,) = s.search(*data, tmp_path, base, trials=1, workers=1).trials
    assert "window" not in trial.params
    learnt = s.read_data(tmp_path / s.DATA, trial.params["soft_share"])

    def best(settings):
        looks = s.fit_lstm(learnt, s.replace(settings, **trial.params)).history
        return max(look["validation_accuracy"] for look in looks)

    assert trial.accuracy == best(base) != best(wider)


def test_trials_that_all_fail_are_an_error_with_its_reason(data, tmp_path, small_market):
    made, hard = data
    with pytest.raises(DataError, match="all 2 trials failed; the last said"):
        s.search(made, hard[:10], tmp_path, TINY, trials=2, workers=2)
