"""Files of other formats are called by their names, with what their sender can do."""

import io
import struct
import time
import zlib

import pytest
from PIL import Image

from app.errors import DamagedImage, TooLarge, UnsupportedImage
from app.images.decode import decode
from app.images.limits import ImageLimits
from app.images.unsupported import kind_of
from models import ImageSpec

SPEC = ImageSpec(32, 32, "shortest", "bicubic", 0)


def encoded(kind: str) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(out, kind)
    return out.getvalue()


NAMES: dict[str, tuple[bytes, str, str]] = {
    "a page": (b"<!DOCTYPE html>\n<html><title>404</title>", "an HTML page", "leads to a page"),
    "a page with a comment": (b"<!-- hi -->\n<HTML lang=en>", "an HTML page", "leads to a page"),
    "a drawing": (b"<?xml version='1.0'?><svg/>", "an SVG drawing", "convert it to PNG"),
    "XML": (b"<?xml version='1.0'?><feed/>", "an XML document", "the picture itself"),
    "PDF": (b"%PDF-1.7\n", "a PDF document", "send a page of it"),
    "PostScript": (b"%!PS-Adobe-3.0", "a PostScript document", "convert"),
    "Photoshop": (b"8BPS\0\1", "a Photoshop (PSD) file", "convert"),
    "icon": (encoded("ICO"), "a Windows icon (ICO)", "convert"),
    "TGA": (encoded("TGA"), "a TGA picture", "convert"),
    "PPM": (encoded("PPM"), "a PPM picture", "convert"),
    "JPEG 2000": (encoded("JPEG2000"), "a JPEG 2000 picture", "OPENVOCAB_JPEG_2000"),
    "JPEG XL": (b"\xff\x0a" + b"\0" * 40, "a JPEG XL picture", "OPENVOCAB_JPEG_XL"),
    "JPEG XR": (b"II\xbc\1" + b"\0" * 40, "a JPEG XR picture", "convert"),
    "raw": (b"FUJIFILMCCD-RAW " + b"\0" * 40, "a camera's raw file", "develop it"),
    "MP4": (b"\0\0\0\x20ftypisom" + b"\0" * 40, "an MP4 video", "send a frame"),
    "QuickTime": (b"\0\0\0\x14ftypqt  " + b"\0" * 40, "a QuickTime video", "send a frame"),
    "WebM": (b"\x1aE\xdf\xa3" + b"\0" * 40, "a WebM or Matroska video", "send a frame"),
    "AVI": (b"RIFF\x24\0\0\0AVI " + b"\0" * 40, "an AVI video", "send a frame"),
    "sound": (b"ID3\3" + b"\0" * 40, "an MP3 audio file", "the picture itself"),
    "ZIP": (b"PK\3\4" + b"\0" * 40, "a ZIP archive or an Office document", "/classify/batch"),
    "gzip": (b"\x1f\x8b\x08" + b"\0" * 40, "a gzip file", "unpack it"),
    "DICOM": (b"\0" * 128 + b"DICM" + b"\0" * 9, "a DICOM picture", "export it"),
    "Git LFS": (
        b"version https://git-lfs.github.com/spec/v1\n",
        "a Git LFS pointer",
        "git lfs pull",
    ),
    "base64": (b"iVBORw0KGgoAAAANSUhEUgAA", "a picture in base64", "as 'image' in"),
    "a URL": (b"https://example.org/cat.png", "a URL", "as image_url"),
    "JSON": (b'{"image": "..."}', "JSON", "Content-Type: application/json"),
    "text": ("Grüße".encode(), "text", "the picture itself"),
}


@pytest.mark.parametrize("kind", NAMES)
def test_a_file_of_another_format_is_called_by_its_name(kind: str) -> None:
    data, name, advice = NAMES[kind]
    with pytest.raises(UnsupportedImage) as refused:
        decode(data, SPEC, ImageLimits())
    assert refused.value.detail.startswith(f"this is {name}, not JPEG")
    assert advice in refused.value.detail
    assert refused.value.value == name


def test_a_jpeg_of_a_kind_that_no_decoder_reads_is_named() -> None:
    plain = encoded("JPEG")
    place = plain.index(b"\xff\xc0")
    for marker, bits, name in ((0xC3, 8, "without loss"), (0xC1, 12, "with 12 bits a channel")):
        frame = bytes([0xFF, marker]) + plain[place + 2 : place + 4] + bytes([bits])
        with pytest.raises(UnsupportedImage, match=f"this is a JPEG {name}"):
            decode(plain[:place] + frame + plain[place + 5 :], SPEC, ImageLimits())


def test_a_jpeg_cut_short_is_damaged_whatever_its_metadata_look_like() -> None:
    plain = encoded("JPEG")
    like_a_frame = b"\xff\xc0\0\x0b\x8f" * 20
    exif = b"\xff\xe1" + struct.pack(">H", 2 + len(like_a_frame)) + like_a_frame
    with pytest.raises(DamagedImage):
        decode((plain[:2] + exif + plain[2:])[:-40], SPEC, ImageLimits())


@pytest.mark.parametrize("filling", [b"\xff", b"\xff\0", b"\0"])
def test_a_jpeg_of_filling_alone_costs_little(filling: bytes) -> None:
    data = b"\xff\xd8\xff" + filling * (5_000_000 // len(filling))
    begun = time.process_time()
    with pytest.raises((DamagedImage, TooLarge)):
        decode(data, SPEC, ImageLimits())
    assert time.process_time() - begun < 1  # each byte by itself takes three seconds


def test_a_sound_file_of_a_rare_kind_is_not_called_damaged() -> None:
    apple = b"\x89PNG\r\n\x1a\n"
    packed = zlib.compress(bytes(16 * 49))[2:-4]  # without what zlib puts around it
    for part, content in (
        (b"CgBI", b"\x50\0\x20\6"),
        (b"IHDR", struct.pack(">IIBBBBB", 16, 16, 8, 2, 0, 0, 0)),
        (b"IDAT", packed),
        (b"IEND", b""),
    ):
        sum_ = zlib.crc32(part + content)
        apple += struct.pack(">I", len(content)) + part + content + struct.pack(">I", sum_)
    head = struct.pack("<IiiHHIIIIII3I4x", 56, 16, 16, 1, 16, 3, 512, 0, 0, 0, 0, 0xF00, 0xF0, 0xF)
    bitmap = b"BM" + struct.pack("<IHHI", 14 + 56 + 512, 0, 0, 14 + 56) + head + bytes(512)
    for data, name in ((apple, r"Xcode packs it into apps \(CgBI\)"), (bitmap, "laid out unusual")):
        with pytest.raises(UnsupportedImage, match=name):
            decode(data, SPEC, ImageLimits())


@pytest.mark.parametrize(
    "piece", [b"<!---->", b"<??>", b"<!DOCTYPE[]>", b"<!DOCTYPE[] ", b"<!--", b"<!DOCTYPE", b" \n"]
)
def test_no_text_takes_long_to_be_named(piece: bytes) -> None:
    for count in (24, 60_000 // len(piece)):
        begun = time.process_time()
        kind_of(piece * count + b"&")
        # of a second: what is tried in every combination takes ten for the first, years for both
        assert time.process_time() - begun < 1


def test_a_bitmap_is_one_whatever_a_camera_writes_into_its_reserved_bytes() -> None:
    data = encoded("BMP")
    marked = data[:6] + b"FLIR" + data[10:]
    assert decode(marked, SPEC, ImageLimits()).format == "BMP"
    assert struct.unpack_from("<I", marked, 10)[0] == struct.unpack_from("<I", data, 10)[0]
