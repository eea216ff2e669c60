"""What trades of an account cost: fees with the tier they move in, and the round trip."""

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.events import CandleClosed, OrderFilled
from bot4_runtime.domain.order import Liquidity
from bot4_runtime.fees.calculator import FeeCalculator
from bot4_runtime.fees.schedules import binance_schedules
from bot4_runtime.fees.tier import TierFold
from bot4_runtime.settings import Settings
from bot4_runtime.signals.validator import TradeCosts
from bot4_runtime.state.place import JOURNAL
from bot4_runtime.state.reader import JournalReader


def account_fees(
    settings: Settings, market: Market, first_ms: int, *, in_bnb: bool
) -> tuple[FeeCalculator, TierFold | None]:
    """Return what trades cost from the account's first day on, and what moves it.

    The fold is None where nothing can: no newer schedule, no tier within reach of the BNB held.
    """
    day = datetime.fromtimestamp(first_ms / 1000, UTC).date()
    schedule, *later = binance_schedules(market, day)
    fees = FeeCalculator(schedule, settings.fees.vip_tier, in_bnb, later=later)
    held = Decimal(repr(settings.fees.bnb_held))
    moves = fees.moves(held)
    return fees, TierFold(fees, settings.runtime.quote, held) if moves else None


def catch_up(tier: TierFold, folder: Path) -> None:
    """Fold what the journal holds into the fee tier."""
    with JournalReader.open(folder / JOURNAL) as journal:
        for _, event in journal.events(kinds=(CandleClosed, OrderFilled)):
            tier.apply(event)


def round_trip_costs(settings: Settings, fees: FeeCalculator, market: Market) -> TradeCosts:
    """Return what a round trip is expected to cost now; only perpetuals pay funding."""
    funding_bps = settings.fees.funding_bps_per_day if market is Market.USDM else 0.0
    return TradeCosts(
        fee_rate_round_trip=2 * fees.rate(fees.venue, "", Liquidity.TAKER),
        slippage_round_trip=2 * settings.paper.model().slippage,
        funding_per_day=funding_bps / 10_000,
    )
