"""What positions rest on: readings and changes in any order of arrival, and what cannot be read."""

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot4_runtime.domain.errors import DataError
from bot4_runtime.protection.margin_book import MarginBook

D = Decimal
MS = 1_000_000


def row(symbol="BTCUSDT", size="2", side="BOTH", wallet="50", price="70"):
    """A position as positionRisk v3 tells it."""
    return {
        "symbol": symbol,
        "positionSide": side,
        "positionAmt": size,
        "entryPrice": "100",
        "isolatedMargin": wallet,
        "isolatedWallet": wallet,
        "liquidationPrice": price,
    }


def wallets(cross="1000", free="900", asset="USDT"):
    """The account as account v3 tells it."""
    return {"assets": [{"asset": asset, "crossWalletBalance": cross, "availableBalance": free}]}


def change(at_ms, *positions, cross=None, asset="USDT"):
    """An ACCOUNT_UPDATE."""
    told = [{"a": asset, "wb": "0", "cw": cross, "bc": "0"}] if cross is not None else []
    return {
        "e": "ACCOUNT_UPDATE",
        "T": at_ms,
        "a": {"m": "ORDER", "B": told, "P": list(positions)},
    }


def moved(symbol="BTCUSDT", size="1", side="BOTH", wallet="25", mode="isolated"):
    return {"s": symbol, "pa": size, "ep": "100", "mt": mode, "iw": wallet, "ps": side}


def read(*rows, at_ms=10, account=None) -> MarginBook:
    book = MarginBook("USDT")
    book.read(rows, account or wallets(), at_ms * MS)
    return book


def sizes(book):
    return {leg.name: leg.size for leg in book.positions()}


def test_a_reading_tells_positions_and_wallets():
    book = read(row(), row("ETHUSDT", "-3", "SHORT", "0", "0"), row("SOLUSDT", "0"))
    assert (book.cross, book.free, book.as_of_ns, book.doubt) == (D(1000), D(900), 10 * MS, "")
    long, short = book.positions()
    assert (long.name, long.size, long.isolated_wallet) == ("BTCUSDT long", D(2), D(50))
    assert long.liquidation_price == D(70)
    assert (short.name, short.size, short.isolated_wallet) == ("ETHUSDT short", D(3), None)


def test_before_the_first_reading_nothing_is_known():
    book = MarginBook("USDT")
    assert book.doubt
    assert book.as_of_ns == -1
    assert not book.positions()


def test_an_account_without_the_margin_asset_has_none():
    book = read(account=wallets(asset="BNB"))
    assert (book.cross, book.free) == (D(0), D(0))


def test_a_change_tells_a_side_whole_and_not_the_venues_own_price():
    book = read(row())
    version = book.version
    book.changed(change(20, moved(), cross="1020"))
    assert sizes(book) == {"BTCUSDT long": D(2)}, "it waits for the session's thread"
    assert book.settle() == []
    [leg] = book.positions()
    assert (leg.size, leg.isolated_wallet, leg.liquidation_price) == (D(1), D(25), None)
    assert (book.cross, book.as_of_ns) == (D(1020), 20 * MS)
    assert book.version > version
    book.changed(change(30, moved(size="0", wallet="0")))
    book.settle()
    assert book.positions() == []


def test_a_side_that_turns_is_one_position():
    book = read(row())
    book.changed(change(20, moved(size="-1")))
    book.settle()
    assert sizes(book) == {"BTCUSDT short": D(1)}


def test_wallets_of_other_assets_are_left_aside():
    book = read()
    book.changed(change(20, cross="7", asset="BNB"))
    book.settle()
    assert book.cross == D(1000)


def test_the_venues_price_of_a_cross_position_is_told_while_nothing_it_hangs_on_moved():
    alone = read(row(wallet="0"))
    assert [leg.liquidation_price for leg in alone.positions()] == [D(70)]
    alone.changed(change(20, cross="900"))
    alone.settle()
    assert [leg.liquidation_price for leg in alone.positions()] == [None]
    two = read(row(wallet="0"), row("ETHUSDT", wallet="0"), row("SOLUSDT"))
    assert [leg.liquidation_price for leg in two.positions()] == [None, None, D(70)]


@pytest.mark.parametrize(
    "update",
    [
        {"T": 20},
        {"T": "soon", "a": {}},
        {"T": 20, "a": {"B": [{"a": "USDT", "cw": "NaN"}]}},
        change(20, moved(size="NaN")),
        change(20, moved(mode="both")),
        change(20, moved() | {"ep": "-1"}),
        change(20, {"s": "BTCUSDT"}),
    ],
)
def test_a_change_that_cannot_be_read_leaves_it_in_doubt_until_the_next_reading(update):
    book = read(row())
    book.changed(update)
    book.settle()
    assert "cannot be read" in book.doubt
    assert sizes(book) == {"BTCUSDT long": D(2)}
    book.read([row()], wallets(), 30 * MS)
    assert book.doubt == ""


@pytest.mark.parametrize(
    ("rows", "account"),
    [
        ([row(size="NaN")], wallets()),
        ([{"symbol": "BTCUSDT"}], wallets()),
        ([row() | {"entryPrice": "0"}], wallets()),
        ([row()], {}),
        ([row()], wallets(cross="Infinity")),
        ([row()], wallets(free="much")),
    ],
)
def test_a_reading_that_cannot_be_is_refused_and_what_was_known_stays(rows, account):
    book = read(row(size="5"))
    with pytest.raises(DataError, match="ask again"):
        book.read(rows, account, 20 * MS)
    assert sizes(book) == {"BTCUSDT long": D(5)}
    assert book.as_of_ns == 10 * MS


def test_brackets_that_contradict_themselves_are_not_known():
    step = {"bracket": 1, "notionalFloor": 0, "maintMarginRatio": 0.004, "cum": 0.0}
    book = read()
    book.brackets(
        [
            {"symbol": "BTCUSDT", "notionalCoef": 0.5, "brackets": [step]},
            {"symbol": "ETHUSDT", "brackets": [step | {"cum": 7.0}]},
        ]
    )
    assert list(book.ladders) == ["BTCUSDT"]


def test_margin_calls_and_marks_are_handed_on_once():
    book = read()
    book.called(["BTCUSDT"])
    book.marks({"BTCUSDT": (99.0, 5)})
    assert book.settle() == [["BTCUSDT"]]
    assert book.settle() == []
    assert book.asked == {"BTCUSDT": (99.0, 5)}


@given(
    times=st.lists(st.integers(1, 9), min_size=1, max_size=6, unique=True),
    asked=st.lists(st.integers(0, 9), min_size=1, max_size=3),
    order=st.randoms(use_true_random=False),
)
def test_in_whatever_order_it_is_told_the_newest_holds(times, asked, order):
    """Each moment has a size of its own; a reading tells that of any moment since it was asked.

    What is known in the end is the size at the newest moment that was told, or a newer one.
    """
    truth = sorted(times)

    def size_at(ms):
        return max((t for t in truth if t <= ms), default=0)

    tellings = [("change", t) for t in truth] + [("reading", t) for t in asked]
    order.shuffle(tellings)
    book = MarginBook("USDT")
    newest = 0
    for kind, at_ms in tellings:
        if kind == "change":
            book.changed(change(at_ms, moved(size=str(at_ms), wallet="1"), cross=str(at_ms)))
            book.settle()
        else:
            book.read([row(size=str(size_at(at_ms)))], wallets(str(size_at(at_ms))), at_ms * MS)
        newest = max(newest, size_at(at_ms))
        held = [int(leg.size) for leg in book.positions()] or [0]
        assert held == [newest]
        assert book.cross == newest
