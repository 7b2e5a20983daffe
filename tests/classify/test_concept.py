"""Keys of class vectors: equal for what makes equal vectors, different for everything else."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.classify.concept import Concept, keys_of
from app.classify.ensemble import Ensemble
from app.stores.lru import ByteLru
from app.stores.memory import MemoryStore
from app.stores.vectors import TwoLevels
from models.catalog import catalog
from models.encoder import Encoder
from models.loader import load

# few characters, among them those that could blur where one text ends and the next begins
TEXT = st.text(alphabet='ab ",[]\\{}', min_size=1, max_size=4)
TEXTS = st.lists(TEXT, min_size=1, max_size=3).map(tuple)
TEMPLATES = st.lists(TEXT.map(lambda t: t.replace("{}", "") + "{}"), min_size=1, max_size=3)
MADE_OF = st.tuples(st.sampled_from(["f", "g"]), TEMPLATES.map(tuple), TEXTS)


@given(MADE_OF, MADE_OF)
# a text may read like a template
@example(("f", ("{}",), ("a{}", "b")), ("f", ("{}", "a{}"), ("b",)))
def test_a_key_stands_for_model_templates_and_texts_and_nothing_else(one, other) -> None:  # type: ignore[no-untyped-def]
    keys = [
        keys_of([Concept(texts, templates)], fingerprint)[0]
        for fingerprint, templates, texts in (one, other)
    ]
    assert (keys[0] == keys[1]) == (one == other)


@given(st.lists(st.tuples(TEMPLATES.map(tuple), TEXTS), min_size=1, max_size=5))
def test_a_key_does_not_depend_on_its_neighbours(pairs) -> None:  # type: ignore[no-untyped-def]
    concepts = [Concept(texts, templates) for templates, texts in pairs]
    assert keys_of(concepts, "f") == [keys_of([concept], "f")[0] for concept in concepts]


def test_a_whole_prompt_is_told_from_a_text_that_reads_alike() -> None:
    as_texts = Concept(("a", "b"), ("{}",))
    beside = Concept(("a",), ("{}",), ("b",))
    alone = Concept((), ("{}",), ("a", "b"))
    assert as_texts.prompts() == beside.prompts() == alone.prompts()
    assert len(set(keys_of([as_texts, beside, alone], "f"))) == 3
    assert [beside.text_of(place) for place in range(beside.count)] == ["a", "b"]


@pytest.fixture(scope="module")
def other_precision() -> Iterator[Encoder]:
    loader = catalog()["pictogram"].loader
    encoder = load(loader, precision="bf16", device="cpu", backend="torch")
    yield encoder
    encoder.close()


@pytest.fixture(scope="module")
def other_weights(other_model: str, exports: Path) -> Iterator[Encoder]:
    encoder = load(other_model, precision="fp32", exports=exports)
    yield encoder
    encoder.close()


NAMES = ("cat", "dog", "bird")
LABELS = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3, unique=True)
# what one model's vectors differ by when they are computed in another batch
NEAR = {"fp32": 2e-5, "bf16": 4e-3}
SETS = (("{}",), ("a {}",), ("a {}", "{}"), ("{}", "a {}"))
Fresh = dict[tuple[int, tuple[str, ...], str], np.ndarray]


@pytest.fixture(scope="module")
def fresh(pictogram: Encoder, other_precision: Encoder, other_weights: Encoder) -> Fresh:
    """The row of each model, set of templates and name, each by what has stored nothing before."""

    async def rows(encoder: Encoder, templates: tuple[str, ...]) -> np.ndarray:
        nothing = TwoLevels(ByteLru(0), MemoryStore().vectors, encoder.info.embedding_width)
        concepts = [Concept((name,), templates) for name in NAMES]
        return (await Ensemble(encoder, nothing, 10_000).vectors(concepts)).rows

    return {
        (model, templates, name): row
        for model, encoder in enumerate((pictogram, other_precision, other_weights))
        for templates in SETS
        for name, row in zip(NAMES, asyncio.run(rows(encoder, templates)), strict=True)
    }


@given(data=st.data())
@settings(deadline=None)  # models encode in it
def test_whatever_changes_no_old_vector_is_served(
    data: st.DataObject,
    pictogram: Encoder,
    other_precision: Encoder,
    other_weights: Encoder,
    fresh: Fresh,
) -> None:
    """Models, precisions and templates take turns on one store; each answer is its own."""
    encoders = [pictogram, other_precision, other_weights]
    turn = st.tuples(st.integers(0, 2), st.sampled_from(SETS), LABELS)
    turns = data.draw(st.lists(turn, min_size=2, max_size=5))
    store = MemoryStore(vector_ttl=60, vector_bytes=10_000_000).vectors
    memory = ByteLru(10_000_000)

    async def take_turns() -> None:
        for model, templates, names in turns:
            encoder = encoders[model]
            width = encoder.info.embedding_width
            shared = Ensemble(encoder, TwoLevels(memory, store, width), 10_000)
            concepts = [Concept((name,), templates) for name in names]
            vectors = await shared.vectors(concepts)
            expected = np.stack([fresh[model, templates, name] for name in names])
            np.testing.assert_allclose(vectors.rows, expected, atol=NEAR[encoder.info.precision])

    asyncio.run(take_turns())


def test_the_bounds_of_that_test_tell_the_models_apart(
    pictogram: Encoder, other_precision: Encoder, other_weights: Encoder
) -> None:
    prompts = ["a cat", "a dog", "a bird"]
    fp32, bf16, other = (
        encoder.submit_texts(prompts).result()
        for encoder in (pictogram, other_precision, other_weights)
    )
    assert np.abs(fp32 - other).max() > 2 * NEAR["bf16"]
    # an fp32 model that is served a bf16 vector is found out
    assert np.abs(fp32 - bf16).max(axis=1).min() > 2 * NEAR["fp32"]
