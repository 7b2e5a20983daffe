"""Measure the weights file on pictures never trained on, and write figures.json.

Photographs and cartoons of Tux Paint, the emoji style Twemoji, every template set, the sample
pictures, and the time of loading and encoding.
"""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from holdout import TRAINED
from measured import Model
from measures import Array, Rows, calibration, choices, difference, draws, ranking, softmax
from numpy.typing import NDArray
from open_clip import OPENAI_IMAGENET_TEMPLATES
from speed import speed
from stamps import Labelled, cartoons, chosen, photographs
from workfolder import work_parser

from prompts import load_sets

HERE = Path(__file__).resolve().parent
SAMPLES = HERE.parents[1] / "tests" / "samples"
WAYS, ROUNDS, SEED = 10, 20, 20
OWN = "everyday"  # the model's template set
FORMS: dict[str, list[str]] = {
    "none": ["{}"],
    "simple": list(load_sets()["simple"].templates),
    "imagenet": [form("{}") for form in OPENAI_IMAGENET_TEMPLATES],
    OWN: list(load_sets()[OWN].templates),
}


def twemoji(work: Path) -> tuple[Labelled, NDArray[np.bool_]]:
    """The validation pictures, and which were never trained."""
    records: list[dict[str, str]] = json.loads((work / "twemoji.json").read_text())
    paths = [work / "twemoji" / f"{r['name']}.png" for r in records]
    never = np.array([r["group"] != TRAINED for r in records])
    return Labelled(paths, [r["label"] for r in records]), never


class Measured:
    """One set of pictures, under every template set."""

    def __init__(
        self, model: Model, pictures: Labelled, forms: tuple[str, ...] = tuple(FORMS)
    ) -> None:
        self.names = sorted(set(pictures.labels))
        self.own: Rows = np.array([self.names.index(x) for x in pictures.labels])
        self.columns = draws(self.own, np.arange(len(self.names)), WAYS, ROUNDS, SEED)
        images = model.images(list(pictures.paths))
        self.similarity = {form: images @ model.labels(self.names, FORMS[form]).T for form in forms}
        self.scale = model.scale

    def figures(self, form: str, use: NDArray[np.bool_] | None = None) -> dict[str, Any]:
        rows = slice(None) if use is None else use
        part, truth = self.similarity[form][rows], self.own[rows]
        return ranking(part, truth) | {"ten_way": choices(part, self.columns[rows])}

    def all(self) -> dict[str, Any]:
        """Under every form, with the difference from none and its 95 % interval."""
        right = {f: s.argmax(1) == self.own for f, s in self.similarity.items()}
        result: dict[str, Any] = {"pictures": len(self.own), "labels": len(self.names)}
        for form in self.similarity:
            result[form] = self.figures(form)
            if form != "none":
                result[form]["against_none"] = difference(right[form], right["none"], SEED)
        return result

    def calibration(self) -> dict[str, float]:
        """Expected calibration error with the model's own scale, over all labels and of ten."""
        return calibration(self.similarity[OWN], self.own, self.columns[:, 0], self.scale)

    def worst(self, pictures: Labelled, count: int) -> list[dict[str, Any]]:
        """Where the right name ranks lowest, and what is answered instead."""
        similarity = self.similarity[OWN]
        of_label = similarity[np.arange(len(self.own)), self.own][:, None]
        rank = (similarity > of_label).sum(1) + 1
        return [
            {
                "picture": pictures.paths[i].name,
                "label": pictures.labels[i],
                "rank": int(rank[i]),
                "answer": self.names[int(similarity[i].argmax())],
            }
            for i in np.argsort(-rank)[:count]
        ]


def samples(model: Model, folder: Path) -> dict[str, Any]:
    """The pictures under tests/samples, among all their names."""
    paths = sorted(p for p in folder.glob("*") if p.suffix in {".png", ".jpg", ".webp"})
    names = [p.stem for p in paths]
    similarity = model.images(list(paths)) @ model.labels(names, FORMS[OWN]).T
    logits: Array = similarity * model.scale
    odds = softmax(logits)
    answers = {
        path.name: {"answer": names[int(row.argmax())], "score": round(float(row.max()), 4)}
        for path, row in zip(paths, odds, strict=True)
    }
    right = sum(a["answer"] == Path(n).stem for n, a in answers.items())
    return {"right": right, "of": len(paths), "answers": answers}


PARTS = ("photographs", "photographs_chosen", "cartoons", "twemoji", "samples", "speed")


def measure(part: str, model: Model, work: Path, folder: Path) -> Any:
    """One entry of figures.json."""
    if part == "samples":
        kinds = {"drawings": SAMPLES, "photographs": SAMPLES / "photographs"}
        return {kind: samples(model, place) for kind, place in kinds.items()}
    if part == "speed":
        return speed(folder)
    if part == "twemoji":
        pictures, never = twemoji(work)
        measured = Measured(model, pictures, ("none", "simple", OWN))  # the 80 take the longest
        result = measured.all() | {"never_trained_pictures": int(never.sum())}
        for form in measured.similarity:
            result[form]["never_trained"] = measured.figures(form, never)
    else:
        load = {"photographs": photographs, "photographs_chosen": chosen, "cartoons": cartoons}
        pictures = load[part](work)
        measured = Measured(model, pictures)
        result = measured.all()
    return result | {
        "calibration": measured.calibration(),
        "worst": measured.worst(pictures, 30),
    }


def main() -> None:
    parser = work_parser(__doc__, "everyday")
    parser.add_argument("--model", type=Path, default=HERE)
    parser.add_argument("--figures", type=Path, default=HERE / "figures.json")
    parser.add_argument("--only", action="append", choices=PARTS, help="measure these anew")
    args = parser.parse_args()
    model = Model(args.model)
    weights = args.model / "open_clip_model.safetensors"
    head = {
        "weights_sha256": hashlib.sha256(weights.read_bytes()).hexdigest(),
        "weights_bytes": weights.stat().st_size,
        "parameters": sum(p.numel() for p in model.model.parameters()),
        "logit_scale": round(float(model.scale), 4),
        "ten_way_rounds": ROUNDS,
        "ten_way_seed": SEED,
    }
    for part in args.only or PARTS:
        figures = measure(part, model, args.work, args.model)
        # read again: another process may have written its part meanwhile
        there = json.loads(args.figures.read_text()) if args.figures.exists() else {}
        measured = there if there.get("weights_sha256") == head["weights_sha256"] else {}
        args.figures.write_text(json.dumps(measured | head | {part: figures}, indent=2) + "\n")
        print(part, flush=True)


if __name__ == "__main__":
    main()
