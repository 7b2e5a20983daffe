"""Token ids equal those of open_clip's own tokenizer, whatever the text."""

from pathlib import Path

import open_clip
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import PreTrainedTokenizerFast

from benchmarks.quality.tokens import HARD, different, texts
from models import PromptTooLong
from models.open_clip_tokens import tokens_of
from models.tokens import BytePairTokens, clip_pairs
from prompts import load_vocabularies

CONTEXT = 77
ORIGINAL = open_clip.get_tokenizer("ViT-B-32")
OURS = tokens_of(ORIGINAL, CONTEXT)


@given(st.text(max_size=12) | st.text(st.characters(max_codepoint=127), max_size=12))
def test_any_text(text: str) -> None:
    assert OURS([text]).tolist() == ORIGINAL([text]).tolist()


@pytest.mark.parametrize("text", HARD)
def test_hard_text(text: str) -> None:
    assert OURS([text, text]).tolist() == ORIGINAL([text, text]).tolist()


def test_every_shipped_vocabulary() -> None:
    for vocabulary in load_vocabularies().values():
        prompts = [f"a photo of a {label}." for label in vocabulary.labels]
        assert OURS(prompts).tolist() == ORIGINAL(prompts).tolist()


def test_a_tokenizer_that_keeps_the_case_is_asked() -> None:
    tokenizer = open_clip.tokenizer.SimpleTokenizer(clean="whitespace")
    ids = tokens_of(tokenizer, CONTEXT)(["A  CAT"])
    assert ids.tolist() == tokenizer(["A  CAT"], context_length=CONTEXT).tolist()
    assert ids.tolist() != OURS(["A  CAT"]).tolist()


@pytest.mark.parametrize("clean", ["lower", "whitespace", "canonicalize"])
def test_every_cleaning_that_open_clip_has(clean: str) -> None:
    original = open_clip.tokenizer.SimpleTokenizer(clean=clean)
    tokens = tokens_of(original, CONTEXT)
    for text in (*HARD, "A_b, C-d!  'x'"):
        assert tokens([text]).tolist() == original([text], context_length=CONTEXT).tolist()


def test_many_texts() -> None:
    # 100,000 take minutes: python -m benchmarks.quality.tokens
    wrong, compared = different(texts(6_000))
    assert (wrong, compared > 5_000) == ([], True)


def test_the_vocabulary_is_read_without_open_clip() -> None:
    assert isinstance(OURS, BytePairTokens)
    restored = BytePairTokens(clip_pairs(), OURS.rules)
    for text in HARD:
        assert restored([text]).tolist() == OURS([text]).tolist()


@pytest.mark.parametrize("positions", [0, 514])
def test_prompts_are_as_long_as_open_clip_makes_them_however_many_positions_the_tower_has(
    tmp_path: Path, positions: int
) -> None:
    """mT5 counts none, an XLM-RoBERTa 514; open_clip fills both up to 77."""
    words = Tokenizer(WordLevel({"<pad>": 0, "<unk>": 1, "a": 2, "cat": 3}, unk_token="<unk>"))
    words.pre_tokenizer = Whitespace()
    PreTrainedTokenizerFast(tokenizer_object=words, pad_token="<pad>").save_pretrained(tmp_path)
    original = open_clip.tokenizer.HFTokenizer(str(tmp_path))
    tokens = tokens_of(original, positions)
    assert tokens.context_length == CONTEXT
    assert tokens(["a cat"]).tolist() == original(["a cat"]).tolist()
    with pytest.raises(PromptTooLong, match="has 78 tokens, the model reads 77"):
        tokens(["a " * 78])


def test_long_words_are_merged_as_short_ones() -> None:
    for word in ("猫" * 150, "aeiou" * 60, "tatatata" * 40):
        ids = clip_pairs()(word.encode())
        assert list(ids) == ORIGINAL.encode(word)


def test_a_word_takes_no_longer_than_its_length() -> None:
    # steps that look at all pairs of a word each time would take hours
    assert len(clip_pairs()(b"ab" * 100_000)) > 1_000
