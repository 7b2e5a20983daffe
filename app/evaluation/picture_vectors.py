"""Each picture to its vector, once, by a service: here or elsewhere. Knows no labels, no scores.

What is encoded is kept in a file, so that a command that ended goes on where it was.
"""

import asyncio
import base64
import contextlib
import hashlib
import os
import struct
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import httpx2
import numpy as np

from app.cli.client import Client
from app.cli.files import read, reason
from app.cli.terminal import Ended, aside, say
from app.evaluation.data import Dataset, Encoded, ModelInfo, Unread
from app.server.exit_status import SERVER_ERROR
from models.info import Floats
from models.open_files import lock, read_at, unlock

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
        binary = getattr(os, "O_BINARY", 0)  # what Windows would take for lines else
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | binary, 0o644)
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
        with _locked(self._file):
            # half a record at the end is of somebody who was killed
            size = os.fstat(self._file).st_size
            extra = (size - HEAD.size) % self._record
            if extra:
                os.ftruncate(self._file, size - extra)
            os.write(self._file, body + CHECK.pack(zlib.crc32(body)))
        self._rows[digest] = row

    def close(self) -> None:
        """No more rows."""
        os.close(self._file)

    def _begin(self) -> None:
        """A new file, or one of another kind or width, begins empty."""
        head = HEAD.pack(MAGIC, self._width)
        with _locked(self._file):
            if read_at(self._file, HEAD.size, 0) != head:
                os.ftruncate(self._file, 0)
                os.write(self._file, head)

    def _read(self) -> dict[bytes, Floats]:
        rows: dict[bytes, Floats] = {}
        at = HEAD.size
        while block := read_at(self._file, BLOCK * self._record, at):
            whole = len(block) - len(block) % self._record
            if not whole:
                break
            for start in range(0, whole, self._record):
                record = block[start : start + self._record]
                body, check = record[: -CHECK.size], record[-CHECK.size :]
                if CHECK.unpack(check)[0] == zlib.crc32(body):
                    row = np.frombuffer(body, "<f4", offset=DIGEST).astype(np.float32)
                    rows[body[:DIGEST]] = row
            at += whole
        return rows


@contextlib.contextmanager
def _locked(file: int) -> Iterator[None]:
    """Among all processes that use a file."""
    lock(file)
    try:
        yield
    finally:
        unlock(file)


# problems that are not of one picture
EVERYBODYS: Final = frozenset({401, 403, 404, 405, 421, 429, 502, 503, 504})


@dataclass(slots=True)
class Progress:
    """How far it is: pictures `done` of `count`, those `encoded` now, those known before."""

    count: int
    done: int = 0
    encoded: int = 0
    known: int = 0


@dataclass(frozen=True, slots=True)
class EncodedPictures:
    """An encoded dataset, and the digest (sha256, hex) of each of its pictures.

    Of pictures with the same bytes and the same labels only the first is there: further ones say
    nothing new, and of two halves or folds each would know the other. `copies` has their files, by
    the place of that first one.
    """

    encoded: Encoded
    digests: tuple[str, ...]
    copies: Mapping[int, Sequence[Path]]

    @property
    def conflicts(self) -> list[tuple[int, ...]]:
        """Places of pictures with the same bytes and other labels, group by group."""
        groups: dict[str, list[int]] = defaultdict(list)
        for place, digest in enumerate(self.digests):
            groups[digest].append(place)
        return [tuple(places) for places in groups.values() if len(places) > 1]

    def once(self) -> Encoded:
        """Each picture once; of one that is labelled in two ways the first label counts."""
        _, places = np.unique(self.digests, return_index=True)
        if len(places) == len(self.digests):
            return self.encoded
        return self.encoded.subset(np.sort(places))


@dataclass(slots=True)
class Encoding:
    """Encodes `jobs` pictures at once, each of `limit` bytes at most; keeps rows in `kept`."""

    client: Client
    info: ModelInfo
    jobs: int
    limit: int
    kept: RowFile | None = None
    _flights: dict[bytes, asyncio.Future[Floats | str]] = field(default_factory=dict)

    async def run(
        self, dataset: Dataset, progress: Progress, show: Callable[[], None]
    ) -> EncodedPictures:
        """All pictures of the dataset; `show` is called after each. Raises Ended."""
        places = asyncio.Semaphore(self.jobs)
        results: list[tuple[bytes, Floats] | str] = [""] * len(dataset.files)

        async def encode(place: int, file: Path) -> None:
            try:
                results[place] = await self._encode_file(file, progress)
            finally:
                places.release()
            progress.done += 1
            show()

        try:
            async with asyncio.TaskGroup() as group:
                for place, file in enumerate(dataset.files):
                    await places.acquire()
                    group.create_task(encode(place, file))
        except BaseExceptionGroup as raised:
            raise raised.exceptions[0] from None
        return _put_together(dataset, results, self.info)

    async def _encode_file(self, file: Path, progress: Progress) -> tuple[bytes, Floats] | str:
        """Digest and row, or why there is none."""
        try:
            data = await aside(partial(read, str(file), self.limit))
        except OSError as error:
            return reason(error)
        except ValueError as error:
            return str(error)
        digest = hashlib.sha256(data).digest()
        row = self.kept.get(digest) if self.kept is not None else None
        if row is not None and digest not in self._flights:
            progress.known += 1
            return digest, row
        result = await self._once(digest, data, progress)
        return result if isinstance(result, str) else (digest, result)

    async def _once(self, digest: bytes, data: bytes, progress: Progress) -> Floats | str:
        """Equal pictures are sent once; the second waits for the first."""
        flight = self._flights.get(digest)
        if flight is not None:
            return await asyncio.shield(flight)
        flight = self._flights[digest] = asyncio.get_running_loop().create_future()
        try:
            result = await self._request_row(data)
        except BaseException:
            flight.cancel()
            raise
        if not isinstance(result, str):
            progress.encoded += 1
            self._keep(digest, result)
        flight.set_result(result)
        return result

    def _keep(self, digest: bytes, row: Floats) -> None:
        if self.kept is None:
            return
        try:
            self.kept.put(digest, row)
        except OSError as error:
            self.kept = None  # a full disk ends no evaluation
            say(f"further embeddings cannot be cached: {reason(error)}")

    async def _request_row(self, data: bytes) -> Floats | str:
        part = {"image": ("image", data, "application/octet-stream")}
        path, fields = "/embeddings/image", {"encoding_format": "base64"}
        try:
            response = await self.client.request("POST", path, data=fields, files=part)
        except httpx2.TransportError as error:
            raise self.client.away(error) from None
        if response.status_code == 200:
            answer = self.client.content(response)
            same_model(answer, self.info)
            return np.asarray(rows_from(answer, self.info.width)[0], np.float32)
        return why_not(self.client.problem(response))


def why_not(problem: Mapping[str, Any]) -> str:
    """What is wrong with one picture. Raises Ended for what every request will meet."""
    if problem["status"] in EVERYBODYS:
        raise Ended(SERVER_ERROR, str(problem["detail"]))
    return str(problem["detail"])


def same_model(answer: Mapping[str, Any], info: ModelInfo) -> None:
    """Raises Ended where rows come from another model than those before."""
    if answer["fingerprint"] != info.fingerprint:
        line = f"the server changed its model while it was asked: {info.name} is {answer['model']}"
        raise Ended(SERVER_ERROR, f"{line} now, or has another precision; start again")


def rows_from(answer: Mapping[str, Any], width: int) -> Floats:
    """The rows (M, D) of an answer of /embeddings with encoding_format=base64."""
    data = b"".join(base64.b64decode(row) for row in answer["embeddings"])
    return np.frombuffer(data, "<f4").astype(np.float32).reshape(-1, width)


def _put_together(
    dataset: Dataset, results: list[tuple[bytes, Floats] | str], info: ModelInfo
) -> EncodedPictures:
    unread = tuple(
        Unread(dataset.files[place], result)
        for place, result in enumerate(results)
        if isinstance(result, str)
    )
    kept: list[int] = []
    pairs: list[tuple[bytes, Floats]] = []
    copies: defaultdict[int, list[Path]] = defaultdict(list)
    first: dict[tuple[bytes, bytes], int] = {}
    for place, result in enumerate(results):
        if isinstance(result, str):
            continue
        at = first.setdefault((result[0], dataset.truth[place].tobytes()), len(kept))
        if at < len(kept):
            copies[at].append(dataset.files[place])
        else:
            kept.append(place)
            pairs.append(result)
    rows = np.stack([row for _, row in pairs]) if pairs else np.empty((0, info.width), np.float32)
    encoded = Encoded(dataset.subset(np.asarray(kept, np.int64)), rows, unread, info)
    digests = tuple(digest.hex() for digest, _ in pairs)
    return EncodedPictures(encoded, digests, copies)
