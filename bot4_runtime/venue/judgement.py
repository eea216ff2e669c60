"""What stands between a request and the book: the rules, the counts, the funds. Pure."""

from collections.abc import Iterable
from decimal import ROUND_DOWN, Decimal

from bot4_runtime.domain.order import Side
from bot4_runtime.venue import refusals
from bot4_runtime.venue.account import ZERO
from bot4_runtime.venue.book import Book
from bot4_runtime.venue.orders import Kind, OrderRequest, VenueOrder
from bot4_runtime.venue.refusals import Refused
from bot4_runtime.venue.rules import SymbolRules

SpotBook = Book[SymbolRules, VenueOrder]


def judge(
    book: SpotBook, open_orders: Iterable[VenueOrder], request: OrderRequest, owned: Decimal = ZERO
) -> None:
    """Hold a request against the rules, the account's open orders and the book.

    Args:
        book: of the symbol.
        open_orders: of the account.
        request: the order.
        owned: base that the account has, free and locked.

    Raises:
        Refused: the first that it breaks.
    """
    rules, last = book.rules, book.last
    buying = request.side is Side.BUY
    stop = request.stop_price
    if rules.status != "TRADING":
        raise Refused(*refusals.MARKET_CLOSED)
    if request.quantity is not None:
        rules.check_quantity(request.quantity)
        if request.kind is Kind.MARKET:
            rules.check_market_quantity(request.quantity)
    price = last
    if request.price is not None:
        price = request.price
        rules.check_price("price", price)
        rules.check_band(price, last, buying=buying)
    if stop is not None:
        rules.check_price("stopPrice", stop)
    notional = request.quote_quantity
    rules.check_notional((request.quantity or ZERO) * price if notional is None else notional)
    open_here = [order for order in open_orders if order.symbol == rules.symbol]
    stops = sum(order.request.stop_price is not None for order in open_here)
    rules.check_counts(len(open_here) + 1, stops + 1, is_stop=stop is not None)
    if buying:
        bids = sum((order.left for order in open_here if order.side is Side.BUY), ZERO)
        rules.check_position(owned + bids + (request.quantity or ZERO))
    if stop is not None and triggered(request, last):
        raise Refused(*refusals.WOULD_TRIGGER)
    best = book.best(request.side)
    crosses = best is not None and (price - best) * request.side.sign >= 0
    if request.kind is Kind.LIMIT_MAKER and crosses:
        raise Refused(*refusals.WOULD_TAKE)


def triggered(request: OrderRequest, last: Decimal) -> bool:
    """Whether the last price sets off an order with a stop price."""
    beyond = (last - (request.stop_price or ZERO)) * request.side.sign
    return beyond <= 0 if request.kind.takes_profit else beyond >= 0


def base_quantity(book: SpotBook, request: OrderRequest) -> Decimal:
    """Return the base quantity; a market order by quote gets what the book gives for it."""
    if request.quantity is not None:
        return request.quantity
    quote, base = request.quote_quantity or ZERO, ZERO
    for offer in book.offers(request.side):
        taken = min(offer.quantity, quote / offer.price)
        base += taken
        quote -= taken * offer.price
        if not quote > 0:
            break
    step = book.rules.step_size
    base = (base / step).to_integral_value(ROUND_DOWN) * step
    if not base >= book.rules.min_quantity:
        raise Refused(*refusals.NO_LIQUIDITY)
    return base


def reserve(book: SpotBook, order: VenueOrder) -> None:
    """Hold back what an order may cost; raises Refused -2010 when there is too little."""
    request, rules = order.request, book.rules
    if order.side is Side.SELL:
        asset, amount = rules.base, order.quantity
    elif request.kind is Kind.MARKET:
        asset, amount = rules.quote, _cost(book, order)
    else:
        price = request.price or request.stop_price or ZERO
        asset, amount = rules.quote, order.quantity * price
    if not order.account.lock(asset, amount):
        raise Refused(*refusals.NO_FUNDS)
    order.locked, order.locked_asset = amount, asset


def _cost(book: SpotBook, order: VenueOrder) -> Decimal:
    """Return what a market buy would cost now."""
    left, cost = order.quantity, ZERO
    for offer in book.offers(order.side):
        if offer.resting is not None and offer.resting.account is order.account:
            continue
        taken = min(left, offer.quantity)
        cost += taken * offer.price
        left -= taken
        if not left > 0:
            break
    return cost
