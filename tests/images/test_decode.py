"""Decoding: formats, modes, orientation, limits, damage, and pixels equal to the reference."""

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from open_clip.transform import PreprocessCfg, image_transform_v2
from PIL import Image

from app.errors import DamagedImage, Invalid, Problem, TooLarge, UnsupportedImage
from app.images.decode import decode
from app.images.formats import looks_like_image
from app.images.limits import ImageLimits
from app.images.pixels import EXTREME_RATIO, Picture, fit, reduction, to_rgb
from app.images.views import Look
from models import ImageSpec

SPEC = ImageSpec(32, 32, "shortest", "bicubic", 0)
LIMITS = ImageLimits()
RED, WHITE = (255, 0, 0), (255, 255, 255)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def picture(mode: str = "RGB", size: tuple[int, int] = (40, 30)) -> Image.Image:
    random = np.random.default_rng(0)
    rgb = Image.fromarray(random.integers(0, 256, (*size[::-1], 3), np.uint8), "RGB")
    return rgb.convert(mode)


def whole(image: Image.Image) -> Picture:
    return Picture(image, *image.size, (0, 0, *image.size))


def centre(data: bytes) -> tuple[int, ...]:
    pixels = decode(data, SPEC, LIMITS).pixels
    return tuple(int(v) for v in pixels[:, 16, 16])


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_every_accepted_format_is_decoded(kind: str) -> None:
    data = encoded(Image.new("RGB", (40, 30), RED), kind)
    assert looks_like_image(data)
    decoded = decode(data, SPEC, LIMITS)
    assert (decoded.width, decoded.height) == (40, 30)
    assert decoded.pixels.shape == (3, 32, 32)
    assert decoded.pixels.dtype == np.uint8
    np.testing.assert_allclose(decoded.pixels[:, 16, 16], RED, atol=12)  # lossy formats


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "BMP", "WEBP"])
def test_lossless_formats_keep_every_pixel(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(picture(), kind, **options)
    expected = fit(whole(picture()), SPEC)
    np.testing.assert_array_equal(decode(data, SPEC, LIMITS).pixels, expected)


@pytest.mark.parametrize(
    "mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "I", "F", "YCbCr", "LAB"]
)
def test_every_mode_becomes_rgb(mode: str) -> None:
    if mode == "LAB":
        from PIL import ImageCms

        lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        image = ImageCms.profileToProfile(
            Image.new("RGB", (8, 8), RED), srgb, lab, outputMode="LAB"
        )
    else:
        image = Image.new(mode, (8, 8))
    assert image is not None
    assert to_rgb(image).mode == "RGB"
    if mode == "LAB":
        np.testing.assert_allclose(
            to_rgb(image).getpixel((4, 4)), RED, atol=8
        )  # 8 bits of LAB are coarse


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
@pytest.mark.parametrize(("value", "grey"), [(0, 0), (65535, 255), (32896, 128)])
def test_sixteen_bits_are_scaled_and_not_cut(kind: str, value: int, grey: int) -> None:
    image = Image.fromarray(np.full((8, 8), value, np.uint16))
    assert centre(encoded(image, kind)) == (grey, grey, grey)


def test_floating_point_pictures_of_both_habits_are_scaled() -> None:
    signalling = np.array([0x7F800001], np.uint32).view(np.float32)[0]
    for value, grey in ((0.5, 128), (200.0, 200), (float("nan"), 0), (signalling, 0)):
        data = encoded(Image.fromarray(np.full((8, 8), value, np.float32)), "TIFF")
        assert centre(data) == (grey, grey, grey)


def test_thirty_two_bit_pictures_are_scaled() -> None:
    image = Image.fromarray(np.full((8, 8), 2**31 - 1, np.int32))
    assert centre(encoded(image, "TIFF")) == WHITE


def test_transparency_lies_on_white_in_every_way_of_storing_it() -> None:
    clear = Image.new("RGBA", (40, 40), (255, 0, 0, 0))
    assert centre(encoded(clear, "PNG")) == WHITE
    assert centre(encoded(clear, "WEBP", lossless=True)) == WHITE
    assert centre(encoded(Image.new("LA", (40, 40), (0, 0)), "PNG")) == WHITE
    palette = Image.new("P", (40, 40), 0)
    palette.putpalette([255, 0, 0, 0, 255, 0])
    assert centre(encoded(palette, "PNG", transparency=0)) == WHITE
    assert centre(encoded(palette, "GIF", transparency=0)) == WHITE
    assert centre(encoded(palette, "PNG", transparency=bytes([0, 255]))) == WHITE
    assert centre(encoded(palette, "PNG", transparency=1)) == RED
    keyed = Image.new("RGB", (40, 40), RED)
    assert centre(encoded(keyed, "PNG", transparency=RED)) == WHITE
    smaller = Image.new("P", (20, 40), 1)
    smaller.putpalette([255, 0, 0, 0, 255, 0])
    data = bytearray(encoded(smaller, "GIF"))
    data[6:8] = struct.pack("<H", 100)  # a canvas that its only frame does not fill
    assert centre(bytes(data)) == WHITE


GREY, COLOUR = 0, 2  # types of colour (W3C PNG, table 11.1)


@pytest.mark.parametrize(
    ("depth", "colour"), [*((depth, GREY) for depth in (1, 2, 4, 8, 16)), (8, COLOUR), (16, COLOUR)]
)
def test_the_transparent_colour_of_a_png_is_that_one_and_no_other(depth: int, colour: int) -> None:
    most = 2**depth - 1
    clear = most - most // 3
    near = clear - 1
    channels = 3 if colour == COLOUR else 1
    numbers = [clear] * channels * 20 + [near] * channels * 20
    row = int("".join(f"{number:0{depth}b}" for number in numbers), 2)
    pixels = (b"\0" + row.to_bytes(len(numbers) * depth // 8)) * 40
    data = b"\x89PNG\r\n\x1a\n"
    for name, content in (
        (b"IHDR", struct.pack(">IIBBBBB", 40, 40, depth, colour, 0, 0, 0)),
        (b"tRNS", struct.pack(f">{channels}H", *[clear] * channels)),
        (b"IDAT", zlib.compress(pixels)),
        (b"IEND", b""),
    ):
        sum_ = zlib.crc32(name + content)
        data += struct.pack(">I", len(content)) + name + content + struct.pack(">I", sum_)
    decoded = decode(data, SPEC, LIMITS, look=Look(background="#ff0000")).pixels
    assert tuple(decoded[:, 16, 4]) == RED
    np.testing.assert_allclose(decoded[:, 16, 28], [255 * near / most] * 3, atol=1)


def test_half_transparent_is_half_white() -> None:
    half = Image.new("RGBA", (40, 40), (255, 0, 0, 128))
    assert centre(encoded(half, "PNG")) == (255, 127, 127)


def test_cmyk_jpeg_has_its_colours() -> None:
    data = encoded(Image.new("RGB", (40, 40), RED).convert("CMYK"), "JPEG", quality=95)
    np.testing.assert_allclose(centre(data), RED, atol=6)


def test_the_first_frame_counts() -> None:
    first, second = Image.new("RGB", (40, 40), RED), Image.new("RGB", (40, 40), (0, 0, 255))
    for kind in ("GIF", "WEBP", "PNG", "TIFF"):
        data = encoded(first, kind, save_all=True, append_images=[second], **(
            {"lossless": True} if kind == "WEBP" else {}
        ))  # fmt: skip
        assert centre(data) == RED, kind


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied(orientation: int, kind: str) -> None:
    stored = Image.new("RGB", (40, 24), WHITE)
    stored.paste(RED, (0, 0, 10, 8))  # the corner that is stored first
    exif = Image.Exif()
    exif[0x0112] = orientation
    decoded = decode(
        encoded(stored, kind, exif=exif), ImageSpec(24, 40, "squash", "bicubic", 0), LIMITS
    )
    turned = orientation >= 5
    assert (decoded.width, decoded.height) == ((24, 40) if turned else (40, 24))
    # where the stored first row and column are to be shown (EXIF 2.32, tag 274)
    bottom, right = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    row, column = (-2 if bottom else 1), (-2 if right else 1)
    assert decoded.pixels[1, row, column] < 100  # red: little green
    assert decoded.pixels[1, -row - 1, -column - 1] > 200


def test_garbage_in_exif_is_no_reason_to_refuse_the_picture() -> None:
    data = encoded(
        Image.new("RGB", (40, 40), RED),
        "JPEG",
        exif=b"Exif\0\0II*\0\xff\xff\xff\xff" + b"\x99" * 40,
    )
    np.testing.assert_allclose(centre(data), RED, atol=6)


def test_bytes_and_pixels_have_limits_that_are_named() -> None:
    data = encoded(picture(size=(40, 30)), "PNG")
    with pytest.raises(TooLarge) as caught:
        decode(data, SPEC, ImageLimits(bytes=len(data) - 1))
    assert (caught.value.limit, caught.value.value) == (len(data) - 1, len(data))
    assert decode(data, SPEC, ImageLimits(bytes=len(data), pixels=1200))
    with pytest.raises(TooLarge) as caught:
        decode(data, SPEC, ImageLimits(pixels=1199))
    assert (caught.value.field, caught.value.limit, caught.value.value) == ("image", 1199, 1200)


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header promises more than its few bytes could hold."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = zlib.compress(b"\0" * 1000)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    )


def test_a_bomb_is_refused_by_its_header_before_it_is_decoded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def never(*args: Any) -> None:
        raise AssertionError("pixels were decoded")

    monkeypatch.setattr(Image.Image, "load", never)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", never)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with pytest.raises(TooLarge) as caught:
        decode(bomb(100_000, 100_000), SPEC, LIMITS)
    assert caught.value.value == 10_000_000_000


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_a_file_cut_short_is_damaged(kind: str) -> None:
    data = encoded(picture(size=(200, 200)), kind)
    for part in (len(data) // 2, 30):
        with pytest.raises(DamagedImage) as caught:
            decode(data[:part], SPEC, LIMITS)
        assert caught.value.field == "image"


def test_a_png_with_one_bit_flipped_is_damaged_wherever_it_is() -> None:
    data = encoded(picture(size=(200, 200)), "PNG")
    start = data.index(b"IDAT") + 4
    for place in np.linspace(start, len(data) - 17, 40).astype(int):
        damaged = bytearray(data)
        damaged[place] ^= 16
        with pytest.raises(DamagedImage):
            decode(bytes(damaged), SPEC, LIMITS)


def test_the_preview_of_a_raw_file_is_told_to_be_one() -> None:
    reduced, below = 254, 330
    raw = encoded(picture(), "TIFF", tiffinfo={reduced: 1, below: 8})
    (told,) = decode(raw, SPEC, LIMITS).notes.noticed()
    assert "only the small preview" in told.fact
    for tags in ({reduced: 1}, {below: 8}):
        assert decode(encoded(picture(), "TIFF", tiffinfo=tags), SPEC, LIMITS).notes.noticed() == ()


@pytest.mark.parametrize(
    "data",
    [
        b"%PDF-1.7 nothing",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"8BPS\0\1",
        b"hello",
        b"\0" * 99,
    ],
)
def test_other_files_are_told_what_is_accepted(data: bytes) -> None:
    with pytest.raises(UnsupportedImage) as caught:
        decode(data, SPEC, LIMITS)
    assert "JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF" in caught.value.detail


@pytest.mark.parametrize("kind", ["ICO", "PPM", "TGA", "PCX"])
def test_formats_that_pillow_knows_and_we_do_not_accept_never_reach_a_decoder(kind: str) -> None:
    with pytest.raises(Problem) as caught:
        decode(encoded(picture(), kind), SPEC, LIMITS)
    assert caught.value.status in (415, 422)


def test_heic_says_how_to_enable_it() -> None:
    with pytest.raises(UnsupportedImage, match=r"openvocab\[heic\].*OPENVOCAB_HEIC=true"):
        decode(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 50, SPEC, LIMITS)


def test_an_empty_file_is_invalid() -> None:
    with pytest.raises(Invalid):
        decode(b"", SPEC, LIMITS)


def reference(image: Image.Image, spec: ImageSpec) -> torch.Tensor:
    """open_clip's own transform, with a mean and a spread that keep the pixels as they are."""
    cfg = PreprocessCfg(
        size=(spec.height, spec.width), mean=(0.0,) * 3, std=(1.0,) * 3,
        interpolation=spec.interpolation, resize_mode=spec.resize_mode, fill_color=spec.fill_color,
    )  # fmt: skip
    return image_transform_v2(cfg, is_train=False)(image)  # type: ignore[no-any-return]


@settings(max_examples=150, deadline=None)
@given(
    width=st.integers(1, 300),
    height=st.integers(1, 300),
    mode=st.sampled_from(["shortest", "longest", "squash"]),
    interpolation=st.sampled_from(["bicubic", "bilinear"]),
    target=st.sampled_from([(32, 32), (50, 50), (48, 32), (32, 48)]),
)
def test_pixels_equal_open_clips_transform_to_the_bit(
    width: int, height: int, mode: Any, interpolation: Any, target: tuple[int, int]
) -> None:
    if max(width, height) > EXTREME_RATIO * min(width, height):
        return  # the documented exception, below
    spec = ImageSpec(*target, mode, interpolation, 7)
    image = picture(size=(width, height))
    if mode == "longest" and round(min(target) * min(width, height) / max(width, height)) < 1:
        return  # the reference fails on a picture that becomes no pixels wide
    resized = torch.from_numpy(fit(whole(image), spec)).float() / 255
    torch.testing.assert_close(resized, reference(image, spec), rtol=0, atol=0)


@pytest.mark.parametrize("size", [(1, 50_000), (50_000, 1), (3, 9_999)])
@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
def test_thread_thin_pictures_cost_no_memory(size: tuple[int, int], mode: Any) -> None:
    spec = ImageSpec(224, 224, mode, "bicubic", 0)
    assert fit(whole(Image.new("RGB", size, RED)), spec).shape == (3, 224, 224)


def test_a_picture_thinner_than_the_bound_keeps_its_centre() -> None:
    image = Image.new("RGB", (4 * EXTREME_RATIO, 2), WHITE)
    image.paste(RED, (2 * EXTREME_RATIO - 3, 0, 2 * EXTREME_RATIO + 3, 2))
    pixels = fit(whole(image), SPEC)
    assert tuple(pixels[:, 16, 16]) == RED


def test_the_bundled_model_sees_what_open_clip_sees(plain_pictogram: Any) -> None:
    """Geometry, mean and spread together: the very tensor that goes into the tower."""
    from models.catalog import catalog

    _, _, transform = open_clip.create_model_and_transforms(catalog()["pictogram"].loader)
    image = picture(size=(123, 77))
    batches: list[torch.Tensor] = []
    encode = plain_pictogram.images.vision._model.encode_image
    plain_pictogram.images.vision._model.encode_image = lambda pixels: (
        batches.append(pixels.clone()) or encode(pixels)
    )
    try:
        plain_pictogram.submit_images([fit(whole(image), plain_pictogram.info.image)]).result()
    finally:
        plain_pictogram.images.vision._model.encode_image = encode
    torch.testing.assert_close(batches[0][0], transform(image), rtol=0, atol=0)


def photograph(size: tuple[int, int]) -> Image.Image:
    """Smooth, with edges and a mark that lies off centre in both directions."""
    rows = np.linspace(0, 6, size[1])[:, None]
    columns = np.linspace(0, 9, size[0])
    waves = [np.sin(rows * k + columns) + np.cos(columns * k) for k in (1, 2, 3)]
    image = Image.fromarray(np.uint8(np.stack(waves, 2) * 60 + 127))
    image.paste(RED, (size[0] // 8, size[1] // 8, size[0] // 3, size[1] // 4))
    return image


def psnr(a: Any, b: Any) -> float:
    """Peak signal-to-noise ratio in dB of two uint8 pictures."""
    error = np.square(a.astype(np.float64) - b).mean()
    return float(10 * np.log10(255**2 / max(error, 1e-9)))


@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("size", [(1001, 703), (705, 1003), (512, 512)])
def test_a_large_jpeg_is_reduced_where_nobody_sees_it(
    mode: Any, orientation: int, size: tuple[int, int]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = encoded(photograph(size), "JPEG", quality=95, exif=exif)
    spec = ImageSpec(64, 64, mode, "bicubic", 0)
    assert reduction(*size, spec) >= 4
    exact, decoded = decode(data, spec, LIMITS, exact=True), decode(data, spec, LIMITS)
    assert (decoded.width, decoded.height) == (exact.width, exact.height)
    assert not np.array_equal(decoded.pixels, exact.pixels)
    # half a pixel off would cost 10 dB and more
    assert psnr(decoded.pixels, exact.pixels) > 42


@pytest.mark.parametrize("size", [(1000, 1), (1, 1000), (1000, 3), (3, 1000), (2000, 7), (257, 1)])
@pytest.mark.parametrize("mode", ["shortest", "longest", "squash"])
def test_thread_thin_jpegs_are_decoded(size: tuple[int, int], mode: Any) -> None:
    data = encoded(Image.new("RGB", size, RED), "JPEG")
    spec = ImageSpec(64, 64, mode, "bicubic", 255)
    decoded = decode(data, spec, LIMITS)
    assert (decoded.width, decoded.height) == size
    exact = decode(data, spec, LIMITS, exact=True)
    np.testing.assert_allclose(decoded.pixels.astype(int), exact.pixels, atol=3)


def test_a_jpeg_of_several_pictures_is_reduced_too() -> None:
    first, second = photograph((1001, 703)), photograph((64, 64))
    data = encoded(first, "MPO", save_all=True, append_images=[second], quality=95)
    assert Image.open(io.BytesIO(data)).format == "MPO"
    exact, decoded = decode(data, SPEC, LIMITS, exact=True), decode(data, SPEC, LIMITS)
    assert not np.array_equal(decoded.pixels, exact.pixels)
    assert psnr(decoded.pixels, exact.pixels) > 42


@pytest.mark.parametrize("kind", ["JPEG", "PNG"])
def test_only_jpegs_of_four_times_the_size_or_more_are_reduced(kind: str) -> None:
    size = (255, 127) if kind == "JPEG" else (1001, 703)
    data = encoded(photograph(size), kind)
    exact, decoded = decode(data, SPEC, LIMITS, exact=True), decode(data, SPEC, LIMITS)
    np.testing.assert_array_equal(decoded.pixels, exact.pixels)


def test_cmyk_jpegs_are_decoded_in_full() -> None:
    data = encoded(photograph((512, 512)).convert("CMYK"), "JPEG")
    exact, decoded = decode(data, SPEC, LIMITS, exact=True), decode(data, SPEC, LIMITS)
    np.testing.assert_array_equal(decoded.pixels, exact.pixels)


@pytest.mark.parametrize(
    ("size", "mode", "expected"),
    [
        ((640, 480), "shortest", 1),
        ((896, 896), "shortest", 2),
        ((895, 4000), "shortest", 1),
        ((4000, 3000), "shortest", 4),
        ((4000, 3000), "longest", 8),
        ((4000, 447), "squash", 1),
        ((224, 224), "longest", 1),
    ],
)
def test_twice_the_models_size_remains(size: tuple[int, int], mode: Any, expected: int) -> None:
    assert reduction(*size, ImageSpec(224, 224, mode, "bicubic", 0)) == expected


def test_heic_is_decoded_where_it_is_enabled() -> None:
    from app.images.decode import FORMATS, HEIC, enable_heic

    data = (Path(__file__).parents[1] / "data" / "red.heic").read_bytes()
    with pytest.raises(UnsupportedImage):
        decode(data, SPEC, LIMITS)
    enable_heic()
    decoded = decode(data, SPEC, LIMITS, (*FORMATS, HEIC))
    assert (decoded.width, decoded.height) == (64, 48)
    np.testing.assert_allclose(decoded.pixels[:, 16, 16], RED, atol=12)


def test_a_grey_of_sixteen_bits_can_be_transparent() -> None:
    image = Image.fromarray(np.full((40, 40), 7, np.uint16))
    assert centre(encoded(image, "PNG", transparency=7)) == WHITE
    assert centre(encoded(image, "PNG", transparency=8)) == (0, 0, 0)


@pytest.mark.parametrize(
    "data",
    [
        b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41" + b"\0" * 40,
        b"RIFF\x24\0\0\0WAVEfmt " + b"\0" * 40,
        b"BM is how this text begins, and it is no bitmap at all, only letters.",
    ],
    ids=["mp4", "wav", "text"],
)
def test_other_media_with_a_familiar_start_are_not_called_damaged(data: bytes) -> None:
    with pytest.raises(UnsupportedImage):
        decode(data, SPEC, LIMITS)


def test_images_that_wait_to_be_decoded_are_counted() -> None:
    import asyncio
    import threading

    from app.errors import Overloaded
    from app.images.decode import Decoder

    async def flood() -> list[object]:
        decoder = Decoder(SPEC, LIMITS, threads=1, max_waiting=3)
        gate = threading.Event()
        decoder._threads.submit(gate.wait, 240)
        data = encoded(picture(), "PNG")
        tasks = [asyncio.create_task(decoder.decode(data)) for _ in range(5)]
        await asyncio.sleep(0)
        gate.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        decoder.close()
        return list(results)

    results = asyncio.run(flood())
    assert sum(isinstance(result, Overloaded) for result in results) == 2
    assert not any(isinstance(result, BaseException) for result in results[:3])


def turned_heic(turn: int, exif: int | None) -> bytes:
    """The HEIC sample, turned by quarters against the clock; its EXIF says an orientation, too."""
    data = (Path(__file__).parents[1] / "data" / "red.heic").read_bytes()
    boxes: dict[bytes, bytes] = {}

    def inside(start: int, end: int) -> None:
        while start < end:
            size, name = struct.unpack_from(">I4s", data, start)
            boxes[name] = data[start + 8 : start + size]
            if name in (b"meta", b"iprp", b"ipco"):
                inside(start + (12 if name == b"meta" else 8), start + size)
            start += size

    def box(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I4s", 8 + len(body), name) + body

    inside(0, len(data))
    facts = boxes[b"ipco"] + box(b"irot", bytes([turn]))
    uses = boxes[b"ipma"]
    uses = uses[:10] + bytes([uses[10] + 1]) + uses[11:] + b"\x86"
    items, places, more = boxes[b"iinf"], boxes[b"iloc"], b""
    note = b""
    if exif is not None:
        tag = struct.pack("<HHIHH", 274, 3, 1, exif, 0)
        note = b"\0\0\0\6Exif\0\0II*\0\x08\0\0\0\1\0" + tag + b"\0\0\0\0"
        items = items[:4] + b"\0\2" + items[6:]
        items += box(b"infe", b"\2\0\0\0\0\2\0\0Exif\0")
        more = box(b"iref", b"\0\0\0\0" + box(b"cdsc", b"\0\2\0\1\0\1"))
    count = 2 if exif is not None else 1

    def meta(start: int) -> bytes:
        first = struct.pack(">HHIHII", 1, 0, start, 1, 0, len(boxes[b"mdat"]))
        second = struct.pack(">HHIHII", 2, 0, start + len(boxes[b"mdat"]), 1, 0, len(note))
        located = places[:6] + struct.pack(">H", count) + first + second * (count - 1)
        return box(
            b"meta",
            b"\0\0\0\0" + box(b"hdlr", boxes[b"hdlr"]) + box(b"pitm", boxes[b"pitm"])
            + box(b"iloc", located) + box(b"iinf", items) + more
            + box(b"iprp", box(b"ipco", facts) + box(b"ipma", uses)),
        )  # fmt: skip

    head = box(b"ftyp", boxes[b"ftyp"])
    start = len(head) + len(meta(0)) + 8
    return head + meta(start) + box(b"mdat", boxes[b"mdat"] + note)


@pytest.mark.parametrize("brands", [b"msf1\0\0\0\0msf1hevcheic", b"hevc\0\0\0\0mif1hevcheic"])
def test_a_burst_of_pictures_in_heic_is_read_as_its_still_picture(brands: bytes) -> None:
    from app.images.decode import FORMATS, HEIC, enable_heic

    enable_heic()
    data = (Path(__file__).parents[1] / "data" / "red.heic").read_bytes()
    size = int.from_bytes(data[:4])
    # its boxes are moved, so their number of bytes stays
    burst = data[:8] + brands.ljust(size - 8, b"\0")[: size - 8] + data[size:]
    decoded = decode(burst + struct.pack(">I4s", 8, b"moov"), SPEC, LIMITS, (*FORMATS, HEIC))
    assert (decoded.width, decoded.height) == (64, 48)
    np.testing.assert_allclose(decoded.pixels[:, 16, 16], RED, atol=12)
    assert decoded.notes.more


def test_a_sequence_without_a_still_picture_is_called_one_and_not_damaged() -> None:
    frames = [Image.new("RGB", (64, 64), colour) for colour in ("red", "blue")]
    out = io.BytesIO()
    frames[0].save(out, "AVIF", save_all=True, append_images=frames[1:])
    data = out.getvalue()
    assert decode(data, SPEC, LIMITS).notes.more
    place = data.index(b"meta")
    (size,) = struct.unpack_from(">I", data, place - 4)
    without = data[: place - 4] + struct.pack(">I4s", size, b"free").ljust(size, b"\0")
    without += data[place - 4 + size :]
    with pytest.raises(UnsupportedImage, match="a sequence of pictures"):
        decode(without, SPEC, LIMITS)
    with pytest.raises(DamagedImage):
        decode(data[:60], SPEC, LIMITS)


@pytest.mark.parametrize("exif", [None, 1, 6, 8])
def test_heic_is_turned_once(exif: int | None) -> None:
    pytest.importorskip("pi_heif")
    from app.images.decode import FORMATS, HEIC, enable_heic

    enable_heic()
    for turn, size in ((0, (64, 48)), (1, (48, 64)), (3, (48, 64))):
        picture = decode(turned_heic(turn, exif), SPEC, LIMITS, (*FORMATS, HEIC))
        assert (picture.width, picture.height) == size
