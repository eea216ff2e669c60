"""Compares a challenger with the champion it would replace, on candles neither was fitted to.

Both name the same candles: the challenger's test period, as far as it lies in the champion's too.
Right is what hindsight says under the reference HMM that ships with the runtime, not under the
HMM of either, which would favour its own LSTM; the yardstick stays the same over any number of
promotions. The interval is a paired bootstrap over blocks of time. What follows from the numbers
is `promotion`'s business.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

import numpy as np

from bot4_pipelines.training.cuts import scored
from bot4_pipelines.training.dataset import inside, symbol_rows, window_ends
from bot4_pipelines.training.definition_gate import reference_hmm
from bot4_pipelines.training.estimates import lstm_estimates
from bot4_pipelines.training.labels import filtered_regimes, hindsight_labels
from bot4_pipelines.training.scoring import BLOCK, Estimate, block_interval
from bot4_runtime.candles.series import CandleSeries
from bot4_runtime.domain.candle import Origin
from bot4_runtime.domain.errors import ModelError
from bot4_runtime.features.batch import FeatureTable, compute
from bot4_runtime.features.schema import LOOKBACK
from bot4_runtime.regime.comparison import Comparison
from bot4_runtime.regime.manifest import Manifest
from bot4_runtime.regime.pair import ModelPair
from bot4_runtime.regime.registry import NOTHING, ModelRegistry

WARM: Final = 3 * LOOKBACK
"""Candles before the first scored one that features and scores are made from."""
STRIDE: Final = 2
"""Every second candle is named: its neighbours err together, and inference is what this costs."""


@dataclass(frozen=True)
class Standing:
    """Who a challenger must not be worse than.

    Attributes:
        replaced: the promoted files, champion or not; `NOTHING` when there are none.
        champion: None when there is none.
        why: in that case, why not.
    """

    replaced: tuple[str, str]
    champion: ModelPair | None
    why: str = ""


def standing(
    registry: ModelRegistry, challenger: Manifest, shas: tuple[str, str], now_ms: int
) -> Standing:
    """Return the champion of the challenger's interval and market.

    A pair that has expired or does not hold is no champion. Neither is one of another market, nor
    one trained on simulated candles when the challenger knows real ones. What was promoted keeps
    its origin in any of these cases: simulated candles never replace real ones.

    Raises:
        ModelError: the challenger knows simulated candles alone, and what was promoted real ones,
            or nobody can say which; or the pointer is damaged.
    """
    interval = challenger.interval
    current = registry.current(interval)
    if current is None:
        return Standing(NOTHING, None, f"nothing was promoted for {interval} before")
    replaced = current.shas
    if replaced == shas:
        return Standing(replaced, None, "the pair is promoted already")
    real = _of_real_candles(registry, replaced) if challenger.origin is Origin.SIMULATED else ""
    if real:
        raise ModelError(
            f"model {(shas[1] or shas[0])[:12]} is not promoted: it was trained on simulated "
            f"candles, {real}; promote it into another folder (BOT4_MODELS)"
        )
    try:
        pair = registry.open(interval, *replaced, now_ms)
    except ModelError as error:
        return Standing(replaced, None, f"what was promoted does not hold any more: {error}")
    held = pair.deciding
    if held.market is not challenger.market:
        told = f"what was promoted trades another market, {held.market.value}"
        return Standing(replaced, None, told)
    if held.origin is not challenger.origin:
        return Standing(replaced, None, "what was promoted was trained on simulated candles")
    return Standing(replaced, pair)


def _of_real_candles(registry: ModelRegistry, promoted: tuple[str, str]) -> str:
    """Say that promoted files know real candles, or that it cannot be known; empty else."""
    for sha256 in filter(None, promoted):
        try:
            origin = registry.manifest(sha256).origin
        except ModelError as error:
            return f"what the champion {sha256[:12]} was trained on cannot be read ({error})"
        if origin is not Origin.SIMULATED:
            return f"the champion {sha256[:12]} on real ones"
    return ""


def compare(
    challenger: ModelPair, champion: ModelPair, candles: Sequence[CandleSeries]
) -> Comparison:
    """Score both pairs on the same candles.

    Args:
        challenger: verified.
        champion: verified.
        candles: series of their interval and market; those of symbols both know are used.

    Raises:
        ModelError: there is no candle to compare them on.
    """
    cuts = challenger.deciding.cuts
    start_ms = max(cuts.test_start_ms, champion.deciding.cuts.test_start_ms)
    known = set(challenger.deciding.symbols) & set(champion.deciding.symbols)
    pairs, shares, rows, symbols = [], [], 0, []
    for series in candles:
        if series.id.symbol not in known:
            continue
        right, blocks = _right(series, start_ms, cuts.end_ms, challenger, champion)
        if not len(blocks):
            continue
        symbols.append(series.id.symbol)
        pairs.append((blocks, right[0] - right[1]))
        shares.append((right[0].mean(), right[1].mean(), right[2].mean()))
        rows += len(blocks)
    interval = block_interval(pairs)
    if interval is None:
        raise ModelError(
            f"it cannot be compared with the champion {champion.hmm_sha256[:12]}: no candle of "
            "its test period, not fitted to by the champion, is stored of the symbols both know "
            f"({' '.join(sorted(known)) or 'none'}); ingest these candles, or train on them"
        )
    means = np.mean(shares, axis=0)
    return Comparison(
        champion_hmm=champion.hmm_sha256,
        champion_lstm=champion.lstm_sha256,
        symbols=tuple(symbols),
        from_ms=start_ms,
        to_ms=cuts.end_ms,
        rows=rows,
        challenger=float(means[0]),
        champion=float(means[1]),
        difference=float(means[0] - means[1]),
        low=interval[0],
        high=interval[1],
        named_alike=float(means[2]),
    )


def _right(
    series: CandleSeries, start_ms: int, end_ms: int, *pairs: ModelPair
) -> tuple[list[np.ndarray], np.ndarray]:
    """Let both pairs name one symbol's candles: those on which the longer window is whole.

    Returns:
        Where the first is right, the second is right, and both name the same, float64[rows] each;
        and the rows' bootstrap blocks, int64[rows].
    """
    near = series.between(start_ms - WARM * series.interval_ms, end_ms)
    table = compute(near)
    part = slice(int(np.searchsorted(near.open_time_ms, start_ms)), len(near))
    labels = hindsight_labels(table.z, reference_hmm(), [part])
    ends = window_ends(table.valid, max(pair.deciding.window for pair in pairs))
    rows = ends[(inside(len(near), scored(part)) & (labels >= 0))[ends]][::STRIDE]
    named = [_named(pair, near, table, part, rows) for pair in pairs]
    right = [(one == labels[rows]).astype(np.float64) for one in named]
    alike = (named[0] == named[1]).astype(np.float64)
    return [*right, alike], table.open_time_ms[rows] // (BLOCK * series.interval_ms)


def _named(
    pair: ModelPair, series: CandleSeries, table: FeatureTable, part: slice, rows: np.ndarray
) -> np.ndarray:
    """Return what a pair names some rows, int64[rows]; -1 where it names nothing."""
    params = pair.hmm.parameters()
    if pair.lstm is None:
        answers = filtered_regimes(table.z, params, [part])
    else:
        inputs = symbol_rows(series, params, table).inputs
        answers = lstm_estimates(pair.lstm.session, inputs, rows)
    named: np.ndarray = Estimate.of(answers).named[rows]
    return named


def card_section(comparison: Comparison | None, said: str) -> str:
    """Return what the model card tells of a comparison, as HTML.

    Args:
        comparison: None when there was no champion.
        said: what followed from it.
    """
    cells = ""
    if comparison is not None:
        cells = "".join(
            f"<tr><td>{escape(name.replace('_', ' '))}<td>{escape(_cell(value))}</tr>"
            for name, value in ((n, getattr(comparison, n)) for n in comparison.__struct_fields__)
        )
    return f"<h2>Against the champion</h2><p>{escape(said)}</p><table>{cells}</table>"


def _cell(value: object) -> str:
    if isinstance(value, tuple):
        return " ".join(map(str, value))
    return f"{value:.4f}" if isinstance(value, float) else str(value)[:64]
