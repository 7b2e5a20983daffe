"""CLIP's vocabulary as words, and the templates of training. Knows the tokenizer only."""

import re

from open_clip import OPENAI_IMAGENET_TEMPLATES
from open_clip.tokenizer import SimpleTokenizer
from texts import templates


def forms() -> list[str]:
    """What texts are put into while training: the 80 for photographs, and those for drawings."""
    return templates() + [form("{}") for form in OPENAI_IMAGENET_TEMPLATES]


def token_strings() -> list[str]:
    """Every token of the vocabulary as a person would write it, by number."""
    tokenizer = SimpleTokenizer()
    spelt = (tokenizer.decode([i]).strip() for i in range(tokenizer.vocab_size))
    return [text or "." for text in spelt]


def whole_words() -> list[str]:
    """The vocabulary's words of three letters and more."""
    ends = (t.removesuffix("</w>") for t in SimpleTokenizer().encoder if t.endswith("</w>"))
    return sorted({w for w in ends if re.fullmatch("[a-z]{3,}", w)})
