"""WordNet's nouns, read from its own files: synonyms, hypernyms and glosses.

Knows the files' format (wndb(5)) only.
"""

import gzip
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

# lexicographer files (lexnames(5)) whose nouns can be drawn: animal, artifact, body, food,
# natural object, phenomenon, person, plant, possession, shape, substance
CONCRETE = frozenset({5, 6, 8, 13, 17, 18, 19, 20, 21, 25, 27})


@dataclass(frozen=True, slots=True)
class Synset:
    """One meaning: its lemmas, commonest first, its hypernyms' lemmas, and its gloss."""

    lemmas: tuple[str, ...]
    hypernyms: tuple[str, ...]
    gloss: str
    concrete: bool


def _open(folder: Path, name: str) -> TextIO:
    path = folder / name
    packed = folder / f"{name}.gz"
    return gzip.open(packed, "rt") if packed.exists() else path.open()


def _word(lemma: str) -> str:
    return re.sub(r"\(\w+\)$", "", lemma).replace("_", " ").lower()


def _rows(handle: TextIO) -> Iterator[str]:
    return (line for line in handle if not line.startswith("  "))  # the licence leads each file


class WordNet:
    """Nouns only."""

    def __init__(self, folder: Path) -> None:
        self._data: dict[str, tuple[list[str], list[str], str, int]] = {}
        with _open(folder, "data.noun") as handle:
            for line in _rows(handle):
                fields, _, gloss = line.partition(" | ")
                part = fields.split()
                count = int(part[3], 16)
                lemmas = [_word(part[4 + 2 * i]) for i in range(count)]
                rest = part[5 + 2 * count :]
                above = [rest[i + 1] for i in range(0, len(rest) - 3, 4) if rest[i] in {"@", "@i"}]
                self._data[part[0]] = (lemmas, above, gloss.strip(), int(part[1]))
        self.senses: dict[str, list[str]] = {}
        self.tagged: dict[str, int] = {}
        with _open(folder, "index.noun") as handle:
            for line in _rows(handle):
                part = line.split()
                pointers = int(part[3])
                self.senses[_word(part[0])] = part[6 + pointers :]
                self.tagged[_word(part[0])] = int(part[5 + pointers])

    def synset(self, offset: str) -> Synset:
        lemmas, above, gloss, file = self._data[offset]
        hypernyms = tuple(x for o in above for x in self._data[o][0])
        return Synset(tuple(lemmas), hypernyms, gloss.split(";")[0], file in CONCRETE)

    def single(self, lemma: str) -> Synset | None:
        """The meaning of a noun that has but one, if it is a thing that can be drawn."""
        offsets = self.senses.get(lemma, [])
        synset = self.synset(offsets[0]) if len(offsets) == 1 else None
        return synset if synset is not None and synset.concrete else None

    def common(self) -> Iterator[tuple[str, str]]:
        """(lemma, gloss of its commonest meaning) of nouns that are drawable or used in texts."""
        for lemma, offsets in self.senses.items():
            first = self.synset(offsets[0])
            leading = first.concrete and first.lemmas[0] == lemma
            if re.fullmatch(r"[a-z][a-z' ]+", lemma) and (leading or self.tagged[lemma]):
                yield lemma, first.gloss

    def above(self, offset: str) -> list[tuple[int, tuple[str, ...]]]:
        """(steps, lemmas) of every synset above, nearest first, along first hypernyms."""
        chain: list[tuple[int, tuple[str, ...]]] = []
        step = 1
        while self._data[offset][1]:
            offset = self._data[offset][1][0]
            chain.append((step, tuple(self._data[offset][0])))
            step += 1
        return chain

    def lemmas(self, offset: str) -> tuple[str, ...]:
        return tuple(self._data[offset][0])
