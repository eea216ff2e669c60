"""Names of orders: unique, ours, readable."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot4_runtime.domain.client_id import client_id, parse_client_id

NUMBERS = st.integers(0, 2**63 - 1)


@given(NUMBERS, NUMBERS)
def test_a_name_tells_epoch_and_number_and_fits_the_venue(epoch: int, intent_no: int) -> None:
    name = client_id(epoch, intent_no)
    assert parse_client_id(name) == (epoch, intent_no)
    assert len(name) <= 36
    assert all(letter.isalnum() or letter == "-" for letter in name)


@given(st.tuples(NUMBERS, NUMBERS), st.tuples(NUMBERS, NUMBERS))
def test_two_orders_never_share_a_name(one: tuple[int, int], two: tuple[int, int]) -> None:
    assert (client_id(*one) == client_id(*two)) == (one == two)


@pytest.mark.parametrize(
    "name",
    ["", "web_7Kx", "b4-1", "b4-1-2-3", "b5-1-2", "b4-w-1", "b4-1-", "b4-01-1", "b4-A-1", "b4-+1-1",
     "b4- 1-1", "b4-1_0-1"],
)  # fmt: skip
def test_what_is_not_ours_is_not_taken_for_ours(name: str) -> None:
    assert parse_client_id(name) is None
