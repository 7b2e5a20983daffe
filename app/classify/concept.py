"""What a class vector is made of, and its key. Pure: knows no encoder."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any, Final

import numpy as np

from app.groups import groups
from models.info import Floats
from prompts import expand

# prompts of several concepts by their keys
Block = dict[str, tuple[str, ...]]

# prompts handed to the encoder at once: bounds memory, and what is done for callers that left
PROMPTS_PER_BLOCK: Final = 1024


@dataclass(frozen=True, slots=True)
class Concept:
    """What one vector stands for: the texts of a label (itself, synonyms) in every template, and
    `whole` prompts beside them.
    """

    texts: tuple[str, ...]
    templates: tuple[str, ...]
    whole: tuple[str, ...] = ()

    def prompts(self) -> tuple[str, ...]:
        """All prompts, text by text."""
        filled = chain.from_iterable(expand(self.templates, text) for text in self.texts)
        return (*filled, *self.whole)

    def text_of(self, index: int) -> str:
        """The text that the prompt of this number is made of."""
        text = index // len(self.templates) if self.templates else 0
        if text < len(self.texts):
            return self.texts[text]
        return self.whole[index - len(self.texts) * len(self.templates)]

    @property
    def count(self) -> int:
        """How many prompts there are."""
        return len(self.texts) * len(self.templates) + len(self.whole)


def keys_of(concepts: Sequence[Concept], fingerprint: str) -> list[str]:
    """Fingerprint, templates and texts decide every prompt and every vector.

    So neither a changed model nor a changed template can be served an old one. Each part is
    digested behind its length, so that no two lists of texts run together into one.
    """
    begun: dict[tuple[str, ...], Any] = {}
    keys = []
    for concept in concepts:
        digest = begun.get(concept.templates)
        if digest is None:
            digest = begun[concept.templates] = hashlib.sha256()
            _add(digest, [fingerprint, str(len(concept.templates)), *concept.templates])
        digest = digest.copy()
        _add(digest, concept.texts)
        if concept.whole:  # no text is empty, so this is told from texts
            _add(digest, ["", *concept.whole])
        keys.append(digest.hexdigest())
    return keys


def ensemble_mean(rows: Floats) -> Floats:
    """Unit rows (P, D) of one label's prompts -> its vector (D,): their mean, of unit length.

    Radford et al. 2021, section 3.1.4: the ensemble is over the embeddings, not the probabilities.
    """
    mean = rows.mean(axis=0, dtype=np.float32)
    return np.asarray(mean / np.linalg.norm(mean), np.float32)


def blocks(concepts: Mapping[str, Concept]) -> Iterator[Block]:
    """The prompts of each concept by its key, about PROMPTS_PER_BLOCK at a time."""
    prompts = ((key, concept.prompts()) for key, concept in concepts.items())
    for some in groups(prompts, lambda item: len(item[1]), PROMPTS_PER_BLOCK):
        yield dict(some)


def split(rows: Floats, block: Block) -> list[Any]:
    """The rows of a block's prompts, concept by concept."""
    ends = np.cumsum([len(prompts) for prompts in block.values()])[:-1]
    return list(np.split(rows, ends))


def owners(block: Block) -> list[tuple[str, int]]:
    """For each prompt the key of the concept that it belongs to, and its number there."""
    return [(key, number) for key, prompts in block.items() for number in range(len(prompts))]


def _add(digest: Any, texts: Sequence[str]) -> None:
    coded = [text.encode("utf-8", "surrogatepass") for text in texts]
    digest.update(b"".join(b"%d:%b" % (len(text), text) for text in coded))
