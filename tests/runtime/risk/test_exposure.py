"""What may come to be held is judged at the dearest price known, and exits by what is held."""

from decimal import Decimal

import pytest

from bot4_runtime.domain.order import Purpose, Side
from bot4_runtime.risk.exposure import HeldPosition, worst_cases
from bot4_runtime.risk.limits import RiskLimits
from bot4_runtime.risk.manager import RiskApproved, RiskManager, RiskRefused

MANAGER = RiskManager(RiskLimits())


@pytest.mark.parametrize(("of_position", "of_symbol"), [(100.0, 130.0), (130.0, 100.0)])
def test_a_position_counts_at_the_dearer_of_its_own_mark_and_the_symbols(
    view, intent, of_position, of_symbol
):
    seen = view(positions=[HeldPosition("BTCUSDT", 1.0, of_position)], mark=of_symbol)
    assert seen.mark("BTCUSDT") == 130.0
    assert worst_cases(seen, "BTCUSDT")["BTCUSDT"].long == 130.0
    # 130 held and 0.6 bought at 130 come to 208 of 10,000: beyond 2 %; at 100 they would not
    answer = MANAGER.validate(intent(quantity=Decimal("0.6")), seen)
    assert isinstance(answer, RiskRefused)
    assert (answer.code, answer.value) == ("POSITION_SIZE", pytest.approx(0.0208))


def test_an_exit_may_not_exceed_what_is_held_by_the_least_amount(view, intent):
    seen = view(positions=[HeldPosition("BTCUSDT", 1.0, 100.0)])
    for quantity, kind in (("1", RiskApproved), ("1.00000001", RiskRefused)):
        exit_ = intent(
            side=Side.SELL,
            quantity=Decimal(quantity),
            reduce_only=True,
            stop_loss=None,
            purpose=Purpose.EXIT,
        )
        assert type(MANAGER.validate(exit_, seen)) is kind, quantity
