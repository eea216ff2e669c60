"""Everything outside the process, made of numbers: time, a disk, snapshots, chance.

One seed decides all of it. `World.boundary` is called wherever a process can die: around
every call of disk and venue and between the session's steps. A run that watches takes a
picture of the world there, `World.after_crash` goes on from a picture with what the cut left
on the disk. What a dead process remembered is in no picture.
"""

import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

import msgspec
from simulated_exchange import SimulatedExchange

from bot4_runtime.domain.errors import JournalWriteFailed
from bot4_runtime.domain.events import JournaledEvent, OrderIntended
from bot4_runtime.state.frames import Frame, Keys, decode_frame

_RECORD = msgspec.msgpack.Encoder()
_FRAMES = msgspec.msgpack.Decoder(list[Frame])
_MASK = (1 << 64) - 1


class Killed(BaseException):
    """The process is gone; nothing of it may run on."""


def chance(seed: int, *keys: int) -> float:
    """Uniform in [0, 1), the same for the same numbers in every process (splitmix64)."""
    value = seed & _MASK
    for key in (*keys, 0x9E37):
        value = (value + 0x9E3779B97F4A7C15 + key * 0xBF58476D1CE4E5B9) & _MASK
        value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & _MASK
        value ^= value >> 31
    return value / 2**64


@dataclass
class Medium:
    """The bytes of the journal: records of one write each, the first `synced` of them safe."""

    records: list[bytes] = field(default_factory=list)
    synced: int = 0
    epochs: list[int] = field(default_factory=lambda: [0])
    intents: dict[str, str] = field(default_factory=dict)

    def copy(self) -> "Medium":
        return Medium(list(self.records), self.synced, list(self.epochs), dict(self.intents))

    def cut(self, seed: int, number: int, *, power: bool) -> None:
        """Lose what a crash loses: with the power, any part of what was not synced."""
        tail = self.records[self.synced :]
        if power and tail:
            kept = int(chance(seed, 11, number) * (len(tail) + 1))
            torn = tail[kept] if kept < len(tail) else b""
            tail = tail[:kept]
            if torn and chance(seed, 12, number) < 0.7:
                if chance(seed, 13, number) < 0.5:
                    tail.append(torn[: int(chance(seed, 14, number) * len(torn))])
                else:
                    place = int(chance(seed, 15, number) * len(torn))
                    tail.append(torn[:place] + bytes([torn[place] ^ 4]) + torn[place + 1 :])
        self.records[self.synced :] = tail


def sealed(frames: Sequence[Frame]) -> bytes:
    body = _RECORD.encode(list(frames))
    return zlib.crc32(body).to_bytes(4, "little") + body


@lru_cache(maxsize=1_024)
def opened(record: bytes) -> tuple[tuple[Frame, Sequence[JournaledEvent]], ...] | None:
    """The frames of a record with their events; None when it is torn or flipped."""
    body = record[4:]
    if len(record) < 4 or zlib.crc32(body) != int.from_bytes(record[:4], "little"):
        return None
    return tuple((frame, decode_frame(frame)) for frame in _FRAMES.decode(body))


@dataclass
class Picture:
    """The world at one boundary."""

    number: int
    name: str
    now_ms: int
    calls: int
    medium: Medium
    snapshots: list[tuple[int, bytes]]
    exchange: SimulatedExchange
    batch_ends: set[int]
    version: tuple[int, ...]


@dataclass
class World:
    """What stays when the process dies.

    Attributes:
        now_ms: true time, UTC.
        calls: draws made so far of the faults of disk and venue.
        batch_ends: sequence numbers at which batches ended; recovery must lead to one.
        kill_at: boundary at which the process dies; None for never.
        on_boundary: called with the boundary's name before the kill.
    """

    seed: int
    exchange: SimulatedExchange
    now_ms: int
    medium: Medium = field(default_factory=Medium)
    snapshots: list[tuple[int, bytes]] = field(default_factory=list)
    calls: int = 0
    boundaries: int = 0
    kill_at: int | None = None
    dead: bool = False
    writes: int = 0
    disk_fails_at: int | None = None
    lives: int = 0
    batch_ends: set[int] = field(default_factory=lambda: {0})
    violations: list[str] = field(default_factory=list)
    on_boundary: Callable[[str], None] | None = None
    story: list[str] | None = None

    def boundary(self, name: str) -> None:
        """A place where the process may die."""
        if self.dead:
            raise Killed
        self.boundaries += 1
        if self.on_boundary is not None:
            self.on_boundary(name)
        if self.story is not None:
            self.story.append(f"{self.now_ms} {self.boundaries:5d} {name}")
        if self.boundaries == self.kill_at:
            self.dead = True
            if self.story is not None:
                self.story.append(f"{self.now_ms} ----- killed")
            raise Killed

    def draw(self) -> float:
        """The next of the world's draws."""
        self.calls += 1
        return chance(self.seed, 1, self.calls)

    def advance(self, to_ms: int) -> None:
        """Let time pass; the market trades meanwhile."""
        if to_ms > self.now_ms:
            self.exchange.advance(to_ms)
            self.now_ms = to_ms

    def picture(self, name: str) -> Picture:
        exchange = self.exchange
        medium = self.medium
        version = (len(medium.records), medium.synced, len(medium.epochs), len(self.snapshots))
        return Picture(
            self.boundaries,
            name,
            self.now_ms,
            self.calls,
            medium.copy(),
            list(self.snapshots),
            exchange.copy(),
            set(self.batch_ends),
            (*version, exchange.version),
        )

    @classmethod
    def after_crash(cls, seed: int, picture: Picture) -> "World":
        """The world a new process finds some seconds after a cut at a picture's boundary."""
        number = picture.number
        world = cls(
            seed,
            picture.exchange.copy(),
            picture.now_ms,
            picture.medium.copy(),
            list(picture.snapshots),
            picture.calls,
            lives=1,
            batch_ends=set(picture.batch_ends),
        )
        world.reboot(number)
        return world

    def reboot(self, number: int) -> None:
        """Lose what the cut loses; come back some time later."""
        self.medium.cut(self.seed, number, power=chance(self.seed, 16, number) < 0.7)
        self.exchange.disconnect()
        self.dead = False
        luck, length = chance(self.seed, 17, number), chance(self.seed, 18, number)
        least, more = (500, 9_000) if luck < 0.7 else (60_000, 55_000)
        if luck > 0.9:
            least, more = 130_000, 60_000
        self.advance(self.now_ms + least + int(more * length))


class VirtualDisk:
    """The journal's disk port over a medium: one record a write, torn tails cut when opened."""

    distress = ""

    def __init__(self, world: World) -> None:
        self._world = world
        medium = world.medium
        world.boundary("disk: open")
        self._frames: list[Frame] = []
        for number, record in enumerate(medium.records):
            frames = opened(record)
            if frames is None:
                assert number >= medium.synced, "a synced record is damaged"
                del medium.records[number:]
                break
            self._frames += [frame for frame, _ in frames]
        medium.synced = len(medium.records)
        medium.epochs.append(medium.epochs[-1] + 1)
        self.epoch = medium.epochs[-1]
        self._unique: set[tuple[object, ...]] = set()
        for record in medium.records:
            for _, events in opened(record) or ():
                self._remember(events)
        world.boundary("disk: opened")

    def _remember(self, events: Sequence[JournaledEvent]) -> None:
        intents = self._world.medium.intents
        for event in events:
            if type(event) is OrderIntended:
                intents[event.client_id] = event.payload_hash
                self._unique.add((event.intent.intent_no,))

    def last_seq(self) -> int:
        return self._frames[-1].last_seq if self._frames else 0

    def read(self, after_seq: int) -> Iterator[Frame]:
        yield from (frame for frame in self._frames if frame.last_seq > after_seq)

    def write(self, frames: Sequence[Frame], keys: Keys) -> None:
        world, medium = self._world, self._world.medium
        world.boundary("disk: write")
        if medium.epochs[-1] != self.epoch:
            raise JournalWriteFailed(f"epoch {medium.epochs[-1]} took over from {self.epoch}")
        unique = {key[:-1] for key in (*keys.intents, *keys.trades)}
        if unique & self._unique or len(unique) < len(keys.intents) + len(keys.trades):
            raise JournalWriteFailed("an intent or a trade is not unique")
        world.writes += 1
        if world.writes == world.disk_fails_at:
            if world.draw() < 0.5:
                raise OSError(28, "No space left on device")
            medium.records.append(sealed(frames))
            if world.draw() < 0.5:
                self._sync(frames, unique)
            raise OSError(5, "Input/output error")
        if world.draw() < 0.02:
            world.advance(world.now_ms + 900)
        medium.records.append(sealed(frames))
        world.boundary("disk: written, not synced")
        self._sync(frames, unique)
        world.boundary("disk: synced")

    def _sync(self, frames: Sequence[Frame], unique: set[tuple[object, ...]]) -> None:
        self._world.medium.synced = len(self._world.medium.records)
        self._frames += frames
        self._unique |= unique
        for frame in frames:
            if "OrderIntended" in frame.kinds:
                self._remember(decode_frame(frame))

    def tidy(self) -> None:
        """Nothing to tidy."""

    def close(self) -> None:
        """Nothing to close."""
