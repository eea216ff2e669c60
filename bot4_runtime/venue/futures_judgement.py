"""What stands between a request and the book of a USD-M market: rules, modes, margin. Pure."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Final

from bot4_runtime.venue import futures_refusals as no
from bot4_runtime.venue.account import ZERO
from bot4_runtime.venue.book import Book
from bot4_runtime.venue.contract import Contract
from bot4_runtime.venue.futures_account import FuturesAccount, Position, PositionSide
from bot4_runtime.venue.futures_margin import MarginBook
from bot4_runtime.venue.futures_orders import FuturesOrder, FuturesRequest, FuturesTif
from bot4_runtime.venue.refusals import Refused, mandatory

FuturesBook = Book[Contract, FuturesOrder]
GOOD_TILL_AHEAD_MS: Final = 600_000
GOOD_TILL_MAX_MS: Final = 253_402_300_799_000


def check_mode(account: FuturesAccount, request: FuturesRequest) -> None:
    """Hold a request's position side against the account's mode.

    Raises:
        Refused: -4061, or -1106 for reduceOnly in hedge mode.
    """
    if request.position_side not in account.sides():
        raise Refused(*no.OTHER_POSITION_MODE)
    if account.hedge and request.reduce_only:
        raise Refused(-1106, "Parameter 'reduceonly' sent when not required.")


def closes_only(request: FuturesRequest) -> bool:
    """Whether an order can make a position smaller and nothing else."""
    if request.position_side is PositionSide.BOTH:
        return request.reduce_only
    return (request.position_side is PositionSide.LONG) == (request.side.sign < 0)


def closable(position: Position, sign: int) -> Decimal:
    """Return how much of a position an order of this sign could close, in base."""
    return max(-sign * position.quantity, ZERO)


def judge_form(contract: Contract, mark: Decimal, request: FuturesRequest, now_ms: int) -> None:
    """Hold a request against the rules of its symbol.

    Raises:
        Refused: the first that it breaks.
    """
    contract.check_quantity(request.quantity, market=request.price is None)
    if request.price is not None:
        contract.check_price(request.price)
        contract.check_band(request.price, mark, buying=request.side.sign > 0)
    if not closes_only(request):
        contract.check_notional(request.quantity * (request.price or mark))
    if request.tif is FuturesTif.GTD:
        if not request.good_till_ms:
            raise mandatory("goodTillDate")
        if not now_ms + GOOD_TILL_AHEAD_MS < request.good_till_ms < GOOD_TILL_MAX_MS:
            raise Refused(*no.BAD_GOOD_TILL)


def judge_position(
    account: FuturesAccount,
    position: Position,
    request: FuturesRequest,
    open_orders: Sequence[FuturesOrder],
) -> None:
    """Hold an order that only closes against what there is to close.

    In hedge mode all such orders together may not close more than is held.

    Raises:
        Refused: -2022.
    """
    if not closes_only(request):
        return
    held = closable(position, request.side.sign)
    if account.hedge:
        waiting = (
            order.left
            for order in open_orders
            if order.closes_only
            and order.symbol == request.symbol
            and order.request.position_side is request.position_side
        )
        held -= sum(waiting, ZERO)
        if not request.quantity <= held:
            raise Refused(*no.REDUCE_ONLY)
    if not held > 0:
        raise Refused(*no.REDUCE_ONLY)


def judge_margin(
    margins: MarginBook,
    contract: Contract,
    mark: Decimal,
    taker_price: Decimal,
    order: FuturesOrder,
) -> None:
    """Hold an order that may open against leverage and available margin.

    What it may open needs initial margin, the loss it would begin with, and its fee. A market
    order is valued at `taker_price`, at which it would trade first.

    Raises:
        Refused: -2027 or -2019.
    """
    if not order.may_open:
        return
    account, symbol = order.account, order.symbol
    leverage = account.settings(symbol).leverage
    before = margins.order_margin(account, symbol)
    opened = (margins.order_margin(account, symbol, order) - before) * leverage
    if not opened > 0:
        return
    bid, ask = margins.order_notionals(account, symbol, order)
    held = sum((margins.notional(p) for p in account.positions() if p.symbol == symbol), ZERO)
    largest = max(abs(held + bid), abs(held - ask))
    if not largest <= contract.ladder.max_notional(leverage):
        raise Refused(*no.BEYOND_LEVERAGE)
    price = order.price or taker_price
    loss = max((price - mark) * order.side.sign, ZERO) / price
    needed = opened / leverage + opened * (loss + account.taker)
    if not needed <= margins.available(account, contract.quote):
        raise Refused(*no.NO_MARGIN)


def judge_taking(book: FuturesBook, order: FuturesOrder) -> None:
    """Refuse a post-only order that would take, and a FOK order that would not fill whole.

    Raises:
        Refused: -5022 or -5021.
    """
    sign = order.side.sign
    if order.request.tif is FuturesTif.GTX:
        best = book.best(order.side)
        if best is not None and (order.price - best) * sign >= 0:
            raise Refused(*no.NOT_MAKER)
    if order.request.tif is FuturesTif.FOK:
        within = (
            offer.quantity
            for offer in book.offers(order.side)
            if (order.price - offer.price) * sign >= 0
            and (offer.resting is None or offer.resting.account is not order.account)
        )
        if not sum(within, ZERO) >= order.left:
            raise Refused(*no.NOT_FILLED_AT_ONCE)
