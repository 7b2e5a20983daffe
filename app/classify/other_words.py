"""What a picture may show instead of the labels: other words, and which of them compete.

After NegLabel (Jiang et al. 2024, arXiv 2403.20078). Knows no images and no requests.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np
import numpy.typing as npt

from models.info import Floats

# words that do not compete because they are nearest to a label, its synonyms and its kinds: so many
# in all, each label's share of them; where that is fewer than its synonyms may be, no word competes
OWN: Final = 250
FEWEST: Final = 2

# lists of labels whose rivals are kept
KEPT: Final = 256


WordPlaces = npt.NDArray[np.int32]


def compete(labels: int) -> bool:
    """Whether any word may compete with so many labels."""
    return OWN // labels >= FEWEST


@dataclass(frozen=True, slots=True)
class OtherWords:
    """Unit rows (N, D) of words that pictures may show instead of the labels."""

    words: tuple[str, ...]
    rows: Floats

    def rivals(self, labels: Floats) -> WordPlaces | None:
        """Places of those that compete with labels (C, D); None for more labels than words can be
        told of.
        """
        own = min(OWN // len(labels), len(self.words))
        if own < FEWEST:
            return None
        near = self.rows @ labels.T
        keep = np.ones(len(self.words), np.bool_)
        for column in near.T:
            keep[np.argpartition(-column, own - 1)[:own]] = False
        places = np.flatnonzero(keep).astype(np.int32)
        return places if len(places) else None


@dataclass(frozen=True, slots=True)
class Rivals:
    """Those of other words that compete with some labels, by their places (N,)."""

    others: OtherWords
    places: WordPlaces

    def word(self, number: int) -> str:
        """One of them."""
        return self.others.words[int(self.places[number])]


# how much of the best label's lead over the second speaks for it against other words
LEAD_COUNTS: Final = 0.5


def ahead(words: Floats, best: float, lead: float) -> float:
    """How far the best of `words` (N,), cosines with a picture, is ahead of the `best` label, in
    standard deviations of the words.

    The lead of the best label over the second counts for it, in part: it is sure of itself.
    """
    spread = max(float(words.std()), float(np.finfo(np.float32).tiny))
    return (float(words.max()) - best - LEAD_COUNTS * lead) / spread


def allowed(words: int, labels: int) -> float:
    """How far the best of `words` may be ahead of the best of `labels`: as far as it is of the best
    of as many words drawn by chance, in standard deviations, if they are normally distributed.

    So labels that mean nothing are as often answered as not, however many there are.
    """
    return max(0.0, _best_of(words) - _best_of(labels))


def _best_of(count: int) -> float:
    """The expected largest of so many standard normal numbers (Blom 1958)."""
    return NormalDist().inv_cdf((count - 0.375) / (count + 0.25))


class KnownRivals:
    """The rivals of lists of labels that come again and again, by what names the list.

    Places alone are kept: the rows of the words are in memory once, however many lists there are.
    """

    def __init__(self) -> None:
        self._known: OrderedDict[bytes, WordPlaces | None] = OrderedDict()

    def of(self, name: object, labels: Floats, others: OtherWords) -> Rivals | None:
        """The rivals of labels (C, D)."""
        key = hashlib.sha256(repr(name).encode()).digest()
        if key not in self._known:
            self._known[key] = others.rivals(labels)
            while len(self._known) > KEPT:
                self._known.popitem(last=False)
        self._known.move_to_end(key)
        places = self._known[key]
        return None if places is None else Rivals(others, places)


@dataclass(frozen=True, slots=True)
class Competition:
    """How a picture fits other words: `own` ones that rule labels out by themselves, and rivals.

    Cosines (N,) of each; None: not known.
    """

    own_words: Sequence[str] = ()
    own: Floats | None = None
    rivals: Rivals | None = None
    cosines: Floats | None = None
