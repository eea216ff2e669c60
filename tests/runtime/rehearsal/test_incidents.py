"""What went wrong in others' live systems, brought about again; each test names the incident."""

import pytest

from bot4_runtime.domain.account import DifferenceKind
from bot4_runtime.domain.events import OrderClosed, OrderFilled, OrderRejected, Reconciled
from bot4_runtime.domain.order import OrderStatus
from bot4_runtime.rehearsal.performance import Killed
from bot4_runtime.rehearsal.stages import SpotClient
from bot4_runtime.state.reader import JournalReader
from bot4_runtime.venue.faults import EVENT, Fault, FaultRule


def events_of(made) -> list:
    with JournalReader.open(made._folder / "journal.sqlite") as journal:
        return [event for _, event in journal.events()]


def test_fills_are_never_invented_nautilus_4736_3046_3493(rehearse) -> None:
    """Positions were made up from quantities while the trades behind them were not told."""
    verdict, made = rehearse(
        [
            FaultRule(fault=Fault.EVENT_LOST, method=EVENT, path="executionReport"),
            FaultRule(
                fault=Fault.NOT_JSON, method="GET", path="/api/v3/myTrades", probability=0.4
            ),
        ]
    )
    assert verdict.findings.violations == []
    assert (verdict.findings.fills_invented, verdict.findings.fills_missing) == (0, 0)
    assert verdict.findings.trades == len(
        {
            (event.fill.symbol, event.fill.trade_id)
            for event in events_of(made)
            if isinstance(event, OrderFilled)
        }
    )


def test_a_timeout_is_no_failure_hummingbot_493_nautilus_4215_4958(rehearse) -> None:
    """Orders whose answer timed out were called failed, and lived on at the exchange."""
    verdict, made = rehearse(
        [FaultRule(fault=Fault.DELAY_REPLY, method="POST", seconds=0.4, times=4)]
    )
    assert verdict.findings.violations == []
    failed = [
        event
        for event in events_of(made)
        if isinstance(event, OrderRejected)
        or (isinstance(event, OrderClosed) and event.status == OrderStatus.NEVER_PLACED.value)
    ]
    assert failed == []


class DiesAfterSending(SpotClient):
    """Ends the process between an order's answer and the journal's next batch."""

    left = 3

    def submit(self, intent, client_id, cash_free):
        answers = super().submit(intent, client_id, cash_free)
        if DiesAfterSending.left:
            DiesAfterSending.left -= 1
            raise Killed
        return answers


def test_a_crash_between_send_and_commit_loses_no_order_p1_freqtrade_7184(rehearse) -> None:
    """The order was placed, the database insert failed, the trade was lost."""
    DiesAfterSending.left = 3
    verdict, made = rehearse(client=DiesAfterSending)
    assert made.kills == 3
    assert verdict.ended == ""
    assert verdict.findings.violations == []
    assert verdict.findings.duplicates == 0


def test_an_order_that_filled_fast_is_not_sent_again_o6_nautilus_3176(rehearse) -> None:
    """A market order's answer is lost; its id is free again once it has filled."""
    verdict, made = rehearse(
        [FaultRule(fault=Fault.DROP_REPLY, method="POST", probability=0.7, times=8)]
    )
    assert verdict.findings.violations == []
    sides = [
        entry.body["with"]["type"]
        for entry in made.venue_entries
        if entry.kind == "request" and entry.body["call"] == "POST /api/v3/order"
    ]
    assert "MARKET" in sides
    assert verdict.findings.duplicates == 0


@pytest.mark.parametrize("fault", [Fault.EVENT_LATE, Fault.REPLAYED])
def test_an_older_state_after_filled_changes_nothing_ccxt_stale_cache(rehearse, fault) -> None:
    """A late PARTIALLY_FILLED overwrote FILLED; the order was open again."""
    verdict, _ = rehearse([FaultRule(fault=fault, method=EVENT, path="executionReport")])
    assert verdict.faults[fault] > 3
    assert verdict.findings.violations == []


def test_half_a_balance_is_no_empty_one_ccxt_fetch_balance_freqtrade_13399(rehearse) -> None:
    """Truncated JSON with status 200 became an empty balance, without an error."""
    verdict, made = rehearse(
        [FaultRule(fault=Fault.TRUNCATED, method="GET", path="/api/v3/account", probability=0.5)]
    )
    assert verdict.faults[Fault.TRUNCATED] > 20
    assert verdict.findings.violations == []
    assert not any(
        difference.kind is DifferenceKind.BALANCE
        for event in events_of(made)
        if isinstance(event, Reconciled)
        for difference in event.differences
    )
