"""Texts or image files to unit rows: what a classification does before it scores.

Does not know what the rows are compared with.
"""

import asyncio
import hashlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from app.classify.batching import Batcher
from app.classify.concept import Concept
from app.classify.ensemble import Ensemble, Fitted
from app.classify.query import Image
from app.classify.templates import BARE
from app.classify.tenancy import own
from app.classify.truncation import Cut as TextCut
from app.classify.truncation import TextTooLong, advised
from app.errors import Internal, Problem, UnknownImage, each_of
from app.images.decode import Decoder
from app.images.notes import COUNT, Notes, bordered, cropped
from app.images.views import WHOLE, Cut, Look, View
from app.stores.lru import ByteLru
from app.telemetry.spans import Stages
from models.info import Floats, ImageSpec, Pixels

if TYPE_CHECKING:
    from models.info import AnyEncoder

log = logging.getLogger("openvocab")


# beyond this many bytes a picture is digested in a thread, so that other requests do not wait
LARGE: Final = 1_000_000


@dataclass(frozen=True, slots=True)
class Embedded:
    """What is kept of a picture, with its size as a viewer shows it.

    `vector` float32: the unit row (D,) of a picture, or the unit rows of all views end to end
    (V·D,).
    """

    vector: Floats
    width: int
    height: int
    notes: Notes = field(default_factory=Notes)


@dataclass(frozen=True, slots=True)
class SeenBefore:
    """A picture that is not sent again: the SHA-256 of its file, as hexadecimal digits."""

    sha256: str


@dataclass(frozen=True, slots=True)
class EmbeddedRegion:
    """A part of a picture and its unit rows (V, D): of several views the best one counts."""

    area: Cut
    rows: Floats


def pooled(rows: Floats, view: View) -> Floats:
    """Unit rows (V, D) of one region's views -> what labels are compared with.

    The mean of `tiles-mean` is one row, of unit length; else each row is kept.
    """
    if view != "tiles-mean":
        return rows
    mean = rows.mean(axis=0, keepdims=True, dtype=np.float32)
    return np.asarray(mean / np.linalg.norm(mean), np.float32)


class ImageCache:
    """By SHA-256 of the file, how it is looked at, and the encoder's fingerprint.

    Nothing of the picture itself is kept.

    The size in pixels and the notes are kept behind the vector's numbers: float32 holds whole
    numbers to 2^24, far beyond any edge a picture can have.
    """

    def __init__(self, memory: ByteLru, fingerprint: str) -> None:
        self.memory = memory
        self._fingerprint = fingerprint

    def get(self, sha256: str, look: Look = WHOLE) -> Embedded | None:
        """What is cached for this file and look, or None."""
        stored = self.memory.get(self._key(sha256, look)) if self.memory.max_bytes else None
        if stored is None:
            return None
        vector, (width, height), notes = np.split(stored, [-COUNT - 2, -COUNT])
        return Embedded(vector, int(width), int(height), Notes.of_numbers(notes))

    def put(self, sha256: str, embedded: Embedded, look: Look = WHOLE) -> None:
        """Keep it for as long as there is room."""
        size = np.array([embedded.width, embedded.height], np.float32)
        kept = [embedded.vector, size, embedded.notes.numbers()]
        self.memory.put(self._key(sha256, look), np.concatenate(kept))

    def unknown(self, sha256: str, look: Look = WHOLE) -> UnknownImage:
        """The problem of a digest of which nothing is known for this look."""
        if not self.memory.max_bytes:
            detail = (
                "the image cache is disabled (OPENVOCAB_IMAGE_CACHE_BYTES is 0); send the picture"
            )
        elif look.plain or self.memory.get(self._key(sha256, WHOLE)) is None:
            detail = "no picture with this SHA-256 is in the cache; send the picture"
        else:
            detail = (
                "this picture is in the cache, but not with this view, boxes and background; "
                "send the picture"
            )
        return UnknownImage(detail, field="image_sha256", value=sha256)

    def _key(self, sha256: str, look: Look) -> str:
        return f"{own(self._fingerprint)}{sha256}{'' if look.plain else look}"


async def digest(data: bytes) -> str:
    """SHA-256 of a file as hexadecimal digits."""
    if len(data) < LARGE:
        return hashlib.sha256(data).hexdigest()
    return (await asyncio.to_thread(hashlib.sha256, data)).hexdigest()


# images of one request on their way at once: enough to fill batches, too few to keep others waiting
AT_ONCE: Final = 16


async def of_texts(
    ensemble: Ensemble,
    texts: Sequence[str],
    stages: Stages,
    templates: tuple[str, ...] = BARE,
    *,
    truncate: bool,
) -> Fitted:
    """A row (D,) for each text, or for the ensemble of each in these templates; kept like labels.

    `truncate`: texts that are longer than the model reads are cut. Raises what the ensemble raises.
    """
    concepts = [Concept((text,), templates) for text in texts]
    with stages.stage("text"):
        if truncate:
            return await ensemble.read(concepts, truncate=True)
        try:
            return Fitted(await ensemble.vectors(concepts), concepts, {}, {})
        except TextTooLong as problem:
            raise advised(problem) from None


def encode_images(
    encoder: "AnyEncoder", encoded: Callable[[int, float], None] = lambda _count, _seconds: None
) -> Callable[[Sequence[Pixels]], Awaitable[Sequence[Floats]]]:
    """What the batcher runs: a batch of pixels to one row each; calls `encoded` for each batch."""

    async def run(batch: Sequence[Pixels]) -> Sequence[Floats]:
        begun = time.perf_counter()
        rows = await asyncio.wrap_future(encoder.submit_images(batch))
        encoded(len(batch), time.perf_counter() - begun)
        if not np.isfinite(rows).all():
            log.error("the model returned numbers that are not finite")
            raise Internal("the model returned numbers that are not finite")
        return list(rows)

    return run


@dataclass(frozen=True, slots=True)
class ImageEmbedder:
    """The one way from an image file to its unit row: known, or decoded, batched and encoded."""

    decoder: Decoder
    batcher: Batcher[Pixels, Floats]
    cache: ImageCache

    async def embed(self, data: bytes, stages: Stages) -> tuple[Image, Floats]:
        """An image file to what it is and its unit row (D,) float32.

        Raises: what decoding and batching raise.
        """
        return await self._embed(data, WHOLE, stages)

    async def embed_regions(
        self, data: bytes | SeenBefore, look: Look, stages: Stages
    ) -> tuple[Image, list[EmbeddedRegion]]:
        """The rows of each region of a picture in this look, a row for each of its cuts.

        Raises: what `embed` raises; Invalid for a box outside of the picture; UnknownImage.
        """
        image, vector = await self._embed(data, look, stages)
        regions = look.regions(image.width, image.height)
        each = vector.reshape(sum(len(region.cuts) for region in regions), -1)
        regions_seen, start = [], 0
        for region in regions:
            end = start + len(region.cuts)
            regions_seen.append(EmbeddedRegion(region.area, pooled(each[start:end], look.view)))
            start = end
        return image, regions_seen

    async def _embed(
        self, data: bytes | SeenBefore, look: Look, stages: Stages
    ) -> tuple[Image, Floats]:
        """What a picture is, and the unit rows of all views of it, end to end (V·D,)."""
        sha256 = data.sha256 if isinstance(data, SeenBefore) else await digest(data)
        known = self.cache.get(sha256, look)
        if known is not None:
            return _described(known, sha256, cached=True), known.vector
        if isinstance(data, SeenBefore):
            raise self.cache.unknown(sha256, look)
        with stages.stage("decode"):
            decoded = await self.decoder.decode(data, look)
        rows = await self.encode([cut for views in decoded.views for cut in views], stages)
        embedded = Embedded(rows.ravel(), decoded.width, decoded.height, decoded.notes)
        self.cache.put(sha256, embedded, look)
        return _described(embedded, sha256, cached=False), embedded.vector

    async def encode(self, pictures: Sequence[Pixels], stages: Stages) -> Floats:
        """Pixels (3, H, W) each -> unit rows (N, D), some at a time: others want their turn.

        Raises what batching raises.
        """
        rows: list[Floats] = []
        for start in range(0, len(pictures), AT_ONCE):
            some = pictures[start : start + AT_ONCE]
            if len(some) == 1:  # as most are: a task for it takes as long as all the rest here
                ran = [await self.batcher.submit(some[0])]
            else:
                ran = await asyncio.gather(*map(self.batcher.submit, some))
            stages.ran(
                max(batch.waited for batch in ran),
                max(batch.ran for batch in ran),
                ran[0].size,
                ran[0].span,
            )
            rows += [batch.value for batch in ran]
        return np.stack(rows)

    async def embed_all(self, files: Sequence[bytes], stages: Stages) -> list[tuple[Image, Floats]]:
        """As `embed`, for each file, in order.

        Raises: what `embed` raises for the first file that is wrong, with its place if it is one
        of many.
        """
        room = asyncio.Semaphore(AT_ONCE)

        async def embed(place: int, data: bytes) -> tuple[Image, Floats]:
            async with room:
                try:
                    return await self.embed(data, stages)
                except Problem as problem:
                    if len(files) == 1:
                        raise
                    raise problem.placed(f"image {place} of {len(files)}") from None

        return await each_of(embed(place, data) for place, data in enumerate(files, start=1))


def _described(embedded: Embedded, sha256: str, *, cached: bool) -> Image:
    return Image(embedded.width, embedded.height, sha256, cached, embedded.notes.noticed())


def facts(image: Image, spec: ImageSpec) -> list[str]:
    """What had to be guessed, or is not seen, of an image that was embedded whole."""
    whole = Cut(0, 0, image.width, image.height)
    return [each.fact for each in (*image.noticed, *cropped(whole, spec), *bordered(whole, spec))]


def rows_of(embedded: Sequence[tuple[Image, Floats]]) -> Floats:
    """The rows (N, D) of images that were embedded, one at least."""
    return np.stack([row for _, row in embedded])


@dataclass(frozen=True, slots=True)
class EmbeddedItems:
    """`rows` (N, D) of texts and images; the images, and what was `cut` of texts, in order."""

    rows: Floats
    images: tuple[Image, ...]
    cut: tuple[TextCut, ...]


async def of_items(
    ensemble: Ensemble,
    embedder: ImageEmbedder,
    items: Sequence[str | bytes],
    stages: Stages,
    *,
    truncate: bool,
) -> EmbeddedItems:
    """Texts (str) and image files (bytes) in any order -> their rows (N, D) in the same order.

    Raises what `of_texts` and `embed_all` raise.
    """
    texts = [item for item in items if isinstance(item, str)]
    files = [item for item in items if isinstance(item, bytes)]
    # texts first: what is wrong with them is found before any image has cost anything
    fitted = await of_texts(ensemble, texts, stages, truncate=truncate) if texts else None
    embedded = await embedder.embed_all(files, stages)
    of_text = iter(fitted.vectors.rows if fitted else ())
    of_file = iter(row for _, row in embedded)
    rows = np.stack([next(of_text if isinstance(item, str) else of_file) for item in items])
    images = tuple(image for image, _ in embedded)
    return EmbeddedItems(rows, images, fitted.cuts if fitted else ())
