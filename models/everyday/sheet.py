"""Put the chosen photographs on one sheet that tests can carry, a JPEG of small squares.

Knows the work folder and the tests' folder; knows nothing of the model.
"""

import csv
from pathlib import Path

from measured import on_white
from PIL import Image
from stamps import chosen
from workfolder import work_parser

SIZE, COLUMNS = 160, 16
TESTS = Path(__file__).resolve().parents[2] / "tests" / "models" / "everyday"


def main() -> None:
    parser = work_parser(__doc__, "everyday")
    parser.add_argument("--out", type=Path, default=TESTS)
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    pictures = chosen(args.work)
    rows = -(-len(pictures.paths) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * SIZE, rows * SIZE), "white")
    for i, path in enumerate(pictures.paths):
        picture = on_white(Image.open(path))
        picture.thumbnail((SIZE, SIZE), Image.Resampling.LANCZOS)
        left, top = i % COLUMNS * SIZE, i // COLUMNS * SIZE
        sheet.paste(
            picture, (left + (SIZE - picture.width) // 2, top + (SIZE - picture.height) // 2)
        )
    sheet.save(args.out / "photographs-160.jpg", quality=88, optimize=True)
    with (args.out / "photographs-160.csv").open("w", newline="") as handle:
        writer = csv.writer(handle, lineterminator="\n")
        writer.writerow(["file", "label"])
        names = [path.name for path in pictures.paths]
        writer.writerows(zip(names, pictures.labels, strict=True))


if __name__ == "__main__":
    main()
