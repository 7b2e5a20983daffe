"""An encoder that several services share: whose calls it takes, and what it tells of a failure."""

import asyncio
import pickle
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import numpy as np
import pytest

from app.classify.batching import Batcher, BatchPolicy
from app.errors import Internal, Overloaded
from app.server.settings import Settings
from app.server.shared_encoder import OtherModel, SharedEncoder
from models import PromptTooLong
from models.encoder import Encoder

TOLERANCE = 1e-6


@asynccontextmanager
async def sharing(encoder: Encoder) -> AsyncIterator[SharedEncoder]:
    shared = SharedEncoder(encoder, Settings(model="pictogram", max_batch=4))
    yield shared
    shared._watchdog.close()


def pictures(encoder: Encoder, count: int) -> np.ndarray:
    shape = (count, 3, encoder.info.image.height, encoder.info.image.width)
    return np.random.default_rng(0).integers(0, 256, shape, np.uint8)


def test_calls_of_several_services_share_batches(plain_pictogram: Encoder) -> None:
    async def test() -> None:
        images = pictures(plain_pictogram, 6)
        alone = plain_pictogram.submit_images(list(images)).result()
        batches: list[int] = []
        submit = plain_pictogram.submit_images

        def counting(batch: Sequence[np.ndarray]) -> object:
            batches.append(len(batch))
            return submit(batch)

        async with sharing(plain_pictogram) as shared:
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(plain_pictogram, "submit_images", counting)
                name = plain_pictogram.info.fingerprint
                results = await asyncio.gather(
                    *(shared.images(name, images[i : i + 2]) for i in (0, 2, 4))
                )
        assert batches == [4, 2]
        rows = np.concatenate([rows for rows, _ in results])
        assert rows == pytest.approx(alone, abs=TOLERANCE)

    asyncio.run(test())


def test_a_caller_with_another_model_is_refused(plain_pictogram: Encoder) -> None:
    async def test() -> None:
        async with sharing(plain_pictogram) as shared:
            with pytest.raises(OtherModel):
                await shared.images("of another model", pictures(plain_pictogram, 1))
            with pytest.raises(OtherModel):
                await shared.texts("of another model", ["a cat"])
            with pytest.raises(OtherModel):
                shared.describe("another model", "auto")
            assert shared.describe("pictogram", "auto") == plain_pictogram.info

    asyncio.run(test())


def test_what_torch_raises_stays_where_torch_is(plain_pictogram: Encoder) -> None:
    async def test() -> None:
        async with sharing(plain_pictogram) as shared:
            wrong = np.zeros((1, 3, 1, 1), np.uint8)
            with pytest.raises(Internal, match=r"^the encoder failed$"):
                await shared.images(plain_pictogram.info.fingerprint, wrong)
            with pytest.raises(PromptTooLong) as caught:
                await shared.texts(plain_pictogram.info.fingerprint, ["a cat", *["cat " * 99] * 2])
            travelled = pickle.loads(pickle.dumps(caught.value))
            assert (travelled.index, travelled.limit) == (1, caught.value.limit)
            assert [problem.index for problem in travelled.all] == [1, 2]

    asyncio.run(test())


def test_a_batch_that_nobody_can_take_is_not_tried_in_halves() -> None:
    async def test() -> None:
        tried: list[int] = []

        async def refuse(batch: Sequence[int]) -> Sequence[int]:
            tried.append(len(batch))
            raise Overloaded("all encoders are busy", retry_after=1)

        batcher = Batcher(refuse, BatchPolicy(max_batch=4))
        results = await asyncio.gather(
            *(batcher.submit(i) for i in range(4)), return_exceptions=True
        )
        assert all(isinstance(result, Overloaded) for result in results)
        assert tried == [4]

    asyncio.run(test())
