"""An encoder in other processes, reached through a handle of Ray Serve. Knows no model and no HTTP.

Encoding changes nothing, so a call that was lost is made again.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, Final, TypeVar, cast

import numpy as np
from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import BackPressureError, RayServeException
from ray.serve.handle import DeploymentHandle

from app.errors import Internal, NotReady, Overloaded, Problem
from app.server.shared_encoder import OtherModel
from models import EncoderClosed, EncoderInfo, PromptTooLong
from models.info import Floats, Pixels

T = TypeVar("T")

log = logging.getLogger("openvocab.remote")

# pictures of a call and calls under way: small ones spread over the encoders, which put them
# together again; many of them keep several encoders in full batches
CALL_IMAGES: Final = 8
CALLS: Final = 64

# encoders that one call may see die: a picture that ends whatever touches it must not end them all
DEATHS: Final = 3

# seconds between two attempts
PAUSES: Final = (0.05, 0.1, 0.2, 0.5, 1.0)

# seconds between two looks for an encoder with the model, at the start
LOOK: Final = 0.5


class RemoteEncoder:
    """Takes work as models.encoder.Encoder does, and hands it to one of many encoders.

    Images wait `seconds` at most, the time of a request. For the event loop that it is made in.
    """

    def __init__(self, info: EncoderInfo, handle: DeploymentHandle[Any], seconds: float) -> None:
        # for the batcher: so many calls at once
        self.info = replace(info, in_flight=CALLS)
        self._handle = handle
        self._seconds = seconds
        self._loop = asyncio.get_running_loop()
        self._slowest = 0.0

    @classmethod
    async def find(
        cls, handle: DeploymentHandle[Any], model: str, precision: str, seconds: float
    ) -> "RemoteEncoder":
        """Wait for an encoder that has the model; while one is replaced, others may answer."""
        while True:
            try:
                info = await handle.describe.remote(model, precision)
                return cls(cast("EncoderInfo", info), handle, seconds)
            except RayTaskError as error:
                if not isinstance(error.cause, OtherModel):
                    raise
                log.info("no encoder serves %s yet: %s", model, error.cause)
            except RayError as error:
                log.info("an encoder was lost while describing itself: %s", _line(error))
            await asyncio.sleep(LOOK)

    def submit_images(self, images: Sequence[Pixels]) -> Future[Floats]:
        """As models.encoder.Encoder has it.

        Raises through the future: NotReady, if no encoder answers within the time of a request.
        """
        return asyncio.run_coroutine_threadsafe(self._images(np.stack(images)), self._loop)

    def submit_texts(self, prompts: Sequence[str]) -> Future[Floats]:
        """As models.encoder.Encoder has it; waits as long as no encoder is available."""
        return asyncio.run_coroutine_threadsafe(self._texts(list(prompts)), self._loop)

    @property
    def busy_since(self) -> float | None:
        """None: what hangs elsewhere is watched there."""
        return None

    @property
    def slowest(self) -> float:
        """Seconds that the longest piece of work so far took, in the encoders that answered."""
        return self._slowest

    def close(self) -> None:
        """Nothing: the encoders are others' too."""

    async def _images(self, pixels: Pixels) -> Floats:
        fingerprint = self.info.fingerprint
        try:
            async with asyncio.timeout(self._seconds):
                rows, slowest = await self._call(
                    lambda: self._handle.images.remote(fingerprint, pixels)
                )
        except TimeoutError:
            detail = f"no encoder answered within {self._seconds:g} seconds"
            raise NotReady(detail, limit=self._seconds, retry_after=1) from None
        self._slowest = max(self._slowest, slowest)
        return cast("Floats", rows)

    async def _texts(self, prompts: list[str]) -> Floats:
        fingerprint = self.info.fingerprint
        return cast(
            "Floats", await self._call(lambda: self._handle.texts.remote(fingerprint, prompts))
        )

    async def _call(self, ask: Callable[[], Any]) -> Any:
        """The answer of one encoder, or of another one if that is lost."""
        deaths = attempts = 0
        while True:
            try:
                return await ask()
            except RayTaskError as error:
                cause = error.cause
                if isinstance(cause, Problem | PromptTooLong):
                    raise cause from None
                if not isinstance(cause, OtherModel | EncoderClosed):
                    log.error("an encoder failed: %s", error)
                    raise Internal("an encoder failed") from error
                why: Exception = cause
            except BackPressureError as error:
                raise Overloaded("all encoders are busy", retry_after=1) from error
            except RayServeException as error:
                raise NotReady("no encoder is available", retry_after=1) from error
            except RayError as error:
                deaths += 1
                if deaths >= DEATHS:
                    log.error("a call failed on %d encoders: %s", deaths, _line(error))
                    raise NotReady("the encoders were lost", retry_after=1) from error
                why = error
            if not attempts:
                log.warning("retrying a call on another encoder: %s", _line(why))
            await asyncio.sleep(PAUSES[min(attempts, len(PAUSES) - 1)])
            attempts += 1


def _line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0] if lines else ''}"
