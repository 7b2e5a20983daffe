"""Compiled towers meet few sizes, and little is computed for nothing."""

import pytest

from models.sizes import NODES, batch_size, tree_size


def test_small_batches_have_exactly_their_size() -> None:
    assert [batch_size(count) for count in range(1, 9)] == list(range(1, 9))


@pytest.mark.parametrize(("largest", "sizes"), [(16, 12), (64, 20), (1_024, 36)])
def test_larger_batches_share_few_sizes(largest: int, sizes: int) -> None:
    counts = range(1, largest + 1)
    assert len({batch_size(count) for count in counts}) == sizes
    assert all(count <= batch_size(count) <= 1.25 * count for count in counts)


def test_trees_share_few_sizes() -> None:
    counts = range(1, 257)
    assert sorted({tree_size(count) for count in counts}) == [8, 16, 24, *range(NODES, 257, NODES)]
    assert all(count <= tree_size(count) < count + NODES for count in counts)
