"""`openvocab eval` as people use it: here and against a server, killed and begun again."""

import csv
import html
import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import average_precision_score
from typer.testing import CliRunner, Result

from app.__main__ import app
from app.classify.scoring import Alternatives
from app.cli.client import Reached, Service
from app.evaluation import class_vectors
from app.evaluation.class_vectors import Templates, connected
from app.evaluation.data import ClassRows, TemplateRows
from app.evaluation.picture_vectors import DIGEST, HEAD
from app.evaluation.report.calibration import CalibrationSection
from app.evaluation.template_search import ensemble
from app.labelsets.definition import Definition, Entry
from models.encoder import Encoder
from models.info import Pixels
from tests.conftest import alike

COMMAND = [sys.executable, "-c", "from app.__main__ import app; app(prog_name='openvocab')"]

# two ways to one number: batches of other sizes, base64 of float32
CLOSE = 2e-5

Eval = Callable[..., Result]


@pytest.fixture(scope="module")
def evaluate() -> Eval:
    """The command in this process."""

    def call(*arguments: object) -> Result:
        result = CliRunner().invoke(app, ["eval", *map(str, arguments)])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return call


@pytest.fixture
def url(client: httpx.Client) -> str:
    """A running server with the bundled model."""
    return str(client.base_url)


@pytest.fixture
def album(tmp_path: Path, samples: dict[str, Path]) -> Path:
    """A folder for each sample's label, one picture of another thing, and a file that is none."""
    folder = tmp_path / "album"
    for label, path in samples.items():
        (folder / label).mkdir(parents=True)
        shutil.copy(path, folder / label)
    shutil.copy(samples["octopus"], folder / "cat/octopus.png")
    (folder / "dog/broken.png").write_bytes(b"no picture")
    return folder


@pytest.fixture
def noise(tmp_path: Path) -> Path:
    """Many small pictures that are all different."""
    rng = np.random.default_rng(0)
    for number in range(240):
        folder = tmp_path / "noise" / ("cat" if number % 2 else "dog")
        folder.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 256, (24, 24, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03}.png")
    return tmp_path / "noise"


def predictions(folder: Path) -> dict[str, dict[str, str]]:
    text = (folder / "predictions.csv").read_text(encoding="utf-8")
    return {row["image"]: row for row in csv.DictReader(io.StringIO(text))}


def test_a_folder_is_evaluated_here_and_on_a_server_alike_and_as_classify_answers(
    evaluate: Eval, album: Path, tmp_path: Path, url: str, client: httpx.Client
) -> None:
    here = evaluate(
        album, "--model", "pictogram", "--format", "json", "--output", tmp_path / "r",
        "--cache", tmp_path / "kept", "--jobs", 1,
    )  # fmt: skip
    assert "before" not in here.stderr  # of two equal pictures the second was not there before
    # all that can be is evaluated, and that something was missing is no success
    assert here.exit_code == 1
    assert "dog/broken.png: " in here.stderr
    document = json.loads(here.stdout)
    assert document == json.loads((tmp_path / "r/report.json").read_text(encoding="utf-8"))
    assert document["data"]["pictures"] == 14
    assert document["data"]["unread"][0]["file"].endswith("dog/broken.png")
    assert document["data"]["duplicates"] == [["cat/octopus.png", "octopus/octopus.png"]]
    assert document["figures"]["top1"]["hits"] == 13
    assert document["figures"]["mean_per_class"] == pytest.approx(12.5 / 13, abs=1e-6)
    assert document["confused"] == [
        {"truth": "cat", "predicted": "octopus", "count": 1, "share": 0.5}
    ]
    assert [m["file"] for m in document["mistakes"]] == ["cat/octopus.png"]
    assert document["model"]["name"] == "pictogram"
    assert document["templates"]["name"] == "pictogram"
    there = evaluate(album, "--url", url, "--format", "json", "--output", tmp_path / "s")
    assert there.exit_code == 1
    served = json.loads(there.stdout)
    for key in ("data", "classes", "confused", "confusion", "templates"):
        assert served[key] == document[key]
    rows = predictions(tmp_path / "s")
    assert len(rows) == 14
    labels = json.dumps([entry["label"] for entry in document["classes"]])
    for name in ("cat/cat.png", "key/key.jpg", "cat/octopus.png"):
        answer = client.post(
            "/classify", files={"image": (album / name).read_bytes()}, data={"labels": labels}
        ).json()["predictions"][0]
        assert rows[name]["predicted"] == answer["label"]
        assert float(rows[name]["score"]) == pytest.approx(answer["score"], abs=CLOSE)
        assert float(rows[name]["similarity"]) == pytest.approx(answer["similarity"], abs=CLOSE)


@pytest.mark.parametrize(
    "more",
    [
        {},
        {"combine": "best"},
        {"prompts_with": "templates", "templates": ["an icon of a {}.", "a red {}."]},
        {"combine": {"tool": "best"}, "prompts_with": "templates"},
    ],
    ids=str,
)
def test_several_labels_synonyms_and_prompts_are_scored_as_a_label_set_is(
    evaluate: Eval,
    samples: dict[str, Path],
    tmp_path: Path,
    url: str,
    client: httpx.Client,
    more: dict[str, Any],
) -> None:
    content = {
        "labels": {"animal": ["cat", "dog"], "food": ["pizza", "banana"], "tool": []},
        "prompts": {"tool": ["an icon of a key", "a key"]},
        "templates": "none",
        **more,
    }
    (tmp_path / "set.json").write_text(json.dumps(content), encoding="utf-8")
    groups = {"cat": "animal", "pizza": "food", "key": "tool", "rocket": "", "dog": "animal"}
    lines = [f"{samples[name]},{label}" for name, label in groups.items()]
    (tmp_path / "data.csv").write_text("\n".join(["image,label", *lines]), encoding="utf-8")
    client.put("/labelsets/evaluated?wait=true", json=content).raise_for_status()
    result = evaluate(
        tmp_path / "data.csv", "--labels", tmp_path / "set.json", "--multi-label", "--url", url,
        "--format", "json", "--output", tmp_path / "r",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["data"]["multi_label"]
    assert report["templates"]["name"] == ("custom" if "templates" in more else "none")
    assert "not evaluated" not in result.stderr
    assert "top1" not in report["figures"]
    rows = predictions(tmp_path / "r")
    truth, scores = [], []
    for name in groups:
        answer = client.post(
            "/classify",
            files={"image": samples[name].read_bytes()},
            data={"labelset": "evaluated", "multi_label": "true"},
        ).json()["predictions"]
        row = rows[str(samples[name])]
        assert float(row["score"]) == pytest.approx(answer[0]["score"], abs=CLOSE)
        assert row["label"] == groups[name]
        found_scores = {prediction["label"]: prediction["score"] for prediction in answer}
        truth.append([label == groups[name] for label in content["labels"]])
        scores.append([found_scores[label] for label in content["labels"]])
    expected = average_precision_score(np.array(truth), np.array(scores))
    assert report["figures"]["map"] == pytest.approx(expected, abs=1e-6)


def test_a_label_too_long_for_the_model_is_cut_as_classify_cuts_it(
    evaluate: Eval,
    samples: dict[str, Path],
    tmp_path: Path,
    url: str,
    client: httpx.Client,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    long = "a grey cat that sleeps " + "on a very warm red sofa " * 5
    content = {
        "labels": {"feline": ["cat", long], "dog": ["dog"], long: [long], "key": ["key"]},
        "templates": ["a drawing of a {} on a plain white background.", "{}"],
    }
    file = tmp_path / "set.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    names = {"cat": "feline", "dog": "dog", "key": "key", "rocket": long.strip()}
    lines = [f'{samples[name]},"{label}"' for name, label in names.items()]
    data = tmp_path / "data.csv"
    data.write_text("\n".join(["image,label", *lines]), encoding="utf-8")
    options = (data, "--labels", file, "--url", url, "--format", "json", "--no-keep")
    refused = evaluate(*options)
    assert refused.exit_code == 2
    assert "'a grey cat that sleeps" in refused.stderr
    monkeypatch.setattr(class_vectors, "TEMPLATES", 1)  # of more, some at a time
    result = evaluate(*options, "--truncate", "--output", tmp_path / "r")
    assert result.exit_code == 0, result.stderr
    assert result.stderr.count("warning: 'a grey cat that sleeps") >= 1
    assert any(
        "only its beginning counts" in note for note in json.loads(result.stdout)["data"]["notes"]
    )
    client.put("/labelsets/cut?wait=true", json={**content, "truncate": True}).raise_for_status()
    rows = predictions(tmp_path / "r")
    for name in names:
        answer = client.post(
            "/classify", files={"image": samples[name].read_bytes()}, data={"labelset": "cut"}
        ).json()["predictions"][0]
        row = rows[str(samples[name])]
        assert row["predicted"] == answer["label"]
        assert float(row["similarity"]) == pytest.approx(answer["similarity"], abs=CLOSE)
    # a set that says so itself needs no option, and what is not evaluated is noted
    content |= {"truncate": True, "not": ["fog"]}
    file.write_text(json.dumps(content), encoding="utf-8")
    noted = evaluate(*options)
    assert noted.exit_code == 0, noted.stderr
    assert "`not` is not evaluated" in noted.stderr
    client.delete("/labelsets/cut")


def cached(folder: Path) -> int:
    """How many whole records there are."""
    files = list(folder.glob("*.rows"))
    if not files:
        return 0
    with files[0].open("rb") as file:
        width = int.from_bytes(file.read(HEAD.size)[8:], "little")
    return (files[0].stat().st_size - HEAD.size) // (DIGEST + 4 * width + 4)


class Gate:
    """Lets so many pictures through to the model, and the next when it is opened further."""

    def __init__(self, encoder: Encoder) -> None:
        self._launch = encoder._launch_images
        self._places = threading.Semaphore(0)

    def open(self, pictures: int) -> None:
        self._places.release(pictures)

    def __call__(self, batch: Sequence[Pixels]) -> object:
        for _ in batch:
            self._places.acquire(timeout=240)
        return self._launch(batch)


def ended(arguments: list[str], folder: Path, at: int, sign: int) -> tuple[int, str]:
    """Send a signal to the command when so many vectors are kept; its status and what it said."""
    process = subprocess.Popen(
        [*COMMAND, "eval", *arguments], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    try:
        end = time.monotonic() + 240
        while cached(folder) < at and process.poll() is None and time.monotonic() < end:
            time.sleep(0.002)
        process.send_signal(sign)
        _, output = process.communicate(timeout=240)
    finally:
        process.kill()
    return process.returncode, output


ALL = 120


def test_whoever_is_interrupted_or_killed_goes_on_where_it_was(
    evaluate: Eval, noise: Path, tmp_path: Path, url: str, pictogram: Encoder,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for file in sorted(noise.rglob("*.png"), key=lambda file: file.name)[ALL:]:
        file.unlink()
    gate = Gate(pictogram)
    monkeypatch.setattr(pictogram, "_launch_images", gate)
    folder = tmp_path / "kept"
    arguments = [str(noise), "--url", url, "--cache", str(folder), "--jobs", "1"]
    gate.open(40)
    status, output = ended(arguments, folder, 20, signal.SIGINT)
    first = cached(folder)
    assert 20 <= first < ALL
    assert status == 130, output
    told = f"{first} of {ALL} pictures are encoded; run the same command again to continue"
    assert told in output
    gate.open(40)
    status, _ = ended(arguments, folder, first + 20, signal.SIGKILL)
    second = cached(folder)
    assert status == -signal.SIGKILL
    assert first + 20 <= second < ALL
    gate.open(10_000)
    monkeypatch.undo()
    last = evaluate(*arguments, "--format", "json")
    assert last.exit_code == 0
    assert f"{second} pictures were already encoded, {ALL - second} are new" in last.stderr
    assert cached(folder) == ALL
    # and nothing else has changed, but for how a batch of another size is rounded
    fresh = evaluate(noise, "--url", url, "--no-keep", "--format", "json")
    assert "before" not in fresh.stderr
    figures = [json.loads(result.stdout)["figures"] for result in (fresh, last)]
    assert figures[0] == alike(figures[1])


def test_every_closer_look_is_a_section_and_what_it_leaves_can_be_used(
    evaluate: Eval, noise: Path, tmp_path: Path, url: str
) -> None:
    out = tmp_path / "out"
    result = evaluate(
        noise, "--url", url, "--limit", 40, "--templates", "none,simple", "--templates", "my {}",
        "--search-templates", "--shots", "0,1,2", "--seeds", 2, "--calibrate", "--risk", 0.5,
        "--format", "json", "--output", out,
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    report = json.loads(result.stdout)
    assert report["templates"]["name"] == "none"
    assert report["data"]["pictures"] == 80
    assert list(report["sections"]) == ["templates", "template_search", "shots", "calibration"]
    sets = report["sections"]["templates"]["sets"]
    assert [entry["name"] for entry in sets] == ["none", "simple", "custom"]
    assert sets[0]["top1"]["value"] == report["figures"]["top1"]["value"]
    page = (out / "report.html").read_text(encoding="utf-8")
    assert page.count("<section id=") == 5 + 4
    # methods are folded: of reliability, classes, trials, search and shots
    assert page.count("How this was computed") == 2 + 3
    assert "Holm" in page.partition("How this was computed")[2]
    assert len(set(re.findall(r' id="([^"]*)"', page))) == len(re.findall(r' id="', page))
    # the templates that were found, as an option
    chosen = (out / "templates.txt").read_text(encoding="utf-8").splitlines()
    again = evaluate(
        noise, "--url", url, "--templates", f"none,{out / 'templates.txt'}", "--format", "json"
    )
    sets = json.loads(again.stdout)["sections"]["templates"]["sets"]
    assert [entry["name"] for entry in sets] == ["none", str(out / "templates.txt")]
    assert "80 pictures were already encoded, 160 are new" in again.stderr
    assert all("{}" in template for template in chosen)


def test_labels_that_cannot_be_right_are_told(
    evaluate: Eval, album: Path, tmp_path: Path, url: str
) -> None:
    (album / "dog/broken.png").unlink()
    (album / "dog").rename(album / "Cat")
    result = evaluate(album, "--url", url, "--output", tmp_path / "r")
    assert result.exit_code == 0
    two_ways = "1 picture labelled in two ways: cat/octopus.png = octopus/octopus.png"
    assert f"openvocab: warning: {two_ways}\n" in result.stderr
    same = "'Cat', 'cat' are the same to the model and share what one of them would score"
    assert f"openvocab: warning: {same}\n" in result.stderr
    report = json.loads((tmp_path / "r/report.json").read_text(encoding="utf-8"))
    assert report["data"]["notes"] == [same]


def test_classes_are_alike_that_share_a_row() -> None:
    rows = np.eye(6, dtype=np.float32)[[0, 1, 2, 3, 1, 4, 5, 2]]
    assert ClassRows(rows).alike(1e-5) == [[1, 4], [2, 7]]
    texts = [("a", "b"), ("c", "d"), ("e", "f"), ("g", "h")]
    alternatives = ClassRows(rows, alternatives=Alternatives.of(texts))
    assert alternatives.alike(1e-5) == [[0, 2], [1, 3]]
    # two texts of one class may say the same
    assert ClassRows(rows[[1, 1]], alternatives=Alternatives.of([("a", "b")])).alike(1e-5) == []


def test_copies_of_pictures_change_no_figure_and_no_analysis_and_are_told(
    evaluate: Eval, noise: Path, tmp_path: Path, url: str
) -> None:
    for file in sorted(noise.rglob("*.png"), key=lambda file: file.name)[40:]:
        file.unlink()
    # one is labelled in two ways
    shutil.copy(noise / "cat/001.png", noise / "dog/cat.png")
    arguments = (
        noise, "--url", url, "--templates", "none,simple", "--search-templates", "--shots", "1,2",
        "--seeds", 2, "--calibrate", "--risk", 0.5, "--format", "json",
    )  # fmt: skip
    alone = evaluate(*arguments, "--output", tmp_path / "alone")
    assert alone.exit_code == 0, alone.stderr
    for file in sorted(noise.rglob("*.png")):
        shutil.copy(file, file.with_name(f"copy of {file.name}"))
    doubled = evaluate(*arguments, "--output", tmp_path / "doubled")
    assert doubled.exit_code == 0, doubled.stderr
    note = "41 copies left out of all figures: the same bytes with the same labels"
    assert note in doubled.stderr
    assert "left out" not in alone.stderr
    once, twice = json.loads(alone.stdout), json.loads(doubled.stdout)
    assert twice["data"]["notes"] == [note]
    assert once["data"]["duplicates"] == [["cat/001.png", "dog/cat.png"]]
    both = [name for name in twice["data"]["duplicates"] if len(name) == 4]
    assert both == [["cat/001.png", "cat/copy of 001.png", "dog/cat.png", "dog/copy of cat.png"]]
    assert len(twice["data"]["duplicates"]) == 40
    for report in (once, twice):
        del report["command"], report["created"]
        del report["data"]["notes"], report["data"]["duplicates"]
    assert once == twice
    # a picture is on one side alone of what is divided
    assert once["data"]["pictures"] == 41
    sections = once["sections"]
    halves = (sections["template_search"][half]["pictures"] for half in ("search", "report"))
    assert sum(halves) == sections["calibration"]["calibration"]["pictures"] == 40
    rows = predictions(tmp_path / "doubled")
    assert len(rows) == 82
    assert rows["cat/copy of 003.png"] == rows["cat/003.png"] | {"image": "cat/copy of 003.png"}
    page = (tmp_path / "doubled/report.html").read_text(encoding="utf-8")
    assert note in page
    assert "cat/003.png = cat/copy of 003.png" in page


def test_a_calibration_that_makes_figures_worse_is_written_by_force_alone(
    evaluate: Eval, noise: Path, tmp_path: Path, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CalibrationSection, "worse", "wrong answers rise from 1 % to 9 %")
    arguments = (noise, "--url", url, "--limit", 40, "--calibrate", "--risk", 0.5)
    careful = evaluate(*arguments, "--output", tmp_path / "careful")
    assert "no calibration.json: wrong answers rise from 1 % to 9 %" in careful.stderr
    assert "(--force writes it anyway)" in careful.stderr
    assert not (tmp_path / "careful/calibration.json").exists()
    forced = evaluate(*arguments, "--force", "--output", tmp_path / "forced")
    assert "wrong answers rise" not in forced.stderr
    calibration = tmp_path / "forced/calibration.json"
    assert json.loads(calibration.read_text())["pictures"] == 80
    # one of before is not taken for that of this evaluation
    again = evaluate(*arguments, "--output", tmp_path / "forced")
    assert calibration.exists()
    assert f"{calibration} was there before; this evaluation did not write it" in again.stderr
    assert "was there before" not in forced.stderr + careful.stderr


def test_a_calibration_of_alternatives_and_prompts_fits_their_label_set(
    evaluate: Eval, noise: Path, tmp_path: Path, url: str, client: httpx.Client
) -> None:
    content = {
        "labels": {"cat": ["cat", "kitten"], "dog": ["dog", "puppy"]},
        "prompts": {"dog": ["my dog", "an icon of a dog"]},
        "combine": {"cat": "best"},
        "prompts_with": "templates",
        "templates": "simple",
    }
    file = tmp_path / "set.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    result = evaluate(
        noise, "--labels", file, "--url", url, "--limit", 40, "--calibrate", "--risk", 0.5,
        "--force", "--search-templates", "--shots", "1", "--output", tmp_path / "out",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    # and the file beside it makes that label set again
    assert json.loads((tmp_path / "out/labelset.json").read_text(encoding="utf-8")) == content
    client.put("/labelsets/fits?wait=true", json=content).raise_for_status()
    calibration = (tmp_path / "out/calibration.json").read_text(encoding="utf-8")
    answer = client.put(
        "/labelsets/fits/calibration",
        content=calibration,
        headers={"Content-Type": "application/json"},
    )
    assert answer.status_code == 204, answer.text
    client.delete("/labelsets/fits")


def test_a_calibration_comes_with_the_label_set_that_it_fits(
    evaluate: Eval, noise: Path, tmp_path: Path, url: str, client: httpx.Client
) -> None:
    # labels of a CSV are in the order in which they come, here not that of their letters
    files = sorted(noise.rglob("*.png"), key=lambda file: (file.parent.name == "cat", file))
    lines = [f"{file},{file.parent.name}\n" for file in files[::3]]
    table = tmp_path / "labels.csv"
    table.write_text("image,label\n" + "".join(lines), encoding="utf-8")
    result = evaluate(
        table, "--url", url, "--templates", "a {}.", "--templates", "an icon of a {}.",
        "--calibrate", "--risk", 0.5, "--force", "--output", tmp_path / "out",
    )  # fmt: skip
    assert result.exit_code == 0, result.stderr
    file = tmp_path / "out/labelset.json"
    runner = CliRunner()
    made = runner.invoke(app, ["labelset", "create", "fits-too", str(file), "--url", url])
    assert made.exit_code == 0, made.output
    answer = client.put(
        "/labelsets/fits-too/calibration",
        content=(tmp_path / "out/calibration.json").read_bytes(),
        headers={"Content-Type": "application/json"},
    )
    assert answer.status_code == 204, answer.text
    assert client.get("/labelsets/fits-too").json()["calibration"]["status"] == "used"
    client.delete("/labelsets/fits-too")


@pytest.mark.parametrize("joined", [False, True])
def test_rows_by_template_make_the_ensemble_of_a_label_set(url: str, *, joined: bool) -> None:
    entries = (
        Entry("cat", ("cat", "kitten"), ("my cat",)),
        Entry("dog", ("dog", "puppy"), ("a dog at home", "an icon of a dog"), "best"),
        Entry("tree", ("oak", "birch", "pine"), combine="best"),
        Entry("key", ("key",)),
    )
    definition = Definition(entries, joined=joined)
    templates = Templates("own", ("a {}.", "an icon of a {}.", "{}"))

    async def work(reached: Reached) -> tuple[TemplateRows, ClassRows]:
        texts = await connected(reached.client)
        by_template = await texts.by_template(definition, templates)
        return by_template, await texts.classes(definition, templates, multi_label=False)

    by_template, classes = Service(url, None, None, None, 240).run(work, stored=False)
    whole = ensemble(by_template, templates.texts)
    assert len(whole.rows) == definition.rows
    np.testing.assert_allclose(whole.rows, classes.rows, atol=1e-5)
    assert whole.alternatives == classes.alternatives == definition.alternatives


def test_a_look_that_the_data_does_not_allow_is_left_out_and_said(
    evaluate: Eval, album: Path, tmp_path: Path, url: str
) -> None:
    (album / "dog/broken.png").unlink()
    result = evaluate(
        album, "--url", url, "--shots", "1,2", "--format", "json", "--output", tmp_path
    )
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert report["sections"] == {}
    assert len(report["missing"]) == 1
    assert report["missing"][0] in result.stderr
    assert "Left out: " in (tmp_path / "report.html").read_text(encoding="utf-8")
    bad = evaluate(album, "--url", url, "--shots", "1,many")
    assert bad.exit_code == 2
    assert "--shots: '1,many' is not a list of whole numbers" in bad.stderr


def test_a_cache_that_cannot_be_written_is_said_and_ends_nothing(
    evaluate: Eval, album: Path, url: str
) -> None:
    result = evaluate(album, "--url", url, "--cache", "/proc/nothing")
    assert result.exit_code == 1
    assert "cannot be cached in /proc/nothing" in result.stderr
    assert "top-1" in result.stdout


def test_an_output_that_cannot_be_written_costs_no_encoding_and_no_figures(
    evaluate: Eval, album: Path, tmp_path: Path, url: str
) -> None:
    (tmp_path / "file").touch()
    kept = tmp_path / "kept"
    result = evaluate(album, "--url", url, "--cache", kept, "--output", tmp_path / "file")
    assert (result.exit_code, cached(kept)) == (2, 0)
    assert f"--output {tmp_path / 'file'}: file exists" in result.stderr
    # nor is a folder left among the classes by what ends before there is a report
    below = album / "new" / "below"
    result = evaluate(album, "--url", url, "--templates", "none,nothing", "--output", below)
    assert (result.exit_code, (album / "new").exists()) == (2, False)
    # what goes wrong at the end comes after the figures
    (tmp_path / "out/report.html").mkdir(parents=True)
    result = evaluate(album, "--url", url, "--cache", kept, "--output", tmp_path / "out")
    assert result.exit_code == 2
    assert "top-1" in result.stdout
    assert f"--output {tmp_path / 'out'}: is a directory" in result.stderr


def test_a_reader_who_has_seen_enough_gets_the_report(
    album: Path, tmp_path: Path, url: str
) -> None:
    words = [*COMMAND, "eval", str(album), "--url", url, "--output", str(tmp_path / "out")]
    source, sink = os.pipe()
    os.close(source)
    process = subprocess.run(words, stdout=sink, timeout=240, check=False)
    os.close(sink)
    assert process.returncode == 141
    assert (tmp_path / "out/report.html").exists()


def test_a_key_is_in_no_report(album: Path, tmp_path: Path, url: str) -> None:
    address = url.replace("//", "//me:pass@word@")
    process = subprocess.run(
        [*COMMAND, "eval", str(album), "--url", address, "--api-key", "ov_secret",
         "--api-key=ov_secret", "--output", str(tmp_path)],
        capture_output=True, text=True, timeout=240, check=False,
    )  # fmt: skip
    assert process.returncode == 1, process.stderr
    for name in ("report.json", "report.html"):
        text = (tmp_path / name).read_text(encoding="utf-8")
        assert "ov_secret" not in text
        assert "pass@word" not in html.unescape(text)
        assert url.replace("//", "//***@") in html.unescape(text)
        assert "--api-key '***'" in html.unescape(text)


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("--templates", "nothing"), 2, "template set 'nothing' not found"),
        (("--templates", "a {} and {}"), 2, "--templates: "),
        (("--templates", "none,"), 2, "a name is empty"),
        (("--model", "nobody"), 2, "this server has pictogram"),
        (("--labels", "missing.txt"), 2, "not a file, not comma-separated words"),
        (("--output", "/proc/nothing"), 2, "--output /proc/nothing"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(
    evaluate: Eval, album: Path, url: str, arguments: tuple[str, ...], status: int, message: str
) -> None:
    result = evaluate(album, "--url", url, *arguments)
    assert result.exit_code == status
    assert message in result.stderr.splitlines()[-1]


def test_data_without_any_readable_picture_has_no_figures(
    evaluate: Eval, tmp_path: Path, url: str
) -> None:
    for label in ("cat", "dog"):
        (tmp_path / "d" / label).mkdir(parents=True)
        (tmp_path / "d" / label / "a.png").write_bytes(label.encode())
    result = evaluate(tmp_path / "d", "--url", url)
    assert result.exit_code == 1
    assert "none of the 2 pictures could be read" in result.stderr
    away = evaluate(tmp_path / "d", "--url", "http://127.0.0.1:9", "--retry-for", "0")
    assert away.exit_code == 4
