"""What a picture may show instead of the labels: other words, and which of them compete.

After NegLabel (Jiang et al. 2024, arXiv 2403.20078). Knows no images and no requests.
"""

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from models.info import Floats

# words nearest to each label that do not compete with it: its synonyms, its kinds
OWN: Final = 20

# of how many rivals the allowed rank still says something
LEAST_ALLOWED: Final = 10

# lists of labels whose rivals are kept
KEPT: Final = 256


@dataclass(frozen=True, slots=True)
class Rivals:
    """Words (N,) that compete with some labels, and their unit rows (N, D)."""

    words: tuple[str, ...]
    rows: Floats


@dataclass(frozen=True, slots=True)
class OtherWords:
    """Unit rows (N, D) of words that pictures may show."""

    words: tuple[str, ...]
    rows: Floats

    def rivals(self, labels: Floats) -> Rivals | None:
        """Those that compete with labels (C, D); None for so many labels that few would be left."""
        if allowed(len(self.words), len(labels)) < LEAST_ALLOWED:
            return None
        near = self.rows @ labels.T
        keep = np.ones(len(self.words), np.bool_)
        for column in near.T:
            keep[np.argpartition(-column, min(OWN, len(column)) - 1)[:OWN]] = False
        if allowed(int(keep.sum()), len(labels)) < LEAST_ALLOWED:
            return None
        places = np.flatnonzero(keep)
        return Rivals(tuple(self.words[place] for place in places), self.rows[places])


# how likely the best of labels that mean nothing would rank so high by chance, and still count
BY_CHANCE: Final = 0.5


def allowed(words: int, labels: int) -> int:
    """How many of `words` may fit a picture better than the best of `labels`.

    One label that says nothing of a picture beats all but r of n words by chance in r/n of the
    cases, and the best of C such labels in C x r/n at most (Bonferroni): what exceeds BY_CHANCE is
    refused.
    """
    return int(BY_CHANCE * words / labels)


class KnownRivals:
    """The rivals of lists of labels that come again and again, by what names the list."""

    def __init__(self) -> None:
        self._known: OrderedDict[object, Rivals | None] = OrderedDict()

    def of(self, name: object, labels: Floats, others: OtherWords) -> Rivals | None:
        """The rivals of labels (C, D)."""
        if name not in self._known:
            self._known[name] = others.rivals(labels)
            while len(self._known) > KEPT:
                self._known.popitem(last=False)
        self._known.move_to_end(name)
        return self._known[name]


@dataclass(frozen=True, slots=True)
class Competition:
    """How a picture fits other words: `own` ones that rule labels out by themselves, and rivals.

    Cosines (N,) of each; None: not known.
    """

    own_words: Sequence[str] = ()
    own: Floats | None = None
    rivals: Rivals | None = None
    cosines: Floats | None = None
