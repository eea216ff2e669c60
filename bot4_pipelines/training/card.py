"""The model card: one self-contained page that says what a model is and how it did.

No script, no network, no file beside it. Every number on it is in the manifest.
"""

import base64
from collections.abc import Mapping
from datetime import UTC, datetime
from html import escape

from bot4_runtime.regime.manifest import Manifest

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem auto;padding:0 1rem;
color:#1a1a1a;background:#fff}table{border-collapse:collapse;margin:.5rem 0}
td,th{padding:.2rem .8rem .2rem 0;text-align:right;border-bottom:1px solid #ddd}
td:first-child,th:first-child{text-align:left}img{max-width:100%}.no{color:#b2182b}
.note{background:#f4f4f4;padding:.6rem 1rem}code{font-size:.85em}
@media(prefers-color-scheme:dark){body{color:#e8e8e8;background:#161616}
td,th{border-color:#444}.note{background:#262626}img{background:#fff}}
"""
_SPLITS = ("train", "validation", "test")
_ROWS = (
    "accuracy",
    "balanced_accuracy",
    "macro_f1",
    "ece",
    "near",
    "far",
    "delay",
)
_NOTE = (
    "The model names the state the market is in, in units of its own volatility. Accuracy is "
    "agreement with labels made in hindsight. It predicts nothing: on a random walk the same "
    "procedure agrees about as often."
)
_SOURCE = (
    "Each number is the unweighted mean over the symbols named above; behind it is its 95 % "
    "interval, from resampling weeks, the same for all symbols. Rows are those that were scored: "
    "the first 200 and the last 24 of a split are not, and of training and validation the LSTM "
    "was asked about every few only. Near is within 3 candles of a switch of the label; delay is "
    "in candles."
)


def model_card(manifest: Manifest, images: Mapping[str, bytes]) -> str:
    """Return the page.

    Args:
        manifest: complete, with metrics and verdicts.
        images: title to PNG.
    """
    name = manifest.kind.value.upper()
    simulated = (
        '<p class="note"><b>Simulated market.</b> Prices are made up; nothing here says anything '
        "about a real one.</p>"
        if manifest.origin.value == "simulated"
        else ""
    )
    plots = "".join(
        f'<h2>{escape(title)}</h2><img alt="{escape(title)}" '
        f'src="data:image/png;base64,{base64.b64encode(png).decode()}">'
        for title, png in images.items()
    )
    return (
        "<!doctype html><html lang=en><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width,initial-scale=1">'
        f"<title>Bot4 {name} regime model</title><style>{_STYLE}</style>"
        f"<h1>{name} regime model</h1>{simulated}"
        f'<p class="note">{escape(_NOTE)}</p>'
        + _table({key: (value,) for key, value in _facts(manifest).items()}, ())
        + "<h2>Accuracy</h2>"
        + _table(_metric_rows(manifest), _SPLITS)
        + f"<p>{escape(_SOURCE)}</p>"
        + _baselines(manifest)
        + "<h2>Gates</h2>"
        + _gates(manifest)
        + plots
        + "</html>"
    )


def card_markdown(manifest: Manifest) -> str:
    """Return the card's tables as markdown, for where its plots are shown already."""
    parts = [
        _NOTE,
        _markdown({key: (value,) for key, value in _facts(manifest).items()}, ("",)),
        "### Accuracy",
        _markdown(_metric_rows(manifest), _SPLITS),
        _SOURCE,
    ]
    compared = _compared(manifest)
    if compared:
        parts += ["### Compared with", _markdown(compared, _SPLITS)]
    return "\n\n".join(parts)


def _markdown(rows: Mapping[str, tuple[str, ...]], head: tuple[str, ...]) -> str:
    body = [(name, *row) for name, row in rows.items()]
    lines = [("", *head), ("---",) * (len(head) + 1), *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _facts(manifest: Manifest) -> dict[str, str]:
    """Say what the model was made from: candles, symbols, dates of the splits, code."""
    cuts = manifest.cuts
    reads = f"the last {manifest.window} candles" if manifest.hmm_sha256 else "candle by candle"
    return {
        "candles": f"{manifest.origin.value} {manifest.market.value} {manifest.interval}, "
        + ", ".join(manifest.symbols),
        "reads": reads,
        "training": f"{_day(cuts.train_start_ms)} to {_day(cuts.validation_start_ms)}",
        "validation": f"{_day(cuts.validation_start_ms)} to {_day(cuts.test_start_ms)}",
        "test": f"{_day(cuts.test_start_ms)} to {_day(cuts.end_ms)}",
        "made": _day(manifest.created_ms),
        "expires": _day(manifest.expires_ms),
        "sha256 of the candles": manifest.data_sha256[:16],
        "feature schema": manifest.schema_id[:16],
        "code": manifest.code_version,
        "HMM it belongs to": manifest.hmm_sha256[:16] or "itself",
    }


def _metric_rows(manifest: Manifest) -> dict[str, tuple[str, ...]]:
    sections = [manifest.metrics.get(split, {}) for split in _SPLITS]
    counts = tuple("–" if one.get("rows") is None else f"{one['rows']:,.0f}" for one in sections)
    rows = {
        row.replace("_", " "): tuple(_measured(section, row) for section in sections)
        for row in _ROWS
    }
    return {"rows": counts, **rows}


def _measured(section: Mapping[str, float | None], name: str) -> str:
    """Return a number with its interval."""
    low, high = section.get(f"{name}_low"), section.get(f"{name}_high")
    interval = "" if low is None or high is None else f" ({low:.4f}–{high:.4f})"
    return _number(section.get(name)) + interval


def _compared(manifest: Manifest) -> dict[str, tuple[str, ...]]:
    """Return what stands beside the model, by split: accuracies."""
    sections = [manifest.metrics.get(f"baselines_{split}", {}) for split in _SPLITS]
    rows = {
        name.replace("_", " "): tuple(_number(section.get(name)) for section in sections)
        for name in sorted({name for section in sections for name in section})
    }
    walk = manifest.metrics.get("random_walk", {})
    if walk:
        rows["this HMM's procedure on a random walk"] = ("", "", _measured(walk, "accuracy"))
    return rows


def _baselines(manifest: Manifest) -> str:
    rows = _compared(manifest)
    return "<h2>Compared with</h2>" + _table(rows, _SPLITS) if rows else ""


def _gates(manifest: Manifest) -> str:
    rows = "".join(
        f"<tr><td>{escape(gate.name)}<td>{_number(gate.value)}<td>{escape(gate.rule)} "
        f"{_number(gate.threshold)}<td{'' if gate.passed else ' class=no'}>"
        f"{'passed' if gate.passed else 'REFUSED'}</tr>"
        for gate in manifest.gates
    )
    return f"<table><tr><th>gate<th>value<th>needs<th></tr>{rows}</table>"


def _table(rows: Mapping[str, tuple[str, ...]], head: tuple[str, ...]) -> str:
    top = f"<tr><th>{''.join(f'<th>{name}' for name in head)}</tr>" if head else ""
    body = "".join(
        f"<tr><td>{escape(name)}{''.join(f'<td>{escape(cell)}' for cell in cells)}</tr>"
        for name, cells in rows.items()
    )
    return f"<table>{top}{body}</table>"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _day(time_ms: int) -> str:
    return f"{datetime.fromtimestamp(time_ms / 1000, UTC):%Y-%m-%d}"
