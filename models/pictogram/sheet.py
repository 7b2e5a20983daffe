"""Put every validation picture, 64 pixels and 256 colours, on one sheet that tests can carry.

Knows the work folder and the tests' folder; knows nothing of the model.
"""

import csv
import json
from pathlib import Path

from network import IMAGE_SIZE
from PIL import Image
from workfolder import work_parser

COLUMNS = 44
TESTS = Path(__file__).resolve().parents[2] / "tests" / "models" / "pictogram"


def main() -> None:
    parser = work_parser(__doc__, "pictogram")
    parser.add_argument("--out", type=Path, default=TESTS)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    records: list[dict[str, str]] = json.loads((args.work / "twemoji.json").read_text())
    rows = -(-len(records) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * IMAGE_SIZE, rows * IMAGE_SIZE), "white")
    for i, record in enumerate(records):
        picture = Image.open(args.work / "twemoji" / f"{record['name']}.png").convert("RGB")
        long = max(picture.size)
        square = Image.new("RGB", (long, long), "white")
        square.paste(picture, ((long - picture.width) // 2, (long - picture.height) // 2))
        small = square.resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC)
        sheet.paste(small, (i % COLUMNS * IMAGE_SIZE, i // COLUMNS * IMAGE_SIZE))
    few = sheet.quantize(256, Image.Quantize.MEDIANCUT, dither=Image.Dither.NONE)
    few.save(args.out / "twemoji-64.png", optimize=True)
    with (args.out / "twemoji-64.csv").open("w", newline="") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(["name", "label", "group"])
        writer.writerows([r["name"], r["label"], r["group"]] for r in records)


if __name__ == "__main__":
    main()
