"""Byte-pair encoding (Sennrich et al. 2016) of single words, with tables that take a megabyte.

Knows nothing of how a text is cut into words.
"""

import heapq
from array import array
from bisect import bisect_left
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt

# of a pair of ids, the first takes the upper bits
SHIFT: Final = 32
NONE: Final = -1


def _bytes() -> tuple[str, ...]:
    """The character that stands for each byte: itself if printable, else one from 256 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    spare = iter(range(0x100, 0x200))
    return tuple(chr(byte if byte in printable else next(spare)) for byte in range(0x100))


BYTES: Final = _bytes()


class BytePairs:
    """A vocabulary of pieces: each is a byte, a word's last byte, or two other pieces merged."""

    def __init__(self, tables: Mapping[str, npt.NDArray[Any]]) -> None:
        """`tables`: `letters` and `ends` (256,), the ids of a byte within and at the end of a word;

        `pairs` (N,) the ids of two pieces, in ascending order, and of each pair its `ranks` (N,),
        the lowest of which is merged first, and the id of what they are `merged` to (N,).
        """
        self._tables = {name: np.asarray(table) for name, table in tables.items()}
        self._letters = self._tables["letters"].tolist()
        self._ends = self._tables["ends"].tolist()
        # what bisect is quick with
        self._pairs = array("Q", self._tables["pairs"].tobytes())
        self._ranks = array("I", self._tables["ranks"].tobytes())
        self._merged = array("I", self._tables["merged"].tobytes())

    @classmethod
    def of(cls, pieces: Mapping[str, int], merges: Sequence[tuple[str, str]]) -> "BytePairs":
        """From each piece's id and the merges in their order."""
        ranks = {
            pieces[first] << SHIFT | pieces[second]: (rank, pieces[first + second])
            for rank, (first, second) in enumerate(merges)
        }
        pairs = np.array(sorted(ranks), np.uint64)
        rank_pairs = np.array([ranks[pair] for pair in pairs.tolist()], np.uint32).reshape(-1, 2)
        return cls(
            {
                "letters": np.array([pieces[letter] for letter in BYTES], np.uint32),
                "ends": np.array([pieces[f"{letter}</w>"] for letter in BYTES], np.uint32),
                "pairs": pairs,
                "ranks": np.ascontiguousarray(rank_pairs[:, 0]),
                "merged": np.ascontiguousarray(rank_pairs[:, 1]),
            }
        )

    @classmethod
    def read(cls, file: Path) -> "BytePairs":
        """From the file that `write` wrote."""
        with np.load(file, allow_pickle=False) as tables:
            return cls(dict(tables))

    def write(self, file: Path) -> None:
        """Write it to a file, the same bytes each time."""
        np.savez(file, allow_pickle=False, **self._tables)

    def __call__(self, word: bytes) -> tuple[int, ...]:
        """The ids of a word's pieces: of all pairs, the one of the lowest rank is merged first."""
        ids = [self._letters[byte] for byte in word]
        ids[-1] = self._ends[word[-1]]
        # a linked list of what is left, and a heap of its pairs
        last = len(ids) - 1
        before, after = list(range(-1, last)), [*range(1, last + 1), NONE]
        heap: list[tuple[int, int, int, int]] = []
        for left in range(last):
            self._push(heap, ids, left, left + 1)
        while heap:
            _, left, pair, merged = heapq.heappop(heap)
            right = after[left]
            if right == NONE or ids[left] << SHIFT | ids[right] != pair:
                continue  # one of the two has been merged meanwhile
            ids[left], ids[right] = merged, NONE
            after[left] = after[right]
            after[right] = NONE
            if after[left] != NONE:
                before[after[left]] = left
                self._push(heap, ids, left, after[left])
            if before[left] != NONE:
                self._push(heap, ids, before[left], left)
        return tuple(piece for piece in ids if piece != NONE)

    def _push(
        self, heap: list[tuple[int, int, int, int]], ids: list[int], left: int, right: int
    ) -> None:
        pair = ids[left] << SHIFT | ids[right]
        place = bisect_left(self._pairs, pair)
        if place < len(self._pairs) and self._pairs[place] == pair:
            heapq.heappush(heap, (self._ranks[place], left, pair, self._merged[place]))
