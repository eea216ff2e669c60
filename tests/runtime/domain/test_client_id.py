"""Names of orders: unique, ours, readable."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot4_runtime.domain.client_id import client_id, journal_tag, parse_client_id, tag_of

NUMBERS = st.integers(0, 2**63 - 1)


TAGS = st.one_of(st.just(""), st.integers().map(journal_tag))


@given(NUMBERS, NUMBERS, TAGS)
def test_a_name_tells_epoch_number_and_journal_and_fits_the_venue(
    epoch: int, intent_no: int, tag: str
) -> None:
    name = client_id(epoch, intent_no, tag)
    assert parse_client_id(name) == (epoch, intent_no)
    assert tag_of(name) == tag
    assert len(name) <= 36
    assert all(letter.isalnum() or letter == "-" for letter in name)


@given(st.tuples(NUMBERS, NUMBERS, TAGS), st.tuples(NUMBERS, NUMBERS, TAGS))
def test_two_orders_never_share_a_name(
    one: tuple[int, int, str], two: tuple[int, int, str]
) -> None:
    assert (client_id(*one) == client_id(*two)) == (one == two)


@pytest.mark.parametrize(
    "name",
    ["", "web_7Kx", "b4-1", "b4-1-2-3", "b5-1-2", "b4-w-1", "b4-1-", "b4-01-1", "b4-A-1", "b4-+1-1",
     "b4- 1-1", "b4-1_0-1", "b4-1-2-abcdw", "b4-1-2-abcde-1", "b4-1-2-ABCDE", "b4-1-2-"],
)  # fmt: skip
def test_what_is_not_ours_is_not_taken_for_ours(name: str) -> None:
    assert parse_client_id(name) is None


def test_the_tag_of_a_journal_never_changes_and_hardly_ever_comes_twice() -> None:
    assert journal_tag(1_700_000_000_000_000_000, "c" * 64) == "ddbhk"
    tags = {journal_tag(number, "c") for number in range(1_000)}
    assert len(tags) == 1_000
    assert all(len(tag) == 5 for tag in tags)
