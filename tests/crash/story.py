"""One simulated run, told again in the order of its times: the venue's journal beside ours."""

from invariants import events_of
from simulation import NS, REAL, START_MS, Parts, from_picture, pictures
from virtual_world import Picture, World

from bot4_runtime.domain.events import CandleClosed


def story(seed: int, crash: int | None, parts: Parts = REAL) -> tuple[list[str], list[str]]:
    """Run one run of a seed again; return what happened, told in order, and what it violated.

    Args:
        seed: of the world.
        crash: the boundary it is cut at; None for the whole run.
        parts: what the processes are made of.
    """
    whole, taken = pictures(seed, parts)
    if crash is None:
        return _told(whole, 0), whole.violations
    picture = next((p for p in taken if p.number == crash), None)
    if picture is None:
        near = min(taken, key=lambda p: abs(p.number - crash)).number
        raise ValueError(f"boundary {crash} of seed {seed} has no picture of its own; see {near}")
    head = _told_by(picture)
    world = from_picture(seed, picture, parts)
    cut = f"{picture.now_ms - START_MS:>8} ms  ======== killed at boundary {crash}: {picture.name}"
    return [*head, cut, *_told(world, len(picture.exchange.journal))], world.violations


def _told(world: World, after: int) -> list[str]:
    lines = [
        (when_ms, f"{when_ms - START_MS:>8} ms  venue    {what} {who}")
        for when_ms, what, who in world.exchange.journal[after:]
    ]
    lines += [
        (event.ts_event_ns // NS, f"{'':>8}     journal  {number:>4} {event!r:.230}")
        for number, event in events_of(world)
        if type(event) is not CandleClosed
    ]
    return [line for _, line in sorted(lines, key=_time_of)]


def _told_by(picture: Picture) -> list[str]:
    return [
        f"{when_ms - START_MS:>8} ms  venue    {what} {who}"
        for when_ms, what, who in picture.exchange.journal
    ]


def _time_of(line: tuple[int, str]) -> int:
    return line[0]
