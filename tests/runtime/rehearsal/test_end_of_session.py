"""A session that ends at the venue while its entries rest there, and the line fails just then."""

from pathlib import Path

import pytest

from bot4_runtime.domain.events import OrderClosed, OrderIntended, SessionEnded
from bot4_runtime.rehearsal.performance import Rehearsal
from bot4_runtime.rehearsal.stages import SpotClient, SpotLineClient
from bot4_runtime.settings import load_settings
from bot4_runtime.state.reader import JournalReader
from bot4_runtime.venue.faults import WS, Fault, FaultRule, FaultSchedule

REST = ("DELETE", "/api/v3/order")
LINE = (WS, "order.cancel")


class EndsBadly(Rehearsal):
    """Faults begin when the last life's candles are over, where others stop."""

    def _course(self, venue, server):
        course = super()._course(venue, server)
        rules, self._rules = self._rules, ()
        server.do(lambda: venue.schedule(FaultSchedule()))
        course._calm = lambda: server.do(lambda: venue.schedule(FaultSchedule(rules, 1)))
        return course


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    return load_settings(
        environment={
            "BOT4_MODELS": str(tmp_path / "models"),
            "BOT4_RUNTIME__STRATEGY": "resting_strategy:Resting",
            "BOT4_RUNTIME__SYMBOLS": '["BTCUSDT", "ETHUSDT"]',
        }
    )


def ended(settings, folder: Path, rule: FaultRule, client: type = SpotClient):
    """Rehearse a few hours that end with a fault; return verdict, the venue's journal, events."""
    made = EndsBadly(settings, folder, rules=(rule,), seed=1, hours=5, client=client)
    verdict = made.perform()
    with JournalReader.open(made._folder / "journal.sqlite") as journal:
        return verdict, made, [event for _, event in journal.events()]


@pytest.mark.parametrize(
    ("fault", "where", "client", "more"),
    [
        (Fault.DROP_REQUEST, REST, SpotClient, {}),
        (Fault.DROP_REPLY, REST, SpotClient, {}),
        (Fault.ERROR_BEFORE, REST, SpotClient, {}),
        (Fault.RATE_LIMITED, REST, SpotClient, {"seconds": 5.0}),
        (Fault.BANNED, REST, SpotClient, {"seconds": 20.0}),
        (Fault.NOT_JSON, REST, SpotClient, {}),
        (Fault.DROP_REQUEST, LINE, SpotLineClient, {}),
        (Fault.DROP_REPLY, LINE, SpotLineClient, {}),
        (Fault.EVENT_LOST, ("EVENT", ""), SpotClient, {}),
    ],
)
def test_entries_end_before_the_session_whatever_their_cancels_meet(
    settings, tmp_path, fault, where, client, more
):
    rule = FaultRule(fault=fault, method=where[0], path=where[1], **({"times": 3} | more))
    verdict, made, events = ended(settings, tmp_path / "run", rule, client)
    assert verdict.ended == ""
    assert verdict.findings.violations == []
    assert verdict.faults[fault.value] > 0, "the fault never happened"
    assert sum(type(e) is OrderIntended for e in events) > 3
    ends = [n for n, event in enumerate(events) if type(event) is SessionEnded]
    closed = {e.intent_no for e in events[: ends[0]] if type(e) is OrderClosed}
    intended = {e.intent.intent_no for e in events[: ends[0]] if type(e) is OrderIntended}
    assert intended == closed, "each entry's end was booked before that of the session"
    account = made.made_venue.exchange.account("rehearsal")
    assert [o for o in made.made_venue.exchange.orders(account) if o.status.open] == []


@pytest.mark.parametrize("fault", [Fault.DROP_REQUEST, Fault.FORBIDDEN])
def test_entries_of_an_unreachable_venue_are_named_and_called_back_by_the_next_start(
    settings, tmp_path, fault
):
    rule = FaultRule(fault=fault, method=REST[0], path=REST[1])
    verdict, made, _ = ended(settings, tmp_path / "run", rule)
    assert verdict.ended.startswith("OrdersMayRest: ")
    account = made.made_venue.exchange.account("rehearsal")
    resting = [o for o in made.made_venue.exchange.orders(account) if o.status.open]
    assert len(resting) == 2
    for order in resting:
        assert order.client_id in verdict.ended
    verdict = made.perform()
    assert verdict.ended == ""
    assert verdict.findings.violations == []
    assert [o for o in made.made_venue.exchange.orders(account) if o.status.open] == []
