"""What the venue tells an account of its own commission: the authority at run time [compiled].

Reads the answers of Binance's spot ``GET /api/v3/account/commission`` and USD-M
``GET /fapi/v1/commissionRate``. Their ``discount`` is what the standard part is *multiplied*
with when fees are paid in BNB: Binance's "Commission Rates" page calculates so, and its
connectors say ``0.75 = 75% of the standard commission is charged``.
"""

from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from typing import Final

from bot4_runtime.domain.errors import DataError
from bot4_runtime.fees.schedules import CommissionPart, SymbolCommission

_ZERO: Final = Decimal(0)
_NOTHING: Final = CommissionPart()


def spot_commission(answer: Mapping[str, object]) -> SymbolCommission:
    """Read a spot account's commission on one symbol.

    Raises:
        DataError: a part is missing or no share of the notional.
    """
    return SymbolCommission(
        standard=_part(answer, "standardCommission"),
        tax=_part(answer, "taxCommission"),
        special=_part(answer, "specialCommission") if "specialCommission" in answer else _NOTHING,
        discount=_discount(answer.get("discount")),
    )


def usdm_commission(answer: Mapping[str, object]) -> SymbolCommission:
    """Read a USD-M account's commission on one symbol; it knows maker and taker only.

    Raises:
        DataError: a rate is missing or no share of the notional.
    """
    rates = CommissionPart(
        maker=_share(answer, "makerCommissionRate"), taker=_share(answer, "takerCommissionRate")
    )
    return SymbolCommission(rates, _NOTHING, _NOTHING)


def _part(answer: Mapping[str, object], name: str) -> CommissionPart:
    part = answer.get(name)
    if not isinstance(part, Mapping):
        raise DataError(f"the account's commission has no {name}: {part!r}; expected its rates")
    return CommissionPart(
        maker=_share(part, "maker"),
        taker=_share(part, "taker"),
        buyer=_share(part, "buyer"),
        seller=_share(part, "seller"),
    )


def _discount(told: object) -> Decimal:
    """Return the share taken off; 0 where it is not enabled for both account and symbol."""
    if not isinstance(told, Mapping):
        return _ZERO
    if told.get("enabledForAccount") is not True or told.get("enabledForSymbol") is not True:
        return _ZERO
    return 1 - _share(told, "discount", most=Decimal(1))


def _share(part: Mapping[str, object], name: str, most: Decimal | None = None) -> Decimal:
    told = part.get(name)
    try:
        share = Decimal(told) if isinstance(told, str) else None
    except InvalidOperation:
        share = None
    least = Decimal(-1) if most is None else _ZERO
    if share is None or not share.is_finite() or not least <= share <= (most or Decimal(1)):
        raise DataError(f"the account's {name} is {told!r}; expected a share such as '0.00100000'")
    return share
