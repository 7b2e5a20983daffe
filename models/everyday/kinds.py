"""Tux Paint's photographs by kind, a folder of pictures on white for each: what `openvocab eval`
reads to draw several examples of a class.

Knows the package's folders; knows no model.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from measured import on_white
from PIL import Image
from sources import single_source
from stamps import STAMPS, photographs
from workfolder import work_parser

# what a folder of stamps shows; the first that fits counts
KINDS = {
    "animals/birds": "bird",
    "animals/fish": "fish",
    "animals/insects": "insect",
    "animals/mammals/bovines": "cow, goat or sheep",
    "animals/mammals/rodents": "rodent",
    "clothes/hats": "hat",
    "clothes": "piece of clothing",
    "food/fruit": "fruit",
    "food/vegetables": "vegetable",
    "hobbies/music": "musical instrument",
    "household/tools": "tool",
    "plants/flowers": "flower",
    "plants/trees": "tree",
    "vehicles": "vehicle",
}


def by_kind(work: Path) -> Iterator[tuple[Path, str]]:
    """Every photograph of a kind, and the kind."""
    stamps = work / single_source("photographs").name / STAMPS
    for path in photographs(work).paths:
        name = path.relative_to(stamps).as_posix()
        kind = next((k for start, k in KINDS.items() if name.startswith(f"{start}/")), None)
        if kind is not None:
            yield path, kind


def main() -> None:
    args = work_parser(__doc__, "everyday").parse_args()
    stamps = args.work / single_source("photographs").name / STAMPS
    counts: defaultdict[str, int] = defaultdict(int)
    for path, kind in by_kind(args.work):
        name = path.relative_to(stamps).as_posix()
        folder = args.work / "kinds" / kind
        folder.mkdir(parents=True, exist_ok=True)
        on_white(Image.open(path)).save(folder / f"{re.sub('[^a-z0-9]+', '-', name[:-4])}.png")
        counts[kind] += 1
    print(dict(counts))


if __name__ == "__main__":
    main()
