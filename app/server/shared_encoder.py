"""An encoder that several services share: batches over all callers, a canary, a watchdog.

Knows neither HTTP nor how calls arrive.
"""

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Final

import numpy as np

from app.classify.batching import Batcher, BatchPolicy
from app.classify.canary import Canary
from app.classify.embedding import encode_images
from app.classify.ensemble import Ensemble
from app.errors import Internal, Problem
from app.server.build import load_encoder
from app.server.gauges import watch_device, watch_process
from app.server.settings import Settings
from app.server.watchdog import Heartbeat, Watchdog
from app.stores.lru import ByteLru
from app.stores.memory import MemoryStore
from app.stores.vectors import TwoLevels
from app.telemetry.metrics import Metrics
from models import EncoderClosed, EncoderInfo, PromptTooLong
from models.info import Floats, Pixels

if TYPE_CHECKING:
    from models.encoder import Encoder


# errors passed to the caller unchanged: it can act on them
TOLD: Final = (Problem, PromptTooLong, EncoderClosed)

# for the canary's four vectors
CANARY_BYTES: Final = 1_000_000

# callers are bounded where they are; who came so far is not sent away
NO_LIMIT: Final = 1_000_000_000


class OtherModel(Exception):
    """The caller uses another model than this encoder: its vectors would be meaningless."""


class SharedEncoder:
    """Encodes for many callers, whose pictures meet in common batches, in order of arrival.

    `metrics` has how large the batches were, how many pictures wait, and what the process uses.
    """

    def __init__(self, encoder: "Encoder", settings: Settings) -> None:
        info = encoder.info
        self._encoder = encoder
        self._settings = settings
        self.metrics = Metrics()
        run = encode_images(encoder, partial(self.metrics.encoded, "image", info.name))
        self._batcher = batcher = Batcher(
            run, BatchPolicy(settings.max_batch, NO_LIMIT, info.in_flight)
        )
        self.metrics.watch(
            "openvocab_queued_images",
            "Images waiting for a forward pass.",
            lambda: {(info.name,): batcher.queued},
            "model",
        )
        watch_process(self.metrics, settings, first=False)
        watch_device(self.metrics, encoder, lambda: [encoder])
        self._canary = Canary(encoder)
        loop = asyncio.get_running_loop()
        work = {
            "the model": lambda: encoder.busy_since,
            "the event loop": Heartbeat(loop).busy_since,
        }
        self._watchdog = Watchdog(settings.hang_timeout, work)

    @classmethod
    async def load(cls, settings: Settings) -> "SharedEncoder":
        """Load the model named by the settings, and try it once. Raises models.ModelError."""
        shared = cls(await asyncio.to_thread(load_encoder, settings), settings)
        width = shared._encoder.info.embedding_width
        vectors = TwoLevels(ByteLru(CANARY_BYTES), MemoryStore().vectors, width)
        await shared._canary.learn(Ensemble(shared._encoder, vectors, settings.max_text_queue))
        return shared

    def describe(self, model: str, precision: str) -> EncoderInfo:
        """What the encoder is. Raises OtherModel if that is not what the caller asks for."""
        info = self._encoder.info
        if info.name != model or precision not in ("auto", self._settings.precision):
            raise OtherModel(f"{model} in {precision} was asked for; this is {info.name}")
        return info

    async def images(self, fingerprint: str, pixels: Pixels) -> tuple[Floats, float]:
        """`pixels` (B, 3, H, W) -> unit rows (B, D), and the seconds of the slowest piece so far.

        Raises OtherModel, EncoderClosed, Internal.
        """
        self._check(fingerprint)
        try:
            ran = await asyncio.gather(*(self._batcher.submit(picture) for picture in pixels))
        except Exception as error:
            raise _portable(error) from error
        return np.stack([batch.value for batch in ran]), self._encoder.slowest

    async def texts(self, fingerprint: str, prompts: list[str]) -> Floats:
        """N prompts -> unit rows (N, D). Raises OtherModel, PromptTooLong, EncoderClosed, Internal.

        Pictures go between any two pieces of it.
        """
        self._check(fingerprint)
        try:
            return await asyncio.wrap_future(self._encoder.submit_texts(prompts))
        except Exception as error:
            raise _portable(error) from error

    async def check(self) -> None:
        """Nothing if the model answers as it did at the start. Raises NotReady."""
        await self._canary.check()

    async def close(self) -> None:
        """Finish accepted work, and end the encoder's thread."""
        await self._batcher.drain()
        self._watchdog.close()
        await asyncio.to_thread(self._encoder.close)

    def _check(self, fingerprint: str) -> None:
        if fingerprint != self._encoder.info.fingerprint:
            raise OtherModel(f"this encoder has {self._encoder.info.name} by another fingerprint")


def _portable(error: Exception) -> Exception:
    """The error as it leaves this process: what torch raises cannot be read where torch is not."""
    return error if isinstance(error, TOLD) else Internal("the encoder failed")
