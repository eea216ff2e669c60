"""Models: what naming a candle costs, one at a time and in batches, and what training costs.

The pair is of full size with random weights; what it learnt does not change what it costs. ONNX
Runtime, as the trading process opens it (one thread), stands beside torch on one thread with the
same weights. hmmlearn has no causal filter: its posterior of one candle, and of the 50 candles
that a program without a filter would ask about again for every candle, stand beside the HMM's
step; over a whole series it smooths where ours filters. Training is steps of the full schedule on
random rows, on as many cores as it takes.
"""

import dataclasses
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.harness import Result, measure, of_rounds, throughput
from benchmarks.models import promote_pair
from bot4_pipelines.training.dataset import CLASSES, INPUT_NAMES, Scaler, TrainingSet
from bot4_pipelines.training.lstm import _Training, build_network, usable_cores
from bot4_pipelines.training.schedule import LstmSettings, Schedule
from bot4_runtime.regime.hmm import STATES, HmmParameters, forward_filter
from bot4_runtime.regime.manifest import WINDOW
from bot4_runtime.regime.registry import ModelRegistry

TITLE = "Models: HMM filter and LSTM 2 x 128 over 50 candles"
BATCH = 512
BATCH_UNIT = "windows/CPU-s"
STEPS = 20
ROWS = 20_000
HMMLEARN = ("hmmlearn posterior, one candle", "hmmlearn posterior, 50 candles")
HISTORY = 5_000
SERIES_UNIT = "candles/CPU-s"
HMMLEARN_SERIES = f"hmmlearn posterior, a series of {HISTORY:,}"
EAGER, COMPILED = "torch eager, one window", "torch.compile, one window"
EAGER_BATCH = f"torch eager, batches of {BATCH}"
COMPILED_BATCH = f"torch.compile, batches of {BATCH}"


def run() -> list[Result]:
    with tempfile.TemporaryDirectory() as name:
        promote_pair(Path(name), "1h")
        pair = ModelRegistry(Path(name)).load("1h")
    assert pair.lstm is not None
    params = pair.hmm.parameters()
    rng = np.random.default_rng(1)
    step = {"obs": np.full((1, 1, 1), 0.3), "log_prior": np.full((1, STATES), np.log(0.2))}
    windows = rng.normal(size=(BATCH, WINDOW, len(INPUT_NAMES))).astype(np.float32)
    one = {"features": windows[:1]}
    lstm = pair.lstm.run

    def batch() -> int:
        lstm({"features": windows})
        return BATCH

    results = [
        measure("HMM step, ONNX Runtime", pair.hmm.run, step, specified=100e6, goal=50e3,
                peers=HMMLEARN),
        measure("HMM step, numpy", forward_filter, np.array([0.3]), params),
        *_hmmlearn(params, rng),
        *_series(pair.hmm.run, params, rng),
        measure("LSTM, one window, ONNX Runtime", lstm, one, specified=200e6, goal=1e6,
                peers=(EAGER, COMPILED)),
        throughput(f"LSTM, batches of {BATCH}, ONNX Runtime", batch, unit=BATCH_UNIT,
                   clock=time.process_time_ns, peers=(EAGER_BATCH, COMPILED_BATCH)),
    ]  # fmt: skip
    return [*results, *_torch(windows), training()]


def hmmlearn_model(params: HmmParameters) -> Any:
    """Return the same HMM in hmmlearn."""
    from hmmlearn.hmm import GaussianHMM

    model = GaussianHMM(STATES, "diag")
    model.startprob_, model.transmat_ = params.stationary(), params.transitions
    model.means_, model.covars_ = params.means[:, None], params.variances[:, None]
    return model


def _hmmlearn(params: HmmParameters, rng: np.random.Generator) -> list[Result]:
    model, candles = hmmlearn_model(params), rng.normal(size=(WINDOW, 1))
    return [
        measure(name, model.predict_proba, candles[:count], kind="peer")
        for name, count in zip(HMMLEARN, (1, WINDOW), strict=True)
    ]


def _series(run: Any, params: HmmParameters, rng: np.random.Generator) -> list[Result]:
    """Filter a whole series, and a candle of many series at once; candles by the CPU second."""
    z = rng.normal(size=HISTORY)
    stationary = params.log_stationary[None]
    whole = {"obs": z[None, :, None], "log_prior": stationary}
    many = {"obs": rng.normal(size=(BATCH, 1, 1)), "log_prior": np.repeat(stationary, BATCH, 0)}
    model = hmmlearn_model(params)

    def rate(name: str, call: Callable[[], object], count: int = HISTORY, **more: Any) -> Result:
        def counted() -> int:
            call()
            return count

        return throughput(name, counted, unit=SERIES_UNIT, clock=time.process_time_ns, **more)

    title = f"HMM, a series of {HISTORY:,}"
    return [
        rate(f"{title}, ONNX Runtime", lambda: run(whole), peers=(HMMLEARN_SERIES,)),
        rate(f"{title}, numpy", lambda: forward_filter(z, params), peers=(HMMLEARN_SERIES,)),
        rate(HMMLEARN_SERIES, lambda: model.predict_proba(z[:, None]), kind="peer"),
        rate(f"HMM, a candle of {BATCH} series, ONNX Runtime", lambda: run(many), BATCH),
    ]


def _torch(windows: np.ndarray) -> list[Result]:
    import torch

    torch.set_num_threads(1)
    network = build_network(LstmSettings(), windows.shape[2]).eval()
    everything = torch.from_numpy(windows)

    def ask(network: Callable[[Any], Any], x: Any) -> Any:
        with torch.inference_mode():
            return torch.softmax(network(x)[:, -1], dim=1)

    def batches(name: str, network: Callable[[Any], Any]) -> Result:
        def batch() -> int:
            ask(network, everything)
            return BATCH

        batch()
        clock = time.process_time_ns
        return throughput(name, batch, unit=BATCH_UNIT, clock=clock, kind="peer")

    compiled = [
        of_rounds(COMPILED, [], kind="peer"),
        of_rounds(COMPILED_BATCH, [], kind="peer", unit=BATCH_UNIT),
    ]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            fast = torch.compile(network)
            ask(fast, everything[:1])
            one = measure(COMPILED, ask, fast, everything[:1], kind="peer")
            compiled = [one, batches(COMPILED_BATCH, fast)]
    except Exception as error:  # noqa: BLE001 - it needs a compiler, and says so in many ways
        why = str(error).strip().splitlines()[0][:90]
        compiled = [dataclasses.replace(row, note=f"not measured: {why}") for row in compiled]
    return [
        measure(EAGER, ask, network, everything[:1], kind="peer"),
        batches(EAGER_BATCH, network),
        *compiled,
    ]


def training() -> Result:
    """Time steps of the full schedule and say how long all of them take."""
    settings = LstmSettings.of(Schedule.FULL)
    took, worked = training_steps()
    cpu = statistics.median(worked) * settings.iterations
    return of_rounds(
        "training by the full schedule", [one * settings.iterations for one in took],
        unit="s", goal=360.0,
        note=f"{settings.iterations:,} steps, told from {STEPS}; {cpu:.0f} CPU s on up to "
        f"{min(settings.shards, usable_cores())} cores; labels, looks at validation and the "
        "evaluation come on top",
    )  # fmt: skip


def training_steps() -> tuple[list[float], list[float]]:
    """Time single steps of the full schedule: seconds, CPU seconds."""
    settings = LstmSettings.of(Schedule.FULL)
    rng = np.random.default_rng(2)
    labels = rng.integers(0, CLASSES, ROWS)
    width = len(INPUT_NAMES)
    data = TrainingSet(
        inputs=rng.normal(size=(ROWS, width)).astype(np.float32),
        labels=labels.astype(np.int8),
        targets=np.eye(CLASSES, dtype=np.float32)[labels],
        segments=np.arange(ROWS - settings.segment),
        windows=np.arange(settings.window, ROWS),
        scaler=Scaler(np.zeros(width), np.ones(width)),
    )
    took, worked = [], []
    with _Training(data, dataclasses.replace(settings, device="cpu")) as steps:
        steps.step(1)
        for number in range(STEPS):
            began, busy = time.perf_counter(), time.process_time()
            steps.step(number + 2)
            took.append(time.perf_counter() - began)
            worked.append(time.process_time() - busy)
    return took, worked
