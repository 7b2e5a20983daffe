"""Write the measured parts of README.md anew from figures.json: `make eval` ends with this.

Text outside the markers is written by hand and stays. Knows no model and no pictures.
"""

import argparse
import json
import re
from itertools import islice
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
MARKED = re.compile(r"(<!-- figures: (\S+) -->\n).*?(<!-- end figures -->)", re.DOTALL)
SETS = {
    "photographs_chosen": "{pictures} photographs of single things on white, among their "
    "{labels} everyday names",
    "photographs": "{pictures} photographs, {labels} labels made from Tux Paint's own "
    "descriptions, rare animals and plants among them",
    "cartoons": "{pictures} cartoons of Tux Paint, {labels} labels, in styles never seen",
    "twemoji": "{pictures:,} Twemoji drawings, all their names at once",
}
FORMS = ("none", "simple", "imagenet", "everyday")
WORST = {"photographs_chosen": 10, "cartoons": 8, "twemoji": 10}


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _table(figures: dict[str, Any], about: str) -> str:
    lines = [
        f"**{about.format(**figures)}**",
        "",
        "| templates | top-1 | top-5 | ten-way | top-1 to none, points (95 %) |",
        "|---|---|---|---|---|",
    ]
    for form in (f for f in FORMS if f in figures):
        row = figures[form]
        cells = [f"`{form}`", *(_percent(row[k]) for k in ("top1", "top5", "ten_way")), ""]
        if form != "none":
            mean, low, high = (100 * row["against_none"][k] for k in ("mean", "low", "high"))
            cells[-1] = f"{mean:+.1f} ({low:+.1f} to {high:+.1f})"
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _accuracy(figures: dict[str, Any]) -> str:
    parts = [_table(figures[name], about) for name, about in SETS.items()]
    twemoji = figures["twemoji"]
    never = twemoji["everyday"]["never_trained"]
    parts.append(
        f"Of these, {twemoji['never_trained_pictures']} concepts had no drawing in the training: "
        f"{_percent(never['top1'])} top-1, {_percent(never['top5'])} top-5, "
        f"{_percent(never['ten_way'])} in ten-way choices. (Their words were read by the text "
        "tower like any others, and some are classes of the classifier that the image tower began "
        "as.)"
    )
    lines = []
    for name, title in (
        ("photographs_chosen", "everyday names"),
        ("photographs", "all photographs"),
        ("twemoji", "Twemoji"),
    ):
        calibration = figures[name]["calibration"]
        lines.append(
            f"| {title} | {calibration['all_labels']:.3f} | "
            f"{_percent(calibration['all_labels_mean_confidence'])} | "
            f"{_percent(figures[name]['everyday']['top1'])} |"
        )
    parts.append(
        "**Calibration**, with the model's own scale of "
        f"{figures['logit_scale']:.1f} (expected calibration error, 15 bins, Guo et al. 2017)\n\n"
        "| pictures | error | mean score of the best label | right |\n|---|---|---|---|\n"
        + "\n".join(lines)
    )
    drawings, photographs = figures["samples"]["drawings"], figures["samples"]["photographs"]
    parts.append(
        "**Samples** under `tests/samples/` and `tests/samples/photographs/`, all names of the "
        f"folder as labels: {drawings['right']} of {drawings['of']} drawings right; photographs "
        f"{photographs['right']} of {photographs['of']}."
    )
    return "\n\n".join(parts)


def _failures(figures: dict[str, Any]) -> str:
    lines = []
    for name, title in (
        ("photographs_chosen", "Photographs"),
        ("cartoons", "Cartoons"),
        ("twemoji", "Drawings"),
    ):
        answers = {w["label"]: w["answer"] for w in figures[name]["worst"]}
        examples = (
            f'{label} ("{answer}")' for label, answer in islice(answers.items(), WORST[name])
        )
        lines.append(f"- **{title}** (answered): {', '.join(examples)}.")
    return "\n".join(lines)


def filled(card: str, figures: dict[str, Any]) -> str:
    """The card with what stands between its markers made anew."""
    parts = {"accuracy": _accuracy, "failures": _failures}
    return MARKED.sub(lambda m: f"{m[1]}\n{parts[m[2]](figures)}\n\n{m[3]}", card)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--figures", type=Path, default=HERE / "figures.json")
    parser.add_argument("--card", type=Path, default=HERE / "README.md")
    args = parser.parse_args()
    card = args.card.read_text("utf-8")
    args.card.write_text(filled(card, json.loads(args.figures.read_text())), "utf-8")


if __name__ == "__main__":
    main()
