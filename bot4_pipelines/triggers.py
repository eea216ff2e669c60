"""Why the models should be trained again, or why not: five questions, each asked of what is there.

Each returns a `Verdict` that says its numbers either way. Enough new candles; features that look
unlike training's; trends that the HMM finds unlikely; regimes named live that hindsight does not
confirm; history that was restated. Nothing is trained here, and Dagster is not known
(`defs.sensors` asks, and starts runs).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from bot4_pipelines.records import Folders, Record, Records
from bot4_pipelines.sources import series_id
from bot4_runtime.candles.series import CandleSeries
from bot4_runtime.candles.store import CandleStore
from bot4_runtime.domain.candle import SeriesId, interval_ms
from bot4_runtime.domain.errors import DataError
from bot4_runtime.features.schema import LOOKBACK

if TYPE_CHECKING:
    from bot4_pipelines.training.drift import Reference
    from bot4_runtime.features.batch import FeatureTable
    from bot4_runtime.regime.hmm import HmmParameters
    from bot4_runtime.regime.registry import CurrentPair

NEW_SHARE: Final = 0.01
"""Candles that came since the last training, as a share of those it had, that call for another;
about three days on a year of hourly candles."""
SETTLE_DAYS: Final = 7
"""Days of candles that a training had not seen before drift, likelihood or live accuracy call
for another: training again on the same candles would change nothing."""
LIVE_ACCURACY: Final = 0.90
"""What regimes named live must agree with hindsight at, at least: the gate of promotion."""
LIVE_DAYS: Final = 28
"""Days with regimes named live that a verdict needs."""
LIVE_FROM_DAYS: Final = 90
"""Days back that regimes named live are looked at."""
DAY_MS: Final = 86_400_000


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a question was answered.

    Attributes:
        wanted: whether to train again.
        why: the numbers, in one sentence.
    """

    wanted: bool
    why: str


def trained_on(series: Iterable[CandleSeries], data_sha256: str, at_ms: int) -> dict[str, Any]:
    """Return what a training has before it, for its record: what later ticks compare with.

    Args:
        series: the candles that it learns from and is judged on.
        data_sha256: over them.
        at_ms: as of when, UTC: values restated from then on it does not know.
    """
    series = list(series)
    return {
        "candles": sum(len(one) for one in series),
        "to_ms": max(int(one.open_time_ms[-1]) + one.interval_ms for one in series),
        "content": data_sha256,
        "at_ms": at_ms,
        "series": [one.id.key for one in series],
    }


class Triggers:
    """The five questions, over one pair of folders.

    Args:
        folders: where the pipeline works.
    """

    def __init__(self, folders: Folders) -> None:
        self._folders = folders
        self._records = Records(folders.work)
        self._store = CandleStore(folders.candles)

    @property
    def training(self) -> Record | None:
        """The last training, whether its model passed the gates or not."""
        return self._records.find("lstm_candidate")

    # --------------------------------------------------------------- five questions
    def new_candles(self) -> Verdict:
        """Whether enough candles came since the last training."""
        now, trained = self._records.find("candles"), self.training
        if now is None:
            return Verdict(False, "no candles yet: materialise the asset 'candles' first")
        have = int(now.numbers["candles"])
        if trained is None:
            return Verdict(True, f"{have} candles, and nothing was trained yet")
        used = _candles_of(trained)
        if used is None:
            return Verdict(True, "the last training did not write down how many candles it had")
        needed = max(1, round(NEW_SHARE * used))
        said = f"{have - used} new candles since the last training on {used}"
        if have - used < needed:
            return Verdict(False, f"{said}; {needed} are needed")
        return Verdict(True, f"{said}, at least the {needed} that are needed")

    def feature_drift(self) -> Verdict:
        """Whether a feature of a symbol's last month is unlike training."""
        from bot4_pipelines.training.drift import WINDOW_DAYS, feature_shifts

        ready = self._reference()
        if isinstance(ready, Verdict):
            return ready
        reference, _ = ready
        shifted, furthest, unknown = [], None, []
        for one, table in self._recent(reference.window):
            shifts = feature_shifts(reference, table.values[-reference.window :])
            if shifts is None:
                unknown.append(one.symbol)
                continue
            shifted += [f"{one.symbol} {shift}" for shift in shifts if shift.shifted]
            nearest = (shifts[0].psi / shifts[0].psi_limit, f"{one.symbol} {shifts[0]}")
            furthest = max(furthest or nearest, nearest)
        if shifted:
            more = f" and {len(shifted) - 3} more" if len(shifted) > 3 else ""
            why = f"the last {WINDOW_DAYS} days are unlike training: " + "; ".join(shifted[:3])
            return self._settled(why + more)
        if furthest is None:
            return Verdict(False, _too_few(unknown, WINDOW_DAYS))
        return Verdict(
            False, f"the last {WINDOW_DAYS} days are like training; furthest {furthest[1]}"
        )

    def likelihood(self) -> Verdict:
        """Whether the HMM that trades finds a symbol's last month unlikely."""
        from bot4_pipelines.training.drift import WINDOW_DAYS, mean_loglik

        ready = self._reference()
        if isinstance(ready, Verdict):
            return ready
        reference, params = ready
        found, unknown = [], []
        for one, table in self._recent(reference.window):
            value = mean_loglik(reference, table.z, params)
            if value is None:
                unknown.append(one.symbol)
            else:
                found.append((value, one.symbol))
        if not found:
            return Verdict(False, _too_few(unknown, WINDOW_DAYS))
        least, symbol = min(found)
        said = (
            f"mean log-likelihood a candle of {symbol} over {WINDOW_DAYS} days is {least:.2f}, "
            f"training's months have {reference.loglik_median:.2f}"
        )
        if least >= reference.loglik_limit:
            return Verdict(False, f"{said}; the limit is {reference.loglik_limit:.2f}")
        return self._settled(f"{said}: below the limit {reference.loglik_limit:.2f}")

    def live_accuracy(self) -> Verdict:
        """Whether hindsight confirms too few of the regimes that were named live."""
        from bot4_pipelines.live import live_regimes
        from bot4_pipelines.training.scoring import block_interval

        ready = self._pair()
        if isinstance(ready, Verdict):
            return ready
        interval, pair, params = ready
        sha256 = pair.lstm_sha256 or pair.hmm_sha256
        candles = self._records.need("candles", "candles")
        from_ms = int(candles.numbers["to_ms"]) - LIVE_FROM_DAYS * DAY_MS
        named = live_regimes(self._folders.home, interval, sha256, from_ms)
        scored, right, rows = [], 0, 0
        for one in self._ids():
            times, regimes = named.get(one.symbol, (np.zeros(0), np.zeros(0)))
            if not len(times):
                continue
            labels = self._hindsight(one, params, int(times[0]))
            known = [
                (t, labels[t] == r) for t, r in zip(times, regimes, strict=True) if t in labels
            ]
            if not known:
                continue
            days = np.array([t // DAY_MS for t, _ in known])
            flags = np.array([hit for _, hit in known], dtype=np.float64)
            scored.append((days, flags))
            right, rows = right + int(flags.sum()), rows + len(flags)
        days_seen = len(np.unique(np.concatenate([days for days, _ in scored]))) if scored else 0
        if days_seen < LIVE_DAYS:
            return Verdict(
                False,
                f"the model that trades named {rows} candles live that hindsight can judge, on "
                f"{days_seen} days; {LIVE_DAYS} days are needed",
            )
        bounds = block_interval(scored)
        low = 0.0 if bounds is None else bounds[0]
        said = (
            f"{right / rows:.1%} of {rows} candles named live agree with hindsight, "
            f"lower 95 % bound {low:.1%}"
        )
        if low >= LIVE_ACCURACY:
            return Verdict(False, f"{said}; at least {LIVE_ACCURACY:.0%} are asked")
        return self._settled(f"{said}: below {LIVE_ACCURACY:.0%}")

    def restated_history(self) -> Verdict:
        """Whether candles that the last training had were restated since."""
        trained = self.training
        facts = {} if trained is None else trained.numbers.get("trained_on", {})
        if "at_ms" not in facts:
            return Verdict(
                False, "no training wrote down which candles it had, so none counts as restated"
            )
        told = []
        for key in facts["series"]:
            inside = {
                one.open_time_ms
                for one in self._store.restatements(series_id(key))
                if one.open_time_ms < facts["to_ms"]
                and one.at_ms is not None
                and one.at_ms >= facts["at_ms"]
            }
            if inside:
                first, last = _day(min(inside)), _day(max(inside))
                told.append(f"{len(inside)} of {key}, {first} to {last}")
        if told:
            return Verdict(
                True, "candles were restated since the last training: " + "; ".join(told)
            )
        return Verdict(
            False,
            f"no candle of the last training's {facts['candles']} was restated since",
        )

    # ------------------------------------------------------------------------ shared
    def _ids(self) -> list[SeriesId]:
        return [
            series_id(key) for key in self._records.need("candles", "candles").numbers["series"]
        ]

    def _pair(self) -> "tuple[str, CurrentPair, HmmParameters] | Verdict":
        """Return the interval, the pair that trades it now, and its HMM; or why not."""
        from bot4_pipelines.training.candidates import hmm_parameters
        from bot4_runtime.regime.registry import ModelRegistry

        candles, registry = self._records.find("candles"), ModelRegistry(self._folders.models)
        interval = "" if candles is None else str(candles.numbers["interval"])
        pair = registry.current(interval) if interval else None
        if pair is None:
            return Verdict(
                False, "nothing was promoted yet: materialise the asset 'promoted_models' first"
            )
        return interval, pair, hmm_parameters(registry, pair.hmm_sha256)

    def _reference(self) -> "tuple[Reference, HmmParameters] | Verdict":
        """Return what the pair that trades was trained on, and its HMM; or why not."""
        from bot4_pipelines.training.drift import read_reference

        ready = self._pair()
        if isinstance(ready, Verdict):
            return ready
        _, pair, params = ready
        try:
            return read_reference(reference_path(self._folders, pair.hmm_sha256)), params
        except DataError as error:
            return Verdict(False, f"what the HMM that trades was trained on is not known: {error}")

    def _recent(self, window: int) -> "Iterator[tuple[SeriesId, FeatureTable]]":
        """Compute each series' features over the last window, with what warms them."""
        from bot4_runtime.features.batch import compute

        for one in self._ids():
            span = self._store.range(one)
            if span is None:
                continue
            from_ms = span[1] - (window + LOOKBACK) * interval_ms(one.interval)
            yield one, compute(self._store.read(one, from_ms))

    def _hindsight(self, one: SeriesId, params: "HmmParameters", from_ms: int) -> dict[int, int]:
        """Return the hindsight label by open time, of candles old enough not to change."""
        from bot4_pipelines.training.cuts import UNSETTLED
        from bot4_pipelines.training.labels import hindsight_labels
        from bot4_runtime.features.batch import compute

        warm = from_ms - 2 * LOOKBACK * interval_ms(one.interval)
        table = compute(self._store.read(one, warm))
        labels = hindsight_labels(table.z, params, [slice(0, len(table))])
        settled = slice(0, max(0, len(table) - UNSETTLED))
        pairs = zip(table.open_time_ms[settled].tolist(), labels[settled].tolist(), strict=True)
        return {moment: label for moment, label in pairs if label >= 0}

    def _settled(self, why: str) -> Verdict:
        """Want a training for a reason, unless the last one had these candles already."""
        trained, now = self.training, self._records.need("candles", "candles")
        facts = {} if trained is None else trained.numbers.get("trained_on", {})
        if not facts:
            return Verdict(True, why)
        days = (int(now.numbers["to_ms"]) - int(facts["to_ms"])) / DAY_MS
        if days >= SETTLE_DAYS:
            return Verdict(True, why)
        return Verdict(
            False,
            f"{why}. But the last training had all but {days:.1f} days of these candles; another "
            f"is worth its time when {SETTLE_DAYS} days are new",
        )


def reference_path(folders: Folders, hmm_sha256: str) -> Path:
    """Return where the description of what an HMM was trained on lies."""
    return folders.work / "training_reference" / f"{hmm_sha256}.npz"


def _candles_of(trained: Record) -> int | None:
    facts = trained.numbers.get("trained_on")
    return None if facts is None else int(facts["candles"])


def _too_few(symbols: Sequence[str], days: int) -> str:
    return (
        f"too few unbroken candles in the last {days} days to say anything of "
        f"{', '.join(symbols) or 'any symbol'}"
    )


def _day(moment_ms: int) -> str:
    return datetime.fromtimestamp(moment_ms / 1000, UTC).strftime("%Y-%m-%d")
