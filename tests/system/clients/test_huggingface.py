"""The Python client huggingface_hub against a live server, and what its older releases send."""

import asyncio
import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from huggingface_hub import AsyncInferenceClient, InferenceClient
from huggingface_hub.errors import HfHubHTTPError
from PIL import Image

from tests.conftest import alike

LABELS = ["dog", "cat", "pizza", "rocket"]
PATH = "/hf/zero-shot-image-classification"


@pytest.fixture
def hf(url: str) -> InferenceClient:
    return InferenceClient(model=f"{url}{PATH}", token="none")


def from_pil(path: Path) -> bytes:
    """As the documents tell it: this task of the client takes no PIL image."""
    with Image.open(path) as image:
        file = io.BytesIO()
        image.save(file, format="PNG")
    return file.getvalue()


@pytest.mark.parametrize("form", [Path.read_bytes, Path, str, from_pil])
def test_an_image_is_classified_in_every_form_that_the_client_takes(
    hf: InferenceClient, samples: dict[str, Path], form: Callable[[Path], Any]
) -> None:
    predictions = hf.zero_shot_image_classification(form(samples["cat"]), candidate_labels=LABELS)
    assert predictions[0].label == "cat"
    assert sorted(prediction.label for prediction in predictions) == sorted(LABELS)
    scores = [prediction.score for prediction in predictions]
    assert scores == sorted(scores, reverse=True)
    assert sum(scores) == pytest.approx(1, abs=1e-5)


def test_a_pil_image_is_refused_by_the_client_itself(
    hf: InferenceClient, samples: dict[str, Path]
) -> None:
    """Its documents promise it; once this fails it has learnt to, and docs/clients.md is old."""
    with (
        Image.open(samples["cat"]) as image,
        pytest.raises(ValueError, match="Expected binary inputs or a local path or a URL"),
    ):
        hf.zero_shot_image_classification(image, candidate_labels=LABELS)


def test_labels_are_a_list_or_a_text_with_commas(
    hf: InferenceClient, samples: dict[str, Path]
) -> None:
    commas: Any = ", ".join(LABELS)
    results = [
        hf.zero_shot_image_classification(str(samples["cat"]), candidate_labels=labels)
        for labels in (LABELS, commas)
    ]
    assert [prediction.label for prediction in results[0]] == [
        prediction.label for prediction in results[1]
    ]


def test_base_url_is_as_good_as_model(url: str, samples: dict[str, Path]) -> None:
    hf = InferenceClient(base_url=f"{url}{PATH}", token="none")
    predictions = hf.zero_shot_image_classification(str(samples["dog"]), candidate_labels=LABELS)
    assert predictions[0].label == "dog"


# the client's own way to hand over its bytes
@pytest.mark.filterwarnings("ignore:Use 'content=:DeprecationWarning")
def test_the_asynchronous_client_is_answered_too(url: str, samples: dict[str, Path]) -> None:
    async def call() -> str:
        async with AsyncInferenceClient(model=f"{url}{PATH}", token="none") as hf:
            predictions = await hf.zero_shot_image_classification(
                samples["cat"].read_bytes(), candidate_labels=LABELS
            )
        return str(predictions[0].label)

    assert asyncio.run(call()) == "cat"


@pytest.mark.parametrize("template", [None, "This is a photo of {}."])
def test_scores_are_those_of_classify_with_the_same_templates(
    hf: InferenceClient, client: httpx.Client, samples: dict[str, Path], template: str | None
) -> None:
    predictions = hf.zero_shot_image_classification(
        str(samples["cat"]), candidate_labels=LABELS, hypothesis_template=template
    )
    rows = client.post(
        "/classify",
        files={"image": samples["cat"].read_bytes()},
        data={"labels": LABELS} | ({} if template is None else {"templates": template}),
    ).json()["predictions"]
    assert [{"label": one.label, "score": one.score} for one in predictions] == alike(
        [{"label": row["label"], "score": row["score"]} for row in rows]
    )


def test_more_labels_than_classify_shows_are_all_answered(
    hf: InferenceClient, samples: dict[str, Path]
) -> None:
    labels = [f"thing {number}" for number in range(12)]
    predictions = hf.zero_shot_image_classification(str(samples["cat"]), candidate_labels=labels)
    assert sorted(prediction.label for prediction in predictions) == sorted(labels)


@pytest.mark.parametrize(
    ("image", "options", "message"),
    [
        (b"no image", {"candidate_labels": LABELS}, "this is text"),
        (None, {"candidate_labels": ["cat", "cat"]}, "duplicate label 'cat'"),
        (
            None,
            {"candidate_labels": LABELS, "hypothesis_template": "a photo"},
            "hypothesis_template has no {} for the label",
        ),
        (None, {"candidate_labels": ["cat", "dog " * 49]}, "the model reads"),
    ],
    ids=["no image", "a label twice", "no placeholder", "a label too long"],
)
def test_an_error_tells_what_was_wrong(
    hf: InferenceClient,
    samples: dict[str, Path],
    image: bytes | None,
    options: dict[str, Any],
    message: str,
) -> None:
    with pytest.raises(HfHubHTTPError) as caught:
        hf.zero_shot_image_classification(image or samples["cat"].read_bytes(), **options)
    assert message in str(caught.value)


def test_the_token_is_the_api_key(guarded: str, samples: dict[str, Path]) -> None:
    hf = InferenceClient(model=f"{guarded}{PATH}", token="a key of this test")
    predictions = hf.zero_shot_image_classification(str(samples["cat"]), candidate_labels=LABELS)
    assert predictions[0].label == "cat"
    stranger = InferenceClient(model=f"{guarded}{PATH}", token="another")
    with pytest.raises(HfHubHTTPError, match="unknown API key"):
        stranger.zero_shot_image_classification(str(samples["cat"]), candidate_labels=LABELS)


CAT = "the cat's picture in base64"


@pytest.mark.parametrize(
    "body",
    [
        {"inputs": CAT, "parameters": {"candidate_labels": LABELS}},
        {"inputs": f"data:image/png;base64,{CAT}", "parameters": {"candidate_labels": LABELS}},
        {
            "inputs": {"image": CAT, "candidateLabels": ",".join(LABELS)},
            "parameters": {"hypothesis_template": None},
        },
        {"image": CAT, "parameters": {"candidate_labels": ",".join(LABELS)}},
        {
            "inputs": {"image": CAT},
            "parameters": {"candidate_labels": LABELS},
            "options": {"wait_for_model": True},
        },
    ],
    ids=["0.28 and newer", "data URI", "0.26", "0.17 to 0.24", "JavaScript 2"],
)
def test_the_bodies_of_older_clients_are_read(
    client: httpx.Client, samples: dict[str, Path], body: dict[str, Any]
) -> None:
    coded = base64.b64encode(samples["cat"].read_bytes()).decode()
    if isinstance(body.get("inputs"), dict):
        fields = body | {"inputs": body["inputs"] | {"image": coded}}
    else:
        fields = {k: v.replace(CAT, coded) if isinstance(v, str) else v for k, v in body.items()}
    answer = client.post(PATH, json=fields)
    assert answer.status_code == 200, answer.text
    assert answer.json()[0]["label"] == "cat"


def test_a_body_that_is_the_image_has_its_parameters_in_the_address(
    client: httpx.Client, samples: dict[str, Path]
) -> None:
    answer = client.post(
        PATH,
        content=samples["cat"].read_bytes(),
        params={"candidate_labels": "dog,cat", "hypothesis_template": "a {}"},
    )
    assert [prediction["label"] for prediction in answer.json()] == ["cat", "dog"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"parameters": {"candidate_labels": LABELS}}, "inputs"),
        ({"inputs": {"image": 3}, "parameters": {"candidate_labels": LABELS}}, "inputs"),
        ({"inputs": "", "parameters": {"candidate_labels": LABELS}}, "inputs"),
        ({"inputs": "!", "parameters": {"candidate_labels": LABELS}}, "inputs"),
        ({"inputs": "http://127.0.0.1/", "parameters": {"candidate_labels": LABELS}}, "inputs"),
        ({"inputs": "aGk="}, "candidate_labels"),
        ({"inputs": "aGk=", "parameters": {"candidate_labels": ["cat"]}}, "candidate_labels"),
        ({"inputs": "aGk=", "parameters": []}, "candidate_labels"),
        ({"inputs": "aGk=", "parameters": "cat"}, "parameters"),
        ({"inputs": "aGk=", "parameters": {"candidates": LABELS}}, "candidates"),
        ({"inputs": "aGk=", "labels": LABELS}, "labels"),
        (
            {
                "inputs": "aGk=",
                "parameters": {"candidate_labels": LABELS, "hypothesis_template": "{} and {}"},
            },
            "hypothesis_template",
        ),
    ],
)
def test_a_bad_body_is_refused_with_its_field(
    client: httpx.Client, body: dict[str, Any], field: str
) -> None:
    answer = client.post(PATH, json=body)
    assert answer.status_code == 422, answer.text
    assert answer.json()["field"] == field
    assert answer.json()["error"] == answer.json()["detail"]


TWO = {"candidate_labels": LABELS}


@pytest.mark.parametrize(
    ("query", "body", "field"),
    [
        ("?candidate_labels=fish,bird", {"inputs": CAT, "parameters": TWO}, "candidate_labels"),
        (
            "?hypothesis_template=nobraces",
            {"inputs": CAT, "parameters": TWO},
            "hypothesis_template",
        ),
        ("?foo=1", {"inputs": CAT, "parameters": TWO}, "foo"),
        ("", {"inputs": CAT, "image": CAT, "parameters": TWO}, "image"),
        (
            "",
            {"inputs": {"image": CAT, "candidateLabels": "fish,bird"}, "parameters": TWO},
            "candidateLabels",
        ),
        ("", {"inputs": {"image": CAT, "candidate_labels": LABELS}}, "candidate_labels"),
    ],
)
def test_what_contradicts_itself_in_json_is_refused(
    client: httpx.Client, query: str, body: dict[str, Any], field: str
) -> None:
    answer = client.post(PATH + query, json=body)
    assert (answer.status_code, answer.json()["field"]) == (422, field), answer.text


def test_a_form_has_a_field_under_one_of_its_names(
    client: httpx.Client, samples: dict[str, Path]
) -> None:
    cat, dog = (samples[name].read_bytes() for name in ("cat", "dog"))
    pictures, labels = {"image": cat, "inputs": dog}, {"candidate_labels": "fish,bird"}
    answer = client.post(PATH, files=pictures, data=labels)
    assert (answer.status_code, answer.json()["field"]) == (422, "image")
    answer = client.post(PATH, files={"image": cat}, data={"labels": "cat,dog", **labels})
    assert (answer.status_code, answer.json()["field"]) == (422, "labels")
    answer = client.post(PATH, files={"image": cat}, data={"labels": "cat,dog"})
    assert answer.json()[0]["label"] == "cat"


def test_parameters_of_a_json_body_may_stand_in_the_address_too(
    client: httpx.Client, samples: dict[str, Path]
) -> None:
    body = {"inputs": base64.b64encode(samples["cat"].read_bytes()).decode(), "image": None}
    answer = client.post(PATH, json=body, params={"candidate_labels": "cat,dog"})
    assert answer.json()[0]["label"] == "cat"
