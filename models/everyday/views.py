"""What the backbone makes of augmented pictures, kept in shards that training draws from: what its
last stages read, and what it pools.

A shard of drawings has 2,048 views; a shard of photographs 1,024, with what the classifier says
of each where they have no labels. Runs beside the training: whatever shard is there is used. Knows
nothing of texts.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import openvino as ov
import torch
from augment import (
    OBJECTS_ON_PHOTOGRAPH,
    ON_PHOTOGRAPH,
    Pixels,
    crop,
    drawing,
    on_white,
    retaken,
    square,
)
from backbone import classifier, first_stages, last_stages
from drawer import Drawer
from labelled import Album
from network import IMAGE_SIZE
from numpy.typing import NDArray
from PIL import Image
from scenes import scenes
from sources import fetch, single_source
from torch import Tensor, nn
from workfolder import work_parser

DRAWINGS, PHOTOGRAPHS, BATCH = 2048, 1024, 32
ONE_COLOUR = 0.24
OTHERS = 0.4


def normalised(pixels: Tensor) -> Tensor:
    """(B, H, W, 3) uint8 -> (B, 3, H, W) as EfficientNet-Lite wants it."""
    return (pixels.permute(0, 3, 1, 2).float() - 127) / 128


class Stem(nn.Module):
    """Bytes of pictures to what the last stages read, (B, 208, 9, 9), and to what the classifier's
    last layer reads, (B, 1280)."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.start, self.tail = first_stages(net), last_stages(net)

    def forward(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        maps: Tensor = self.start(normalised(pixels))
        return maps, self.tail(maps)


class Compiled:
    """A `Stem` on one thread through OpenVINO, in bfloat16 where the processor has it."""

    def __init__(self, net: Any) -> None:
        size = IMAGE_SIZE
        example = torch.zeros(1, size, size, 3, dtype=torch.uint8)
        model = ov.convert_model(Stem(net).eval(), example_input=example, input=[-1, size, size, 3])
        hints = {
            "INFERENCE_NUM_THREADS": 1,
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": "bf16",
            "ENABLE_CPU_PINNING": False,  # or several of these processes share one core
        }
        self.request = ov.Core().compile_model(model, "CPU", hints).create_infer_request()

    def __call__(self, pixels: Pixels) -> tuple[NDArray[np.float16], NDArray[np.float32]]:
        """Maps and pooled features."""
        result = self.request.infer([pixels])
        return result[0].astype(np.float16), np.array(result[1])


def write(folder: Path, kind: str, arrays: dict[str, NDArray[np.generic]]) -> None:
    """The next shard of its kind, complete or not at all."""
    number = f"{len(list(folder.glob(f'{kind}-*.features.npy'))):03}-{os.getpid()}"
    for name, array in reversed(arrays.items()):  # features last: they mean complete
        path = folder / f"{kind}-{number}.{name}.npy"
        partial = path.with_suffix(".partial")
        with partial.open("wb") as handle:
            np.save(handle, array)
        partial.replace(path)
    print(f"{kind} {number}", flush=True)


class Studio:
    """Makes views, one shard at a time."""

    def __init__(self, work: Path, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.folder = work / "views"
        self.folder.mkdir(exist_ok=True)
        self.photographs = scenes(work)
        self.drawer = Drawer(work, seed, OTHERS)
        self.album = Album(work, self.drawer, seed)
        self.solid: NDArray[np.bool_] = np.load(work / "train_solid.npy")
        self.sided = np.array([bool(r["sided"]) for r in self.drawer.records])
        self.pixels: Pixels = np.load(work / "train_pixels.npy", mmap_mode="r")
        archive = fetch(single_source("backbone"), work / "downloads")
        net: Any = classifier(archive)
        self.stem = Compiled(net)
        self.classes, self.bias = net.classifier.weight.numpy(), net.classifier.bias.numpy()

    def _piece(self) -> Pixels:
        return crop(self.photographs[self.rng.integers(len(self.photographs))], self.rng)

    def _drawing(self, row: int) -> Pixels:
        mirror = not self.sided[self.drawer.concept[row]] and self.rng.random() < 0.3
        ground = None
        share = OBJECTS_ON_PHOTOGRAPH if self.solid[row] else ON_PHOTOGRAPH
        if self.rng.random() < share:
            ground = square(self._piece(), IMAGE_SIZE).astype(np.float32) / np.float32(255)
        mono = bool(self.drawer.one_colour[row])
        return drawing(self.pixels[row], mirror, mono, ground, self.rng)

    def _photograph(self, row: int) -> Pixels:
        return retaken(np.asarray(Image.open(self.album.paths[row]).convert("RGB")), self.rng)

    def _named(self, kind: str, rows: NDArray[np.int64], view: Callable[[int], Pixels]) -> None:
        """A shard of pictures whose names are known by their numbers."""
        parts = [
            self.stem(np.stack([view(row) for row in rows[at : at + BATCH]]))
            for at in range(0, len(rows), BATCH)
        ]
        maps = np.concatenate([part for part, _ in parts])
        features = np.concatenate([pooled for _, pooled in parts]).astype(np.float16)
        write(self.folder, kind, {"features": features, "maps": maps, "pictures": rows})

    def drawings(self) -> None:
        rows = np.concatenate(
            [self.drawer.pictures(256, ONE_COLOUR) for _ in range(DRAWINGS // 256)]
        )
        self._named("drawings", rows, self._drawing)

    def labelled(self) -> None:
        self._named("labelled", self.album.pictures(PHOTOGRAPHS), self._photograph)

    def scenes(self) -> None:
        """The classifier sees each piece in full size; the model will see it as the service shows
        it, at times mixed with another."""
        maps, features, logits = [], [], []
        for _ in range(PHOTOGRAPHS // BATCH):
            pieces = [self._piece() for _ in range(BATCH)]
            large = np.stack([square(p, IMAGE_SIZE) for p in pieces])
            pictures = np.stack(
                [on_white(p) if self.rng.random() < 0.6 else large[i] for i, p in enumerate(pieces)]
            )
            if self.rng.random() < 0.3:
                share = self.rng.uniform(0.3, 0.7)
                pictures = np.asarray(
                    cv2.addWeighted(large, share, large[::-1].copy(), 1 - share, 0), np.uint8
                )
                large = pictures
            part, pooled = self.stem(pictures)
            maps.append(part)
            features.append(pooled.astype(np.float16))
            scores = self.stem(large)[1] @ self.classes.T + self.bias
            logits.append(scores.astype(np.float16))
        arrays = {"features": features, "maps": maps, "logits": logits}
        write(self.folder, "scenes", {name: np.concatenate(rows) for name, rows in arrays.items()})


def main() -> None:
    parser = work_parser(__doc__, "everyday")
    parser.add_argument("--shards", type=int, default=42, help="of drawings")
    parser.add_argument("--labelled", type=int, default=54, help="of photographs with labels")
    parser.add_argument("--scenes", type=int, default=12, help="of photographs without")
    args = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    there = len(list((args.work / "views").glob("*.features.npy")))
    studio = Studio(args.work, 100 + there + 7 * os.getpid())  # a run that goes on draws anew
    goals = {"drawings": args.shards, "labelled": args.labelled, "scenes": args.scenes}
    while True:  # whichever kind is further behind
        progress = {
            kind: len(list(studio.folder.glob(f"{kind}-*.features.npy"))) / goal
            for kind, goal in goals.items()
        }
        kind = min(progress, key=lambda kind: progress[kind])
        if progress[kind] >= 1:
            break
        {"drawings": studio.drawings, "labelled": studio.labelled, "scenes": studio.scenes}[kind]()


if __name__ == "__main__":
    main()
