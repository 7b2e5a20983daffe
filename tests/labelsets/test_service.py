"""What happens to stored label sets when a process starts: order, stores that are away."""

import asyncio
import threading
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import numpy as np
import pytest

from app.classify.concept import PROMPTS_PER_BLOCK, Concept
from app.classify.embedding import ImageEmbedder
from app.classify.ensemble import Ensemble
from app.classify.query import Query
from app.classify.templates import TemplateSets, template_sets
from app.errors import LabelsetBuilding, Overloaded, PreconditionFailed, Problem, TooLarge
from app.labelsets import builds as builds_
from app.labelsets.blending import Blending
from app.labelsets.builds import Builds, _steps
from app.labelsets.calibration.validity import Validity
from app.labelsets.definition import MARK, Definition, Entry
from app.labelsets.preconditions import Match
from app.labelsets.presets import Presets
from app.labelsets.registry import Registry
from app.labelsets.service import RACES, LabelSetService
from app.stores.lru import ByteLru
from app.stores.memory import MemoryLabelSets, MemoryPictures, MemoryStore
from app.stores.protocols import LabelSetRecord, StoreAway
from app.stores.sqlite.store import SqliteStore
from app.stores.vectors import TwoLevels
from models.encoder import Encoder
from prompts import Vocabulary

PLENTY = 10_000_000


def definition(*labels: str) -> Definition:
    return Definition(tuple(Entry(label, (label,)) for label in labels))


def no_pictures() -> ImageEmbedder:
    """No label set here has examples."""
    return cast("ImageEmbedder", None)


def service(
    encoder: Encoder,
    store: Any,
    shipped: Mapping[str, Vocabulary] = MappingProxyType({}),
    max_prompts: int = PLENTY,
) -> LabelSetService:
    """A service as it is in a process that has just started."""
    vectors = TwoLevels(ByteLru(PLENTY), MemoryStore().vectors, encoder.info.embedding_width)
    templates = TemplateSets(template_sets(), "none")
    pictures = MemoryPictures()
    registry = Registry(store, pictures, most=100)
    blending = Blending(vectors, pictures, no_pictures(), encoder.info.fingerprint, 1.0)
    builds = Builds(
        Ensemble(encoder, vectors, PLENTY),
        blending,
        templates,
        ByteLru(PLENTY),
        registry.built,
        max_prompts,
    )
    return LabelSetService(
        registry,
        builds,
        Validity(encoder.info.name, encoder.info.fingerprint, templates),
        Presets(shipped, templates.default),
        max_prompts=PLENTY,
    )


def test_the_most_recently_used_is_built_first(
    pictogram: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        store = MemoryLabelSets()
        first = service(pictogram, store)
        for name in ("a", "b", "c"):
            await first.put(name, definition(f"{name}1", f"{name}2"), Match())
        for when, name in enumerate(("c", "a", "b")):
            await store.touch(name, 10_000_000_000 + when)
        await first.close()

        encoded: list[str] = []
        submit = pictogram.submit_texts

        def noting(prompts: Sequence[str]) -> Any:
            encoded.append(prompts[0])
            return submit(prompts)

        monkeypatch.setattr(pictogram, "submit_texts", noting)
        second = service(pictogram, store)
        await second.resume()
        assert encoded == ["b1", "a1", "c1"]
        for name in ("a", "b", "c"):
            assert second.status(await second.get(name)).state == "ready"
        await second.close()

    asyncio.run(work())


def test_a_replacement_that_failed_for_a_reason_of_ours_is_built_once_somebody_asks_later(
    pictogram: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        labelsets = service(pictogram, MemoryLabelSets())
        await labelsets.put("a", definition("cat", "dog"), Match())
        await labelsets.resolve("a", 60)

        def breaks(_prompts: object) -> Any:
            raise RuntimeError("the encoder broke")

        with monkeypatch.context() as broken:
            broken.setattr(pictogram, "submit_texts", breaks)
            stored, _ = await labelsets.put("a", definition("sun", "moon"), Match())
            with pytest.raises(Problem, match="the server failed"):
                await labelsets.wait(stored, 60)
        serving = await labelsets.resolve("a", 60)
        assert serving.stored.definition.labels == ("cat", "dog")
        assert "could not be built" in (serving.failed or "")
        assert not serving.is_final
        monkeypatch.setattr(builds_, "RETRY_AFTER", 0.0)
        await labelsets.resolve("a", 60)
        await labelsets.wait(stored, 60)
        serving = await labelsets.resolve("a", 60)
        assert serving.stored.definition.labels == ("sun", "moon")
        await labelsets.close()

    asyncio.run(asyncio.wait_for(work(), 240))


def test_of_two_that_create_a_name_only_the_second_is_told_that_it_exists(
    pictogram: Encoder,
) -> None:
    looked = asyncio.Barrier(2)

    class Shared(MemoryLabelSets):
        async def get(self, name: str) -> Any:
            record = await super().get(name)
            await looked.wait()  # neither writes before the other has looked
            return record

    async def work() -> None:
        store = Shared()
        both = [service(pictogram, store) for _ in range(2)]  # as two workers
        results = await asyncio.gather(
            *(each.put("a", definition("cat", "dog"), Match(absent=True)) for each in both),
            return_exceptions=True,
        )
        lost = [result for result in results if isinstance(result, BaseException)]
        assert [type(error) for error in lost] == [PreconditionFailed]
        assert str(lost[0]) == "the label set a already exists"
        for each in both:
            await each.close()

    asyncio.run(work())


def test_many_who_change_a_name_at_once_all_do(pictogram: Encoder, tmp_path: Path) -> None:
    async def work() -> None:
        store = SqliteStore(tmp_path / "store.sqlite3", 10, 3600, PLENTY)
        labelsets = service(pictogram, store.labelsets)
        await labelsets.create("a", definition("start"), Match())

        def adding(label: str) -> Callable[[Definition], Definition]:
            return lambda before: definition(*before.labels, label)

        labels = [f"label {number}" for number in range(2 * RACES)]
        await asyncio.gather(*(labelsets.change("a", Match(), adding(each)) for each in labels))
        assert set((await labelsets.get("a")).definition.labels) == {"start", *labels}
        await labelsets.close()
        await store.close()

    asyncio.run(work())


@pytest.mark.parametrize("match", [Match(), Match(exists=True)])
def test_who_expects_no_version_is_never_told_that_it_is_another(
    pictogram: Encoder, match: Match, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.labelsets.service.PAUSE", 0.0)

    class Contended(MemoryLabelSets):
        async def get(self, name: str) -> Any:
            record = await super().get(name)
            if record is not None:  # another process is faster each time
                await super().write(name, record.body, record.version, 100)
            return record

    async def work() -> None:
        labelsets = service(pictogram, Contended())
        await labelsets.create("a", definition("cat", "dog"), Match())
        for change in (
            labelsets.put("a", definition("sun", "moon"), match),
            labelsets.delete("a", match),
        ):
            with pytest.raises(Overloaded, match="changed by others"):
                await change
        await labelsets.close()

    asyncio.run(work())


def test_a_store_that_is_away_at_the_start_is_waited_for(
    pictogram: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.labelsets.service.RETRY_EVERY", 0.01)

    class Flaky(MemoryLabelSets):
        failures = 3

        async def recent(self) -> Sequence[str]:
            return await super().recent() if self._works() else []

        async def head(self, name: str) -> Any:
            self._works()
            return await super().head(name)

        def _works(self) -> bool:
            if self.failures:
                self.failures -= 1
                raise StoreAway("not yet")
            return True

    async def work() -> None:
        store = Flaky()
        store.failures = 0
        await service(pictogram, store).create("a", definition("x", "y"), Match())
        store.failures = 3
        restarted = service(pictogram, store)
        await restarted.resume()
        assert restarted.status(await restarted.get("a")).state == "ready"
        await restarted.close()

    asyncio.run(work())


def test_a_set_that_can_never_be_built_does_not_stop_the_others(pictogram: Encoder) -> None:
    async def work() -> None:
        store = MemoryLabelSets()
        first = service(pictogram, store)
        long = " ".join(["cat"] * pictogram.info.context_length)
        await first.create("bad", definition("ok", long), Match())
        await first.create("good", definition("x", "y"), Match())
        await first.close()
        await store.touch("bad", 10_000_000_000)
        second = service(pictogram, store)
        await second.resume()
        assert second.status(await second.get("good")).state == "ready"
        assert second.status(await second.get("bad")).state == "failed"
        await second.close()

    asyncio.run(work())


def test_a_process_serves_what_it_has_until_a_replacement_is_built_but_nothing_that_was_deleted(
    pictogram: Encoder,
) -> None:
    async def work() -> None:
        store = MemoryLabelSets()
        one, other = service(pictogram, store), service(pictogram, store)
        await one.create("a", definition("first", "cat"), Match())
        await other.resolve("a", 240)  # which builds it
        assert (await other.resolve("a", 0)).stored.definition.labels == ("first", "cat")
        # one has built the replacement, the other has not
        replaced, _ = await one.put("a", definition("second", "cat"), Match())
        await one.wait(replaced, 240)
        assert (await other.resolve("a", 0)).stored.definition.labels == ("first", "cat")
        await one.delete("a", Match())
        await one.create("a", definition("third", "cat"), Match())
        with pytest.raises(LabelsetBuilding):
            await other.resolve("a", 0)
        assert (await other.resolve("a", 240)).stored.definition.labels == ("third", "cat")
        await one.close()
        await other.close()

    asyncio.run(work())


def test_the_steps_of_a_build_cost_as_much_as_there_are_labels_and_no_more() -> None:
    counted: Counter[str] = Counter()

    class Counted(Concept):
        @property
        def count(self) -> int:
            counted[self.texts[0]] += 1
            return 300

    concepts = [Counted((f"label {number}",), ("{}",)) for number in range(2_000)]
    steps = list(_steps(concepts))
    assert [concept for step in steps for concept in step] == concepts
    assert {len(step) for step in steps[:-1]} == {PROMPTS_PER_BLOCK // 300}
    assert max(counted.values()) <= 2


def test_the_build_of_many_labels_is_prepared_beside_the_event_loop(
    pictogram: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.labelsets.builds.MANY", 2)
    threads: dict[int, int] = {}
    concepts = Definition.concepts

    def noting(definition: Definition, templates: tuple[str, ...]) -> Any:
        threads[definition.rows] = threading.get_ident()  # the last look is that of the build
        return concepts(definition, templates)

    monkeypatch.setattr(Definition, "concepts", noting)

    async def work() -> None:
        labelset_service = service(pictogram, MemoryLabelSets())
        for labels in (("x", "y"), ("x", "y", "z")):
            name = f"of-{len(labels)}"
            stored = await labelset_service.create(name, definition(*labels), Match())
            await labelset_service.wait(stored, 240)
            assert labelset_service.status(stored).state == "ready"
        await labelset_service.close()

    asyncio.run(work())
    assert threads[2] == threading.get_ident()
    assert threads[3] != threading.get_ident()


def test_a_label_set_in_templates_that_come_again_is_not_assembled_again(
    pictogram: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    assembled = []
    concepts = Definition.concepts

    def noting(definition: Definition, templates: tuple[str, ...]) -> Any:
        assembled.append(templates)
        return concepts(definition, templates)

    async def work() -> None:
        labelsets = service(pictogram, MemoryLabelSets())

        async def rows(*templates: str) -> Any:
            query = Query((), templates=templates, patience=60)
            return (await labelsets.classes(query, "a")).rows

        await labelsets.put("a", definition("cat", "dog"), Match())
        plain = await rows("{}")
        monkeypatch.setattr(Definition, "concepts", noting)
        first, again, other = [await rows(each) for each in ("the {}", "the {}", "a {}")]
        assert assembled == [("the {}",), ("a {}",)]
        np.testing.assert_array_equal(first, again)
        assert not np.allclose(first, other, atol=1e-3)
        stored, _ = await labelsets.put("a", definition("dog", "cat"), Match())
        await labelsets.wait(stored, 60)
        np.testing.assert_allclose(await rows("{}"), plain[::-1], atol=1e-5)
        await labelsets.close()

    asyncio.run(work())


def test_of_label_sets_that_others_delete_no_more_is_remembered_than_of_those_that_there_may_be(
    pictogram: Encoder,
) -> None:
    async def work() -> None:
        store = MemoryLabelSets()
        one, other = service(pictogram, store), service(pictogram, store)
        other._builds.remembered = 4
        await one.create("stays", definition("x", "y"), Match())
        for number in range(10):
            name = f"short-{number}"
            await one.create(name, definition("x", f"{number}"), Match())
            await other.resolve(name, 240)
            await other.resolve("stays", 240)
            await one.delete(name, Match())
        assert len(other._builds._running) <= 4
        # what is in use is among them, and what is not is built again
        assert other.begun(await other._registry.current("stays"))
        await one.create("again", definition("x", "3"), Match())
        assert (await other.resolve("again", 240)).stored.definition.labels == ("x", "3")
        await one.close()
        await other.close()

    asyncio.run(work())


def test_builds_neither_fill_the_queue_of_requests_nor_are_stopped_by_it(
    pictogram: Encoder,
) -> None:
    async def work() -> None:
        labelset_service = service(pictogram, MemoryLabelSets())
        ensemble = labelset_service._builds.ensemble
        ensemble.pending = ensemble._max_pending  # as if requests had filled the queue
        stored = await labelset_service.create("a", definition("x", "y"), Match())
        await labelset_service.wait(stored, 240)
        assert labelset_service.status(stored).state == "ready"
        assert ensemble.pending == ensemble._max_pending
        await labelset_service.close()

    asyncio.run(work())


PETS = {"pets": Vocabulary("pets", "Pets.", "this test", ("cat", "dog", "parrot"))}


def test_a_shipped_vocabulary_is_never_offered_to_the_store(pictogram: Encoder) -> None:
    offered: list[str] = []

    class Noting(MemoryLabelSets):
        async def amend(self, name: str, version: int, body: bytes) -> bool:
            offered.append(name)
            return await super().amend(name, version, body)

        async def restore(self, record: LabelSetRecord) -> bool:
            offered.append(record.name)
            return await super().restore(record)

    async def work() -> None:
        labelsets = service(pictogram, Noting(), PETS)
        assert (await labelsets.resolve("preset:pets", 60)).stored.definition.labels[0] == "cat"
        assert await labelsets.page("", MARK, 10) == []
        assert offered == []
        await labelsets.close()

    asyncio.run(work())


def test_the_prompts_of_a_shipped_vocabulary_are_counted_until_its_build_begins(
    pictogram: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    counted: list[Definition] = []
    check = Builds.check

    def noting(builds: Builds, definition: Definition) -> None:
        counted.append(definition)
        check(builds, definition)

    monkeypatch.setattr(Builds, "check", noting)

    async def work() -> None:
        labelsets = service(pictogram, MemoryLabelSets(), PETS)
        for _ in range(3):
            await labelsets.resolve("preset:pets", 60)
        assert len(counted) == 1
        await labelsets.close()

        labelsets = service(pictogram, MemoryLabelSets(), PETS, max_prompts=2)
        for _ in range(2):
            with pytest.raises(TooLarge, match="3 prompts, the limit is 2"):
                await labelsets.resolve("preset:pets", 60)
        await labelsets.close()

    asyncio.run(work())
