"""Make everything that training and measuring read, in one work folder.

Pictures, captions, the hold-out, the distillation's texts and a manifest with source and licence
of every picture. Knows nothing of the model.
"""

import argparse
import csv
import json
import os
from collections import Counter
from collections.abc import Collection, Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import MappingProxyType

import numpy as np
import resvg_py
from captions import SIDED, Concepts, clean
from holdout import HoldOut
from pictures import EMOJI_KEY, Picture, base_names, gather, learn_names
from render import render
from sources import PICTURES, fetch_all, of_kind, open_icons, single_source, unpack_deb
from wordnet import WordNet
from workfolder import work_parser

SIZE = 80  # pixels; drawn once, warped to the model's 64 in training
SYNONYMS, HYPERNYMS = 3, 2  # at most, of an unambiguous name


def twemoji_keys(concepts: Concepts, work: Path) -> dict[str, tuple[str, str]]:
    """Twemoji's picture names -> (concept, label); the concept is the emoji's character."""
    icons = open_icons(single_source("validation"), work / "downloads")
    result: dict[str, tuple[str, str]] = {}
    labels: set[str] = set()
    for name in base_names(icons):
        label = clean(name)
        if label in labels:
            continue
        labels.add(label)
        code = icons.characters.get(name, "").replace("-fe0f", "")
        result[name] = (code or concepts.by_name.get(label, label), label)
    return result


def add_wordnet(concepts: Concepts, keys: set[str], wordnet: WordNet) -> int:
    """Synonyms and hypernyms of unambiguous nouns, as keywords; a name of something else is not."""
    added = 0
    forms = {f for key in concepts.names for f in concepts.forms(key)}
    for key in keys:
        words = concepts.keywords.setdefault(key, Counter())
        for name in list(concepts.names[key]):
            meaning = wordnet.single(name)
            if meaning is None:
                continue
            extra = [w for w in meaning.lemmas if w != name][:SYNONYMS]
            extra += meaning.hypernyms[:HYPERNYMS]
            fresh = [w for w in extra if w not in forms and w.isascii()]
            words.update(fresh)
            added += len(fresh)
    return added


def draw(pictures: list[Picture], path: Path, size: int, jobs: int) -> list[Picture]:
    """Write (N, size, size, 4) uint8 to `path`; returns the N that can be drawn."""
    usable = []
    unfinished = path.with_suffix(".partial")
    with ProcessPoolExecutor(jobs) as pool, unfinished.open("wb") as handle:
        renderings = pool.map(
            partial(render, size=size), [p.drawing for p in pictures], chunksize=32
        )
        for picture, pixels in zip(pictures, renderings, strict=True):
            if pixels is not None:
                handle.write(pixels.tobytes())
                usable.append(picture)
    rows = np.memmap(unfinished, np.uint8, "r", shape=(len(usable), size, size, 4))
    with path.open("wb") as handle:
        np.lib.format.write_array_header_2_0(
            handle, {"descr": "|u1", "fortran_order": False, "shape": rows.shape}
        )
        for at in range(0, len(rows), 512):
            handle.write(rows[at : at + 512].tobytes())
    unfinished.unlink()
    return usable


def write_training(
    pictures: list[Picture],
    concepts: Concepts,
    holdout: HoldOut,
    work: Path,
    size: int,
    jobs: int,
    photographed: Mapping[str, Collection[str]] = MappingProxyType({}),
) -> set[str]:
    """Arrays, concepts.json and manifest.csv; returns every caption. Keys that are `photographed`
    are concepts, too, and what photographs of them are called is true of their drawings, but is
    never a drawing's caption (weight 0)."""
    allowed = [p for p in pictures if holdout.may_show(p.key, bool(EMOJI_KEY.match(p.key)))]
    shown = sorted({p.key for p in allowed} | photographed.keys())
    spread = Counter(w for key in shown for w in concepts.keywords.get(key, {}))
    captions = {key: concepts.captions(key, spread, holdout.names) for key in shown}
    for key, names in photographed.items():
        known = {text for text, _ in captions[key]}
        captions[key] += [(name, 0.0) for name in sorted(names) if name not in known]
    allowed = [p for p in allowed if captions[p.key]]
    usable = draw(allowed, work / "train_pixels.npy", size, jobs)
    keys = sorted({p.key for p in usable} | photographed.keys())
    number = {key: i for i, key in enumerate(keys)}
    records = []
    for key in keys:
        sided = any(SIDED.search(text) for text in concepts.names[key])
        emoji = bool(EMOJI_KEY.match(key))
        records.append({"key": key, "captions": captions[key], "sided": sided, "emoji": emoji})
    np.save(work / "train_concept.npy", np.array([number[p.key] for p in usable], np.int64))
    np.save(work / "train_weight.npy", np.array([p.source.weight for p in usable], np.float32))
    np.save(work / "train_one_colour.npy", np.array([p.source.one_colour for p in usable]))
    np.save(work / "train_solid.npy", np.array([p.source.kind == "objects" for p in usable]))
    (work / "concepts.json").write_text(json.dumps(records))
    with (work / "manifest.csv").open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["source", "version", "name", "concept", "licence", "author"])
        for p in usable:
            s = p.source
            writer.writerow([s.name, s.version, p.name, p.key, s.licence, p.author])
    print(f"{len(usable)} pictures of {len(allowed)}, {len(keys)} concepts")
    print(json.dumps(Counter(p.source.name for p in usable)))
    return {text for key in keys for text, _ in captions[key]}


def write_held_out(twemoji: dict[str, tuple[str, str]], holdout: HoldOut, work: Path) -> None:
    """Twemoji as PNG files at 256 pixels on white: what a caller would send."""
    icons = open_icons(single_source("validation"), work / "downloads")
    folder = work / "twemoji"
    folder.mkdir(exist_ok=True)
    records = []
    for name, (key, label) in twemoji.items():
        png = resvg_py.svg_to_bytes(
            svg_string=icons.svg(name), width=256, background="#ffffff", skip_system_fonts=True
        )
        (folder / f"{name}.png").write_bytes(bytes(png))
        records.append({"name": name, "label": label, "key": key, "group": holdout.of(key)})
    (work / "twemoji.json").write_text(json.dumps(records, indent=0))
    print(len(records), "twemoji,", json.dumps(Counter(r["group"] for r in records)))


def write_texts(captions: set[str], holdout: HoldOut, wordnet: WordNet, work: Path) -> None:
    """What the text tower may read before it sees a picture: captions, nouns, glosses."""
    nouns = list(wordnet.common())
    groups = {
        "captions": sorted(captions | set(holdout.read)),
        "nouns": [lemma for lemma, _ in nouns],
        "glosses": [f"{lemma}: {gloss}" for lemma, gloss in nouns if lemma in captions],
    }
    readable = {k: [t for t in texts if holdout.may_read(t)] for k, texts in groups.items()}
    (work / "texts.json").write_text(json.dumps(readable))
    print({k: (len(groups[k]), len(v)) for k, v in readable.items()})


@dataclass(frozen=True, slots=True)
class Material:
    """The drawings with their names, and what of it is held out: the same for both models."""

    concepts: Concepts
    pictures: list[Picture]
    twemoji: dict[str, tuple[str, str]]
    holdout: HoldOut
    wordnet: WordNet


def gathered(work: Path) -> Material:
    """Downloads what is not there yet."""
    fetch_all(work / "downloads")
    concepts = Concepts()
    learn_names(concepts, work / "downloads")
    pictures = gather(concepts, work)
    print(f"{len(pictures)} drawings of {len(of_kind(*PICTURES))} sets")
    twemoji = twemoji_keys(concepts, work)
    holdout = HoldOut(concepts, [key for key, _ in twemoji.values()])
    wordnet = WordNet(unpack_deb(single_source("words"), work) / "usr/share/wordnet")
    unpack_deb(single_source("photographs"), work)
    return Material(concepts, pictures, twemoji, holdout, wordnet)


def arguments(about: str | None, model: str) -> argparse.Namespace:
    """`work` and `jobs`."""
    parser = work_parser(about, model)
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    return parser.parse_args()


def main() -> None:
    args = arguments(__doc__, "pictogram")
    made = gathered(args.work)
    keys = {p.key for p in made.pictures}
    print(add_wordnet(made.concepts, keys, made.wordnet), "words from WordNet")
    captions = write_training(
        made.pictures, made.concepts, made.holdout, args.work, SIZE, args.jobs
    )
    write_texts(captions, made.holdout, made.wordnet, args.work)
    write_held_out(made.twemoji, made.holdout, args.work)


if __name__ == "__main__":
    main()
