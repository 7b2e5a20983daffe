"""Measure the weights file on an emoji style never trained on, and write figures.json.

Also the sample pictures, photographs if they are at hand, and the time of loading and encoding.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from holdout import NEVER, TEXT_ONLY, TRAINED
from measured import Model
from measures import Array, Rows, calibration, choices, draws, ranking, softmax
from numpy.typing import NDArray
from open_clip import OPENAI_IMAGENET_TEMPLATES
from photographs import photographs
from speed import speed
from texts import templates
from workfolder import work_parser

from prompts import load_sets

HERE = Path(__file__).resolve().parent
SAMPLES = HERE.parents[1] / "tests" / "samples"
WAYS, ROUNDS, SEED = 10, 20, 20
README_LABELS = ["cat", "dog", "pizza", "rocket"]
FORMS: dict[str, list[str]] = {
    "bare": ["{}"],
    "one_template": ["a pictogram of {}."],
    "pictogram": list(load_sets()["pictogram"].templates),
    "training": templates(),
    "imagenet": [form("{}") for form in OPENAI_IMAGENET_TEMPLATES],
}


class Twemoji:
    """The validation pictures' labels, and which were held out of training."""

    def __init__(self, work: Path) -> None:
        records: list[dict[str, str]] = json.loads((work / "twemoji.json").read_text())
        self.paths = [work / "twemoji" / f"{r['name']}.png" for r in records]
        self.labels = [r["label"] for r in records]
        group = np.array([r["group"] for r in records])
        flag = np.array(["flag of" in x for x in self.labels])
        self.groups: dict[str, NDArray[np.bool_]] = {
            "all": np.ones(len(records), bool),
            "trained": group == TRAINED,
            "never_trained": group != TRAINED,
            "never_trained_text_read": group == TEXT_ONLY,
            "never_trained_never_read": group == NEVER,
            "without_flags": ~flag,
            "flags": flag,
        }


def against_all(similarity: Array, groups: dict[str, NDArray[np.bool_]]) -> dict[str, Any]:
    """For each group of pictures: top-1 and top-5 over all labels, ten-way choices."""
    every = np.arange(len(similarity))
    columns = draws(every, every, WAYS, ROUNDS, SEED)
    result: dict[str, Any] = {}
    for name, use in groups.items():
        part = similarity[use]
        result[name] = ranking(part, every[use]) | {"ten_way": choices(part, columns[use])}
        if name.startswith("never_trained"):
            pool = every[groups["never_trained"]]
            truth: Rows = np.searchsorted(pool, every[use])
            inside = part[:, pool]
            result[name]["among_never_trained"] = {
                "labels": len(pool),
                **ranking(inside, truth),
                "ten_way": choices(inside, draws(truth, np.arange(len(pool)), WAYS, ROUNDS, SEED)),
            }
    return result


def sample_choices(model: Model, folder: Path, forms: list[str]) -> dict[str, Any]:
    """The pictures under tests/samples: every label against all, and the README's four."""
    paths = sorted(p for p in folder.glob("*") if p.suffix in {".png", ".jpg", ".webp"})
    names = [p.stem for p in paths]
    images = model.images(list(paths))
    result: dict[str, Any] = {}
    for title, chosen in (("all", names), ("readme", README_LABELS)):
        similarity = images @ model.labels(chosen, forms).T
        logits: Array = similarity * model.scale
        odds = softmax(logits)
        result[title] = {
            name: {"answer": chosen[int(row.argmax())], "score": round(float(row.max()), 4)}
            for name, row in zip(names, odds, strict=True)
            if name in chosen
        }
    result["right"] = sum(k == v["answer"] for k, v in result["all"].items())
    result["of"] = len(names)
    return result


def main() -> None:
    parser = work_parser(__doc__, "pictogram")
    parser.add_argument("--model", type=Path, default=HERE)
    parser.add_argument("--figures", type=Path, default=HERE / "figures.json")
    args = parser.parse_args()
    model = Model(args.model)
    twemoji = Twemoji(args.work)
    images = model.images(list(twemoji.paths))
    weights = args.model / "open_clip_model.safetensors"
    figures: dict[str, Any] = {
        "weights_sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "weights_bytes": weights.stat().st_size,
        "parameters": sum(p.numel() for p in model.model.parameters()),
        "logit_scale": round(float(model.scale), 4),
        "validation": "twemoji 1.2.5, every picture but skin-tone variants, 256 pixels on white",
        "pictures": {name: int(use.sum()) for name, use in twemoji.groups.items()},
        "ten_way_rounds": ROUNDS,
        "ten_way_seed": SEED,
        "twemoji": {},
    }
    for title, forms in FORMS.items():
        similarity = images @ model.labels(twemoji.labels, forms).T
        figures["twemoji"][title] = against_all(similarity, twemoji.groups)
        if title == "pictogram":
            every = np.arange(len(similarity))
            columns = draws(every, every, WAYS, 1, SEED)[:, 0]
            figures["calibration"] = calibration(similarity, every, columns, model.scale)
    figures["samples"] = sample_choices(model, SAMPLES, FORMS["pictogram"])
    figures["photographs"] = photographs(model, args.work, FORMS)
    figures["speed"] = speed(args.model)
    args.figures.write_text(json.dumps(figures, indent=2) + "\n")
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
