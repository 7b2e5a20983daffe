"""Heat maps: where a label is seen, in the shape of the picture."""

import base64
import io
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from app.classify import heatmap
from models import ImageSpec
from models.encoder import Encoder

SQUARE = ImageSpec(224, 224, "shortest", "bicubic", 0)
NOWHERE = np.zeros((heatmap.GRID, heatmap.GRID), np.bool_)


def pixels_of(uri: str) -> np.ndarray[Any, Any]:
    head, _, data = uri.partition(",")
    assert head == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(data))))


def test_each_copy_is_covered_in_one_square_and_all_of_the_picture_is_covered_once() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (3, 96, 80), np.uint8)
    copies = heatmap.covered(pixels)
    assert len(copies) == heatmap.COVERS
    changed = [(copy != pixels).any(axis=0) for copy in copies]
    assert np.logical_or.reduce(changed).mean() > 0.99
    expected = (heatmap.COVER / heatmap.GRID) ** 2
    assert all(area.mean() == pytest.approx(expected, rel=0.1) for area in changed)


def test_heat_is_where_covering_costs_most() -> None:
    without = np.full((heatmap.COVERS, 2), 0.5, np.float32)
    # the first label is lost under the cover in the upper left corner, the second nowhere
    without[0, 0] = 0.1
    cells = heatmap.heat(np.full(2, 0.5, np.float32), without, NOWHERE)
    assert cells.shape == (2, heatmap.GRID, heatmap.GRID)
    assert np.unravel_index(cells[0].argmax(), cells[0].shape) == (0, 0)
    assert cells[0, 0, 0] == pytest.approx(0.4)
    assert not cells[1].any()
    assert not pixels_of(heatmap.png(cells[1], 10, 10, SQUARE)).any()


def test_flat_ground_is_cold_whatever_a_cover_on_it_costs(
    client: httpx.Client, samples: dict[str, Path]
) -> None:
    # drawn in the middle of white ground with the noise of a JPEG
    ground = np.random.default_rng(0).integers(248, 256, (300, 300, 3), np.uint8)
    picture = Image.fromarray(ground)
    picture.paste(Image.open(samples["cat"]).convert("RGB").resize((120, 120)), (90, 90))
    out = io.BytesIO()
    picture.save(out, "PNG")
    pixels = np.asarray(picture).transpose(2, 0, 1)
    expected = np.ones((heatmap.GRID, heatmap.GRID), np.bool_)
    expected[2:5, 2:5] = False
    assert (heatmap.flat(pixels) == expected).all()
    without = np.zeros((heatmap.COVERS, 1), np.float32)
    cells = heatmap.heat(np.ones(1, np.float32), without, expected)[0]
    assert not cells[expected].any()
    assert (cells[~expected] == 1).all()
    answer = client.post(
        "/classify",
        files={"image": out.getvalue()},
        data={"labels": "cat,rocket", "explain": "true"},
    ).json()
    grey = pixels_of(answer["predictions"][0]["heatmap"])
    edge = grey.shape[0] // heatmap.GRID
    assert grey.max() == 255
    assert grey[:edge].max() == grey[:, :edge].max() == grey[-edge:].max() == 0


@pytest.mark.parametrize(
    ("mode", "size", "region"),
    [
        ("shortest", (400, 200), (0.25, 0.0, 0.75, 1.0)),
        ("shortest", (200, 400), (0.0, 0.25, 1.0, 0.75)),
        ("longest", (400, 200), (0.0, -0.5, 1.0, 1.5)),
        ("squash", (400, 200), (0.0, 0.0, 1.0, 1.0)),
    ],
)
def test_the_map_lies_where_the_model_looks(
    mode: Any, size: tuple[int, int], region: tuple[float, ...]
) -> None:
    spec = ImageSpec(224, 224, mode, "bicubic", 0)
    assert heatmap.region(*size, spec) == pytest.approx(region)
    grey = pixels_of(heatmap.png(np.ones((heatmap.GRID, heatmap.GRID), np.float32), *size, spec))
    assert grey.shape[::-1] == (heatmap.EDGE * size[0] // 400, heatmap.EDGE * size[1] // 400)
    if mode == "shortest":
        assert not grey[0, 0]
    assert grey[grey.shape[0] // 2, grey.shape[1] // 2] == 255


def test_the_map_of_a_label_is_bright_on_its_picture(
    client: httpx.Client, samples: dict[str, Path]
) -> None:
    # a cat on the left and a rocket on the right
    image = Image.new("RGB", (512, 512), "white")
    for name, corner in (("cat", (10, 150)), ("rocket", (280, 150))):
        image.paste(Image.open(samples[name]).convert("RGB").resize((220, 220)), corner)
    out = io.BytesIO()
    image.save(out, "PNG")
    answer = client.post(
        "/classify", files={"image": out.getvalue()},
        data={"labels": "cat,rocket", "explain": "true"},
    )  # fmt: skip
    assert answer.status_code == 200, answer.text
    maps = {p["label"]: pixels_of(p["heatmap"]) for p in answer.json()["predictions"]}
    half = maps["cat"].shape[1] // 2
    assert maps["cat"][:, :half].mean() > maps["cat"][:, half:].mean()
    assert maps["rocket"][:, half:].mean() > maps["rocket"][:, :half].mean()
    assert "explain;dur=" in answer.headers["server-timing"]
    plain = client.post("/classify", files={"image": out.getvalue()}, data={"labels": "cat,rocket"})
    assert "heatmap" not in plain.text


def test_many_heat_maps_at_once_do_not_fill_the_queue(
    pictogram: Encoder, serve: Callable[..., Any], samples: dict[str, Path]
) -> None:
    picture = samples["cat"].read_bytes()

    def explained(client: httpx.Client) -> int:
        return client.post("/classify?labels=cat,dog&explain=true", content=picture).status_code

    # six at once would be 96 covers
    with serve(pictogram, max_queue=24, max_batch=2) as client, ThreadPoolExecutor(6) as pool:
        assert list(pool.map(lambda _: explained(client), range(12))) == [200] * 12


def test_heat_maps_can_be_switched_off(
    pictogram: Encoder, serve: Callable[..., Any], samples: dict[str, Path]
) -> None:
    picture = samples["cat"].read_bytes()
    with serve(pictogram, explain=False) as client:
        assert client.get("/models").json()["explains"] is False
        refused = client.post("/classify?labels=cat,dog&explain=true", content=picture)
        assert (refused.status_code, refused.json()["field"]) == (422, "explain")
        refused = client.post(
            "/classify/batch", data={"labels": "a,b", "explain": "1"}, files={"image": picture}
        )
        assert (refused.status_code, refused.json()["field"]) == (422, "explain")
