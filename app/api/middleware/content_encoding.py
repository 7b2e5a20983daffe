"""Request bodies that their sender compressed (RFC 9110, section 8.4), unpacked in small pieces.

Knows nothing of what they hold.
"""

import asyncio
import zlib
from typing import Final

from starlette.types import Message, Receive

from app.errors import TooLarge, Unparsable, UnsupportedEncoding

# bytes that are unpacked at once
PIECE: Final = 262_144

# a body may unpack to so many times its size, and to a million bytes whatever its size
MOST_TIMES: Final = 50
FREE: Final = 1_000_000

GZIP: Final = frozenset({"gzip", "x-gzip"})
DEFLATE: Final = "deflate"
ACCEPTED: Final = "gzip, deflate"


def coding_of(header: str) -> str | None:
    """The one coding of a Content-Encoding header, None for a plain body.

    Raises UnsupportedEncoding.
    """
    coding = header.strip().lower()
    if coding in ("", "identity"):
        return None
    if coding in GZIP or coding == DEFLATE:
        return coding
    detail = f"unsupported Content-Encoding; send {ACCEPTED} or none"
    raise UnsupportedEncoding(detail, field="Content-Encoding", limit=ACCEPTED, value=header[:60])


class Unpacked:
    """The messages of a compressed body as those of a plain one of at most `limit` bytes."""

    def __init__(self, receive: Receive, coding: str, limit: int, field: str | None) -> None:
        self._receive = receive
        self._coding = coding
        self._limit = limit
        self._field = field
        self._size = self._sent = 0
        self._packed = b""
        self._more = True
        self._stream: zlib._Decompress | None = None

    async def receive(self) -> Message:
        """The next piece. Raises TooLarge, Unparsable."""
        while True:
            # the first two bytes say how a stream of deflate is wrapped
            ahead = 2 if self._stream is None else 1
            if self._more and len(self._packed) < ahead:
                message = await self._receive()
                if message["type"] != "http.request":
                    return message
                body = message.get("body", b"")
                self._packed += body
                self._sent += len(body)
                self._more = message.get("more_body", False)
                if self._more and len(self._packed) < ahead:
                    continue
            elif not self._packed:
                return await self._receive()  # the body is over
            else:
                await asyncio.sleep(0)  # others go on between the pieces
            piece = self._piece()
            over = not self._more and not self._packed
            if over and (self._stream is None or not self._stream.eof):
                piece += self._rest()
            if piece or over:
                return {"type": "http.request", "body": piece, "more_body": not over}

    def _piece(self) -> bytes:
        if not self._packed:
            return b""
        if self._stream is None or self._stream.eof:
            if self._stream is not None and self._coding == DEFLATE:
                raise Unparsable(f"bytes follow the end of the {self._coding} stream")
            self._stream = zlib.decompressobj(self._bits())
        try:
            piece = self._stream.decompress(self._packed, PIECE)
        except zlib.error:
            raise Unparsable(f"the body is not a valid {self._coding} stream") from None
        self._packed = self._stream.unconsumed_tail or self._stream.unused_data
        return self._counted(piece)

    def _bits(self) -> int:
        """What zlib is to expect: deflate is wrapped (RFC 1950), and by some senders is not."""
        if self._coding != DEFLATE:
            return zlib.MAX_WBITS | 16
        first, second = self._packed[0], (self._packed[1:2] or b"\0")[0]
        wrapped = first & 15 == zlib.DEFLATED and (first << 8 | second) % 31 == 0
        return zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS

    def _rest(self) -> bytes:
        """What zlib still holds at the end. Raises Unparsable where the stream has none."""
        if self._stream is None:
            return b""  # an empty body
        piece = b""
        while not self._stream.eof:
            try:
                more = self._stream.decompress(b"", PIECE)
            except zlib.error:
                more = b""
            if not more:
                raise Unparsable(f"the body ends before its {self._coding} stream is complete")
            piece += self._counted(more)
        return piece

    def _counted(self, piece: bytes) -> bytes:
        self._size += len(piece)
        if self._size > self._limit:
            detail = f"the body unpacks to {self._size} bytes or more, the limit is {self._limit}"
            raise TooLarge(detail, field=self._field, limit=self._limit, value=self._size)
        if self._size > max(FREE, MOST_TIMES * self._sent):
            detail = f"{self._sent} bytes of the body unpack to {self._size} bytes or more, over "
            detail += f"{MOST_TIMES} times as many; send it uncompressed"
            raise TooLarge(
                detail, field=self._field, limit=MOST_TIMES * self._sent, value=self._size
            )
        return piece
