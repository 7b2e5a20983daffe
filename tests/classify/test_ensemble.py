"""Class vectors: the recipe, the cache, one computation at a time, errors that name the label."""

import asyncio
import gc
import logging
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest

from app.classify.concept import Concept, ensemble_mean, keys_of
from app.classify.ensemble import Ensemble
from app.errors import Internal, Overloaded, TooLarge
from app.stores.lru import ByteLru
from app.stores.memory import MemoryStore
from app.stores.vectors import TwoLevels
from models.encoder import Encoder

TEMPLATES = ("a photo of a {}.", "a drawing of {}", "{}")
NEAR = 2e-5
PLENTY = 10_000_000
WIDTH = 192  # of the bundled model


class Counting:
    """The real encoder, with a record of what it was asked, whose answers a test may hold."""

    def __init__(self, encoder: Encoder) -> None:
        self.info = encoder.info
        self.asked: list[list[str]] = []
        self.failing: Exception | None = None
        self.no_numbers: str | None = None  # for a prompt with this text
        self.held: list[Future[Any]] | None = None  # what a test answers itself
        self._encoder = encoder

    def submit_texts(self, prompts: Sequence[str]) -> Future[Any]:
        self.asked.append(list(prompts))
        if self.failing is not None:
            failed: Future[Any] = Future()
            failed.set_exception(self.failing)
            return failed
        if self.held is not None:
            self.held.append(Future())
            return self.held[-1]
        if self.no_numbers is None:
            return self._encoder.submit_texts(prompts)
        rows = self._encoder.submit_texts(prompts).result().copy()
        rows[[self.no_numbers in prompt for prompt in prompts]] = np.nan
        answered: Future[Any] = Future()
        answered.set_result(rows)
        return answered


@pytest.fixture
def encoder(pictogram: Encoder) -> Counting:
    return Counting(pictogram)


def run(work: Callable[[], Awaitable[Any]]) -> Any:
    return asyncio.run(work())  # type: ignore[arg-type]


def of(encoder: Any, cache_bytes: int = PLENTY) -> Ensemble:
    return Ensemble(encoder, levels(cache_bytes), PLENTY)


def levels(cache_bytes: int = PLENTY, store: Any = None) -> TwoLevels:
    store = store or MemoryStore().vectors
    return TwoLevels(ByteLru(cache_bytes), store, WIDTH)


def concepts(*names: str) -> list[Concept]:
    return [Concept((name,), TEMPLATES) for name in names]


def test_the_mean_is_over_normalised_prompts_and_normalised_again() -> None:
    rows = np.float32([[1, 0, 0], [0, 1, 0], [0, 1, 0]])
    np.testing.assert_allclose(ensemble_mean(rows), np.float32([1, 2, 0]) / np.sqrt(5), atol=1e-7)


def test_a_vector_is_the_mean_over_templates_and_synonyms(encoder: Counting) -> None:
    rows = run(lambda: of(encoder).vectors([Concept(("cat", "kitten"), TEMPLATES)])).rows
    prompts = [t.replace("{}", text) for text in ("cat", "kitten") for t in TEMPLATES]
    single = encoder._encoder.submit_texts(prompts).result()
    mean = single.mean(axis=0)
    np.testing.assert_allclose(rows[0], mean / np.linalg.norm(mean), atol=NEAR)


def test_order_is_that_of_the_request_and_known_labels_cost_nothing(encoder: Counting) -> None:
    async def work() -> None:
        ensemble = of(encoder)
        first = await ensemble.vectors(concepts("cat", "dog"))
        second = await ensemble.vectors(concepts("bird", "dog", "cat"))
        assert (first.cached, second.cached) == (0, 2)
        np.testing.assert_array_equal(second.rows[[2, 1]], first.rows)
        assert encoder.asked[1] == [t.replace("{}", "bird") for t in TEMPLATES]

    run(work)


def test_another_template_synonym_or_model_is_another_vector(
    encoder: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dataclasses

    async def work() -> None:
        cache = levels()
        changed = Counting(encoder._encoder)
        changed.info = dataclasses.replace(encoder.info, fingerprint="other")
        requests = [
            (encoder, Concept(("cat",), TEMPLATES)),
            (encoder, Concept(("cat",), TEMPLATES[:2])),
            (encoder, Concept(("cat", "kitten"), TEMPLATES)),
            (encoder, Concept(("cat kitten",), TEMPLATES)),
            (changed, Concept(("cat",), TEMPLATES)),
        ]
        for model, concept in requests:
            assert (await Ensemble(model, cache, PLENTY).vectors([concept])).cached == 0  # type: ignore[arg-type]
        assert len(cache.memory) == len(requests)

    run(work)


def test_concurrent_misses_of_one_label_are_computed_once(encoder: Counting) -> None:
    async def work() -> None:
        ensemble = of(encoder)
        vectors = await asyncio.gather(
            ensemble.vectors(concepts("cat", "dog")),
            ensemble.vectors(concepts("dog", "bird")),
            ensemble.vectors(concepts("cat")),
        )
        prompts = [prompt for batch in encoder.asked for prompt in batch]
        assert len(prompts) == len(set(prompts)) == 3 * len(TEMPLATES)
        np.testing.assert_array_equal(vectors[0].rows[1], vectors[1].rows[0])
        np.testing.assert_array_equal(vectors[0].rows[0], vectors[2].rows[0])

    run(work)


def test_without_a_cache_everything_still_works(encoder: Counting) -> None:
    async def work() -> None:
        ensemble = of(encoder, cache_bytes=0)
        for _ in range(2):
            assert (await ensemble.vectors(concepts("cat", "dog"))).cached == 0

    run(work)


def test_a_caller_that_leaves_does_not_stop_the_work_of_the_others(encoder: Counting) -> None:
    async def work() -> None:
        ensemble = of(encoder)
        leaver = asyncio.create_task(ensemble.vectors(concepts("cat", "dog")))
        await asyncio.sleep(0)
        stayer = asyncio.create_task(ensemble.vectors(concepts("dog", "cat")))
        await asyncio.sleep(0)
        leaver.cancel()
        assert (await stayer).rows.shape[0] == 2
        assert len(encoder.asked) == 1

    run(work)


def test_a_label_too_long_for_the_model_fails_alone(encoder: Counting) -> None:
    async def work() -> None:
        ensemble = of(encoder)
        long = " ".join(["cat"] * encoder.info.context_length)
        vectors = await asyncio.gather(
            ensemble.vectors(concepts("dog", long, "bird")),
            ensemble.vectors(concepts("bird", "dog")),
            return_exceptions=True,
        )
        assert isinstance(vectors[0], TooLarge)
        assert (vectors[0].field, vectors[0].limit) == ("labels", encoder.info.context_length)
        assert "a photo of a cat cat" in vectors[0].detail
        assert not isinstance(vectors[1], BaseException)
        # what was computed beside it is kept
        assert (await ensemble.vectors(concepts("dog", "bird"))).cached == 2

    run(work)


def test_a_failing_encoder_fails_the_request_and_the_next_one_tries_again(
    encoder: Counting,
) -> None:
    async def work() -> None:
        ensemble = of(encoder)
        encoder.failing = RuntimeError("device lost")
        with pytest.raises(RuntimeError, match="device lost"):
            await ensemble.vectors(concepts("cat"))
        encoder.failing = None
        assert (await ensemble.vectors(concepts("cat"))).cached == 0

    run(work)


def test_a_failure_is_told_neither_to_who_asked_anew_meanwhile_nor_to_the_log(
    encoder: Counting, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("app.classify.concept.PROMPTS_PER_BLOCK", 3)

    async def asked(count: int) -> None:
        while len(encoder.asked) < count:
            await asyncio.sleep(0)

    async def work() -> None:
        ensemble, held = of(encoder), list[Future[Any]]()
        encoder.held = held
        leaver = asyncio.create_task(ensemble.vectors(concepts("cat", "dog", "bird")))
        await asked(1)
        unlucky = asyncio.create_task(ensemble.vectors(concepts("bird")))
        await asyncio.sleep(0)
        leaver.cancel()
        await asyncio.wait({leaver})
        held[0].set_result(encoder._encoder.submit_texts(encoder.asked[0]).result())
        await asked(2)  # the dog, whom nobody waits for, was dropped
        anew = asyncio.create_task(ensemble.vectors(concepts("dog")))
        await asked(3)
        assert [prompts[-1] for prompts in encoder.asked] == ["cat", "bird", "dog"]
        held[1].set_exception(RuntimeError("device lost"))
        with pytest.raises(RuntimeError, match="device lost"):
            await unlucky
        held[2].set_result(encoder._encoder.submit_texts(encoder.asked[2]).result())
        assert (await anew).rows.shape == (1, WIDTH)
        # and one that nobody waits for any more
        leaver = asyncio.create_task(ensemble.vectors(concepts("fish")))
        await asked(4)
        leaver.cancel()
        await asyncio.wait({leaver})
        held[3].set_exception(RuntimeError("device lost"))
        while ensemble.pending:
            await asyncio.sleep(0)
        held.clear()  # an error refers to all that it passed

    run(work)
    gc.collect()
    assert not [record for record in caplog.records if record.levelno >= logging.ERROR]


def test_a_label_for_which_the_model_has_no_numbers_fails_alone_and_is_kept_nowhere(
    encoder: Counting,
) -> None:
    async def work() -> None:
        store = MemoryStore(vector_ttl=3600, vector_bytes=PLENTY).vectors
        ensemble = Ensemble(encoder, levels(store=store), PLENTY)  # type: ignore[arg-type]
        encoder.no_numbers = "dog"
        both = await asyncio.gather(
            ensemble.vectors(concepts("dog", "cat")),
            ensemble.vectors(concepts("cat")),
            return_exceptions=True,
        )
        assert isinstance(both[0], Internal)
        assert not isinstance(both[1], BaseException)
        assert np.isfinite(both[1].rows).all()
        await ensemble.close()
        assert await store.get_many(keys_of(concepts("dog"), encoder.info.fingerprint)) == [None]
        encoder.no_numbers = None
        assert (await ensemble.vectors(concepts("cat", "dog"))).cached == 1

    run(work)


def test_many_labels_go_in_blocks_and_come_back_in_order(
    encoder: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.classify.concept.PROMPTS_PER_BLOCK", 10)

    async def work() -> None:
        names = [f"number {n}" for n in range(20)]
        together = await of(encoder).vectors(concepts(*names))
        assert max(len(batch) for batch in encoder.asked) <= 10
        assert len(encoder.asked) == 7
        alone = await of(encoder).vectors(concepts(names[13]))
        np.testing.assert_allclose(together.rows[13], alone.rows[0], atol=NEAR)

    run(work)


def test_too_many_waiting_prompts_are_refused(encoder: Counting) -> None:
    async def work() -> None:
        ensemble = Ensemble(encoder, levels(), max_pending=4)  # type: ignore[arg-type]
        # one request may be larger than the bound, if nobody else waits
        first = asyncio.create_task(ensemble.vectors(concepts("cat", "dog")))
        await asyncio.sleep(0)
        with pytest.raises(Overloaded) as caught:
            await ensemble.vectors(concepts("bird"))
        assert (caught.value.limit, caught.value.value) == (4, 9)
        assert (await first).cached == 0
        assert (await ensemble.vectors(concepts("bird"))).cached == 0
        # as many as there may be are let in
        full = Ensemble(encoder, levels(), max_pending=9)  # type: ignore[arg-type]
        both = (full.vectors(concepts("cat", "dog")), full.vectors(concepts("bird")))
        assert [vectors.cached for vectors in await asyncio.gather(*both)] == [0, 0]

    run(work)


def test_what_nobody_waits_for_any_more_is_not_encoded(
    encoder: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.classify.concept.PROMPTS_PER_BLOCK", 3)

    async def work() -> None:
        ensemble = of(encoder)
        leaver = asyncio.create_task(ensemble.vectors(concepts(*(f"n{n}" for n in range(30)))))
        while not encoder.asked:
            await asyncio.sleep(0)
        leaver.cancel()
        await asyncio.wait({leaver})
        # a name that was dropped can be asked for again
        assert (await ensemble.vectors(concepts("n29"))).cached == 0
        await asyncio.sleep(0.1)
        assert len(encoder.asked) <= 3
        assert (await ensemble.vectors(concepts("n28"))).cached == 0

    run(work)


def test_a_label_too_long_is_told_before_the_rest_is_encoded(
    encoder: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.classify.concept.PROMPTS_PER_BLOCK", 3)

    async def work() -> None:
        long = " ".join(["cat"] * encoder.info.context_length)
        names = [long, *(f"m{n}" for n in range(30))]
        with pytest.raises(TooLarge):
            await of(encoder).vectors(concepts(*names))
        assert len(encoder.asked) < 5

    run(work)


def test_nothing_is_encoded_for_a_request_that_labels_too_long_have_failed(
    encoder: Counting,
) -> None:
    async def work() -> None:
        ensemble = of(encoder)
        long = " ".join(["cat"] * encoder.info.context_length)
        names = [f"m{n}" for n in range(30)] + [f"{n} {long}" for n in range(30)]
        with pytest.raises(TooLarge, match="of '0 cat"):  # the first of them
            await ensemble.vectors(concepts(*names))
        while ensemble.pending:
            await asyncio.sleep(0)
        assert len(encoder.asked) == 1
        assert ensemble.computed == 0

    run(work)


def test_labels_too_long_are_found_in_one_pass_however_many_they_are(encoder: Counting) -> None:
    async def work() -> None:
        ensemble = of(encoder)
        long = " ".join(["cat"] * encoder.info.context_length)
        names = [name for n in range(30) for name in (f"m{n}", f"{n} {long}")]
        fitted = await ensemble.fitted(concepts(*names))
        assert list(fitted.too_long) == list(range(1, 60, 2))
        assert len(encoder.asked) == 2
        assert ensemble.computed == 30
        rows = (await ensemble.vectors(concepts(*names[::2]))).rows
        np.testing.assert_array_equal(fitted.vectors.rows[::2], rows)

    run(work)


def test_a_label_that_two_requests_wait_for_goes_before_the_rest_of_a_long_list(
    encoder: Counting, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.classify.concept.PROMPTS_PER_BLOCK", 3)

    async def work() -> None:
        ensemble = of(encoder)
        long = asyncio.create_task(ensemble.vectors(concepts(*(f"n{n}" for n in range(30)))))
        while not encoder.asked:
            await asyncio.sleep(0)
        await ensemble.vectors(concepts("n29", "n28"))
        assert not long.done()
        # the block under way, and theirs
        assert [batch[-1] for batch in encoder.asked[:3]] == ["n0", "n28", "n29"]
        assert len(encoder.asked) <= 4
        rows = (await long).rows
        assert len(encoder.asked) == 30
        np.testing.assert_array_equal(
            rows[28:], (await ensemble.vectors(concepts("n28", "n29"))).rows
        )

    run(work)


def test_vectors_come_from_the_store_after_a_restart_and_damaged_ones_do_not(
    encoder: Counting,
) -> None:
    async def work() -> None:
        store = MemoryStore(vector_ttl=3600, vector_bytes=PLENTY).vectors
        before = Ensemble(encoder, levels(store=store), PLENTY)
        first = await before.vectors(concepts("cat", "dog"))
        await before.close()  # which waits until they are stored
        again = Ensemble(encoder, levels(store=store), PLENTY)
        second = await again.vectors(concepts("dog", "cat"))
        assert second.cached == 2
        np.testing.assert_array_equal(second.rows, first.rows[::-1])
        assert await again.known(concepts("cat")) is not None
        assert await again.known(concepts("cat", "bird")) is None
        keys = keys_of(concepts("cat"), encoder.info.fingerprint)
        value = (await store.get_many(keys))[0]
        assert value is not None
        await store.put_many({keys[0]: value[:-1]})
        third = await Ensemble(encoder, levels(store=store), PLENTY).vectors(concepts("cat", "dog"))
        assert third.cached == 1
        np.testing.assert_allclose(third.rows, first.rows, atol=NEAR)

    run(work)


def test_a_list_of_labels_that_comes_again_is_not_assembled_again(encoder: Counting) -> None:
    ensemble = of(encoder)
    labels = ("cat", "dog")

    async def ask() -> list[Any]:
        first = await ensemble.matrix(labels, TEMPLATES)
        ensemble._cache.memory.__init__(PLENTY)  # nothing is left of the single vectors
        again = await ensemble.matrix(labels, TEMPLATES)
        others = [
            await ensemble.matrix(labels[::-1], TEMPLATES),
            await ensemble.matrix(labels, TEMPLATES[:1]),
            await ensemble.matrix(("cat', 'dog",), TEMPLATES),
        ]
        return [first, again, *others]

    first, again, backwards, plain, single = run(ask)
    assert (first.cached, again.cached) == (0, 2)
    np.testing.assert_array_equal(first.rows, again.rows)
    np.testing.assert_allclose(backwards.rows, first.rows[::-1], atol=NEAR)
    assert np.abs(plain.rows - first.rows).max() > 0.01
    assert single.rows.shape == (1, WIDTH)


def test_without_a_cache_lists_are_not_kept_either(encoder: Counting) -> None:
    ensemble = of(encoder, cache_bytes=0)

    async def ask() -> list[int]:
        return [(await ensemble.matrix(("cat",), ("{}",))).cached for _ in range(2)]

    run(ask)
    assert len(ensemble.lists) == 0
