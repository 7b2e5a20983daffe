"""Names of pictures: one concept per thing shown, with every clean name it goes by.

Knows words only: no pixels, no files, no torch.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable

SKIN_TONE = re.compile(r"-(medium-light|medium-dark|light|medium|dark)(-skin-tone|-skin)?\b")
WORD = re.compile(r"[a-z0-9&'#*+]+")
# a bare "cat" must find the picture that its set calls "cat face"
TAIL = re.compile(r" (face|symbol|sign|button|icon|card|building)$")
# mirrored, these would be wrong
SIDED = re.compile(
    r"\b(left|right|east|west|clock|o'clock|oclock|thirty|arrow|flag|keycap|letter|"
    r"button|sign|number|digit|input|clockwise|counterclockwise|moon)\b"
)


def is_skin_tone(name: str, names: Iterable[str]) -> bool:
    """Variants in five skin tones would swamp the data; the base picture stands for them."""
    base = SKIN_TONE.sub("", name)
    return base != name and ("skin-tone" in name or base in names)


def clean(name: str) -> str:
    """'flag-for-flag-chad' -> 'flag of chad', 'birthday-cake-2' -> 'birthday cake'."""
    text = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode().lower()
    text = re.sub(r"\s+", " ", text.replace("-", " ").replace("_", " ").replace(":", " ")).strip()
    text = re.sub(r"^flag for (flag )?", "flag of ", text)
    text = re.sub(r"^flag (?!of\b|in\b)(.+)$", r"flag of \1", text)
    text = re.sub(r"^keycap (?=[0-9#*])", "keycap ", text)
    return text if text.startswith("keycap") else re.sub(r" 0?[1-9]$", "", text)


def squash(text: str) -> str:
    """Spelling without spaces: one package writes 'soccerball'."""
    return "".join(WORD.findall(text.replace("'", "")))


def plain_forms(name: str) -> list[str]:
    """Shorter names that mean the same picture: 'cat face' -> 'cat', 'flag of chad' -> 'chad'."""
    forms = [name]
    short = TAIL.sub("", name)
    if short != name and len(short) > 2:
        forms.append(short)
    if name.startswith("flag of "):
        forms += [f"{name[8:]} flag", name[8:]]
    return forms


SHORTER = 0.4  # weight of a plain form against the full name


class Concepts:
    """Gathers names and pictures under one number per thing shown.

    Emoji sets agree on the character but not on its name, so the character is the key wherever
    a name leads to one; every name then helps to describe every set's picture.
    """

    def __init__(self) -> None:
        self.by_name: dict[str, str] = {}
        self.names: dict[str, Counter[str]] = {}
        self.keywords: dict[str, Counter[str]] = {}

    def know(self, key: str, name: str) -> None:
        """Character `key` is called `name` by somebody."""
        self.by_name.setdefault(name, key)
        self.by_name.setdefault(squash(name), key)
        self.names.setdefault(key, Counter())[name] += 1

    def find(self, names: list[str]) -> str:
        """The key the first known name leads to; else the first name is a concept of its own."""
        for name in names:
            key = self.by_name.get(name) or self.by_name.get(squash(name))
            if key is not None:
                break
        else:
            key = names[0]
        squashed = {squash(n) for n in self.names.get(key, {}) if " " in n}
        for name in names:
            if name not in squashed:
                self.know(key, name)
        return key

    def forms(self, key: str) -> set[str]:
        """Everything that names the concept, without its keywords."""
        return {form for name in self.names.get(key, {}) for form in plain_forms(name)}

    def captions(
        self, key: str, spread: Counter[str], banned: frozenset[str]
    ) -> list[tuple[str, float]]:
        """(caption, weight), weights sum to 1: names 75 %, keywords the rest; empty without names.

        A keyword that fits n concepts weighs 1/n: "animal" is true of 150 pictures and says little.
        """
        names: dict[str, float] = {}
        for name, count in self.names[key].items():
            for form in plain_forms(name):
                worth = count**0.5 if form == name else SHORTER * count**0.5
                names[form] = max(names.get(form, 0.0), worth)
        names = {n: w for n, w in names.items() if n not in banned}
        words = {*self.keywords.get(key, {})} - names.keys() - banned
        keywords = {w: 1.0 / spread[w] for w in words}
        total_names = sum(names.values())
        total_words = sum(keywords.values())
        share = 0.75 if keywords else 1.0
        result = [(n, share * w / total_names) for n, w in names.items()]
        if names and keywords:
            result += [(w, (1 - share) * v / total_words) for w, v in sorted(keywords.items())]
        return result


def useful_keyword(word: str) -> str | None:
    """'grinning_face' -> 'grinning face'; emoticons and single letters say nothing."""
    text = clean(word)
    if len(text) < 3 or not re.fullmatch(r"[a-z][a-z' ]+", text) or len(text.split()) > 4:
        return None
    return text


def clip_art_name(title: str, author: str, vocabulary: set[str]) -> str | None:
    """A clip-art title if it is a name of something: known words, no serial numbers, no author."""
    drop = set(WORD.findall(author.lower()))
    words = [w for w in WORD.findall(clean(title)) if not any(c.isdigit() for c in w)]
    words = [w for w in words if w not in drop and w not in {"svg", "by", "r", "the", "clipart"}]
    known = [w for w in words if w in vocabulary]
    if not words or len(words) > 5 or len(known) * 3 < len(words) * 2:
        return None
    text = " ".join(words)
    return text if len(text) > 2 else None
