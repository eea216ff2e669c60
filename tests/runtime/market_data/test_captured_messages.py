"""Messages recorded from Binance on 2024-08-08 are read without a loss."""

import json
from collections import Counter
from decimal import Decimal

import pytest

from bot4_runtime.exchange.binance.market_messages import (
    BookTicker,
    DepthUpdate,
    MarketDecoder,
    Trade,
    decode_snapshot,
)

pytestmark = pytest.mark.data
NUMBERS = {
    "spot": {BookTicker: 28_040, Trade: 9_757, DepthUpdate: 3_451},
    "usdm": {BookTicker: 66_089, Trade: 21_313, DepthUpdate: 6_551},
}


def same(event, told):
    """Compare with what the standard library reads."""
    if isinstance(event, Trade):
        ours = (event.trade_id, event.price, event.quantity, event.time, event.buyer_is_maker)
        return ours == (told["t"], Decimal(told["p"]), Decimal(told["q"]), told["T"], told["m"])
    if isinstance(event, BookTicker):
        ours = (event.update_id, event.bid, event.bid_quantity, event.ask, event.ask_quantity)
        return ours == (told["u"], *(Decimal(told[name]) for name in "bBaA"))
    levels = [[(Decimal(p), Decimal(q)) for p, q in told[side]] for side in "ba"]
    ours = (event.first_id, event.last_id, event.before_id, event.bids, event.asks)
    return ours == (told["U"], told["u"], told.get("pu"), *levels)


@pytest.mark.parametrize("market", ["spot", "usdm"])
def test_every_recorded_message_is_read_as_it_was_told(captured, market):
    decoder, numbers, snapshots = MarketDecoder(), Counter(), 0
    for _, message in captured(market):
        told = json.loads(message)
        if "lastUpdateId" in told:
            book = decode_snapshot(message)
            assert [len(book.bids), len(book.asks)] == [len(told["bids"]), len(told["asks"])]
            snapshots += 1
            continue
        event = decoder.decode(message)
        numbers[type(event)] += 1
        assert event.symbol == "BTCUSDT"
        assert same(event, told["data"]), message
    assert (numbers, snapshots, decoder.counts) == (NUMBERS[market], 1, {})
