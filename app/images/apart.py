"""Formats whose decoders are not let into this process: they run in one of their own.

It can open nothing, and has so much memory and time for each picture (`apart_child`). Knows neither
what is drawn nor how.
"""

import contextlib
import importlib.util
import queue
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from PIL import Image

from app.errors import DamagedImage, Invalid, Overloaded, TooLarge, UnsupportedImage
from app.images import unsupported
from app.images.apart_child import (
    ANSWER,
    BOUNDS,
    DAMAGED,
    EMPTY,
    JPEG_2000,
    JPEG_XL,
    REQUEST,
    SECONDS,
    SVG,
    TOO_LARGE,
)
from app.images.headers import components, is_animated
from app.images.limits import ImageLimits

Kind = Literal["svg", "jpeg2000", "jpegxl"]

CHILD: Final = Path(__file__).with_name("apart_child.py")

# pixels of a drawing's longer edge: more than any model sees, and crisp in each tile
EDGE: Final = 512

# seconds for an answer on a machine that is busy with other things, the start included
PATIENCE: Final = 60.0


@dataclass(frozen=True, slots=True)
class _Format:
    """What its files are, its number for the process, and what its operator can do."""

    files: unsupported.Kind
    number: int
    setting: str
    package: str = "PIL"
    extra: str = ""

    @property
    def name(self) -> str:
        """What a file is, without an article."""
        return self.files.name.partition(" ")[2]


_FORMATS: Final[dict[Kind, _Format]] = {
    "svg": _Format(unsupported.SVG, SVG, "OPENVOCAB_SVG", "resvg_py", "svg"),
    "jpeg2000": _Format(unsupported.JPEG_2000, JPEG_2000, "OPENVOCAB_JPEG_2000"),
    "jpegxl": _Format(unsupported.JPEG_XL, JPEG_XL, "OPENVOCAB_JPEG_XL", "pillow_jxl", "jxl"),
}


def kind_apart(data: bytes) -> Kind | None:
    """Which of these formats a file is of, by its first bytes; None for any other."""
    files = unsupported.kind_of(data)
    return next((kind for kind, form in _FORMATS.items() if form.files == files), None)


def installed(kind: Kind) -> bool:
    """Whether there is a decoder for it, and a system that bounds its process."""
    return BOUNDS and importlib.util.find_spec(_FORMATS[kind].package) is not None


@dataclass(frozen=True, slots=True)
class Drawn:
    """The pixels of a picture in RGB or RGBA, perhaps reduced; its size as a viewer shows it.

    `incomplete`: a drawing has letters, or parts that lie outside of its file. `profile` is of the
    pixels' colours, if the file has one.
    """

    image: Image.Image
    width: int
    height: int
    incomplete: bool = False
    profile: bytes = b""


class Apart:
    """Processes that decode `kinds`, each one picture at a time; as many as are needed in parallel.

    For threads.
    """

    def __init__(self, kinds: frozenset[Kind]) -> None:
        self.kinds = kinds
        self._idle: queue.LifoQueue[subprocess.Popen[bytes]] = queue.LifoQueue()
        self._lock = threading.Lock()
        self._all: set[subprocess.Popen[bytes]] = set()
        self._closed = False

    def decode(self, kind: Kind, data: bytes, limits: ImageLimits) -> Drawn:
        """The picture that a file of a kind holds.

        Raises: DamagedImage; Invalid for a drawing that draws nothing; UnsupportedImage for what
        its decoder gets wrong; TooLarge where it takes more pixels, memory or time than it may;
        Overloaded where no process can be started.
        """
        name = _FORMATS[kind].name
        _check(kind, data)
        with self._process() as process:
            try:
                head = REQUEST.pack(_FORMATS[kind].number, limits.pixels, EDGE, len(data))
                reply, profile, raw = _exchange(process, head + data)
            except (TimeoutError, OSError) as error:
                if self._closed:
                    raise
                detail = f"the {name} takes over {SECONDS} s or too much memory to decode"
                raise TooLarge(detail, field="image", limit=SECONDS) from error
        ended, width, height, across, down, channels, incomplete = reply
        if ended == TOO_LARGE:
            pixels = f"has {width} x {height} pixels" if width else "takes too much memory"
            detail = f"the {name} {pixels}, the limit is {limits.pixels} pixels"
            value = width * height or None
            raise TooLarge(detail, field="image", limit=limits.pixels, value=value)
        if ended == EMPTY:
            detail = (
                f"the {name} draws nothing; text, and what lies outside of its file, is not drawn"
            )
            raise Invalid(detail, field="image")
        if ended == DAMAGED:
            raise DamagedImage(f"the {name} cannot be decoded", field="image")
        mode = "RGBA" if channels == 4 else "RGB"
        image = Image.frombytes(mode, (across, down), raw)
        return Drawn(image, width, height, bool(incomplete), profile)

    def close(self) -> None:
        """End the processes."""
        with self._lock:
            self._closed = True
            processes, self._all = list(self._all), set()
        for process in processes:
            _end(process)

    @contextlib.contextmanager
    def _process(self) -> Iterator[subprocess.Popen[bytes]]:
        process = self._living() or self._started()
        try:
            yield process
        except BaseException:
            _end(process)  # or its answer would be taken for that of the next picture
            raise
        finally:
            if process.poll() is None and not self._closed:
                self._idle.put(process)
            else:
                self._forget(process)

    def _living(self) -> subprocess.Popen[bytes] | None:
        """An idle one that nobody has killed meanwhile, as the system does where memory is low."""
        with contextlib.suppress(queue.Empty):
            while (process := self._idle.get_nowait()).poll() is not None:
                self._forget(process)
            return process
        return None

    def _forget(self, process: subprocess.Popen[bytes]) -> None:
        _end(process)
        with self._lock:
            self._all.discard(process)

    def _started(self) -> subprocess.Popen[bytes]:
        try:
            process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-I", str(CHILD)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={},
                start_new_session=True,  # Ctrl-C is for the server
            )
        except OSError as error:
            why = error.strerror or str(error)
            detail = f"no process can be started to decode this picture ({why}); try again later"
            raise Overloaded(detail, field="image", retry_after=1) from error
        with self._lock:
            self._all.add(process)
        return process


def _check(kind: Kind, data: bytes) -> None:
    """Raises UnsupportedImage for pictures that would be answered wrongly, and not refused."""
    if kind == "jpeg2000":
        says = components(data)
        if len(says.bits) > 1 and max(says.bits) > 8:
            # Pillow rounds the numbers to 8 bits, and what is rounded up from 255 becomes 0
            detail = (
                f"this is a JPEG 2000 picture in colour with {max(says.bits)} bits a channel, "
                "which is not read; convert it to 8 bits a channel, or to PNG"
            )
            raise UnsupportedImage(detail, field="image", limit=8, value=max(says.bits))
        if says.is_uneven:
            # Pillow shifts the colours, by one pixel more in each row
            what = f"{says.width} x {says.height} pixels with subsampled colour"
            detail = f"this is a JPEG 2000 picture of {what}, which is read only where the "
            detail += "subsampling divides its size evenly; convert it to PNG or JPEG"
            raise UnsupportedImage(detail, field="image", value=what)
    if kind == "jpegxl" and is_animated(data):
        # its decoder gives the last frame, and everywhere else the first one counts
        detail = "this is an animated JPEG XL picture, which is not read; send one frame of it"
        raise UnsupportedImage(detail, field="image", value="an animated JPEG XL picture")


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
    process.wait()


def _exchange(
    process: subprocess.Popen[bytes], request: bytes
) -> tuple[tuple[int, ...], bytes, bytes]:
    """What the process answers: numbers, the profile and the pixels.

    Raises TimeoutError; OSError where it has ended.
    """
    assert process.stdin is not None
    assert process.stdout is not None
    end = time.monotonic() + PATIENCE
    # the process reads all of a request before it answers
    process.stdin.write(request)
    process.stdin.flush()
    header = _read(process, ANSWER.size, end)
    *numbers, profile, pixels = ANSWER.unpack(header)
    return tuple(numbers), _read(process, profile, end), _read(process, pixels, end)


def _read(process: subprocess.Popen[bytes], size: int, end: float) -> bytes:
    assert process.stdout is not None
    pieces: list[bytes] = []
    answers = select.poll()  # select.select takes no file above 1,023
    answers.register(process.stdout, select.POLLIN)
    while size:
        if not answers.poll(1000 * max(0.0, end - time.monotonic())):
            raise TimeoutError
        piece = process.stdout.read1(size)  # type: ignore[attr-defined]
        if not piece:
            raise BrokenPipeError
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


def unavailable(kind: Kind, formats: str) -> UnsupportedImage:
    """The problem of a file of a kind that is not decoded here, with what helps."""
    form = _FORMATS[kind]
    install = "" if installed(kind) else f"install openvocab[{form.extra}] and "
    what = form.files.name
    detail = f"this is {what}, not {formats}; convert it to PNG or JPEG"
    if BOUNDS:
        detail += f", or have the operator {install}set {form.setting}=true"
    return UnsupportedImage(detail, field="image", limit=formats, value=what)
