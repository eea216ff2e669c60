"""What the demo says is true: recomputed from candles, from its journal, and by running it again."""

import json
import subprocess
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from bot4_runtime.domain.order import Book
from bot4_runtime.report.record import gather
from bot4_runtime.state.reader import JournalReader

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


def replayed(demo: Any, *words: str, **variables: str) -> dict[str, Any]:
    start = demo.document["cuts"]["test_start_ms"]
    done = demo.runtime(
        "replay", "--from", datetime.fromtimestamp(start / 1000, UTC).isoformat(), "--json",
        *words, **variables,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.data
def test_real_candles_fill_the_shadow_book(real_demo) -> None:
    shadow = real_demo.document["replay"]["books"]["shadow"]
    assert shadow["orders_filled"] >= 30
    assert not real_demo.document["simulated"]
    assert not real_demo.document["replay"]["simulated"]


@pytest.mark.data
def test_without_the_correlation_limit_the_shadow_book_fills_a_hundred_orders(real_demo) -> None:
    told = replayed(real_demo, BOT4_RISK__MAX_CORRELATION="1.0")
    assert told["books"]["shadow"]["orders_filled"] >= 100


@pytest.mark.data
def test_the_models_pass_their_gates_on_candles_they_never_saw(real_demo) -> None:
    """The manifest's figures are those `evaluate` finds on the candles themselves."""
    listed = json.loads(real_demo.pipelines("models", "--json").stdout)["models"]
    (current,) = (m for m in listed if m["kind"] == "lstm" and m["current"] == ["1h"])
    since = datetime.fromtimestamp(real_demo.document["cuts"]["test_start_ms"] / 1000, UTC)
    done = real_demo.pipelines(
        "evaluate", "--candles", str(real_demo.candles), "--since", since.isoformat(), "--json"
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    lstm = found["lstm"]["pooled"]
    assert lstm["accuracy"] == pytest.approx(current["test_accuracy"], abs=0.002)
    assert lstm["accuracy_ci"][0] > 0.92
    assert lstm["accuracy_ci"][0] > found["hmm_same_rows"]["pooled"]["accuracy"]
    assert lstm["accuracy_ci"][0] > found["baselines"]["static_cuts"]["pooled"]["accuracy"]
    assert found["hmm"]["pooled"]["accuracy"] >= 0.88
    assert set(found["lstm"]["symbols"]) == set(real_demo.document["candles"]["symbols"])


def test_the_simulated_market_is_called_simulated_in_every_output(simulated_demo) -> None:
    document = simulated_demo.document
    assert document["ok"]
    assert document["simulated"]
    assert document["replay"]["simulated"]
    assert document["candles"]["origin"] == "simulated"
    report = Path(document["replay"]["report_html"]).read_text()
    assert "SIMULATED MARKET" in report
    assert document["replay"]["models"]["origin"] == "simulated"


def test_the_same_inputs_give_the_same_bytes(demo) -> None:
    first, second = replayed(demo), replayed(demo)
    summaries = [Path(told["summary_json"]).read_bytes() for told in (first, second)]
    assert summaries[0] == summaries[1]
    assert first["state_hash"] == second["state_hash"] == demo.document["replay"]["state_hash"]
    assert str(demo.home).encode() not in summaries[0]


def test_recovery_leads_to_the_state_of_the_run(demo) -> None:
    told = demo.document["replay"]
    assert told["state_hash"] == told["recovered_state_hash"] == told["replayed_state_hash"]


def test_the_books_are_what_their_fills_make_them(demo) -> None:
    told = demo.document["replay"]
    with JournalReader.open(Path(told["report_html"]).parent / "journal.sqlite") as journal:
        record = gather(event for _, event in journal.events())
    for book in Book:
        said = told["books"][book.value]
        kept, state = record.books[book], record.state.books[book]
        cash = record.sessions[0].initial_cash
        fees = Decimal(0)
        for fill in kept.fills:
            cash -= fill.side.sign * fill.price * fill.quantity
            if fill.fee_asset == "USDT":
                cash -= fill.fee
                fees += fill.fee
            else:
                fees += fill.fee * fill.price
        marked = sum(
            (
                p.quantity * Decimal(repr(record.state.marks[p.symbol]))
                for p in state.positions.values()
            ),
            Decimal(0),
        )
        assert Decimal(said["pnl_quote"]) == pytest.approx(
            cash + marked - record.sessions[0].initial_cash
        )
        assert float(said["fees_quote"]) == pytest.approx(float(fees))
        assert said["orders_filled"] == len({fill.intent_no for fill in kept.fills})


@pytest.mark.data
def test_buy_and_hold_is_what_the_candles_say(real_demo) -> None:
    told, start = real_demo.document["replay"], real_demo.document["cuts"]["test_start_ms"]
    for symbol, said in told["buy_and_hold"]["by_symbol"].items():
        frame = pl.read_parquet(real_demo.candles / f"{symbol}.parquet")
        times = frame["timestamp"].cast(pl.Datetime("ms")).cast(pl.Int64).to_numpy()
        closes = frame["close"].to_numpy()[times >= start]
        assert said == pytest.approx(closes[-1] / closes[0] - 1)
    assert told["buy_and_hold"]["return"] == pytest.approx(
        np.mean(list(told["buy_and_hold"]["by_symbol"].values()))
    )


def test_a_second_demo_starts_from_what_exists(demo) -> None:
    """Through `make demo`, as the README says; nothing is trained again."""
    before = (demo.models / "current.json").read_bytes()
    archived = sorted(path.name for path in (demo.models / "archive").iterdir())
    done = subprocess.run(
        ["make", "-o", ".venv/.bot4-installed", "demo"],
        cwd=ROOT, env=demo.environment, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert (demo.models / "current.json").read_bytes() == before
    assert sorted(path.name for path in (demo.models / "archive").iterdir()) == archived
    said = done.stdout + done.stderr
    for word in ("shadow", "validated", "report.html", "random walk"):
        assert word in said.lower(), said
