"""Positions and the round trips they become."""

from decimal import Decimal

import msgspec

from bot4_runtime.domain.order import Book, Side


class Position(msgspec.Struct, frozen=True, kw_only=True):
    """What a book holds of one symbol.

    Attributes:
        quantity: signed base quantity, received-asset fees already taken off.
        cost: quote paid for `quantity`, fees included; entry price = cost / quantity.
        entry_price: average fill price of the entry, in quote, without fees.
        stop_price: the stop it must have, in quote.
        realised: realised profit of this round trip so far, in quote, after fees.
        peak_quantity: largest absolute base quantity held in this round trip.
        fees_quote: fees of this round trip so far, valued in quote.
        funding_quote: funding of this round trip so far, part of `realised`; negative when paid.
    """

    book: Book
    symbol: str
    quantity: Decimal
    cost: Decimal
    entry_price: Decimal
    stop_price: Decimal
    realised: Decimal
    peak_quantity: Decimal
    fees_quote: Decimal
    opened_ts_ns: int
    rule_id: str
    signal_id: str
    funding_quote: Decimal = Decimal(0)


class ClosedTrade(msgspec.Struct, frozen=True, kw_only=True):
    """A finished round trip; the raw material of evidence, bias checks and reports.

    Attributes:
        quantity: largest base quantity held.
        pnl: net profit in quote, all fees and funding included.
        return_net: pnl / (entry_price x quantity).
        exit_reason: ``signal``, ``stop``, ``emergency``, ``end``, or ``liquidation`` when
            the venue closed it itself.
        funding_quote: funding within `pnl`; negative when paid.
    """

    book: Book
    symbol: str
    side: Side
    rule_id: str
    signal_id: str
    opened_ts_ns: int
    closed_ts_ns: int
    quantity: Decimal
    entry_price: Decimal
    exit_price: Decimal
    pnl: Decimal
    fees_quote: Decimal
    return_net: float
    exit_reason: str
    funding_quote: Decimal = Decimal(0)
