"""Fetch, render and caption the training pictures, and the held-out set for measuring.

Writes arrays, captions and a manifest with source and licence per picture to a work folder.
Knows nothing of the model.
"""

import argparse
import csv
import io
import json
import os
import re
import subprocess
from collections import Counter
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import resvg_py
from captions import SIDED, Concepts, clean, clip_art_name, is_skin_tone, useful_keyword
from numpy.typing import NDArray
from PIL import Image
from sources import (
    CLIP_ART,
    HELD_OUT,
    ICON_SETS,
    KEYWORDS,
    IconSet,
    Source,
    fetch,
    fetch_all,
    open_icons,
    read_json,
)

SIZE = 80  # rendered once, warped to the model's 64 in training
CLIP_ART_BYTES = 300_000  # larger drawings take seconds each
CLIP_ART_SKIP = ("/stars/", "/special/", "/duplicates/", "/cards/", "/buttons/", "/patterns/")
OTHERS = 0.15  # how often a concept outside the emoji is drawn, against 1 for an emoji
PER_CONCEPT = 8  # clip-art pictures kept under one name


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture to render; `key` is its concept."""

    key: str
    source: Source
    name: str
    svg: str
    licence: str
    author: str


def render(svg: str, size: int) -> NDArray[np.uint8] | None:
    """SVG -> (size, size, 4) uint8, colours premultiplied by alpha, centred; None if unusable."""
    try:
        png = resvg_py.svg_to_bytes(svg_string=svg, width=size, skip_system_fonts=True)
        picture = Image.open(io.BytesIO(bytes(png))).convert("RGBA")
        if picture.height > size:
            if picture.height > 3 * size:
                return None
            png = resvg_py.svg_to_bytes(svg_string=svg, height=size, skip_system_fonts=True)
            picture = Image.open(io.BytesIO(bytes(png))).convert("RGBA")
    except (ValueError, OSError):
        return None
    if min(picture.size) * 4 < size or max(picture.size) > size + 1:
        return None
    canvas = np.zeros((size, size, 4), np.uint8)
    pixels = np.asarray(picture, np.float32)[:size, :size]
    pixels[..., :3] *= pixels[..., 3:] / 255.0
    top, left = (size - pixels.shape[0]) // 2, (size - pixels.shape[1]) // 2
    canvas[top : top + pixels.shape[0], left : left + pixels.shape[1]] = pixels.round()
    return canvas if canvas[..., 3].mean() > 4 else None


def _render(svg: str) -> NDArray[np.uint8] | None:
    return render(svg, SIZE)


def base_names(icons: IconSet) -> list[str]:
    every = set(icons.bodies)
    return [n for n in icons.bodies if not is_skin_tone(n, every)]


def learn_names(concepts: Concepts, downloads: Path) -> None:
    """Characters and their names, from emojilib and from the sets that say which is which."""
    for character, words in read_json(fetch(KEYWORDS, downloads), "dist/emoji-en-US.json").items():
        key = "-".join(f"{ord(c):x}" for c in character if c != "\ufe0f")
        concepts.know(key, clean(words[0]))
        useful = (useful_keyword(w) for w in words[1:])
        concepts.keywords[key] = Counter(w for w in useful if w)
    for source in ICON_SETS:
        icons = open_icons(source, downloads)
        every = set(icons.bodies)
        for name, code in icons.characters.items():
            if name in every and not is_skin_tone(name, every):
                concepts.know(code.replace("-fe0f", ""), clean(name))


def icon_pictures(concepts: Concepts, downloads: Path) -> list[Picture]:
    pictures = []
    for source in ICON_SETS:
        icons = open_icons(source, downloads)
        for name in base_names(icons):
            text = clean(name)
            names = [text, *(clean(a) for a in icons.aliases.get(name, []))]
            if source.name == "streamline-emojis" and f"flag of {text}" in concepts.by_name:
                names = [f"flag of {text}"]  # it calls flags by the country alone
            if source.name == "fxemoji" and squash_only(text) and text not in concepts.by_name:
                continue  # run-together words that lead to no known emoji
            key = concepts.find(names)
            pictures.append(
                Picture(key, source, name, icons.svg(name), source.licence, source.author)
            )
    return pictures


def squash_only(text: str) -> bool:
    return " " not in text and len(text) > 5


def clip_art_pictures(concepts: Concepts, downloads: Path, work: Path) -> list[Picture]:
    """Open Clip Art drawings with a usable title; keywords become extra captions."""
    folder = work / "openclipart"
    if not folder.exists():
        archive = fetch(CLIP_ART, downloads)
        subprocess.run(["dpkg-deb", "-x", str(archive), str(folder)], check=True)
    vocabulary = {w for names in concepts.names.values() for n in names for w in n.split()}
    vocabulary |= {w for words in concepts.keywords.values() for n in words for w in n.split()}
    pictures, seen = [], Counter[str]()
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
        key = concepts.find([name])
        seen[key] += 1
        if seen[key] > PER_CONCEPT:
            continue
        if key == name:  # no emoji: the file's own keywords describe it
            words = (useful_keyword(w) for w in re.findall(r"<rdf:li>([^<]+)</rdf:li>", svg))
            found = concepts.keywords.setdefault(key, Counter())
            found.update(w for w in words if w and w in vocabulary)
        short = path.relative_to(folder).as_posix().removeprefix("usr/share/openclipart/svg/")
        pictures.append(Picture(key, CLIP_ART, short, svg, CLIP_ART.licence, author or "unknown"))
    return pictures


def write_training(pictures: list[Picture], concepts: Concepts, work: Path, jobs: int) -> None:
    with ProcessPoolExecutor(jobs) as pool:
        rendered = list(pool.map(_render, [p.svg for p in pictures], chunksize=32))
    kept = [(p, r) for p, r in zip(pictures, rendered, strict=True) if r is not None]
    keys = sorted({p.key for p, _ in kept})
    number = {key: i for i, key in enumerate(keys)}
    spread = Counter(w for key in keys for w in concepts.keywords.get(key, {}))
    emoji = {p.key for p, _ in kept if p.source.weight == 1.0}
    records = []
    for key in keys:
        captions = concepts.captions(key, spread)
        sided = any(SIDED.search(text) for text in concepts.names[key])
        weight = 1.0 if key in emoji else OTHERS
        records.append({"key": key, "captions": captions, "sided": sided, "weight": weight})
    np.save(work / "train_pixels.npy", np.stack([r for _, r in kept]))
    np.save(work / "train_concept.npy", np.array([number[p.key] for p, _ in kept], np.int64))
    np.save(work / "train_weight.npy", np.array([p.source.weight for p, _ in kept], np.float32))
    (work / "concepts.json").write_text(json.dumps(records))
    with (work / "manifest.csv").open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["source", "version", "name", "concept", "licence", "author"])
        for p, _ in kept:
            s = p.source
            writer.writerow([s.name, s.version, p.name, p.key, p.licence, p.author])
    counts = Counter(p.source.name for p, _ in kept)
    print(f"{len(kept)} pictures of {len(pictures)}, {len(keys)} concepts, {len(emoji)} emoji")
    print(json.dumps(counts))


def write_held_out(downloads: Path, work: Path) -> None:
    """Twemoji as PNG files at 256 pixels on white: what a caller would send."""
    icons = open_icons(HELD_OUT, downloads)
    folder = work / "twemoji"
    folder.mkdir(exist_ok=True)
    labels: dict[str, str] = {}
    for name in base_names(icons):
        label = clean(name)
        if label in labels.values():
            continue
        png = resvg_py.svg_to_bytes(
            svg_string=icons.svg(name), width=256, background="#ffffff", skip_system_fonts=True
        )
        (folder / f"{name}.png").write_bytes(bytes(png))
        labels[name] = label
    (work / "twemoji.json").write_text(json.dumps(labels, indent=0))
    print(f"{len(labels)} held-out concepts")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    home = os.environ.get("WORK", str(Path.home() / ".cache" / "openvocab-pictogram"))
    parser.add_argument("--work", type=Path, default=Path(home))
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    args = parser.parse_args()
    downloads = args.work / "downloads"
    fetch_all(downloads)
    concepts = Concepts()
    learn_names(concepts, downloads)
    pictures = icon_pictures(concepts, downloads)
    pictures += clip_art_pictures(concepts, downloads, args.work)
    write_training(pictures, concepts, args.work, args.jobs)
    write_held_out(downloads, args.work)


if __name__ == "__main__":
    main()
