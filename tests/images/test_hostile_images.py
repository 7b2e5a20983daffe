"""Images made to harm: none costs much more than its pixels, and none breaks anything."""

import asyncio
import contextlib
import io
import itertools
import json
import logging
import math
import struct
import subprocess
import sys
import threading
import time
import tracemalloc
import warnings
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image, ImageFile

from app.errors import DamagedImage, Problem, TooLarge, UnsupportedImage
from app.images.decode import FORMATS, LIBTIFF, Decoder, decode, quieten
from app.images.limits import ImageLimits, Room, pixels_at_once
from app.images.screening import SCANS, screen
from benchmarks.reliability import fuzz
from benchmarks.reliability.hostile import bombs, makers, seeds
from benchmarks.reliability.hostile.parts import (
    black,
    bmp,
    box,
    encoded,
    frame,
    gif,
    gif_picture,
    header,
    png,
    scan,
    segment,
    tables,
)
from models import ImageSpec

SPEC = ImageSpec(32, 32, "shortest", "bicubic", 0)
LIMITS = ImageLimits()
FUZZED = 600

# a picture of 49 megapixels in grey is among them
MOST_SECONDS, MOST_MB = 5.0, 400


@pytest.fixture(scope="module")
def costs() -> dict[str, dict[str, Any]]:
    """What each of the bombs costs, in a process of its own that turns warnings into errors."""
    command = [sys.executable, "-m", "benchmarks.reliability.hostile.measure"]
    completed = subprocess.run(command, capture_output=True, check=True, timeout=800)
    assert completed.stderr == b""
    return {bomb["name"]: bomb for bomb in json.loads(completed.stdout)["bombs"]}


@pytest.mark.parametrize("name", bombs.bombs())
def test_a_bomb_costs_little(costs: dict[str, dict[str, Any]], name: str) -> None:
    cost = costs[name]
    assert cost["cpu_seconds"] < MOST_SECONDS
    assert cost["memory_mb"] < MOST_MB
    assert cost["outcome"].split(":")[0] in ("decoded", "413", "415", "422")


def test_fuzzed_files_of_every_format_are_pictures_or_refused(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with warnings.catch_warnings():
        fuzz.prepare()
        outcome = fuzz.decode_cases(7, range(FUZZED))
    assert outcome.unexpected == {}
    assert outcome.cases == FUZZED
    assert {"jpeg", "png", "webp", "gif", "bmp", "tiff", "avif", "heic"} <= set(outcome.formats)
    assert min(outcome.outcomes[name] for name in ("decoded", "damaged_image", "too_large")) > 20
    assert capfd.readouterr() == ("", "")  # not even from the libraries in C


def test_the_library_that_writes_lines_of_its_own_is_found_in_a_folder_of_any_name() -> None:
    columns = b"7f0c5a400000-7f0c5a409000 r--p 00000000 fe:00 1234                       "
    folder = b"/srv/libtiff 4/two words/\xe9/pillow.libs/"
    maps = b"".join(columns + folder + name + b"\n" for name in (b"libz.so", b"libtiff-20.so.6"))
    found = LIBTIFF.search(maps)
    assert found is not None
    assert found[0] == folder + b"libtiff-20.so.6"


def test_a_fuzzed_case_can_be_made_again() -> None:
    assert fuzz.case(7, 3) == fuzz.case(7, 3)
    assert fuzz.case(7, 3) != fuzz.case(8, 3)


@pytest.mark.parametrize("name", seeds.good())
def test_screening_leaves_good_pictures_as_they_are(name: str) -> None:
    if name.startswith("heic"):
        pytest.skip("covered where HEIC is enabled")
    data = seeds.good()[name]
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        plain = image.convert("RGBA").tobytes()
    with Image.open(io.BytesIO(screen(data, LIMITS.pixels)), formats=FORMATS) as image:
        assert image.convert("RGBA").tobytes() == plain


@pytest.mark.parametrize("name", [n for n in seeds.good() if not n.startswith("heic")])
def test_every_place_to_cut_a_file_is_survived(name: str) -> None:
    data = seeds.good()[name]
    step = max(1, len(data) // 30)
    quieten()
    kinds = set()
    for place in range(0, len(data), step):
        try:
            kinds.add(decode(data[:place], SPEC, LIMITS).width)
        except Problem as problem:
            kinds.add(problem.status)
    assert 422 in kinds
    assert kinds <= {415, 422, decode(data, SPEC, LIMITS).width}


@pytest.mark.parametrize("kind", [*FORMATS])
def test_what_follows_the_picture_does_no_harm(kind: str) -> None:
    data = encoded(makers.red(), kind)
    plain = decode(data, SPEC, LIMITS).pixels
    for tail in (b"\0" * 1_000, b"PK\3\4" + b"x" * 500, b"<script>alert(1)</script>", data):
        np.testing.assert_array_equal(decode(data + tail, SPEC, LIMITS).pixels, plain)


def test_polyglots_are_the_pictures_that_they_begin_as() -> None:
    script = b"*/=1;alert(1);/*"
    files = [
        makers.png_of((b"teXt", script), after=((b"zipA", b"PK\3\4" + b"\0" * 99),)),
        encoded(makers.red(), "GIF", comment=script),
        encoded(makers.red(), "JPEG", comment=b"%PDF-1.7\n" + script),
    ]
    for data in files:
        assert decode(data, SPEC, LIMITS).width == 40


OTHERS: dict[str, bytes] = {
    "SVG": b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
    "EPS": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
    "PDF": b"%PDF-1.7\n",
    "PSD": b"8BPS\0\1" + b"\0" * 6 + struct.pack(">HIIHH", 3, 8, 8, 8, 3) + b"\0" * 40,
    "FITS": b"SIMPLE  =                    T".ljust(2880),
    "XBM": b"#define im_width 8\n#define im_height 8\nstatic char im_bits[] = {\n0x00\n};",
    "PFM": b"PF\n2 2\n-1.0\n" + b"\0" * 48,
    "DIB": bmp(8, 8, 0, b"\0" * 64)[14:],
    "CUR": b"\0\0\2\0\1\0" + b"\0" * 40,
    "WMF": b"\xd7\xcd\xc6\x9a" + b"\0" * 40,
    "MPEG": b"\0\0\1\xb3" + b"\0" * 40,
    **{
        kind: encoded(makers.red(), kind)
        for kind in ("DDS", "ICO", "ICNS", "PCX", "PPM", "SGI", "TGA", "QOI")
    },
    "JPEG 2000": encoded(makers.red(), "JPEG2000"),
    "EPS behind a preview": b"\xc5\xd0\xd3\xc6" + b"\0" * 40,
}


@pytest.mark.parametrize("name", OTHERS)
def test_no_decoder_of_another_format_is_ever_called(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.init()
    opened: list[str] = []

    def spy(kind: str, factory: Callable[..., Any]) -> Callable[..., Any]:
        def open_(*arguments: Any) -> Any:
            opened.append(kind)
            return factory(*arguments)

        return open_

    watched = {k: (spy(k, factory), accept) for k, (factory, accept) in Image.OPEN.items()}
    monkeypatch.setattr(Image, "OPEN", watched)
    with pytest.raises((UnsupportedImage, DamagedImage)):
        decode(OTHERS[name], SPEC, LIMITS)
    assert decode(encoded(makers.red(), "PNG"), SPEC, LIMITS).width == 40
    assert opened == ["PNG"]


def test_a_jpeg_of_several_pictures_opens_no_other_plugin() -> None:
    data = encoded(makers.red(), "MPO", save_all=True, append_images=[makers.red()])
    with Image.open(io.BytesIO(data), formats=FORMATS) as image:
        assert image.format == "MPO"
    assert decode(data, SPEC, LIMITS).width == 40


def test_texts_of_a_png_are_not_taken_for_what_pillow_knows_of_it() -> None:
    plain = decode(makers.png_of(), SPEC, LIMITS).pixels
    for key in (b"transparency", b"interlace", b"bbox", b"exif", b"icc_profile", b"default_image"):
        data = makers.png_of((b"tEXt", key + b"\0" + b"1"))
        np.testing.assert_array_equal(decode(data, SPEC, LIMITS).pixels, plain)


def test_what_a_colour_profile_or_a_text_holds_is_no_reason_to_refuse_a_picture() -> None:
    large = zlib.compress(np.random.default_rng(0).bytes(2_000_000))
    for chunk in ((b"iCCP", b"x\0\0" + large), (b"zTXt", b"x\0\0" + large), (b"tIME", b"")):
        assert decode(makers.png_of(chunk), SPEC, LIMITS).width == 40


def test_the_first_frame_of_thousands_is_shown() -> None:
    red, blue = Image.new("RGB", (16, 16), (255, 0, 0)), Image.new("RGB", (16, 16), (0, 0, 255))
    for kind in ("GIF", "WEBP", "PNG", "TIFF", "AVIF"):
        data = encoded(red, kind, save_all=True, append_images=[blue] * 20)
        pixels = decode(data, SPEC, LIMITS).pixels
        assert pixels[0].min() > 230, kind
        assert pixels[2].max() < 30, kind


def test_progressive_jpegs_of_real_encoders_have_few_scans() -> None:
    for mode in ("L", "RGB", "CMYK"):
        data = encoded(seeds.picture(mode, (300, 200)), "JPEG", progressive=True)
        assert decode(data, SPEC, LIMITS).width == 300
    assert decode(makers.jpeg_scans(64, 64, SCANS - 1), SPEC, LIMITS).width == 64
    with pytest.raises(TooLarge) as caught:
        decode(makers.jpeg_scans(64, 64, SCANS), SPEC, LIMITS)
    assert caught.value.limit == SCANS


def test_a_video_behind_a_photograph_holds_no_scans() -> None:
    """Phones append one; by chance there are markers among its bytes."""
    data = encoded(seeds.picture(size=(300, 200)), "JPEG", progressive=True)
    assert decode(data + b"\xff\xda\0\2" * 1_000, SPEC, LIMITS).width == 300


JPEG = b"\xff\xd8" + tables(b"\0")


@pytest.mark.parametrize(
    "data",
    [
        JPEG + frame(0xC0, 40, 0) + scan() + segment(0xDC, b"\0\x1e") + b"\xff\xd9",
        JPEG + frame(0xC0, 0, 30) + scan() + b"\xff\xd9",
        JPEG + frame(0xC0, 40, 30, 5) + scan() + b"\xff\xd9",
        JPEG + frame(0xC0, 40, 30) + frame(0xC0, 9_000, 9_000) + scan(),
        JPEG + frame(0xC0, 9_000, 9_000) + frame(0xC0, 40, 30) + scan(),
        png((b"IHDR", header(0, 30)), (b"IDAT", black(1, 30)), (b"IEND", b"")),
        png((b"IHDR", header(40, 30)), (b"IEND", b"")),
        gif(40, 30, b";"),
        gif(0, 0, gif_picture(0, 0), b";"),
        bmp(40, -(2**31), 0, b"\0" * 100, 24),
        bmp(40, 30, 77, b"\0" * 1_200),
        bmp(40, 30, 0, b"\0" * 1_200, 7),
        makers.tiff_of(0, 30, 1, data=b"\0"),
        makers.tiff_of(40, 30, 9_999, data=b"\0"),
        makers.webp_canvas(8, 8)[:40],
    ],
)  # fmt: skip
def test_a_header_that_makes_no_sense_is_a_problem(data: bytes) -> None:
    with pytest.raises(Problem) as caught:
        decode(data, SPEC, LIMITS)
    assert caught.value.status in (413, 415, 422)
    assert caught.value.field == "image"


def test_restart_markers_by_the_thousand_cost_nothing() -> None:
    whole = seeds.picture("L", (800, 800))
    data = encoded(whole, "JPEG", restart_marker_blocks=1)
    assert data.count(b"\xff\xd0") > 1_000
    assert decode(data, SPEC, LIMITS).width == 800


@pytest.mark.parametrize("kind", range(1, 20))
def test_a_large_tile_is_refused_whatever_its_type(kind: int) -> None:
    """libtiff takes types that no writer uses; the fuzzer found one that takes 1.8 GB."""
    number = struct.pack("<Q", 46_000)
    value = 16 if kind in (16, 17, 18) else 46_000  # eight bytes stand elsewhere
    tags = [(322, kind, 1, value), (323, kind, 1, value), (324, 4, 1, 24), (325, 4, 1, 8)]
    data = makers.tiff_of(16, 16, 8, *tags, data=number + zlib.compress(b""), layout=False)
    with pytest.raises(TooLarge):
        screen(data, LIMITS.pixels)


def test_damaged_fax_pages_write_nothing_to_the_standard_error(
    capfd: pytest.CaptureFixture[str],
) -> None:
    quieten()
    data = bytearray(encoded(seeds.picture("1", (200, 200)), "TIFF", compression="group4"))
    data[20:60] = b"\x55" * 40
    with contextlib.suppress(Problem):
        decode(bytes(data), SPEC, LIMITS)
    assert capfd.readouterr().err == ""


def test_large_images_are_not_decoded_all_at_once() -> None:
    room, used, most = Room(100), 0, 0
    lock = threading.Lock()

    def work(pixels: int) -> None:
        nonlocal used, most
        for _ in range(5):
            with room.taken(pixels):
                with lock:
                    used += min(pixels, 100)
                    most = max(most, used)
                time.sleep(0.002)
                with lock:
                    used -= min(pixels, 100)

    threads = [threading.Thread(target=work, args=(n,)) for n in (1, 10, 40, 60, 90, 100, 5_000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(240)
    assert 60 <= most <= 100
    assert used == 0


def test_small_images_do_not_pass_a_large_one_that_waits() -> None:
    room = Room(100)
    served: list[int] = []

    def work(pixels: int) -> None:
        with room.taken(pixels):
            served.append(pixels)

    threads = [threading.Thread(target=work, args=(pixels,)) for pixels in (100, 10)]
    with room.taken(10):
        for number, thread in enumerate(threads, start=1):
            thread.start()
            while room.waiting < number:  # there would be room for the small one
                assert thread.is_alive()
        assert served == []
    for thread in threads:
        thread.join(60)
    assert served == [100, 10]


def test_an_image_that_waits_for_room_does_not_hang() -> None:
    decoder = Decoder(SPEC, LIMITS, 1)

    async def run() -> int:
        with decoder.room.taken(10**9):
            decoding = asyncio.create_task(decoder.decode(encoded(makers.red((64, 64)), "PNG")))
            while not decoder.room.waiting:
                await asyncio.sleep(0)
            assert decoder.busy_since is None  # or the watchdog would end the process
        return (await decoding).width

    assert asyncio.run(run()) == 64
    decoder.close()


@pytest.mark.parametrize(
    ("threads", "memory", "pixels"),
    [(2, math.inf, 100_000_000), (64, math.inf, 256_000_000), (2, 256_000_000, 15_058_823),
     (2, 5, 1)],
)  # fmt: skip
def test_no_more_is_decoded_at_once_than_fits_into_memory(
    threads: int, memory: float, pixels: int
) -> None:
    assert pixels_at_once(50_000_000, threads, memory) == pixels


@pytest.fixture(scope="module")
def quick() -> dict[str, bytes]:
    return {name: make() for name, make in bombs.bombs().items() if name in bombs.QUICK}


@pytest.mark.parametrize("way", ["form", "raw", "base64"])
def test_a_server_answers_bombs_and_serves_on(
    client: httpx.Client, quick: dict[str, bytes], way: str, caplog: pytest.LogCaptureFixture
) -> None:
    from base64 import b64encode

    for name, data in quick.items():
        if way == "form":
            answer = client.post("/classify", files={"image": data}, data={"labels": "a,b"})
        elif way == "raw":
            answer = client.post("/classify", content=data, params={"labels": "a,b"})
        else:
            body = {"image": b64encode(data).decode(), "labels": "a,b"}
            answer = client.post("/classify", json=body)
        assert answer.status_code in (200, 413, 415, 422), name
        if not answer.is_success:
            assert answer.json()["field"] == "image", name
    assert client.get("/healthz").status_code == 200
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []


def test_truncated_files_are_never_completed() -> None:
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


class Told(Room):
    """A room that says how much was taken of it."""

    def __init__(self) -> None:
        super().__init__(10**9)
        self.asked: list[int] = []

    @contextlib.contextmanager
    def taken(self, pixels: int) -> Iterator[None]:
        self.asked.append(pixels)
        with super().taken(pixels):
            yield


@pytest.mark.parametrize(
    ("data", "held"),
    [
        # 300 kB may hold 65,536 groups of codes, whose tables are 400 MB
        (encoded(makers.red((1024, 1024)), "WEBP", lossless=True), 1024**2 + 65_536 * 700),
        (encoded(makers.red((64, 64)), "WEBP", lossless=True), 64**2 + 256 * 700),
        (encoded(makers.red((1024, 1024)), "WEBP"), 1024**2),
        (makers.tiff_tile(2048), 16 * 16 + 2048**2),
        (encoded(Image.new("I;16", (64, 64)), "PNG"), 2 * 64**2),  # read once more as 16 bits
        (encoded(makers.red((64, 64)), "PNG"), 64**2),
    ],
    ids=["lossless", "small", "lossy", "tile", "deep", "png"],
)
def test_what_a_decoder_holds_beside_the_pixels_counts_too(data: bytes, held: int) -> None:
    room = Told()
    decode(data, SPEC, ImageLimits(), FORMATS, taken=room.taken)
    assert room.asked == [held]


def heic_of(edge: int, parts: dict[int, list[int]], sized: int = 100) -> bytes:
    """The boxes of an HEIC file whose items are made of others; the first `sized` say a size."""

    def full(name: bytes, body: bytes) -> bytes:
        return box(name, bytes(4) + body)

    named = sorted({*parts, *itertools.chain(*parts.values())})
    items = [item for item in named if item <= sized]
    uses = b"".join(struct.pack(">HBB", item, 1, 0x81) for item in items)
    properties = box(b"ipco", full(b"ispe", struct.pack(">II", edge, edge)))
    properties += full(b"ipma", struct.pack(">I", len(items)) + uses)
    made = b"".join(
        box(b"dimg", struct.pack(f">HH{len(others)}H", item, len(others), *others))
        for item, others in parts.items()
    )
    meta = full(b"meta", box(b"iprp", properties) + full(b"iref", made))
    return box(b"ftyp", b"heic\0\0\0\0mif1heic") + meta


def test_no_heic_is_made_of_many_times_its_pixels() -> None:
    grid, gain_map = list(range(4, 52)), list(range(52, 60))
    data = heic_of(1_000, {1: [2, 3], 2: grid, 3: gain_map})  # as telephones write them
    assert screen(data, 50_000_000) == data
    for parts, sized, what in (
        ({1: list(range(2, 400))}, 400, "pixels"),
        ({1: [2, 3, 4, 5, 6, 7, 8]}, 1, "pixels"),  # parts that say no size
        ({1: [2, 3, 4] * 5, 2: [5, 6, 7] * 5, 5: [8, 9] * 5}, 9, "pixels"),
        ({1: [2], 2: [3], 3: [4], 4: [5], 5: [6]}, 9, "levels"),
        ({1: [2], 2: [1]}, 9, "levels"),
    ):
        with pytest.raises(TooLarge, match=what):
            screen(heic_of(1_000, parts, sized), 50_000_000)
    # with a gain map as large as it is
    large = heic_of(6_900, {1: [2, 3], 2: [4], 3: [5]}, 3)
    assert screen(large, 50_000_000) == large
    # of one that is too large itself its own size is told; a crop could hide it from the decoder
    with pytest.raises(TooLarge, match="1000 x 1000 = 1000000 pixels, the limit is 200000"):
        screen(heic_of(1_000, {1: [2, 3]}), 200_000)


def test_boxes_of_heif_are_counted_wherever_they_are() -> None:
    free, head = box(b"free", b"") * 100_000, box(b"ftyp", b"avif\0\0\0\0mif1avif")
    reference = box(b"iref", bytes(4) + box(b"dimg", struct.pack(">HH", 7, 4_000) + bytes(8_000)))
    for inside in (box(b"iprp", free), box(b"iprp", box(b"ipco", free)), reference * 100):
        tracemalloc.start()
        with pytest.raises(TooLarge, match=r"boxes|bytes of iref"):
            screen(head + box(b"meta", bytes(4) + inside), 50_000_000)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 4_000_000  # a copy of the file, and no list of its boxes


@pytest.mark.parametrize("size", [(math.nan, 1), (-1e9, 1e9), (1e300, 1), (math.inf, 1)])
def test_sizes_of_tiles_that_are_none_take_no_room_and_break_nothing(
    size: tuple[float, float],
) -> None:
    # of double-precision numbers, that Pillow does not look at in strips
    pixels = bytes(16 * 16)
    tags = [(322, 12, 1, 16 + len(pixels)), (323, 12, 1, 24 + len(pixels))]
    room = Told()
    data = makers.tiff_of(16, 16, 1, *tags, data=pixels + struct.pack("<dd", *size))
    assert decode(data, SPEC, ImageLimits(), FORMATS, taken=room.taken).width == 16
    assert min(room.asked) >= 16 * 16
