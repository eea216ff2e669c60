"""The report people read: one HTML file that needs no network and no script."""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any, Final

from bot4_runtime.domain.candle import Origin
from bot4_runtime.domain.order import Book
from bot4_runtime.domain.regime import REGIME_LABELS
from bot4_runtime.report.record import RunRecord
from bot4_runtime.report.summary import drawdowns, held
from bot4_runtime.report.svg import bars, line_chart

REGIME_COLOURS: Final = ("--strong-bear", "--bear", "--neutral", "--bull", "--strong-bull")
BOOK_NAMES: Final = {
    Book.VALIDATED.value: "Validated book",
    Book.SHADOW.value: "Shadow book (what the validator refused)",
}
BOOK_COLOURS: Final = {Book.VALIDATED.value: "--accent", Book.SHADOW.value: "--second"}
MODEL_NUMBERS: Final = (
    "accuracy",
    "accuracy_low",
    "accuracy_high",
    "balanced_accuracy",
    "macro_f1",
    "ece",
    "near",
    "far",
)

STYLE: Final = """
:root{--bg:#fff;--fg:#1b1f24;--dim:#5b6570;--line:#d7dde3;--card:#f5f7f9;--accent:#0b62d6;
--second:#b4560c;--third:#7a8793;--strong-bear:#b3261e;--bear:#e58a6b;--neutral:#a8b0b8;
--bull:#7dbb8a;--strong-bull:#1d7a3d;--warn:#8a5a00}
@media(prefers-color-scheme:dark){:root{--bg:#12161b;--fg:#e6eaee;--dim:#9aa5b0;--line:#2b333b;
--card:#1a2027;--accent:#69a7ff;--second:#f0a35e;--third:#8b98a5;--strong-bear:#ff6b5e;
--bear:#d98a72;--neutral:#7b858f;--bull:#6fb07d;--strong-bull:#4cc274;--warn:#f0c36d}}
*{box-sizing:border-box}body{margin:0 auto;max-width:1040px;padding:24px;background:var(--bg);
color:var(--fg);font:15px/1.5 system-ui,sans-serif}h1{margin:.2em 0}h2{margin:1.8em 0 .4em}p,li{
max-width:75ch;overflow-wrap:anywhere}.dim,figcaption{color:var(--dim)}.badge{
display:inline-block;padding:2px 10px;border-radius:99px;border:1px solid var(--line);
margin-right:6px}.warn{color:var(--warn);border-color:var(--warn);font-weight:600}svg{width:100%;
height:auto;font-size:12px}svg text{fill:var(--dim)}.grid{stroke:var(--line)}figure{margin:0;
overflow-x:auto}svg{min-width:560px}.legend span{margin-right:18px}.legend i{display:inline-block;
width:12px;height:12px;border-radius:3px;margin-right:6px}.wrap{overflow-x:auto}table{
border-collapse:collapse;width:100%;font-variant-numeric:tabular-nums}th,td{padding:5px 10px;
border-bottom:1px solid var(--line);text-align:right;white-space:nowrap}
th:first-child,td:first-child{text-align:left}td.text{white-space:normal;text-align:left;
min-width:22ch;overflow-wrap:anywhere}thead th{color:var(--dim);font-weight:600}details{
margin:.6em 0;background:var(--card);padding:8px 14px;border-radius:8px}summary{cursor:pointer}
"""


def render(record: RunRecord, summary: Mapping[str, Any]) -> str:
    """Return the report as one self-contained HTML document."""
    simulated = summary["origin"] == Origin.SIMULATED.value
    badges = [f'<span class="badge">{escape(summary["mode"])}</span>']
    if simulated:
        badges.append('<span class="badge warn">SIMULATED MARKET: not real prices</span>')
    if summary["synthetic_rules"]:
        rules = escape(", ".join(summary["synthetic_rules"]))
        badges.append(f'<span class="badge warn">SYNTHETIC EVIDENCE: {rules}</span>')
    badges.append(f'<span class="badge">{escape(", ".join(summary["symbols"]))}</span>')
    sections = [
        f"<h1>Bot4 run report</h1><p>{''.join(badges)}</p>",
        f'<p class="dim">{_day(summary["from_ms"])} to {_day(summary["to_ms"])}, '
        f"{summary['candles']:,} candles, strategy {escape(summary['strategy'])}.</p>",
        _books(summary),
        _equity(record),
        _regimes(record, summary),
        _models(summary["models"]),
        _signals(record, summary),
        _trades(record),
        "<h2>Assumptions</h2><ul>"
        + "".join(f"<li>{escape(text)}</li>" for text in summary["assumptions"])
        + "</ul>",
        f'<p class="dim">State hash {escape(summary["state_hash"])}. Past results, simulated or '
        "not, promise nothing.</p>",
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>Bot4 run report</title><style>{STYLE}</style></head><body>"
        + "\n".join(sections)
        + "</body></html>\n"
    )


def _books(summary: Mapping[str, Any]) -> str:
    rows: list[tuple[str, Callable[[Mapping[str, Any]], str]]] = [
        ("Profit and loss, quote", lambda b: _money(b["pnl_quote"])),
        ("Return", lambda b: _percent(b["return"])),
        ("Fees, quote", lambda b: _money(b["fees_quote"])),
        ("Funding, quote; negative is paid", lambda b: _money(b["funding_quote"])),
        (
            "Orders / filled / fills",
            lambda b: f"{b['orders']} / {b['orders_filled']} / {b['fills']}",
        ),
        ("Round trips / won", lambda b: f"{b['trades']} / {b['wins']}"),
        ("Largest drawdown", lambda b: _percent(b["max_drawdown"])),
        (
            "Sharpe (daily x sqrt 365, less 4 % a year)",
            lambda b: _number(b["sharpe_daily_365"]),
        ),
        ("Probabilistic Sharpe: P(true > 0)", lambda b: _share(b["probabilistic_sharpe"])),
        (
            f"Deflated Sharpe, {summary['rules_tried']} tried",
            lambda b: _share(b["deflated_sharpe"]),
        ),
        ("Fees without a price, not counted", lambda b: _amounts(b["unvalued_fees"])),
        ("Refused by risk", lambda b: _counts(b["risk"], without="APPROVED")),
        ("Made smaller by risk", lambda b: str(b["made_smaller"])),
        ("Rejected by the gate or the venue", lambda b: _counts(b["rejected"])),
        ("Breaker trips", lambda b: _counts(b["breaker_trips"])),
        ("Exits", lambda b: _counts(b["exits"])),
    ]
    names = list(summary["books"])
    hold = summary["buy_and_hold"]
    body = "".join(
        f"<tr><td>{name}</td>"
        + "".join(f"<td>{escape(show(summary['books'][book]))}</td>" for book in names)
        + (
            f"<td>{_money(hold['pnl_quote'])}</td></tr>"
            if index == 0
            else f"<td>{_percent(hold['return'])}</td></tr>"
            if index == 1
            else "<td></td></tr>"
        )
        for index, (name, show) in enumerate(rows)
    )
    heads = "".join(f"<th>{escape(BOOK_NAMES[book])}</th>" for book in names)
    return (
        "<h2>Both books</h2><p>The validated book trades what passed every test. The shadow book "
        "trades the entries the validator refused, to show what the refusals were worth; it "
        "never exists in testnet or live.</p>"
        f'<div class="wrap"><table><thead><tr><th></th>{heads}<th>Buy and hold, equal weights'
        f"</th></tr></thead><tbody>{body}</tbody></table></div>"
    )


def _equity(record: RunRecord) -> str:
    equity = [
        (BOOK_NAMES[book.value], BOOK_COLOURS[book.value], kept.equity)
        for book, kept in record.books.items()
    ]
    falls = [(name, colour, [-d for d in drawdowns(v)]) for name, colour, v in equity]
    hold = [("Buy and hold, equal weights, 2 % of it", "--third", held(record, share=0.02))]
    return (
        "<h2>Equity, quote</h2><p>Buying and holding is drawn at the size of one position, 2 % of "
        "the capital, so that all lines fit one scale.</p>"
        + line_chart(
            record.times_ms, equity + hold, height=280, label="Equity of both books over time"
        )
        + "<h2>Drawdown</h2>"
        + line_chart(record.times_ms, falls, height=160, percent=True, label="Drawdown over time")
    )


def _regimes(record: RunRecord, summary: Mapping[str, Any]) -> str:
    rows = [
        (label, float(summary["regimes"][label]), colour)
        for label, colour in zip(REGIME_LABELS, REGIME_COLOURS, strict=True)
    ]
    parts = [
        "<h2>Regimes</h2><p>A regime names the state of the volatility-normalised 72-candle trend "
        "<em>now</em>. It does not predict: on a random walk the same HMM pipeline scores as "
        "well.</p>",
        bars(rows, label="Candles by regime"),
    ]
    for symbol, closes in sorted(record.closes.items()):
        bands = _bands(record.regimes.get(symbol, []), closes[-1][0])
        chart = line_chart(
            [time_ms for time_ms, _ in closes],
            [(f"{symbol} close", "--fg", [close for _, close in closes])],
            height=220,
            bands=bands,
            label=f"{symbol} close with regime bands",
        )
        opened = " open" if symbol == min(record.closes) else ""
        parts.append(f"<details{opened}><summary>{escape(symbol)}</summary>{chart}</details>")
    return "".join(parts)


def _bands(regimes: Sequence[tuple[int, int]], end_ms: int) -> list[tuple[int, int, str]]:
    bands: list[tuple[int, int, str]] = []
    for index, (start, regime) in enumerate(regimes):
        end = regimes[index + 1][0] if index + 1 < len(regimes) else end_ms
        colour = REGIME_COLOURS[regime]
        if bands and bands[-1][2] == colour and bands[-1][1] == start:
            bands[-1] = (bands[-1][0], end, colour)
        else:
            bands.append((start, end, colour))
    return bands


def _models(models: Mapping[str, Any] | None) -> str:
    if models is None:
        return "<h2>Models</h2><p>The strategy uses none.</p>"
    rows = []
    for name in ("lstm", "hmm_filter"):
        for split, told in (models[name] or {}).items():
            numbers = "".join(f"<td>{_share(told.get(key))}</td>" for key in MODEL_NUMBERS)
            rows.append(
                f"<tr><td>{escape(f'{name}, {split}'.replace('_', ' '))}</td>{numbers}</tr>"
            )
    for name, accuracy in sorted(models["baselines_test"].items()):
        if name == "hmm_filter":  # has rows of its own, above
            continue
        blank = "<td></td>" * (len(MODEL_NUMBERS) - 1)
        title = escape(f"{name}, test".replace("_", " "))
        rows.append(f"<tr><td>{title}</td><td>{_share(accuracy)}</td>{blank}</tr>")
    heads = "".join(f"<th>{key.replace('_', ' ')}</th>" for key in MODEL_NUMBERS)
    facts = "".join(
        f"<tr><td>{escape(key.replace('_', ' '))}</td><td class='text'>{escape(_flat(value))}</td>"
        "</tr>"
        for key, value in models.items()
        if not isinstance(value, Mapping)
    )
    return (
        "<h2>Models</h2><p>Agreement of the causal estimate with what hindsight calls the same "
        "candle. <em>random walk hmm</em> is the control: the same pipeline on a random walk.</p>"
        f'<div class="wrap"><table><thead><tr><th></th>{heads}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
        f"<details><summary>Which models</summary><div class='wrap'><table><tbody>{facts}"
        "</tbody></table></div></details>"
    )


def _signals(record: RunRecord, summary: Mapping[str, Any]) -> str:
    signals = summary["signals"]
    rows = [("APPROVED", float(signals["approved"]), "--strong-bull")]
    rows += [(code, float(count), "--second") for code, count in signals["rejected"].items()]
    body = "".join(
        f"<tr><td>{_minute(d.ts_event_ns)}</td><td>{escape(d.signal.symbol)}</td>"
        f"<td>{escape(d.code)}</td><td class='text'>{escape(d.text)}</td>"
        f"<td class='text'>{escape(d.suggestion)}</td></tr>"
        for d in record.decisions
    )
    return (
        "<h2>Entry signals</h2><p>Most honest signals on most markets are rejected; that is the "
        "validator's right answer.</p>"
        + bars(rows, label="Entry signals by verdict")
        + f"<details><summary>Every decision ({len(record.decisions)})</summary><div class='wrap'>"
        "<table><thead><tr><th>Time, UTC</th><th>Symbol</th><th>Verdict</th><th>Reason</th>"
        f"<th>Suggestion</th></tr></thead><tbody>{body}</tbody></table></div></details>"
    )


def _trades(record: RunRecord) -> str:
    parts = ["<h2>Round trips</h2>"]
    for book, kept in record.books.items():
        body = "".join(
            f"<tr><td>{_minute(t.opened_ts_ns)}</td><td>{_minute(t.closed_ts_ns)}</td>"
            f"<td>{escape(t.symbol)}</td><td>{t.quantity}</td><td>{t.entry_price:.6g}</td>"
            f"<td>{t.exit_price:.6g}</td><td>{t.pnl:.2f}</td><td>{t.return_net:.2%}</td>"
            f"<td>{t.fees_quote:.2f}</td><td>{t.funding_quote:.2f}</td>"
            f"<td>{escape(t.exit_reason)}</td></tr>"
            for t in kept.trades
        )
        parts.append(
            f"<details><summary>{escape(BOOK_NAMES[book.value])}: {len(kept.trades)}</summary>"
            "<div class='wrap'><table><thead><tr><th>Opened, UTC</th><th>Closed, UTC</th>"
            "<th>Symbol</th><th>Quantity</th><th>Entry</th><th>Exit</th><th>Net, quote</th>"
            "<th>Net</th><th>Fees</th><th>Funding</th><th>Exit by</th></tr></thead>"
            f"<tbody>{body}</tbody></table></div></details>"
        )
    return "".join(parts)


def _flat(value: Any) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value)


def _share(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"


def _counts(counts: Mapping[str, int], without: str = "") -> str:
    return ", ".join(f"{code} {n}" for code, n in counts.items() if code != without) or "none"


def _amounts(by_asset: Mapping[str, str]) -> str:
    return ", ".join(f"{amount} {asset}" for asset, amount in by_asset.items()) or "none"


def _money(text: str | float | None) -> str:
    return "–" if text is None else f"{float(text):,.2f}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.2%}"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _day(time_ms: int | None) -> str:
    if time_ms is None:
        return "–"
    return datetime.fromtimestamp(time_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")


def _minute(ts_ns: int) -> str:
    return datetime.fromtimestamp(ts_ns / 1_000_000_000, UTC).strftime("%Y-%m-%d %H:%M")
