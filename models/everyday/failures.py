"""A sheet of pictures that the model gets wrong, with what it answers, for the card.

Knows figures.json, which evaluate.py writes, and the work folder; knows no model.
"""

import json
from itertools import islice
from pathlib import Path

from evaluate import twemoji
from measured import on_white
from PIL import Image, ImageDraw, ImageFont
from stamps import Labelled, cartoons, chosen
from workfolder import work_parser

SIZE, CAPTION, COLUMNS = 140, 44, 6
MARGIN = 8
# sets of pictures, and how many of each are shown
SHOWN = {"photographs_chosen": 12, "cartoons": 3, "twemoji": 3}


def worst(work: Path, figures: Path) -> list[tuple[Path, str, str]]:
    """Picture, label and answer, where the right label ranks lowest."""
    pictures = []
    measured = json.loads(figures.read_text())
    sets: dict[str, Labelled] = {
        "photographs_chosen": chosen(work),
        "cartoons": cartoons(work),
        "twemoji": twemoji(work)[0],
    }
    for name, count in SHOWN.items():
        paths = {path.name: path for path in sets[name].paths}
        failures: dict[str, dict[str, str]] = {w["label"]: w for w in measured[name]["worst"]}
        pictures += [
            (paths[w["picture"]], label, w["answer"])
            for label, w in islice(failures.items(), count)
        ]
    return pictures


def main() -> None:
    parser = work_parser(__doc__, "everyday")
    here = Path(__file__).parent
    parser.add_argument("--figures", type=Path, default=here / "figures.json")
    parser.add_argument("--out", type=Path, default=here / "failures.jpg")
    args = parser.parse_args()
    pictures = worst(args.work, args.figures)
    width, height = SIZE + MARGIN, SIZE + CAPTION
    rows = -(-len(pictures) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * width + MARGIN, rows * height + MARGIN), "white")
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(size=12)
    for i, (path, label, answer) in enumerate(pictures):
        left, top = MARGIN + i % COLUMNS * width, MARGIN + i // COLUMNS * height
        picture = on_white(Image.open(path))
        picture.thumbnail((SIZE, SIZE), Image.Resampling.LANCZOS)
        at = left + (SIZE - picture.width) // 2, top + (SIZE - picture.height) // 2
        sheet.paste(picture, at)
        draw.text((left, top + SIZE + 4), label[:22], "black", font)
        draw.text((left, top + SIZE + 20), f"“{answer[:22]}”", "firebrick", font)
    sheet.save(args.out, quality=85, optimize=True)


if __name__ == "__main__":
    main()
