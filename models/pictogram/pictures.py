"""Gather every drawing of every set under its concept. Knows the sets' habits; renders nothing."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from captions import Concepts, clean, clip_art_name, is_skin_tone, squash, useful_keyword
from icons import base_name
from sources import (
    IconSet,
    Source,
    bitmaps,
    fetch,
    of_kind,
    open_icons,
    read_json,
    single_source,
    unpack_deb,
)

CLIP_ART_BYTES = 300_000  # larger drawings take seconds each
CLIP_ART_SKIP = ("/stars/", "/special/", "/duplicates/", "/cards/", "/buttons/", "/patterns/")
PER_CONCEPT = 8  # clip-art pictures kept under one name
PER_SET = 2  # strokes of one icon kept from one set
SETS = 3  # that many sets must draw an icon that is no emoji
EMOJI_KEY = re.compile(r"[0-9a-f]{2,6}(-[0-9a-f]{2,6})*$")


@dataclass(frozen=True, slots=True)
class Picture:
    """One drawing, SVG text or bitmap bytes; `key` is its concept."""

    key: str
    source: Source
    name: str
    drawing: str | bytes
    author: str


def base_names(icons: IconSet) -> list[str]:
    every = set(icons.bodies)
    return [n for n in icons.bodies if not is_skin_tone(n, every)]


def learn_names(concepts: Concepts, downloads: Path) -> None:
    """Characters and their names, from emojilib and from the sets that say which is which."""
    listed = read_json(fetch(single_source("keywords"), downloads), "dist/emoji-en-US.json")
    for character, words in listed.items():
        key = "-".join(f"{ord(c):x}" for c in character if c != "\ufe0f")
        concepts.know(key, clean(words[0]))
        useful = (useful_keyword(w) for w in words[1:])
        concepts.keywords[key] = Counter(w for w in useful if w)
    for source in of_kind("emoji"):
        icons = open_icons(source, downloads)
        every = set(icons.bodies)
        for name, code in icons.characters.items():
            if name in every and not is_skin_tone(name, every):
                concepts.know(code.replace("-fe0f", ""), clean(name))


def _emoji(concepts: Concepts, downloads: Path) -> Iterator[Picture]:
    for source in of_kind("emoji"):
        icons = open_icons(source, downloads)
        for name in base_names(icons):
            text = clean(name)
            names = [text, *(clean(a) for a in icons.aliases.get(name, []))]
            if source.name == "streamline-emojis" and f"flag of {text}" in concepts.by_name:
                names = [f"flag of {text}"]  # it calls flags by the country alone
            run_together = " " not in text and len(text) > 5
            if source.name == "fxemoji" and run_together and text not in concepts.by_name:
                continue  # words that lead to no known emoji
            key = concepts.find(names)
            yield Picture(key, source, name, icons.svg(name), source.author)


def _bitmaps(concepts: Concepts, downloads: Path) -> Iterator[Picture]:
    for source in of_kind("bitmaps"):
        for name, data in bitmaps(fetch(source, downloads)):
            key = name.replace("-fe0f", "")
            if key in concepts.names and not re.search(r"1f3f[b-f]", key):
                yield Picture(key, source, name, data, source.author)


def _flags(concepts: Concepts, downloads: Path) -> Iterator[Picture]:
    """Named by ISO 3166 codes; a code's two regional-indicator characters are the emoji."""
    for source in of_kind("flags"):
        icons = open_icons(source, downloads)
        for name in icons.bodies:
            code = name.removesuffix("-4x3")
            key = "-".join(f"{0x1F1E6 + ord(c) - ord('a'):x}" for c in code)
            if re.fullmatch("[a-z]{2}", code) and key in concepts.names:
                yield Picture(key, source, name, icons.svg(name), source.author)


def _icons(concepts: Concepts, downloads: Path) -> Iterator[Picture]:
    """Interface icons: those named like an emoji, and those that several sets agree on."""
    candidates: list[tuple[str, IconSet, str]] = []
    drawn_by: dict[str, set[str]] = {}
    for source in of_kind("icons"):
        icons = open_icons(source, downloads)
        uses = Counter[str]()
        for name in sorted(icons.bodies, key=lambda n: (len(n), n)):
            text = base_name(name)
            if text is None or len(text) < 3 or uses[text] == PER_SET:
                continue
            uses[text] += 1
            candidates.append((text, icons, name))
            drawn_by.setdefault(text, set()).add(source.author)
    for text, icons, name in candidates:
        known = text in concepts.by_name or squash(text) in concepts.by_name
        if known or len(drawn_by[text]) >= SETS or icons.source.name == "game-icons":
            key = concepts.find([text])
            yield Picture(key, icons.source, name, icons.svg(name), icons.source.author)


def _clip_art(concepts: Concepts, work: Path) -> Iterator[Picture]:
    """Open Clip Art drawings with a usable title; keywords become extra captions."""
    source = single_source("clip-art")
    folder = unpack_deb(source, work)
    vocabulary = {w for names in concepts.names.values() for n in names for w in n.split()}
    vocabulary |= {w for words in concepts.keywords.values() for n in words for w in n.split()}
    uses = Counter[str]()
    for path in sorted(folder.rglob("*.svg")):
        if any(part in path.as_posix() for part in CLIP_ART_SKIP) or path.is_symlink():
            continue
        if path.stat().st_size > CLIP_ART_BYTES:
            continue
        svg = path.read_text("utf-8", "ignore")
        title = re.search(r"<dc:title>([^<]+)</dc:title>", svg)
        creator = re.search(r"<dc:creator>.*?<dc:title>([^<]*)</dc:title>", svg, re.S)
        author = creator.group(1).strip() if creator else ""
        name = clip_art_name(title.group(1) if title else "", author, vocabulary)
        if name is None:
            continue
        if "/flags/" in path.as_posix():
            name = f"flag of {name}"
            if name not in concepts.by_name:
                continue  # provinces, clubs and signals
        key = concepts.find([name])
        uses[key] += 1
        if uses[key] > PER_CONCEPT:
            continue
        if key == name:  # no emoji: the file's own keywords describe it
            words = (useful_keyword(w) for w in re.findall(r"<rdf:li>([^<]+)</rdf:li>", svg))
            words_of_key = concepts.keywords.setdefault(key, Counter())
            words_of_key.update(w for w in words if w and w in vocabulary)
        short = path.relative_to(folder).as_posix().removeprefix("usr/share/openclipart/svg/")
        yield Picture(key, source, short, svg, " ".join(author.split()) or "unknown")


def gather(concepts: Concepts, work: Path) -> list[Picture]:
    """Every usable drawing; names met on the way are added to `concepts`."""
    downloads = work / "downloads"
    result = [*_emoji(concepts, downloads), *_bitmaps(concepts, downloads)]
    result.extend(_flags(concepts, downloads))
    result.extend(_icons(concepts, downloads))
    result.extend(_clip_art(concepts, work))
    return result
