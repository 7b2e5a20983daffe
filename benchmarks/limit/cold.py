"""Class vectors that nothing knows yet, against open_clip's own way, and how far both are apart."""

import statistics
import tempfile
from pathlib import Path
from typing import Any, Final

import numpy as np
import open_clip
import torch

from benchmarks import pictures
from benchmarks.checkpoint import open_clip_folder
from benchmarks.inside import (
    class_vectors,
    encoder,
    fresh_ensemble,
    imagenet_sample,
    imagenet_templates,
)
from benchmarks.peers.agreement import reference_rows
from benchmarks.pictures import SMALL
from benchmarks.record import Cell, Result
from benchmarks.rounds import Effort, Spread, figure, in_turns, seconds_of
from models.encoder import Encoder
from models.info import Floats

# of the 50 labels, how many the slow side does in a round: it takes seconds for each
REFERENCE_LABELS: Final = 4
PICTURES: Final = 8
TITLE: Final = "Cold build of 50 sampled ImageNet labels x 80 templates, ViT-B-32"


def cold(effort: Effort) -> Result:
    """Seconds for a label with 80 templates, in turns; and the differences of the vectors."""
    labels = imagenet_sample()
    templates = imagenet_templates()
    vectors: dict[str, Floats] = {}
    model, tokenizer = reference_model()

    def seconds_of_open_clip() -> float:
        def build() -> None:
            vectors["open_clip"] = by_open_clip(model, tokenizer, labels[:REFERENCE_LABELS])

        return seconds_of(build) / REFERENCE_LABELS

    def seconds_of_openvocab(name: str, with_encoder: Encoder) -> float:
        ensemble = fresh_ensemble(with_encoder)

        def build() -> None:
            vectors[name] = class_vectors(ensemble, labels, templates)

        return seconds_of(build) / len(labels)

    with (
        tempfile.TemporaryDirectory() as folder,
        encoder("bf16", exports=Path(folder)) as bf16,
        encoder("fp32", exports=Path(folder)) as fp32,
        encoder("bf16") as torch_bf16,
    ):
        sides = {
            "open_clip": seconds_of_open_clip,
            "bf16": lambda: seconds_of_openvocab("bf16", bf16),
            "fp32": lambda: seconds_of_openvocab("fp32", fp32),
            "bf16 in torch": lambda: seconds_of_openvocab("bf16 in torch", torch_bf16),
        }
        times = in_turns(sides, max(1, effort.rounds - 1))
        scale = fp32.info.scale
    image_rows = reference_rows([path.read_bytes() for path in pictures.jpegs(SMALL, PICTURES)])
    reference = statistics.median(times["open_clip"])
    rows: list[list[Cell]] = []
    bars: dict[str, float] = {}
    for name, seconds in times.items():
        spread = Spread.of(seconds)
        row: list[Cell] = [name, spread.text(), figure(len(labels) * spread.median)]
        if name == "open_clip":
            rows.append([*row, "", "", "", ""])
            continue
        bars[f"limit.cold.{name.replace(' ', '_')}"] = reference / spread.median
        faster = f"{figure(reference / spread.median)}x"
        rows.append([*row, faster, *_apart(vectors, name, image_rows, scale)])
    notes = [
        "bf16 and fp32 run in OpenVINO from an export, as a CPU serves them; torch serves a model "
        "that cannot be exported.",
        f"open_clip's `build_zero_shot_classifier` (fp32) did {REFERENCE_LABELS} of the labels a "
        f"round, ours all {len(labels)}; its time for 50 is scaled from there.",
        f"scale x cosine: against {PICTURES} pictures encoded in fp32, scale {scale:.0f}.",
    ]
    columns = [
        "side", "seconds per label, median (range)", "50 labels, seconds", "faster by",
        "largest 1-cos", "largest difference of scale x cosine", "best label equal",
    ]  # fmt: skip
    return Result(TITLE, columns, rows, notes, bars)


def reference_model() -> tuple[Any, Any]:
    """open_clip's own model of the same weights in fp32, and its tokenizer."""
    source = f"local-dir:{open_clip_folder()}"
    model, _, _ = open_clip.create_model_and_transforms(source)
    return model.eval(), open_clip.get_tokenizer(source)


@torch.inference_mode()
def by_open_clip(model: Any, tokenizer: Any, labels: tuple[str, ...]) -> Floats:
    """(labels, D) by `build_zero_shot_classifier`."""
    vectors = open_clip.build_zero_shot_classifier(
        model, tokenizer, labels, open_clip.OPENAI_IMAGENET_TEMPLATES
    )
    return np.asarray(vectors.T, np.float32)


def _apart(vectors: dict[str, Floats], name: str, image_rows: Floats, scale: float) -> list[Cell]:
    reference, measured = vectors["open_clip"], vectors[name][:REFERENCE_LABELS]
    cosines = (reference.astype(np.float64) * measured).sum(1)
    expected_logits, logits = scale * image_rows @ reference.T, scale * image_rows @ measured.T
    return [
        f"{(1 - cosines).max():.1e}",
        f"{np.abs(expected_logits - logits).max():.1e}",
        f"{100 * (expected_logits.argmax(1) == logits.argmax(1)).mean():.0f} %",
    ]
