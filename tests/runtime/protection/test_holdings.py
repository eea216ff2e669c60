"""Positions read from files and from the venue; what is impossible is refused by name."""

import json
from decimal import Decimal

import pytest

from bot4_runtime.domain.errors import DataError
from bot4_runtime.protection.holdings import (
    Holdings,
    MarginPosition,
    read_holdings,
    venue_holdings,
)

D = Decimal
ROW = {
    "symbol": "BTCUSDT",
    "side": "short",
    "size": "0.5",
    "entry_price": 40000,
    "isolated_wallet": "5000.25",
}


def file(tmp_path, **changes):
    path = tmp_path / "account.json"
    path.write_text(json.dumps({"cross_balance": 10, "free": "5.5", "positions": [ROW]} | changes))
    return path


def test_a_file_of_positions_is_read_exactly(tmp_path):
    assert read_holdings(file(tmp_path)) == Holdings(
        cross_balance=D(10),
        free=D("5.5"),
        positions=(
            MarginPosition(
                symbol="BTCUSDT",
                side="short",
                size=D("0.5"),
                entry_price=D(40_000),
                isolated_wallet=D("5000.25"),
            ),
        ),
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"cross_balance": "nan"},
        {"free": -1},
        {"free": "inf"},
        {"surplus": 1},
        {"positions": [ROW, ROW]},
        {"positions": [ROW | {"size": 0}]},
        {"positions": [ROW | {"size": "nan"}]},
        {"positions": [ROW | {"entry_price": -1}]},
        {"positions": [ROW | {"isolated_wallet": "nan"}]},
        {"positions": [ROW | {"isolated_wallet": "-inf"}]},
        {"positions": [ROW | {"stop_price": "inf"}]},
        {"positions": [ROW | {"side": "up"}]},
        {"positions": [ROW | {"leverage": 3}]},
        {"positions": [{"symbol": "BTCUSDT"}]},
    ],
)
def test_impossible_accounts_are_refused(tmp_path, changes):
    with pytest.raises(DataError):
        read_holdings(file(tmp_path, **changes))


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(DataError, match=r"nowhere\.json"):
        read_holdings(tmp_path / "nowhere.json")


POSITIONS = [
    {
        "symbol": "BTCUSDT",
        "positionSide": "BOTH",
        "positionAmt": "-0.010",
        "entryPrice": "65000.1",
        "isolatedWallet": "200.5",
        "liquidationPrice": "82000",
    },
    {
        "symbol": "ETHUSDT",
        "positionSide": "LONG",
        "positionAmt": "2",
        "entryPrice": "2500",
        "isolatedWallet": "0",
        "liquidationPrice": "0",
    },
    {
        "symbol": "ETHUSDT",
        "positionSide": "SHORT",
        "positionAmt": "0",
        "entryPrice": "0",
        "isolatedWallet": "0",
        "liquidationPrice": "0",
    },
]
ACCOUNT = {"totalCrossWalletBalance": "1000.5", "availableBalance": "-3"}


def test_the_venues_answers_are_read_isolated_and_cross_empty_sides_left_out():
    holdings = venue_holdings(POSITIONS, ACCOUNT, 7)
    assert (holdings.cross_balance, holdings.free, holdings.as_of_ns) == (D("1000.5"), D(0), 7)
    assert [(p.name, p.size, p.isolated_wallet) for p in holdings.positions] == [
        ("BTCUSDT short", D("0.010"), D("200.5")),
        ("ETHUSDT long", D(2), None),
    ]
    assert holdings.positions[0].liquidation_price == D(82_000)


@pytest.mark.parametrize(
    ("told", "own"),
    [
        ({"isolatedWallet": "-1.5"}, D("-1.5")),
        ({"isolatedWallet": "-1.5", "isolated": True}, D("-1.5")),
        ({"isolatedWallet": "0", "isolated": True}, D(0)),
        ({"isolatedWallet": "0", "isolated": False}, None),
        ({"isolatedWallet": "0", "marginType": "isolated"}, D(0)),
        ({"isolatedWallet": "0", "marginType": "ISOLATED"}, D(0)),
        ({"isolatedWallet": "0", "marginType": "cross"}, None),
        ({"isolatedWallet": "0", "marginType": "CROSSED"}, None),
        ({"isolatedWallet": "0", "isolatedMargin": "12.5"}, D(0)),
        ({"isolatedWallet": "0", "isolatedMargin": "0"}, None),
        ({"isolatedWallet": "0.00000000"}, None),
    ],
)
def test_the_margin_mode_is_the_venues_word_and_margin_may_be_used_up(told, own):
    [position] = venue_holdings([POSITIONS[0] | told], ACCOUNT, 7).positions
    assert position.isolated_wallet == own


@pytest.mark.parametrize("own", [0, "-12.5"])
def test_a_file_may_tell_of_margin_that_is_used_up(tmp_path, own):
    [position] = read_holdings(
        file(tmp_path, positions=[ROW | {"isolated_wallet": own}])
    ).positions
    assert position.isolated_wallet == D(own)


@pytest.mark.parametrize(
    ("rows", "account"),
    [
        ([{}], ACCOUNT),
        ([POSITIONS[0] | {"entryPrice": None}], ACCOUNT),
        ([POSITIONS[0] | {"positionAmt": "many"}], ACCOUNT),
        ([POSITIONS[0] | {"isolatedWallet": "nan"}], ACCOUNT),
        ([POSITIONS[0] | {"isolated": "false"}], ACCOUNT),
        ([POSITIONS[0] | {"marginType": "portfolio"}], ACCOUNT),
        (POSITIONS, {}),
        (POSITIONS, ACCOUNT | {"totalCrossWalletBalance": "nan"}),
    ],
)
def test_answers_that_cannot_be_read_are_refused(rows, account):
    with pytest.raises(DataError):
        venue_holdings(rows, account, 7)
