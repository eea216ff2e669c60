"""Whether models hold on symbols they were not trained on: held out, and judged later in time.

Other symbols move together with the training symbols, so the training and validation periods
would leak: a held-out symbol is scored from the start of the test period on. The verdict is
written into the manifest, by which the runtime admits or refuses symbols outside the pool.
"""

import os
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from bot4_pipelines.training.baselines import FittedBaselines
from bot4_pipelines.training.dataset import SymbolRows
from bot4_pipelines.training.estimates import Session
from bot4_pipelines.training.evaluation import evaluate_models
from bot4_pipelines.training.judged import HMM, judge, summarise
from bot4_pipelines.training.promotion import BALANCED, CALIBRATION, HMM_ACCURACY, LSTM_ACCURACY
from bot4_runtime.candles.series import CandleSeries
from bot4_runtime.domain.errors import ConfigError
from bot4_runtime.features.batch import FeatureTable
from bot4_runtime.regime.hmm import HmmParameters
from bot4_runtime.regime.manifest import Cuts, UnseenVerdict

HOLDOUT: Final = "BOT4_HOLDOUT"
"""Environment variable: comma-separated symbols to hold out; empty or unset holds out none."""


def holdout_symbols(
    known: Sequence[str], environment: Mapping[str, str] | None = None
) -> tuple[str, ...]:
    """Return the symbols that `HOLDOUT` names.

    Args:
        known: symbols with candles.
        environment: of the process when None.

    Raises:
        ConfigError: there are no candles of one, or none would be left to train on.
    """
    text = (os.environ if environment is None else environment).get(HOLDOUT, "")
    wanted = [name.strip().upper() for name in text.split(",") if name.strip()]
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise ConfigError(
            f"{HOLDOUT} names {', '.join(unknown)}; there are candles of {', '.join(known)}"
        )
    if wanted and set(wanted) == set(known):
        raise ConfigError(f"{HOLDOUT} holds out every symbol; leave at least one to train on")
    return tuple(symbol for symbol in known if symbol in wanted)


def lstm_unseen(
    params: HmmParameters,
    session: Session,
    baselines: FittedBaselines,
    series: Collection[CandleSeries],
    cuts: Cuts,
) -> UnseenVerdict | None:
    """Hold an LSTM against the gates of the test split, on held-out symbols; None without any.

    Raises:
        DataError: no candle of theirs can be scored.
    """
    if not series:
        return None
    found = evaluate_models(params, session, baselines, list(series), since_ms=cuts.test_start_ms)
    numbers: dict[str, Any] = found["lstm"]["pooled"]
    floors = [
        found["baselines"][name]["pooled"]["accuracy"] for name in ("hmm_filter", "static_cuts")
    ]
    return UnseenVerdict(
        symbols=tuple(one.id.symbol for one in series),
        accuracy=numbers["accuracy"],
        passed=lstm_holds(numbers, floors),
    )


def lstm_holds(numbers: Mapping[str, Any], floors: Sequence[float]) -> bool:
    """Whether an LSTM's pooled numbers keep every gate.

    Args:
        numbers: as `evaluate_models` pools them.
        floors: accuracies that the interval's lower end must be above.
    """
    interval = numbers["accuracy_ci"]
    return bool(
        numbers["accuracy"] >= LSTM_ACCURACY
        and interval is not None
        and all(interval[0] > floor for floor in floors)
        and min(numbers["balanced_accuracy"], numbers["macro_f1"]) >= BALANCED
        and numbers["ece"] <= CALIBRATION
    )


def hmm_unseen(
    params: HmmParameters,
    symbols: Sequence[SymbolRows],
    cuts: Cuts,
    *,
    interval_ms: int,
) -> UnseenVerdict | None:
    """Hold the HMM's filter against its gate on held-out symbols; None without any."""
    if not symbols:
        return None
    judged = [
        judge(rows, params, later(rows.table, cuts), interval_ms=interval_ms) for rows in symbols
    ]
    accuracy = summarise(judged, HMM, same=False)["pooled"]["accuracy"] or 0.0
    return UnseenVerdict(
        symbols=tuple(rows.symbol for rows in symbols),
        accuracy=accuracy,
        passed=accuracy >= HMM_ACCURACY,
    )


def later(table: FeatureTable, cuts: Cuts) -> slice:
    """Return the rows from the start of the test period on."""
    return slice(int(table.open_time_ms.searchsorted(cuts.test_start_ms)), len(table))
