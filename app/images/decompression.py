"""What compressed files unpack to, in small pieces, and no more of it than a budget allows.

The libraries' own readers unpack all that a piece of a file holds, however much that is.
Knows nothing of archives or images.
"""

import bz2
import io
import lzma
import zlib
from collections.abc import Callable
from functools import partial
from typing import IO, Final, Protocol

from app.errors import TooLarge

# bytes of an archive that are read, and of what is unpacked, at once
READ: Final = 65_536
PIECE: Final = 262_144

# an archive may unpack to so many times its size, and to one file more: pictures are compressed
# already, and flat drawings that are not (BMP) seldom pack better than fifty to one
MOST_TIMES: Final = 50

# bytes that a decoder of xz may hold; `xz -9` asks for 65 MiB
XZ_MEMORY: Final = 72 << 20

# bytes by which a compressed stream is known
MAGIC: Final = 6


class Stopped(Exception):
    """The client that requested the files has disconnected."""


class Budget:
    """What may still be unpacked of an archive of `size` bytes.

    That is MOST_TIMES its size and `one` file more, but never more than `together`.
    """

    def __init__(self, size: int, alone: int, together: int, stopped: Callable[[], bool]) -> None:
        self.size = size
        self._most = min(together, alone + MOST_TIMES * size)
        self._limit = together
        self._used = 0
        self._stopped = stopped

    def check(self, size: int) -> None:
        """Whether so many bytes from the beginning may be unpacked. Raises TooLarge."""
        if size <= self._most:
            return
        if self._most == self._limit:
            detail = f"the archive unpacks to over {self._limit} bytes, the limit of "
            raise TooLarge(detail + "max_upload_bytes", field="archive", limit=self._limit)
        detail = f"the archive of {self.size} bytes unpacks to over {self._most} bytes, over "
        detail += f"{MOST_TIMES} times its size"
        raise TooLarge(detail, field="archive", limit=self._most)

    def spend(self, count: int) -> None:
        """So many bytes were unpacked. Raises TooLarge, Stopped."""
        if self._stopped():
            raise Stopped
        self._used += count
        self.check(self._used)


class Decoder(Protocol):
    """What the decoders of the standard library have in common."""

    @property
    def eof(self) -> bool: ...
    @property
    def unused_data(self) -> bytes: ...
    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Inflate:
    """zlib's decoder, which gives back what it did not read, as one that keeps it."""

    def __init__(self, window: int) -> None:
        self._inner = zlib.decompressobj(window)

    @property
    def eof(self) -> bool:
        return self._inner.eof

    @property
    def unused_data(self) -> bytes:
        return self._inner.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._inner.decompress(self._inner.unconsumed_tail + data, max_length)


def deflate() -> Decoder:
    """Of a ZIP file's usual members."""
    return _Inflate(-zlib.MAX_WBITS)


def lzma_alone() -> Decoder:
    """Of LZMA with a header of its own, as before xz."""
    return lzma.LZMADecompressor(lzma.FORMAT_ALONE, memlimit=XZ_MEMORY)


def decoder_of(start: bytes) -> Callable[[], Decoder] | None:
    """What decodes a compressed file with these bytes at its start, if it is one."""
    if start[:3] == b"\x1f\x8b\x08":
        return partial(_Inflate, 16 + zlib.MAX_WBITS)
    if start[:3] == b"BZh":
        return bz2.BZ2Decompressor
    if start[:6] == b"\xfd7zXZ\0":
        return partial(lzma.LZMADecompressor, lzma.FORMAT_XZ, memlimit=XZ_MEMORY)
    return None


class Unpacked(io.RawIOBase):
    """What `length` bytes of a file unpack to, read forwards, never more than PIECE at once.

    Without a decoder they are what they are. `start` is what the decoder reads before them;
    `streams` says that further compressed streams may follow the first, as in gzip, bzip2 and xz.
    """

    def __init__(
        self,
        file: IO[bytes],
        length: int,
        decoder: Callable[[], Decoder] | None,
        budget: Budget,
        *,
        start: bytes = b"",
        streams: bool = False,
    ) -> None:
        super().__init__()
        self._file = file
        self._left = length
        self._decoder = decoder and decoder()
        self._budget = budget
        self._input = start
        self._streams = streams
        self._full = False  # the last piece was, so the decoder may hold more
        self._piece = memoryview(b"")
        self._at = 0

    def tell(self) -> int:
        """How many bytes have been read or passed over."""
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Pass over what lies before. Raises OSError where that would be backwards."""
        if whence != io.SEEK_SET or offset < self._at:
            raise OSError("only forwards")
        self._budget.check(offset)
        if self._decoder is None and offset - self._at > len(self._piece):
            skipped = min(offset - self._at - len(self._piece), self._left)
            self._file.seek(skipped, io.SEEK_CUR)
            self._left -= skipped
            self._at += skipped + len(self._piece)
            self._piece = memoryview(b"")
            return self._at
        while self._at < offset and self._fill():
            self._take(offset - self._at)
        return self._at

    def read(self, size: int = -1) -> bytes:
        """So many bytes, fewer only at the end. Raises EOFError, and what decoders raise."""
        if size < 0:
            raise OSError("only in bounded pieces")
        whole = io.BytesIO()
        while size and self._fill():
            size -= whole.write(self._take(size))
        return whole.getvalue()

    def _take(self, most: int) -> memoryview:
        taken, self._piece = self._piece[:most], self._piece[most:]
        self._at += len(taken)
        return taken

    def _fill(self) -> bool:
        """Whether there is anything to take."""
        while not self._piece:
            piece = self._raw(PIECE) if self._decoder is None else self._decoded(self._decoder)
            if piece is None:
                return False
            self._budget.spend(len(piece))
            self._piece = memoryview(piece)
        return True

    def _decoded(self, decoder: Decoder) -> bytes | None:
        """The next piece, perhaps of no bytes; None at the end."""
        if decoder.eof:
            self._decoder = self._next(decoder.unused_data)
            return None if self._decoder is None else b""
        data = b""
        if not self._full:
            data, self._input = self._input or self._raw(READ) or b"", b""
            if not data:
                raise EOFError("the archive ends in the middle of a compressed stream")
        piece = decoder.decompress(data, PIECE)
        self._full = len(piece) == PIECE
        return piece

    def _next(self, rest: bytes) -> Decoder | None:
        """The decoder of the stream that follows, perhaps after zeros that fill a block."""
        self._full = False
        while self._streams:
            rest = rest.lstrip(b"\0")
            more = self._raw(READ) if len(rest) < MAGIC else None
            if more is None:
                make = decoder_of(rest)
                self._input = rest
                return make and make()
            rest += more
        return None

    def _raw(self, most: int) -> bytes | None:
        data = self._file.read(min(most, self._left))
        self._left -= len(data)
        return data or None
