"""How far the answers are from open_clip's own functions in fp32, in the terms users see.

    python -m benchmarks.quality.exactness

Two sides in one run: open_clip's transform, towers and `build_zero_shot_classifier`, and the
parts that answer a request (decoding, encoder, ensemble). Pictures are the committed samples, each
in many poses, so that margins between labels vary; the random towers run at the temperature that
trained models reach.
"""

import io
import platform
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from PIL import Image

from app.classify.templates import template_sets
from app.images.decode import decode
from app.images.limits import ImageLimits
from benchmarks.checkpoint import random_checkpoint
from benchmarks.inside import class_vectors, fresh_ensemble
from benchmarks.record import publish
from models.catalog import catalog
from models.encoder import Encoder
from models.info import Floats
from models.loader import load
from prompts import load_vocabularies

SAMPLES = Path(__file__).parents[2] / "tests" / "samples"
POSES = 50
RANDOM_POSES = 2


def pictures(poses: int, kind: str = "PNG", edge: int = 0) -> list[bytes]:
    """The samples on white, turned, cut and tinted a little; `edge` x `edge`, or as they come."""
    dice = np.random.default_rng(0)
    files = []
    for path in sorted(SAMPLES.iterdir()):
        if path.suffix not in (".png", ".jpg", ".webp"):
            continue
        sample = Image.open(path).convert("RGBA")
        base = Image.alpha_composite(Image.new("RGBA", sample.size, "white"), sample).convert("RGB")
        for _ in range(poses):
            angle, left, top = dice.uniform(-25, 25), *dice.integers(0, 40, 2)
            turned = base.rotate(angle, Image.Resampling.BICUBIC, fillcolor="white")
            tint = np.asarray(turned.crop((left, top, *turned.size)), np.float32)
            tint = np.clip(tint * dice.uniform(0.7, 1.0, 3), 0, 255)
            out = io.BytesIO()
            posed = Image.fromarray(tint.astype(np.uint8))
            posed = posed.resize((edge, edge), Image.Resampling.BICUBIC) if edge else posed
            posed.save(out, kind, quality=90)
            files.append(out.getvalue())
    return files


@torch.inference_mode()
def by_open_clip(
    loader: str, files: list[bytes], labels: tuple[str, ...], templates: tuple[str, ...]
) -> Floats:
    """scale x cosine (pictures, labels), fp32."""
    model, _, transform = open_clip.create_model_and_transforms(loader)
    model.eval()
    classes = open_clip.build_zero_shot_classifier(
        model, open_clip.get_tokenizer(loader), labels, templates
    )
    rows = [
        model.encode_image(
            transform(Image.open(io.BytesIO(data)).convert("RGB"))[None], normalize=True
        )
        for data in files
    ]
    return np.asarray(model.logit_scale.exp() * torch.cat(rows) @ classes, np.float32)


def by_us(
    encoder: Encoder,
    files: list[bytes],
    labels: tuple[str, ...],
    templates: tuple[str, ...],
    exact: bool = True,
) -> Floats:
    """The same by the parts that answer a request."""
    classes = class_vectors(fresh_ensemble(encoder), labels, templates)
    spec, limits = encoder.info.image, ImageLimits()
    pixels = [decode(data, spec, limits, exact=exact).pixels for data in files]
    rows = np.vstack(
        [encoder.submit_images(pixels[i : i + 32]).result() for i in range(0, len(pixels), 32)]
    )
    return np.asarray(encoder.info.scale * rows @ classes.T, np.float32)


def compare(reference: Floats, rows: Floats) -> dict[str, Any]:
    """The three figures of section "Exactness"."""
    probabilities = [torch.from_numpy(x).softmax(-1).numpy() for x in (reference, rows)]
    return {
        "pictures": len(reference),
        "labels": reference.shape[1],
        "largest_difference_of_scale_x_cosine": float(np.abs(reference - rows).max()),
        "largest_difference_of_probability": float(
            np.abs(probabilities[0] - probabilities[1]).max()
        ),
        "share_of_equal_top1": float((reference.argmax(1) == rows.argmax(1)).mean()),
    }


def main() -> None:
    bundled = catalog()["pictogram"].loader
    vocabulary = load_vocabularies()["emoji-concepts"].labels
    few = vocabulary[:5]
    results: dict[str, Any] = {}
    templates = template_sets()
    for name, loader, labels, chosen, poses in (
        ("pictogram", bundled, vocabulary, "pictogram", POSES),
        ("ViT-B-32 (random)", None, few, "simple", RANDOM_POSES),
        ("RN50 (random)", None, few, "simple", RANDOM_POSES),
    ):
        with tempfile.TemporaryDirectory() as folder:
            source = loader or random_checkpoint(name.split()[0], Path(folder))
            files = pictures(poses)
            reference = by_open_clip(source, files, labels, templates[chosen].templates)
            for precision in ("fp32", "bf16"):
                encoder = load(source, precision=precision, device="cpu")
                rows = by_us(encoder, files, labels, templates[chosen].templates)
                encoder.close()
                results[f"{name}, {precision}"] = compare(reference, rows)
    encoder = load("pictogram", device="cpu")
    for edge in (640, 3000):
        files = pictures(POSES if edge < 1000 else RANDOM_POSES, "JPEG", edge)
        sides = [
            by_us(encoder, files, vocabulary, templates["pictogram"].templates, exact)
            for exact in (True, False)
        ]
        results[f"pictogram, JPEG of {edge} x {edge}, reduced against full"] = compare(*sides)
    encoder.close()
    document = {
        "what": "answers against open_clip in fp32",
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "open_clip": open_clip.__version__,
        "results": results,
    }
    publish("exactness", document)


if __name__ == "__main__":
    main()
