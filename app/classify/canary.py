"""A picture with a known result, checked at intervals. Knows neither HTTP nor stores."""

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import numpy as np

from app.classify.concept import Concept
from app.classify.ensemble import Ensemble
from app.errors import NotReady
from app.images.decode import decode
from app.images.limits import ImageLimits
from models.info import Floats, Pixels

if TYPE_CHECKING:
    from models.info import AnyEncoder


PICTURE: Final = Path(__file__).with_name("canary.png")
LABELS: Final = ("a heart", "a cat", "an airplane", "a tree")

# a cosine moves by less than this between batches of different sizes, in bf16 too
TOLERANCE: Final = 0.02

# to wait for an answer: behind large batches of a slow model more than that
SECONDS: Final = 5.0
PIECES: Final = 3

# seconds between two checks without a probe: nobody may be requesting /readyz
EVERY: Final = 30.0

# seconds that a result is kept: anyone may request it, and each check is a forward pass
KEPT: Final = 1.0


@dataclass(frozen=True, slots=True)
class _Known:
    pixels: Pixels
    rows: Floats  # (4, D) the labels
    cosines: Floats  # (4,)


class Canary:
    """Scores a stored picture against stored labels and compares with what it was at the start."""

    def __init__(self, encoder: "AnyEncoder", clock: Callable[[], float] = time.monotonic) -> None:
        self._encoder = encoder
        self._clock = clock
        self._known: _Known | None = None
        self._looked = -KEPT
        self._problem: NotReady | None = None
        self._looking: asyncio.Task[NotReady | None] | None = None
        self.good_at: float | None = None  # when the model last answered as it should

    async def learn(self, ensemble: Ensemble) -> None:
        """Score it once, and keep that. Raises what decoding and encoding raise."""
        # not by the service's decoder, whose limits are for others' pictures
        decoded = await asyncio.to_thread(
            decode, PICTURE.read_bytes(), self._encoder.info.image, ImageLimits()
        )
        pixels = decoded.pixels
        vectors = await ensemble.vectors(
            [Concept((label,), ("a picture of {}.",)) for label in LABELS]
        )
        vector = await self._encode(pixels)
        self._known = _Known(pixels, vectors.rows, vectors.rows @ vector)
        self.good_at = self._clock()

    @property
    def good(self) -> bool:
        """Whether the last check passed."""
        return self._known is not None and self._problem is None

    async def keep_looking(self) -> None:
        """Check at intervals, for readers of `good`; never returns."""
        while True:
            await asyncio.sleep(EVERY)
            with contextlib.suppress(NotReady):
                await self.check()

    async def check(self) -> None:
        """Nothing if the model answers as it did.

        Raises:
            NotReady: it does not answer in time, not with numbers, or differently.
        """
        if self._looking is None and self._clock() - self._looked >= KEPT:
            self._looking = asyncio.create_task(self._look())
        if self._looking is not None:
            # concurrent callers share one check, and one that leaves does not cancel it
            await asyncio.shield(self._looking)
        if self._problem is not None:
            raise self._problem

    async def _look(self) -> None:
        try:
            self._problem = await self._compare()
        finally:
            self._looked, self._looking = self._clock(), None
            if self._problem is None:
                self.good_at = self._looked

    async def _compare(self) -> NotReady | None:
        known = self._known
        if known is None:
            return NotReady("the model has not been checked yet", retry_after=1)
        try:
            async with asyncio.timeout(max(SECONDS, PIECES * self._encoder.slowest)):
                vector = await self._encode(known.pixels)
        except Exception:
            return NotReady("the model does not respond", retry_after=1)
        cosines = known.rows @ vector
        if not np.isfinite(cosines).all():
            return NotReady("the model returns numbers that are not finite", retry_after=1)
        off = float(np.abs(cosines - known.cosines).max())
        if off > TOLERANCE:
            detail = "the model answers differently than at the start"
            return NotReady(detail, limit=TOLERANCE, value=round(off, 4), retry_after=1)
        return None

    async def _encode(self, pixels: Pixels) -> Floats:
        # past the queue of pictures: a busy model is no broken one
        rows = await asyncio.wrap_future(self._encoder.submit_images([pixels]))
        return np.asarray(rows[0], np.float32)
