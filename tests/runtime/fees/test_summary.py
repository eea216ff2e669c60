from collections import defaultdict
from decimal import Decimal as D

from hypothesis import given
from hypothesis import strategies as st

from bot4_runtime.domain.order import Book, Fill, Liquidity, Side
from bot4_runtime.fees.summary import NS_PER_DAY, Predicted, summarise


def fill(number, **changes):
    told = {
        "trade_id": str(number), "intent_no": number, "book": Book.VALIDATED, "symbol": "BTCUSDT",
        "side": Side.SELL, "price": D(100), "quantity": D(2), "fee": D("0.2"),
        "fee_asset": "USDT", "liquidity": Liquidity.TAKER, "ts_event_ns": 0,
    }  # fmt: skip
    return Fill(**told | changes)


money = st.decimals("-5", "5", places=4)
fills = st.lists(
    st.builds(
        lambda *v: dict(
            zip(("book", "symbol", "liquidity", "fee", "fee_asset", "day"), v, strict=True)
        ),
        st.sampled_from(Book),
        st.sampled_from(["BTCUSDT", "ETHUSDT"]),
        st.sampled_from(Liquidity),
        money,
        st.sampled_from(["USDT", "BTC", "BNB"]),
        st.integers(0, 3),
    ),
    max_size=30,
)


def made(rows):
    return [
        fill(number, **{k: v for k, v in row.items() if k != "day"},
             ts_event_ns=row["day"] * NS_PER_DAY + number)
        for number, row in enumerate(rows)
    ]  # fmt: skip


@given(fills)
def test_totals_are_sums_over_each_grouping(rows):
    found = summarise(made(rows), lambda _: None)
    for totals, key in (
        (found.by_book, "book"),
        (found.by_symbol, "symbol"),
        (found.by_liquidity, "liquidity"),
        (found.by_day, "day"),
    ):
        expected = defaultdict(lambda: defaultdict(D))
        for row in rows:
            expected[row[key]][row["fee_asset"]] += row["fee"]
        assert {name: total.charged for name, total in totals.items()} == expected
        assert sum(total.fills for total in totals.values()) == len(rows)
        assert sum(total.notional_quote for total in totals.values()) == 200 * len(rows)


@given(fills, st.sets(st.integers(0, 29)), st.sets(st.integers(0, 29)))
def test_a_fill_deviates_exactly_when_it_was_predicted_otherwise(rows, wrong, unknown):
    def predict(one):
        number = int(one.trade_id)
        if number in unknown:
            return None
        return Predicted(one.fee + (number in wrong), one.fee_asset)

    found = summarise(made(rows), predict)
    places = set(range(len(rows)))
    differing = {int(d.trade_id) for day in found.days.values() for d in day.deviations}
    assert differing == (wrong - unknown) & places
    assert found.matches == (not differing)
    assert sum(day.unchecked for day in found.days.values()) == len(unknown & places)
    assert sum(day.checked for day in found.days.values()) == len(places - unknown)
    difference = sum(sum(day.difference().values()) for day in found.days.values())
    assert difference == -len(differing)


def test_differences_that_cancel_out_still_deviate():
    found = summarise(
        [fill(1, fee=D("0.1")), fill(2, fee=D("0.3"))], lambda _: Predicted(D("0.2"), "USDT")
    )
    assert found.days[0].difference() == {"USDT": 0}
    assert not found.matches
    assert len(found.days[0].deviations) == 2


def test_a_fee_in_another_asset_than_predicted_deviates():
    found = summarise([fill(1)], lambda one: Predicted(one.fee, "BTC"))
    assert found.days[0].difference() == {"BTC": D("-0.2"), "USDT": D("0.2")}
    assert not found.matches


def test_a_price_known_nearly_is_met_within_its_band_and_counted_apart():
    charges = ("0.0080", "0.0079", "0.0120", "0.0121", "-0.01")
    paid = [fill(n, fee=D(fee), fee_asset="BNB") for n, fee in enumerate(charges)]
    found = summarise(paid, lambda _: Predicted(D("0.01"), "BNB", D("0.2")))
    assert [d.charged for d in found.days[0].deviations] == [D(charges[n]) for n in (1, 3, 4)]
    assert (found.days[0].checked, found.days[0].near) == (5, 5)
    (rebate,) = [fill(1, fee=D("-0.011"), fee_asset="BNB")]
    assert Predicted(D("-0.01"), "BNB", D("0.2")).met_by(rebate)
    assert not Predicted(D("-0.01"), "USDT", D("0.2")).met_by(rebate)
