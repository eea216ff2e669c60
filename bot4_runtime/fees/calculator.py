"""What a fill costs, exactly, and what an order will cost, quickly [compiled].

Booked fees are Decimal; estimates before a trade are float64. Rates are cached by symbol and
liquidity, amounts never; whatever changes a rate (tier, programme, account) drops the cache.
"""

from collections.abc import Sequence
from decimal import ROUND_DOWN, Decimal
from typing import Final

from bot4_runtime.domain.errors import DataError
from bot4_runtime.domain.order import Liquidity, Side
from bot4_runtime.fees.schedules import (
    CommissionPart,
    FeeSchedule,
    RebateProgramme,
    SymbolCommission,
    check_tier,
)
from bot4_runtime.fees.volume import VolumeTracker

FEE_STEP: Final = Decimal("0.00000001")
"""Binance states commissions with eight decimals; what is below is cut."""

BNB: Final = "BNB"
_INFINITY: Final = float("inf")
_MAKER: Final = Liquidity.MAKER
_TAKER: Final = Liquidity.TAKER
_BUY: Final = Side.BUY
_SELL: Final = Side.SELL
_ZERO: Final = Decimal(0)
_NOTHING: Final = CommissionPart()


class FeeCalculator:
    """Fees of one account at one venue.

    Whether a fill was maker or taker is the fill's own fact; a limit order that crosses is a
    taker. With the BNB discount and a BNB price the fee is stated in BNB; without a price the
    discounted fee is taken from the asset the venue takes fees in, which costs the same.

    Args:
        schedule: the fallback table.
        tier: its row, 0 = VIP 0.
        bnb_discount: the account pays fees in BNB.
        programmes: dated rebates; the first that covers a symbol counts.

    Raises:
        ConfigError: the schedule has no such tier.

    Examples:
        >>> from bot4_runtime.domain.candle import Market
        >>> from bot4_runtime.fees.schedules import binance_schedule
        >>> fees = FeeCalculator(binance_schedule(Market.SPOT))
        >>> fees.estimate(1000.0, Liquidity.TAKER)
        1.0
        >>> fees.exact(
        ...     Decimal(100), Decimal(2), Liquidity.TAKER, Side.BUY, "ETH", "USDT"
        ... )
        (Decimal('0.00200000'), 'ETH')
    """

    def __init__(
        self,
        schedule: FeeSchedule,
        tier: int = 0,
        bnb_discount: bool = False,  # noqa: FBT001, FBT002 - one of three settings in order
        programmes: Sequence[RebateProgramme] = (),
    ) -> None:
        check_tier(schedule, tier)
        self._schedule: Final = schedule
        self._venue: Final = schedule.venue
        self._buy_in_base: Final = schedule.fee_side in {"get", "base"}
        self._sell_in_base: Final = schedule.fee_side in {"give", "base"}
        self._tier = tier
        self._discount: Final = schedule.bnb_discount if bnb_discount else _ZERO
        self._programmes: Final = tuple(
            programme for programme in programmes if programme.venue == schedule.venue
        )
        self._running: tuple[RebateProgramme, ...] = ()
        self._account: dict[str, SymbolCommission] = {}
        self._volume: Final = VolumeTracker()
        self._day = -1
        self._commissions: dict[str, SymbolCommission] = {}
        self._maker_rates: dict[str, float] = {}
        self._taker_rates: dict[str, float] = {}
        self._exact_rates: list[dict[str, Decimal]] = []
        self._hits = 0
        self._misses = 0
        self._maker = 0.0
        self._taker = 0.0
        self._drop_rates()

    # ---------------------------------------------------------------- estimates
    @property
    def venue(self) -> str:
        """The venue whose fees these are."""
        return self._schedule.venue

    @property
    def tier(self) -> int:
        """The tier in force."""
        return self._tier

    @property
    def hit_rate(self) -> float | None:
        """Share of `rate` calls the cache answered; None before the first."""
        calls = self._hits + self._misses
        return self._hits / calls if calls else None

    def counters(self) -> dict[str, int]:
        """Return ``rate_hits`` and ``rate_misses`` of the cache."""
        return {"rate_hits": self._hits, "rate_misses": self._misses}

    def rate(self, venue: str, symbol: str, liquidity: Liquidity) -> float:
        """Return the share of the notional a symbol costs, discount and programme included.

        Where buying and selling are charged differently, the dearer of the two.

        Raises:
            DataError: the calculator does not know the venue.
        """
        if venue is not self._venue and venue != self._venue:
            raise DataError(
                f"fees of {venue!r} asked of a calculator for {self._schedule.venue!r}"
            )
        rates = self._maker_rates if liquidity is _MAKER else self._taker_rates
        known = rates.get(symbol)
        if known is not None:
            self._hits += 1
            return known
        self._misses += 1
        commission = self._commission(symbol)
        rate = float(
            max(
                commission.rate(liquidity, _BUY, self._discount),
                commission.rate(liquidity, _SELL, self._discount),
            )
        )
        rates[symbol] = rate
        return rate

    def estimate(self, notional: float, liquidity: Liquidity) -> float:
        """Return what a notional costs at the schedule's rates, in the notional's asset.

        Raises:
            DataError: the notional is negative or not finite.
        """
        if not 0.0 <= notional < _INFINITY:
            raise DataError(f"no fee for notional {notional}; expected a finite number >= 0")
        if liquidity is _TAKER:
            return notional * self._taker
        return notional * self._maker

    # -------------------------------------------------------------------- exact
    def exact(
        self,
        price: Decimal,
        quantity: Decimal,
        liquidity: Liquidity,
        side: Side,
        base: str,
        quote: str,
        bnb_price: Decimal | None = None,
    ) -> tuple[Decimal, str]:
        """Return the fee of one fill and the asset it is taken in; negative when rebated.

        Spot takes it from the asset received: base on a buy, quote on a sell. USD-M takes
        quote.

        Args:
            price: in quote, positive.
            quantity: in base, positive.
            liquidity: how this fill happened.
            side: the order's.
            base: asset bought or sold.
            quote: asset paid with.
            bnb_price: price of one BNB in quote, to state a discounted fee in BNB.

        Raises:
            DataError: a price or the quantity is not positive and finite.
        """
        _check_positive("price", price)
        _check_positive("quantity", quantity)
        maker, buy = liquidity is _MAKER, side is _BUY
        rates = self._exact_rates[(0 if maker else 2) + (0 if buy else 1)]
        symbol = base + quote
        rate = rates.get(symbol)
        if rate is None:
            rate = self._commission(symbol).rate(liquidity, side, self._discount)
            rates[symbol] = rate
        if bnb_price is not None and self._discounted(symbol):
            _check_positive("BNB price", bnb_price)
            fee, asset = price * quantity * rate / bnb_price, BNB
        elif self._buy_in_base if buy else self._sell_in_base:
            fee, asset = quantity * rate, base
        else:
            fee, asset = price * quantity * rate, quote
        return fee.quantize(FEE_STEP, ROUND_DOWN), asset

    # ------------------------------------------------------------ what changes it
    def set_tier(self, tier: int) -> None:
        """Move to another tier and forget the rates of the old one.

        Raises:
            ConfigError: the schedule has no such tier.
        """
        check_tier(self._schedule, tier)
        if tier != self._tier:
            self._tier = tier
            self._drop_rates()

    def set_account_commission(self, symbol: str, commission: SymbolCommission) -> None:
        """Take the venue's own word on a symbol; it goes before schedule and programmes."""
        self._account[symbol] = commission
        self._drop_rates()

    def record_volume(self, ts_ms: int, volume: Decimal) -> None:
        """Count a fill towards the tier, in the schedule's volume unit.

        Raises:
            DataError: the volume is negative or not a number, or out of order.
        """
        self._volume.add(ts_ms, volume)

    def advance(self, now_ms: int, bnb_balance: Decimal | None = None) -> bool:
        """Move to a moment: programmes start and end, and each UTC day may set the tier.

        Args:
            now_ms: UTC.
            bnb_balance: what the account holds; None keeps the tier as configured.

        Returns:
            Whether a rate may have changed.
        """
        running = tuple(
            programme
            for programme in self._programmes
            if programme.from_ms <= now_ms < programme.to_ms
        )
        tier, day = self._tier, now_ms // 86_400_000
        if bnb_balance is not None and day != self._day:
            self._day = day
            tier = self._schedule.tier_for(self._volume.total(now_ms), bnb_balance)
        if tier == self._tier and running == self._running:
            return False
        self._tier = tier
        self._running = running
        self._drop_rates()
        return True

    # ------------------------------------------------------------------ internal
    def _commission(self, symbol: str) -> SymbolCommission:
        known = self._commissions.get(symbol)
        if known is None:
            known = self._account.get(symbol)
            if known is None:
                known = self._scheduled(symbol)
            self._commissions[symbol] = known
        return known

    def _discounted(self, symbol: str) -> bool:
        told = self._commission(symbol).discount
        return (self._discount if told is None else told) > 0

    def _scheduled(self, symbol: str) -> SymbolCommission:
        row = self._schedule.tiers[self._tier]
        maker, taker = row.maker, row.taker
        for programme in self._running:
            if not programme.symbols or symbol in programme.symbols:
                maker, taker = programme.maker, programme.taker
                break
        return SymbolCommission(CommissionPart(maker, taker), _NOTHING, _NOTHING)

    def _drop_rates(self) -> None:
        self._commissions = {}
        self._maker_rates = {}
        self._taker_rates = {}
        self._exact_rates = [{}, {}, {}, {}]  # maker buy, maker sell, taker buy, taker sell
        row = self._scheduled("")
        self._maker = float(row.rate(_MAKER, _BUY, self._discount))
        self._taker = float(row.rate(_TAKER, _BUY, self._discount))


def _check_positive(what: str, value: Decimal) -> None:
    if not (value.is_finite() and value > _ZERO):
        raise DataError(f"no fee for {what} {value}; expected a finite number > 0")
