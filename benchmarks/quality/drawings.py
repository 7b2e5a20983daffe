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

from benchmarks import pages
from benchmarks.folders import RESULTS
from benchmarks.quality.evaluated import evaluated
from benchmarks.record import Cell, Result
from benchmarks.reliability import page
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
    pictures = {
        concept.name: sorted(concept.glob("*.png"))
        for concept in folder.iterdir()
        if concept.is_dir()
    }
    enough = sorted(name for name, files in pictures.items() if len(files) > max(SHOWN) + 1)
    examples: dict[int, list[float]] = {count: [] for count in (0, *SHOWN)}
    honest: list[dict[str, float]] = []
    with tempfile.TemporaryDirectory() as name, openvocab("", Path(name)) as server:
        for draw in range(DRAWS):
            chance = random.Random(draw)
            names = chance.sample(enough, 2 * LABELS)
            labels, strangers = names[:LABELS], names[LABELS:]
            mixed = {name: chance.sample(pictures[name], len(pictures[name])) for name in names}
            unseen = [(file, name) for name in labels for file in mixed[name][max(SHOWN) :]]
            url = f"/labelsets/draw-{draw}"
            server.client.put(f"{url}?wait=true", json={"labels": labels}).raise_for_status()
            for count in (0, *SHOWN):
                if count:
                    _show(server.client, url, {name: mixed[name][:count] for name in labels})
                answers = _answers(server.client, f"draw-{draw}", unseen)
                examples[count].append(_right(answers, unseen))
            server.client.request("DELETE", f"{url}/examples?wait=true").raise_for_status()
            honest.append(_honest(server.client, f"draw-{draw}", labels, strangers, mixed))
    return [_examples_table(examples), _honest_table(honest)]


def _show(client: httpx.Client, url: str, examples: dict[str, list[Path]]) -> None:
    for label, pictures in examples.items():
        files = _form(pictures)
        response = client.post(f"{url}/examples?wait=true", data={"label": label}, files=files)
        response.raise_for_status()


def _honest(
    client: httpx.Client, name: str, labels: Sequence[str], strangers: Sequence[str],
    pictures: dict[str, list[Path]],
) -> dict[str, float]:  # fmt: skip
    """One half calibrates, of the labels' pictures and of others; the other half is asked."""
    calibrating: Labelled = []
    testing: Labelled = []
    for concept in (*labels, *strangers):
        files, label = pictures[concept], concept if concept in labels else ""
        calibrating += [(file, label) for file in files[: len(files) // 2]]
        testing += [(file, label) for file in files[len(files) // 2 :]]
    before = _answers(client, name, testing)
    response = client.post(
        f"/labelsets/{name}/calibrate",
        data={"label": [label for _, label in calibrating]},
        files=_form([file for file, _ in calibrating]),
    )
    response.raise_for_status()
    after = _answers(client, name, testing, abstain="true")
    answered = [
        (result, label)
        for result, (_, label) in zip(after, testing, strict=True)
        if result["predictions"]
    ]
    of_labels = [result for result, (_, label) in zip(after, testing, strict=True) if label]
    foreign = [result for result, (_, label) in zip(after, testing, strict=True) if not label]
    wrong = sum(result["predictions"][0]["label"] != label for result, label in answered)
    return {
        "wrong before": 1 - _right(before, testing),
        "wrong after": wrong / max(1, len(answered)),
        "answered": sum(bool(result["predictions"]) for result in of_labels) / len(of_labels),
        "refused": sum(not result["predictions"] for result in foreign) / len(foreign),
    }


def _answers(
    client: httpx.Client, labelset: str, files_and_labels: Labelled, **fields: str
) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = []
    for start in range(0, len(files_and_labels), SENT):
        files = _form([file for file, _ in files_and_labels[start : start + SENT]])
        data = {"labelset": labelset, "top_k": "1", **fields}
        answer = client.post("/classify/batch", data=data, files=files)
        answer.raise_for_status()
        results += [item["result"] for item in answer.json()["results"]]
    return results


def _right(answers: Sequence[dict[str, Any]], files_and_labels: Labelled) -> float:
    pairs = zip(answers, files_and_labels, strict=True)
    return sum(_best(result) == label for result, (_, label) in pairs) / len(files_and_labels)


def _best(answer: dict[str, Any]) -> str:
    """The label that was answered; "" for none of these."""
    return str(answer["predictions"][0]["label"]) if answer["predictions"] else ""


def _form(pictures: Sequence[Path]) -> list[tuple[str, tuple[str, bytes]]]:
    return [("image", (file.name, file.read_bytes())) for file in pictures]


def _mean(values: Sequence[float]) -> str:
    return f"{sum(values) / len(values):.1%} ({100 * min(values):.1f} to {100 * max(values):.1f})"


def _examples_table(accuracies: dict[int, list[float]]) -> Result:
    rows: list[list[Cell]] = [
        [count or "none", _mean(values)] for count, values in accuracies.items()
    ]
    return Result(
        f"Examples of a label set of {LABELS} of these concepts, over HTTP",
        ["examples per label", f"right, mean of {DRAWS} draws (lowest to highest)"],
        rows,
        ["All rows use the same pictures, none of which is ever an example."],
    )


def _honest_table(draws: list[dict[str, float]]) -> Result:
    def mean(key: str) -> str:
        return _mean([draw[key] for draw in draws])

    rows: list[list[Cell]] = [
        ["wrong answers, every picture answered", mean("wrong before")],
        ["wrong answers, calibrated, `abstain=true`", mean("wrong after")],
        ["pictures of the labels that are answered", mean("answered")],
        ["pictures of something else that are refused", mean("refused")],
    ]
    return Result(
        f'"None of these": {LABELS} concepts as labels, {LABELS} others mixed in, over HTTP',
        ["share", f"mean of {DRAWS} draws (lowest to highest)"],
        rows,
        ["Half of the pictures calibrate, for 5 % wrong answers; the other half tests."],
    )


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="WORK/held-out")
    start, folder = time.monotonic(), parser.parse_args().folder
    about = "{pictures} drawings of {classes} concepts never trained on"
    tables = [*evaluated(folder, "pictogram", about), *taught(folder)]
    subject = "pictogram on concepts that it was never trained on"
    module = "benchmarks.quality.drawings FOLDER"
    page.write("quality", subject, tables, time.monotonic() - start, module=module)
    CARD.write_text(filled(CARD.read_text(encoding="utf-8")), encoding="utf-8")


def filled(card: str) -> str:
    """The card with what stands between its markers made anew."""
    return pages.filled(card, _content)


def _content(name: str) -> str:
    path = RESULTS / f"{name}.json"
    if not path.exists():
        return f"{name}: {pages.NOT_MEASURED}"
    document = json.loads(path.read_text(encoding="utf-8"))
    source = f"[{name}.json](../../benchmarks/results/{name}.json)"
    return f"{page.tables([document])}\n\n{document['date']}, {source}"


if __name__ == "__main__":
    main()
