"""Learns the LSTM regime classifier: 2 x 128, dropout, many-to-many segments, pooled symbols.

Training: AdamW, one-cycle learning rate, clipped gradients, averaged weights, mirrored segments
(every price inverted, label k becomes 4 - k). The averaged weights that name most validation
windows are kept, and a temperature is fitted on them. The network is judged on windows of exactly
`LstmSettings.window` candles, never on longer ones.

A batch is cut into shards whose gradients are taken on threads of their own (torch computes
outside the interpreter's lock) and added in order: as many cores as there are shards work, and
the weights are the same on any number of them. torch is imported inside functions.
"""

import copy
import functools
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from bot4_pipelines.training.dataset import (
    CLASSES,
    Scaler,
    SymbolRows,
    TrainingSet,
    mirror_columns,
    simulated_shares,
    training_set,
)
from bot4_pipelines.training.schedule import LstmSettings
from bot4_runtime.domain.errors import ModelError
from bot4_runtime.regime.hmm import HmmParameters
from bot4_runtime.regime.manifest import Cuts

if TYPE_CHECKING:
    import torch

Progress = Callable[[int, int, dict[str, float]], None]
"""Called as ``progress(iteration, iterations, numbers)`` after every iteration."""

_BATCH: Final = 512
_LAYER: Final = re.compile(r"lstm\.(\d+)\.(\w+)_l0")


@dataclass(frozen=True)
class LstmFit:
    """What was learnt.

    Attributes:
        weights: float32 arrays by torch's parameter names (``lstm.weight_ih_l0``, …).
        scaler: of the inputs, from training rows.
        temperature: the logits are divided by it.
        history: per look: iteration, train_loss, validation_accuracy, validation_loss.
        best_iteration: whose weights were kept.
    """

    weights: dict[str, np.ndarray]
    scaler: Scaler
    temperature: float
    history: list[dict[str, float]] = field(default_factory=list)
    best_iteration: int = 0


def build_network(settings: LstmSettings, inputs: int) -> "torch.nn.Module":
    """Build the network: float32[B, T, inputs] (scaled) to logits float32[B, T, 5]."""
    import torch

    class RegimeNetwork(torch.nn.Module):
        """LSTM layers, each followed by dropout, and one linear layer.

        Dropout draws from the generator it is given and happens with one alone, so that shards
        on different threads draw the same numbers whichever comes first.
        """

        def __init__(self) -> None:
            super().__init__()
            widths = (inputs, *[settings.hidden] * settings.layers)
            self.lstm = torch.nn.ModuleList(
                torch.nn.LSTM(width, settings.hidden, batch_first=True)
                for width in widths[: settings.layers]
            )
            self.head = torch.nn.Linear(settings.hidden, CLASSES)

        def forward(
            self, x: torch.Tensor, generator: torch.Generator | None = None
        ) -> torch.Tensor:
            for layer in self.lstm:
                x, _ = layer(x)
                if generator is not None:
                    keep = 1.0 - settings.dropout
                    x = x * torch.empty_like(x).bernoulli_(keep, generator=generator) / keep
            return self.head(x)  # type: ignore[no-any-return]

    return RegimeNetwork()


def network_weights(network: "torch.nn.Module") -> dict[str, np.ndarray]:
    """Return a network's weights, float32, by the names that `LstmFit` has for them."""
    return {
        _LAYER.sub(r"lstm.\2_l\1", name): value.detach().cpu().numpy().astype(np.float32)
        for name, value in network.named_parameters()
    }


def load_weights(network: "torch.nn.Module", weights: Mapping[str, np.ndarray]) -> None:
    """Put weights of `LstmFit`'s names into a network of the same shape.

    Raises:
        ModelError: they are of another shape.
    """
    import torch

    own = network_weights(network)
    shapes = [{name: value.shape for name, value in one.items()} for one in (weights, own)]
    if shapes[0] != shapes[1]:
        given, needed = (
            f"{one['head.weight'][1]} x {sum('weight_ih' in name for name in one)}"
            for one in shapes
        )
        raise ModelError(f"the weights are of an LSTM of {given}, this one is {needed}")
    named = {name: _LAYER.sub(r"lstm.\2_l\1", name) for name, _ in network.named_parameters()}
    network.load_state_dict(
        {name: torch.from_numpy(weights[public].copy()) for name, public in named.items()}
    )


def choose_device(wanted: str = "auto") -> str:
    """Return where to train: what is wanted, or with ``auto`` CUDA, else MPS, else the CPU."""
    if wanted != "auto":
        return wanted
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def shard_count(settings: LstmSettings, device: str) -> int:
    """Return in how many parts a batch is taken: an accelerator, there is one, takes it whole."""
    return min(settings.shards, settings.batch) if device == "cpu" else 1


def usable_cores() -> int:
    """Return how many cores this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on this system
        return os.cpu_count() or 1


def train_lstm(
    symbols: Sequence[SymbolRows],
    params: HmmParameters,
    cuts: Cuts,
    settings: LstmSettings,
    progress: Progress | None = None,
) -> LstmFit:
    """Simulate label shares, pool the symbols and train.

    Args:
        symbols: all training symbols, whole history.
        params: HMM fitted on the training range.
        cuts: the splits' boundaries.
        settings: the schedule.
        progress: told after every iteration; may be None.

    Raises:
        DataError: a split is empty, or no whole training segment or validation window exists.
    """
    soft = None
    if settings.soft_paths:
        soft = simulated_shares(
            symbols,
            params,
            cuts,
            paths=settings.soft_paths,
            horizon=settings.soft_horizon,
            seed=settings.seed,
        )
    data = training_set(
        symbols,
        params,
        cuts,
        segment=settings.segment,
        window=settings.window,
        soft=soft,
        soft_share=settings.soft_share,
    )
    return fit_lstm(data, settings, progress)


def fit_lstm(
    data: TrainingSet,
    settings: LstmSettings,
    progress: Progress | None = None,
    start: Mapping[str, np.ndarray] | None = None,
) -> LstmFit:
    """Train the network; on a CPU the same data, settings and seed give the same weights.

    Args:
        data: pooled rows.
        settings: the schedule.
        progress: told after every iteration; may be None.
        start: weights to go on from; None begins with random ones.
    """
    import torch

    with torch.random.fork_rng(), _Training(data, settings, start) as training:
        return training.run(progress)


class _Training:
    """One training: network, averaged network, optimiser, generators, threads."""

    def __init__(
        self,
        data: TrainingSet,
        settings: LstmSettings,
        start: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        import torch

        torch.set_num_threads(1)  # torch's own threads spin while they wait for a busy core
        torch.manual_seed(settings.seed)
        self.data, self.settings = data, settings
        self.device = torch.device(choose_device(settings.device))
        self.rng = np.random.default_rng(settings.seed)
        self.inputs = torch.from_numpy(data.inputs).to(self.device)
        self.targets = torch.from_numpy(data.targets).to(self.device)
        self.network = build_network(settings, data.inputs.shape[1]).to(self.device)
        if start is not None:
            load_weights(self.network, start)
        self.parameters = list(self.network.parameters())
        self.average = copy.deepcopy(self.network)
        shards = shard_count(settings, self.device.type)
        self.generators = [
            torch.Generator(self.device).manual_seed(settings.seed + shard)
            for shard in range(shards)
        ]
        self.threads = ThreadPoolExecutor(
            min(shards, usable_cores()), "shard", lambda: torch.set_num_threads(1)
        )
        columns, signs = mirror_columns()
        self.columns = torch.from_numpy(columns).to(self.device)
        self.signs = torch.from_numpy(signs).to(self.device)
        self.optimiser = torch.optim.AdamW(
            self.parameters,
            lr=settings.learning_rate,
            weight_decay=settings.weight_decay,
            foreach=True,
        )
        self.schedule = torch.optim.lr_scheduler.OneCycleLR(
            self.optimiser,
            max_lr=settings.learning_rate,
            total_steps=max(settings.iterations, 2),
            pct_start=settings.rise,
        )
        stride = -(-len(data.windows) // settings.check_windows)
        self.windows = data.windows[::stride]
        self.names = torch.from_numpy(data.labels[self.windows].astype(np.int64))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.threads.shutdown()

    def run(self, progress: Progress | None) -> LstmFit:
        settings = self.settings
        history: list[dict[str, float]] = []
        best: dict[str, Any] = {"accuracy": -1.0}
        loss_sum, loss_count = 0.0, 0
        for iteration in range(1, settings.iterations + 1):
            loss = self.step(iteration)
            loss_sum, loss_count = loss_sum + loss, loss_count + 1
            numbers = {"train_loss": loss}
            if self.is_look(iteration):
                logits = self.window_logits()
                numbers = self.judge(logits) | {"train_loss": loss_sum / loss_count}
                loss_sum, loss_count = 0.0, 0
                history.append({"iteration": float(iteration), **numbers})
                if numbers["validation_accuracy"] > best["accuracy"]:
                    best = {
                        "accuracy": numbers["validation_accuracy"],
                        "iteration": iteration,
                        "weights": network_weights(self.average),
                        "logits": logits,
                    }
            if progress is not None:
                progress(iteration, settings.iterations, numbers)
            looks_since = [h for h in history if h["iteration"] > best.get("iteration", 0)]
            if len(looks_since) >= settings.patience:
                break
        temperature = fit_temperature(best["logits"], self.names.numpy())
        return LstmFit(best["weights"], self.data.scaler, temperature, history, best["iteration"])

    def is_look(self, iteration: int) -> bool:
        settings = self.settings
        due = iteration % settings.check_every == 0
        return iteration == settings.iterations or (
            due and iteration >= settings.check_from * settings.iterations
        )

    def batch(self) -> "tuple[torch.Tensor, torch.Tensor]":
        """Draw segments, half of them mirrored on average."""
        import torch

        settings = self.settings
        starts = self.rng.choice(self.data.segments, size=settings.batch)
        rows = torch.from_numpy(starts[:, None] + np.arange(settings.segment)).to(self.device)
        x, y = self.inputs[rows], self.targets[rows[:, settings.warm :]]
        mirrored = torch.from_numpy(self.rng.random(settings.batch) < 0.5).to(self.device)
        x = torch.where(mirrored[:, None, None], x[:, :, self.columns] * self.signs, x)
        y = torch.where(mirrored[:, None, None], y.flip(2), y)
        return x, y

    def step(self, iteration: int) -> float:
        import torch

        settings = self.settings
        x, y = self.batch()
        count = len(self.generators)
        parts = list(
            self.threads.map(self.gradients, x.chunk(count), y.chunk(count), self.generators)
        )
        for parameter, *shares in zip(
            self.parameters, *(share for _, share in parts), strict=True
        ):
            parameter.grad = functools.reduce(torch.add, shares)
        torch.nn.utils.clip_grad_norm_(self.parameters, settings.clip_norm)
        self.optimiser.step()
        self.schedule.step()
        keep = min(settings.averaging, iteration / (iteration + 9.0))
        with torch.no_grad():
            for old, new in zip(self.average.parameters(), self.parameters, strict=True):
                old.lerp_(new, 1.0 - keep)
        return float(sum(loss for loss, _ in parts))

    def gradients(
        self, x: "torch.Tensor", y: "torch.Tensor", generator: "torch.Generator"
    ) -> "tuple[float, tuple[torch.Tensor, ...]]":
        """Return what a shard adds to the batch's mean loss, and its gradients."""
        import torch

        settings = self.settings
        logits = self.network(x, generator)[:, settings.warm :]
        loss = -(y * torch.log_softmax(logits, dim=2)).sum() / (settings.batch * y.shape[1])
        return float(loss.detach()), torch.autograd.grad(loss, self.parameters)

    def window_logits(self) -> "torch.Tensor":
        """Return the averaged network's logits at the end of each validation window, [V, 5]."""
        import torch

        back = np.arange(1 - self.settings.window, 1)

        def ask(ends: np.ndarray) -> "torch.Tensor":
            with torch.inference_mode():
                rows = torch.from_numpy(ends[:, None] + back).to(self.device)
                logits: torch.Tensor = self.average(self.inputs[rows])[:, -1].cpu()
                return logits

        pieces = range(0, len(self.windows), _BATCH)
        return torch.cat(
            list(self.threads.map(ask, (self.windows[begin : begin + _BATCH] for begin in pieces)))
        )

    def judge(self, logits: "torch.Tensor") -> dict[str, float]:
        import torch

        right = (logits.argmax(dim=1) == self.names).double().mean()
        return {
            "validation_accuracy": float(right),
            "validation_loss": float(torch.nn.functional.cross_entropy(logits, self.names)),
        }


def fit_temperature(logits: Any, labels: np.ndarray) -> float:
    """Find the temperature in [1/4, 4] with the least validation cross-entropy.

    Args:
        logits: [V, 5].
        labels: int[V].
    """
    values = np.asarray(logits, dtype=np.float64)

    def loss(log_t: float) -> float:
        scaled = values / math.exp(log_t)
        scaled -= scaled.max(axis=1, keepdims=True)
        picked = scaled[np.arange(len(labels)), labels]
        return float((np.log(np.exp(scaled).sum(axis=1)) - picked).mean())

    low, high = -math.log(4.0), math.log(4.0)
    ratio = (math.sqrt(5.0) - 1.0) / 2.0
    while high - low > 1e-4:  # golden section: the loss is unimodal in T
        left, right = high - ratio * (high - low), low + ratio * (high - low)
        if loss(left) < loss(right):
            high = right
        else:
            low = left
    return math.exp(0.5 * (low + high))
