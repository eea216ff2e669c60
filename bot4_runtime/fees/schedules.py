"""Fee tables by venue, market and date, and rates an account was told [compiled].

The authority at run time is the account (spot ``account/commission``, USD-M
``commissionRate``), and realised fees come from fills. These tables are the fallback:

* Spot until 2022-05-31 and from 2022-06-01: Binance announcement
  40669f3da342426c87b083b659673316 (VIP 4-9 at VIP 9 rates from 2022-06-01).
* Spot 2025: two third-party pages that agree (zb-binance.com, i-binance.com); not official,
  volume thresholds carried over from 2022. All sources agree up to VIP 2.
* USD-M: VIP 0-6 babianfox.com and i-binance.com; VIP 7-9 and the volume thresholds (in BTC)
  ccxt 4.5.90, ``binance`` fees.linear.
* BNB discount: 25 % of the standard part on spot, 10 % on USD-M (Binance fee page).
"""

import datetime as dt
from dataclasses import dataclass
from decimal import Decimal
from typing import Final

from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.errors import ConfigError, DataError
from bot4_runtime.domain.order import Liquidity, Side

SPOT_BNB_DISCOUNT: Final = Decimal("0.25")
USDM_BNB_DISCOUNT: Final = Decimal("0.10")
FEE_SIDES: Final = ("get", "give", "quote", "base")
"""In which asset a fee is taken: the one received, the one given, or always the same."""

EPOCH: Final = dt.date(1970, 1, 1)
_ZERO: Final = Decimal(0)
_MAKER: Final = Liquidity.MAKER
_BUY: Final = Side.BUY


@dataclass(frozen=True)
class Tier:
    """One row of a schedule. Rates are shares of the notional (0.001 = 0.1 %).

    Attributes:
        min_volume: 30-day volume from which it applies, in the schedule's `volume_unit`.
        min_bnb: BNB the account must hold.
    """

    name: str
    min_volume: Decimal
    min_bnb: Decimal
    maker: Decimal
    taker: Decimal


@dataclass(frozen=True)
class FeeSchedule:
    """What one venue charged on one market from a date on.

    Attributes:
        effective: first day, UTC.
        tiers: rising by volume; tier 0 has no conditions.
        volume_unit: what `Tier.min_volume` counts, such as ``USD`` or ``BTC``.
        bnb_discount: share of the standard rate that paying in BNB saves; 0 where it cannot.
        fee_side: one of `FEE_SIDES`.
        source: where the figures come from.
    """

    venue: str
    market: str
    effective: dt.date
    tiers: tuple[Tier, ...]
    volume_unit: str
    bnb_discount: Decimal
    fee_side: str
    source: str

    @property
    def effective_ms(self) -> int:
        """First moment, UTC."""
        return (self.effective - EPOCH).days * 86_400_000

    def tier_for(self, volume: Decimal, bnb: Decimal) -> int:
        """Return the highest tier whose conditions a volume and a BNB balance meet.

        Raises:
            DataError: the volume or the balance is negative or not a number.
        """
        if not (volume.is_finite() and bnb.is_finite() and volume >= 0 and bnb >= 0):
            raise DataError(f"no fee tier for volume {volume} and {bnb} BNB; expected both >= 0")
        reached = 0
        for number, tier in enumerate(self.tiers):
            if volume >= tier.min_volume and bnb >= tier.min_bnb:
                reached = number
        return reached


@dataclass(frozen=True)
class CommissionPart:
    """One part of an account's commission on a symbol, as shares of what is received."""

    maker: Decimal = _ZERO
    taker: Decimal = _ZERO
    buyer: Decimal = _ZERO
    seller: Decimal = _ZERO

    def rate(self, liquidity: Liquidity, side: Side) -> Decimal:
        """Return (maker or taker) + (buyer or seller)."""
        by_liquidity = self.maker if liquidity is _MAKER else self.taker
        return by_liquidity + (self.buyer if side is _BUY else self.seller)


@dataclass(frozen=True)
class SymbolCommission:
    """What the venue says an account pays on a symbol; the BNB discount is on `standard` only.

    Source: Binance spot documentation, ``GET /api/v3/account/commission``.

    Attributes:
        discount: what paying in BNB takes off the standard part, as the account was told
            (0.25 = a quarter off); None leaves it to the schedule and the settings.
    """

    standard: CommissionPart
    tax: CommissionPart
    special: CommissionPart
    discount: Decimal | None = None

    def rate(self, liquidity: Liquidity, side: Side, discount: Decimal) -> Decimal:
        """Return the share charged, the account's discount or else this one taken off.

        A rebate is no commission that could be discounted: it stays whole.
        """
        off = discount if self.discount is None else self.discount
        standard = self.standard.rate(liquidity, side)
        full = self.full_rate(liquidity, side)
        return full - standard * off if standard > _ZERO else full

    def full_rate(self, liquidity: Liquidity, side: Side) -> Decimal:
        """Return the share charged in another asset than BNB: no discount."""
        return (
            self.standard.rate(liquidity, side)
            + self.tax.rate(liquidity, side)
            + self.special.rate(liquidity, side)
        )


@dataclass(frozen=True)
class RebateProgramme:
    """Rates that replace the schedule's between two dates; a maker rate may be negative.

    Attributes:
        symbols: whom it covers; empty for all.
        from_ms: first moment, UTC.
        to_ms: first moment it no longer applies.
        source: the announcement.
    """

    name: str
    venue: str
    symbols: frozenset[str]
    from_ms: int
    to_ms: int
    maker: Decimal
    taker: Decimal
    source: str


_SPOT_CONDITIONS: Final = (
    ("0", "0"),
    ("1000000", "25"),
    ("5000000", "100"),
    ("20000000", "250"),
    ("120000000", "500"),
    ("200000000", "1000"),
    ("500000000", "1750"),
    ("1000000000", "3000"),
    ("2500000000", "4500"),
    ("5000000000", "5500"),
)
_USDM_CONDITIONS: Final = tuple(
    (volume, "0")
    for volume in "0 250 2500 7500 22500 50000 100000 200000 400000 750000".split()  # noqa: SIM905
)
_ANNOUNCED: Final = "Binance announcement 40669f3da342426c87b083b659673316"


def _schedule(
    market: Market,
    effective: dt.date,
    maker_pct: str,
    taker_pct: str,
    source: str,
) -> FeeSchedule:
    """Build a Binance schedule from rates in per cent, VIP 0 to VIP 9."""
    spot = market is Market.SPOT
    conditions = _SPOT_CONDITIONS if spot else _USDM_CONDITIONS
    makers, takers = maker_pct.split(), taker_pct.split()
    tiers = [
        Tier(
            name=f"VIP {number}",
            min_volume=Decimal(conditions[number][0]),
            min_bnb=Decimal(conditions[number][1]),
            maker=Decimal(makers[number]) / 100,
            taker=Decimal(takers[number]) / 100,
        )
        for number in range(len(conditions))
    ]
    return FeeSchedule(
        venue="binance",
        market=market.value,
        effective=effective,
        tiers=tuple(tiers),
        volume_unit="USD" if spot else "BTC",
        bnb_discount=SPOT_BNB_DISCOUNT if spot else USDM_BNB_DISCOUNT,
        fee_side="get" if spot else "quote",
        source=source,
    )


SPOT: Final = (
    _schedule(
        Market.SPOT,
        dt.date(2017, 7, 14),
        "0.10 0.09 0.08 0.07 0.07 0.06 0.05 0.04 0.03 0.02",
        "0.10 0.10 0.10 0.10 0.09 0.08 0.07 0.06 0.05 0.04",
        f"{_ANNOUNCED}: rates before the promotion",
    ),
    _schedule(
        Market.SPOT,
        dt.date(2022, 6, 1),
        "0.10 0.09 0.08 0.07 0.02 0.02 0.02 0.02 0.02 0.02",
        "0.10 0.10 0.10 0.10 0.04 0.04 0.04 0.04 0.04 0.04",
        f"{_ANNOUNCED}: VIP 4-9 at VIP 9 rates",
    ),
    _schedule(
        Market.SPOT,
        dt.date(2025, 1, 1),
        "0.100 0.090 0.080 0.042 0.042 0.036 0.030 0.024 0.018 0.012",
        "0.100 0.100 0.100 0.060 0.054 0.048 0.042 0.036 0.030 0.024",
        "zb-binance.com and i-binance.com, seen 2025 (third party); thresholds of 2022",
    ),
)
"""Binance spot schedules, oldest first."""

USDM: Final = (
    _schedule(
        Market.USDM,
        dt.date(2019, 9, 13),
        "0.0200 0.0160 0.0140 0.0120 0.0100 0.0080 0.0060 0.0040 0.0020 0.0000",
        "0.0500 0.0400 0.0350 0.0320 0.0300 0.0270 0.0250 0.0220 0.0200 0.0170",
        "babianfox.com and i-binance.com (VIP 0-6), ccxt 4.5.90 (VIP 7-9, thresholds in BTC)",
    ),
)
"""Binance USD-M schedules, oldest first."""


def binance_schedule(market: Market, day: dt.date | None = None) -> FeeSchedule:
    """Return Binance's fallback schedule on a day (UTC), the newest by default.

    Raises:
        DataError: the day is before the first schedule we know.
    """
    known = SPOT if market is Market.SPOT else USDM
    if day is None:
        return known[-1]
    in_force = [schedule for schedule in known if schedule.effective <= day]
    if not in_force:
        raise DataError(
            f"no Binance {market.value} fees known on {day}; the first are of {known[0].effective}"
        )
    return in_force[-1]


def binance_schedules(market: Market, day: dt.date) -> tuple[FeeSchedule, ...]:
    """Return Binance's fallback schedule on a day (UTC), and those that came after it.

    Before the first we know, as in a simulated past, the first counts.
    """
    known = SPOT if market is Market.SPOT else USDM
    past = sum(schedule.effective <= day for schedule in known)
    return known[max(past - 1, 0) :]


def check_tier(schedule: FeeSchedule, tier: int) -> None:
    """Refuse a tier the schedule does not have.

    Raises:
        ConfigError: it does not.
    """
    if not 0 <= tier < len(schedule.tiers):
        raise ConfigError(
            f"{schedule.venue} {schedule.market} has no fee tier {tier}; "
            f"expected 0 to {len(schedule.tiers) - 1}"
        )
