"""Turn prompts into token ids and refuse what would be cut. Knows nothing of towers or devices."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from open_clip.tokenizer import SimpleTokenizer, get_clean_fn

from models.errors import PromptTooLong

# words come from strangers: what is remembered of them must be bounded
WORD_CACHE_LIMIT = 65_536
LONGEST_REMEMBERED = 40


class Tokens:
    """An open_clip tokenizer that raises where the original truncates."""

    def __init__(self, tokenizer: Any, context_length: int) -> None:
        self._tokenizer = tokenizer
        self._lowers = getattr(tokenizer, "clean_fn", None) is get_clean_fn("lower")
        self._words: dict[str, tuple[int, ...]] = {}
        self.context_length = context_length

    def __call__(self, prompts: Sequence[str], first_index: int = 0) -> torch.Tensor:
        """(N, context_length) int64 ids, padded as the tokenizer pads.

        `first_index` is the place of prompts[0] in the caller's list, for the error's sake.

        Raises:
            PromptTooLong: a prompt does not fit into the context length.
        """
        texts = list(prompts)
        if isinstance(self._tokenizer, SimpleTokenizer):
            return self._byte_pair(texts, first_index)
        for place, text in enumerate(texts):
            self._check(text, self._count(text), first_index + place)
        ids: torch.Tensor = self._tokenizer(texts, context_length=self.context_length)
        return ids

    def _byte_pair(self, texts: list[str], first_index: int) -> torch.Tensor:
        tokenizer = self._tokenizer
        self._forget(tokenizer)
        ids = np.zeros((len(texts), self.context_length), np.int64)
        for place, text in enumerate(texts):
            row = [tokenizer.sot_token_id]
            for word in tokenizer.pat.findall(self._clean(text)):
                row += self._words.get(word) or self._word(word)
            row.append(tokenizer.eot_token_id)
            self._check(text, len(row), first_index + place)
            ids[place, : len(row)] = row
        return torch.from_numpy(ids)

    def _clean(self, text: str) -> str:
        if self._lowers and text.isascii() and text.isprintable() and "&" not in text:
            # nothing to mend and no entity: what is left of the cleaning takes a fiftieth of it
            return " ".join(text.split()).lower()
        cleaned: str = self._tokenizer.clean_fn(text)
        return cleaned

    def _word(self, word: str) -> tuple[int, ...]:
        tokenizer = self._tokenizer
        spelled = "".join(tokenizer.byte_encoder[byte] for byte in word.encode())
        pieces = tokenizer.bpe(spelled).split(" ")
        ids = tuple(tokenizer.encoder[piece] for piece in pieces)
        if len(word) <= LONGEST_REMEMBERED:
            self._words[word] = ids
        else:
            tokenizer.cache.pop(spelled, None)
        return ids

    def _forget(self, tokenizer: SimpleTokenizer) -> None:
        if len(self._words) > WORD_CACHE_LIMIT:
            self._words.clear()
        if len(tokenizer.cache) > WORD_CACHE_LIMIT:
            tokenizer.cache = {
                tokenizer.decoder[i]: tokenizer.decoder[i] for i in tokenizer.all_special_ids
            }

    def _count(self, text: str) -> int:
        wrapped = self._tokenizer
        clean = getattr(wrapped, "clean_fn", str)
        own_markers = getattr(wrapped, "tokenizer_mode", None) == "clips"
        ids = wrapped.tokenizer(clean(text), truncation=False, add_special_tokens=not own_markers)
        # the clips mode adds start, end and class token itself
        return len(ids["input_ids"]) + (3 if own_markers else 0)

    def _check(self, text: str, length: int, index: int) -> None:
        if length > self.context_length:
            raise PromptTooLong(index, text, length, self.context_length)
