"""Numbers of every depth and range: what a file means, or a guess that is told of."""

import contextlib
import io
import math
import struct
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from app.errors import DamagedImage, UnsupportedImage
from app.images.decode import Decoded, decode
from app.images.depth import span
from app.images.limits import ImageLimits
from app.images.notes import COUNT, Notes
from models import ImageSpec

LIMITS = ImageLimits()
SIDE = 32
SPEC = ImageSpec(SIDE, SIDE, "squash", "bicubic", 0)
Numbers = npt.NDArray[Any]

# a picture of 8 bits, from black to white
EIGHT = np.arange(SIDE * SIDE, dtype=np.uint32).reshape(SIDE, SIDE) * 255 // (SIDE * SIDE - 1)
COLOURS = np.dstack([EIGHT, EIGHT[::-1], EIGHT.T])


def decode_as_sent(data: bytes) -> Decoded:
    return decode(data, SPEC, LIMITS)


def tiff(raw: Numbers, order: str = "<", **tags: Any) -> bytes:
    """A TIFF of one strip, or of those that its planes have; `tags` are `_259=8` and so on."""
    raw = raw[..., None] if raw.ndim == 2 else raw
    height, width, samples = raw.shape
    kind = {"u": 1, "i": 2, "f": 3}[raw.dtype.kind]
    photometric = 2 if samples >= 3 else 1
    planes = samples if tags.get("_284") == (2,) else 1
    laid = raw.transpose(2, 0, 1) if planes > 1 else raw
    body = laid.astype(raw.dtype.newbyteorder(order)).tobytes()
    levels: dict[int, tuple[int, ...]] = {
        256: (width,), 257: (height,), 258: (8 * raw.dtype.itemsize,) * samples, 259: (1,),
        262: (photometric,), 277: (samples,), 278: (height,), 339: (kind,) * samples,
    }  # fmt: skip
    if samples in (2, 4):
        levels[338] = (2,)
    levels |= {int(name[1:]): value for name, value in tags.items() if name != "packed"}
    body = tags.get("packed", body)
    levels |= {279: (len(body),), 273: (8,)}
    if planes > 1:
        row, rows = width * raw.dtype.itemsize, levels[278][0]
        starts = [plane * height + top for plane in range(planes) for top in range(0, height, rows)]
        levels[273] = tuple(8 + row * start for start in starts)
        levels[279] = tuple(row * min(rows, height - start % height) for start in starts)
    extra, entries = bytearray(body), b""
    for tag, values in sorted(levels.items()):
        code, size = ("I", 4) if tag in (256, 257, 273, 279) else ("H", 2)
        packed = struct.pack(f"{order}{len(values)}{code}", *values)
        if len(packed) > 4:
            place = 8 + len(extra)
            extra += packed
            packed = struct.pack(order + "I", place)
        entries += struct.pack(order + "HHI", tag, 4 if size == 4 else 3, len(values))
        entries += packed.ljust(4, b"\0")
    start = 8 + len(extra)
    head = (b"II" if order == "<" else b"MM") + struct.pack(order + "HI", 42, start)
    return head + bytes(extra) + struct.pack(order + "H", len(levels)) + entries + b"\0" * 4


@pytest.mark.parametrize("tag", [258, 339])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_depth_that_is_no_number_is_no_error_of_ours(tag: int, value: float) -> None:
    data = bytearray(tiff(EIGHT.astype(np.uint16)))
    (start,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, start)
    for place in range(start + 2, start + 2 + 12 * count, 12):
        if struct.unpack_from("<H", data, place)[0] == tag:
            struct.pack_into("<HHII", data, place, tag, 12, 1, len(data))
    data += struct.pack("<d", value)
    with contextlib.suppress(UnsupportedImage, DamagedImage):
        assert decode_as_sent(bytes(data)).width == SIDE


def png(raw: Numbers, *, bits: int | None = None) -> bytes:
    """A PNG of 16 bits a channel, with an sBIT chunk if `bits` are given."""
    raw = raw[..., None] if raw.ndim == 2 else raw
    height, width, samples = raw.shape
    rows = raw.astype(">u2").reshape(height, -1)
    packed = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    kind = {1: 0, 2: 4, 3: 2, 4: 6}[samples]

    def chunk(name: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        )

    sbit = chunk(b"sBIT", bytes([bits]) * samples) if bits else b""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, kind, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + sbit + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def is_grey(picture: Decoded, *, within: int = 1) -> bool:
    """Whether the picture is EIGHT."""
    return all(np.abs(channel.astype(int) - EIGHT).max() <= within for channel in picture.pixels)


def is_coloured(picture: Decoded) -> bool:
    expected = COLOURS.transpose(2, 0, 1)
    return bool(np.abs(picture.pixels.astype(int) - expected).max() <= 1)


def of(white: float, dtype: Any, picture: Numbers = EIGHT) -> Numbers:
    """The picture with another number for white."""
    return (picture * (white / 255)).astype(dtype)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("photometric", [0, 1])
@pytest.mark.parametrize(
    ("white", "dtype", "guessed"),
    [
        (65_535, "u2", False), (4_095, "u2", True), (1_023, "u2", True), (16_383, "u2", True),
        (255, "u2", True), (32_767, "i2", True), (255, "u4", True), (65_535, "u4", False),
        (4_095, "u4", True), (2**31 - 1, "u4", False), (2**31 - 1, "i4", False),
        (2**32 - 1, "u4", False), (1.0, "f4", False), (255.0, "f4", False), (65_535.0, "f4", True),
        (4_095.0, "f4", True), (1.5, "f4", True), (1.0, "f8", False), (1e6, "f8", True),
        (65_535, "u8", False),
    ],
)  # fmt: skip
def test_a_grey_picture_of_any_range_has_its_black_and_its_white(
    order: str, photometric: int, white: float, dtype: str, guessed: bool
) -> None:
    raw = of(white, dtype)
    data = tiff(raw if photometric else raw.max() - raw, order, _262=(photometric,))
    decoded = decode_as_sent(data)
    assert is_grey(decoded, within=2)
    assert (decoded.notes.high is not None) == guessed
    assert any("taken for black" in each.fact for each in decoded.notes.noticed()) == guessed


@pytest.mark.parametrize("tag", ["_281", "_341"])
def test_the_white_that_a_file_says_is_no_guess(tag: str) -> None:
    decoded = decode_as_sent(tiff(of(2_000, "u2"), **{tag: (4_095,)}))
    assert np.abs(decoded.pixels[0].astype(int) - EIGHT * 2_000 // 4_095).max() <= 1
    assert decoded.notes.noticed() == ()


@pytest.mark.parametrize("samples", [1, 2, 3, 4])
def test_a_png_of_fewer_bits_than_its_numbers_have_is_scaled(samples: int) -> None:
    picture = EIGHT if samples <= 2 else COLOURS
    for white in (1_023, 4_095, 255):
        raw = of(white, "u2", picture)
        if samples in (2, 4):
            raw = np.dstack([raw, np.full((SIDE, SIDE), 65_535, np.uint16)])
        declared, untold = (
            decode_as_sent(png(raw, bits=int(white).bit_length())),
            decode_as_sent(png(raw)),
        )
        for decoded in (declared, untold):
            assert is_grey(decoded) if samples <= 2 else is_coloured(decoded)
        assert declared.notes.high is None
        assert untold.notes.high == white
    # shifted up, as the format wants it
    full = of(65_535, "u2", picture)
    if samples in (2, 4):
        full = np.dstack([full, np.full((SIDE, SIDE), 65_535, np.uint16)])
    decoded = decode_as_sent(png(full, bits=10))
    assert is_grey(decoded) if samples <= 2 else is_coloured(decoded)
    assert decoded.notes.noticed() == ()


@pytest.mark.parametrize("dtype", ["u2", "u4", "f4", "f8"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_colour_and_transparency_of_every_depth_are_read(dtype: str, order: str) -> None:
    white = {"u2": 65_535, "u4": 2**32 - 1}.get(dtype, 1.0)
    raw = of(white, dtype, COLOURS)
    assert is_coloured(decode_as_sent(tiff(raw, order)))
    opaque = np.full((SIDE, SIDE), white).astype(dtype)
    assert is_coloured(decode_as_sent(tiff(np.dstack([raw, opaque]), order)))
    grey = of(white, dtype)
    assert is_grey(decode_as_sent(tiff(np.dstack([grey, opaque]), order)))
    clear = decode_as_sent(tiff(np.dstack([grey, 0 * opaque]), order))
    assert (clear.pixels == 255).all()
    assert decode_as_sent(tiff(np.dstack([raw] * 2), order)).notes.bands


@pytest.mark.parametrize("dtype", ["u2", "u4", "f4"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("rows", [SIDE, 12])
def test_colours_that_are_stored_one_after_the_other_are_put_together(
    dtype: str, order: str, rows: int
) -> None:
    white = {"u2": 65_535, "u4": 2**32 - 1}.get(dtype, 1.0)
    apart: dict[str, Any] = {"_284": (2,), "_278": (rows,)}
    raw = of(white, dtype, COLOURS)
    assert is_coloured(decode_as_sent(tiff(raw, order, **apart)))
    opaque = np.full((SIDE, SIDE), white).astype(dtype)
    assert is_coloured(decode_as_sent(tiff(np.dstack([raw, opaque]), order, **apart)))
    clear = decode_as_sent(tiff(np.dstack([of(white, dtype), 0 * opaque]), order, **apart))
    assert (clear.pixels == 255).all()
    many = tiff(np.dstack([raw] * 3), order, **apart, _262=(1,))
    assert decode_as_sent(many).notes.bands


@pytest.mark.parametrize("planar", [1, 2])
def test_channels_beside_grey_and_cmyk_of_eight_bits_are_passed_over(planar: int) -> None:
    dark = (EIGHT // 4).astype(np.uint8)  # whatever its range, it is as dark as it is
    kinds: dict[str, Any] = {"_284": (planar,), "_338": (0,)}
    for samples in (2, 3):
        grey = tiff(np.dstack([dark] + [255 - dark] * (samples - 1)), _262=(1,), **kinds)
        decoded = decode_as_sent(grey)
        assert all((channel == dark).all() for channel in decoded.pixels)
        assert decoded.notes.noticed() == Notes(bands=True).noticed()
    inks = np.zeros((SIDE, SIDE, 5), np.uint8)
    inks[..., 1:3] = 255  # magenta and yellow are red
    for extra in (0, 2):
        decoded = decode_as_sent(tiff(inks, _262=(5,), **{**kinds, "_338": (extra,)}))
        assert (decoded.pixels[:, 9, 9] == (255, 0, 0)).all()
        assert decoded.notes.bands


def test_as_many_pixels_as_there_may_be_are_read_whatever_bytes_each_has() -> None:
    limits = ImageLimits(pixels=SIDE * SIDE)
    decode(png(of(65_535, "u2")), SPEC, limits)  # Pillow has its limit from the first picture on
    inks = np.dstack([EIGHT] * 5).astype(np.uint8)
    for picture in (of(65_535, "u2", COLOURS), of(1, "f4", COLOURS), inks):
        more = {"_262": (5,), "_338": (0,)} if picture is inks else {}
        decoded = decode(tiff(picture, **more), SPEC, limits)
        assert (decoded.width, decoded.height) == (SIDE, SIDE)


def test_grey_that_is_multiplied_by_its_transparency_is_laid_on_white() -> None:
    out = io.BytesIO()
    Image.new("LA", (SIDE, SIDE), (50, 100)).save(out, "TIFF")
    data = bytearray(out.getvalue())
    data[data.index(struct.pack("<HHI", 338, 3, 1)) + 8] = 1  # what the extra channel is
    deep = np.full((SIDE, SIDE, 2), (257 * 50, 257 * 100), np.uint16)
    for picture in (bytes(data), tiff(deep, _338=(1,))):
        pixels = decode_as_sent(picture).pixels
        np.testing.assert_allclose(pixels, 50 + 255 - 100, atol=1)


def test_packed_and_predicted_numbers_are_put_back() -> None:
    for dtype, white in (("u2", 65_535), ("u4", 2**32 - 1)):
        for samples in (1, 3):
            raw = of(white, dtype, EIGHT if samples == 1 else COLOURS).reshape(SIDE, SIDE, samples)
            steps = np.diff(raw, axis=1, prepend=np.zeros((SIDE, 1, samples), raw.dtype))
            packed = zlib.compress(steps.astype(raw.dtype).tobytes())
            picture = decode_as_sent(tiff(raw, _259=(8,), _317=(2,), packed=packed))
            assert is_grey(picture) if samples == 1 else is_coloured(picture)
    for dtype in ("f4", "f8"):
        raw = of(1.0, dtype, COLOURS)
        size = raw.dtype.itemsize
        planes = (
            raw.astype(raw.dtype.newbyteorder(">")).view(np.uint8).reshape(SIDE, SIDE * 3, size)
        ).transpose(0, 2, 1).reshape(SIDE, SIDE * size, 3)  # fmt: skip
        steps = np.diff(planes, axis=1, prepend=np.zeros((SIDE, 1, 3), np.uint8))
        packed = zlib.compress(steps.astype(np.uint8).tobytes())
        assert is_coloured(decode_as_sent(tiff(raw, _259=(8,), _317=(3,), packed=packed)))


def test_a_range_that_begins_far_from_black_is_stretched() -> None:
    raw = (28_000 + EIGHT * 10).astype(np.uint16)
    decoded = decode_as_sent(tiff(raw))
    assert is_grey(decoded)
    assert (decoded.notes.low, decoded.notes.high) == (28_000, 30_550)
    signed = decode_as_sent(tiff((EIGHT.astype(int) * 10 - 1_275).astype(np.int16)))
    assert is_grey(signed)


def test_numbers_that_are_none_are_black_and_do_not_count() -> None:
    raw = of(1.0, "f4")
    raw[0, 0], raw[0, 1] = np.nan, np.inf
    picture = decode_as_sent(tiff(raw))
    assert is_grey(picture)
    blank = decode_as_sent(tiff(np.full((SIDE, SIDE), np.nan, np.float32)))
    assert (blank.pixels == 0).all()
    assert "single colour" in blank.notes.noticed()[0].fact


def test_what_no_decoder_reads_is_named_and_not_called_damaged() -> None:
    lab = tiff(of(1.0, "f4", COLOURS), _262=(8,))
    with pytest.raises(UnsupportedImage, match="3 channels with 32 bits"):
        decode_as_sent(lab)
    grey = of(255, "u2")
    pair: dict[str, Any] = {"_262": (1,), "_339": (3, 3)}
    for odd, name in (
        (tiff(grey, _258=(24,)), "24 bits"),
        (tiff(np.dstack([grey, grey]), _258=(12, 12), _338=(0,)), "12 bits"),
        (tiff(np.dstack([EIGHT, EIGHT]).astype(np.uint8), **pair), r"8 bits \(floating"),
    ):
        with pytest.raises(UnsupportedImage, match=name):
            decode_as_sent(odd)
    with pytest.raises(UnsupportedImage, match=r"8 bits .*compression 50001"):  # WebP inside
        decode_as_sent(tiff(EIGHT.astype(np.uint8), _259=(50_001,)))
    first = struct.pack(">4sHHQQHHQ", b"MM\0+", 8, 0, 16, 1, 256, 3, 1)
    with pytest.raises(UnsupportedImage, match="big-endian BigTIFF"):
        decode_as_sent(first + struct.pack(">H6xQ", SIDE, 0))
    out = io.BytesIO()
    Image.new("RGB", (64, 64), (9, 9, 9)).save(out, "JPEG")
    data = bytearray(out.getvalue())
    data[data.find(b"\xff\xc0") + 4] = 12
    with pytest.raises(UnsupportedImage, match="12 bits a channel"):
        decode_as_sent(bytes(data))
    with pytest.raises(DamagedImage):
        decode_as_sent(tiff(of(65_535, "u2"))[:-1_500])


def test_the_range_of_one_number_is_that_of_its_type() -> None:
    notes = Notes()
    assert span(np.dtype("u2"), 1_000, 1_000, None, notes) == (0, 65_535)
    assert span(np.dtype("f4"), 0.5, 0.5, None, notes) == (0, 1)
    assert notes == Notes()


def test_notes_are_kept_as_numbers() -> None:
    for notes in (
        Notes(),
        Notes(more=True, uniform=True),
        Notes(dark=True, low=0.0, high=4_095.0),
        Notes(became_uniform=True, bands=True, low=-1.0, high=1.0),
    ):
        numbers = notes.numbers()
        assert numbers.shape == (COUNT,)
        assert Notes.of_numbers(numbers) == notes
