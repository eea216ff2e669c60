"""`fees` tells what was paid, and ends with 1 when it is not what the schedule says."""

import io
import json
from decimal import Decimal
from pathlib import Path

import pytest
from rich.console import Console

from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.events import InstrumentDefined, OrderFilled
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
    assert ended.code != 0
    assert "there is no journal" in ended.words


class Journaled:
    """Events in memory, read as from a journal."""

    def __init__(self, *events):
        self.kept = events

    def events(self, kinds):
        return [(seq, event) for seq, event in enumerate(self.kept, 1) if isinstance(event, kinds)]

    def account(self):
        return "memory"


def filled(symbol, fee, asset):
    fill = Fill(
        trade_id=f"{symbol}-{asset}", intent_no=1, book=Book.VALIDATED, symbol=symbol,
        side=Side.BUY, price=Decimal(600), quantity=Decimal(2), fee=Decimal(fee),
        fee_asset=asset, liquidity=Liquidity.MAKER, ts_event_ns=0,
    )  # fmt: skip
    return OrderFilled(ts_event_ns=0, fill=fill)


def defined(symbol, market=Market.SPOT):
    return InstrumentDefined(ts_event_ns=0, instrument=Instrument.assume(symbol, market, 600.0))


def test_a_fee_in_bnb_is_shown_as_not_predictable_but_a_trade_in_bnb_is():
    journal = Journaled(
        defined("ETHUSDT"), defined("BNBUSDT"),
        filled("ETHUSDT", "0.0015", "BNB"), filled("BNBUSDT", "0.002", "BNB"),
    )  # fmt: skip
    found = fee_report(journal, FeesSection())
    day = found["reconciliation"]["1970-01-01"]
    assert (day["checked"], day["unchecked"], found["matches"]) == (1, 1, True)
    screen = io.StringIO()
    print_fee_report(found, Console(file=screen, width=100))
    assert "(+1)" in screen.getvalue()
    assert "the journal cannot predict" in screen.getvalue()


def test_each_fill_is_priced_by_its_market():
    journal = Journaled(
        defined("ETHUSDT", Market.USDM), filled("ETHUSDT", "0.24", "USDT"),
    )  # fmt: skip
    assert fee_report(journal, FeesSection())["matches"] is True
    found = fee_report(journal, FeesSection(bnb_discount=True))
    (deviation,) = found["reconciliation"]["1970-01-01"]["deviations"]
    assert deviation["predicted"] == "0.21600000 USDT"


def test_an_empty_journal_matches():
    found = fee_report(Journaled(), FeesSection())
    assert (found["fills"], found["matches"]) == (0, True)
