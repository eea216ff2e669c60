"""What a fill costs, exactly, and what an order will cost, quickly [compiled].

Booked fees are Decimal; estimates before a trade are float64. Rates are cached by symbol and
liquidity, amounts never; whatever changes a rate (tier, schedule, programme, account) drops the
cache.

In a run the dated schedules and the tier from volume are at work (`fees.tier`). Two things wait
for whoever connects an account: `FeeCalculator.set_account_commission` for the venue's own word
on a symbol (`fees.account` reads it), and programmes, which no setting gives yet.
"""

from collections.abc import Sequence
from decimal import ROUND_DOWN, Decimal
from typing import Final

from bot4_runtime.domain.errors import ConfigError, DataError
from bot4_runtime.domain.order import Liquidity, Side
from bot4_runtime.fees.schedules import (
    CommissionPart,
    FeeSchedule,
    RebateProgramme,
    SymbolCommission,
    check_tier,
)
from bot4_runtime.fees.volume import MS_PER_DAY, VolumeTracker

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
    taker. Estimates and rates are those of an account that pays in BNB where `bnb_discount`
    says so; an exact fee has the discount only where it is taken in BNB.

    Args:
        schedule: the fallback table.
        tier: its row, 0 = VIP 0; volume may raise it and never falls below it.
        bnb_discount: the account pays fees in BNB.
        programmes: dated rebates; the first that covers a symbol counts.
        later: schedules that follow, by date; `advance` moves to them.
        now_ms: UTC; the moment it begins at, needed with programmes.

    Raises:
        ConfigError: a schedule has no such tier, or programmes were given without a moment.

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
        later: Sequence[FeeSchedule] = (),
        now_ms: int | None = None,
    ) -> None:
        for table in (schedule, *later):
            check_tier(table, tier)
        self._schedule = schedule
        self._later = tuple(sorted(later, key=lambda table: table.effective))
        self._venue: Final = schedule.venue
        self._tier = tier
        self._floor = tier
        self._pays_in_bnb: Final = bnb_discount
        self._discount = _ZERO
        self._buy_in_base = False
        self._sell_in_base = False
        self._programmes: Final = tuple(
            programme for programme in programmes if programme.venue == schedule.venue
        )
        self._running: tuple[RebateProgramme, ...] = ()
        self._account: dict[str, SymbolCommission] = {}
        self._volume: Final = VolumeTracker()
        self._day = -1
        self._next_ms = 0
        self._commissions: dict[str, SymbolCommission] = {}
        self._maker_rates: dict[str, float] = {}
        self._taker_rates: dict[str, float] = {}
        self._exact_rates: list[dict[str, Decimal]] = []
        self._bnb_rates: list[dict[str, Decimal]] = []
        self._hits = 0
        self._misses = 0
        self._maker = 0.0
        self._taker = 0.0
        self._drop_rates()
        if now_ms is not None:
            self.advance(now_ms)
        elif self._programmes:
            raise ConfigError(
                f"programme {self._programmes[0].name!r} was given without a moment to begin at; "
                "give now_ms, and call advance as time goes on"
            )

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
    def volume_unit(self) -> str:
        """What `record_volume` counts, such as ``USD`` or ``BTC``."""
        return self._schedule.volume_unit

    def moves(self, bnb_balance: Decimal) -> bool:
        """Whether `advance` can change anything for an account that holds so many BNB."""
        higher = self._schedule.tiers[self._floor + 1 :]
        return (
            bool(self._later)
            or bool(self._programmes)
            or any(tier.min_bnb <= bnb_balance for tier in higher)
        )

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

        It knows no symbol: what the account was told of one, and programmes for some, are in
        `rate`.

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
        symbol: str = "",
    ) -> tuple[Decimal, str]:
        """Return the fee of one fill and the asset it is taken in; negative when rebated.

        Spot takes it from the asset received: base on a buy, quote on a sell. USD-M takes
        quote. Without a BNB price the account has none to pay with: the full rate is taken, as
        Binance does. A rebate is credited where a fee without BNB would be taken.

        Args:
            price: in quote, positive.
            quantity: in base, positive.
            liquidity: how this fill happened.
            side: the order's.
            base: asset bought or sold.
            quote: asset paid with.
            bnb_price: price of one BNB in quote, to take a discounted fee in BNB.
            symbol: as `rate` and the account's commission name it; base + quote when empty.

        Raises:
            DataError: a price or the quantity is not positive and finite.
        """
        _check_positive("price", price)
        _check_positive("quantity", quantity)
        maker, buy = liquidity is _MAKER, side is _BUY
        place = (0 if maker else 2) + (0 if buy else 1)
        symbol = symbol or base + quote
        if bnb_price is not None:
            _check_positive("BNB price", bnb_price)
            rates = self._bnb_rates[place]
            rate = rates.get(symbol)
            if rate is None:
                rate = self._in_bnb(symbol, liquidity, side)
                rates[symbol] = rate
            if rate > _ZERO:
                fee = quantity * rate if base == BNB else price * quantity * rate / bnb_price
                return fee.quantize(FEE_STEP, ROUND_DOWN), BNB
        rates = self._exact_rates[place]
        rate = rates.get(symbol)
        if rate is None:
            rate = self._commission(symbol).full_rate(liquidity, side)
            rates[symbol] = rate
        if self._buy_in_base if buy else self._sell_in_base:
            fee, asset = quantity * rate, base
        else:
            fee, asset = price * quantity * rate, quote
        return fee.quantize(FEE_STEP, ROUND_DOWN), asset

    # ------------------------------------------------------------ what changes it
    def set_tier(self, tier: int) -> None:
        """Move to another tier, the least from now on, and forget what the old one cost.

        Raises:
            ConfigError: the schedule has no such tier.
        """
        check_tier(self._schedule, tier)
        self._floor = tier
        if tier != self._tier:
            self._tier = tier
            self._account = {}
            self._drop_rates()

    def set_account_commission(self, symbol: str, commission: SymbolCommission) -> None:
        """Take the venue's own word on a symbol; it goes before schedule and programmes.

        It holds for the tier it was told in: ask again when `advance` returned True. Nothing
        in a run calls this yet; it is for the connector that asks the venue.
        """
        self._account[symbol] = commission
        self._drop_rates()

    def record_volume(self, ts_ms: int, volume: Decimal) -> None:
        """Count a fill towards the tier, in `volume_unit`.

        Raises:
            DataError: the volume is negative or not a number.
        """
        self._volume.add(ts_ms, volume)

    def advance(self, now_ms: int, bnb_balance: Decimal | None = None) -> bool:
        """Move on to a moment: schedules and programmes start and end, each UTC day has its tier.

        Args:
            now_ms: UTC; one before an earlier call changes nothing.
            bnb_balance: what the account holds; None keeps the tier as it is.

        Returns:
            Whether a rate may have changed.
        """
        day = now_ms // MS_PER_DAY
        judge = bnb_balance is not None and day > self._day
        if now_ms < self._next_ms and not judge:
            return False
        schedule, tier = self._schedule, self._tier
        while self._later and self._later[0].effective_ms <= now_ms:
            schedule, self._later = self._later[0], self._later[1:]
        running = tuple(
            programme
            for programme in self._programmes
            if programme.from_ms <= now_ms < programme.to_ms
        )
        if bnb_balance is not None and judge:
            self._day = day
            reached = schedule.tier_for(self._volume.total(now_ms), bnb_balance)
            tier = max(reached, self._floor)
        self._next_ms = self._next_change(now_ms, day)
        moved = tier != self._tier or schedule is not self._schedule
        if not moved and running == self._running:
            return False
        if moved:
            self._account = {}
        self._schedule, self._tier, self._running = schedule, tier, running
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

    def _in_bnb(self, symbol: str, liquidity: Liquidity, side: Side) -> Decimal:
        """Return the rate that is taken in BNB; 0 where nothing is."""
        commission = self._commission(symbol)
        told = commission.discount
        if not (self._discount if told is None else told) > _ZERO:
            return _ZERO
        return commission.rate(liquidity, side, self._discount)

    def _next_change(self, now_ms: int, day: int) -> int:
        """Return when the next day begins, or a programme begins or ends before it."""
        following = (day + 1) * MS_PER_DAY
        for programme in self._programmes:
            for moment_ms in (programme.from_ms, programme.to_ms):
                if now_ms < moment_ms < following:
                    following = moment_ms
        return following

    def _scheduled(self, symbol: str) -> SymbolCommission:
        row = self._schedule.tiers[self._tier]
        maker, taker = row.maker, row.taker
        for programme in self._running:
            if not programme.symbols or symbol in programme.symbols:
                maker, taker = programme.maker, programme.taker
                break
        return SymbolCommission(CommissionPart(maker, taker), _NOTHING, _NOTHING)

    def _drop_rates(self) -> None:
        schedule = self._schedule
        self._buy_in_base = schedule.fee_side in {"get", "base"}
        self._sell_in_base = schedule.fee_side in {"give", "base"}
        self._discount = schedule.bnb_discount if self._pays_in_bnb else _ZERO
        self._commissions = {}
        self._maker_rates = {}
        self._taker_rates = {}
        self._exact_rates = [{}, {}, {}, {}]  # maker buy, maker sell, taker buy, taker sell
        self._bnb_rates = [{}, {}, {}, {}]
        row = self._scheduled("")
        self._maker = float(row.rate(_MAKER, _BUY, self._discount))
        self._taker = float(row.rate(_TAKER, _BUY, self._discount))


def bnb_price(price: Decimal, base: str, quote: str, mark: float | None) -> Decimal | None:
    """Return what one BNB costs in the quote of a fill; None when nobody knows.

    Args:
        price: of the fill; in a market of BNB itself it is the price of BNB.
        base: asset bought or sold.
        quote: asset paid with.
        mark: last price of BNB in quote; None when there is none.
    """
    if base == BNB:
        return price
    if quote == BNB:
        return Decimal(1)
    return None if mark is None else Decimal(repr(mark))


def _check_positive(what: str, value: Decimal) -> None:
    if not (value.is_finite() and value > _ZERO):
        raise DataError(f"no fee for {what} {value}; expected a finite number > 0")
