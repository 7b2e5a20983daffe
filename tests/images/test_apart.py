"""Drawings and pictures whose decoders run apart: what is seen of them, and what they cannot do."""

import base64
import contextlib
import io
import resource
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import ExifTags, Image

from app.errors import DamagedImage, Invalid, Problem, TooLarge, UnsupportedImage
from app.images import apart as apart_
from app.images.apart import Apart, kind_apart
from app.images.apart_child import SECONDS
from app.images.decode import Decoded, decode
from app.images.formats import image_type
from app.images.limits import ImageLimits
from app.images.notes import Notes
from app.images.views import Look
from benchmarks.reliability.hostile.parts import black, header, png
from models import ImageSpec
from models.encoder import Encoder

SPEC = ImageSpec(64, 64, "longest", "bicubic", 0)
CAT = (
    '<circle cx="32" cy="36" r="20" fill="orange"/>'
    '<path d="M14 24 18 8 30 18zM50 24 46 8 34 18z" fill="orange"/>'
)
HEAD = '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'


def svg(inside: str, attributes: str = 'viewBox="0 0 64 64"', before: str = "") -> bytes:
    return f"{before}{HEAD} {attributes}>{inside}</svg>".encode()


@pytest.fixture(scope="module")
def apart() -> Iterator[Apart]:
    apart = Apart(frozenset({"svg", "jpeg2000", "jpegxl"}))
    yield apart
    apart.close()


def decode_in(data: bytes, apart: Apart | None, **look: Any) -> Decoded:
    return decode(data, SPEC, ImageLimits(), apart=apart, look=Look(**look))


def test_a_drawing_is_drawn_as_large_as_the_model_sees(apart: Apart) -> None:
    red = '<rect width="64" height="64" fill="#f00"/><rect width="32" height="64" fill="#00f"/>'
    for attributes in (
        'viewBox="0 0 64 64"',
        'width="1" height="1" viewBox="0 0 64 64"',
        'width="100%" height="100%" viewBox="0 0 64 64"',
        'width="9000mm" height="9000mm" viewBox="0 0 64 64"',
    ):
        decoded = decode_in(svg(red, attributes), apart)
        np.testing.assert_array_equal(decoded.pixels[:, 32, 2], (0, 0, 255))
        np.testing.assert_array_equal(decoded.pixels[:, 32, 61], (255, 0, 0))
        assert decoded.format == "SVG"


@pytest.mark.parametrize(
    ("attributes", "size"),
    [
        ('viewBox="0 0 64 32"', (64, 32)),
        ('width="24" height="12" viewBox="0 0 64 32"', (24, 12)),
        ('width="1in" viewBox="0 0 64 32"', (96, 48)),
        # where nothing is said: it reaches to 52 and 56, and its longer edge is the usual one
        ("", (round(100 * 52 / 56), 100)),
        ('width="1e9" height="1"', (1_000_000, 1)),
        ('width="0" height="-4" viewBox="0 0 nan 1"', (round(100 * 52 / 56), 100)),
        ('width="24" height="12" viewBox="0 0 24 12" stroke-width="2"', (24, 12)),
        ('aria-label="a > b" width="24" height="12"', (24, 12)),
        ('data-width="9" width="24" height="12"', (24, 12)),
        ("width='24' height='12'", (24, 12)),
    ],
)
def test_its_size_is_what_the_file_says(
    apart: Apart, attributes: str, size: tuple[int, int]
) -> None:
    before = '\n<?xml version="1.0"?><!-- <svg width="9" height="99"> -->'
    with contextlib.suppress(Invalid):  # extreme ones need not be drawn
        picture = decode_in(svg(CAT, attributes, before), apart)
        assert (picture.width, picture.height) == size


@pytest.mark.parametrize(
    "attributes",
    [
        'width="24" height="24" viewBox="0 0 64 64" stroke-width="2"',
        'width="100%" height="50" viewBox="0 0 64 64"',
        'width="50" height="100%" viewBox="0 0 64 64"',
        'width="64" height="64" preserveAspectRatio="none"',
    ],
)
def test_a_circle_is_never_drawn_as_an_ellipse(apart: Apart, attributes: str) -> None:
    circle = '<circle cx="32" cy="32" r="20" fill="#000"/>'
    rows, columns = np.nonzero(decode_in(svg(circle, attributes), apart).pixels[0] < 128)
    width, height = np.ptp(columns) + 1, np.ptp(rows) + 1
    assert abs(int(width) - int(height)) <= 1


@pytest.mark.parametrize(
    "data",
    [
        svg(CAT),
        b"\xef\xbb\xbf" + svg(CAT, before='<?xml version="1.0" encoding="UTF-8"?>\n'),
        b"\xff\xfe" + svg(CAT).decode().encode("utf-16-le"),
        svg("<!-- Grüße -->" + CAT, before='<?xml version="1.0" encoding="ISO-8859-1"?>')
        .decode()
        .encode("latin-1"),
        svg(CAT, before='<!DOCTYPE svg [<!ENTITY ns "http://www.w3.org/2000/svg">]>'),
        svg("<g>" + CAT + "</g>", before="<!-- made by hand -->"),
        svg(CAT, before=f"<!-- {'a licence ' * 2_000} -->"),
    ],
)
def test_drawings_of_every_coding_are_drawn_alike(apart: Apart, data: bytes) -> None:
    assert kind_apart(data) == "svg"
    np.testing.assert_array_equal(decode_in(data, apart).pixels, decode_in(svg(CAT), apart).pixels)


def test_a_light_drawing_is_laid_on_black_and_the_ground_can_be_chosen(apart: Apart) -> None:
    white = svg(CAT.replace("orange", "white"))
    decoded = decode_in(white, apart)
    assert decoded.notes.dark
    assert int(decoded.pixels[:, 0, 0].max()) == 0
    assert decode_in(white, apart, background="red").pixels[0, 0, 0] == 255


@pytest.mark.parametrize(
    "inside",
    [
        '<text x="9" y="9">cat</text>',
        '<foreignObject width="60" height="9"><p xmlns="http://www.w3.org/1999/xhtml">cat</p>'
        "</foreignObject>",
        '<image href="https://example.org/cat.png" width="9" height="9"/>',
        "<image width='9' height='9' xlink:href='file:///etc/passwd'/>",
        '<use href="other.svg#cat"/>',
    ],
)
def test_what_is_not_drawn_of_a_drawing_is_said(apart: Apart, inside: str) -> None:
    decoded = decode_in(svg(CAT + inside), apart)
    assert decoded.notes.incomplete
    (noticed,) = Notes.of_numbers(decoded.notes.numbers()).noticed()
    assert "are not drawn" in noticed.fact
    np.testing.assert_array_equal(decoded.pixels, decode_in(svg(CAT), apart).pixels)
    utf_16 = b"\xff\xfe" + svg(CAT + inside).decode().encode("utf-16-le")
    assert decode_in(utf_16, apart).notes.incomplete
    internal = '<defs><circle id="c" r="3"/></defs><use href=" #c"/><a href="https://example.org"/>'
    assert not decode_in(svg(CAT + internal), apart).notes.incomplete


def test_no_file_of_this_machine_gets_into_a_drawing(apart: Apart, tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    Image.new("RGB", (64, 64), "red").save(secret)
    inside = svg('<rect width="64" height="64" fill="blue"/>').decode()
    (tmp_path / "secret.svg").write_text(inside)
    plain = decode_in(svg(CAT), apart).pixels
    for name in ("secret.png", "secret.svg"):
        for href in (f"{tmp_path}/{name}", f"file://{tmp_path}/{name}"):
            image = f'<image href="{href}" width="64" height="64"/>'
            np.testing.assert_array_equal(decode_in(svg(CAT + image), apart).pixels, plain)
    entity = f'<!DOCTYPE svg [<!ENTITY x SYSTEM "{tmp_path}/secret.svg">]>'
    with pytest.raises(DamagedImage):
        decode_in(svg("&x;" + CAT, before=entity), apart)


@pytest.mark.parametrize(
    "data",
    [
        b"<svg/>", svg(""), svg("<text x='9' y='9'>cat</text>"), svg("<defs>" + CAT + "</defs>"),
        svg('<image href="https://example.org/cat.png" width="9" height="9"/>'),
    ],
)  # fmt: skip
def test_a_drawing_that_draws_nothing_is_refused_with_the_reason(apart: Apart, data: bytes) -> None:
    with pytest.raises(Invalid, match=r"draws nothing; text, and what lies outside"):
        decode_in(data, apart)


def test_a_picture_inside_of_a_drawing_is_drawn(apart: Apart) -> None:
    out = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(out, "PNG")
    uri = "data:image/png;base64," + base64.b64encode(out.getvalue()).decode()
    decoded = decode_in(svg(f'<image href="{uri}" width="64" height="64"/>'), apart)
    assert not decoded.notes.incomplete
    assert tuple(decoded.pixels[:, 32, 32]) == (255, 0, 0)


def _laughs() -> bytes:
    entities = ['<!ENTITY a0 "ha">']
    entities += [f'<!ENTITY a{n} "{f"&a{n - 1};" * 10}">' for n in range(1, 10)]
    return svg("<desc>&a9;</desc>" + CAT, before=f"<!DOCTYPE svg [{''.join(entities)}]>")


def _uses() -> bytes:
    groups = ['<g id="g0"><rect width="9" height="9"/></g>']
    for n in range(1, 12):
        uses = f'<use href="#g{n - 1}"/>' * 10
        groups.append(f'<g id="g{n}">{uses}</g>')
    return svg(f'<defs>{"".join(groups)}</defs><use href="#g11"/>')


def _filters() -> bytes:
    groups = (
        '<feTurbulence numOctaves="9999" baseFrequency=".9"/><feGaussianBlur stdDeviation="999"/>'
    )
    whole = f'<filter id="f" x="-9" y="-9" width="99" height="99">{groups * 200}</filter>'
    return svg(f'{whole}<rect width="64" height="64" filter="url(#f)"/>')


def _picture() -> bytes:
    """A PNG of 900 megapixels in a kilobyte's worth of zeros, in a data URI."""
    pixels = black(30_000, 30_000, 1)
    data = png((b"IHDR", header(30_000, 30_000, 8, 0)), (b"IDAT", pixels), (b"IEND", b""))
    uri = "data:image/png;base64," + base64.b64encode(data).decode()
    return svg(f'<image href="{uri}" width="64" height="64"/>')


BOMBS: dict[str, Callable[[], bytes]] = {
    "links": lambda: svg(CAT + "<use " * 1_000_000),
    "comments": lambda: svg(CAT, before="<!---->" * 5_000),
    "entities in entities": _laughs,
    "uses of uses": _uses,
    "a use of itself": lambda: svg('<g id="a"><use href="#a"/></g>'),
    "filters": _filters,
    "groups in groups": lambda: svg("<g>" * 200_000 + "</g>" * 200_000),
    "patterns": lambda: svg(
        '<pattern id="p" width=".001" height=".001" patternUnits="userSpaceOnUse">'
        '<rect width="1" height="1"/></pattern><rect width="64" height="64" fill="url(#p)"/>'
    ),
    "a size": lambda: svg(CAT, 'width="1e30" height="1e-30"'),
    "a view": lambda: svg(CAT, 'viewBox="0 0 1e-30 1e30"'),
    "a picture": _picture,
    "dashes": lambda: svg(
        '<path d="M0 0H1e9" stroke="red" stroke-width="9" stroke-dasharray=".00001"/>'
    ),
}


@pytest.mark.parametrize("name", BOMBS)
def test_no_drawing_costs_more_than_its_share_or_ends_the_process(name: str) -> None:
    data = BOMBS[name]()
    before = resource.getrusage(resource.RUSAGE_SELF)
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    with contextlib.closing(Apart(frozenset({"svg"}))) as apart:
        with contextlib.suppress(TooLarge, Invalid):
            assert decode_in(data, apart).pixels.shape == (3, 64, 64)
        usage = resource.getrusage(resource.RUSAGE_SELF)
        assert usage.ru_utime - before.ru_utime < 2
        assert usage.ru_maxrss - before.ru_maxrss < 300_000  # kilobytes
        # and the next one is drawn
        assert decode_in(svg(CAT), apart).format == "SVG"
    # what has ended counts with all that it ever drew: here that is the two
    child_usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert child_usage.ru_utime - children.ru_utime < SECONDS + 4


def test_drawings_are_drawn_by_several_threads_at_once(apart: Apart) -> None:
    with ThreadPoolExecutor(4) as threads:
        pictures = list(threads.map(lambda _: decode_in(svg(CAT), apart).pixels, range(12)))
    for pixels in pictures[1:]:
        np.testing.assert_array_equal(pixels, pictures[0])


def test_a_process_that_is_killed_while_it_idles_costs_nobody_an_answer(apart: Apart) -> None:
    with ThreadPoolExecutor(3) as threads:
        list(threads.map(lambda _: decode_in(svg(CAT), apart), range(6)))
    for process in list(apart._all):
        process.kill()
        process.wait()
    assert decode_in(svg(CAT), apart).format == "SVG"
    assert len(apart._all) == 1


def test_drawings_are_drawn_however_many_files_are_open() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    many = 1_100
    if hard != resource.RLIM_INFINITY and hard < many + 200:
        pytest.skip(f"{hard} open files are permitted here, {many + 200} are needed")
    with contextlib.ExitStack() as stack:
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, many + 200), hard))
        for _ in range(many):
            stack.enter_context(Path("/dev/null").open("rb"))
        apart = stack.enter_context(contextlib.closing(Apart(frozenset({"svg"}))))
        assert decode_in(svg(CAT), apart).format == "SVG"


def test_nobody_gets_the_picture_of_whoever_failed_before(
    apart: Apart, monkeypatch: pytest.MonkeyPatch
) -> None:
    def colours(colour: str) -> tuple[int, ...]:
        whole = f'<rect width="64" height="64" fill="{colour}"/>'
        return tuple(decode_in(svg(whole), apart).pixels[:, 32, 32])

    def fails(*_: object) -> bytes:
        raise MemoryError

    with monkeypatch.context() as patched:
        patched.setattr(apart_, "_read", fails)
        with pytest.raises(MemoryError):
            colours("red")
    assert colours("blue") == (0, 0, 255)


def test_processes_end_with_the_decoder() -> None:
    apart = Apart(frozenset({"svg"}))
    decode_in(svg(CAT), apart)
    (process,) = apart._all
    apart.close()
    assert process.poll() is not None
    assert threading.active_count() >= 1


@pytest.mark.parametrize("kind", ["JPEG2000", "JXL"])
@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_jpeg_2000_and_jpeg_xl_are_decoded_apart(
    apart: Apart, samples: dict[str, Path], kind: str, mode: str
) -> None:
    if kind == "JXL":
        pytest.importorskip("pillow_jxl")
    image = Image.open(samples["cat"]).convert(mode)
    out = io.BytesIO()
    options = {"irreversible": False} if kind == "JPEG2000" else {"lossless": True}
    image.save(out, kind, **options)
    decoded = decode_in(out.getvalue(), apart)
    plain = io.BytesIO()
    image.save(plain, "PNG")
    np.testing.assert_array_equal(decoded.pixels, decode_in(plain.getvalue(), None).pixels)
    assert (decoded.width, decoded.height) == image.size
    with pytest.raises(TooLarge) as refused:
        decode(out.getvalue(), SPEC, ImageLimits(pixels=1_000), apart=apart)
    assert (refused.value.limit, refused.value.value) == (1_000, image.width * image.height)
    with pytest.raises(Problem):
        decode_in(out.getvalue()[:200], apart)


def test_a_grey_jpeg_xl_in_floating_point_is_not_black(apart: Apart) -> None:
    pytest.importorskip("pillow_jxl")
    levels = np.arange(64 * 64, dtype=np.float32).reshape(64, 64) / (64 * 64 - 1)
    out = io.BytesIO()
    Image.fromarray(levels).save(out, "JXL", lossless=True)
    for channel in decode_in(out.getvalue(), apart).pixels:
        np.testing.assert_allclose(channel, 255 * levels, atol=1)


@pytest.mark.parametrize("orientation", [3, 5, 6])
def test_a_jpeg_that_was_packed_as_jpeg_xl_is_turned_as_it_was(
    apart: Apart, orientation: int, tmp_path: Path
) -> None:
    pytest.importorskip("pillow_jxl")
    image = Image.new("RGB", (60, 40), "red")
    image.paste("blue", (0, 0, 30, 20))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    jpeg, packed = tmp_path / "cat.jpg", tmp_path / "cat.jxl"
    image.save(jpeg, exif=exif)
    Image.open(jpeg).save(packed, "JXL", lossless_jpeg=True)
    as_sent, decoded = decode_in(jpeg.read_bytes(), None), decode_in(packed.read_bytes(), apart)
    assert (decoded.width, decoded.height) == (as_sent.width, as_sent.height)
    np.testing.assert_array_equal(decoded.pixels, as_sent.pixels)


def test_jpeg_2000_in_colour_of_more_than_eight_bits_is_refused_and_not_read_wrongly(
    apart: Apart,
) -> None:
    out = io.BytesIO()
    Image.new("RGB", (64, 64), "white").save(out, "JPEG2000", irreversible=False)
    data = bytearray(out.getvalue())
    assert decode_in(bytes(data), apart).pixels.min() == 255
    precision = data.index(b"\xff\x4f\xff\x51") + 42
    assert data[precision] == 7  # of 8 bits
    data[precision] = 11
    with pytest.raises(UnsupportedImage, match="in colour with 12 bits a channel") as refused:
        decode_in(bytes(data), apart)
    assert (refused.value.limit, refused.value.value) == (8, 12)


# red, with its colour subsampled 2 x 2, as opj_compress 2.5 writes it: 8 x 6 pixels, and 7 x 6
EVEN = base64.b64decode(
    "/0//UQAvAAAAAAAIAAAABgAAAAAAAAAAAAAACAAAAAYAAAAAAAAAAAADBwEBBwICBwIC/1IADAAAAAEAAAQEAAH/XA"
    "AEQED/ZAAlAAFDcmVhdGVkIGJ5IE9wZW5KUEVHIHZlcnNpb24gMi41LjD/kAAKAAAAAAAyAAH/k8fUHhFQVK7l8wAA"
    "BhIMCc4SEsfUEAjslNrZADJfz7QQAjRRv//Z"
)
UNEVEN = base64.b64decode(
    "/0//UQAvAAAAAAAHAAAABgAAAAAAAAAAAAAABwAAAAYAAAAAAAAAAAADBwEBBwICBwIC/1IADAAAAAEAAAQEAAH/XA"
    "AEQED/ZAAlAAFDcmVhdGVkIGJ5IE9wZW5KUEVHIHZlcnNpb24gMi41LjD/kAAKAAAAAAA+AAH/k8fUHhFQVGMHekAA"
    "BhIEiXwkJd+AYBr6+suVDtVsvEojH9+AYBrxtRiH+6yrflzgp//Z"
)


def test_jpeg_2000_whose_colours_its_decoder_would_shift_is_refused(apart: Apart) -> None:
    red, green, blue = decode_in(EVEN, apart).pixels[:, 32, 32]
    assert red > 250
    assert max(green, blue) < 5
    with pytest.raises(
        UnsupportedImage, match="JPEG 2000 picture of 7 x 6 pixels with subsampled colour"
    ):
        decode_in(UNEVEN, apart)


# of one pixel each, as cjxl 0.7 writes them: one frame, and three (red, lime, blue)
STILL = bytes.fromhex("ff0a001010505c08080201002c004b188b15c249411e40a43f")
ANIMATED = bytes.fromhex(
    "ff0a0010c100028a4b020802920900002c004b188b15c249411e40a43f08029209"
    "00002c004b188b15c249411ec0d11f08029205002c004b188b15c249411e40d41f"
)


@pytest.mark.parametrize("boxed", [False, True])
def test_an_animated_jpeg_xl_is_refused_as_its_decoder_knows_the_last_frame_only(
    apart: Apart, boxed: bool
) -> None:
    pytest.importorskip("pillow_jxl")

    def file(codestream: bytes) -> bytes:
        if not boxed:
            return codestream
        sign = b"\0\0\0\x0cJXL \r\n\x87\n" + b"\0\0\0\x14ftypjxl \0\0\0\0jxl "
        return sign + (8 + len(codestream)).to_bytes(4) + b"jxlc" + codestream

    assert decode_in(file(STILL), apart).format == "JPEGXL"
    with pytest.raises(UnsupportedImage, match="an animated JPEG XL picture"):
        decode_in(file(ANIMATED), apart)


def test_without_the_extra_the_refusal_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(UnsupportedImage, match=r"operator set OPENVOCAB_SVG=true"):
        decode_in(svg(CAT), None)
    monkeypatch.setattr(apart_, "installed", lambda _kind: False)
    with pytest.raises(UnsupportedImage, match=r"an SVG drawing.*install openvocab\[svg\]"):
        decode_in(svg(CAT), None)
    with pytest.raises(UnsupportedImage, match=r"a JPEG XL picture.*install openvocab\[jxl\]"):
        decode_in(b"\xff\x0a" + b"\0" * 30, None)
    with pytest.raises(UnsupportedImage, match=r"a JPEG 2000 picture.*OPENVOCAB_JPEG_2000=true"):
        decode_in(b"\0\0\0\x0cjP  \r\n\x87\n" + b"\0" * 30, None)


def test_a_stored_drawing_is_never_sent_as_a_page() -> None:
    assert image_type(svg(CAT)) == "application/octet-stream"


def test_an_icon_is_classified(client: httpx.Client) -> None:
    labels = {"labels": "cat,dog,pizza,rocket"}
    for answer in (
        client.post("/classify", params=labels, content=svg(CAT)),
        client.post("/classify", data=labels, files={"image": ("cat.svg", svg(CAT))}),
    ):
        assert answer.status_code == 200, answer.text
        assert answer.json()["predictions"][0]["label"] == "cat"
        assert answer.json()["image"]["width"] == 64


def test_the_operator_may_switch_drawings_off(
    pictogram: Encoder, serve: Callable[..., Any]
) -> None:
    with serve(pictogram, svg=False) as client:
        answer = client.post("/classify?labels=cat,dog", content=svg(CAT))
        assert answer.status_code == 415
        assert "OPENVOCAB_SVG=true" in answer.json()["detail"]
