"""Turn prompts into token ids and refuse what would be cut. Knows nothing of towers or devices."""

import gzip
import html
import importlib.util
import re
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import numpy.typing as npt

from models.byte_pairs import BYTES, BytePairs
from models.errors import ModelUnavailable, PromptTooLong

Ids = npt.NDArray[np.int64]

# words come from strangers: what is remembered of them must be bounded
WORD_CACHE_LIMIT = 65_536
LONGEST_REMEMBERED: Final = 40

CLIP_MERGES: Final = 48_894

# how CLIP cuts a text into words, behind its special tokens
WORD: Final = r"'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"


class Tokens(Protocol):
    """A tokenizer that raises where others truncate."""

    context_length: int

    def __call__(self, prompts: Sequence[str], first_index: int = 0) -> Ids:
        """(N, context_length) ids, padded as the model was trained.

        `first_index` is the place of prompts[0] in the caller's list, for the error's sake.

        Raises:
            PromptTooLong: prompts do not fit into the context length; it knows them all.
        """
        ...


@dataclass(frozen=True, slots=True)
class BytePairRules:
    """What CLIP's byte-pair encoding needs besides its vocabulary.

    `special` are the special tokens, start and end first, and `special_ids` their ids. `clean` is
    how open_clip calls what is done to a text before: "lower", "whitespace" or "canonicalize".
    """

    special: tuple[str, ...]
    special_ids: tuple[int, ...]
    clean: str
    context_length: int

    @classmethod
    def of(cls, fields: Mapping[str, Any]) -> "BytePairRules":
        """From what JSON made of them."""
        special, ids = tuple(fields["special"]), tuple(fields["special_ids"])
        return cls(special, ids, fields["clean"], fields["context_length"])


class BytePairTokens:
    """CLIP's byte-pair encoding, as open_clip's SimpleTokenizer has it."""

    def __init__(self, pairs: BytePairs, rules: BytePairRules) -> None:
        self._pairs = pairs
        self.rules = rules
        self.context_length = rules.context_length
        self._clean = CLEANING[rules.clean]
        self._special = dict(zip(rules.special, rules.special_ids, strict=True))
        self._words: dict[str, tuple[int, ...]] = {}
        special = "|".join(rules.special)
        # among ASCII letters and digits alone both patterns are the same
        ascii_word = WORD.replace(r"\p{L}", "a-zA-Z").replace(r"\p{N}", "0-9")
        self._ascii = re.compile(f"{special}|{ascii_word}", re.IGNORECASE | re.ASCII)
        self._pattern = f"{special}|{WORD}"

    @classmethod
    def read(cls, vocabulary: Path, rules: Mapping[str, Any]) -> "BytePairTokens":
        """From the file that `write` wrote, and the rules that it returned."""
        return cls(BytePairs.read(vocabulary), BytePairRules.of(rules))

    def write(self, vocabulary: Path) -> Mapping[str, Any]:
        """Write the vocabulary to a file; the rules are returned, as JSON has them."""
        self._pairs.write(vocabulary)
        return asdict(self.rules)

    def __call__(self, prompts: Sequence[str], first_index: int = 0) -> Ids:
        """As Tokens has it; the padding is 0."""
        if len(self._words) > WORD_CACHE_LIMIT:
            self._words.clear()
        start, end, *_ = self.rules.special_ids
        ids = np.zeros((len(prompts), self.context_length), np.int64)
        too_long = []
        for place, text in enumerate(prompts):
            row = [start]
            for word in self._split(self._clean(text)):
                row += self._words.get(word) or self._word(word)
            row.append(end)
            if len(row) > self.context_length:
                problem = PromptTooLong(first_index + place, text, len(row), self.context_length)
                too_long.append(problem)
            else:
                ids[place, : len(row)] = row
        if too_long:
            raise PromptTooLong.together(too_long)
        return ids

    @property
    def remembered(self) -> int:
        """Words whose ids are kept."""
        return len(self._words)

    def _split(self, text: str) -> list[str]:
        return self._ascii.findall(text) if text.isascii() else self._unicode.findall(text)

    @cached_property
    def _unicode(self) -> Any:
        import regex  # few texts need it

        return regex.compile(self._pattern, regex.IGNORECASE)

    def _word(self, word: str) -> tuple[int, ...]:
        special = self._special.get(word)
        if special is not None:
            ids: tuple[int, ...] = (special,)
        else:
            ids = self._pairs(word.encode())
        if len(word) <= LONGEST_REMEMBERED:
            self._words[word] = ids
        return ids


def clip_pairs() -> BytePairs:
    """The vocabulary of OpenAI's CLIP, from the file that open_clip brings; imports no torch."""
    package = importlib.util.find_spec("open_clip")
    if package is None or package.origin is None:
        raise ModelUnavailable("the tokenizer's vocabulary needs pip install open_clip_torch")
    file = Path(package.origin).with_name("bpe_simple_vocab_16e6.txt.gz")
    lines = gzip.decompress(file.read_bytes()).decode().split("\n")
    # behind a line about the file; the file holds more than CLIP was trained with
    merges = [(first, second) for first, second in map(str.split, lines[1 : CLIP_MERGES + 1])]
    letters = sorted(BYTES)
    pieces = [*letters, *(f"{letter}</w>" for letter in letters), *map("".join, merges)]
    return BytePairs.of({piece: n for n, piece in enumerate(pieces)}, merges)


def _mended(text: str) -> str:
    """Without mojibake and HTML entities (twice: some are escaped twice)."""
    if text.isascii() and text.isprintable() and "&" not in text:
        return text  # nothing to mend, which takes fifty times as long as all the rest
    import ftfy

    return html.unescape(html.unescape(ftfy.fix_text(text)))


def _one_spaced(text: str) -> str:
    return " ".join(_mended(text).split())


def _lowered(text: str) -> str:
    return _one_spaced(text).lower()


def _canonical(text: str) -> str:
    bare = _mended(text).strip().replace("_", " ").translate(PUNCTUATION)
    return " ".join(bare.lower().split())


PUNCTUATION: Final = str.maketrans("", "", string.punctuation)
CLEANING: Final[Mapping[str, Callable[[str], str]]] = {
    "lower": _lowered,
    "whitespace": _one_spaced,
    "canonicalize": _canonical,
}


class HubTokens:
    """A tokenizer of another kind, as open_clip wraps those of Hugging Face."""

    def __init__(self, tokenizer: Any, context_length: int) -> None:
        self._tokenizer = tokenizer
        self.context_length = context_length

    def __call__(self, prompts: Sequence[str], first_index: int = 0) -> Ids:
        """As Tokens has it."""
        texts = list(prompts)
        too_long = []
        for place, text in enumerate(texts):
            length = self._count(text)
            if length > self.context_length:
                problem = PromptTooLong(first_index + place, text, length, self.context_length)
                too_long.append(problem)
        if too_long:
            raise PromptTooLong.together(too_long)
        ids = self._tokenizer(texts, context_length=self.context_length)
        return np.asarray(ids, np.int64)

    def _count(self, text: str) -> int:
        wrapped = self._tokenizer
        clean = getattr(wrapped, "clean_fn", str)
        own_markers = getattr(wrapped, "tokenizer_mode", None) == "clips"
        ids = wrapped.tokenizer(clean(text), truncation=False, add_special_tokens=not own_markers)
        # the clips mode adds start, end and class token itself
        return len(ids["input_ids"]) + (3 if own_markers else 0)
