"""Calibrating a label set over HTTP, and what /classify does with it: a real server and model."""

import base64
import csv
import io
import json
import re
import subprocess
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image, ImageOps

from app.api.labelled_images import LabelledForm
from app.classify.labels import NONE, folder_name
from app.errors import Invalid
from models.encoder import Encoder
from tests.conftest import Serve

LABELS = ["airplane", "banana", "bicycle", "cat", "dog", "doughnut", "guitar", "key"]
ROOT = Path(__file__).parents[2]
OTHERS = ["octopus", "umbrella", "sunflower"]
Picture = tuple[str, bytes]


@pytest.fixture(scope="module")
def served(pictogram: Encoder, serve: Serve) -> Iterator[httpx.Client]:
    with serve(pictogram, image_cache_bytes=10_000_000) as client:
        yield client


def variants(path: Path) -> list[bytes]:
    """The picture drawn four ways."""
    with Image.open(path) as opened:
        plain = opened.convert("RGBA").resize((96, 96))
    white = Image.new("RGBA", plain.size, "white")
    white.alpha_composite(plain)
    rgb = white.convert("RGB")
    images = [rgb, ImageOps.mirror(rgb), rgb.rotate(12, fillcolor="white"),
             ImageOps.expand(rgb, 24, "white")]  # fmt: skip
    return [_png(image) for image in images]


def _png(image: Image.Image) -> bytes:
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


@pytest.fixture(scope="module")
def pictures(samples: dict[str, Path]) -> list[Picture]:
    """Labelled pictures; those of other things have an empty label."""
    pictures = [(label, data) for label in LABELS for data in variants(samples[label])]
    return pictures + [("", data) for label in OTHERS for data in variants(samples[label])]


def register(client: httpx.Client, name: str, labels: list[str] = LABELS) -> dict[str, Any]:
    put = client.put(f"/labelsets/{name}", json={"labels": labels}, params={"wait": "true"})
    assert put.status_code in (200, 201), put.text
    return put.json()


def calibrate(
    client: httpx.Client, name: str, pictures: list[Picture], **more: Any
) -> httpx.Response:
    files = [("image", (f"{place}.png", data)) for place, (_, data) in enumerate(pictures)]
    labels = [label for label, _ in pictures]
    headers, params = more.pop("headers", {}), more.pop("params", {})
    path, form = f"/labelsets/{name}/calibrate", {"label": labels, **more}
    return client.post(path, files=files, data=form, headers=headers, params=params)


def classify(client: httpx.Client, image: bytes, **fields: Any) -> dict[str, Any]:
    response = client.post("/classify", files={"image": image}, data=fields)
    assert response.status_code == 200, response.text
    return response.json()


@pytest.fixture(scope="module")
def calibrated(served: httpx.Client, pictures: list[Picture]) -> dict[str, Any]:
    register(served, "pets")
    answer = calibrate(served, "pets", pictures)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_a_calibration_says_what_it_found_and_what_it_is_worth(
    served: httpx.Client, calibrated: dict[str, Any]
) -> None:
    assert (calibrated["count"], calibrated["failed"], calibrated["errors"]) == (44, 0, [])
    calibration = calibrated["calibration"]
    assert (calibration["pictures"], calibration["others"]) == (32, 12)
    assert calibration["temperature"] == pytest.approx(
        calibration["model_scale"] / calibration["scale"]
    )
    assert 0 < calibration["floor"] < 1
    assert set(calibration["thresholds"]) == set(LABELS)
    assert calibration["held_out"]["refused"] > 0.5
    assert calibration["before"]["accuracy"] > 0.8
    response = served.get("/labelsets/pets")
    assert response.json()["version"] == calibrated["version"]
    assert response.headers["etag"] == f'"{calibrated["version"]}"'
    summary = response.json()["calibration"]
    assert (summary["status"], summary["floor"]) == ("used", calibration["floor"])
    whole = served.get("/labelsets/pets/calibration")
    assert whole.json() == calibration


def test_scores_are_those_of_the_fitted_temperature(
    served: httpx.Client, calibrated: dict[str, Any], samples: dict[str, Path]
) -> None:
    answer = classify(served, samples["cat"].read_bytes(), labelset="pets", top_k=8)
    assert answer["calibrated"] is True
    cosines = np.array([prediction["similarity"] for prediction in answer["predictions"]])
    powers = np.exp(calibrated["calibration"]["scale"] * (cosines - cosines.max()))
    scores = [prediction["score"] for prediction in answer["predictions"]]
    np.testing.assert_allclose(scores, powers / powers.sum(), atol=1e-4)
    assert classify(served, samples["cat"].read_bytes(), labels="cat,dog")["calibrated"] is False


def test_abstaining_answers_pictures_of_its_labels_and_refuses_others_with_the_reason(
    served: httpx.Client, calibrated: dict[str, Any], samples: dict[str, Path]
) -> None:
    fitted = calibrated["calibration"]
    fields = {"labelset": "pets", "abstain": "true"}
    for label in ("cat", "guitar", "banana"):
        answer = classify(served, samples[label].read_bytes(), **fields)
        assert (answer["abstained"], answer["reason"]) == (False, None)
        assert answer["predictions"][0]["label"] == label
    for label in ("octopus", "sunflower", "umbrella"):
        answer = classify(served, samples[label].read_bytes(), **fields)
        assert (answer["predictions"], answer["abstained"]) == ([], True)
        reason = answer["reason"]
        best, second = reason["withheld"][:2]
        if reason["code"] == "similarity_below_floor":
            assert reason["value"] == best["similarity"] < reason["limit"]
            assert reason["limit"] == pytest.approx(fitted["floor"], rel=1e-6)
        else:
            assert reason["code"] == "margin_too_small"
            lead = best["similarity"] - second["similarity"]
            assert reason["value"] == pytest.approx(lead, abs=1e-6)
            assert reason["value"] < reason["limit"]
    plain = classify(served, samples["octopus"].read_bytes(), labelset="pets")
    assert (plain["abstained"], len(plain["predictions"])) == (False, 5)


def test_text_says_none_of_these_and_csv_has_no_row(
    served: httpx.Client, calibrated: dict[str, Any], samples: dict[str, Path]
) -> None:
    def text_answer(accept: str, **fields: str) -> str:
        response = served.post("/classify", headers={"Accept": accept}, data=fields,
                            files={"image": samples["octopus"].read_bytes()})  # fmt: skip
        return response.text

    fields = {"labelset": "pets", "abstain": "true"}
    assert text_answer("text/plain", **fields) == "-\tnone of these\n"
    assert text_answer("text/csv", **fields).splitlines() == ["label,score,similarity"]
    assert text_answer("text/plain", labelset="pets", threshold="1") == ""


def test_batches_abstain_in_the_same_way(
    served: httpx.Client, calibrated: dict[str, Any], samples: dict[str, Path]
) -> None:
    files = [("image", (name, samples[name].read_bytes())) for name in ("cat", "octopus")]
    form = {"labelset": "pets", "abstain": "true"}
    results = served.post("/classify/batch", data=form, files=files).json()["results"]
    assert [result["result"]["abstained"] for result in results] == [False, True]
    alone = classify(served, samples["octopus"].read_bytes(), **form)
    assert results[1]["result"]["reason"] == alone["reason"]


def test_multi_label_answers_what_reaches_its_own_threshold(
    served: httpx.Client, calibrated: dict[str, Any], samples: dict[str, Path]
) -> None:
    several = {"labelset": "pets", "multi_label": "true"}
    answer = classify(served, samples["cat"].read_bytes(), **several)
    assert answer["predictions"][0]["label"] == "cat"
    assert all(prediction["score"] >= 0.5 for prediction in answer["predictions"])
    refused = classify(served, samples["octopus"].read_bytes(), **several)
    assert refused["abstained"]
    assert refused["reason"]["code"] == "score_below_threshold"
    assert refused["reason"]["limit"] == 0.5
    every = classify(served, samples["cat"].read_bytes(), **several, threshold="0", top_k="8")
    assert len(every["predictions"]) == 8
    assert len(answer["predictions"]) < 8


def test_without_a_calibration_abstaining_takes_nothing_in_particular_for_the_floor(
    served: httpx.Client, samples: dict[str, Path]
) -> None:
    fields = {"labels": "cat,dog,pizza", "abstain": "true"}
    answer = classify(served, samples["cat"].read_bytes(), **fields)
    assert (answer["calibrated"], answer["predictions"][0]["label"]) == (False, "cat")
    other = classify(served, samples["umbrella"].read_bytes(), **fields)
    assert other["reason"]["code"] == "similarity_below_floor"
    assert "nothing in particular" not in other["reason"]["withheld"]
    single = classify(served, samples["umbrella"].read_bytes(), labels="cat", abstain="true")
    assert single["abstained"] is True


def test_archives_and_json_say_the_same_as_a_form(
    served: httpx.Client, calibrated: dict[str, Any], pictures: list[Picture]
) -> None:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for place, (label, data) in enumerate(pictures):
            archive.writestr(f"sorted/{label or '_none'}/{place}.png", data)
    register(served, "zipped")
    zipped = served.post("/labelsets/zipped/calibrate?risk=0.05", content=out.getvalue(),
                         headers={"Content-Type": "application/zip"})  # fmt: skip
    images = [{"image": base64.b64encode(data).decode(), "label": label or None}
              for label, data in pictures]  # fmt: skip
    register(served, "coded")
    coded = served.post("/labelsets/coded/calibrate", json={"images": images, "risk": 0.05})
    for answer in (zipped, coded):
        assert answer.status_code == 200, answer.text
        assert answer.json()["calibration"] == calibrated["calibration"]


def test_folders_are_called_as_the_command_calls_them() -> None:
    form = LabelledForm(("cat", "either/or", "né"))
    for folder in ("cat", folder_name("either/or"), "ne\u0301", NONE, "either_or"):
        form.tell(folder)
    *claims, wrong = form.claims
    assert claims == [(0,), (1,), (2,), ()]
    assert isinstance(wrong, Invalid)


def test_what_cannot_be_used_is_told_picture_by_picture(
    served: httpx.Client, pictures: list[Picture]
) -> None:
    register(served, "some")
    wrong = [("unicorn", pictures[0][1]), ("cat", b"no picture"), ("[1]", pictures[1][1])]
    answer = calibrate(served, "some", [*wrong, *pictures[:32]]).json()
    assert (answer["count"], answer["failed"]) == (35, 3)
    assert [error["index"] for error in answer["errors"]] == [0, 1, 2]
    assert [error["error"]["status"] for error in answer["errors"]] == [422, 415, 422]
    assert "unicorn" in answer["errors"][0]["error"]["detail"]
    loose = io.BytesIO()
    with zipfile.ZipFile(loose, "w") as archive:
        archive.writestr("cat.png", pictures[0][1])
    zipped = served.post("/labelsets/some/calibrate", content=loose.getvalue(),
                         headers={"Content-Type": "application/zip"})  # fmt: skip
    assert (zipped.status_code, zipped.json()["value"]) == (422, 0)


def test_a_picture_that_is_sent_again_counts_once(
    served: httpx.Client, pictures: list[Picture]
) -> None:
    register(served, "again")
    ((_, cat), (_, dog)) = pictures[12], pictures[16]
    answer = calibrate(served, "again", [("cat", cat), ("dog", dog)] * 60, confidence="0.95")
    assert (answer.status_code, answer.json()["limit"], answer.json()["value"]) == (422, 10, 2)
    assert "118 images could not be used; the first has index 2" in answer.json()["detail"]
    # nor does another label make it another picture
    labelled = pictures[:32]
    answer = calibrate(served, "again", [*labelled, labelled[0], ("key", labelled[1][1])]).json()
    assert (answer["count"], answer["failed"], answer["calibration"]["pictures"]) == (34, 2, 32)
    details = [(error["index"], error["error"]["detail"]) for error in answer["errors"]]
    assert [index for index, _ in details] == [32, 33]
    assert "the same picture as that of index 0;" in details[0][1]
    assert "the same picture as that of index 1;" in details[1][1]
    alone = calibrate(served, "again", labelled).json()
    assert answer["calibration"] == alone["calibration"]


def test_a_calibration_tells_what_was_guessed_of_pictures(
    served: httpx.Client, pictures: list[Picture]
) -> None:
    register(served, "guessed")
    cat, dog = (Image.open(io.BytesIO(pictures[at][1])) for at in (12, 16))
    frames = io.BytesIO()
    cat.save(frames, "GIF", save_all=True, append_images=[dog])
    answer = calibrate(served, "guessed", [*pictures[:32], ("cat", frames.getvalue())]).json()
    (told,) = answer["warnings"]
    assert told.startswith("the file has several frames")
    assert told.endswith("(32.png)")
    assert calibrate(served, "guessed", pictures[:32]).json()["warnings"] == []


def test_several_labels_of_one_picture_are_a_json_list(
    served: httpx.Client, pictures: list[Picture]
) -> None:
    register(served, "several")
    labelled = [(json.dumps([label, "key"]), data) for label, data in pictures[:4]]
    answer = calibrate(served, "several", [*labelled, *pictures[4:32]]).json()
    assert (answer["failed"], answer["calibration"]["pictures"]) == (0, 32)


@pytest.mark.parametrize(
    ("form", "field"),
    [({"risk": "0.9"}, "risk"), ({"confidence": "2"}, "confidence"), ({"rsik": "0.1"}, "rsik"),
     ({"risk": "0.05", "confidence": "0.95"}, "risk")],
)  # fmt: skip
def test_fields_that_cannot_be_are_named(
    served: httpx.Client, pictures: list[Picture], form: dict[str, str], field: str
) -> None:
    register(served, "refused")
    answer = calibrate(served, "refused", pictures[:20], **form)
    assert (answer.status_code, answer.json()["field"]) == (422, field), answer.text
    assert served.get("/labelsets/refused").json()["calibration"] is None


def test_too_few_pictures_and_labels_that_do_not_match_are_refused(
    served: httpx.Client, pictures: list[Picture]
) -> None:
    register(served, "few")
    few = calibrate(served, "few", pictures[:9])
    assert (few.status_code, few.json()["limit"], few.json()["value"]) == (422, 10, 9)
    response = calibrate(served, "few", [("cat", data) for _, data in pictures[:12]])
    assert (response.json()["limit"], response.json()["value"]) == (2, 1)
    files = [("image", data) for _, data in pictures[:12]]
    unequal = served.post("/labelsets/few/calibrate", files=files, data={"label": ["cat"] * 11})
    assert (unequal.status_code, unequal.json()["field"]) == (422, "label")
    assert calibrate(served, "unheard", pictures).status_code == 404


def test_a_put_keeps_what_was_learned_and_marks_it_stale_where_it_no_longer_fits(
    served: httpx.Client, pictures: list[Picture], samples: dict[str, Path]
) -> None:
    register(served, "mine")
    first = calibrate(served, "mine", pictures).json()
    again = register(served, "mine")
    assert (again["version"], again["calibration"]["status"]) == (first["version"], "used")
    put = {"labels": LABELS, "description": "the same but for this"}
    described = served.put("/labelsets/mine", json=put, params={"wait": "true"}).json()
    assert described["calibration"]["status"] == "used"
    changed = register(served, "mine", [*LABELS, "octopus"])
    assert changed["calibration"]["status"] == "stale"
    assert "labels" in changed["calibration"]["detail"]
    answer = classify(served, samples["cat"].read_bytes(), labelset="mine", abstain="true")
    assert answer["calibrated"] is False
    assert any("calibration is not used" in line for line in answer["warnings"])
    back = register(served, "mine")
    assert back["calibration"]["status"] == "used"
    other = classify(served, samples["cat"].read_bytes(), labelset="mine", templates="none")
    assert (other["calibrated"], len(other["warnings"])) == (False, 1)


def test_a_calibration_encodes_no_label_again(
    served: httpx.Client, pictures: list[Picture]
) -> None:
    def texts() -> int:
        lines = served.get("/metrics").text.splitlines()
        counts = [
            line
            for line in lines
            if "text" in line and line.startswith("openvocab_batch") and "_count" in line
        ]
        return sum(int(float(line.split()[-1])) for line in counts)

    register(served, "cheap")
    calibrate(served, "cheap", pictures)  # now the background is known, too
    before = texts()
    response = calibrate(served, "cheap", pictures)
    ready = served.get("/labelsets/cheap")
    assert ready.json()["status"] == "ready"
    assert response.json()["version"] == ready.json()["version"]
    assert texts() == before > 0


def test_preconditions_hold_and_deleting_forgets(
    served: httpx.Client, pictures: list[Picture], samples: dict[str, Path]
) -> None:
    response = register(served, "guarded")
    late = calibrate(served, "guarded", pictures, headers={"If-Match": '"1"'})
    assert late.status_code == 412
    match = {"If-Match": f'"{response["version"]}"'}
    calibrated = calibrate(served, "guarded", pictures, headers=match)
    assert calibrated.status_code == 200
    assert calibrated.headers["etag"] != match["If-Match"].strip()
    assert served.delete("/labelsets/guarded/calibration", headers=match).status_code == 412
    match = {"If-Match": calibrated.headers["etag"]}
    assert served.delete("/labelsets/guarded/calibration", headers=match).status_code == 204
    assert served.get("/labelsets/guarded/calibration").status_code == 404
    assert served.get("/labelsets/guarded").json()["calibration"] is None
    answer = classify(served, samples["cat"].read_bytes(), labelset="guarded")
    assert (answer["calibrated"], answer["warnings"]) == (False, [])


def test_a_calibration_can_be_carried_to_a_label_set_that_it_fits_and_to_no_other(
    served: httpx.Client, calibrated: dict[str, Any]
) -> None:
    content = served.get("/labelsets/pets/calibration").json()
    register(served, "copy")
    assert served.put("/labelsets/copy/calibration", json=content).status_code == 204
    assert served.get("/labelsets/copy/calibration").json() == content
    register(served, "other", [*LABELS, "octopus"])
    wrong = served.put("/labelsets/other/calibration", json=content)
    assert (wrong.status_code, wrong.json()["field"]) == (422, "fitted_for")
    foreign = served.put("/labelsets/copy/calibration", json={**content, "fingerprint": "x"})
    assert "another model" in foreign.json()["detail"]
    bad = served.put("/labelsets/copy/calibration", json={**content, "scale": 0})
    assert (bad.status_code, bad.json()["field"]) == (422, "scale")


def test_the_lines_of_the_api_page_work_as_pasted(served: httpx.Client) -> None:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    block = next(b for b in re.findall(r"```sh\n(.*?)```", page, re.DOTALL) if "/calibrate" in b)
    script = block.replace("localhost:8000", f"127.0.0.1:{served.base_url.port}")
    script = script.replace("calibration.json", '"$OUT"')
    script = script.replace('@"$OUT"', '"@$OUT"').replace("curl ", "curl -sS --fail-with-body ")
    process = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", f"OUT=$(mktemp); {script}"],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert process.returncode == 0, process.stdout + process.stderr
    registered, calibrated, classified = process.stdout.splitlines()
    assert json.loads(registered)["label_count"] == json.loads(calibrated)["count"] == 13
    assert json.loads(classified)["predictions"][0]["label"] == "cat"
    assert served.get("/labelsets/things/calibration").status_code == 404


def test_a_calibration_survives_the_process(
    pictogram: Encoder, serve: Serve, tmp_path: Path, pictures: list[Picture]
) -> None:
    settings = {"store_url": "", "data_dir": tmp_path}
    with serve(pictogram, **settings) as client:
        register(client, "pets")
        calibrate(client, "pets", pictures)
        before = client.get("/labelsets/pets/calibration").json()
    with serve(pictogram, **settings) as client:
        assert client.get("/labelsets/pets/calibration").json() == before
        answer = classify(client, pictures[0][1], labelset="pets")
        assert answer["calibrated"] is True


def test_a_set_of_labels_holds_the_right_one_as_often_as_was_asked(
    served: httpx.Client, pictures: list[Picture]
) -> None:
    register(served, "promise")
    labelled = [picture for picture in pictures if picture[0]]
    assert calibrate(served, "promise", labelled).status_code == 200
    coverages, sizes = {}, {}
    for coverage in (0.5, 0.9, 0.99):
        sets = [
            (label, classify(served, image, labelset="promise", coverage=coverage)["set"])
            for label, image in labelled
        ]
        coverages[coverage] = np.mean([label in labels for label, labels in sets])
        sizes[coverage] = np.mean([len(labels) for _, labels in sets])
        assert coverages[coverage] >= coverage - 0.02
    assert sizes[0.5] <= sizes[0.9] <= sizes[0.99] == len(LABELS)
    plain = classify(served, labelled[0][1], labelset="promise")
    assert "set" not in plain


@pytest.mark.parametrize(
    ("fields", "more"),
    [
        ({"labelset": "promise"}, []),
        ({"labelset": "promise,again", "boxes": "[[0,0,1,1]]"}, ["labelset", "box"]),
    ],
)
def test_a_set_of_labels_is_a_column_of_tables_and_has_no_room_in_lines_of_text(
    served: httpx.Client, pictures: list[Picture], fields: dict[str, str], more: list[str]
) -> None:
    for name in ("promise", "again"):
        register(served, name)
        assert calibrate(served, name, [each for each in pictures if each[0]]).status_code == 200
    files, table = [("image", ("a.png", pictures[0][1]))], {"Accept": "text/csv"}
    data = {**fields, "coverage": 0.9}
    answer = served.post("/classify", files=files, data=data).json()
    (part,) = answer.get("boxes", [answer])
    results = part.get("results", {"promise": part})
    for path, head, tail in (
        ("/classify", [], []),
        ("/classify/batch", ["index", "name"], ["reason", "error"]),
    ):
        rows = csv.DictReader(
            io.StringIO(served.post(path, files=files, data=data, headers=table).text)
        )
        assert rows.fieldnames == [*head, "label", "score", "similarity", "set", *more, *tail]
        for row in rows:
            assert json.loads(row["set"]) == results[row.get("labelset", "promise")]["set"]
        lines = served.post(path, files=files, data=data, headers={"Accept": "text/plain"})
        assert (lines.status_code, lines.json()["field"]) == (422, "coverage")
        plain = served.post(path, files=files, data=fields, headers=table).text
        assert "set" not in plain.splitlines()[0].split(",")
    # where nothing is answered the set is empty
    none = {**data, "threshold": 1}
    text = served.post("/classify/batch", files=files, data=none, headers=table).text
    for row in csv.DictReader(io.StringIO(text)):
        assert (row["label"], row["set"], row["error"]) == ("", "[]", "")
        assert "below 1" in row["reason"]


@pytest.mark.parametrize(
    "fields",
    [
        {"labels": "cat,dog", "coverage": "0.9"},
        {"labelset": "preset:food", "coverage": "0.9"},
        {"labelset": "promise", "coverage": "0.9", "multi_label": "true"},
        {"labelset": "promise", "coverage": "1"},
    ],
)
def test_a_promise_that_cannot_be_kept_is_refused(
    served: httpx.Client, pictures: list[Picture], fields: dict[str, str]
) -> None:
    register(served, "promise")
    response = served.post("/classify", files={"image": pictures[0][1]}, data=fields)
    assert (response.status_code, response.json()["field"]) == (422, "coverage")


def test_numbers_and_lists_that_no_float_or_stack_holds_are_the_requests_fault(
    client: httpx.Client,
) -> None:
    huge = "9" * 400
    client.put("/labelsets/huge?wait=true", json={"labels": ["cat", "dog"]})
    image = base64.b64encode(b"x").decode()
    names = '"model":"a","fingerprint":"b","fitted_for":"c"'
    requests = (
        ("POST", "calibrate", f'{{"images":[{{"image":"{image}","label":"cat"}}],"risk":{huge}}}'),
        ("PUT", "calibration", f'{{"format":1,{names},"model_scale":{huge}}}'),
        ("PUT", "calibration", f'{{"format":{huge}}}'),
    )  # fmt: skip
    for method, path, body in requests:
        headers = {"Content-Type": "application/json"}
        url = f"/labelsets/huge/{path}"
        answer = client.request(method, url, content=body, headers=headers)
        assert answer.status_code == 422, answer.text
        assert len(answer.text) < 1_000
    deep = client.post(
        "/labelsets/huge/calibrate", data={"label": "[" * 200_000}, files={"image": b"x"}
    )
    assert deep.status_code == 413, deep.text
