"""Token ids equal those of open_clip's own tokenizer, whatever the text."""

import open_clip
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.tokens import Tokens
from prompts import load_vocabularies

CONTEXT = 77
ORIGINAL = open_clip.get_tokenizer("ViT-B-32")
OURS = Tokens(ORIGINAL, CONTEXT)

# what cleaning and splitting treat in ways of their own
HARD = ["&amp;", "&lt;cat&gt;", "it's  I'LL", "<end_of_text>", "\tcat\n", "1999!!", "naïve", "“x”"]


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
    keeps = open_clip.tokenizer.SimpleTokenizer(clean="whitespace")
    found = Tokens(keeps, CONTEXT)(["A  CAT"])
    assert found.tolist() == keeps(["A  CAT"], context_length=CONTEXT).tolist()
    assert found.tolist() != OURS(["A  CAT"]).tolist()
