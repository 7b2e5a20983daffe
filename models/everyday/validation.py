"""Validation pictures with their labels, and what WordNet says of the labels: what
`benchmarks.quality` measures synonyms, groups, descriptions and "none of these" with.

Knows the package's folders; knows no model.
"""

import csv
import json
import os
import random
from collections.abc import Sequence
from pathlib import Path

from kinds import KINDS, by_kind
from sources import single_source, unpack_deb
from stamps import chosen
from wordnet import WordNet
from workfolder import work_parser

# Twemoji's drawings whose names are things to WordNet; so many of them, drawn by chance
DRAWINGS, SEED = 400, 0


def _meaning(wordnet: WordNet, label: str) -> str | None:
    """The commonest meaning of a label that is a thing that can be drawn."""
    offsets = wordnet.senses.get(label.lower(), [])
    return next((offset for offset in offsets if wordnet.synset(offset).concrete), None)


def _nouns(label: str) -> list[str]:
    """`cow, goat or sheep`: each of them; `piece of clothing`: clothing."""
    return label.removeprefix("piece of ").replace(" or ", ", ").split(", ")


def words(wordnet: WordNet, label: str) -> dict[str, object] | None:
    """Synonyms, gloss, and the synsets above, widest first, of a label."""
    offset = _meaning(wordnet, label)
    if offset is None:
        return None
    synset = wordnet.synset(offset)
    above = [lemmas[0] for _, lemmas in reversed(wordnet.above(offset))]
    synonyms = [lemma for lemma in synset.lemmas if lemma != label.lower()]
    return {"synonyms": synonyms, "gloss": synset.gloss, "above": above}


def below(wordnet: WordNet, label: str, vocabulary: Sequence[str]) -> list[str]:
    """The words of a vocabulary whose commonest meaning is what a label names, or a kind of it."""
    nouns = set(_nouns(label))
    matches = []
    for word in vocabulary:
        offset = _meaning(wordnet, word)
        above = [lemmas for _, lemmas in wordnet.above(offset)] if offset else []
        if nouns & {word, *(lemma for lemmas in above for lemma in lemmas)}:
            matches.append(word)
    return matches


def _write(path: Path, rows: Sequence[tuple[Path, str]]) -> None:
    with path.open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["image", "label"])
        writer.writerows((os.path.relpath(file, path.parent), label) for file, label in rows)


def main() -> None:
    parser = work_parser(__doc__, "everyday")
    work = parser.parse_args().work
    wordnet = WordNet(unpack_deb(single_source("words"), work) / "usr/share/wordnet")
    folder = work / "validation"
    folder.mkdir(parents=True, exist_ok=True)

    pictures = chosen(work)
    sets = {"photographs": list(zip(pictures.paths, pictures.labels, strict=True))}
    records = json.loads((work / "twemoji.json").read_text())
    things = [r for r in records if _meaning(wordnet, r["label"]) is not None]
    chance = random.Random(SEED)  # noqa: S311 the same drawings each time
    things = chance.sample(things, min(DRAWINGS, len(things)))
    sets["drawings"] = [(work / "twemoji" / f"{r['name']}.png", r["label"]) for r in things]
    sets["kinds"] = list(by_kind(work))

    for name, rows in sets.items():
        _write(folder / f"{name}.csv", rows)
    labels = {label for rows in sets.values() for _, label in rows}
    vocabulary = Path(__file__).parents[2] / "prompts" / "vocabularies" / "other-words.txt"
    shipped = [x for x in vocabulary.read_text().splitlines() if not x.startswith("#")]
    definitions = {label: words(wordnet, label) for label in sorted(labels)}
    kinds = {kind: below(wordnet, kind, shipped) for kind in sorted(set(KINDS.values()))}
    known_words = {label: found for label, found in definitions.items() if found}
    document = {"labels": known_words, "kinds": kinds}
    (folder / "words.json").write_text(json.dumps(document, indent=1))
    print({name: len(rows) for name, rows in sets.items()}, len(known_words), "known")


if __name__ == "__main__":
    main()
