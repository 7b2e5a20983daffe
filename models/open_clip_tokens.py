"""From open_clip's tokenizers to those that serve. Imports open_clip, and so torch."""

from typing import Any

from open_clip.tokenizer import SimpleTokenizer, get_clean_fn

from models.byte_pairs import BytePairs
from models.tokens import CLEANING, BytePairRules, BytePairTokens, HubTokens, Tokens


def tokens_of(tokenizer: Any, context_length: int) -> Tokens:
    """An equal of open_clip's `tokenizer`, which raises where that truncates.

    `context_length` is the model's own, which counts where the tokenizer has none.
    """
    # open_clip fills prompts up to the tokenizer's, 77 for an XLM-RoBERTa, whose tower has 514
    # positions, and for an mT5, which counts none
    context_length = getattr(tokenizer, "context_length", None) or context_length
    if not isinstance(tokenizer, SimpleTokenizer):
        return HubTokens(tokenizer, context_length)
    clean = next(name for name in CLEANING if tokenizer.clean_fn is get_clean_fn(name))
    ids = tuple(tokenizer.all_special_ids)
    special = tuple(tokenizer.decoder[i] for i in ids)
    merges = sorted(tokenizer.bpe_ranks, key=tokenizer.bpe_ranks.get)
    pairs = BytePairs.of(tokenizer.encoder, merges)
    return BytePairTokens(pairs, BytePairRules(special, ids, clean, context_length))
