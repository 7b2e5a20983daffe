"""Vectors kept in a file by the digest of what they are of, so that work goes on where it ended.

Knows nothing of pictures or models. A record is written at once and has a checksum: whoever is
killed loses what was not finished, and damage costs the damaged records alone.
"""

import fcntl
import os
import struct
import zlib
from pathlib import Path
from typing import Final

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float32]

# raised when files written so far can no longer be read
MAGIC: Final = b"OVROWS1\n"
HEAD: Final = struct.Struct("<8sI")
DIGEST: Final = 32
CHECK: Final = struct.Struct("<I")

# records read at once
BLOCK: Final = 4_096


class RowFile:
    """Rows (D,) float32 by 32-byte digests; several processes may use one file.

    Raises OSError where the file cannot be used, and from `put` where it cannot be written.
    """

    def __init__(self, path: Path, width: int) -> None:
        self._width = width
        self._record = DIGEST + 4 * width + CHECK.size
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        try:
            self._begin()
            self._rows = self._read()
        except BaseException:
            os.close(self._file)
            raise

    def __len__(self) -> int:
        return len(self._rows)

    def get(self, digest: bytes) -> Floats | None:
        """The row, if it is known."""
        return self._rows.get(digest)

    def put(self, digest: bytes, row: Floats) -> None:
        """Keep a row."""
        body = digest + row.astype("<f4").tobytes()
        self._locked_append(body + CHECK.pack(zlib.crc32(body)))
        self._rows[digest] = row

    def close(self) -> None:
        """No more rows."""
        os.close(self._file)

    def _begin(self) -> None:
        """A new file, or one of another kind or width, begins empty."""
        head = HEAD.pack(MAGIC, self._width)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            if os.pread(self._file, HEAD.size, 0) != head:
                os.ftruncate(self._file, 0)
                os.write(self._file, head)
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def _locked_append(self, record: bytes) -> None:
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            # half a record at the end is of somebody who was killed
            size = os.fstat(self._file).st_size
            extra = (size - HEAD.size) % self._record
            if extra:
                os.ftruncate(self._file, size - extra)
            os.write(self._file, record)
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)

    def _read(self) -> dict[bytes, Floats]:
        found: dict[bytes, Floats] = {}
        at = HEAD.size
        while block := os.pread(self._file, BLOCK * self._record, at):
            whole = len(block) - len(block) % self._record
            if not whole:
                break
            for start in range(0, whole, self._record):
                record = block[start : start + self._record]
                body, check = record[: -CHECK.size], record[-CHECK.size :]
                if CHECK.unpack(check)[0] == zlib.crc32(body):
                    row = np.frombuffer(body, "<f4", offset=DIGEST).astype(np.float32)
                    found[body[:DIGEST]] = row
            at += whole
        return found
