"""Prompts as trees of tokens: equal beginnings once, padding never. Knows no tower."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from models.tokens import Ids


@dataclass(frozen=True, slots=True)
class Tree:
    """Some prompts, written as one sequence of n nodes; a node is a token behind its prefix.

    `tokens` and `positions` (n,) int64, `visible` (n, n) bool: row i is true at the nodes on the
    path from the first token to i, itself included. `ends` (p,) is the node at which each prompt
    ends, `rows` (p,) the place of the prompt in the list that the forest was made of.
    """

    tokens: Ids
    positions: Ids
    visible: npt.NDArray[np.bool_]
    ends: Ids
    rows: Ids


class Forest:
    """All prompts of one call in dictionary order, cut into trees on demand.

    Under a causal mask a position depends on nothing behind it, so prompts with the same beginning
    have the same states there: `a photo of a cat.` and `a photo of a dog.` share five of eight
    positions, and no position is spent on padding.
    """

    def __init__(self, ids: Ids, lengths: Ids) -> None:
        """`ids` (N, L), of which each row's first `lengths` (N,) count."""
        order = np.lexsort(ids.T[::-1])
        self._rows = order
        self._ids, self._lengths = ids[order], lengths[order]
        repeated = np.zeros(ids.shape, bool)
        repeated[1:] = self._ids[1:] == self._ids[:-1]
        shared = np.logical_and.accumulate(repeated, axis=1).sum(1)
        shared[1:] = np.minimum(shared[1:], self._lengths[:-1])  # padding is shared by nobody
        self._shared = np.minimum(shared, self._lengths)
        self._new_until = np.cumsum(self._lengths - self._shared)

    def __len__(self) -> int:
        return len(self._rows)

    def tree(self, start: int, most: int) -> Tree:
        """The prompts from `start` on (in the forest's order) that fit into `most` nodes.

        It holds one prompt at least. The next tree begins at `start + len(tree.rows)`.
        """
        # the first prompt shares nothing with what is not in the tree
        alone = self._new_until[start] - self._lengths[start]
        stop = int(np.searchsorted(self._new_until, alone + most, side="right"))
        part = slice(start, max(stop, start + 1))
        ids, lengths, shared = self._ids[part], self._lengths[part], self._shared[part].copy()
        shared[0] = 0
        places = np.arange(int(lengths.max()))
        new = (places >= shared[:, None]) & (places < lengths[:, None])
        count = int(new.sum())
        numbers = np.zeros(new.shape, np.int64)
        numbers[new] = np.arange(count)
        # a place that is not new belongs to the latest prompt above that was new there
        nodes = np.maximum.accumulate(numbers, axis=0)
        prompt, place = np.nonzero(new)
        visible = np.zeros((count, count), bool)
        for ancestor in places:
            below = place >= ancestor
            visible[np.arange(count)[below], nodes[prompt[below], ancestor]] = True
        return Tree(
            tokens=ids[prompt, place],
            positions=place,
            visible=visible,
            ends=nodes[np.arange(len(ids)), lengths - 1],
            rows=self._rows[part],
        )


def lengths(ids: Ids, eos_id: int | None) -> Ids:
    """(N, L) -> (N,): how many leading positions of each row the pooled vector depends on.

    A tower pools at `eos_id`, or at the largest id (None).
    """
    ends = ids if eos_id is None else ids == eos_id
    return np.asarray(ends.argmax(axis=1) + 1, np.int64)
