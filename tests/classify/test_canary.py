"""The picture with a known result: what counts as another result, and how often it is looked at."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest

from app.classify.canary import KEPT, TOLERANCE, Canary
from app.classify.ensemble import Ensemble
from app.errors import NotReady
from app.stores.lru import ByteLru
from app.stores.memory import MemoryStore
from app.stores.vectors import TwoLevels
from models.encoder import Encoder


class Model:
    """The real encoder; its rows of pictures are `changed`, and answered while it is `open`."""

    def __init__(self, encoder: Encoder) -> None:
        self.info = encoder.info
        self.slowest = 0.0
        self.passes = 0
        self.changed: Callable[[np.ndarray], np.ndarray] = lambda rows: rows
        self.waiting: list[Future[Any]] = []
        self.open = True
        self._encoder = encoder

    def submit_images(self, pictures: Sequence[Any]) -> Future[Any]:
        self.passes += 1
        if self.open:
            answered: Future[Any] = Future()
            answered.set_result(self.changed(self._encoder.submit_images(pictures).result()))
            return answered
        held: Future[Any] = Future()
        self.waiting.append(held)
        return held

    def submit_texts(self, prompts: Sequence[str]) -> Future[Any]:
        return self._encoder.submit_texts(prompts)


Test = Callable[[Model, Canary], Awaitable[None]]


class Clock:
    now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def run(pictogram: Encoder, clock: Clock) -> Callable[[Test], None]:
    async def bounded(test: Test) -> None:
        model = Model(pictogram)
        canary = Canary(model, clock)  # type: ignore[arg-type]
        width = pictogram.info.embedding_width
        vectors = TwoLevels(ByteLru(10_000_000), MemoryStore().vectors, width)
        await canary.learn(Ensemble(pictogram, vectors, 1_000))
        async with asyncio.timeout(240):
            await test(model, canary)

    return lambda test: asyncio.run(bounded(test))


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        (lambda rows: rows * np.nan, "numbers that are not finite"),
        (lambda rows: -rows, "differently than at the start"),
    ],
)
def test_a_model_that_answers_otherwise_is_not_ready_until_it_answers_as_it_did(
    run: Any, clock: Clock, changed: Any, why: str
) -> None:
    async def test(model: Model, canary: Canary) -> None:
        await canary.check()
        last_good = canary.good_at
        model.changed = changed
        clock.now += KEPT
        with pytest.raises(NotReady, match=why):
            await canary.check()
        assert (canary.good, canary.good_at) == (False, last_good)
        model.changed = lambda rows: rows + TOLERANCE / 100
        clock.now += KEPT
        await canary.check()
        assert (canary.good, canary.good_at) == (True, clock.now)

    run(test)


def test_those_who_ask_within_a_moment_share_one_pass_and_one_that_leaves_ends_it_for_nobody(
    run: Any, clock: Clock
) -> None:
    async def test(model: Model, canary: Canary) -> None:
        learned = model.passes
        model.open = False
        leaver, stayer = (asyncio.create_task(canary.check()) for _ in range(2))
        while not model.waiting:
            await asyncio.sleep(0)
        leaver.cancel()
        await asyncio.wait({leaver})
        assert not stayer.done()
        model.waiting[0].set_result(np.zeros((1, model.info.embedding_width), np.float32))
        with pytest.raises(NotReady, match="differently"):
            await stayer
        # the result is kept for a moment, whatever the model would answer by now
        model.open = True
        with pytest.raises(NotReady, match="differently"):
            await canary.check()
        assert model.passes == learned + 1
        clock.now += KEPT
        await canary.check()
        assert model.passes == learned + 2

    run(test)
