"""From the body of an upload to its images, one at a time; and how many uploads there may be.

Knows nothing of what the fields mean.
"""

import asyncio
import contextlib
import logging
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from pathlib import PurePosixPath
from typing import IO, Any, Final

from starlette.requests import ClientDisconnect, Request

from app.api import bodies, multipart
from app.api.bodies import offload
from app.api.fields import IMAGE
from app.api.middleware.keys import Identity
from app.api.middleware.state import state_of
from app.api.multipart import Part
from app.classify.bulk import Item
from app.classify.labels import normal
from app.errors import Invalid, Overloaded, Problem, TooLarge, Unparsable, excerpt, shown
from app.images import archives
from app.labelsets.examples import LABEL

log = logging.getLogger("openvocab.uploads")

IMAGES: Final = "images"
NAME: Final = "name"

# bytes of an archive that are written to its file at once
WRITE: Final = 1_000_000


@dataclass(slots=True)
class UploadBatches:
    """Limits of one upload, and of concurrent uploads; sizes in bytes."""

    images: int
    bytes: int
    image_bytes: int
    at_once: int
    under_way: int = field(default=0, init=False)
    # of archives, each of which may take one for minutes; all else shares the loop's own threads
    threads: ThreadPoolExecutor = field(init=False)
    _own: Counter[str] = field(default_factory=Counter, init=False)  # by the key's name

    def __post_init__(self) -> None:
        self.threads = ThreadPoolExecutor(self.at_once, thread_name_prefix="archive")

    @contextlib.contextmanager
    def one(self, caller: Identity) -> Iterator[None]:
        """Around one upload; no key has more than its share. Raises Overloaded."""
        if self.under_way >= self.at_once:
            detail = f"{self.under_way} uploads are already under way (the limit, max_uploads)"
            raise Overloaded(detail, limit=self.at_once, value=self.under_way + 1, retry_after=5)
        share, own = self._share(caller), self._own[caller.name]
        if own >= share:
            detail = f"{own} uploads of the key {caller.name} are already under way, its limit"
            raise Overloaded(detail, limit=share, value=own + 1, retry_after=5)
        self.under_way += 1
        self._own[caller.name] += 1
        try:
            yield
        finally:
            self.under_way -= 1
            self._own[caller.name] -= 1
            self._own += Counter()  # without the zeros

    def _share(self, caller: Identity) -> int:
        """Half of all, if the key has no limit of its own; without keys there are no shares."""
        if caller.max_uploads is not None:
            return caller.max_uploads
        return self.at_once if caller.anonymous else max(1, self.at_once // 2)


def file_of(part: Part) -> tuple[str, bytes | Problem]:
    """The name and content of an image's part. Raises Invalid for any other."""
    if part.filename is None:
        detail = f"{part.name[:60]} comes after an image; send the fields first"
        raise Invalid(detail, field=part.name[:60])
    if part.name not in (IMAGE, IMAGES):
        raise bodies.not_a_file(part.name, (IMAGE,))
    return part.filename, part.content


def json_images(parsed: dict[str, Any], uploads: UploadBatches) -> list[Any]:
    """The images of a JSON body, as they were sent, taken out of it. Raises Invalid, TooLarge."""
    images = parsed.pop(IMAGES, None)
    if not isinstance(images, list) or not images:
        raise Invalid(f"{IMAGES} is not a list of images", field=IMAGES)
    if len(images) > uploads.images:
        detail = f"{len(images)} images, the limit of max_upload_images is {uploads.images}"
        raise TooLarge(detail, field=IMAGES, limit=uploads.images, value=len(images))
    return images


async def decoded(
    images: list[Any], known: Sequence[str] = (IMAGE, NAME)
) -> AsyncGenerator[tuple[str | None, bytes | Problem], None]:
    """Name and bytes of each: base64, or an object with image and name, of the `known` fields."""
    for number, image in enumerate(images):
        fields = image if isinstance(image, dict) else {IMAGE: image}
        name, text = fields.get(NAME), fields.get(IMAGE)
        unknown = next((key for key in fields if key not in known), None)
        if unknown is not None:
            detail = f"{IMAGES}[{number}] has the unknown field {shown(unknown)}; the fields of an "
            detail += f"image are {', '.join(known)}"
            yield name if isinstance(name, str) else None, Invalid(detail, field=excerpt(unknown))
            continue
        if not isinstance(text, str) or not isinstance(name, str | None):
            detail = f"{IMAGES}[{number}] is neither a text nor an object with image and name"
            yield None, Invalid(detail, field=IMAGES)
            continue
        try:
            yield name, await offload(len(text), bodies.from_base64, text)
        except Problem as problem:
            yield name, problem


async def archived(
    request: Request, uploads: UploadBatches
) -> AsyncGenerator[tuple[str, Any], None]:
    """Name and content of each file in the archive that the body is; see app.images.archives."""
    with _temporary_file() as file:
        in_thread: Callable[..., Awaitable[Any]] = partial(
            asyncio.get_running_loop().run_in_executor, uploads.threads
        )
        if not await _save(request, file, in_thread):
            detail = "send images as form fields, as JSON, or in a ZIP or TAR archive"
            raise Unparsable(f"unrecognised batch body: {detail}")
        limits = archives.ArchiveLimits(uploads.image_bytes, uploads.bytes, uploads.images)
        left = threading.Event()
        entries = archives.entries(file, limits, left.is_set)
        try:
            while (entry := await in_thread(next, entries, None)) is not None:
                yield entry
        finally:
            left.set()  # a thread cannot be cancelled: it looks at this between pieces


async def labelled(
    request: Request, uploads: UploadBatches, tell: Callable[[str | Problem], None]
) -> AsyncGenerator[tuple[str, Any], None]:
    """As `archived`; the folder of each file is passed on first, as its label."""
    async with aclosing(archived(request, uploads)) as files:
        async for name, content in files:
            folder = PurePosixPath(name).parent.name
            tell(normal(folder) or Invalid("it is not in a folder", field=LABEL))
            yield name, content


@contextlib.contextmanager
def _temporary_file() -> Iterator[IO[bytes]]:
    """An unnamed file. Raises Overloaded."""
    try:
        file = tempfile.TemporaryFile()  # noqa: SIM115 - closed below, where it may fail
    except OSError as error:
        raise _no_room(error) from None
    try:
        yield file
    finally:
        with contextlib.suppress(OSError):  # of what a full disk did not take
            file.close()


def _no_room(error: OSError) -> Overloaded:
    """The problem of an archive that cannot be written: most often the disk is full."""
    log.error("an archive cannot be written to a temporary file: %s", error)
    room = ""
    with contextlib.suppress(OSError):
        room = f", where {shutil.disk_usage(tempfile.gettempdir()).free} bytes are free"
    detail = f"the archive does not fit into the folder of temporary files{room}; try again later"
    return Overloaded(detail, retry_after=5)


def _write(file: IO[bytes], data: bytes) -> None:
    """Write it now, not when the file is read. Raises Overloaded."""
    try:
        file.write(data)
        file.flush()
    except OSError as error:
        raise _no_room(error) from None


async def _save(
    request: Request, file: IO[bytes], in_thread: Callable[..., Awaitable[Any]]
) -> bool:
    """Write the body to the file; False if it is no archive, and then it is not.

    Raises Overloaded.
    """
    held = bytearray()
    checked = False
    async for chunk in arriving_body(request):
        held += chunk
        if not checked and len(held) >= 512:
            checked = True
            if not archives.looks_like_archive(bytes(held[:512])):
                return False
        if checked and len(held) >= WRITE:
            await in_thread(_write, file, bytes(held))
            held.clear()
    if not checked and not archives.looks_like_archive(bytes(held)):
        return False
    await in_thread(_write, file, bytes(held))
    return True


async def arriving_body(request: Request) -> AsyncGenerator[bytes, None]:
    """The body as it arrives. Raises Unparsable."""
    try:
        async for chunk in request.stream():
            yield chunk
    except ClientDisconnect:
        raise Unparsable("the client left before the end of the body") from None


def form_parts(request: Request, uploads: UploadBatches) -> AsyncIterator[Part]:
    """The parts of a form as they arrive; its texts count as held. Raises what `parts` raises."""
    return multipart.parts(
        arriving_body(request),
        request.headers["content-type"],
        uploads.image_bytes,
        bodies.LARGEST_TEXT,
        state_of(request.scope).hold,
    )


async def counted(
    pictures: AsyncGenerator[tuple[str | None, Any], None], uploads: UploadBatches
) -> AsyncGenerator[Item, None]:
    """The same as items of a batch. Raises TooLarge for too many."""
    index = 0
    async with contextlib.aclosing(pictures):
        async for name, image in pictures:
            if index >= uploads.images:
                detail = f"over {uploads.images} images, the limit of max_upload_images"
                raise TooLarge(detail, field=IMAGE, limit=uploads.images, value=index + 1)
            yield Item(index, name, image)
            index += 1
