"""The engine of `start --mode testnet` at a venue on loopback: calm, faulty, and with a bug."""

import json
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.errors import OutcomeUnknown
from bot4_runtime.domain.events import OrderIntended, OrderRejected
from bot4_runtime.domain.order import Side
from bot4_runtime.exchange.binance.limits import RequestBudget
from bot4_runtime.rehearsal.schedules import SCENARIOS, drawn, on_both_ways, shrunk, told
from bot4_runtime.rehearsal.stages import (
    ContractClient,
    ContractLineClient,
    SpotClient,
    SpotLineClient,
)
from bot4_runtime.rehearsal.verdict import Outcome
from bot4_runtime.state.reader import JournalReader
from bot4_runtime.venue.faults import EVENT, WS, Fault, FaultRule

HOUR_NS = 3_600_000_000_000
LOST_REPLY = FaultRule(fault=Fault.DROP_REPLY, method="POST", times=2)
LOST_REQUEST = FaultRule(fault=Fault.DROP_REQUEST, method="POST", times=1)
LOST_MESSAGE = FaultRule(fault=Fault.ERROR_BEFORE, method=WS, path="order.place", times=1)
LOST_REQUEST_503 = FaultRule(fault=Fault.ERROR_BEFORE, method="POST", times=1)


MARKETS = ["spot", "usdm"]
ORDER = {"spot": "/api/v3/order", "usdm": "/fapi/v1/order"}
BY_REST = {"spot": SpotClient, "usdm": ContractClient}
BY_LINE = {"spot": SpotLineClient, "usdm": ContractLineClient}


@pytest.mark.parametrize("market", MARKETS)
def test_a_calm_rehearsal_trades_and_both_sides_agree(rehearse, market: str) -> None:
    verdict, _ = rehearse(market=market)
    assert verdict.findings.violations == []
    assert verdict.ended == ""
    assert verdict.findings.held > 5
    assert max(verdict.unprotected_s) <= 2, "a stop follows within the next look"
    assert verdict.outcome is Outcome.INCONCLUSIVE, "too few orders never pass"


@pytest.mark.parametrize("market", MARKETS)
def test_orders_keep_to_rules_that_only_the_venue_can_tell(rehearse, market: str) -> None:
    verdict, made = rehearse(market=market)
    assert verdict.findings.held > 5
    with JournalReader.open(made._folder / "journal.sqlite") as journal:
        events = [event for _, event in journal.events()]
    assert [event.reason for event in events if isinstance(event, OrderRejected)] == []
    for event in events:
        if isinstance(event, OrderIntended):
            rules, _ = made.stage.instruments[event.intent.symbol]
            assert event.intent.quantity % rules.step_size == 0


# ------------------------------------------------------------------------ planted bugs
class Resends:
    """Sends an order again whose answer is lost."""

    def submit(self, intent, client_id, cash_free):
        try:
            return super().submit(intent, client_id, cash_free)
        except OutcomeUnknown:
            return super().submit(intent, client_id, cash_free)


class TakesSilenceForNo:
    """Believes that an order without an answer was refused."""

    def submit(self, intent, client_id, cash_free):
        try:
            return super().submit(intent, client_id, cash_free)
        except OutcomeUnknown as error:
            return [
                OrderRejected(
                    ts_event_ns=intent.ts_ns,
                    intent_no=intent.intent_no,
                    code="X",
                    reason=str(error),
                )
            ]


class HearsNoTrades:
    """Believes the venue's quantities, and is told no trades."""

    def trades(self, symbol, after_trade_id):
        return []

    def poll(self):
        return []


class LeavesBare:
    """Refuses to sell for four hours of the market."""

    since_ns = 0

    def submit(self, intent, client_id, cash_free):
        if intent.side is Side.BUY:
            return super().submit(intent, client_id, cash_free)
        self.since_ns = self.since_ns or intent.ts_ns
        if intent.ts_ns > self.since_ns + 4 * HOUR_NS:
            return super().submit(intent, client_id, cash_free)
        no = intent.intent_no
        return [OrderRejected(ts_event_ns=intent.ts_ns, intent_no=no, code="X", reason="bare")]


class NeverWaits:
    """Asks on while the venue wants silence."""

    def __init__(self, server, clock, lease, symbols):
        super().__init__(server, clock, lease, symbols)
        self._http._budget = Endless(None)


class Endless(RequestBudget):
    def take(self, lane, weight=1, *, account="", orders=0):
        return 0


@pytest.mark.parametrize(
    ("bug", "rule", "word"),
    [
        (Resends, LOST_REPLY, "was sent 2 times"),
        (Resends, LOST_REQUEST, "was sent 2 times"),
        (Resends, LOST_REQUEST_503, "was sent 2 times"),
        (Resends, LOST_MESSAGE, "was sent 2 times"),
        (TakesSilenceForNo, LOST_REPLY, "is at the venue, and here it is rejected"),
        (LeavesBare, LOST_REPLY, "had no stop for"),
        (HearsNoTrades, FaultRule(fault=Fault.EVENT_LOST, method=EVENT), "is not booked"),
        (
            NeverWaits,
            FaultRule(fault=Fault.RATE_LIMITED, method="GET", after=100, times=1, seconds=2000),
            "wanted silence",
        ),
    ],
)
@pytest.mark.parametrize("market", MARKETS)
def test_a_planted_bug_is_a_violation_and_never_passes(rehearse, market, bug, rule, word) -> None:
    if rule.method == "POST":  # of contracts settings and keys are POSTs too
        rule = msgspec.structs.replace(rule, path=ORDER[market])
    base = (BY_LINE if rule.method == WS else BY_REST)[market]
    client = type(bug.__name__, (bug, base), {})
    verdict, _ = rehearse([rule], market=market, client=client)
    assert verdict.outcome is Outcome.VIOLATED
    assert any(word in violation for violation in verdict.findings.violations)
    assert "Verdict: violated." in verdict.text


def test_a_violation_is_shrunk_to_the_fault_that_leads_to_it(rehearse, tmp_path: Path) -> None:
    harmless = list(SCENARIOS["bad-stream"][2:5])
    runs = iter(range(100))

    def violates(rules):
        client = type("Client", (Resends, SpotClient), {})
        verdict, _ = rehearse(rules, 14, client=client, folder=tmp_path / f"shrink-{next(runs)}")
        return verdict.outcome is Outcome.VIOLATED

    left = shrunk([*harmless, LOST_REPLY], violates)
    assert [rule.fault for rule in left] == [Fault.DROP_REPLY]
    assert told(left) == '[{"fault":"drop_reply","method":"POST","times":1}]'


@pytest.mark.parametrize("market", MARKETS)
@pytest.mark.parametrize("seed", range(6))
def test_random_faults_from_a_seed_violate_nothing(
    rehearse, seed: int, market: str, tmp_path: Path
) -> None:
    """Orders over the line and over HTTP. Shrinks what violates, and says how to rehearse it."""
    rules = on_both_ways(drawn(seed, market=Market(market)), Market(market))
    options = {"seed": seed, "market": market, "client": BY_LINE[market]}
    verdict, _ = rehearse(rules, 80, **options)
    if verdict.outcome is not Outcome.VIOLATED:
        assert verdict.faults.total() >= 5
        assert verdict.findings.held >= 8
        assert verdict.findings.trades > 0
        return
    runs = iter(range(100))

    def violates(fewer):
        again, _ = rehearse(fewer, 40, folder=tmp_path / f"shrink-{next(runs)}", **options)
        return again.outcome is Outcome.VIOLATED

    pytest.fail(f"seed {seed}: {verdict.text}\nleast schedule: {told(shrunk(rules, violates))}")


# ------------------------------------------------------------------------- the command
BREAKS = """
from bot4_runtime.strategy.drill import Drill

class Breaks(Drill):
    seen = 0

    def on_candle(self, candle):
        Breaks.seen += 1
        if Breaks.seen > 20:
            raise RuntimeError("planted")
        return super().on_candle(candle)
"""


def command(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {
        "PATH": "/usr/bin:/bin",
        "BOT4_HOME": str(folder / "home"),
        "BOT4_RISK__MAX_CORRELATION": "1.0",
        "BOT4_INTERPRETED": "1",
        "PYTHONPATH": ":".join(sys.path),
        "HOME": str(folder),
    }
    return subprocess.run(
        [sys.executable, "-m", "bot4_runtime", "rehearse", *words],
        capture_output=True,
        text=True,
        timeout=120,
        cwd=folder,
        env=environment,
        check=False,
    )


def test_the_command_tells_a_short_rehearsal_inconclusive_and_touches_no_account(tmp_path) -> None:
    ended = command(
        tmp_path, "--strategy", "drill", "--hours", "14", "--scenario", "lost-answers", "--json"
    )
    assert ended.returncode == 3, ended.stderr
    document = json.loads(ended.stdout)
    assert document["outcome"] == "inconclusive"
    assert document["simulated"] is True
    assert document["orders_intended"] > 0
    assert document["violations"] == []
    assert not (tmp_path / "home").exists()
    assert [row["fault"] for row in document["rules"]][:1] == ["drop_reply"]


def test_the_command_rehearses_perpetuals_with_what_only_they_know(tmp_path) -> None:
    words = ("--strategy", "drill", "--hours", "30", "--market", "usdm", "--scenario", "overload")
    ended = command(tmp_path, *words, "--json")
    assert ended.returncode == 3, ended.stderr
    document = json.loads(ended.stdout)
    assert document["market"] == "usdm"
    assert document["violations"] == []
    assert document["orders_held_by_venue"] > 10
    assert document["faults"]["throttled"] > 0
    assert not (tmp_path / "home").exists()


def test_the_command_ends_with_one_when_the_engine_breaks(tmp_path) -> None:
    (tmp_path / "broken.py").write_text(BREAKS)
    ended = command(tmp_path, "--strategy", "broken:Breaks", "--hours", "14", "--scenario", "calm")
    assert ended.returncode == 1, ended.stderr
    assert "planted" in ended.stderr
    assert "Verdict: violated." in ended.stderr


@pytest.mark.parametrize(
    ("words", "told_of"),
    [
        (("--hours", "0"), "--hours 0"),
        (("--scenario", "stormy"), "calm, lost-answers"),
        (("--scenario", "overload"), "none of spot"),
        (("--market", "options"), "runtime.market"),
    ],
)
def test_wrong_words_are_told(tmp_path, words, told_of) -> None:
    ended = command(tmp_path, *words)
    assert ended.returncode == 2
    assert told_of in ended.stderr
