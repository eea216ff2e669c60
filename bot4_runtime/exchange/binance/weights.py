"""What Binance counts for a request: weight of the address, and new orders of the account.

Sources: binance-spot-api-docs at a5e0bc3 (2026-07-17), USD-M documentation as of 2026-05-28.
On spot, orders and cancels that succeed cost no weight since 2026-04-02; they are counted as if
they failed, and the venue's own count corrects it.
"""

from typing import Final, NamedTuple


class Cost(NamedTuple):
    """Of one request."""

    weight: int = 1
    orders: int = 0


COSTS: Final = {
    "GET /api/v3/exchangeInfo": Cost(20),
    "GET /api/v3/account": Cost(20),
    "GET /api/v3/account/commission": Cost(20),
    "GET /api/v3/openOrders": Cost(80),
    "GET /api/v3/order": Cost(4),
    "GET /api/v3/orderList": Cost(4),
    "GET /api/v3/myTrades": Cost(20),
    "GET /api/v3/klines": Cost(2),
    "POST /api/v3/order": Cost(1, 1),
    "POST /api/v3/order/cancelReplace": Cost(1, 1),
    "POST /api/v3/orderList/oco": Cost(1, 2),
    "PUT /api/v3/order/amend/keepPriority": Cost(4),
    "POST /fapi/v1/order": Cost(1, 1),
    "POST /fapi/v1/algoOrder": Cost(1, 1),
    "POST /fapi/v1/countdownCancelAll": Cost(10),
    "GET /fapi/v1/openOrders": Cost(40),
    "GET /fapi/v1/openAlgoOrders": Cost(40),
    "GET /fapi/v1/userTrades": Cost(5),
    "GET /fapi/v3/balance": Cost(5),
    "GET /fapi/v3/positionRisk": Cost(5),
    "GET /fapi/v3/account": Cost(5),
    "GET /fapi/v1/accountConfig": Cost(5),
    "GET /fapi/v1/symbolConfig": Cost(5),
    "GET /fapi/v1/positionSide/dual": Cost(30),
    "GET /fapi/v1/premiumIndex": Cost(10),
    "algoOrder.place": Cost(1, 1),
    "order.place": Cost(1, 1),
    "order.cancelReplace": Cost(1, 1),
    "orderList.place.oco": Cost(1, 2),
    "order.amend.keepPriority": Cost(4),
    "session.logon": Cost(2),
    "userDataStream.subscribe.signature": Cost(2),
}
"""By method and path of REST, or by method of the WebSocket API."""
LEAST: Final = Cost()


def cost(call: str) -> Cost:
    """Return what a call costs; one that is not listed costs the least."""
    return COSTS.get(call, LEAST)
