"""The image tower: precision, and batches against single images. Knows no HTTP."""

from collections.abc import Sequence
from functools import partial
from typing import Final

from benchmarks import pictures
from benchmarks.inside import decoded, encoder
from benchmarks.levers.tables import COLUMNS, beside_the_first
from benchmarks.pictures import SMALL
from benchmarks.record import Result
from benchmarks.rounds import Effort, in_turns, median_seconds
from models.encoder import Encoder
from models.info import Pixels

BATCHES: Final = (1, 8, 32)
IMAGE_COLUMNS: Final = [COLUMNS[0], "ms per image, median (range)", COLUMNS[2]]


def precision(effort: Effort) -> Result:
    """fp32 against bf16 in batches of 8."""
    with encoder("fp32") as fp32, encoder("bf16") as bf16:
        pixels = decoded(pictures.jpegs(SMALL, 8), fp32.info.image)
        sides = {
            "fp32": partial(_per_image, fp32, pixels, effort),
            "bf16": partial(_per_image, bf16, pixels, effort),
        }
        rows = beside_the_first(in_turns(sides, effort.rounds))
        off = 1 - float((fp32.submit_images(pixels).result() * bf16.submit_images(pixels).result())
                        .sum(1).min())  # fmt: skip
        backend = fp32.info.backend
    notes = [f"1-cos between the two: at most {off:.1e}."]
    return Result(
        f"fp32 against bf16, image tower in {backend}, batches of 8", IMAGE_COLUMNS, rows, notes
    )


def batching(effort: Effort) -> Result:
    """One by one against batches, in the precision that the service chooses."""
    with encoder() as chosen:
        pixels = decoded(pictures.jpegs(SMALL, max(BATCHES)), chosen.info.image)
        sides = {
            f"batches of {size}" if size > 1 else "one by one": partial(
                _per_image, chosen, pixels[:size], effort
            )
            for size in BATCHES
        }
        rows = beside_the_first(in_turns(sides, effort.rounds))
        how = f"{chosen.info.backend}, {chosen.info.precision}"
    return Result(f"Batches of the image tower, {how}", IMAGE_COLUMNS, rows)


def _per_image(with_encoder: Encoder, pixels: Sequence[Pixels], effort: Effort) -> float:
    seconds = median_seconds(
        lambda: with_encoder.submit_images(pixels).result(), max(0.5, effort.seconds / 3)
    )
    return seconds / len(pixels)
