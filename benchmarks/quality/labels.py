"""What is worth giving a label besides its name: synonyms, kinds, groups, descriptions, weights.

    make -C models/everyday validation          once: WORK/validation
    python -m benchmarks.quality.labels FOLDER  benchmarks/results/labels.json, and the card

All words are WordNet's, of the commonest meaning of a label that is a thing: nothing was written
for these pictures. Scores are those of the service's own functions.
"""

import time
from collections import Counter
from collections.abc import Sequence
from typing import Final

import numpy as np

from app.arrays import Truth
from app.classify.concept import Concept
from app.classify.scoring import Alternatives, Groups, softmax
from benchmarks.quality.validation import TEMPLATES, Pictures, Validation, compared, folder, write
from benchmarks.record import Result
from models.info import Floats

SETS: Final = {"photographs": "photographs", "drawings": "Twemoji's drawings"}
COLUMNS: Final = ["", "right (95 %)", "against the first row, points (95 %)"]

# labels that one group has at most
MOST: Final = 20

# words of a description that fit into what the model reads
LONGEST: Final = 18

# an uncertain label, and a certain group
UNCERTAIN, CERTAIN = 0.5, 0.8


def right(pictures: Pictures, cosines: Floats) -> Truth:
    """Whether the best of (N, C) is each picture's own."""
    return np.asarray(cosines.argmax(axis=1) == pictures.targets)


def best_of(view: Validation, pictures: Pictures, texts: Sequence[Sequence[str]]) -> Floats:
    """Cosines (N, C) where the best text of each label decides."""
    rows = view.name_rows([text for several in texts for text in several])
    alternatives = Alternatives.of([several if len(several) > 1 else () for several in texts])
    return alternatives.best(pictures.rows @ rows.T)


def mean_of(view: Validation, pictures: Pictures, texts: Sequence[Sequence[str]]) -> Floats:
    """Cosines (N, C) with one vector of all texts of each label."""
    return (
        pictures.rows
        @ view.vectors([Concept(tuple(label_texts), TEMPLATES) for label_texts in texts]).T
    )


def synonyms(view: Validation, name: str, about: str) -> Result:
    """Labels alone, and with WordNet's synonyms."""
    pictures = view.pictures(name)
    texts = [[x, *view.words.get(x, {}).get("synonyms", [])] for x in pictures.labels]
    several = np.array([len(label_texts) > 1 for label_texts in texts])
    counted = several[pictures.targets]
    ways = {
        "the label alone": pictures.rows @ view.name_rows(pictures.labels).T,
        "`combine: mean`": mean_of(view, pictures, texts),
        "`combine: best`": best_of(view, pictures, texts),
    }
    title = f"Synonyms: {counted.sum()} {about} whose labels have some, among {len(texts)} labels"
    return Result(
        title,
        COLUMNS,
        compared({way: right(pictures, cosines)[counted] for way, cosines in ways.items()}),
        ["WordNet's synonyms, 1 to 9 per label; labels without any compete unchanged."],
    )


def kinds(view: Validation) -> Result:
    """Kinds of things by their names, and by what is of that kind (CHiLS)."""
    pictures = view.pictures("kinds")
    texts = [list(dict.fromkeys([kind, *view.kinds[kind]])) for kind in pictures.labels]
    flat = [(place, text) for place, several in enumerate(texts) for text in several]
    every = softmax(pictures.rows @ view.name_rows([text for _, text in flat]).T, view.scale)
    owners = np.array([place for place, _ in flat])
    sums = np.stack([every[:, owners == place].sum(axis=1) for place in range(len(texts))], axis=1)
    ways = {
        "the kind's name alone": pictures.rows @ view.name_rows(pictures.labels).T,
        "`combine: mean`": mean_of(view, pictures, texts),
        "`combine: best`": best_of(view, pictures, texts),
        "sums of groups": sums,
    }
    counts = [len(view.kinds[kind]) for kind in pictures.labels]
    return Result(
        f"Kinds by their members: {len(pictures.targets)} photographs of {len(texts)} kinds",
        COLUMNS,
        compared({way: right(pictures, cosines) for way, cosines in ways.items()}),
        [
            "For each kind, the words of `other-words` that WordNet lists below it, "
            f"{min(counts)} to {max(counts)} (CHiLS, Novack et al. 2023)."
        ],
    )


def grouped(view: Validation, labels: Sequence[str]) -> list[tuple[str, ...]]:
    """The group of each label: WordNet's widest word above it that has at most MOST of them."""
    above = [view.words.get(label, {}).get("above", []) for label in labels]
    counts = Counter(word for words in above for word in words)
    return [
        (next((word for word in words if counts[word] <= MOST), label),)
        for label, words in zip(labels, above, strict=True)
    ]


def sums(view: Validation, name: str, about: str) -> Result:
    """Groups by their sums against the group of the best label."""
    pictures = view.pictures(name)
    paths = grouped(view, pictures.labels)
    shares = softmax(pictures.rows @ view.name_rows(pictures.labels).T, view.scale)
    best, truth = shares.argmax(axis=1), [paths[place] for place in pictures.targets]
    by_path = Groups.of(paths)
    summed = [by_path.ranked(row, shares=True)[0] for row in shares]
    by_leaf = np.array([paths[place] == path for place, path in zip(best, truth, strict=True)])
    by_sum = np.array([group.path == path for group, path in zip(summed, truth, strict=True)])
    unsure = shares.max(axis=1) < UNCERTAIN
    certain = unsure & np.array([group.score >= CERTAIN for group in summed])
    decisive = f"{certain.sum()} of {unsure.sum()}"
    correct = f"{by_sum[certain].mean():.1%}" if certain.any() else "none"
    leaf = right(pictures, shares)[certain].mean() if certain.any() else 0.0
    title = f"Groups: {len(truth)} {about} of {len(set(paths))} groups of {len(paths)} labels"
    return Result(
        title,
        COLUMNS,
        compared({"the group of the best label": by_leaf, "the best sum of a group": by_sum}),
        [
            f"A label's group is WordNet's widest word above it with at most {MOST} labels.",
            f"If the best label has less than {UNCERTAIN}, {decisive} pictures have a group of "
            f"{CERTAIN} or more: {correct} of these groups are right, {leaf:.1%} of the labels.",
        ],
    )


def descriptions(view: Validation, name: str, about: str) -> Result:
    """Templates, descriptions instead, and both."""
    pictures = view.pictures(name)
    definitions = [view.words.get(label, {}).get("gloss") for label in pictures.labels]
    glosses = [gloss and " ".join(gloss.split()[:LONGEST]) for gloss in definitions]
    counted = np.array([gloss is not None for gloss in glosses])[pictures.targets]
    pairs = list(zip(pictures.labels, glosses, strict=True))

    def way(templates: tuple[str, ...], times: int) -> Floats:
        concepts = [
            Concept((x,), TEMPLATES)
            if gloss is None
            else Concept((x,) if templates else (), templates, (f"{x}, {gloss}.",) * times)
            for x, gloss in pairs
        ]
        return pictures.rows @ view.vectors(concepts).T

    ways = {
        "templates": way(TEMPLATES, 0),
        "descriptions instead": way((), 1),
        "beside them, `prompts_with: templates`": way(TEMPLATES, 1),
        "beside them, of equal weight": way(TEMPLATES, len(TEMPLATES)),
    }
    return Result(
        f"Descriptions: {counted.sum()} {about} whose labels have one, among {len(pairs)} labels",
        COLUMNS,
        compared({name: right(pictures, cosines)[counted] for name, cosines in ways.items()}),
        ['WordNet\'s glosses ("cat, feline mammal usually having thick soft fur"), as in CuPL '
         "(Pratt et al. 2023)."],
    )  # fmt: skip


def weights(view: Validation, name: str, about: str) -> Result:
    """The model's templates alike, and each of them three times."""
    pictures = view.pictures(name)

    def way(templates: tuple[str, ...]) -> Truth:
        rows = view.vectors([Concept((label,), templates) for label in pictures.labels])
        return right(pictures, pictures.rows @ rows.T)

    ways = {"each once": way(TEMPLATES)}
    for template in TEMPLATES:
        ways[f"`{template}` three times"] = way((*TEMPLATES, template, template))
    title = (
        f"Weighted templates: {len(pictures.targets)} {about} among {len(pictures.labels)} labels"
    )
    return Result(title, COLUMNS, compared(ways))


def main() -> None:
    """The command line."""
    start, view = time.monotonic(), Validation(folder(__doc__))
    tables = [kinds(view)]
    for name, about in SETS.items():
        tables.append(synonyms(view, name, about))
        tables.append(sums(view, name, about))
        tables.append(descriptions(view, name, about))
        tables.append(weights(view, name, about))
    subject = "what a label gains by synonyms, kinds, groups, descriptions and weights"
    write("labels", subject, tables, time.monotonic() - start)


if __name__ == "__main__":
    main()
