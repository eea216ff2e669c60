"""Learns the LSTM regime classifier: 2 x 128, dropout, many-to-many segments, pooled symbols.

Training: AdamW, one-cycle learning rate, clipped gradients, averaged weights, mirrored segments
(every price inverted, label k becomes 4 - k). The averaged weights that name most validation
windows are kept, and a temperature is fitted on them. The network is judged on windows of exactly
`LstmSettings.window` candles, never on longer ones. torch is imported inside functions.
"""

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

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
from bot4_runtime.domain.errors import ConfigError
from bot4_runtime.regime.hmm import HmmParameters
from bot4_runtime.regime.manifest import WINDOW, Cuts

if TYPE_CHECKING:
    import torch

Progress = Callable[[int, int, dict[str, float]], None]
"""Called as ``progress(iteration, iterations, numbers)`` after every iteration."""

_BATCH: Final = 512


@dataclass(frozen=True)
class LstmSettings:
    """How long and how the network learns.

    Attributes:
        iterations: steps of `batch` segments.
        segment: candles of a training segment; the loss counts from candle `warm` on.
        window: candles the network is shown when it is used.
        check_every: iterations between looks at the validation windows.
        check_from: share of the iterations before the first look.
        patience: looks without progress after which training stops.
        check_windows: validation windows looked at.
        soft_paths: simulated futures a training candle; 0 trains on hard labels.
        soft_horizon: candles a simulated future lasts.
        soft_share: weight of the simulated share in the target.
        averaging: decay of the weights' moving average.
        rise: share of the iterations in which the learning rate rises.
    """

    iterations: int = 600
    batch: int = 16
    segment: int = 150
    warm: int = 50
    window: int = WINDOW
    hidden: int = 128
    layers: int = 2
    dropout: float = 0.2
    learning_rate: float = 4e-3
    rise: float = 0.2
    weight_decay: float = 1e-3
    clip_norm: float = 1.0
    averaging: float = 0.995
    check_every: int = 150
    check_from: float = 0.5
    patience: int = 3
    check_windows: int = 5_000
    soft_paths: int = 16
    soft_horizon: int = 24
    soft_share: float = 0.75
    seed: int = 20_180_101
    device: str = "cpu"

    def __post_init__(self) -> None:
        """Refuse settings that cannot train.

        Raises:
            ConfigError: a count is not positive or the loss would count no candle.
        """
        counts = (self.iterations, self.batch, self.window, self.check_every, self.check_windows)
        if min(counts) < 1 or not 0 <= self.warm < self.segment:
            raise ConfigError(
                "LSTM settings need positive iterations, batch, window, check_every and "
                f"check_windows, and 0 <= warm < segment; got {self}"
            )

    @classmethod
    def full(cls) -> "LstmSettings":
        """Return the long schedule, for a model that is traded."""
        return cls(iterations=2_200, batch=32)


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
        """LSTM layers with dropout between them, and one linear layer."""

        def __init__(self) -> None:
            super().__init__()
            self.lstm = torch.nn.LSTM(
                inputs,
                settings.hidden,
                settings.layers,
                batch_first=True,
                dropout=settings.dropout if settings.layers > 1 else 0.0,
            )
            self.dropout = torch.nn.Dropout(settings.dropout)
            self.head = torch.nn.Linear(settings.hidden, CLASSES)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            hidden, _ = self.lstm(x)
            return self.head(self.dropout(hidden))  # type: ignore[no-any-return]

    return RegimeNetwork()


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
    data: TrainingSet, settings: LstmSettings, progress: Progress | None = None
) -> LstmFit:
    """Train the network; on a CPU the same data, settings and seed give the same weights.

    Args:
        data: pooled rows.
        settings: the schedule.
        progress: told after every iteration; may be None.
    """
    import torch

    torch.set_num_threads(1)
    with torch.random.fork_rng():
        torch.manual_seed(settings.seed)
        return _Training(data, settings).run(progress)


class _Training:
    """One training: network, averaged network, optimiser, generator."""

    def __init__(self, data: TrainingSet, settings: LstmSettings) -> None:
        import torch

        self.data, self.settings = data, settings
        self.device = torch.device(settings.device)
        self.rng = np.random.default_rng(settings.seed)
        self.inputs = torch.from_numpy(data.inputs).to(self.device)
        self.targets = torch.from_numpy(data.targets).to(self.device)
        self.network = build_network(settings, data.inputs.shape[1]).to(self.device)
        self.average = copy.deepcopy(self.network).eval()
        columns, signs = mirror_columns()
        self.columns = torch.from_numpy(columns).to(self.device)
        self.signs = torch.from_numpy(signs).to(self.device)
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(),
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
                        "weights": copy.deepcopy(self.average.state_dict()),
                        "logits": logits,
                    }
            if progress is not None:
                progress(iteration, settings.iterations, numbers)
            looks_since = [h for h in history if h["iteration"] > best.get("iteration", 0)]
            if len(looks_since) >= settings.patience:
                break
        weights = {
            name: value.cpu().numpy().astype(np.float32) for name, value in best["weights"].items()
        }
        temperature = fit_temperature(best["logits"], self.names.numpy())
        return LstmFit(weights, self.data.scaler, temperature, history, best["iteration"])

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
        self.network.train()
        logits = self.network(x)[:, settings.warm :]
        loss = -(y * torch.log_softmax(logits, dim=2)).sum(dim=2).mean()
        self.optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), settings.clip_norm)
        self.optimiser.step()
        self.schedule.step()
        keep = min(settings.averaging, iteration / (iteration + 9.0))
        with torch.no_grad():
            for old, new in zip(self.average.parameters(), self.network.parameters(), strict=True):
                old.lerp_(new, 1.0 - keep)
        return float(loss.detach())

    def window_logits(self) -> "torch.Tensor":
        """Return the averaged network's logits at the end of each validation window, [V, 5]."""
        import torch

        back = np.arange(1 - self.settings.window, 1)
        found = []
        with torch.inference_mode():
            for begin in range(0, len(self.windows), _BATCH):
                rows = self.windows[begin : begin + _BATCH, None] + back
                x = self.inputs[torch.from_numpy(rows).to(self.device)]
                found.append(self.average(x)[:, -1].cpu())
        return torch.cat(found)

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
