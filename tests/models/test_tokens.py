"""Token ids equal those of open_clip's own tokenizer, whatever the text."""

import random
import sys
import unicodedata

import open_clip
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.open_clip_tokens import tokens_of
from models.tokens import clip_vocabulary
from prompts import load_vocabularies

CONTEXT = 77
ORIGINAL = open_clip.get_tokenizer("ViT-B-32")
OURS = tokens_of(ORIGINAL, CONTEXT)

# what cleaning and splitting treat in ways of their own
HARD = [
    "&amp;", "&amp;amp;", "&lt;cat&gt;", "it's  I'LL", "<end_of_text>", "<END_OF_TEXT> x",
    "\tcat\n", "1999!!", "naïve", "“x”", "Ã©", "ﬁsh", "½²٣४", "👩\u200d👩\u200d👧 🇩🇪",
    "\x85\x1c", "it'ſ K", "İstanbul",
]  # fmt: skip


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
    found = tokens_of(keeps, CONTEXT)(["A  CAT"])
    assert found.tolist() == keeps(["A  CAT"], context_length=CONTEXT).tolist()
    assert found.tolist() != OURS(["A  CAT"]).tolist()


@pytest.mark.parametrize("clean", ["lower", "whitespace", "canonicalize"])
def test_every_cleaning_that_open_clip_has(clean: str) -> None:
    original = open_clip.tokenizer.SimpleTokenizer(clean=clean)
    ours = tokens_of(original, CONTEXT)
    for text in (*HARD, "A_b, C-d!  'x'"):
        assert ours([text]).tolist() == original([text], context_length=CONTEXT).tolist()


def texts(count: int) -> list[str]:
    """Texts of many kinds, always the same: words, any ASCII, scripts, emoji, every category."""
    dice = random.Random(0)
    every = [chr(c) for c in range(sys.maxunicode) if not 0xD800 <= c < 0xE000]
    by_category: dict[str, list[str]] = {}
    for character in every:
        by_category.setdefault(unicodedata.category(character), []).append(character)
    labels = [label for v in load_vocabularies().values() for label in v.labels]
    kinds = (
        lambda n: " ".join(dice.choices(labels, k=2)),
        lambda n: "".join(chr(dice.randrange(128)) for _ in range(n)),
        lambda n: "".join(dice.choices("aeioustrnldm' ", k=2 * n)),
        lambda n: "".join(dice.choice(by_category[dice.choice((*by_category,))]) for _ in range(n)),
        lambda n: " ".join(dice.choices(HARD, k=2)),
        lambda n: "".join(chr(dice.randrange(0x1F300, 0x1FB00)) for _ in range(n // 2)),
    )
    return [kinds[n % len(kinds)](dice.randrange(1, 14)) for n in range(count)]


def test_many_texts() -> None:
    # 100,000 take minutes: docs/performance.md
    for text in texts(6_000):
        own = ORIGINAL.encode(text)
        if len(own) + 2 <= CONTEXT:
            row = OURS([text])[0]
            assert row[1 : len(own) + 1].tolist() == own, text
            assert row[len(own) + 1] == ORIGINAL.eot_token_id


def test_the_vocabulary_is_read_without_open_clip() -> None:
    special = ("<start_of_text>", "<end_of_text>")
    assert clip_vocabulary(special).to_str() == OURS.vocabulary.to_str()
