"""What a picture's answer warns of: what was guessed, what is not seen."""

import base64
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image

from app.classify.other_words import FEWEST, OWN
from app.images.notes import FACTS, Noticed, bordered, of_many
from app.images.views import Cut
from models import ImageSpec
from models.encoder import Encoder

LABELS = "labels=cat,dog,pizza,rocket"


def png(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def ask(client: httpx.Client, image: bytes, more: str = "") -> dict[str, Any]:
    answer = client.post(f"/classify?{LABELS}{more}", content=image)
    assert answer.status_code == 200, answer.text
    result: dict[str, Any] = answer.json()
    return result


def drawing(colour: tuple[int, int, int]) -> Image.Image:
    """A disc of a colour on transparent ground."""
    y, x = np.ogrid[-32:32, -32:32]
    alpha = np.where(x * x + y * y < 400, 255, 0).astype(np.uint8)
    layer = Image.new("RGBA", (64, 64), (*colour, 0))
    layer.putalpha(Image.fromarray(alpha, "L"))
    return layer


@pytest.fixture(scope="module")
def cat(samples: dict[str, Path]) -> Image.Image:
    return Image.open(samples["cat"]).convert("RGB")


def test_an_ordinary_picture_earns_no_warning(
    client: httpx.Client, samples: dict[str, Path]
) -> None:
    for path in samples.values():
        assert ask(client, path.read_bytes())["warnings"] == []


def test_abstaining_among_more_labels_than_words_compete_with_waits_for_no_words(
    pictogram: Encoder,
    serve: Callable[..., Any],
    samples: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("app.server.build.OTHERS", "preset:never-ready")
    image = samples["cat"].read_bytes()
    with serve(pictogram) as client:
        for count, late in ((OWN // FEWEST, True), (OWN // FEWEST + 1, False)):
            labels = ",".join(f"thing {place}" for place in range(count))
            answer = client.post(f"/classify?labels={labels}&abstain=true", content=image)
            assert answer.status_code == 200, answer.text
            warnings = [each for each in answer.json()["warnings"] if "not ready yet" in each]
            assert bool(warnings) is late


@pytest.mark.parametrize("colour", [(255, 255, 255), (240, 240, 235), (255, 225, 225)])
def test_a_light_drawing_on_transparent_ground_is_laid_on_black(
    client: httpx.Client, colour: tuple[int, int, int]
) -> None:
    for kind, options in (("PNG", {}), ("WEBP", {"lossless": True})):
        data = png(drawing(colour), kind, **options)
        (warning,) = ask(client, data)["warnings"]
        assert "laid on black" in warning
        black = ask(client, data, "&background=black")
        assert black["warnings"] == []
        assert black["predictions"] == ask(client, data)["predictions"]
        white = ask(client, data, "&background=white")
        assert white["predictions"] != black["predictions"]


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 204, 77), (200, 30, 30), (120, 120, 120)])
def test_other_drawings_stay_on_white(client: httpx.Client, colour: tuple[int, int, int]) -> None:
    data = png(drawing(colour))
    assert ask(client, data)["warnings"] == []
    for name in ("white", "%23ffffff", "fff", "auto"):
        assert ask(client, data, f"&background={name}") == ask(client, data)


def test_a_background_that_is_no_colour_is_refused(client: httpx.Client) -> None:
    answer = client.post(f"/classify?{LABELS}&background=nice", content=png(drawing((0, 0, 0))))
    assert (answer.status_code, answer.json()["field"]) == (422, "background")


def test_a_picture_of_one_colour_says_so_and_so_does_one_that_becomes_one(
    client: httpx.Client, cat: Image.Image
) -> None:
    plain = png(Image.new("RGB", (80, 60), (9, 99, 199)))
    assert any("has a single colour" in text for text in ask(client, plain)["warnings"])
    wiped = cat.convert("RGBA")
    wiped.putalpha(0)
    assert any("single colour" in text for text in ask(client, png(wiped))["warnings"])
    wide = Image.new("RGB", (900, 256), "white")
    wide.paste(cat.resize((256, 256)), (644, 0))
    message = " ".join(ask(client, png(wide), "&view=center")["warnings"])
    assert "what the model sees of the picture is of one colour" in message
    assert "view=pad" in message


@pytest.mark.parametrize(("size", "message"), [((640, 256), "60% of this wide"),
                                            ((256, 2560), "90% of this tall")])  # fmt: skip
def test_what_the_centre_crop_loses_is_told_with_its_share(
    client: httpx.Client, cat: Image.Image, size: tuple[int, int], message: str
) -> None:
    data = png(cat.resize(size))
    (warning,) = ask(client, data, "&view=center")["warnings"]
    assert warning.startswith(message)
    for view in ("pad", "squash", "tiles"):
        assert ask(client, data, f"&view={view}")["warnings"] == []
    assert ask(client, png(cat.resize((380, 256))), "&view=center")["warnings"] == []


@pytest.mark.parametrize(
    ("size", "message"),
    [((256, 2560), "this tall picture fills 10%"), ((640, 256), "this wide picture fills 40%")],
)
def test_a_long_picture_that_is_fitted_in_whole_is_told_to_be_seen_small(
    client: httpx.Client, cat: Image.Image, size: tuple[int, int], message: str
) -> None:
    ground = Image.new("RGB", size, "white")
    ground.paste(cat, (0, 0))
    (warning,) = ask(client, png(ground))["warnings"]
    assert warning.startswith(message)
    for view in ("pad", "squash", "tiles"):  # somebody has chosen
        assert ask(client, png(ground), f"&view={view}")["warnings"] == []
    assert ask(client, png(cat.resize((512, 256))))["warnings"] == []


def test_no_picture_is_said_to_fill_nothing() -> None:
    spec = ImageSpec(64, 64, "longest", "bicubic", 255)
    (warning,) = bordered(Cut(0, 0, 20_000, 1), spec)
    assert warning.fact.startswith("this wide picture fills 1%")


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "PNG", "WEBP"])
def test_further_frames_and_pages_are_told_of(
    client: httpx.Client, cat: Image.Image, kind: str
) -> None:
    other = cat.rotate(90)
    several = png(cat, kind, save_all=True, append_images=[other])
    assert any("several frames or pages" in text for text in ask(client, several)["warnings"])
    assert ask(client, png(cat, kind))["warnings"] == []


@pytest.fixture(scope="module")
def guessed(cat: Image.Image) -> bytes:
    """A picture of several frames, of which the model sees one in a white strip."""
    wide = Image.new("RGB", (900, 256), "white")
    wide.paste(cat.resize((256, 256)), (322, 0))
    return png(wide, "GIF", save_all=True, append_images=[wide.rotate(180)])


def test_an_embedding_tells_what_was_guessed_of_each_image_and_names_no_field_it_lacks(
    client: httpx.Client, cat: Image.Image, guessed: bytes
) -> None:
    files = [("image", png(cat)), ("image", guessed), ("image", png(drawing((255, 255, 255))))]
    images = client.post("/embeddings/image", files=files).json()["images"]
    assert images[0]["warnings"] == []
    frames, small = images[1]["warnings"]
    assert "several frames or pages; only the first one is used" in frames
    assert small.endswith("so that it is seen small")
    (dark,) = images[2]["warnings"]
    assert dark.endswith("so it was laid on black")


def test_openais_answer_has_warnings_where_there_is_something_to_say(
    client: httpx.Client, cat: Image.Image, guessed: bytes
) -> None:
    plain, odd = (f"data:;base64,{base64.b64encode(data).decode()}" for data in (png(cat), guessed))
    alone = client.post("/v1/embeddings", json={"input": ["a cat", plain]})
    assert "warnings" not in alone.json()
    long, endless = "a red cat " * 20, "." + " " * 1_990 + "a cat in the sun"
    answer = client.post(
        "/v1/embeddings", json={"input": [long, plain, odd, endless], "truncate": True}
    )
    cut, by_length, frames, small = answer.json()["warnings"]
    assert cut.startswith("'a red cat a red cat")
    assert "is longer than the model reads" in cut
    assert by_length.endswith("has 2007 characters; only the first 2000 count")
    assert frames.startswith("input[2]: the file has several frames")
    assert small.startswith("input[2]: this wide picture")


def test_examples_tell_what_was_guessed_of_pictures_once_for_all_of_them(
    client: httpx.Client, cat: Image.Image, guessed: bytes
) -> None:
    assert client.put("/labelsets/guessed", json={"labels": ["cat", "dog"]}).is_success
    other = png(cat, "GIF", save_all=True, append_images=[cat.rotate(90)])
    files = [("image", ("a.gif", guessed)), ("image", ("b.png", png(cat))), ("image", other)]
    answer = client.post("/labelsets/guessed/examples", files=files, data={"label": "cat"})
    told = "the file has several frames or pages; only the first one is used (a.gif and 1 more)"
    assert answer.json()["warnings"] == [told]


def test_many_facts_about_many_pictures_are_told_up_to_a_bound() -> None:
    each = [(f"{number}.tif", [Noticed(f"black is {number}")]) for number in range(20)]
    told = of_many([*each, ("more.tif", [Noticed("black is 0")])])
    assert told[0] == "black is 0 (0.tif and 1 more)"
    assert told[-1] == f"and {20 - FACTS} more of this kind"
    assert len(told) == FACTS + 1


def test_warnings_of_a_picture_that_is_known_are_the_same(
    pictogram: Encoder, serve: Callable[..., Any], cat: Image.Image
) -> None:
    deep = Image.fromarray(np.asarray(cat.convert("L")).astype(np.uint16) * 16)
    with serve(pictogram, image_cache_bytes=1_000_000) as client:
        for data in (png(deep.resize((700, 200))), png(drawing((255, 255, 255)))):
            first, again = ask(client, data), ask(client, data)
            assert again["image"]["cached"]
            assert first["warnings"] == again["warnings"] != []
            batch = client.post(f"/classify/batch?{LABELS}", files={"image": ("a.png", data)})
            assert batch.json()["results"][0]["result"]["warnings"] == first["warnings"]


def test_a_jpeg_over_the_pixel_limit_is_served_where_its_reduction_is_not(
    pictogram: Encoder, serve: Callable[..., Any], cat: Image.Image
) -> None:
    large = cat.resize((2_000, 1_500))
    with serve(pictogram, max_image_pixels=1_000_000) as client:
        answer = ask(client, png(large, "JPEG"))
        assert answer["predictions"][0]["label"] == "cat"
        assert (answer["image"]["width"], answer["image"]["height"]) == (2_000, 1_500)
        for data in (png(large), png(large, "JPEG", progressive=True)):
            refused = client.post(f"/classify?{LABELS}", content=data)
            assert (refused.status_code, refused.json()["limit"]) == (413, 1_000_000)
        huge = client.post(f"/classify?{LABELS}", content=png(cat.resize((2_100, 2_000)), "JPEG"))
        assert huge.status_code == 413
