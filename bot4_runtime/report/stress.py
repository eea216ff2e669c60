"""Tells a stress replay: what protection did, with what result, as HTML and JSON."""

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from pathlib import Path
from typing import Any, Final

from bot4_runtime.protection.stress import (
    Action,
    Liquidation,
    StressResult,
    StressSettings,
    result_hash,
)
from bot4_runtime.report.html import STYLE
from bot4_runtime.report.svg import Dot, line_chart
from bot4_runtime.risk.brackets import PUBLISHED_DATE

_COLOURS: Final = {"reduce": "--second", "add_margin": "--accent", "close": "--strong-bear"}
_NAMES: Final = {
    "reduce": "reduce by a fifth",
    "add_margin": "add margin",
    "close": "close",
    "place_stop": "place stop",
}


def write_stress(
    folder: Path,
    results: Sequence[StressResult],
    facts: Mapping[str, Any],
    settings: StressSettings,
) -> dict[str, Any]:
    """Write ``report.html`` and ``stress.json``; return the document and their paths.

    Args:
        folder: made when it is not there.
        results: one an account.
        facts: ``candles``, ``symbols``, ``from_ms``, ``to_ms``: what was replayed; ``brackets``,
            ``assumed_brackets``: by what it was margined.
        settings: what was assumed.
    """
    document = {
        **facts,
        "assumptions": assumptions(facts, settings),
        "accounts": [result.told() for result in results],
        "avoidable_liquidations": sum(len(result.avoidable) for result in results),
        "result_hash": result_hash(results),
    }
    folder.mkdir(parents=True, exist_ok=True)
    report_html, stress_json = folder / "report.html", folder / "stress.json"
    stress_json.write_text(json.dumps(document, indent=1, sort_keys=True, allow_nan=False) + "\n")
    report_html.write_text(render_stress(results, facts, settings), encoding="utf-8")
    return document | {
        "report_html": str(report_html.resolve()),
        "stress_json": str(stress_json.resolve()),
    }


def outcome(account: Mapping[str, Any]) -> str:
    """Tell one account of `write_stress`'s document in a line: both runs, and what it cost."""
    gone, bare = account["liquidations"], account["unprotected_liquidations"]
    avoidable = sum(1 for one in gone if one["avoidable"])
    which = f" ({avoidable or 'none'} avoidable)" if gone else ""
    line = (
        f"{account['name']}: {account['capital']:,.2f} before; protected "
        f"{account['protected']:,.2f}, {len(account['actions'])} actions, {len(gone)} "
        f"liquidations{which}; not protected {account['unprotected']:,.2f}, {len(bare)} "
        "liquidations."
    )
    cost = account["unprotected"] - account["protected"]
    return line + (f" Protection cost {cost:,.2f} more than it saved." if cost > 0.005 else "")


def assumptions(facts: Mapping[str, Any], settings: StressSettings) -> list[str]:
    """Return what a stress replay takes for granted, in words."""
    limits, costs, faults = settings.limits, settings.costs, settings.faults
    return [
        f"Prices are the {facts['candles']} candles of the last trades in a {facts['market']} "
        "market; they stand in for mark prices, which are smoother.",
        "A candle is four steps, a quarter of it apart: open, the extreme that helps, "
        "the one that hurts, close. Between two steps there is no price: nothing is "
        "interpolated, so no action finds a price that the candles do not have.",
        "The venue judges a step before protection sees it.",
        f"An order or a move of margin takes effect {faults.latency_ms[0]} to "
        f"{faults.latency_ms[1]} ms after its decision, at the price of that moment less "
        f"{costs.slippage:.2%} slippage, for a taker fee of {costs.taker:.3%}. A liquidation "
        f"costs {costs.clearance:.2%} more. Whatever is ordered finds a counterparty.",
        f"Maintenance margin by {_ladders(facts)}; those in force at the time of the candles were "
        "others. Lot sizes are assumed. No funding is paid.",
        "Cutting an isolated position releases the same share of its margin, so that only added "
        "margin moves its liquidation price.",
        f"Alert at {limits.alert:.0%}, act at {limits.act:.0%}, critical at {limits.critical:.0%} "
        "of the larger of margin ratio and margin consumed; allowed steps: "
        f"{', '.join(_NAMES[action] for action in limits.actions) or 'none'}.",
        f"A liquidation is avoidable unless the step that caused it began below {limits.act:.0%}.",
    ]


def _ladders(facts: Mapping[str, Any]) -> str:
    text = f"Binance's USD-M brackets of {PUBLISHED_DATE}"
    if facts["brackets"]:
        text = f"the brackets of {facts['brackets']}, else {text}"
    if facts["assumed_brackets"]:
        text += (
            f", and for {', '.join(facts['assumed_brackets'])}, of which none are known, by the "
            "highest rate of all of them (--brackets FILE takes the venue's answer to "
            "leverageBracket)"
        )
    return text


def render_stress(
    results: Sequence[StressResult], facts: Mapping[str, Any], settings: StressSettings
) -> str:
    """Return the report as one self-contained HTML document."""
    avoidable = sum(len(result.avoidable) for result in results)
    gaps = sum(len(result.liquidations) for result in results) - avoidable
    saved = sum(result.protected - result.unprotected for result in results)
    spared = sum(result.without_margin - result.unprotected for result in results)
    verdict = (
        "no avoidable liquidation" if not avoidable else f"{avoidable} AVOIDABLE LIQUIDATIONS"
    )
    body = [
        f'<h1>Bot4 stress report</h1><p><span class="badge{" warn" if avoidable else ""}">'
        f'{verdict}</span><span class="badge">{escape(", ".join(facts["symbols"]))}</span></p>',
        f'<p class="dim">{_minute(facts["from_ms"])} to {_minute(facts["to_ms"])} UTC, '
        f"{escape(facts['candles'])} candles standing in for mark prices. The positions were "
        "opened before, outside Bot4.</p>",
        f"<p>Against the same accounts without protection, {saved:+,.2f} quote over "
        f"{len(results)} accounts; {spared:+,.2f} had no margin been added. "
        "Liquidations that one step larger than the whole remaining "
        f"distance caused, which nothing prevents: {gaps}.</p>",
        _overview(results),
        *(_account(result, settings.limits.act) for result in results),
        "<h2>Assumptions</h2><ul>"
        + "".join(f"<li>{escape(text)}</li>" for text in assumptions(facts, settings))
        + "</ul>",
        f'<p class="dim">Result hash {result_hash(results)}. The past promises nothing.</p>',
    ]
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>Bot4 stress report</title><style>{STYLE}</style></head><body>"
        + "\n".join(body)
        + "</body></html>\n"
    )


def _overview(results: Sequence[StressResult]) -> str:
    heads = (
        "Account",
        "Before",
        "Protected",
        "No margin added",
        "Not protected",
        "Actions",
        "Liquidated",
        "Liquidated if not protected",
    )
    rows = "".join(
        f"<tr><td>{escape(result.name)}</td><td>{result.capital:,.2f}</td>"
        f"<td>{result.protected:,.2f}</td><td>{result.without_margin:,.2f}</td>"
        f"<td>{result.unprotected:,.2f}</td><td>{len(result.actions)}</td>"
        f"<td>{_ends(result.liquidations)}</td><td>{_ends(result.unprotected_liquidations)}</td>"
        "</tr>"
        for result in results
    )
    return (
        "<h2>Capital, quote</h2><p>Margin that is added is at risk too: a position that is "
        "defended and falls on loses more than one that is given up. <em>No margin added</em> is "
        'protection without that step.</p><div class="wrap"><table><thead><tr>'
        + "".join(f"<th>{head}</th>" for head in heads)
        + f"</tr></thead><tbody>{rows}</tbody></table></div>"
        + "<p class='legend'>Dots in the charts: "
        + "".join(
            f'<span><i style="background:var({colour})"></i>{_NAMES[action]}</span>'
            for action, colour in _COLOURS.items()
        )
        + "</p>"
    )


def _account(result: StressResult, act: float) -> str:
    parts = [f"<h2>{escape(result.name)}</h2>", _measure_chart(result, act)]
    parts += [_price_chart(result, leg) for leg in result.prices]
    parts += [f"<p>{escape(_told(one, protected=True))}</p>" for one in result.liquidations]
    parts += [
        f"<p>{escape(_told(one, protected=False))}</p>" for one in result.unprotected_liquidations
    ]
    if result.actions:
        rows = "".join(_action_row(action) for action in result.actions)
        parts.append(
            f"<details><summary>Every action ({len(result.actions)})</summary><div class='wrap'>"
            "<table><thead><tr><th>Time, UTC</th><th>Action</th><th>Symbol</th><th>Price</th>"
            "<th>Liquidation</th><th>Ratio</th><th>Consumed</th><th>Planned</th><th>Result</th>"
            f"<th>Reason</th></tr></thead><tbody>{rows}</tbody></table></div></details>"
        )
    alarms = ", ".join(f"{code} {count}" for code, count in result.alarms.items()) or "none"
    parts.append(f'<p class="dim">Alarms: {escape(alarms)}. Fees {result.fees:,.2f}.</p>')
    return "".join(parts)


def _measure_chart(result: StressResult, act: float) -> str:
    worst = [_number(value) for value in result.worst]
    shown = [min(max(value, 0.0), 1.1) for value in worst]
    dots = [
        (
            action.ts_ms,
            min(action.consumed, 1.1),
            _COLOURS.get(action.action, "--fg"),
            _what(action),
        )
        for action in result.actions
        if action.consumed is not None
    ]
    lines = [
        ("larger of margin ratio and margin consumed", "--fg", shown),
        ("act", "--warn", [act] * len(shown)),
        ("liquidation", "--strong-bear", [1.0] * len(shown)),
    ]
    return line_chart(
        result.times_ms,
        lines,
        height=170,
        percent=True,
        dots=dots,
        label=f"Measures of {result.name}",
    )


def _price_chart(result: StressResult, leg: str) -> str:
    prices = [_number(value) for value in result.prices[leg]]
    high = max((price for price in prices if price == price), default=1.0)  # noqa: PLR0124 - NaN
    liquidation = [
        value if 0.0 < value < 2.0 * high else float("nan")
        for value in map(_number, result.liquidation_prices[leg])
    ]
    symbol = leg.split(" ", maxsplit=1)[0]
    dots: list[Dot] = [
        (action.ts_ms, action.price, _COLOURS.get(action.action, "--fg"), _what(action))
        for action in result.actions
        if action.symbol == symbol and action.price is not None
    ]
    lines = [
        (f"{symbol} price", "--fg", prices),
        (f"liquidation price of {leg}", "--strong-bear", liquidation),
    ]
    return line_chart(
        result.times_ms, lines, height=240, dots=dots, label=f"Price and liquidation of {leg}"
    )


def _action_row(action: Action) -> str:
    planned = action.quantity if action.amount == "0" else f"{action.amount} quote"
    result = action.status
    if action.fill_price is not None:
        result = f"{action.filled} at {action.fill_price:,.6g}"
    took = f", {action.settled_ms - action.ts_ms} ms" if action.settled_ms is not None else ""
    return (
        f"<tr><td>{_second(action.ts_ms)}</td><td>{_NAMES.get(action.action, action.action)}</td>"
        f"<td>{escape(action.symbol)}</td><td>{_price(action.price)}</td>"
        f"<td>{_price(action.liquidation_price)}</td><td>{_percent(action.ratio)}</td>"
        f"<td>{_percent(action.consumed)}</td><td>{planned}</td><td>{escape(result + took)}</td>"
        f"<td class='text'>{escape(action.reason)}</td></tr>"
    )


def _told(one: Liquidation, *, protected: bool) -> str:
    moves = ", ".join(
        f"{symbol} {before:,.6g} → {one.marks_after[symbol]:,.6g} "
        f"({one.marks_after[symbol] / before - 1:+.2%})"
        for symbol, before in one.marks_before.items()
    )
    who = "Liquidated in spite of protection" if protected else "Without protection liquidated"
    text = (
        f"{who} at {_second(one.ts_ms)}: {one.wallet}, by the step {moves}, from "
        f"{one.worst_before:.1%} consumed; {one.left:,.2f} quote of the wallet were left."
    )
    if not protected:
        return text
    if one.avoidable:
        return f"{text} AVOIDABLE: action was due before the step."
    return f"{text} Not avoidable: the step was larger than the whole remaining distance."


def _what(action: Action) -> str:
    return f"{_second(action.ts_ms)} {_NAMES.get(action.action, action.action)} {action.symbol}"


def _ends(liquidations: Sequence[Liquidation]) -> str:
    return ", ".join(_minute(one.ts_ms) for one in liquidations) or "–"


def _number(value: float | None) -> float:
    return float("nan") if value is None else value


def _price(value: float | None) -> str:
    return "–" if value is None else f"{value:,.6g}"


def _percent(value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}"


def _minute(ts_ms: int) -> str:
    return datetime.fromtimestamp(ts_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M")


def _second(ts_ms: int) -> str:
    return datetime.fromtimestamp(ts_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")
