"""Colour profiles: applied where ignoring them would cost, and no more than that."""

import contextlib
import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageCms

from app.images import profiles
from app.images.apart import Apart
from app.images.decode import decode
from app.images.limits import ImageLimits
from models import ImageSpec

SPEC = ImageSpec(64, 64, "longest", "bicubic", 0)

# primaries, white and gamma (ISO 22028-2 for ProPhoto)
SPACES: dict[str, tuple[Any, tuple[float, float], float]] = {
    "ProPhoto": (((0.7347, 0.2653), (0.1596, 0.8404), (0.0366, 0.0001)), (0.3457, 0.3585), 1.8),
    "linear": (((0.64, 0.33), (0.30, 0.60), (0.15, 0.06)), (0.3127, 0.3290), 1.0),
    "Adobe RGB": (((0.64, 0.33), (0.21, 0.71), (0.15, 0.06)), (0.3127, 0.3290), 2.2),
    "Display P3": (((0.68, 0.32), (0.265, 0.69), (0.15, 0.06)), (0.3127, 0.3290), 2.2),
}
BRADFORD = np.array(
    [[0.8951, 0.2664, -0.1614], [-0.7502, 1.7135, 0.0367], [0.0389, -0.0685, 1.0296]]
)
D50 = np.array([0.9642, 1, 0.8249])


def profile(name: str) -> bytes:
    """An ICC profile (version 2) of a space by its primaries, white and gamma."""
    primaries, white, gamma = SPACES[name]

    def light(x: float, y: float) -> np.ndarray:
        return np.array([x / y, 1, (1 - x - y) / y])

    columns = np.stack([light(*xy) for xy in primaries], 1)
    matrix = columns * np.linalg.solve(columns, light(*white))
    adapt = np.diag((BRADFORD @ D50) / (BRADFORD @ light(*white)))
    matrix = np.linalg.inv(BRADFORD) @ adapt @ BRADFORD @ matrix

    def fixed(values: Any) -> bytes:
        return b"".join(struct.pack(">i", round(value * 65_536)) for value in values)

    text = name.encode() + b"\0"
    curve = b"curv\0\0\0\0" + struct.pack(">IH", 1, round(gamma * 256))
    tags = {
        b"desc": b"desc\0\0\0\0" + struct.pack(">I", len(text)) + text + b"\0" * 79,
        b"cprt": b"text\0\0\0\0none\0",
        b"wtpt": b"XYZ \0\0\0\0" + fixed(D50),
        **{
            c + b"XYZ": b"XYZ \0\0\0\0" + fixed(matrix[:, i])
            for i, c in enumerate((b"r", b"g", b"b"))
        },
        **{c + b"TRC": curve for c in (b"r", b"g", b"b")},
    }
    start, table, body = 132 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for tag, content in tags.items():
        table += struct.pack(">4sII", tag, start + len(body), len(content))
        body += content + b"\0" * (-len(content) % 4)
    size = 128 + len(table) + len(body)
    head = struct.pack(">I4sI4s4s4s6H", size, b"lcms", 0x02400000, b"mntr", b"RGB ", b"XYZ ",
                       2020, 1, 1, 0, 0, 0)  # fmt: skip
    return head + b"acsp" + b"\0" * 28 + fixed(D50) + b"\0" * 48 + table + body


def with_elements(known: bytes, count: int) -> bytes:
    """A profile with a transform in floating point too, of so many elements that share one body.

    Each is three curves (ICC.1:2022, sections 10.16 and 10.17), which make colours darker.
    """
    curve = b"curf\0\0\0\0" + struct.pack(">HH", 1, 0)
    curve += b"parf" + struct.pack(">4x4x4f", 1.5, 1.0, 0.0, 0.0)
    element = b"cvst\0\0\0\0" + struct.pack(">HH", 3, 3) + struct.pack(">II", 36, len(curve)) * 3
    element += curve
    body = b"mpet\0\0\0\0" + struct.pack(">HHI", 3, 3, count)
    body += struct.pack(">II", 16 + 8 * count, len(element)) * count + element
    (tags,) = struct.unpack_from(">I", known, 128)
    end = 132 + 12 * tags
    table = struct.pack(">I", tags + 1)
    for place in range(132, end, 12):
        tag, start, size = struct.unpack_from(">4sII", known, place)
        table += struct.pack(">4sII", tag, start + 12, size)
    table += struct.pack(">4sII", b"D2B0", len(known) + 12, len(body))
    whole = known[4:8] + struct.pack(">I", 0x04300000) + known[12:128] + table + known[end:] + body
    return struct.pack(">I", 4 + len(whole)) + whole


def picture() -> Image.Image:
    """Colours that every space has, in soft steps."""
    y, x = np.mgrid[0:64, 0:64]
    return Image.fromarray(np.dstack([60 + 2 * x, 60 + 2 * y, 200 - x - y]).astype(np.uint8), "RGB")


def within(space: str) -> Image.Image:
    """The picture in the numbers of another space."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile(space)))
    converted = ImageCms.profileToProfile(picture(), ImageCms.createProfile("sRGB"), source)
    assert converted is not None
    converted.info.clear()  # it would be saved with its profile
    return converted


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def pixels(data: bytes) -> np.ndarray:
    return decode(data, SPEC, ImageLimits()).pixels.transpose(1, 2, 0).astype(int)


KINDS = {
    "JPEG": {"quality": 100, "subsampling": 0},
    "PNG": {},
    "WEBP": {"lossless": True},
    "TIFF": {},
}


def png_of_16_bits(image: Image.Image, icc: bytes) -> bytes:
    """An RGB picture with its profile, of which pure white would be transparent."""
    rows = [b"\0" + row.astype(">u2").tobytes() for row in np.asarray(image).astype(int) * 257]
    chunks = {
        b"IHDR": struct.pack(">IIBBBBB", *image.size, 16, 2, 0, 0, 0),
        b"iCCP": b"icc\0\0" + zlib.compress(icc),
        b"tRNS": b"\xff" * 6,
        b"IDAT": zlib.compress(b"".join(rows)),
        b"IEND": b"",
    }
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in chunks.items()
    )


def test_a_profile_of_16_bits_with_a_transparent_colour_is_applied() -> None:
    data = png_of_16_bits(within("ProPhoto"), profile("ProPhoto"))
    assert np.abs(pixels(data) - np.asarray(picture()).astype(int)).mean() < 4


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("space", ["ProPhoto", "linear"])
def test_a_profile_that_changes_much_is_applied(kind: str, space: str) -> None:
    data = encoded(within(space), kind, icc_profile=profile(space), **KINDS[kind])
    expected = np.asarray(picture()).astype(int)
    assert np.abs(pixels(data) - expected).mean() < 4
    plain = encoded(within(space), kind, **KINDS[kind])
    assert np.abs(pixels(plain) - expected).mean() > 10


# a pixel (32, 64, 128) in linear light, as cjxl 0.7 writes it
JPEG_XL = bytes.fromhex(
    "ff0a001010c2b5c2808479004ca7e484c0795ec73eaafa92fb5923a1c22ba244a96d9a4272eb2ea5"
    "f57118893d8dd4ce8e0ab7a506a3875d35b81b40d88c6933eb0fc02bd692298acf21c58e131b7c8b"
    "75d8a47153268cccdf216edeb8297f6bd0aef576e9f434c82b080eb60e5d0844f402de3cc046b370"
    "881f984b006d0e81bad5bf5b030802010034004b188b15c241d6e1019c003f10"
)


def test_the_profile_of_a_jpeg_xl_is_applied_too() -> None:
    pytest.importorskip("pillow_jxl")
    with contextlib.closing(Apart(frozenset({"jpegxl"}))) as apart:
        decoded = decode(JPEG_XL, SPEC, ImageLimits(), apart=apart)
    light = np.array([32, 64, 128]) / 255
    expected = 255 * (1.055 * light ** (1 / 2.4) - 0.055)  # IEC 61966-2-1
    assert np.abs(decoded.pixels[:, 32, 32] - expected).max() < 2


@pytest.mark.parametrize("space", ["Adobe RGB", "Display P3"])
def test_a_profile_that_changes_little_is_ignored_as_the_reference_does(space: str) -> None:
    data = encoded(within(space), "PNG", icc_profile=profile(space))
    np.testing.assert_array_equal(pixels(data), np.asarray(within(space)))


def test_a_deep_tiff_of_a_raw_developer_is_read_in_its_colours() -> None:
    raw = (np.asarray(within("ProPhoto")).astype(np.uint16) * 257).tobytes()
    icc = profile("ProPhoto")
    entries = [
        (256, 3, 1, 64), (257, 3, 1, 64), (258, 3, 3, 0), (259, 3, 1, 1), (262, 3, 1, 2),
        (273, 4, 1, 0), (277, 3, 1, 3), (278, 3, 1, 64), (279, 4, 1, len(raw)),
        (34_675, 7, len(icc), 0),
    ]  # fmt: skip
    start = 8 + 2 + 12 * len(entries) + 4
    places = {258: start, 273: start + 6 + len(icc), 34_675: start + 6}
    data = struct.pack("<2sHIH", b"II", 42, 8, len(entries))
    for tag, kind, count, value in entries:
        data += struct.pack("<HHII", tag, kind, count, places.get(tag, value))
    data += b"\0\0\0\0" + struct.pack("<3H", 16, 16, 16) + icc + raw
    assert np.abs(pixels(data) - np.asarray(picture())).mean() < 4


@pytest.mark.parametrize(
    "broken",
    [
        b"", b"x", b"\0" * 200, profile("ProPhoto")[:300],
        profile("ProPhoto").replace(b"RGB ", b"CMYK"),
        profile("ProPhoto").replace(b"XYZ ", b"....", 3),
        profile("ProPhoto")[:128] + b"\xff" * 400,
        b"\0" * (profiles.MOST_BYTES + 1),
    ],
)  # fmt: skip
def test_a_damaged_profile_is_no_reason_to_refuse_a_picture(broken: bytes) -> None:
    for kind in ("JPEG", "PNG"):
        if kind == "JPEG" and len(broken) > 65_000:
            continue
        data = encoded(picture(), kind, icc_profile=broken or None, **KINDS[kind])
        assert np.abs(pixels(data) - np.asarray(picture())).mean() < 4


def test_a_profile_that_unpacks_to_much_is_not_unpacked() -> None:
    packed = zlib.compress(b"\0" * 50_000_000)
    name = b"x\0\0" + packed
    chunk = (
        struct.pack(">I", len(name))
        + b"iCCP"
        + name
        + struct.pack(">I", zlib.crc32(b"iCCP" + name))
    )
    plain = encoded(picture(), "PNG")
    data = plain[:33] + chunk + plain[33:]
    profile_bytes = profiles.of_png(data)
    assert profile_bytes is not None
    assert len(profile_bytes) <= profiles.MOST_BYTES
    np.testing.assert_array_equal(pixels(data), np.asarray(picture()))


def test_a_transform_of_elements_that_share_one_body_is_passed_over() -> None:
    colours = within("ProPhoto")
    plain = encoded(colours, "PNG", icc_profile=profile("ProPhoto"))
    # 1,000 take seconds, and there could be a hundred times as many
    hostile = encoded(colours, "PNG", icc_profile=with_elements(profile("ProPhoto"), 100))
    np.testing.assert_array_equal(pixels(hostile), pixels(plain))
