"""Measure the weights file itself, through stock open_clip, on an emoji style never trained on.

Writes figures.json: top-1 and top-5 over every held-out concept, ten-way choices, the samples.
"""

import argparse
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from batches import templates
from numpy.typing import NDArray
from PIL import Image

Array = NDArray[np.float32]
HERE = Path(__file__).resolve().parent
SAMPLES = HERE.parents[1] / "tests" / "samples"
ONE = "a pictogram of {}."
WAYS, ROUNDS, SEED = 10, 20, 20
README_LABELS = ["cat", "dog", "pizza", "rocket"]


class Model:
    """The exported directory, loaded as any user of open_clip would load it."""

    def __init__(self, folder: Path) -> None:
        name = f"local-dir:{folder}"
        self.model, _, self.preprocess = open_clip.create_model_and_transforms(name)
        self.model.eval().requires_grad_(False)
        self.tokenizer = open_clip.get_tokenizer(name)

    @torch.inference_mode()
    def images(self, paths: list[Path]) -> Array:
        """One unit row per picture."""
        rows = []
        for at in range(0, len(paths), 128):
            pictures = [Image.open(p).convert("RGB") for p in paths[at : at + 128]]
            batch = torch.stack([self.preprocess(p) for p in pictures])
            rows.append(self.model.encode_image(batch, normalize=True).numpy())
        return np.concatenate(rows)

    @torch.inference_mode()
    def labels(self, labels: list[str], forms: list[str]) -> Array:
        """CLIP's prompt ensemble: unit rows, mean over the templates, unit rows again."""
        total = np.zeros(0, np.float32)
        for form in forms:
            rows = []
            for at in range(0, len(labels), 256):
                prompts = [form.replace("{}", x) for x in labels[at : at + 256]]
                tokens = self.tokenizer(prompts)
                rows.append(self.model.encode_text(tokens, normalize=True).numpy())
            part = np.concatenate(rows)
            total = part if total.size == 0 else total + part
        unit: Array = total / np.linalg.norm(total, axis=1, keepdims=True)
        return unit


def ranking(similarity: Array) -> dict[str, float]:
    """Share of rows whose own column is first, or among the first five."""
    own = np.diag(similarity)[:, None]
    ahead = (similarity > own).sum(1)
    return {f"top{k}": round(float((ahead < k).mean()), 4) for k in (1, 5)}


def choices(similarity: Array, ways: int, rounds: int, seed: int) -> float:
    """Share right among the true label and `ways - 1` random others, over `rounds` draws each."""
    rng = np.random.default_rng(seed)
    n = len(similarity)
    right = 0
    for row in range(n):
        for _ in range(rounds):
            others = rng.choice(n - 1, ways - 1, replace=False)
            others += others >= row  # skip the true label
            right += bool((similarity[row, others] < similarity[row, row]).all())
    return round(right / (n * rounds), 4)


def sample_choices(model: Model, folder: Path, forms: list[str]) -> dict[str, Any]:
    """The pictures under tests/samples: every label against all, and the README's four."""
    paths = sorted(p for p in folder.glob("*") if p.suffix in {".png", ".jpg", ".webp"})
    if not paths:
        return {}
    names = [p.stem for p in paths]
    images = model.images(paths)
    scale = float(model.model.logit_scale.exp())
    result: dict[str, Any] = {}
    for title, chosen in (("all", names), ("readme", README_LABELS)):
        logits = scale * images @ model.labels(chosen, forms).T
        odds = np.exp(logits - logits.max(1, keepdims=True))
        odds /= odds.sum(1, keepdims=True)
        result[title] = {
            name: {"answer": chosen[int(row.argmax())], "score": round(float(row.max()), 4)}
            for name, row in zip(names, odds, strict=True)
            if name in chosen
        }
    result["right"] = sum(k == v["answer"] for k, v in result["all"].items())
    result["of"] = len(names)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    home = os.environ.get("WORK", str(Path.home() / ".cache" / "openvocab-pictogram"))
    parser.add_argument("--work", type=Path, default=Path(home))
    parser.add_argument("--model", type=Path, default=HERE)
    parser.add_argument("--figures", type=Path, default=HERE / "figures.json")
    parser.add_argument("--worst", action="store_true", help="print confusions")
    args = parser.parse_args()
    model = Model(args.model)
    held_out: dict[str, str] = json.loads((args.work / "twemoji.json").read_text())
    labels = list(held_out.values())
    images = model.images([args.work / "twemoji" / f"{name}.png" for name in held_out])
    weights = args.model / "open_clip_model.safetensors"
    figures: dict[str, Any] = {
        "weights_sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "weights_bytes": weights.stat().st_size,
        "parameters": sum(p.numel() for p in model.model.parameters()),
        "logit_scale": round(float(model.model.logit_scale.exp()), 4),
        "held_out": "twemoji 1.2.5, every picture but skin-tone variants, 256 pixels on white",
        "concepts": len(labels),
        "ten_way_rounds": ROUNDS,
        "ten_way_seed": SEED,
    }
    for title, forms in (("bare", ["{}"]), ("one_template", [ONE]), ("ensemble", templates())):
        similarity = images @ model.labels(labels, forms).T
        figures[title] = ranking(similarity)
        figures[title]["ten_way"] = choices(similarity, WAYS, ROUNDS, SEED)
    no_flag = np.array(["flag of" not in x for x in labels])
    part = similarity[no_flag][:, no_flag]
    figures["ensemble_without_flags"] = {
        "concepts": int(no_flag.sum()),
        **ranking(part),
        "ten_way": choices(part, WAYS, ROUNDS, SEED),
    }
    if SAMPLES.is_dir():
        figures["samples"] = sample_choices(model, SAMPLES, templates())
    if args.worst:
        rank = (similarity > np.diag(similarity)[:, None]).sum(1)
        for i in np.argsort(-rank)[:60]:
            print(f"{labels[i]}: rank {rank[i]}, answered {labels[int(similarity[i].argmax())]}")
    args.figures.write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
