"""Eight threads look at the state beside its writer and never see one that did not exist."""

import threading
from contextlib import nullcontext
from decimal import Decimal

import pytest
from state_scenario import SYMBOLS, Scenario, candle, session

from bot4_runtime.domain.order import Book
from bot4_runtime.state.disk import MemoryDisk
from bot4_runtime.state.fingerprint import fingerprint
from bot4_runtime.state.journal import Journal
from bot4_runtime.state.store import StateStore
from bot4_runtime.state.trading_state import TradingState


def started(disk: MemoryDisk | None = None) -> StateStore:
    store = StateStore(Journal(disk or MemoryDisk()), None)
    store.recover()
    return store


def judgement(state: TradingState) -> tuple[object, ...]:
    """What a validator would decide by: all of a book's accounts, and where they come from."""
    judged = [
        (
            name,
            book.cash,
            book.metrics.equity,
            sorted((p.symbol, p.quantity, p.cost) for p in book.positions.values()),
            len(book.closed_trades),
            sum((t.pnl for t in book.closed_trades), Decimal(0)),
            state.reserved(name),
        )
        for name, book in state.books.items()
    ]
    return state.seq, state.inputs, tuple(map(repr, judged))


def test_eight_readers_and_validators_see_only_states_of_a_serial_run():
    batches = Scenario(21, 400).batches()
    serial = started()
    known = set()
    for batch in batches:
        serial.append(batch)
        known.add(judgement(serial.state))
    serial.close()

    store = started()
    store.append(batches[0])
    stop = threading.Event()
    seen: list[set[tuple[object, ...]]] = [set() for _ in range(8)]
    hashes: dict[int, str] = {}

    def look(number: int) -> None:
        while not stop.is_set():
            seen[number].add(store.read(judgement))
            folio = store.get_portfolio(Book.VALIDATED)
            assert folio.metrics.equity >= 0
            if number == 0:
                seq, found = store.read(lambda state: (state.seq, state.state_hash()))
                hashes[seq] = found

    threads = [threading.Thread(target=look, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for number, batch in enumerate(batches[1:]):
        if number % 2:
            store.append(batch)
        else:
            for event in batch:
                store.stage(event)
            store.commit()
    stop.set()
    for thread in threads:
        thread.join()
    assert all(seen)
    assert set().union(*seen) <= known
    assert store.state.state_hash() == serial.state.state_hash()
    again = started()
    for batch in batches:
        again.append(batch)
        if again.state.seq in hashes:
            assert again.state.state_hash() == hashes[again.state.seq]
    store.close()
    again.close()


@pytest.mark.parametrize("locked", [True, False])
def test_it_is_the_lock_that_keeps_a_reader_from_a_torn_state(locked):
    store = started()
    store.append([session(1)])
    if not locked:
        store._lock = type(
            "NoLock",
            (nullcontext,),
            {"acquire": lambda self: None, "release": lambda self: None},
        )()
    looking, written = threading.Event(), threading.Event()

    def slow_look(state: TradingState) -> tuple[int, int]:
        before = state.inputs
        looking.set()
        written.wait(0.3)
        return before, state.inputs

    def write() -> None:
        looking.wait(5)
        store.append([candle(symbol, 0, 1.0) for symbol in SYMBOLS])
        written.set()

    writer = threading.Thread(target=write)
    writer.start()
    before, after = store.read(slow_look)
    writer.join()
    assert (before == after) is locked
    store.close()


def test_the_fingerprint_is_of_the_state_alone():
    state = Scenario(2, 30).state
    told = {
        name: getattr(state, name)
        for name in ("inputs", "cursor", "marks", "next_intent_no", "books", "orders")
    }
    assert fingerprint(**told) == state.state_hash()
