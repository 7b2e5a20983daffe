"""The held-out concepts as a folder of pictures for each, in every set's drawing.

What `openvocab eval` reads: no picture of these concepts from any set was trained on, nor any of
their names together with a picture. Knows nothing of the model.
"""

import csv
from collections import defaultdict
from pathlib import Path

from captions import Concepts, clean
from data import twemoji_keys
from holdout import HoldOut
from pictures import Picture, base_names, gather, learn_names
from PIL import Image
from render import from_bitmap, from_svg
from sources import fetch_all, of_kind, open_icons, single_source
from workfolder import work_parser

SIZE = 256  # pixels, on white: what a caller would send
EMOJI = ("emoji", "bitmaps", "validation")  # kinds of sets that draw things, not signs for them


def _drawings(concepts: Concepts, work: Path, labels: dict[str, str]) -> list[Picture]:
    """Every drawing of the concepts in `labels` by a set of emoji, Twemoji among them."""
    kinds = {source.name for source in of_kind(*EMOJI)}
    icons = open_icons(single_source("validation"), work / "downloads")
    twemoji = twemoji_keys(concepts, work)
    pictures = [
        Picture(twemoji[name][0], icons.source, name, icons.svg(name), icons.source.author)
        for name in base_names(icons)
        if name in twemoji
    ]
    pictures += [p for p in gather(concepts, work) if p.source.name in kinds]
    return [p for p in pictures if p.key in labels]


def write(work: Path, folder: Path) -> None:
    """`folder`/LABEL/SET_NAME.png, and `folder`/manifest.csv with source and licence of each."""
    concepts = Concepts()
    learn_names(concepts, work / "downloads")
    twemoji = twemoji_keys(concepts, work)
    holdout = HoldOut(concepts, [key for key, _ in twemoji.values()])
    labels = {key: label for key, label in twemoji.values() if key in holdout.group}
    rows = []
    counts: dict[str, int] = defaultdict(int)
    for picture in _drawings(concepts, work, labels):
        drawing = picture.drawing
        pixels = from_svg(drawing, SIZE) if isinstance(drawing, str) else from_bitmap(drawing, SIZE)
        if pixels is None:
            continue
        # premultiplied: what is missing to full cover is white
        white = pixels[..., :3] + (255 - pixels[..., 3:])
        label = labels[picture.key]
        path = Path(label) / f"{picture.source.name}_{clean(picture.name).replace(' ', '-')}.png"
        (folder / label).mkdir(parents=True, exist_ok=True)
        Image.fromarray(white).save(folder / path)
        counts[label] += 1
        source = picture.source
        rows.append(
            [str(path), holdout.of(picture.key), source.name, source.version, source.licence]
        )
    with (folder / "manifest.csv").open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["image", "group", "source", "version", "licence"])
        writer.writerows(sorted(rows))
    print(f"{len(rows)} pictures of {len(counts)} concepts in {folder}")


def main() -> None:
    args = work_parser(__doc__, "pictogram").parse_args()
    fetch_all(args.work / "downloads")
    write(args.work, args.work / "held-out")


if __name__ == "__main__":
    main()
