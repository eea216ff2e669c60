"""The monitor: thresholds, worse of mark and mid, staleness, alarms told once."""

import math
import re
from decimal import Decimal

import pytest

from bot4_runtime.domain.errors import ConfigError
from bot4_runtime.risk.brackets import Brackets, published_brackets
from bot4_runtime.risk.liquidation import LiquidationLimits, LiquidationMonitor
from bot4_runtime.risk.margin import Leg, Wallet
from bot4_runtime.risk.stop_watchdog import StopWatchdog

MS = 1_000_000
S = 1_000 * MS
FLAT = Brackets("BTCUSDT", [0.0], [0.004])


def leg(symbol="BTCUSDT", side=1, size="1", entry=100.0, **told) -> Leg:
    return Leg(symbol, side, Decimal(size), entry, FLAT, **told)


def isolated(one: Leg, leverage=4.0) -> Wallet:
    return Wallet(one.name, one.quantity * one.entry_price / leverage, [one], isolated=True)


def at(consumed: float, leverage=4.0, side=1) -> float:
    """The price at which this share of a position's margin is consumed, in one bracket."""
    margin = 100.0 / leverage
    liquidation = (margin - side * 100.0) / (0.004 - side)
    return 100.0 + consumed * (liquidation - 100.0)


def watching(*wallets: Wallet, **limits) -> LiquidationMonitor:
    monitor = LiquidationMonitor(LiquidationLimits(**limits))
    monitor.hold(list(wallets))
    return monitor


def said(alarms) -> list[tuple[str, str, str]]:
    return [(alarm.severity, alarm.code, alarm.subject) for alarm in alarms]


# ------------------------------------------------------------------- thresholds
@pytest.mark.parametrize("side", [1, -1])
def test_a_measure_that_rises_is_told_at_each_threshold_once(side):
    held = leg(side=side)
    monitor = watching(isolated(held))
    name, heard = held.name, []
    for step, consumed in enumerate([0.0, 0.79, 0.81, 0.85, 0.91, 0.93, 0.96, 0.99, 1.01]):
        monitor.on_mark("BTCUSDT", at(consumed, side=side), step * S, step * S)
        heard += [(consumed, *row) for row in said(monitor.look(step * S))]
        assert monitor.wallets[0].consumed == pytest.approx(consumed, abs=1e-9)
        assert monitor.entries_allowed is (consumed < 0.9)
    assert heard == [
        (0.81, "warning", "MARGIN_ALERT", name),
        (0.91, "critical", "MARGIN_ACT", name),
        (0.96, "critical", "MARGIN_CRITICAL", name),
    ]


def test_a_measure_exactly_at_a_threshold_has_reached_it():
    held = leg()
    wallet = isolated(held)
    held.price = at(0.85)
    exact = wallet.measure()
    for limits, code in (
        ({"alert": exact}, "MARGIN_ALERT"),
        ({"alert": 0.5, "act": exact, "critical": 0.99}, "MARGIN_ACT"),
        ({"alert": 0.5, "act": 0.6, "critical": exact}, "MARGIN_CRITICAL"),
    ):
        monitor = watching(wallet, **limits)
        monitor.on_mark("BTCUSDT", at(0.85), 0, 0)
        assert [alarm.code for alarm in monitor.look(0)] == [code]


def test_the_margin_ratio_alone_can_raise_the_alarm():
    """In profit nothing is consumed, but the maintenance margin can still eat the balance."""
    steep = Brackets("BTCUSDT", [0.0, 1_000.0], [0.01, 0.9])
    held = Leg("BTCUSDT", 1, Decimal(10), 50.0, steep)
    other = Leg("BTCUSDT", -1, Decimal("9.9"), 50.0, steep)
    monitor = watching(Wallet("cross", 1_000.0, [held, other], isolated=False))
    monitor.on_mark("BTCUSDT", 150.0, 0, 0)
    alarms = monitor.look(0)
    assert monitor.wallets[0].ratio > 0.8 > 0
    assert alarms[0].numbers["ratio"] == monitor.wallets[0].ratio
    assert alarms[0].numbers["worst"] == max(
        alarms[0].numbers["ratio"], alarms[0].numbers["consumed"]
    )


def test_an_alarm_is_over_only_when_the_measure_is_clearly_better():
    held = leg()
    monitor = watching(isolated(held))
    heard = []
    for step, consumed in enumerate([0.81, 0.79, 0.801, 0.785, 0.82, 0.775, 0.81]):
        monitor.on_mark("BTCUSDT", at(consumed), step, step)
        heard += [(consumed, alarm.code) for alarm in monitor.look(step)]
    assert heard == [
        (0.81, "MARGIN_ALERT"),
        (0.775, "MARGIN_CLEARED"),
        (0.81, "MARGIN_ALERT"),
    ]


def test_falling_from_critical_is_told_only_when_all_is_calm_and_rising_again_is_told():
    held = leg()
    monitor = watching(isolated(held))
    heard = []
    for step, consumed in enumerate([0.96, 0.94, 0.92, 0.96, 0.92, 0.87, 0.91, 0.5]):
        monitor.on_mark("BTCUSDT", at(consumed), step, step)
        heard += [(consumed, alarm.code) for alarm in monitor.look(step)]
    assert heard == [
        (0.96, "MARGIN_CRITICAL"),
        (0.96, "MARGIN_CRITICAL"),
        (0.91, "MARGIN_ACT"),
        (0.5, "MARGIN_CLEARED"),
    ]


def test_alarms_say_their_numbers():
    held = leg()
    monitor = watching(isolated(held))
    monitor.on_mark("BTCUSDT", at(0.91), 0, 0)
    [alarm] = monitor.look(0)
    wallet = monitor.wallets[0]
    assert alarm.text == (
        f"BTCUSDT long: margin ratio {wallet.ratio:.2%}, margin consumed 91.00%; acting"
    )
    assert alarm.numbers == {
        "worst": wallet.worst,
        "ratio": wallet.ratio,
        "consumed": wallet.consumed,
        "maintenance": wallet.maintenance,
        "margin_balance": wallet.margin_balance,
    }
    monitor.on_mark("BTCUSDT", at(0.5), 1, 1)
    [cleared] = monitor.look(1)
    assert cleared.numbers["consumed"] == wallet.consumed
    assert said([cleared]) == [("info", "MARGIN_CLEARED", "BTCUSDT long")]
    assert cleared.text == (
        f"BTCUSDT long: margin ratio {wallet.ratio:.2%}, margin consumed 50.00%"
    )
    monitor.on_mark("BTCUSDT", at(0.85), 2, 2)
    [warned] = monitor.look(2)
    assert warned.text == (
        f"BTCUSDT long: margin ratio {wallet.ratio:.2%}, margin consumed 85.00%"
    )


# --------------------------------------------------------------- what is unknown
@pytest.mark.parametrize("bad", [math.nan, math.inf, 0.0, -5.0])
def test_a_mark_that_is_no_price_is_an_unknown_measure(bad):
    held = leg()
    monitor = watching(isolated(held))
    monitor.on_mark("BTCUSDT", 100.0, 0, 0)
    assert monitor.look(0) == []
    monitor.on_mark("BTCUSDT", bad, 1, 1)
    [alarm] = monitor.look(1)
    assert said([alarm]) == [("critical", "MARGIN_UNKNOWN", "BTCUSDT long")]
    assert alarm.text == ("BTCUSDT long: a price or size is not known, so neither is the margin")
    assert not monitor.entries_allowed
    assert all(math.isnan(number) for number in alarm.numbers.values())
    assert monitor.look(2) == []
    monitor.on_mark("BTCUSDT", 100.0, 3, 3)
    assert said(monitor.look(3)) == [("info", "MARGIN_CLEARED", "BTCUSDT long")]
    assert monitor.entries_allowed


def test_from_unknown_to_danger_is_told():
    monitor = watching(isolated(leg()))
    monitor.on_mark("BTCUSDT", math.nan, 0, 0)
    monitor.look(0)
    monitor.on_mark("BTCUSDT", at(0.91), 1, 1)
    assert [alarm.code for alarm in monitor.look(1)] == ["MARGIN_ACT"]


def test_without_any_mark_nothing_is_known_and_nothing_allowed():
    monitor = watching(isolated(leg()))
    alarms = monitor.look(5 * S)
    assert [alarm.code for alarm in alarms] == ["MARK_STALE", "MARGIN_UNKNOWN"]
    assert math.isnan(alarms[0].numbers["age_ms"])
    assert not monitor.entries_allowed


def test_a_mark_older_than_three_seconds_alarms_once_and_stops_entries():
    monitor = watching(isolated(leg()))
    monitor.on_mark("BTCUSDT", 100.0, 1 * S, 1 * S)
    assert monitor.look(4 * S) == []
    assert monitor.entries_allowed
    [alarm] = monitor.look(4 * S + 1)
    assert said([alarm]) == [("critical", "MARK_STALE", "BTCUSDT")]
    assert alarm.numbers == {"age_ms": pytest.approx(3000.0, abs=1e-3)}
    assert alarm.text == ("BTCUSDT: the last mark is 3000 ms old; entries stop until one arrives")
    assert monitor.entries_allowed is False
    assert monitor.look(5 * S) == []
    monitor.on_mark("BTCUSDT", 101.0, 5 * S, 5 * S)
    [again] = monitor.look(5 * S)
    assert said([again]) == [("info", "MARK_STALE", "BTCUSDT")]
    assert again.text == "BTCUSDT: marks arrive again"
    assert again.numbers == {"age_ms": 0.0}
    assert monitor.entries_allowed


def test_a_clock_set_back_makes_marks_stale_and_one_of_the_first_instant_is_not():
    monitor = watching(isolated(leg()))
    monitor.on_mark("BTCUSDT", 100.0, 0, 0)
    assert monitor.look(0) == []
    monitor.on_mark("BTCUSDT", 100.0, 10 * S, 10 * S)
    assert [alarm.code for alarm in monitor.look(S)] == ["MARK_STALE"]


@pytest.mark.parametrize(
    ("behind_ms", "heard", "allowed"),
    [
        (5, [], True),
        (500, [], True),
        (501, ["MARK_STALE"], False),
        (1_000, ["MARK_STALE"], False),
        (1_001, ["MARK_STALE"], False),
        (120_000, ["MARK_STALE"], False),
    ],
)
def test_a_clock_behind_the_venues_is_told_once_and_only_beyond_half_a_second(
    behind_ms, heard, allowed
):
    """F12: a mark a second, looked at ten times a second, for a minute."""
    monitor = watching(isolated(leg()))
    codes = []
    for tick in range(600):
        now = 1_000 * S + tick * 100 * MS
        if tick % 10 == 0:
            monitor.on_mark("BTCUSDT", 100.0, now + behind_ms * MS, now)
        codes += [alarm.code for alarm in monitor.look(now) if alarm.code != "MARGIN_UNKNOWN"]
        assert monitor.entries_allowed is allowed
    assert codes == heard
    assert monitor.refused == (60 if behind_ms > 1_000 else 0)


def test_a_clock_that_is_behind_is_told_as_that_and_set_right_clears_it():
    monitor = watching(isolated(leg()))
    monitor.on_mark("BTCUSDT", 100.0, 10 * S, 10 * S)
    assert monitor.look(10 * S) == []
    monitor.on_mark("BTCUSDT", 101.0, 13 * S, 11 * S)
    [told] = monitor.look(13 * S + 1)
    assert told.numbers == {"age_ms": pytest.approx(3_000.0), "refused": 1.0}
    assert told.text == (
        "BTCUSDT: marks are stamped ahead of this clock, 1 of them refused since the last one "
        "that was taken; entries stop; set the clock"
    )
    monitor.on_mark("BTCUSDT", 102.0, 14 * S, 14 * S)
    [cleared] = monitor.look(14 * S)
    assert said([cleared]) == [("info", "MARK_STALE", "BTCUSDT")]
    assert monitor.entries_allowed


@pytest.mark.parametrize("kind", ["on_mark", "on_mid"])
def test_a_price_of_the_future_shuts_out_none_of_those_after_it(kind):
    monitor = watching(isolated(leg()))
    monitor.on_mark("BTCUSDT", 100.0, 10 * S, 10 * S)
    getattr(monitor, kind)("BTCUSDT", 60.0, 10_000 * S, 10 * S)
    assert monitor.wallets[0].legs[0].price == 100.0
    assert monitor.refused == 1
    getattr(monitor, kind)("BTCUSDT", 99.0, 12 * S, 11 * S)
    assert monitor.wallets[0].legs[0].price == 99.0, "a second ahead is no future yet"
    monitor.on_mark("BTCUSDT", 98.0, 13 * S, 13 * S)
    assert monitor.wallets[0].legs[0].price == 98.0
    assert monitor.look(13 * S) == []


def test_the_age_of_a_mark_of_the_first_instant_is_known():
    monitor = watching(isolated(leg()))
    monitor.on_mark("BTCUSDT", 100.0, 0, 0)
    assert monitor.look(4 * S)[0].numbers == {"age_ms": 4000.0}


def test_marks_out_of_order_are_left_aside():
    monitor = watching(isolated(leg()))
    monitor.on_mark("BTCUSDT", 99.0, 2, 2)
    monitor.on_mark("BTCUSDT", 98.0, 1, 1)
    assert monitor.wallets[0].legs[0].price == 99.0
    monitor.on_mark("BTCUSDT", 97.0, 2, 2)
    assert monitor.wallets[0].legs[0].price == 97.0
    monitor.on_mid("BTCUSDT", 96.0, 4, 4)
    monitor.on_mid("BTCUSDT", 90.0, 3, 3)
    assert monitor.wallets[0].legs[0].price == 96.0
    monitor.on_mid("BTCUSDT", 95.0, 4, 4)
    assert monitor.wallets[0].legs[0].price == 95.0


@pytest.mark.parametrize("mid", [99.0, 101.0])
@pytest.mark.parametrize("side", [1, -1])
def test_a_mark_older_than_a_minute_is_not_held_against_a_newer_mid(side, mid):
    held = leg(side=side)
    monitor = watching(isolated(held))
    monitor.on_mark("BTCUSDT", 100.0, 0, 0)
    for second in (59, 60, 61, 120, 121, 122):
        if second <= 61:
            monitor.on_mid("BTCUSDT", mid, second * S, second * S)
        monitor.look(second * S)
        worse = min(100.0, mid) if side > 0 else max(100.0, mid)
        assert held.price == (worse if second <= 60 else mid)
        assert held.blind is (second > 121)
    monitor.on_mark("BTCUSDT", 98.0, 130 * S, 130 * S)
    monitor.look(130 * S)
    assert held.price == 98.0
    assert not held.blind


@pytest.mark.parametrize("mid", [math.nan, 0.0, math.inf, -1.0])
def test_a_mid_that_is_no_price_gives_no_sight(mid):
    held = leg()
    monitor = watching(isolated(held))
    monitor.on_mark("BTCUSDT", 100.0, 0, 0)
    monitor.on_mid("BTCUSDT", mid, 61 * S, 61 * S)
    monitor.look(61 * S)
    assert held.price == 100.0
    assert held.blind


# ------------------------------------------------------------------ mark and mid
@pytest.mark.parametrize(
    ("side", "mid", "valued"),
    [
        (1, 98.0, 98.0),
        (1, 103.0, 100.0),
        (-1, 98.0, 100.0),
        (-1, 103.0, 103.0),
        (1, math.nan, 100.0),
        (-1, math.nan, 100.0),
        (1, 0.0, 100.0),
        (1, -1.0, 100.0),
        (-1, math.inf, 100.0),
    ],
)
def test_between_marks_the_worse_of_mark_and_mid_counts(side, mid, valued):
    held = leg(side=side)
    monitor = watching(isolated(held))
    monitor.on_mark("BTCUSDT", 100.0, 10, 10)
    monitor.on_mid("BTCUSDT", mid, 11, 11)
    assert held.price == valued
    monitor.on_mark("BTCUSDT", 99.5, 12, 12)
    assert held.price == 99.5


def test_a_mid_that_is_no_newer_than_the_mark_does_not_count():
    held = leg()
    monitor = watching(isolated(held))
    monitor.on_mark("BTCUSDT", 100.0, 10, 10)
    monitor.on_mid("BTCUSDT", 98.0, 10, 10)
    assert held.price == 100.0


def test_each_leg_is_valued_at_what_is_worse_for_it():
    long, short, other = leg(), leg(side=-1), leg("ETHUSDT")
    monitor = watching(Wallet("cross", 1_000.0, [long, short, other], isolated=False))
    monitor.on_mark("BTCUSDT", 100.0, 1, 1)
    monitor.on_mark("ETHUSDT", 50.0, 1, 1)
    monitor.on_mid("BTCUSDT", 99.0, 2, 2)
    assert (long.price, short.price, other.price) == (99.0, 100.0, 50.0)


def test_prices_below_one_are_prices():
    held = leg(entry=0.9)
    monitor = watching(isolated(held))
    monitor.on_mark("BTCUSDT", 0.9, 1, 1)
    monitor.on_mid("BTCUSDT", 0.8, 2, 2)
    assert held.price == 0.8


# ------------------------------------------------------------------- new positions
def test_a_monitor_that_holds_nothing_has_nothing_to_say():
    monitor = LiquidationMonitor(LiquidationLimits())
    assert monitor.wallets == []
    assert monitor.entries_allowed is True
    assert monitor.look(1) == []
    assert monitor.check_venue() == []


def test_prices_seen_before_a_position_value_it_at_once():
    monitor = LiquidationMonitor(LiquidationLimits())
    monitor.on_mark("BTCUSDT", at(0.85), 1, 1)
    monitor.hold([isolated(leg())])
    assert [alarm.code for alarm in monitor.look(1)] == ["MARGIN_ALERT"]
    monitor.hold([isolated(leg(size="2"))])
    assert monitor.look(1) == []
    monitor.hold([])
    assert monitor.look(1) == []
    monitor.hold([isolated(leg())])
    assert [alarm.code for alarm in monitor.look(1)] == ["MARGIN_ALERT"]


def test_a_symbol_that_is_held_no_more_is_not_stale():
    monitor = watching(isolated(leg()))
    monitor.hold([])
    assert monitor.look(100 * S) == []
    assert monitor.entries_allowed


# ---------------------------------------------------------------- the venue's view
def test_the_venues_liquidation_price_may_differ_by_a_thousandth():
    fair = isolated(leg()).liquidation_price(leg())
    for told, heard in (
        (fair * 1.0009, []),
        (fair * 0.9991, []),
        (fair * 1.0011, ["VENUE_DIFFERS"]),
        (fair * 0.9989, ["VENUE_DIFFERS"]),
        (math.nan, []),
        (0.0, ["VENUE_DIFFERS"]),
    ):
        monitor = watching(isolated(leg(venue_liquidation_price=told)))
        monitor.on_mark("BTCUSDT", 100.0, 0, 0)
        alarms = monitor.check_venue()
        assert [alarm.code for alarm in alarms] == heard
    assert said(alarms) == [("warning", "VENUE_DIFFERS", "BTCUSDT")]
    assert alarms[0].numbers == {"ours": fair, "venue": 0.0, "tolerance": 0.001}
    assert alarms[0].text == (
        f"BTCUSDT: the venue says it liquidates at 0, we say {fair:g}; check brackets, "
        "margin mode and wallet balance"
    )


def test_no_liquidation_price_is_zero_to_the_venue():
    monitor = watching(Wallet("all", 100.0, [leg(venue_liquidation_price=0.0)], isolated=True))
    monitor.on_mark("BTCUSDT", 100.0, 0, 0)
    assert monitor.check_venue() == []


def test_the_venue_is_asked_only_about_what_is_known_but_about_all_of_that():
    unknown = isolated(leg("ETHUSDT", venue_liquidation_price=1.0))
    untold, wrong = leg(), leg(side=-1, venue_liquidation_price=1.0)
    monitor = watching(unknown, isolated(untold), isolated(wrong))
    monitor.on_mark("BTCUSDT", 100.0, 0, 0)
    assert said(monitor.check_venue()) == [("warning", "VENUE_DIFFERS", "BTCUSDT")]


def test_every_leg_of_a_wallet_is_compared_also_after_one_the_venue_says_nothing_of():
    other = leg("ETHUSDT", venue_liquidation_price=1.0)
    monitor = watching(Wallet("cross", 50.0, [leg(), other], isolated=False))
    monitor.on_mark("BTCUSDT", 100.0, 0, 0)
    monitor.on_mark("ETHUSDT", 100.0, 0, 0)
    assert said(monitor.check_venue()) == [("warning", "VENUE_DIFFERS", "ETHUSDT")]


# ----------------------------------------------------------------------- limits
@pytest.mark.parametrize(
    "wrong",
    [
        {"alert": 0.0},
        {"alert": 0.9, "act": 0.9},
        {"act": 0.96},
        {"critical": 1.0},
        {"alert": math.nan},
        {"act": math.nan},
        {"critical": math.nan},
    ],
)
def test_thresholds_must_rise_below_liquidation(wrong):
    with pytest.raises(ConfigError, match="liquidation thresholds are alert"):
        LiquidationLimits(**wrong)


def test_act_may_be_critical():
    assert LiquidationLimits(act=0.95).critical == 0.95


def test_unknown_steps_are_named():
    message = "liquidation.actions names double, pray; expected of reduce, add_margin, close"
    with pytest.raises(ConfigError, match=re.escape(message)):
        LiquidationLimits(actions=("double", "reduce", "pray"))


@pytest.mark.parametrize(
    "wrong",
    [
        {"mark_stale_ms": 0},
        {"mark_stale_ms": 60_001},
        {"stop_watchdog_s": 0.0},
        {"stop_watchdog_s": 300.1},
        {"stop_watchdog_s": math.nan},
    ],
)
def test_times_have_bounds(wrong):
    with pytest.raises(ConfigError, match="expected up to 60000 ms and up to 300 s"):
        LiquidationLimits(**wrong)
    LiquidationLimits(mark_stale_ms=60_000, stop_watchdog_s=300.0)
    LiquidationLimits(mark_stale_ms=1, stop_watchdog_s=0.1)


# ------------------------------------------------------------------ stop watchdog
def stops(*legs: Leg) -> list[Wallet]:
    return [isolated(one) for one in legs]


@pytest.mark.parametrize(("side", "beyond", "before"), [(1, 94.9, 95.1), (-1, 105.1, 104.9)])
def test_a_crossed_stop_that_is_not_done_is_overdue_even_when_the_price_came_back(
    side, beyond, before
):
    held = leg(side=side, stop_price=100.0 - 5.0 * side, stop_live=True)
    watchdog = StopWatchdog(5.0)
    held.price = before
    assert watchdog.look(stops(held), 0).overdue == []
    held.price = beyond
    assert watchdog.look(stops(held), 1 * S).overdue == []
    held.price = before
    assert watchdog.look(stops(held), 6 * S - 1).overdue == []
    wallets = stops(held)
    found = watchdog.look(wallets, 6 * S)
    assert found.overdue == [(wallets[0], held)]
    assert said(found.alarms) == [("critical", "STOP_NOT_DONE", "BTCUSDT")]
    assert found.alarms[0].text == f"{held.stop_name}: crossed 5.0 s ago, not done"
    assert found.alarms[0].numbers == {"price": before, "stop_price": held.stop_price}
    again = watchdog.look(stops(held), 7 * S)
    assert len(again.overdue) == 1
    assert again.alarms == []


def test_a_stop_is_crossed_at_its_price():
    held = leg(stop_price=95.0, stop_live=True)
    held.price = 95.0
    watchdog = StopWatchdog(1.0)
    watchdog.look(stops(held), 0)
    assert len(watchdog.look(stops(held), 1 * S).overdue) == 1


def test_a_stop_that_is_done_or_moved_is_forgotten():
    held = leg(stop_price=95.0, stop_live=True)
    held.price = 94.0
    watchdog = StopWatchdog(1.0)
    watchdog.look(stops(held), 0)
    watchdog.look([], 1)
    assert watchdog.look(stops(held), 2 * S).overdue == []
    moved = leg(stop_price=90.0, stop_live=True)
    moved.price = 94.0
    assert watchdog.look(stops(moved), 9 * S).overdue == []


def test_a_missing_stop_is_told_once_and_asked_for_again_and_again():
    held = leg(stop_price=95.0)
    held.price = 100.0
    watchdog = StopWatchdog(5.0)
    wallets = stops(held)
    first = watchdog.look(wallets, 0)
    assert first.missing == [(wallets[0], held)]
    assert said(first.alarms) == [("critical", "STOP_MISSING", "BTCUSDT")]
    assert first.alarms[0].text == "BTCUSDT long, stop 95.0: no live stop protects it"
    assert watchdog.look(stops(held), 5 * S - 1).missing == []
    second = watchdog.look(stops(held), 5 * S)
    assert len(second.missing) == 1
    assert second.alarms == []


def test_what_somebody_else_opened_is_measured_and_its_stops_are_nobodys_here():
    theirs, ours = leg(foreign=True), leg("ETHUSDT", stop_price=95.0)
    theirs.price = ours.price = 96.0
    watchdog = StopWatchdog(1.0)
    assert [held for _, held in watchdog.look(stops(theirs, ours), 0).missing] == [ours]
    theirs.price = ours.price = 94.0
    watchdog.look(stops(theirs, ours), 1 * S)
    assert [held for _, held in watchdog.look(stops(theirs, ours), 2 * S).overdue] == [ours]


def test_a_stop_that_is_lost_again_is_told_again():
    lost, live = leg(stop_price=95.0), leg(stop_price=95.0, stop_live=True)
    lost.price = live.price = 100.0
    watchdog = StopWatchdog(5.0)
    assert len(watchdog.look(stops(lost), 0).alarms) == 1
    assert watchdog.look(stops(live), 1).alarms == []
    assert watchdog.look(stops(live), 2).alarms == []
    assert len(watchdog.look(stops(lost), 3).alarms) == 1
    watchdog.look([], 4)
    assert len(watchdog.look(stops(lost), 5).alarms) == 1


def test_a_position_without_a_stop_price_is_missing_one_and_never_crossed():
    held = leg()
    held.price = 1.0
    found = StopWatchdog(5.0).look(stops(held), 0)
    assert len(found.missing) == 1
    assert found.overdue == []


def test_a_missing_stop_that_is_crossed_is_told_as_not_done_too():
    held = leg(stop_price=95.0)
    held.price = 96.0
    watchdog = StopWatchdog(1.0)
    watchdog.look(stops(held), 0)
    held.price = 94.0
    watchdog.look(stops(held), 1)
    found = watchdog.look(stops(held), 1 + 1 * S)
    assert [alarm.code for alarm in found.alarms] == ["STOP_NOT_DONE"]


def test_brackets_of_the_tests_are_binances_first():
    assert published_brackets("BTCUSDT").rates[0] == FLAT.rates[0]
