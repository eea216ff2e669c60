"""The way of an order to Binance: the WebSocket API first, REST where it is closed.

Both ways carry the same client id. REST is taken only when the line says that surely nothing was
sent; when it does not know, the order is unknown and asked for, never sent again. No new order
goes out once the lease ran out, whichever way.
"""

from collections.abc import Callable, Mapping
from typing import Final

from bot4_runtime.domain.errors import VenueUnreachable
from bot4_runtime.exchange.binance.http_connection import HttpConnection
from bot4_runtime.exchange.binance.limits import Lane
from bot4_runtime.exchange.binance.order_line import OrderLine

SPOT_REST: Final = {
    "order.place": ("POST", "/api/v3/order"),
    "order.cancel": ("DELETE", "/api/v3/order"),
    "order.cancelReplace": ("POST", "/api/v3/order/cancelReplace"),
    "order.amend.keepPriority": ("PUT", "/api/v3/order/amend/keepPriority"),
    "orderList.place.oco": ("POST", "/api/v3/orderList/oco"),
}
"""Methods of the WebSocket API of spot, and what they are called in REST."""
USDM_REST: Final = {
    "order.place": ("POST", "/fapi/v1/order"),
    "order.cancel": ("DELETE", "/fapi/v1/order"),
    "algoOrder.place": ("POST", "/fapi/v1/algoOrder"),
    "algoOrder.cancel": ("DELETE", "/fapi/v1/algoOrder"),
}
"""The same of USD-M."""
PLACES: Final = frozenset(
    {"order.place", "order.cancelReplace", "orderList.place.oco", "algoOrder.place"}
)
"""Those that bring new orders about, which a lease must allow."""

Parameters = Mapping[str, str | int]


class OrderEntry:
    """Sends requests about orders, each once.

    Args:
        http: the way by REST.
        line: the way by the WebSocket API; None for none.
        rest: methods of the WebSocket API, and what they are called in REST.
        signed: returns parameters with time and signature; raises VenueUnreachable when the
            venue's time is not known.
        in_time: makes sure that the venue's time is known; raises as `signed` does.
        headers: of REST.
        may_send: asked last of all before a new order is sent; None allows all.
    """

    def __init__(
        self,
        http: HttpConnection,
        line: OrderLine | None,
        *,
        rest: Mapping[str, tuple[str, str]],
        signed: Callable[[Parameters], str],
        in_time: Callable[[], None],
        headers: Mapping[str, str],
        may_send: Callable[[], bool] | None,
    ) -> None:
        self.http = http
        self._line = line
        self._rest = rest
        self._signed = signed
        self._in_time = in_time
        self._headers = headers
        self._may_send = may_send

    def send(self, method: str, parameters: Parameters, lane: Lane) -> bytes:
        """Send a request, once.

        Args:
            method: of the WebSocket API, one that has a name in REST.
            parameters: without time, key and signature.
            lane: what for.

        Returns:
            The answer, JSON.

        Raises:
            VenueUnreachable: it surely was not sent, either way.
            VenueRefused: the venue said no.
            OutcomeUnknown: it may have been carried out.
        """
        allowed = self._may_send if method in PLACES else None
        if self._line is not None and self._line.ready():
            self._in_time()
            try:
                return self._line.call(method, parameters, lane, allowed)
            except VenueUnreachable:
                pass  # surely not sent: REST may carry it
        verb, path = self._rest[method]
        signed = self._signed(parameters)
        if allowed is not None and not allowed():
            name = parameters.get("newClientOrderId", parameters.get("clientAlgoId", method))
            raise VenueUnreachable(f"the lease ran out before order {name} could be sent")
        if verb == "DELETE":
            return self.http.delete(path, signed, self._headers)
        return self.http.send(verb, path, signed, self._headers, lane)
