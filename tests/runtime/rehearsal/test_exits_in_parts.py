"""Exits above MARKET_LOT_SIZE at the venue, by its own filters, with and without faults."""

from collections import Counter
from decimal import Decimal
from pathlib import Path

import msgspec
import pytest

from bot4_runtime.domain.events import InstrumentDefined, OrderIntended, OrderRejected
from bot4_runtime.domain.order import Purpose
from bot4_runtime.rehearsal.performance import Rehearsal
from bot4_runtime.rehearsal.stages import SpotClient
from bot4_runtime.settings import load_settings
from bot4_runtime.state.reader import JournalReader
from bot4_runtime.venue.faults import Fault, FaultRule

MOST_QUOTE = Decimal(700)
"""What the venue takes at market, of positions of about 2,000."""


class Capped(Rehearsal):
    """A venue whose MARKET_LOT_SIZE is a third of what is held."""

    def _stage(self, bnb):
        stage = super()._stage(bnb)
        for symbol, rules in list(stage.spot_rules.items()):
            most = MOST_QUOTE / stage.prices[symbol]
            stage.spot_rules[symbol] = msgspec.structs.replace(rules, market_max=most)
        return stage


@pytest.mark.parametrize(
    "fault",
    [None, Fault.DROP_REPLY, Fault.DROP_REQUEST, Fault.ERROR_AFTER, Fault.RATE_LIMITED],
)
def test_every_exit_sells_all_that_is_held_in_parts_that_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault
) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    settings = load_settings(
        environment={
            "BOT4_MODELS": str(tmp_path / "models"),
            "BOT4_RUNTIME__STRATEGY": "swinging_strategy:Swinging",
            "BOT4_RUNTIME__SYMBOLS": '["BTCUSDT", "ETHUSDT"]',
        }
    )
    rules = () if fault is None else (FaultRule(fault=fault, method="POST", probability=0.2, seconds=3.0),)  # fmt: skip
    made = Capped(settings, tmp_path / "run", rules=rules, seed=3, hours=12, client=SpotClient)
    verdict = made.perform()
    assert verdict.ended == ""
    assert verdict.findings.violations == []
    assert fault is None or verdict.faults[fault.value] > 0
    with JournalReader.open(made._folder / "journal.sqlite") as journal:
        events = [event for _, event in journal.events()]
        books = journal.state(made._folder / "snapshots").books
    defined = {e.instrument.symbol: e.instrument for e in events if type(e) is InstrumentDefined}
    assert [e.code for e in events if type(e) is OrderRejected] == []
    exits = [e.intent for e in events if type(e) is OrderIntended and e.intent.purpose is Purpose.EXIT]  # fmt: skip
    for intent in exits:
        assert intent.quantity <= defined[intent.symbol].max_market_quantity
        assert intent.quantity % defined[intent.symbol].step_size == 0
    together = Counter((intent.symbol, intent.ts_ns) for intent in exits)
    assert len(together) >= 4
    assert max(together.values()) >= 3
    assert fault is not None or set(together.values()) <= {3, 4}
    assert all(not book.positions for book in books.values())
    account = made.made_venue.exchange.account("rehearsal")
    for symbol, rules_ in defined.items():
        held = dict(account.held()).get(symbol.removesuffix("USDT"))
        left = Decimal(0) if held is None else held.free + held.locked
        assert left < 6 * rules_.step_size, "what fees left of each of three trades at most"
