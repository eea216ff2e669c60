"""What an account paid in fees and funding, told from its journal.

Fees are told in totals, and predicted against charged; funding by symbol, negative when paid.

Predictions are made with the fee settings in force now; a journal written under others differs.
Tier and schedule are those of each fill's day, folded from the journal as a run folds them.

What was charged tells which rule applied: in another asset than BNB the full rate, since the
venue discounts only what it takes in BNB. What it took in BNB, in a market without BNB, is
compared with the last journaled close of BNB: the price it converted at is not in the journal.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.events import (
    CandleClosed,
    FundingPaid,
    InstrumentDefined,
    OrderFilled,
    SessionStarted,
)
from bot4_runtime.domain.instrument import Instrument
from bot4_runtime.domain.order import Fill
from bot4_runtime.fees.calculator import BNB, FeeCalculator, bnb_price
from bot4_runtime.fees.schedules import binance_schedules
from bot4_runtime.fees.summary import DayReconciled, FeeSummary, FeeTotal, Predicted, summarise
from bot4_runtime.fees.tier import TierFold
from bot4_runtime.settings import FeesSection, RuntimeSection
from bot4_runtime.state.reader import JournalReader

SHOWN_DEVIATIONS: Final = 10
BNB_BAND: Final = Decimal("0.2")
"""How far a fee in BNB may be from one at BNB's last close: it has moved since, by up to a
candle. Narrow enough to tell a discount that was not given, a third more."""
SECONDS_PER_DAY: Final = 86_400
NS_PER_MS: Final = 1_000_000


class _Journaled:
    """Fills of a journal, and what each should have cost by the settings."""

    def __init__(self, journal: JournalReader, settings: FeesSection) -> None:
        self._journal = journal
        self._settings = settings
        self._quote = RuntimeSection().quote
        self._first_ms: int | None = None
        self._instruments: dict[str, Instrument] = {}
        self._marks: dict[str, float] = {}
        self._fees: dict[Market, FeeCalculator] = {}
        self._folds: dict[Market, TierFold] = {}

    def fills(self) -> Iterator[Fill]:
        """Yield fills in order; each is to be predicted before the next is asked for."""
        kinds = (SessionStarted, InstrumentDefined, CandleClosed, OrderFilled)
        for _, event in self._journal.events(kinds=kinds):
            if isinstance(event, SessionStarted):
                self._quote = event.quote
                self._first_ms = self._first_ms or event.start_ms
            elif isinstance(event, InstrumentDefined):
                self._instruments[event.instrument.symbol] = event.instrument
            elif isinstance(event, CandleClosed):
                self._begin(event.candle.open_time_ms)
                self._marks[event.candle.symbol] = event.candle.close
                for fold in self._folds.values():
                    fold.apply(event)
            elif isinstance(event, OrderFilled):
                self._begin(event.fill.ts_event_ns // NS_PER_MS)
                yield event.fill
                instrument = self._instruments.get(event.fill.symbol)
                if instrument is not None:
                    self._folds[instrument.market].apply(event)

    def predict(self, fill: Fill) -> Predicted | None:
        """Return the fee by the schedule of the fill's day.

        None where the journal has no rules of its symbol, or no price of the BNB it was paid in.
        """
        instrument = self._instruments.get(fill.symbol)
        if instrument is None:
            return None
        base, quote = instrument.base, instrument.quote
        fees = self._fees[instrument.market]
        fees.advance(fill.ts_event_ns // NS_PER_MS)
        whole = Predicted(*self._exact(fees, fill, base, quote, None))
        if fill.fee_asset != BNB:
            return whole
        received = whole.asset == BNB
        if received and (not self._settings.bnb_discount or whole.met_by(fill)):
            return whole  # nothing tells a purchase of the first BNB from a missed discount
        one = bnb_price(fill.price, base, quote, self._marks.get(BNB + quote))
        if one is None:
            return None
        own = instrument.market is Market.SPOT and BNB in {base, quote}
        return Predicted(
            *self._exact(fees, fill, base, quote, one), Decimal(0) if own else BNB_BAND
        )

    def _exact(
        self, fees: FeeCalculator, fill: Fill, base: str, quote: str, one: Decimal | None
    ) -> tuple[Decimal, str]:
        return fees.exact(
            fill.price, fill.quantity, fill.liquidity, fill.side, base, quote, one, fill.symbol
        )

    def _begin(self, at_ms: int) -> None:
        """Take the schedules from the account's first day on."""
        if self._fees:
            return
        day = datetime.fromtimestamp((self._first_ms or at_ms) / 1000, UTC).date()
        held = Decimal(repr(self._settings.bnb_held))
        for market in Market:
            schedule, *later = binance_schedules(market, day)
            fees = FeeCalculator(schedule, self._settings.vip_tier, bnb_discount=True, later=later)
            self._fees[market] = fees
            self._folds[market] = TierFold(fees, self._quote, held)


def fee_report(journal: JournalReader, settings: FeesSection) -> dict[str, Any]:
    """Return totals by book, symbol, day and liquidity, and each day reconciled.

    ``matches`` is True when every fill that could be predicted cost what was predicted: to the
    last digit, or within `BNB_BAND` where it is one of ``near``. It says nothing about those
    ``unchecked``, and nothing at all where ``checked`` is 0.
    """
    journaled = _Journaled(journal, settings)
    found = summarise(journaled.fills(), journaled.predict)
    return {
        "account": journal.account(),
        "vip_tier": settings.vip_tier,
        "bnb_discount": settings.bnb_discount,
        "fills": sum(total.fills for total in found.by_book.values()),
        "by_book": _told(found.by_book),
        "by_symbol": _told(found.by_symbol),
        "by_day": _told({_date(day): total for day, total in found.by_day.items()}),
        "by_liquidity": _told(found.by_liquidity),
        "funding": _funding(journal),
        "reconciliation": {_date(day): _compared(found, day) for day in sorted(found.days)},
        **{
            name: sum(getattr(day, name) for day in found.days.values())
            for name in ("checked", "near", "unchecked")
        },
        "matches": found.matches,
    }


def _funding(journal: JournalReader) -> dict[str, dict[str, Any]]:
    """Return how often funding was booked, and how much of each asset, by symbol."""
    times: Counter[str] = Counter()
    amounts: dict[str, dict[str, Decimal]] = {}
    for _, event in journal.events(kinds=(FundingPaid,)):
        if isinstance(event, FundingPaid) and event.ours:
            times[event.symbol] += 1
            of_symbol = amounts.setdefault(event.symbol, {})
            of_symbol[event.asset] = of_symbol.get(event.asset, Decimal(0)) + event.amount
    return {
        symbol: {"times": times[symbol], "amounts": _amounts(amounts[symbol])}
        for symbol in sorted(times)
    }


def _told(totals: Mapping[str, FeeTotal]) -> dict[str, dict[str, Any]]:
    return {
        name: {
            "fills": total.fills,
            "notional_quote": str(total.notional_quote),
            "charged": _amounts(total.charged),
        }
        for name, total in sorted(totals.items())
    }


def _compared(summary: FeeSummary, number: int) -> dict[str, Any]:
    day: DayReconciled = summary.days[number]
    return {
        "checked": day.checked,
        "near": day.near,
        "unchecked": day.unchecked,
        "predicted": _amounts(day.predicted),
        "charged": _amounts(day.charged),
        "difference": _amounts(day.difference()),
        "deviations": [
            {
                "trade_id": one.trade_id,
                "symbol": one.symbol,
                "predicted": f"{one.predicted:f} {one.predicted_asset}",
                "charged": f"{one.charged:f} {one.charged_asset}",
            }
            for one in day.deviations
        ],
    }


def _amounts(by_asset: Mapping[str, Decimal]) -> dict[str, str]:
    return {asset: f"{amount:f}" for asset, amount in sorted(by_asset.items())}


def _date(day: int) -> str:
    return datetime.fromtimestamp(day * SECONDS_PER_DAY, UTC).date().isoformat()


# ------------------------------------------------------------------------ showing
def print_fee_report(found: Mapping[str, Any], console: Console) -> None:
    """Show a report as tables."""
    discount = "with" if found["bnb_discount"] else "without"
    console.print(
        f"Account {found['account']}: {found['fills']:,} fills; predicted by VIP "
        f"{found['vip_tier']} {discount} the BNB discount.",
        highlight=False,
    )
    for title, key in (
        ("Book", "by_book"),
        ("Symbol", "by_symbol"),
        ("Filled as", "by_liquidity"),
    ):
        table = _table(title, "Fills", "Notional, quote", "Fees")
        for name, total in found[key].items():
            notional = f"{Decimal(total['notional_quote']):,.2f}"
            table.add_row(name, f"{total['fills']:,}", notional, _lines(total["charged"]))
        console.print(table)
    table = _table("Day", "Fills", "Predicted", "Charged", "Difference")
    for day, row in found["reconciliation"].items():
        checked = f"{row['checked']:,}" + (f" (+{row['unchecked']})" if row["unchecked"] else "")
        amounts = [_lines(row[part]) for part in ("predicted", "charged", "difference")]
        table.add_row(day, checked, *amounts)
    console.print(table)
    if found["funding"]:
        table = _table("Funding", "Times", "Amount; negative is paid")
        for symbol, row in found["funding"].items():
            table.add_row(symbol, f"{row['times']:,}", _lines(row["amounts"]))
        console.print(table)
    if found["unchecked"]:
        console.print(
            "In brackets: fills the journal cannot predict, for want of a price of BNB or of the "
            "symbol's rules."
        )
    _print_verdict(found, console)


def _print_verdict(found: Mapping[str, Any], console: Console) -> None:
    if found["matches"] and not found["checked"]:
        console.print(f"[yellow]Nothing could be checked[/]: {found['unchecked']:,} fills.")
        return
    if found["matches"]:
        nearly = f"; {found['near']:,} in BNB within {BNB_BAND:.0%}" if found["near"] else ""
        unknown = f"; {found['unchecked']:,} not checked" if found["unchecked"] else ""
        console.print(
            f"[green]Charged is what was predicted, fill by fill{nearly}{unknown}.[/]",
            highlight=False,
        )
        return
    differing = [one for row in found["reconciliation"].values() for one in row["deviations"]]
    console.print(
        f"[red]{len(differing):,} fills cost something else than predicted.[/] Are \\[fees] "
        "vip_tier and bnb_discount those of the account?",
        highlight=False,
    )
    for one in differing[:SHOWN_DEVIATIONS]:
        console.print(
            f"  {one['symbol']} trade {one['trade_id']}: predicted {one['predicted']}, "
            f"charged {one['charged']}",
            highlight=False,
        )


def _table(first: str, *others: str) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    table.add_column(first, no_wrap=True)
    for title in others:
        table.add_column(title, justify="right")
    return table


def _lines(amounts: Mapping[str, str]) -> str:
    return "\n".join(f"{amount} {asset}" for asset, amount in amounts.items()) or "none"
