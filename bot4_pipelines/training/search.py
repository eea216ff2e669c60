"""Searches settings of the LSTM: trials on a process pool, pruned, resumable, with their cost.

A trial is one training, judged by its best look at the validation windows; the test range is not
looked at. The sampler is Optuna's tree-structured Parzen estimator, the pruner stops a trial whose
look is below the median of earlier trials' at the same step. The study is a journal file, so a
search that was killed goes on where it stopped; one search at a time has a study. Nothing found
here is used by itself.
"""

import fcntl
import multiprocessing
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import msgspec
import numpy as np

from bot4_pipelines.progress import Report
from bot4_pipelines.training.candidates import Material, hmm_parameters
from bot4_pipelines.training.dataset import (
    CLASSES,
    Scaler,
    TrainingSet,
    simulated_shares,
    training_set,
)
from bot4_pipelines.training.lstm import fit_lstm
from bot4_pipelines.training.schedule import LstmSettings
from bot4_runtime.domain.errors import ConfigError, DataError
from bot4_runtime.regime.manifest import WINDOW
from bot4_runtime.regime.registry import ModelRegistry

if TYPE_CHECKING:
    import optuna

SPACE: Final[Mapping[str, tuple[float, float, bool]]] = {
    "learning_rate": (1e-3, 1e-2, True),
    "dropout": (0.0, 0.4, False),
    "weight_decay": (1e-5, 1e-2, True),
    "rise": (0.1, 0.4, False),
    "averaging": (0.98, 0.999, False),
    "soft_share": (0.0, 1.0, False),
}
"""Setting to (least, largest, whether its logarithm is drawn evenly)."""
LOOKS: Final = 6
"""Looks at the validation windows in a trial: where it can be stopped."""
STARTUP: Final = 4
"""Trials drawn at random and never stopped, before sampler and pruner have seen anything."""
STUDY: Final = "study.jsonl"
DATA: Final = "data.npz"
LOCK: Final = "lock"


@dataclass(frozen=True)
class Trial:
    """One training of a search.

    Attributes:
        state: ``COMPLETE``, ``PRUNED`` or ``FAIL``.
        accuracy: best look, share of validation windows named right; None when there was none.
        iterations: steps until it ended.
        cpu_s: processor seconds.
        params: settings by name.
    """

    number: int
    state: str
    accuracy: float | None
    iterations: int
    cpu_s: float
    params: dict[str, float]


@dataclass(frozen=True)
class SearchResult:
    """All trials of a study so far.

    Attributes:
        trials: in their order.
        made: how many of them this call made; the others were there.
        cpu_s: processor seconds of all trials.
    """

    trials: tuple[Trial, ...]
    made: int
    cpu_s: float

    @property
    def best(self) -> Trial | None:
        """The complete trial with the highest accuracy."""
        whole = [one for one in self.trials if one.state == "COMPLETE"]
        return max(whole, key=lambda one: one.accuracy or 0.0, default=None)


def search(
    data: TrainingSet,
    hard: np.ndarray,
    folder: Path,
    base: LstmSettings,
    *,
    trials: int,
    workers: int,
    report: Report = lambda *_: None,
) -> SearchResult:
    """Bring a study to a number of trials.

    Args:
        data: what trials learn from; its targets are the simulated shares alone.
        hard: float32[N, 5], the hard labels, which a trial mixes in by its soft share.
        folder: of the study; the same folder goes on with the same study.
        base: what trials have in common: iterations, batch, seed.
        trials: whole or stopped ones wanted in all; failed ones do not count.
        workers: processes.
        report: told of the progress.

    Raises:
        ConfigError: a number of trials or workers that cannot be.
        DataError: another search has the study, or every trial of this call failed; names the
            last reason.
    """
    if trials < 1 or workers < 1:
        raise ConfigError(f"a search needs trials and workers; got {trials} and {workers}")
    with _alone(folder):
        write_data(folder / DATA, data, hard)
        _bury_the_unfinished(folder, base)
        missing = trials - _counted(folder, base)
        made, reason = 0, ""
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["torch", "optuna", __name__])
        with ProcessPoolExecutor(min(workers, max(missing, 1)), mp_context=context) as pool:
            settings = msgspec.json.encode(_plain(base))
            asked = [pool.submit(_one_trial, folder, settings) for _ in range(max(missing, 0))]
            for done in as_completed(asked):
                made += 1
                reason = done.result() or reason
                report(f"trial {made} of {missing}", made / missing)
        found = _trials(folder, base)
    if made and all(one.state == "FAIL" for one in found[-made:]):
        raise DataError(f"all {made} trials failed; the last said: {reason}")
    return SearchResult(trials=found, made=made, cpu_s=sum(one.cpu_s for one in found))


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Hold a study's lock, which ends with the process.

    Raises:
        DataError: another search holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise DataError(
                f"another search works on the study {folder}; expected one at a time: wait until "
                "it is done, then ask again for the trials that are missing. Other iterations or "
                "another seed have a study of their own"
            ) from error
        yield


def known_trials(folder: Path, base: LstmSettings) -> SearchResult:
    """Return the trials of a study as it stands; none when there is no study."""
    found = _trials(folder, base) if (folder / STUDY).is_file() else ()
    return SearchResult(trials=found, made=0, cpu_s=sum(one.cpu_s for one in found))


# ------------------------------------------------------------------------ one trial
def _one_trial(folder: Path, settings: bytes) -> str:
    """Make one trial in this process; return why it failed, or nothing."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    base = LstmSettings(**msgspec.json.decode(settings))
    study = open_study(folder, base)
    trial = study.ask()
    study.sampler = _sampler(base.seed + trial.number)
    began = time.process_time()
    seen: dict[str, Any] = {"iterations": 0, "best": None}
    state, why = optuna.trial.TrialState.COMPLETE, ""
    try:
        _train(trial, base, folder, seen)
    except optuna.TrialPruned:
        state = optuna.trial.TrialState.PRUNED
    except Exception as error:  # noqa: BLE001 - outermost loop of a worker: told, and counted
        state, why = optuna.trial.TrialState.FAIL, f"{type(error).__name__}: {error}"
        trial.set_user_attr("why", why)
    trial.set_user_attr("cpu_s", time.process_time() - began)
    trial.set_user_attr("iterations", seen["iterations"])
    best = seen["best"]
    if state == optuna.trial.TrialState.COMPLETE:
        study.tell(trial, best)
    else:
        study.tell(trial, state=state)
    return why


def _train(trial: "optuna.Trial", base: LstmSettings, folder: Path, seen: dict[str, Any]) -> None:
    import optuna

    drawn: dict[str, Any] = {
        name: trial.suggest_float(name, low, high, log=log)
        for name, (low, high, log) in SPACE.items()
    }
    settings = replace(base, **drawn)
    data = read_data(folder / DATA, settings.soft_share)

    def progress(iteration: int, iterations: int, numbers: Mapping[str, float]) -> None:
        seen["iterations"] = iteration
        accuracy = numbers.get("validation_accuracy")
        if accuracy is None:
            return
        seen["best"] = max(seen["best"] or 0.0, accuracy)
        trial.report(accuracy, iteration)
        if iteration < iterations and trial.should_prune():
            raise optuna.TrialPruned

    fit_lstm(data, settings, progress)


def open_study(folder: Path, base: LstmSettings) -> "optuna.Study":
    """Open the study of a folder, or begin it; sampler and pruner are this process's own.

    A trial is drawn with the seed of its number: trials that begin together differ.
    """
    import optuna
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend

    return optuna.create_study(
        storage=JournalStorage(JournalFileBackend(str(folder / STUDY))),
        study_name="lstm",
        direction="maximize",
        load_if_exists=True,
        sampler=_sampler(base.seed),
        pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP),
    )


def _sampler(seed: int) -> "optuna.samplers.TPESampler":
    import optuna

    return optuna.samplers.TPESampler(
        seed=seed % 2**32, n_startup_trials=STARTUP, constant_liar=True
    )


def _bury_the_unfinished(folder: Path, base: LstmSettings) -> None:
    """Mark trials that a killed search left running as failed."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = open_study(folder, base)
    running = optuna.trial.TrialState.RUNNING
    for trial in study.get_trials(deepcopy=False, states=[running]):
        study.tell(trial.number, state=optuna.trial.TrialState.FAIL)


def _counted(folder: Path, base: LstmSettings) -> int:
    return sum(one.state in {"COMPLETE", "PRUNED"} for one in _trials(folder, base))


def _trials(folder: Path, base: LstmSettings) -> tuple[Trial, ...]:
    found = []
    for trial in open_study(folder, base).get_trials(deepcopy=False):
        looks = list(trial.intermediate_values.values())
        found.append(
            Trial(
                number=trial.number,
                state=trial.state.name,
                accuracy=max(looks) if looks else None,
                iterations=int(trial.user_attrs.get("iterations", 0)),
                cpu_s=float(trial.user_attrs.get("cpu_s", 0.0)),
                params={name: float(value) for name, value in trial.params.items()},
            )
        )
    return tuple(found)


# ------------------------------------------------------------------ data of a search
def search_data(
    material: Material,
    hmm_sha256: str,
    registry: ModelRegistry,
    base: LstmSettings,
    report: Report,
) -> tuple[TrainingSet, np.ndarray]:
    """Prepare what trials learn from, once for all of them.

    Returns:
        The training set, whose targets are the simulated shares, and the hard labels as
        float32[N, 5].

    Raises:
        DataError: too few candles, or a split without any.
        ModelError: there is no such HMM.
    """
    report("preparing inputs", 0.0)
    params = hmm_parameters(registry, hmm_sha256)
    rows = material.rows(params)
    soft = simulated_shares(
        rows,
        params,
        material.cuts,
        paths=base.soft_paths,
        horizon=base.soft_horizon,
        seed=base.seed,
    )
    data = training_set(
        rows,
        params,
        material.cuts,
        segment=base.segment,
        window=base.window,
        soft=soft,
        soft_share=1.0,
    )
    return data, np.eye(CLASSES, dtype=np.float32)[np.maximum(data.labels, 0)]


def search_settings(iterations: int, seed: int, window: int = WINDOW) -> LstmSettings:
    """Return what trials have in common; `LOOKS` looks each, in its second half.

    Raises:
        ConfigError: fewer iterations than looks.
    """
    if iterations < 2 * LOOKS:
        raise ConfigError(f"a trial needs at least {2 * LOOKS} iterations; got {iterations}")
    every = iterations // (2 * LOOKS)
    return LstmSettings(
        iterations=iterations, seed=seed, check_every=every, patience=LOOKS + 1
    ).reading(window)


def _plain(settings: LstmSettings) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in settings.__dataclass_fields__}


def write_data(path: Path, data: TrainingSet, hard: np.ndarray) -> None:
    """Write what trials learn from, for the workers to read."""
    draft = path.with_suffix(".tmp")
    with draft.open("wb") as file:
        np.savez(
            file,
            inputs=data.inputs,
            labels=data.labels,
            targets=data.targets,
            hard=hard,
            segments=data.segments,
            windows=data.windows,
            mean=data.scaler.mean,
            deviation=data.scaler.deviation,
        )
    draft.replace(path)


def read_data(path: Path, soft_share: float) -> TrainingSet:
    """Read it back, targets mixed of simulated shares and hard labels."""
    with np.load(path, allow_pickle=False) as held:
        mixed = soft_share * held["targets"] + (1.0 - soft_share) * held["hard"]
        return TrainingSet(
            inputs=held["inputs"],
            labels=held["labels"],
            targets=mixed.astype(np.float32),
            segments=held["segments"],
            windows=held["windows"],
            scaler=Scaler(held["mean"], held["deviation"]),
        )
