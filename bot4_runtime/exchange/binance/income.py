"""What a USD-M account earned and paid beside its trades, read page by page.

Rows come oldest first from a time on, a thousand at most, and two pages may share the rows of one
millisecond; each has a number that is unique among rows of its kind. A question spans a week,
which is what the venue tells where no time is named; three months back it tells nothing any more.
Source: Binance's USD-M documentation, "Get Income History", as of 2026-05-28.
"""

from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Annotated, Final

import msgspec

from bot4_runtime.domain.errors import DataError, OutcomeUnknown
from bot4_runtime.exchange.binance.account import PAGE
from bot4_runtime.exchange.binance.futures_messages import finite
from bot4_runtime.exchange.binance.meaning import meant
from bot4_runtime.exchange.binance.messages import Milliseconds, Name, read_answer
from bot4_runtime.exchange.protocols import VenueFunding

PATH: Final = "/fapi/v1/income"
KIND: Final = "FUNDING_FEE"
SPAN_MS: Final = 7 * 86_400_000
"""The longest time that one question is about."""
KEPT_MS: Final = 90 * 86_400_000
"""How far back the venue tells."""


class IncomeFields(msgspec.Struct, rename="camel"):
    """A row of `GET /fapi/v1/income`; its number is written as a number or as a text."""

    symbol: Name
    income_type: Name
    income: Decimal
    asset: Name
    time: Milliseconds
    tran_id: int | Annotated[str, msgspec.Meta(pattern=r"^[0-9]{1,20}$")]

    def meaning(self) -> VenueFunding:
        """Return it as the engine knows fundings; raises DataError."""
        if self.income_type != KIND:
            raise DataError(f"income of type {self.income_type[:40]}, asked for was {KIND}")
        return VenueFunding(
            symbol=self.symbol,
            asset=self.asset,
            amount=finite(self.income),
            transaction_id=int(self.tran_id),
            time_ms=self.time,
        )


class FundingHistory:
    """Reads fundings.

    Args:
        ask: makes a signed question of a path and its parameters, and returns the answer's body.
        page: how many rows are asked for at a time.
    """

    def __init__(
        self, ask: Callable[[str, Mapping[str, str | int]], bytes], page: int = PAGE
    ) -> None:
        self._ask = ask
        self._page = page

    def read(self, from_ms: int, to_ms: int) -> list[VenueFunding]:
        """Return all fundings from a time on, oldest first, each once.

        Args:
            from_ms: the first time, of the venue.
            to_ms: the present; what came after it is told as well.

        Raises:
            VenueUnreachable, VenueRefused, OutcomeUnknown: not all of them could be read.
        """
        found: dict[tuple[str, int], VenueFunding] = {}
        start_ms = max(from_ms, to_ms - KEPT_MS, 0)
        while True:
            asked: dict[str, str | int] = {
                "incomeType": KIND,
                "startTime": start_ms,
                "limit": self._page,
            }
            end_ms = start_ms + SPAN_MS - 1
            if end_ms < to_ms:
                asked["endTime"] = end_ms
            rows = [
                meant(row)
                for row in read_answer(self._ask(PATH, asked), list[IncomeFields], "fundings")
            ]
            times = [start_ms, *(row.time_ms for row in rows)]
            if times != sorted(times) or ("endTime" in asked and times[-1] > end_ms):
                raise OutcomeUnknown(
                    f"asked for fundings from {start_ms} on, the venue told others, or told them "
                    "in another order"
                )
            found |= {(row.symbol, row.transaction_id): row for row in rows}
            if len(rows) >= self._page:
                if times[-1] == start_ms:
                    raise OutcomeUnknown(
                        f"the venue told {len(rows)} fundings of one millisecond, {start_ms}; "
                        "there may be more"
                    )
                start_ms = times[-1]
            elif "endTime" in asked:
                start_ms = end_ms + 1
            else:
                return list(found.values())
