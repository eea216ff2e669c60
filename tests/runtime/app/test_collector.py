"""The garbage collector within a session, and as it was before after it."""

import gc

import pytest

from bot4_runtime import collector


def test_within_the_block_old_objects_are_left_alone_and_young_ones_seldom_looked_through() -> (
    None
):
    before, frozen = gc.get_threshold(), gc.get_freeze_count()
    with collector.seldom():
        assert gc.get_threshold() == (collector.YOUNG, *before[1:])
        assert gc.get_freeze_count() > frozen
    assert (gc.get_threshold(), gc.get_freeze_count()) == (before, 0)


def test_after_a_failure_the_collector_is_as_before() -> None:
    before = gc.get_threshold()
    with pytest.raises(ValueError, match="within"), collector.seldom():
        raise ValueError("within")
    assert (gc.get_threshold(), gc.get_freeze_count()) == (before, 0)


def test_blocks_that_overlap_end_with_the_last_of_them() -> None:
    before = gc.get_threshold()
    first, second = collector.seldom(), collector.seldom()
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert gc.get_threshold() == (collector.YOUNG, *before[1:])
    assert gc.get_freeze_count() > 0
    second.__exit__(None, None, None)
    assert (gc.get_threshold(), gc.get_freeze_count()) == (before, 0)


def test_a_nested_block_ends_nothing() -> None:
    before = gc.get_threshold()
    with collector.seldom():
        with collector.seldom():
            pass
        assert gc.get_threshold() == (collector.YOUNG, *before[1:])
        assert gc.get_freeze_count() > 0
    assert (gc.get_threshold(), gc.get_freeze_count()) == (before, 0)


def test_a_cycle_made_within_the_block_is_still_collected() -> None:
    class Node:
        other: "Node"

    with collector.seldom():
        node = Node()
        node.other = node
        del node
        assert gc.collect() > 0
