"""`fees` tells what was paid, and ends with 1 when it is not what the schedule says."""

import datetime as dt
import io
import json
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest
from rich.console import Console

from bot4_runtime.domain.candle import Candle, Market
from bot4_runtime.domain.events import CandleClosed, FundingPaid, InstrumentDefined, OrderFilled
from bot4_runtime.domain.instrument import Instrument
from bot4_runtime.domain.order import Book, Fill, Liquidity, Side
from bot4_runtime.fee_report import fee_report, print_fee_report
from bot4_runtime.settings import FeesSection

DRILL = ("replay", "--source", "simulated:5", "--strategy", "drill", "--symbols", "BTCUSDT",
         "--from", "2024-01-01", "--to", "2024-01-15", "--out")  # fmt: skip


@pytest.fixture
def run(command, tmp_path: Path) -> Path:
    folder = tmp_path / "run"
    assert command(*DRILL, folder).code == 0
    return folder


def test_a_replays_fees_are_those_predicted(command, run):
    told = command("fees", "--folder", run, "--json")
    assert told.code == 0
    found = json.loads(told.out)
    assert found["matches"] is True
    assert found["fills"] > 10
    assert set(found["by_symbol"]) == {"BTCUSDT"}
    assert found["fills"] == sum(row["checked"] for row in found["reconciliation"].values())
    for row in found["reconciliation"].values():
        assert row["predicted"] == row["charged"]
        assert {Decimal(amount) for amount in row["difference"].values()} == {Decimal(0)}
    shown = command("fees", "--folder", run)
    assert shown.code == 0
    assert "Charged is what was predicted, fill by fill." in shown.out


def test_other_settings_than_the_journals_are_told_and_end_with_1(command, run, monkeypatch):
    monkeypatch.setenv("BOT4_FEES__VIP_TIER", "9")
    told = command("fees", "--folder", run, "--json")
    assert told.code == 1
    assert json.loads(told.out)["matches"] is False
    shown = command("fees", "--folder", run)
    assert shown.code == 1
    assert "cost something else than predicted" in shown.out
    assert "Are [fees] vip_tier" in " ".join(shown.out.split())


def test_an_account_without_a_journal_is_told(command):
    ended = command("fees", "--account", "nobody")
    assert ended.code == 2
    assert "account 'nobody' has no journal" in ended.words


class Journaled:
    """Events in memory, read as from a journal."""

    def __init__(self, *events):
        self.kept = events

    def events(self, kinds):
        return [(seq, event) for seq, event in enumerate(self.kept, 1) if isinstance(event, kinds)]

    def account(self):
        return "memory"


def filled(symbol, fee, asset, **changed):
    told = {
        "trade_id": f"{symbol}-{asset}", "intent_no": 1, "book": Book.VALIDATED, "symbol": symbol,
        "side": Side.BUY, "price": Decimal(600), "quantity": Decimal(2), "fee": Decimal(fee),
        "fee_asset": asset, "liquidity": Liquidity.MAKER, "ts_event_ns": 0,
    }  # fmt: skip
    fill = Fill(**told | changed)
    return OrderFilled(ts_event_ns=fill.ts_event_ns, fill=fill)


def defined(symbol, market=Market.SPOT, quote="USDT"):
    instrument = Instrument.assume("ETHUSDT", market, 600.0)
    base = symbol.removesuffix(quote)
    instrument = msgspec.structs.replace(instrument, symbol=symbol, base=base, quote=quote)
    return InstrumentDefined(ts_event_ns=0, instrument=instrument)


def closed(symbol, close, at=dt.datetime(1970, 1, 1, tzinfo=dt.UTC)):
    at_ms = int(at.timestamp()) * 1000
    candle = Candle(symbol=symbol, interval="1h", open_time_ms=at_ms - 3_600_000, open=close,
                    high=close, low=close, close=close, volume=1.0)  # fmt: skip
    return CandleClosed(ts_event_ns=at_ms * 1_000_000, candle=candle)


def words_of(found):
    screen = io.StringIO()
    print_fee_report(found, Console(file=screen, width=200))
    return screen.getvalue()


TAKEN = {"liquidity": Liquidity.TAKER}
SOLD = TAKEN | {"side": Side.SELL}
DISCOUNT = FeesSection(bnb_discount=True)


@pytest.mark.parametrize("discount", [True, False])
@pytest.mark.parametrize(
    ("symbol", "quote", "fee", "changed"),
    [
        ("BNBUSDT", "USDT", "0.0075", SOLD | {"price": Decimal(600), "quantity": Decimal(10)}),
        ("ETHBNB", "BNB", "0.0375", TAKEN | {"price": Decimal(5), "quantity": Decimal(10)}),
    ],
)
def test_a_trade_in_bnb_is_predicted_at_its_own_price(discount, symbol, quote, fee, changed):
    settings = FeesSection(bnb_discount=discount)
    paid = fee_report(
        Journaled(defined(symbol, quote=quote), filled(symbol, fee, "BNB", **changed)), settings
    )
    assert (paid["checked"], paid["near"], paid["matches"]) == (1, 0, True)
    wrong = str(Decimal(fee) + Decimal("0.00000001"))
    other = fee_report(
        Journaled(defined(symbol, quote=quote), filled(symbol, wrong, "BNB", **changed)), settings
    )
    assert not other["matches"]


def test_bought_bnb_may_have_been_charged_whole_by_an_account_that_had_none():
    for fee, settings, matches in (
        ("0.0075", DISCOUNT, True),
        ("0.01", DISCOUNT, True),
        ("0.008", DISCOUNT, False),
        ("0.01", FeesSection(), True),
        ("0.0075", FeesSection(), False),
    ):
        bought = filled("BNBUSDT", fee, "BNB", **TAKEN, quantity=Decimal(10))
        assert fee_report(Journaled(defined("BNBUSDT"), bought), settings)["matches"] is matches


def test_without_bnb_left_the_full_rate_is_the_prediction():
    sold = SOLD | {"price": Decimal(3000), "quantity": Decimal(1)}
    for fee, matches in (("3", True), ("2.25", False)):
        journal = Journaled(defined("ETHUSDT"), filled("ETHUSDT", fee, "USDT", **sold))
        assert fee_report(journal, DISCOUNT)["matches"] is matches


@pytest.mark.parametrize(
    ("fee", "matches"), [("0.00375", True), ("0.0045", True), ("0.005", False), ("5", False)]
)
def test_another_fee_in_bnb_is_bounded_by_the_last_close_of_bnb(fee, matches):
    sold = SOLD | {"price": Decimal(3000), "quantity": Decimal(1)}
    journal = Journaled(
        defined("ETHUSDT"), closed("BNBUSDT", 600.0), filled("ETHUSDT", fee, "BNB", **sold)
    )
    found = fee_report(journal, DISCOUNT)
    assert (found["checked"], found["near"], found["matches"]) == (1, 1, matches)
    assert ("fill by fill; 1 in BNB within 20%." in words_of(found)) is matches


def test_where_nothing_could_be_checked_nothing_is_confirmed():
    strange = Journaled(defined("ETHUSDT"), filled("ETHUSDT", "5", "BNB", **SOLD))
    unruled = Journaled(filled("ETHUSDT", "1.2", "USDT", **SOLD))
    for journal in (strange, unruled):
        found = fee_report(journal, DISCOUNT)
        assert (found["checked"], found["unchecked"]) == (0, 1)
        assert "Nothing could be checked: 1 fills." in words_of(found)
        assert "Charged is what was predicted" not in words_of(found)


def test_each_fill_is_predicted_by_the_schedule_of_its_day():
    days = [dt.datetime(2022, 5, 31, 23, tzinfo=dt.UTC), dt.datetime(2022, 6, 1, tzinfo=dt.UTC)]
    events = [defined("ETHUSDT")]
    for at, fee in zip(days, ("1.08", "0.48"), strict=True):  # 0.09 and 0.04 per cent of 1,200
        ts_ns = int(at.timestamp()) * 10**9
        events.append(filled("ETHUSDT", fee, "USDT", **SOLD, ts_event_ns=ts_ns))
    found = fee_report(Journaled(*events), FeesSection(vip_tier=4))
    assert (found["checked"], found["matches"]) == (2, True)
    reverse = fee_report(Journaled(events[0], *events[:0:-1]), FeesSection(vip_tier=4))
    assert not reverse["matches"], "schedules only move forward"


def test_a_run_whose_tier_moved_is_predicted_as_it_was_charged(command, tmp_path, monkeypatch):
    for name, value in (
        ("PAPER__INITIAL_CASH", "30000000.0"), ("PAPER__DEPTH_SHARE", "0.5"),
        ("FEES__BNB_HELD", "1000.0"), ("FEES__BNB_DISCOUNT", "true"),
    ):  # fmt: skip
        monkeypatch.setenv(f"BOT4_{name}", value)
    several = ["BNBUSDT,BTCUSDT" if word == "BTCUSDT" else word for word in DRILL]
    assert command(*several, tmp_path / "run").code == 0
    told = command("fees", "--folder", tmp_path / "run", "--json")
    found = json.loads(told.out)
    assert (told.code, found["matches"], found["unchecked"]) == (0, True, 0)
    for row in found["reconciliation"].values():
        assert row["predicted"] == row["charged"], "the run's own price of BNB is the journal's"
    monkeypatch.setenv("BOT4_FEES__BNB_HELD", "0.0")
    still = json.loads(command("fees", "--folder", tmp_path / "run", "--json").out)
    rows = still["reconciliation"].values()
    assert any(row["predicted"] != row["charged"] for row in rows), "the tier had moved"


def test_a_fee_in_bnb_is_shown_as_not_predictable_but_a_trade_in_bnb_is():
    journal = Journaled(
        defined("ETHUSDT"), defined("BNBUSDT"),
        filled("ETHUSDT", "0.0015", "BNB"), filled("BNBUSDT", "0.002", "BNB"),
    )  # fmt: skip
    found = fee_report(journal, FeesSection())
    day = found["reconciliation"]["1970-01-01"]
    assert (day["checked"], day["unchecked"], found["matches"]) == (1, 1, True)
    assert "(+1)" in words_of(found)
    assert "the journal cannot predict" in words_of(found)
    assert "fill by fill; 1 not checked." in words_of(found)


def test_each_fill_is_priced_by_its_market():
    journal = Journaled(
        defined("ETHUSDT", Market.USDM), filled("ETHUSDT", "0.24", "USDT"),
    )  # fmt: skip
    assert fee_report(journal, DISCOUNT)["matches"] is True
    found = fee_report(journal, FeesSection(vip_tier=1))
    (deviation,) = found["reconciliation"]["1970-01-01"]["deviations"]
    assert deviation["predicted"] == "0.19200000 USDT"


def test_funding_is_told_by_symbol_and_is_no_fee():
    def paid(number, amount, **changed):
        told = {"symbol": "BTCUSDT", "asset": "USDT", "amount": Decimal(amount), "ours": True}
        return FundingPaid(ts_event_ns=0, transaction_id=number, **told | changed)

    found = fee_report(
        Journaled(
            paid(1, "-1.25"), paid(2, "0.5"), paid(3, "-3", symbol="ETHUSDT"),
            paid(4, "-7", ours=False),
        ),
        FeesSection(),
    )  # fmt: skip
    assert found["funding"] == {
        "BTCUSDT": {"times": 2, "amounts": {"USDT": "-0.75"}},
        "ETHUSDT": {"times": 1, "amounts": {"USDT": "-3"}},
    }
    assert found["fills"] == 0
    assert "-0.75 USDT" in words_of(found)
    assert "Funding" not in words_of(fee_report(Journaled(), FeesSection()))


def test_an_empty_journal_matches():
    found = fee_report(Journaled(), FeesSection())
    assert (found["fills"], found["matches"]) == (0, True)
