"""Token ids against those of open_clip: `python -m benchmarks.quality.tokens [COUNT]`."""

import random
import sys
import unicodedata
from typing import Final

from open_clip.tokenizer import SimpleTokenizer

from models.open_clip_tokens import tokens_of
from prompts import load_vocabularies

CONTEXT: Final = 77
COUNT: Final = 100_000

# what cleaning and splitting treat in ways of their own
HARD: Final = (
    "&amp;", "&amp;amp;", "&lt;cat&gt;", "it's  I'LL", "<end_of_text>", "<END_OF_TEXT> x",
    "\tcat\n", "1999!!", "naïve", "“x”", "Ã©", "ﬁsh", "½²٣४", "👩\u200d👩\u200d👧 🇩🇪",
    "\x85\x1c", "it'ſ K", "İstanbul",
)  # fmt: skip


def texts(count: int) -> list[str]:
    """Texts of many kinds, always the same: words, any ASCII, scripts, emoji, every category."""
    dice = random.Random(0)
    every = [chr(c) for c in range(sys.maxunicode) if not 0xD800 <= c < 0xE000]
    by_category: dict[str, list[str]] = {}
    for character in every:
        by_category.setdefault(unicodedata.category(character), []).append(character)
    labels = [label for v in load_vocabularies().values() for label in v.labels]
    kinds = (
        lambda _: " ".join(dice.choices(labels, k=2)),
        lambda n: "".join(chr(dice.randrange(128)) for _ in range(n)),
        lambda n: "".join(dice.choices("aeioustrnldm' ", k=2 * n)),
        lambda n: "".join(dice.choice(by_category[dice.choice((*by_category,))]) for _ in range(n)),
        lambda _: " ".join(dice.choices(HARD, k=2)),
        lambda n: "".join(chr(dice.randrange(0x1F300, 0x1FB00)) for _ in range(n // 2)),
    )
    return [kinds[n % len(kinds)](dice.randrange(1, 14)) for n in range(count)]


def different(chosen: list[str]) -> tuple[list[str], int]:
    """Texts whose ids differ; and how many texts were compared: those that fit the context."""
    original = SimpleTokenizer()
    tokens = tokens_of(original, CONTEXT)
    wrong, compared = [], 0
    for text in chosen:
        ids = original.encode(text)
        if len(ids) + 2 > CONTEXT:
            continue
        compared += 1
        row = tokens([text])[0].tolist()
        end = len(ids) + 1
        if row[1:end] != ids or row[end] != original.eot_token_id:
            wrong.append(text)
    return wrong, compared


def main(count: int) -> None:
    """Print how many differ."""
    wrong, compared = different(texts(count))
    print(f"{compared:,} texts compared, {len(wrong)} differ {wrong[:5] or ''}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else COUNT)
