"""How the service does on photographs with the bundled model `everyday`: figures for its card.

    make -C models/everyday kinds               once: WORK/kinds, a folder for each kind of thing
    python -m benchmarks.quality.photographs FOLDER  results, and the card

Shots, templates and calibration are those of `openvocab eval`. Half precision and heat maps are
measured on the sheet of 145 photographs that the tests carry.
"""

import argparse
import csv
import time
from pathlib import Path
from typing import Final

import numpy as np
from PIL import Image

from app.classify import heatmap
from benchmarks.quality import drawings
from benchmarks.quality.evaluated import evaluated
from benchmarks.quality.exactness import compare
from benchmarks.record import Cell, Result
from benchmarks.reliability import page
from models.encoder import Encoder
from models.info import Floats, Pixels
from models.loader import load
from models.processor import has_fast_bf16
from prompts import expand, load_sets

ROOT: Final = Path(__file__).parents[2]
CARD: Final = ROOT / "models" / "everyday" / "README.md"
SHEET: Final = ROOT / "tests" / "models" / "everyday" / "photographs-160.jpg"
TILE: Final = 160  # pixels of a photograph on the sheet

# pictures of four photographs, and of how many of the four a heat map is made
QUARTERS: Final = 30
SHOWN: Final = 2


def photographs() -> tuple[list[Image.Image], list[str]]:
    """The sheet's photographs and what they show."""
    with SHEET.with_suffix(".csv").open(newline="", encoding="utf-8") as handle:
        labels = [row["label"] for row in csv.DictReader(handle)]
    sheet = Image.open(SHEET).convert("RGB")
    across = sheet.width // TILE
    corners = [(i % across * TILE, i // across * TILE) for i in range(len(labels))]
    return [sheet.crop((x, y, x + TILE, y + TILE)) for x, y in corners], labels


def pixels(encoder: Encoder, picture: Image.Image) -> Pixels:
    """(3, H, W) uint8 of the encoder's size."""
    side = encoder.info.image.width, encoder.info.image.height
    square = picture.resize(side, Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(square).transpose(2, 0, 1))


def texts(encoder: Encoder, labels: list[str]) -> Floats:
    """A unit row for each label, in the model's own templates."""
    templates = load_sets()["everyday"].templates
    prompts = [prompt for label in labels for prompt in expand(templates, label)]
    rows = encoder.submit_texts(prompts).result().reshape(len(labels), len(templates), -1).mean(1)
    unit: Floats = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit


def images(encoder: Encoder, pictures: list[Pixels]) -> Floats:
    """A unit row for each picture."""
    parts = [
        encoder.submit_images(pictures[at : at + 32]).result() for at in range(0, len(pictures), 32)
    ]
    return np.concatenate(parts)


def half_precision() -> Result:
    """How often bfloat16 changes an answer."""
    pictures, labels = photographs()
    logits_by_precision: dict[str, Floats] = {}
    for precision in ("fp32", "bf16"):
        encoder = load(
            "local-dir:" + str(CARD.parent),
            precision=precision,
            device="cpu",
            # which emulates bfloat16; OpenVINO would compute in float32
            backend="auto" if has_fast_bf16() else "torch",
        )
        rows = images(encoder, [pixels(encoder, picture) for picture in pictures])
        scores = encoder.info.scale * rows @ texts(encoder, labels).T
        logits_by_precision[precision] = scores.astype(np.float32)
        encoder.close()
    figures = compare(logits_by_precision["fp32"], logits_by_precision["bf16"])
    names = ("largest_difference_of_scale_x_cosine", "largest_difference_of_probability")
    cells: list[list[Cell]] = [
        ["largest difference of scale × cosine", f"{figures[names[0]]:.2f}"],
        ["largest difference of a probability", f"{figures[names[1]]:.3f}"],
        ["same best label", f"{figures['share_of_equal_top1']:.1%}"],
    ]
    for precision, logits in logits_by_precision.items():
        right = logits.argmax(1) == np.arange(len(labels))
        cells.append([f"right, {precision}", f"{right.mean():.1%}"])
    title = f"bfloat16 against float32: {len(labels)} photographs among their names"
    remark = (
        "On a processor with bfloat16 arithmetic."
        if has_fast_bf16()
        else "On a processor without bfloat16 arithmetic, which PyTorch emulates."
    )
    return Result(title, ["figure", ""], cells, [remark])


def heat_maps() -> Result:
    """Whether the heat map of a label lies in its quarter of a picture of four photographs (the
    grid pointing game, Böhle et al. 2021, arXiv 2104.00032)."""
    encoder = load("everyday", device="cpu")
    pictures, labels = photographs()
    rows = texts(encoder, labels)
    chance = np.random.default_rng(0)
    half = heatmap.GRID // 2  # the cells in the middle lie in no quarter
    peaks, shares = [], []
    for _ in range(QUARTERS):
        four = chance.choice(len(labels), 4, replace=False)
        grid = Image.new("RGB", (2 * TILE, 2 * TILE), "white")
        for place, i in enumerate(four):
            grid.paste(pictures[i], (place % 2 * TILE, place // 2 * TILE))
        square = pixels(encoder, grid)
        every = images(encoder, [square, *heatmap.covered(square)]) @ rows[four].T
        maps = heatmap.heat(every[0], every[1:], heatmap.flat(square)).clip(min=0)
        for place in chance.choice(4, SHOWN, replace=False):
            down, right = divmod(int(place), 2)
            quarter = np.s_[down * (half + 1) :, right * (half + 1) :]
            part = maps[place][quarter][:half, :half]
            peaks.append(bool(part.max() == maps[place].max() > 0))
            shares.append(float(part.sum() / max(1e-9, maps[place].sum())))
    encoder.close()
    alone = f"{half**2 / heatmap.GRID**2:.1%}"
    return Result(
        f"Heat maps: {len(peaks)} labels in pictures of four photographs",
        ["figure", "", "by chance"],
        [
            ["the warmest cell lies in the label's quarter", f"{np.mean(peaks):.1%}", alone],
            ["share of the heat in the label's quarter", f"{np.mean(shares):.1%}", alone],
        ],
        ["Cells between the quarters are not counted."],
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="WORK/kinds")
    start, folder = time.monotonic(), parser.parse_args().folder
    about = "photographs of {classes} kinds of things, {pictures} of them"
    tables = [*evaluated(folder, "everyday", about), half_precision(), heat_maps()]
    subject = "the service on photographs with everyday"
    module = "benchmarks.quality.photographs FOLDER"
    page.write("photographs", subject, tables, time.monotonic() - start, module=module)
    CARD.write_text(drawings.filled(CARD.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    main()
