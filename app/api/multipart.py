"""The parts of a multipart form as they arrive, none held longer than needed.

Knows nothing of what the parts mean.
"""

from collections import deque
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from email.message import Message
from email.utils import unquote
from typing import Any, Final

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from app import errors
from app.api.middleware.state import hold_nothing
from app.errors import Invalid, Problem, TooLarge, Unparsable
from app.images.formats import looks_like_image


def check_charset(request: Request) -> None:
    """Forms are UTF-8 (RFC 7578, section 5.1.2); other charsets make texts no answer can hold."""
    _, options = parse_options_header(request.headers["content-type"])
    charset = options.get(b"charset", b"utf-8").decode("latin-1").lower()
    if charset not in ("utf-8", "utf8", "us-ascii"):
        raise Unparsable(f"a form's charset can only be utf-8, not {errors.shown(charset)}")


# bytes of one header of a part, and of all text fields of a form together with their names
LARGEST_HEAD: Final = 16_384
LARGEST_TEXTS: Final = 8_000_000

# first bytes of a part that tell a picture
PICTURE: Final = 64

HEADER: Final = "content-disposition"

# the charsets of an extended name (RFC 5987); Python's others raise, or make halves of surrogates
CHARSETS: Final = frozenset({"utf-8", "iso-8859-1"})

# parameters of a disposition; the library's time for them grows with the square of their number
PARAMETERS: Final = 16


@dataclass(frozen=True, slots=True)
class Part:
    """One part; `filename` is None for a text field. One over its limit comes with its problem."""

    name: str
    filename: str | None
    content: bytes | Problem


@dataclass(slots=True)
class _Arriving:
    headers: dict[bytes, bytes] = field(default_factory=dict)
    name: str | None = None
    filename: str | None = None
    content: bytearray = field(default_factory=bytearray)
    size: int = 0


async def parts(
    stream: AsyncIterator[bytes],
    content_type: str,
    most_file: int,
    most_text: int,
    hold: Callable[[int], None] = hold_nothing,
) -> AsyncIterator[Part]:
    """Each part once it is complete, files of up to `most_file` bytes and texts of `most_text`.

    `hold` hears of the bytes of text as they arrive, and may raise.

    Raises:
        Unparsable: it is no multipart form. Invalid: a part holds several files. TooLarge: its
            texts together have over LARGEST_TEXTS bytes. Problem: what the stream and `hold` raise.
    """
    _, options = parse_options_header(content_type)
    if not options.get(b"boundary"):
        detail = "no boundary in its content type; let your HTTP client set that header"
        raise Unparsable(f"the multipart body cannot be parsed: {detail}")
    reader, parser, held = _Reader(most_file, most_text), None, 0
    async for chunk in stream:
        try:
            parser = parser or MultipartParser(options[b"boundary"], reader.callbacks())
            parser.write(chunk)
        except FormParserError as error:
            raise Unparsable(f"the multipart body cannot be parsed: {error}") from None
        hold(reader.texts - held)
        held = reader.texts
        while reader.complete:
            yield reader.complete.popleft()
    if not reader.ended:
        raise Unparsable("the multipart body ends before its last boundary")


def is_picture(begins: bytes) -> bool:
    """Whether a text field's first bytes are a picture's."""
    # a label may begin as a picture does (GIF), but has no NUL
    return b"\0" in begins and looks_like_image(begins)


def _filename(disposition: bytes, plain: bytes | None) -> str | None:
    """The name in `filename*` (RFC 5987, RFC 2231), which some clients send alone and .NET beside
    one for old mail programs; else the `plain` one, or in parts (RFC 2231), or None."""
    if b"filename*" not in disposition.lower() or disposition.count(b";") > PARAMETERS:
        return None if plain is None else plain.decode("utf-8", "replace")
    message = Message()
    message[HEADER] = disposition.decode("latin-1").replace("\r", "").replace("\n", "")
    try:
        found: list[tuple[str, Any]] = message.get_params([], HEADER)
    except (TypeError, ValueError):  # a name in parts and whole
        found = []
    names = [value for name, value in found if name == "filename"]
    for name in names:
        if isinstance(name, tuple):
            charset, _, text = name
            coding = charset.lower() if charset and charset.lower() in CHARSETS else "utf-8"
            return str(text).encode("latin-1", "replace").decode(coding, "replace")
    if plain is not None:
        return plain.decode("utf-8", "replace")
    return unquote(names[0]) if names else None


class _Reader:
    """The callbacks of the parser, and what they found."""

    def __init__(self, most_file: int, most_text: int) -> None:
        self.complete: deque[Part] = deque()
        self.ended = False
        self.texts = 0  # bytes of all text fields and of all names
        self._most_file = most_file
        self._most_text = most_text
        self._part = _Arriving()
        self._head = (bytearray(), bytearray())

    def callbacks(self) -> Any:
        """What the parser is given; the reader does not know it, or both would outlive the form."""
        return {
            "on_part_begin": self._begin,
            "on_header_begin": self._header_begin,
            "on_header_field": lambda data, start, end: self._header(0, data[start:end]),
            "on_header_value": lambda data, start, end: self._header(1, data[start:end]),
            "on_header_end": self._header_end,
            "on_headers_finished": self._headers_end,
            "on_part_data": self._data,
            "on_part_end": self._end,
            "on_end": self._all,
        }

    def _begin(self) -> None:
        self._part = _Arriving()

    def _header_begin(self) -> None:
        self._head = (bytearray(), bytearray())

    def _header(self, which: int, data: bytes) -> None:
        self._head[which].extend(data)
        if len(self._head[which]) > LARGEST_HEAD:
            raise Unparsable(f"a part's header has over {LARGEST_HEAD} bytes")

    def _header_end(self) -> None:
        self._part.headers[bytes(self._head[0]).lower()] = bytes(self._head[1])

    def _headers_end(self) -> None:
        disposition = self._part.headers.get(b"content-disposition", b"")
        _, options = parse_options_header(disposition)
        if b"name" not in options:
            raise Unparsable("a part of the form has no name")
        self._part.name = options[b"name"].decode("utf-8", "replace")
        if self._part.headers.get(b"content-type", b"").lower().startswith(b"multipart/"):
            detail = f"the part {errors.shown(self._part.name)} holds several files; send each in "
            raise Invalid(f"{detail}a part of its own", field=errors.excerpt(self._part.name))
        self._part.filename = _filename(disposition, options.get(b"filename"))
        if self._part.filename is None:
            self._add_text(len(self._part.name))

    def _data(self, data: bytes, start: int, end: int) -> None:
        part = self._part
        # a picture without a file name, as PHP and .NET send bytes, is a file all the same
        if part.filename is None and part.size < PICTURE:
            begins = bytes(part.content) + data[start : min(end, start + PICTURE)]
            part.filename = "" if is_picture(begins[:PICTURE]) else None
        part.size += end - start
        if part.filename is None:
            self._add_text(end - start)
        if part.size <= self._limit:
            part.content += data[start:end]
        else:
            part.content.clear()  # only its size still counts

    def _add_text(self, count: int) -> None:
        self.texts += count
        if self.texts > LARGEST_TEXTS:
            detail = f"the text fields of the form have over {LARGEST_TEXTS} bytes together"
            raise TooLarge(detail, field=self._part.name, limit=LARGEST_TEXTS)

    @property
    def _limit(self) -> int:
        return self._most_text if self._part.filename is None else self._most_file

    def _end(self) -> None:
        part, limit = self._part, self._limit
        content: bytes | Problem = bytes(part.content)
        if part.size > limit:
            what = "the image" if part.filename is not None else "the text field"
            detail = f"{what} has {part.size} bytes, the limit is {limit}"
            content = TooLarge(detail, field=part.name, limit=limit, value=part.size)
        self.complete.append(Part(part.name or "", part.filename, content))
        self._part = _Arriving()

    def _all(self) -> None:
        self.ended = True
