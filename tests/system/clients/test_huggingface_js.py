"""The JavaScript client @huggingface/inference, in a process of its own, against a live server."""

import json
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import alike

LABELS = ["dog", "cat", "pizza", "rocket"]
PATH = "/hf/zero-shot-image-classification"

Call = Callable[..., dict[str, Any]]


@pytest.fixture
def call(
    url: str, node_modules: Path, samples: dict[str, Path], environment: Mapping[str, str]
) -> Call:
    def calling(**changed: Any) -> dict[str, Any]:
        call_options = {
            "url": f"{url}{PATH}",
            "image": str(samples["cat"]),
            "parameters": {"candidate_labels": LABELS},
            **changed,
        }
        process = subprocess.run(
            ["node", str(node_modules.parent / "classify.mjs"), json.dumps(call_options)],
            capture_output=True, text=True, timeout=300, check=False, env=dict(environment),
        )  # fmt: skip
        assert process.returncode == 0, process.stderr
        answer: dict[str, Any] = json.loads(process.stdout)
        return answer

    return calling


@pytest.mark.parametrize("legacy", [False, True], ids=["blob", "array buffer"])
def test_an_image_is_classified(call: Call, legacy: bool) -> None:
    predictions = call(legacy=legacy)["found"]
    assert predictions[0]["label"] == "cat"
    assert sorted(prediction["label"] for prediction in predictions) == sorted(LABELS)
    assert [prediction["score"] for prediction in predictions] == sorted(
        (prediction["score"] for prediction in predictions), reverse=True
    )


def test_an_own_template_is_used(
    call: Call, client: httpx.Client, samples: dict[str, Path]
) -> None:
    template = "an icon of {}, isolated"
    result = call(parameters={"candidate_labels": LABELS, "hypothesis_template": template})["found"]
    rows = client.post(
        "/classify",
        files={"image": samples["cat"].read_bytes()},
        data={"labels": LABELS, "templates": template},
    ).json()["predictions"]
    assert result == alike(
        [{"label": prediction["label"], "score": prediction["score"]} for prediction in rows]
    )


def test_an_error_tells_what_was_wrong(call: Call) -> None:
    failed = call(image=__file__)
    assert failed["status"] == 415
    assert "this is text, not JPEG, PNG" in failed["error"]
    failed = call(parameters={"candidate_labels": LABELS, "hypothesis_template": "no place"})
    assert failed["status"] == 422
    assert "hypothesis_template has no {}" in failed["error"]


def test_the_access_token_is_the_api_key(call: Call, guarded: str) -> None:
    address = f"{guarded}{PATH}"
    assert call(url=address, accessToken="a key of this test")["found"][0]["label"] == "cat"
    failed = call(url=address)
    assert failed["status"] == 401
    assert "no API key was sent" in failed["error"]
