"""How good pictogram is on what it was never trained on: figures for its card and the README.

    make -C models/pictogram heldout         once: WORK/held-out, a folder for each concept
    python -m benchmarks.quality.drawings FOLDER      benchmarks/results/quality.json, and the card

Zero-shot figures, templates and shots are those of `openvocab eval`. Examples, calibration and
"none of these" are measured on a live server, over HTTP, each on pictures that it was not told of.
"""

import argparse
import json
import random
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import httpx

from benchmarks.folders import RESULTS
from benchmarks.quality.evaluated import evaluated
from benchmarks.record import Cell, Result
from benchmarks.reliability import page as reliability
from benchmarks.report import MARKED, NOT_MEASURED
from benchmarks.servers import openvocab

CARD: Final = Path(__file__).parents[2] / "models" / "pictogram" / "README.md"

# labels of a set, and pictures of each that it is shown; as many labels again are the others
LABELS: Final = 40
SHOWN: Final = (2, 3)
DRAWS: Final = 5

# at most so many images in one request
SENT: Final = 200

Labelled = list[tuple[Path, str]]


def taught(folder: Path) -> list[Result]:
    """Examples, calibration and abstaining on a live server, means of the draws."""
    pictures = {one.name: sorted(one.glob("*.png")) for one in folder.iterdir() if one.is_dir()}
    enough = sorted(name for name, files in pictures.items() if len(files) > max(SHOWN) + 1)
    examples: dict[int, list[float]] = {shown: [] for shown in (0, *SHOWN)}
    honest: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as name, openvocab("", Path(name)) as server:
        for draw in range(DRAWS):
            chance = random.Random(draw)
            names = chance.sample(enough, 2 * LABELS)
            labels, others = names[:LABELS], names[LABELS:]
            mixed = {one: chance.sample(pictures[one], len(pictures[one])) for one in names}
            unseen = [(file, one) for one in labels for file in mixed[one][max(SHOWN) :]]
            url = f"/labelsets/draw-{draw}"
            server.client.put(f"{url}?wait=true", json={"labels": labels}).raise_for_status()
            for shown in (0, *SHOWN):
                if shown:
                    _show(server.client, url, {one: mixed[one][:shown] for one in labels})
                answers = _answers(server.client, f"draw-{draw}", unseen)
                examples[shown].append(_right(answers, unseen))
            server.client.request("DELETE", f"{url}/examples?wait=true").raise_for_status()
            honest.append(_honest(server.client, f"draw-{draw}", labels, others, mixed))
    return [_examples_table(examples), _honest_table(honest)]


def _show(client: httpx.Client, url: str, examples: dict[str, list[Path]]) -> None:
    for label, pictures in examples.items():
        files = _form(pictures)
        sent = client.post(f"{url}/examples?wait=true", data={"label": label}, files=files)
        sent.raise_for_status()


def _honest(
    client: httpx.Client, name: str, labels: Sequence[str], others: Sequence[str],
    pictures: dict[str, list[Path]],
) -> dict[str, float]:  # fmt: skip
    """One half calibrates, of the labels' pictures and of others; the other half is asked."""
    told: Labelled = []
    asked: Labelled = []
    for one in (*labels, *others):
        files, label = pictures[one], one if one in labels else ""
        told += [(file, label) for file in files[: len(files) // 2]]
        asked += [(file, label) for file in files[len(files) // 2 :]]
    before = _answers(client, name, asked)
    sent = client.post(
        f"/labelsets/{name}/calibrate",
        data={"label": [label for _, label in told]},
        files=_form([file for file, _ in told]),
    )
    sent.raise_for_status()
    after = _answers(client, name, asked, abstain="true")
    given = [
        (one, label) for one, (_, label) in zip(after, asked, strict=True) if one["predictions"]
    ]
    own = [one for one, (_, label) in zip(after, asked, strict=True) if label]
    foreign = [one for one, (_, label) in zip(after, asked, strict=True) if not label]
    wrong = sum(one["predictions"][0]["label"] != label for one, label in given)
    return {
        "wrong before": 1 - _right(before, asked),
        "wrong after": wrong / max(1, len(given)),
        "answered": sum(bool(one["predictions"]) for one in own) / len(own),
        "refused": sum(not one["predictions"] for one in foreign) / len(foreign),
    }


def _answers(
    client: httpx.Client, labelset: str, asked: Labelled, **fields: str
) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for start in range(0, len(asked), SENT):
        files = [
            ("image", (file.name, file.read_bytes())) for file, _ in asked[start : start + SENT]
        ]
        data = {"labelset": labelset, "top_k": "1", **fields}
        answer = client.post("/classify/batch", data=data, files=files)
        answer.raise_for_status()
        found += [one["result"] for one in answer.json()["results"]]
    return found


def _right(answers: Sequence[dict[str, Any]], asked: Labelled) -> float:
    pairs = zip(answers, asked, strict=True)
    return sum(_best(one) == label for one, (_, label) in pairs) / len(asked)


def _best(answer: dict[str, Any]) -> str:
    """The label that was answered; "" for none of these."""
    return str(answer["predictions"][0]["label"]) if answer["predictions"] else ""


def _form(pictures: Sequence[Path]) -> list[tuple[str, tuple[str, bytes]]]:
    return [("image", (file.name, file.read_bytes())) for file in pictures]


def _mean(values: Sequence[float]) -> str:
    return f"{sum(values) / len(values):.1%} ({100 * min(values):.1f} to {100 * max(values):.1f})"


def _examples_table(found: dict[int, list[float]]) -> Result:
    rows: list[list[Cell]] = [[shown or "none", _mean(values)] for shown, values in found.items()]
    return Result(
        f"Examples of a label set of {LABELS} of these concepts, over HTTP",
        ["examples a label", f"right, mean of {DRAWS} draws (lowest to highest)"],
        rows,
        ["All rows are of the same pictures, none of which is ever an example."],
    )


def _honest_table(found: list[dict[str, float]]) -> Result:
    def mean(key: str) -> str:
        return _mean([one[key] for one in found])

    rows: list[list[Cell]] = [
        ["answers that are wrong, every picture answered", mean("wrong before")],
        ["answers that are wrong, calibrated, `abstain=true`", mean("wrong after")],
        ["pictures of the labels that are answered", mean("answered")],
        ["pictures of something else that are refused", mean("refused")],
    ]
    return Result(
        f'"None of these": {LABELS} concepts as labels, {LABELS} others mixed in, over HTTP',
        ["share", f"mean of {DRAWS} draws (lowest to highest)"],
        rows,
        ["Half of the pictures calibrate, for 5 % wrong answers; the other half is asked."],
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="WORK/held-out")
    begun, folder = time.monotonic(), parser.parse_args().folder
    about = "{pictures} drawings of {classes} concepts never trained on"
    tables = [*evaluated(folder, "pictogram", about), *taught(folder)]
    what = "pictogram on concepts that it was never trained on"
    module = "benchmarks.quality.drawings FOLDER"
    reliability.write("quality", what, tables, time.monotonic() - begun, module=module)
    CARD.write_text(filled(CARD.read_text(encoding="utf-8")), encoding="utf-8")


def filled(card: str) -> str:
    """The card with what stands between its markers made anew."""
    return MARKED.sub(lambda m: f"{m[1]}\n{_content(m[2])}\n\n{m[3]}", card)


def _content(name: str) -> str:
    path = RESULTS / f"{name}.json"
    if not path.exists():
        return f"{name}: {NOT_MEASURED}"
    document = json.loads(path.read_text(encoding="utf-8"))
    source = f"[{name}.json](../../benchmarks/results/{name}.json)"
    return f"{reliability.tables([document])}\n\n{document['date']}, {source}"


if __name__ == "__main__":
    main()
