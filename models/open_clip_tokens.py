"""From open_clip's tokenizers to those that serve. Imports open_clip, and so torch."""

from typing import Any

from open_clip.tokenizer import SimpleTokenizer, get_clean_fn

from models.tokens import (
    CLEANING,
    BytePairRules,
    BytePairTokens,
    HubTokens,
    Tokens,
    byte_pair_vocabulary,
)


def tokens_of(tokenizer: Any, context_length: int) -> Tokens:
    """An equal of open_clip's `tokenizer`, which raises where that truncates."""
    if not isinstance(tokenizer, SimpleTokenizer):
        return HubTokens(tokenizer, context_length)
    clean = next(name for name in CLEANING if tokenizer.clean_fn is get_clean_fn(name))
    ids = tuple(tokenizer.all_special_ids)
    special = tuple(tokenizer.decoder[i] for i in ids)
    vocabulary = byte_pair_vocabulary(tokenizer.encoder, tokenizer.bpe_ranks)
    return BytePairTokens(vocabulary, BytePairRules(special, ids, clean, context_length))
