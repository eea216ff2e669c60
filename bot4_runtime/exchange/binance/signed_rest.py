"""Signed questions over REST, by the venue's time as it is known.

Nothing is signed before that time is known. A question whose timestamp was wrong was not looked
at, and is asked once more after the time was learnt again.
"""

from collections.abc import Mapping
from typing import Final

from bot4_runtime.domain.errors import OutcomeUnknown, VenueRefused, VenueUnreachable
from bot4_runtime.exchange.binance.failures import Refusal
from bot4_runtime.exchange.binance.http_connection import HttpConnection
from bot4_runtime.exchange.binance.limits import Lane
from bot4_runtime.exchange.binance.messages import ServerTime, read_answer
from bot4_runtime.exchange.binance.signing import Signer, VenueClock

INVALID_TIMESTAMP: Final = "-1021"

Parameters = Mapping[str, str | int]


class SignedRest:
    """Asks for one account.

    Args:
        http: the way.
        signer: of the account.
        clock: the venue's, as well as it is known.
        time_path: of the venue's clock.
        window_ms: how long after its signature a request may be taken.
    """

    def __init__(
        self,
        http: HttpConnection,
        signer: Signer,
        clock: VenueClock,
        *,
        time_path: str,
        window_ms: int,
    ) -> None:
        self._http = http
        self._signer = signer
        self._clock = clock
        self._time_path = time_path
        self._window_ms = window_ms
        self._headers = {"X-MBX-APIKEY": signer.api_key}

    def clock_error_ms(self) -> float:
        """Return how far the venue's time as we know it may have been off when it was learnt."""
        return self._clock.error_ms

    def server_time_ms(self) -> int:
        """Return the venue's clock."""
        body = self._http.get(self._time_path, "", {})
        return read_answer(body, ServerTime, "the venue's time").serverTime

    def _ask(self, path: str, parameters: Parameters, lane: Lane = Lane.REDUCE) -> bytes:
        """Make a signed question; a wrong timestamp is put right once."""
        try:
            return self._http.get(path, self._signed(parameters), self._headers, lane)
        except Refusal as error:
            if error.code != INVALID_TIMESTAMP:
                raise
            self._clock.doubt()
            return self._http.get(path, self._signed(parameters), self._headers, lane)

    def _signed(self, parameters: Parameters) -> str:
        self._in_time()
        stamp = {"recvWindow": self._window_ms, "timestamp": self._clock.now_ms()}
        return self._signer.query({**parameters, **stamp})

    def _in_time(self) -> None:
        """Know the venue's time before anything is signed."""
        if not self._clock.synchronised:
            try:
                self._clock.synchronise(self.server_time_ms)
            except (OutcomeUnknown, VenueRefused) as error:
                raise VenueUnreachable(
                    f"no time from the venue, nothing was sent: {error}"
                ) from error
