"""Several models in one server: chosen by the field `model`, loaded when asked for, unloaded."""

import asyncio
import json
import logging
import re
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from app.server.main import create_app
from app.server.settings import Settings
from benchmarks.servers import openvocab, wait_until
from benchmarks.usage import resident_mb, settle
from models.encoder import Encoder
from models.loader import load
from tests.api.test_calibration import calibrate, variants

Serve = Callable[..., AbstractContextManager[httpx.Client]]

LABELS = ["cat", "dog", "heart"]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def two(pictogram: Encoder, other_model: str, serve: Serve) -> Iterator[httpx.Client]:
    """A server of the bundled model and of another one, whose alias is `text-embedding-3-small`."""
    with serve(
        pictogram, more_models=f"{other_model}, local-dir:/nowhere", precision="fp32",
        model_aliases=f"text-embedding-3-small={other_model}", image_cache_bytes=1_000_000,
    ) as client:  # fmt: skip
        until(client, other_model, "loaded")
        yield client


def until(client: httpx.Client, model: str, state: str) -> dict[str, Any]:
    """What GET /models tells of a model, once it is in a state."""
    ends_at = time.monotonic() + 240
    while time.monotonic() < ends_at:
        by_name = {model["name"]: model for model in client.get("/models").json()["models"]}[model]
        if by_name["state"] == state:
            return dict(by_name)
        time.sleep(0.05)
    raise AssertionError(f"{model} is {by_name['state']}, not {state}")


def classify(client: httpx.Client, picture: Path, **fields: str) -> httpx.Response:
    return client.post(
        "/classify",
        files={"image": picture.read_bytes()},
        data={"labels": json.dumps(LABELS), "templates": "pictogram", **fields},
    )


def test_a_request_chooses_its_model(
    two: httpx.Client, samples: dict[str, Path], other_model: str
) -> None:
    picture = samples["cat"]
    weight_sizes = [
        model["info"]["weights_bytes"] for model in two.get("/models").json()["models"][:2]
    ]
    assert min(weight_sizes) > 10_000_000
    default, by_name, other, alias = (
        classify(two, picture, **({"model": name} if name else {})).json()
        for name in (None, "pictogram", other_model, "text-embedding-3-small")
    )
    assert default["model"] == by_name["model"] == "pictogram"
    assert other["model"] == alias["model"] == other_model
    # its towers are both turned alike: the same scores, from other vectors
    scores = [
        [prediction["score"] for prediction in answer["predictions"]] for answer in (default, other)
    ]
    np.testing.assert_allclose(*scores, atol=1e-4)
    rows = [
        two.post("/embeddings/text", json={"texts": ["cat"], **fields}).json()
        for fields in ({}, {"model": other_model})
    ]
    assert rows[0]["fingerprint"] != rows[1]["fingerprint"]
    vectors = [np.array(row["embeddings"][0]) for row in rows]
    assert not np.allclose(*vectors, atol=0.1)
    np.testing.assert_allclose(vectors[0], vectors[1][::-1], atol=1e-5)


def test_the_log_names_the_model_that_answered(
    two: httpx.Client, samples: dict[str, Path], other_model: str, caplog: pytest.LogCaptureFixture
) -> None:
    logger = logging.getLogger("openvocab.access")
    level = logger.level
    logger.setLevel(logging.INFO)
    try:
        with caplog.at_level(logging.INFO, logger="openvocab.access"):
            for name in ("text-embedding-3-small", "pictogram"):
                classify(two, samples["cat"], model=name)
            # a line is written after its answer
            wait_until(
                lambda: sum(record.name == "openvocab.access" for record in caplog.records) == 2
            )
    finally:
        logger.setLevel(level)
    model_names = [vars(record).get("fields", {}).get("model") for record in caplog.records]
    assert [name for name in model_names if name] == [other_model, "pictogram"]


def test_every_route_that_embeds_takes_the_field(
    two: httpx.Client, samples: dict[str, Path], other_model: str
) -> None:
    picture, chosen = samples["cat"].read_bytes(), {"model": other_model}
    image = two.post("/embeddings/image", files={"image": picture}, data=chosen)
    assert image.json()["model"] == other_model
    text = two.post("/embeddings/text", params=chosen, json={"texts": ["cat"]})
    assert text.json()["model"] == other_model
    batch = two.post(
        "/classify/batch", files={"image": picture}, data={"labels": json.dumps(LABELS), **chosen}
    )
    assert batch.json()["results"][0]["result"]["model"] == other_model
    openai = two.post("/v1/embeddings", json={"input": "cat", "model": "text-embedding-3-small"})
    assert openai.json()["model"] == other_model
    for parameters in (chosen, {}):
        response = two.post(
            "/hf/zero-shot-image-classification",
            params={} if parameters else chosen,
            files={"image": picture},
            data={"labels": json.dumps(LABELS), **parameters},
        )
        assert response.status_code == 200, response.text
    listed = [entry["id"] for entry in two.get("/v1/models").json()["data"]]
    assert listed == ["pictogram", other_model, "local-dir:/nowhere", "text-embedding-3-small"]
    assert two.get("/v1/models/text-embedding-3-small").status_code == 200


def test_an_image_is_cached_for_each_model(
    two: httpx.Client, samples: dict[str, Path], other_model: str
) -> None:
    picture = samples["dog"]
    cached = [
        classify(two, picture, model=name).json()["image"]["cached"]
        for name in ("pictogram", other_model, "pictogram", other_model)
    ]
    assert cached == [False, False, True, True]


def test_an_unknown_model_is_told_with_those_that_are_served(
    two: httpx.Client, samples: dict[str, Path]
) -> None:
    response = classify(two, samples["cat"], model="ViT-L-14/openai")
    assert response.status_code == 404
    assert response.json()["field"] == "model"
    assert "this server has pictogram, " in response.json()["detail"]


def test_a_model_that_fails_to_load_fails_its_own_requests_alone(
    two: httpx.Client, samples: dict[str, Path]
) -> None:
    state = until(two, "local-dir:/nowhere", "failed")
    assert "no such folder" in state["reason"]
    response = classify(two, samples["cat"], model="local-dir:/nowhere")
    assert response.status_code == 503
    assert "no such folder" in response.json()["detail"]
    assert "Retry-After" in response.headers
    assert classify(two, samples["cat"]).status_code == 200
    ready = two.get("/readyz")
    assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
    assert list(ready.json()["models"].values()) == ["ready", "ready", "failed"]


def test_a_label_set_is_built_for_the_model_that_is_asked(
    two: httpx.Client, samples: dict[str, Path], other_model: str
) -> None:
    response = two.put(
        "/labelsets/pets",
        params={"wait": "true"},
        json={"labels": LABELS, "templates": "pictogram"},
    )
    assert response.json()["models"][other_model] == "unbuilt"
    image = samples["cat"].read_bytes()
    results = []
    for name in ("pictogram", other_model):
        answer = two.post(
            "/classify", files={"image": image}, data={"labelset": "pets", "model": name}
        ).json()
        assert (answer["model"], answer["labelset"]) == (name, "pets")
        results.append([prediction["score"] for prediction in answer["predictions"]])
    np.testing.assert_allclose(*results, atol=1e-4)
    states = two.get("/labelsets/pets").json()["models"]
    assert (states["pictogram"], states[other_model]) == ("ready", "ready")
    # a change is seen by both; until it is built for a model, what it had before answers
    two.put("/labelsets/pets", params={"wait": "true"}, json={"labels": ["rocket", "cat"]})
    ends_at = time.monotonic() + 240
    labels: set[str] = set()
    while labels != {"rocket", "cat"}:
        assert time.monotonic() < ends_at, labels
        answer = two.post(
            "/classify", files={"image": image}, data={"labelset": "pets", "model": other_model}
        ).json()
        labels = {prediction["label"] for prediction in answer["predictions"]}


def test_examples_are_added_with_the_model_that_is_named_and_serve_all(
    two: httpx.Client, samples: dict[str, Path], other_model: str
) -> None:
    set_ = {"labels": LABELS, "templates": "pictogram"}
    two.put("/labelsets/drawn", json=set_).raise_for_status()
    pictures = {label: variants(samples[label])[:3] for label in ("cat", "dog")}
    files = [("image", data) for images in pictures.values() for data in images]
    labels = [label for label, images in pictures.items() for _ in images]
    chosen = {"model": other_model, "wait": "true"}
    added = two.post(
        "/labelsets/drawn/examples", params=chosen, files=files, data={"label": labels}
    ).json()
    assert (added["status"], added["added"]) == ("ready", 6)
    assert added["blend"]["tried"] == 6
    blends = []
    for name in (other_model, "pictogram"):
        answer = two.get("/labelsets/drawn", params={"model": name}).json()
        while answer["status"] == "building":
            answer = two.get("/labelsets/drawn", params={"model": name}).json()
        assert answer["model"] == name
        blends.append(answer["blend"])
    # each has embedded the pictures itself; the towers of one are those of the other, turned
    assert blends[0] == blends[1]
    answer = two.get("/labelsets/drawn", params={"model": "text-embedding-3-small"}).json()
    assert answer["models"] == {
        "pictogram": "ready", other_model: "ready", "local-dir:/nowhere": "unbuilt"
    }  # fmt: skip


def test_each_model_has_its_own_calibration(
    two: httpx.Client, samples: dict[str, Path], other_model: str
) -> None:
    labels = ["airplane", "banana", "bicycle", "cat", "dog", "doughnut"]
    pictures = [(label, data) for label in labels for data in variants(samples[label])]
    two.put("/labelsets/fitted", json={"labels": labels}).raise_for_status()
    path = "/labelsets/fitted/calibration"

    def standing(model: str) -> str | None:
        answer = two.get("/labelsets/fitted", params={"model": model}).json()["calibration"]
        return answer and answer["status"]

    def warned(model: str) -> bool:
        fields = {"labelset": "fitted", "model": model}
        answer = two.post("/classify", files={"image": pictures[0][1]}, data=fields).json()
        return any("another model" in warning for warning in answer.get("warnings", []))

    fitted = calibrate(two, "fitted", pictures, params={"model": other_model})
    assert fitted.status_code == 200, fitted.text
    assert fitted.json()["calibration"]["model"] == other_model
    assert (standing(other_model), standing("pictogram")) == ("used", "stale")
    assert (warned(other_model), warned("pictogram")) == (False, True)
    calibrate(two, "fitted", pictures).raise_for_status()
    assert (standing(other_model), standing("pictogram")) == ("used", "used")
    assert not warned("pictogram")
    model_names = two.get("/labelsets/fitted").json()["calibrated_models"]
    assert sorted(model_names) == sorted([other_model, "pictogram"])
    definitions = {name: two.get(path, params={"model": name}).json() for name in model_names}
    assert all(definition["model"] == name for name, definition in definitions.items())

    assert two.delete(path).status_code == 204
    missing = two.get(path, params={"model": "pictogram"})
    assert missing.status_code == 404
    assert other_model in missing.json()["detail"]
    assert (standing(other_model), standing("pictogram")) == ("used", "stale")
    # the file names its model
    assert two.put(path, json=definitions["pictogram"]).status_code == 204
    assert (standing(other_model), standing("pictogram")) == ("used", "used")
    wrong = two.put(path, params={"model": other_model}, json=definitions["pictogram"])
    assert (wrong.status_code, wrong.json()["field"]) == (422, "fitted_for")
    two.delete(path, params={"model": "text-embedding-3-small"}).raise_for_status()
    assert (standing(other_model), standing("pictogram")) == ("stale", "used")


def test_the_api_pages_lines_work_as_pasted(two: httpx.Client, other_model: str) -> None:
    page = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
    section = page.partition("\n## Several models")[2].partition("\n## ")[0]
    script = section.partition("```sh\n")[2].partition("```")[0]
    two.put("/labelsets/mine", json={"labels": LABELS}).raise_for_status()
    server = f"127.0.0.1:{two.base_url.port}"
    for spelling, here in (
        ("curl ", "curl -sS --fail-with-body "),
        ("localhost:8000", server),
        ("everyday", "text-embedding-3-small"),
    ):
        assert spelling in script
        script = script.replace(spelling, here)
    completed = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", script],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert completed.returncode == 0, completed.stdout + completed.stderr
    assert completed.stdout.count(f'"model":"{other_model}"') == 2


def test_a_model_in_the_body_of_pictures_is_told_where_it_belongs(
    two: httpx.Client, samples: dict[str, Path], other_model: str
) -> None:
    two.put("/labelsets/few", json={"labels": LABELS}).raise_for_status()
    for path in ("examples", "calibrate"):
        refused = two.post(
            f"/labelsets/few/{path}",
            files={"image": samples["cat"].read_bytes()},
            data={"label": "cat", "model": other_model},
        )
        assert refused.status_code == 422, refused.text
        assert "?model=" in refused.json()["detail"]
        unknown = two.post(f"/labelsets/few/{path}", params={"model": "none"}, json={})
        assert (unknown.status_code, unknown.json()["field"]) == (404, "model")


def test_a_label_set_is_written_and_built_with_the_model_that_is_named(
    two: httpx.Client, other_model: str
) -> None:
    answer = two.put(
        "/labelsets/first", params={"wait": "true", "model": other_model}, json={"labels": LABELS}
    ).json()
    assert (answer["model"], answer["status"]) == (other_model, "ready")
    assert answer["models"]["pictogram"] == "unbuilt"
    listed = two.get("/labelsets", params={"model": other_model}).json()["labelsets"]
    assert {record["model"] for record in listed} == {other_model}


def test_metrics_tell_each_model(two: httpx.Client, other_model: str) -> None:
    text = two.get("/metrics").text
    assert f'openvocab_model_state{{model="{other_model}",state="loaded"}} 1' in text
    assert 'openvocab_model_canary_good{model="pictogram"} 1' in text
    for model in ("pictogram", other_model):
        assert f'openvocab_max_queued_images{{model="{model}"}} 512' in text
        assert f'openvocab_batch_size_count{{kind="image",model="{model}"}}' in text
        default = "true" if model == "pictogram" else "false"
        assert f'openvocab_model_info{{backend="openvino",default="{default}"' in text


def test_what_a_model_has_counted_stays_when_it_is_unloaded(
    pictogram: Encoder, other_model: str, serve: Serve, samples: dict[str, Path]
) -> None:
    def request_counts(client: httpx.Client) -> dict[str, float]:
        rows = (line.rpartition(" ") for line in client.get("/metrics").text.splitlines())
        return {name: float(value) for name, _, value in rows if not name.startswith("#")}

    images, busy = (
        'openvocab_images_total{format="png"}',
        f'openvocab_device_busy_seconds_total{{kind="image",model="{other_model}"}}',
    )
    with serve(
        pictogram, more_models=other_model, precision="fp32", loaded_models=2, model_idle=0.2
    ) as client:
        seconds = 0.0
        for times in (1, 2, 3):
            assert classify(client, samples["cat"], model=other_model).status_code == 200
            until(client, other_model, "idle")
            now = request_counts(client)
            assert now[images] == times
            assert now[busy] > seconds
            seconds = now[busy]
            assert f'openvocab_queued_images{{model="{other_model}"}}' not in now


def test_a_model_is_loaded_when_it_is_asked_for_and_goes_when_nobody_does(
    pictogram: Encoder, other_model: str, serve: Serve, samples: dict[str, Path]
) -> None:
    with serve(
        pictogram, more_models=other_model, precision="fp32", loaded_models=2, model_idle=0.2
    ) as client:
        assert until(client, other_model, "idle")["info"] is None
        for _ in range(2):
            response = classify(client, samples["cat"], model=other_model)
            assert response.json()["model"] == other_model
            until(client, other_model, "idle")
        assert classify(client, samples["cat"]).json()["model"] == "pictogram"


def test_the_one_that_was_used_longest_ago_makes_room(
    pictogram: Encoder, other_model: str, serve: Serve, samples: dict[str, Path], tmp_path: Path
) -> None:
    third = tmp_path / "third"
    third.symlink_to(other_model.removeprefix("local-dir:"))
    names = [other_model, f"local-dir:{third}"]
    with serve(
        pictogram,
        more_models=",".join(names),
        precision="fp32",
        loaded_models=2,
    ) as client:
        for name in (*names, *names):
            assert classify(client, samples["cat"], model=name).json()["model"] == name
            states = [model["state"] for model in client.get("/models").json()["models"]]
            assert sorted(states) == ["idle", "loaded", "loaded"]


def test_a_model_that_cannot_be_had_unloads_no_other(
    pictogram: Encoder, other_model: str, serve: Serve, samples: dict[str, Path]
) -> None:
    missing = "local-dir:/nowhere"
    with serve(
        pictogram, more_models=f"{other_model},{missing}", precision="fp32", loaded_models=2
    ) as client:
        assert classify(client, samples["cat"], model=other_model).is_success
        assert classify(client, samples["cat"], model=missing).status_code == 503
        models = client.get("/models").json()["models"]
        assert [model["state"] for model in models] == ["loaded", "loaded", "failed"]


def builds_ended(client: httpx.Client) -> dict[str, int]:
    """How many builds of label sets ended with each result."""
    found = re.findall(
        r'openvocab_labelset_builds_total\{result="(\w+)"\} (\d+)', client.get("/metrics").text
    )
    return {result: int(count) for result, count in found if int(count)}


def test_a_model_is_not_idle_while_it_builds_a_label_set(
    pictogram: Encoder, other_model: str, serve: Serve
) -> None:
    many = {"name": "many", "labels": [f"thing {n}" for n in range(60)], "templates": "imagenet"}
    with serve(
        pictogram, more_models=other_model, precision="fp32", loaded_models=2, model_idle=0.1
    ) as client:
        begun = client.post("/labelsets", params={"model": other_model}, json=many)
        assert begun.json()["status"] == "building", begun.text
        wait_until(lambda: builds_ended(client) != {}, 240)
        assert builds_ended(client) == {"built": 1}
        until(client, other_model, "idle")


def test_a_build_that_stops_because_its_model_makes_room_is_logged_and_begins_again(
    pictogram: Encoder,
    other_model: str,
    serve: Serve,
    samples: dict[str, Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    third = tmp_path / "third"
    third.symlink_to(other_model.removeprefix("local-dir:"))
    many = {"name": "many", "labels": [f"thing {n}" for n in range(2000)], "templates": "imagenet"}
    with serve(
        pictogram,
        more_models=f"{other_model},local-dir:{third}",
        precision="fp32",
        loaded_models=2,
    ) as client:
        begun = client.post("/labelsets", params={"model": other_model}, json=many)
        assert begun.json()["status"] == "building", begun.text
        assert classify(client, samples["cat"], model=f"local-dir:{third}").is_success
        assert builds_ended(client) == {"cancelled": 1}
        stopped = [
            record.getMessage() for record in caplog.records if "while it builds" in record.message
        ]
        assert stopped == [
            f"{other_model} is unloaded while it builds label sets (1); each build begins again "
            "when this model is asked for the set"
        ]
        again = client.get("/labelsets/many", params={"model": other_model})
        assert again.json()["status"] == "building"


def test_the_memory_of_a_model_comes_back(
    other_model: str, samples: dict[str, Path], data_dir: Path
) -> None:
    settings = {"more_models": other_model, "loaded_models": 2, "model_idle": 0.1}
    resident: list[float] = []
    with openvocab("memory://", data_dir, precision="fp32", **settings) as server:
        for _ in range(8):
            wait_until(
                lambda: classify(server.client, samples["cat"], model=other_model).is_success, 240
            )
            until(server.client, other_model, "idle")
            settle(server.process.pid)
            resident.append(resident_mb(server.process.pid))
    # the first loads pay for what stays: code that is mapped, caches that fill
    assert max(resident[2:]) < 1.05 * resident[1], resident


def test_encoders_on_one_device_share_its_thread(
    pictogram: Encoder, other_model: str, exports: Path
) -> None:
    beside = load(other_model, precision="fp32", exports=exports)
    beside.share_device(pictogram)
    assert beside._thread._queues is pictogram._thread._queues
    beside.close()
    assert pictogram.submit_texts(["still here"]).result(30).shape[0] == 1


def test_further_models_may_be_in_other_processes(
    pictogram: Encoder, other_model: str, exports: Path, samples: dict[str, Path]
) -> None:
    there = load(other_model, precision="fp32", exports=exports)
    loads: list[str] = []

    async def find(name: str) -> Encoder:
        loads.append(name)
        return there

    settings = Settings(model="pictogram", more_models=other_model, store_url="memory://")
    app = create_app(settings, pictogram, further=find)

    async def classified() -> list[str]:
        async with (
            app.router.lifespan_context(app),
            httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as client,
        ):
            responses = [
                await client.post(
                    "/classify",
                    files={"image": samples["cat"].read_bytes()},
                    data={"labels": json.dumps(LABELS), "model": name},
                )
                for name in ("pictogram", other_model)
            ]
            return [answer.json()["model"] for answer in responses]

    assert asyncio.run(classified()) == ["pictogram", other_model]
    assert loads == [other_model]
    # whoever found it owns it; what was taken is given back at the end
    there.close()
