"""Whether a file holds more pictures than the one that counts."""

import io

import pytest
from PIL import Image

from app.images.frames import has_more
from benchmarks.reliability.hostile.parts import box, chunk

RED, BLUE = (Image.new("RGB", (8, 8), colour) for colour in ("red", "blue"))


def animated(kind: str, *more: Image.Image, **options: bool) -> bytes:
    out = io.BytesIO()
    RED.save(out, kind, save_all=True, append_images=more, **options)
    return out.getvalue()


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_a_second_picture_is_seen_and_a_single_one_is_none(kind: str) -> None:
    assert has_more(animated(kind, BLUE))
    assert not has_more(animated(kind))


def test_an_animated_png_of_one_frame_has_no_other_but_the_picture_in_front_of_it() -> None:
    in_front = animated("PNG", BLUE, default_image=True)
    two = animated("PNG", BLUE)
    # as encoders of video write a single frame
    control = chunk(b"acTL", b"\0\0\0\1" + bytes(4))
    place = two.index(b"acTL") - 4
    one = two[:place] + control + two[place + len(control) :]
    assert [has_more(data) for data in (in_front, two, one)] == [True, True, False]


@pytest.mark.parametrize("brand", [b"avis", b"msf1", b"hevc", b"hevx"])
def test_sequences_are_known_by_their_brand(brand: bytes) -> None:
    assert has_more(box(b"ftyp", brand + bytes(4)))
    assert not has_more(box(b"ftyp", b"mif1" + bytes(4)))
