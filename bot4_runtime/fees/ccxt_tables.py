"""Fee tables out of ccxt's own metadata, for every exchange it knows [compiled].

A fallback like all tables: ccxt states them by hand, some in per cent, some in the wrong row.
What no venue charges is refused with the reason; the account's own rates go before them.
"""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Final

from bot4_runtime.domain.errors import DataError
from bot4_runtime.fees.schedules import EPOCH, FEE_SIDES, FeeSchedule, Tier

LEAST_RATE: Final = Decimal("-0.005")
MOST_RATE: Final = Decimal("0.03")
"""What a venue's rate may be to be believed from foreign metadata: half a per cent of rebate to
three per cent of fee. ccxt 4.5.90 has 0.1 for weex's 0.1 % and -0.02 for -0.02 % of gate. Its
0.02 for cryptomus cannot be told from the two per cent that bit2c charges: dear, never cheap."""

DERIVATIVES: Final = frozenset(
    {"contract", "delivery", "future", "inverse", "linear", "option", "perpetual", "swap"}
)
"""ccxt's names of markets that are settled instead of exchanged."""
INVERSE: Final = frozenset({"delivery", "inverse"})
"""Those among them that are settled in the coin."""

_ZERO: Final = Decimal(0)


def ccxt_schedules(venue: str, fees: Mapping[str, object]) -> dict[str, FeeSchedule]:
    """Read every table of rates in the metadata that ccxt carries for an exchange.

    Args:
        venue: the exchange's ccxt id.
        fees: ``exchange.fees``.

    Returns:
        Schedules by market as ccxt names it (``spot``, ``linear``, ``swap`` …); ``trading`` is
        what it states for all.

    Raises:
        DataError: it states no usable rates; the message says why, table by table.
    """
    found: dict[str, FeeSchedule] = {}
    reasons: list[str] = []
    trading = fees.get("trading")
    stated = trading.get("feeSide") if isinstance(trading, Mapping) else None
    for market, table in _tables("", fees):
        try:
            found[market] = ccxt_schedule(venue, market, {"feeSide": stated, **_told(table)})
        except DataError as error:
            reasons.append(str(error))
    if not found:
        raise DataError("; ".join(reasons) or f"ccxt carries no fees of {venue}")
    return found


def _told(table: Mapping[str, object]) -> dict[str, object]:
    return {name: value for name, value in table.items() if value is not None}


def _tables(path: str, part: Mapping[str, object]) -> list[tuple[str, Mapping[str, object]]]:
    """Return the tables within ccxt's metadata that name a maker or taker, with their market."""
    found: list[tuple[str, Mapping[str, object]]] = []
    if "maker" in part or "taker" in part:
        found.append((path or "trading", part))
    for name, inner in part.items():
        if isinstance(inner, Mapping) and name != "tiers":
            found.extend(_tables(path if path and name == "trading" else name, inner))
    return found


def ccxt_schedule(venue: str, market: str, trading: Mapping[str, object]) -> FeeSchedule:
    """Read one table of rates of ccxt.

    Where the fee is taken follows ccxt's ``calculate_fee``. A contract's is taken in what it
    settles in, whatever ``feeSide`` says: quote, but the coin in an inverse one. A spot table
    that is silent takes quote on both sides. Some such venues take what is received and others
    quote; a wrong guess books the right value in the wrong asset, and one rule, ccxt's own, is
    better than a guess for each venue. A table may serve more than one market: read it as
    ``swap`` for its linear and as ``inverse`` for its inverse contracts.

    Tiers end before the first at which a rate rises with volume: what follows is stated in
    another unit (ccxt 4.5.90: kucoin's contracts) or in the wrong row (krakenfutures, bitstamp).

    Args:
        venue: the exchange's ccxt id.
        market: ccxt's name of the market, such as ``spot`` or ``swap``.
        trading: ``exchange.fees["trading"]``, or one market's part such as
            ``exchange.fees["linear"]["trading"]``.

    Raises:
        DataError: ccxt states no rates, or not as shares of the notional.
    """
    maker, taker = trading.get("maker"), trading.get("taker")
    if maker is None or taker is None or trading.get("percentage") is False:
        raise DataError(
            f"ccxt states no maker and taker share for {venue} {market} "
            f"(maker {maker!r}, taker {taker!r}); give the account's own rates"
        )
    side = str(trading.get("feeSide") or "quote")
    if market in DERIVATIVES:
        side = "base" if market in INVERSE else "quote"
    if side not in FEE_SIDES:
        raise DataError(
            f"{venue} charges fees in {side!r}; expected one of {', '.join(FEE_SIDES)}"
        )
    tiers = [Tier("tier 0", _ZERO, _ZERO, _number(maker), _number(taker))]
    table = trading.get("tiers")
    if isinstance(table, Mapping):
        makers, takers = _rows(table.get("maker")), _rows(table.get("taker"))
        for volume in sorted((makers.keys() | takers.keys()) - {_ZERO}):
            before = tiers[-1]
            tier = Tier(
                name=f"tier {len(tiers)}",
                min_volume=volume,
                min_bnb=_ZERO,
                maker=makers.get(volume, before.maker),
                taker=takers.get(volume, before.taker),
            )
            if tier.maker > before.maker or tier.taker > before.taker:
                break
            tiers.append(tier)
    return FeeSchedule(
        venue=venue,
        market=market,
        effective=EPOCH,
        tiers=tuple(tiers),
        volume_unit="as ccxt states it",
        bnb_discount=_ZERO,
        fee_side=side,
        source=f"ccxt metadata of {venue}",
    )


def _number(value: object) -> Decimal:
    if isinstance(value, int | float | str):
        number = Decimal(str(value))
        if number.is_finite() and LEAST_RATE <= number <= MOST_RATE:
            return number
    raise DataError(
        f"fee rate {value!r} is no share that a venue charges; expected {LEAST_RATE} to "
        f"{MOST_RATE} (ccxt states some in per cent); give the account's own rates"
    )


def _rows(rows: object) -> dict[Decimal, Decimal]:
    """Return rates by volume, up to the first that no venue charges: later ones are less safe."""
    found: dict[Decimal, Decimal] = {}
    if isinstance(rows, Sequence):
        for row in rows:
            try:
                found[Decimal(str(row[0])).normalize()] = _number(row[1])
            except DataError:
                break
    return found
