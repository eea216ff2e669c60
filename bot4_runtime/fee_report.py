"""What an account paid in fees, told from its journal: totals, and predicted against charged.

Predictions are made with the fee settings in force now; a journal written under others differs.
"""

from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from bot4_runtime.domain.candle import Market
from bot4_runtime.domain.events import InstrumentDefined, OrderFilled
from bot4_runtime.domain.instrument import Instrument
from bot4_runtime.domain.order import Fill
from bot4_runtime.fees.calculator import BNB, FeeCalculator
from bot4_runtime.fees.schedules import binance_schedule
from bot4_runtime.fees.summary import DayReconciled, FeeSummary, FeeTotal, summarise
from bot4_runtime.settings import FeesSection
from bot4_runtime.state.reader import JournalReader

SHOWN_DEVIATIONS: Final = 10
SECONDS_PER_DAY: Final = 86_400


class _Journaled:
    """Fills of a journal, and what each should have cost by the settings."""

    def __init__(self, journal: JournalReader, settings: FeesSection) -> None:
        self._journal = journal
        self._instruments: dict[str, Instrument] = {}
        self._calculators = {
            market: FeeCalculator(
                binance_schedule(market), settings.vip_tier, settings.bnb_discount
            )
            for market in Market
        }

    def fills(self) -> Iterator[Fill]:
        """Yield fills in order; each after its instrument was defined."""
        for _, event in self._journal.events(kinds=(InstrumentDefined, OrderFilled)):
            if isinstance(event, InstrumentDefined):
                self._instruments[event.instrument.symbol] = event.instrument
            if isinstance(event, OrderFilled):
                yield event.fill

    def predict(self, fill: Fill) -> tuple[Decimal, str] | None:
        """Return the fee by the schedule; None when it was charged in BNB.

        The price the venue converted at is not in the journal, so that a fee in BNB cannot be
        told to the last digit. A trade in BNB itself can.
        """
        instrument = self._instruments[fill.symbol]
        if fill.fee_asset == BNB and BNB not in {instrument.base, instrument.quote}:
            return None
        return self._calculators[instrument.market].exact(
            fill.price,
            fill.quantity,
            fill.liquidity,
            fill.side,
            instrument.base,
            instrument.quote,
        )


def fee_report(journal: JournalReader, settings: FeesSection) -> dict[str, Any]:
    """Return totals by book, symbol, day and liquidity, and each day reconciled.

    ``matches`` is True when every fill that could be predicted cost exactly what was predicted.
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
        "reconciliation": {_date(day): _compared(found, day) for day in sorted(found.days)},
        "matches": found.matches,
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
    if sum(row["unchecked"] for row in found["reconciliation"].values()):
        console.print("In brackets: fees in BNB, which the journal cannot predict.")
    _print_verdict(found, console)


def _print_verdict(found: Mapping[str, Any], console: Console) -> None:
    if found["matches"]:
        console.print("[green]Charged is what was predicted, fill by fill.[/]")
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
