"""Which parts of a picture are shown to a model: geometry, and the pixels of the parts."""

import io
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from app.errors import Invalid
from app.images.decode import decode
from app.images.limits import ImageLimits
from app.images.views import MOST_ALONG, Box, Cut, Look, View
from models import ImageSpec

SPEC = ImageSpec(32, 32, "shortest", "bicubic", 0)
EDGES = st.integers(1, 4000)


def encoded(image: Image.Image, kind: str = "PNG") -> bytes:
    out = io.BytesIO()
    image.save(out, kind, quality=95)
    return out.getvalue()


def halves(size: tuple[int, int] = (200, 100)) -> Image.Image:
    """Red to the left, blue to the right."""
    image = Image.new("RGB", size, (250, 10, 10))
    image.paste((10, 10, 250), (size[0] // 2, 0, *size))
    return image


@given(EDGES, EDGES)
def test_tiles_lie_in_the_picture_and_are_smaller_than_it(width: int, height: int) -> None:
    (region,) = Look("tiles").regions(width, height)
    assert region.cuts[0] == region.area == Cut(0, 0, width, height)
    for cut in region.cuts[1:]:
        assert 0 <= cut.left < cut.right <= width
        assert 0 <= cut.top < cut.bottom <= height
    if max(width, height) <= 4 * min(width, height):
        covered = np.zeros((height, width), bool)
        for cut in region.cuts[1:]:
            covered[cut.top : cut.bottom, cut.left : cut.right] = True
        assert covered.all()


@given(EDGES, EDGES)
def test_neighbouring_tiles_overlap_by_half_unless_a_picture_is_very_long(
    width: int, height: int
) -> None:
    (region,) = Look("tiles").regions(width, height)
    tiles = region.cuts[1:]
    for starts, edge in (
        (sorted({tile.left for tile in tiles}), tiles[0].width),
        (sorted({tile.top for tile in tiles}), tiles[0].height),
    ):
        assert len(starts) <= MOST_ALONG
        if len(starts) < MOST_ALONG:
            # but for the rounding to whole pixels
            assert all(after - before <= edge / 2 + 1 for before, after in pairwise(starts))


@given(EDGES, EDGES, *[st.floats(0, 4001)] * 4)
def test_whatever_box_is_accepted_has_a_pixel_and_none_beyond_the_picture(
    width: int, height: int, x: float, y: float, wide: float, high: float
) -> None:
    try:
        (region,) = Look(boxes=(Box(x, y, wide, high),)).regions(width, height)
    except Invalid:
        assert x + wide > width or y + high > height or max(x, y, wide, high) <= 1
        return
    assert 0 <= region.area.left < region.area.right <= width
    assert 0 <= region.area.top < region.area.bottom <= height


@pytest.mark.parametrize("box", [Box(200, 99, 1, 1), Box(100, 50, 0.2, 0.2), Box(199.9, 0, 1, 2)])
def test_a_box_at_the_edge_or_smaller_than_a_pixel_is_one_pixel(box: Box) -> None:
    (region,) = Look(boxes=(box,)).regions(200, 100)
    assert region.area.width == 1
    assert 0 <= region.area.left < region.area.right <= 200


def test_shares_and_pixels_name_the_same_box() -> None:
    shares = Look(boxes=(Box(0.5, 0.25, 0.5, 0.75),)).regions(200, 100)
    pixels = Look(boxes=(Box(100, 25, 100, 75),)).regions(200, 100)
    assert shares == pixels
    assert shares[0].area == Cut(100, 25, 200, 100)


def test_a_rounded_box_is_cut_at_the_edge_and_one_beyond_is_refused() -> None:
    (region,) = Look(boxes=(Box(100, 0, 100.8, 100),)).regions(200, 100)
    assert region.area == Cut(100, 0, 200, 100)
    with pytest.raises(
        Invalid, match=r"box 1 .* reaches beyond the picture; .* 200 x 100"
    ) as raised:
        Look(boxes=(Box(0, 0, 10, 10), Box(150, 0, 60, 10))).regions(200, 100)
    assert raised.value.field == "boxes"


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_box_shows_its_part_alone(kind: str) -> None:
    boxes = (Box(0, 0, 0.5, 1), Box(0.5, 0, 0.5, 1))
    file = encoded(halves((2000, 1000)), kind)
    left, right = decode(file, SPEC, ImageLimits(), look=Look(boxes=boxes)).views
    (red,), (blue,) = left, right
    assert red[0].min() > 200
    assert red[2].max() < 60
    assert blue[2].min() > 200
    assert blue[0].max() < 60


def test_a_box_equals_the_picture_cut_by_hand() -> None:
    image = Image.fromarray(
        np.random.default_rng(0).integers(0, 255, (90, 120, 3), np.uint8), "RGB"
    )
    look = Look(boxes=(Box(20, 10, 80, 60),))
    ((part,),) = decode(encoded(image), SPEC, ImageLimits(), look=look).views
    by_hand = decode(encoded(image.crop((20, 10, 100, 70))), SPEC, ImageLimits()).pixels
    # resampling looks a little beyond the edge of a part
    inner = np.s_[:, 4:-4, 4:-4]
    np.testing.assert_allclose(part[inner].astype(int), by_hand[inner].astype(int), atol=2)


@pytest.mark.parametrize("view", ["center", "pad", "squash"])
def test_each_view_shows_what_it_says(view: View) -> None:
    """The outer quarters of a picture twice as wide as high are green."""
    image = halves()
    for left in (0, 150):
        image.paste((10, 250, 10), (left, 0, left + 50, 100))
    pixels = decode(encoded(image), SPEC, ImageLimits(), look=Look(view)).pixels
    green = (pixels[1] > 200).any()
    border = (pixels.max(axis=0) == 0).any()
    assert (green, border) == (view != "center", view == "pad")
    plain = decode(encoded(image), SPEC, ImageLimits()).pixels
    assert np.array_equal(pixels, plain) is (view == "center")


def test_a_box_of_a_picture_that_lies_on_its_side_is_one_of_the_upright_picture() -> None:
    image = halves((100, 200)).transpose(Image.Transpose.ROTATE_90)
    upright = encoded(image)
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees to the right
    out = io.BytesIO()
    image.transpose(Image.Transpose.ROTATE_90).save(out, "PNG", exif=exif)
    look = Look(boxes=(Box(0, 0, 1, 0.5),))
    ((part,),) = decode(out.getvalue(), SPEC, ImageLimits(), look=look).views
    ((expected,),) = decode(upright, SPEC, ImageLimits(), look=look).views
    np.testing.assert_array_equal(part, expected)
