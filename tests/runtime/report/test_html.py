"""The page people read: one well-formed file, nothing loaded from elsewhere, nothing injected."""

from html.parser import HTMLParser
from typing import ClassVar

import msgspec
import pytest

from bot4_runtime.domain.candle import Origin
from bot4_runtime.domain.events import (
    CandleClosed,
    ModelPromoted,
    RegimeNamed,
    SessionStarted,
    SignalDecided,
)
from bot4_runtime.domain.regime import EstimateSource, Regime, RegimeEstimate
from bot4_runtime.exchange.paper_model import PaperModel
from bot4_runtime.report.html import render
from bot4_runtime.report.record import gather
from bot4_runtime.report.summary import summarise

HOSTILE = '<script>alert("x")</script><img src=x onerror=y>&"\''
HOUR_NS = 3_600_000_000_000


class Page(HTMLParser):
    """Checks that tags nest, and keeps what a browser would see."""

    VOID: ClassVar = {"meta", "br", "img", "input", "link"}

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(self.words)


def page_of(events, models=None) -> tuple[Page, str]:
    record = gather(events)
    text = render(record, summarise(record, models=models, paper=PaperModel()))
    return Page(text), text


def assert_self_contained(page: Page, text: str) -> None:
    assert not {"script", "link", "img", "iframe", "object"} & set(page.tags)
    assert "http://" not in text
    assert "https://" not in text
    assert "url(" not in text
    assert not {name for name, _ in page.attributes} & {"src", "href", "onerror", "onload"}


def estimate(symbol: str, number: int, regime: Regime, ts_ns: int) -> RegimeNamed:
    share = [0.05] * 5
    share[regime] = 0.8
    return RegimeNamed(
        ts_event_ns=ts_ns,
        estimate=RegimeEstimate(
            symbol=symbol, interval="1h", open_time_ms=number, regime=regime,
            probabilities=tuple(share), confidence=0.8, source=EstimateSource.LSTM,
            hmm_regime=regime, hmm_confidence=0.7, volatility=0.01, model_sha256="0" * 64,
            schema_id="s",
        ),
    )  # fmt: skip


def test_the_report_is_well_formed_and_self_contained(run) -> None:
    page, text = page_of(run.events)
    assert_self_contained(page, text)
    for words in ("Validated book", "Shadow book", "Buy and hold", "AAAUSDT", "Round trips"):
        assert words in page.text
    assert "The strategy uses none." in page.text
    assert "SIMULATED" not in page.text


def test_the_numbers_shown_are_those_of_the_summary(run) -> None:
    record = gather(run.events)
    summary = summarise(record, models=None, paper=PaperModel())
    page, _ = page_of(run.events)
    book = summary["books"]["validated"]
    assert f"{float(book['pnl_quote']):,.2f}" in page.words
    assert f"{book['orders']} / {book['orders_filled']} / {book['fills']}" in page.words
    assert f"{book['sharpe_daily_365']:.2f}" in page.words
    assert f"{book['probabilistic_sharpe']:.4f}" in page.words
    assert f"{book['deflated_sharpe']:.4f}" in page.words
    for words in ("less 4 % a year", "Deflated Sharpe, 1 tried"):
        assert words in page.text
    assert page.text.count("signal") > 10


def test_hostile_names_stay_text(run) -> None:
    def renamed(value):
        raw = msgspec.json.encode(value).decode()
        swapped = raw.replace('"AAAUSDT"', msgspec.json.encode(f"{HOSTILE}USDT").decode())
        swapped = swapped.replace("exit signal", HOSTILE.replace('"', "'"))
        return msgspec.json.decode(swapped, type=type(value))

    events = [
        renamed(event) for event in run.events if type(event).__name__ != "InstrumentDefined"
    ]
    events = [
        msgspec.structs.replace(e, strategy=HOSTILE, mode=HOSTILE)
        if isinstance(e, SessionStarted)
        else msgspec.structs.replace(e, text=HOSTILE, code=HOSTILE, suggestion=HOSTILE)
        if isinstance(e, SignalDecided)
        else e
        for e in events
    ]
    kept = [e for e in events if isinstance(e, SessionStarted | CandleClosed | SignalDecided)]
    page, text = page_of(
        kept,
        models={
            "lstm": None,
            "hmm_filter": {HOSTILE: {}},
            "baselines_test": {HOSTILE: 0.5},
            "training_symbols": [HOSTILE],
        },
    )
    assert_self_contained(page, text)
    assert f"{HOSTILE}USDT" in page.text
    assert "<script>" not in text


def test_a_simulated_market_is_marked(run) -> None:
    events = [
        msgspec.structs.replace(e, origin=Origin.SIMULATED) if isinstance(e, SessionStarted) else e
        for e in run.events
    ]
    page, _ = page_of(events)
    assert "SIMULATED MARKET: not real prices" in page.text


def test_regimes_are_bands_and_models_are_told(run) -> None:
    events, seen = [], 0
    for event in run.events:
        events.append(event)
        if isinstance(event, CandleClosed) and event.candle.symbol == "AAAUSDT":
            regime = Regime(seen // 3 % 5)
            events.append(
                estimate("AAAUSDT", event.candle.open_time_ms, regime, event.ts_event_ns)
            )
            seen += 1
    events.append(
        ModelPromoted(
            ts_event_ns=events[-1].ts_event_ns, interval="1h", hmm_sha256="a", lstm_sha256="b",
            schema_id="s",
        )
    )  # fmt: skip
    record = gather(events)
    assert len(record.promotions) == 1
    assert record.regime_counts.total() == seen
    summary = summarise(record, models=None, paper=PaperModel())
    assert sum(summary["regimes"].values()) == seen
    assert summary["estimates_by"] == {"lstm": seen}
    models = {
        "hmm_sha256": "abc",
        "lstm": {"test": {"accuracy": 0.51234}},
        "hmm_filter": {"test": {"accuracy": 0.41234}},
        "baselines_test": {"hmm_filter": 0.41234, "random_walk_hmm": 0.91234},
    }
    page, text = page_of(events, models)
    assert text.count("hmm filter, test") == 1
    assert_self_contained(page, text)
    bands = text.count('opacity="0.22"')
    assert seen / 3 * 0.8 < bands <= seen / 3 + 1
    for number in ("0.5123", "0.4123", "0.9123"):
        assert number in page.text


def test_a_run_in_which_nothing_happened_is_shown_too(run) -> None:
    page, text = page_of([e for e in run.events if isinstance(e, SessionStarted)])
    assert_self_contained(page, text)
    assert "Too little happened to draw." in page.text
    assert page.words.count("–") >= 4


@pytest.mark.parametrize("theme", ["prefers-color-scheme:dark", 'lang="en"', "viewport"])
def test_the_page_suits_its_reader(run, theme: str) -> None:
    assert theme in page_of(run.events)[1]
