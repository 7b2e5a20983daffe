"""The encoder: rows in order, exact text, errors that name the prompt, memory that runs out."""

import numpy as np
import open_clip
import pytest
import torch

from models.encoder import LEAST_POSITIONS, Encoder
from models.errors import EncoderClosed, PromptTooLong
from models.loader import load
from models.token_tree import Tree

NEAR = 2e-5  # largest difference of a coordinate between two ways of computing one fp32 vector


def pictures(count: int, edge: int) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(0, 256, (3, edge, edge), np.uint8) for _ in range(count)]


def test_images_come_back_as_unit_rows_in_order(pictogram: Encoder) -> None:
    images = pictures(5, pictogram.info.image.height)
    together = pictogram.submit_images(images).result()
    alone = np.vstack([pictogram.submit_images([image]).result() for image in images])
    assert together.dtype == np.float32
    assert together.shape == (5, pictogram.info.embedding_width)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose(together, alone, atol=NEAR)


def test_texts_come_back_in_order_whatever_their_length(pictogram: Encoder) -> None:
    prompts = ["a very long prompt about a red bicycle in the rain", "cat", "a dog", "cat"] * 100
    rows = pictogram.submit_texts(prompts).result()
    alone = pictogram.submit_texts(prompts[:3]).result()
    assert rows.shape == (400, pictogram.info.embedding_width)
    np.testing.assert_allclose(rows[:3], alone, atol=NEAR)
    np.testing.assert_allclose(rows[1::4], rows[3::4], atol=NEAR)


def test_texts_equal_the_reference_at_full_length(pictogram: Encoder) -> None:
    from models.catalog import catalog

    loader = catalog()["pictogram"].loader
    model = open_clip.create_model(loader).eval()
    prompts = [f"a drawing of {'very ' * n}small cat." for n in range(12)]
    with torch.no_grad():
        ids = open_clip.get_tokenizer(loader)(prompts)
        reference = model.encode_text(ids, normalize=True).numpy()
    np.testing.assert_allclose(pictogram.submit_texts(prompts).result(), reference, atol=NEAR)


def test_no_prompts_give_no_rows(pictogram: Encoder) -> None:
    assert pictogram.submit_texts([]).result().shape == (0, pictogram.info.embedding_width)


def test_a_prompt_that_does_not_fit_is_named_and_not_cut(pictogram: Encoder) -> None:
    limit = pictogram.info.context_length
    fits = " ".join(["cat"] * (limit - 2))
    assert pictogram.submit_texts([fits]).result().shape[0] == 1
    prompts = ["dog"] * 300 + [fits + " cat", "bird"]
    with pytest.raises(PromptTooLong) as caught:
        pictogram.submit_texts(prompts).result()
    assert (caught.value.index, caught.value.tokens, caught.value.limit) == (300, limit + 1, limit)


def test_all_prompts_that_do_not_fit_are_named_at_once(pictogram: Encoder) -> None:
    limit = pictogram.info.context_length
    too_long = {
        place: " ".join(["cat"] * (limit + place % 5)) for place in (3, 4, 255, 256, 257, 700)
    }
    prompts = [too_long.get(place, "dog") for place in range(701)]
    with pytest.raises(PromptTooLong) as caught:
        pictogram.submit_texts(prompts).result()
    assert [problem.index for problem in caught.value.all] == list(too_long)
    assert [problem.prompt for problem in caught.value.all] == list(too_long.values())
    assert {problem.tokens - problem.index % 5 for problem in caught.value.all} == {limit + 2}


def test_out_of_memory_halves_the_batch(
    plain_pictogram: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = pictures(7, plain_pictogram.info.image.height)
    expected = plain_pictogram.submit_images(images).result()
    model = plain_pictogram.images.vision._model
    encode, sizes = model.encode_image, []

    def small_device(pixels: torch.Tensor) -> torch.Tensor:
        sizes.append(len(pixels))
        if len(pixels) > 2:
            raise torch.OutOfMemoryError
        return encode(pixels)

    monkeypatch.setattr(model, "encode_image", small_device)
    np.testing.assert_allclose(plain_pictogram.submit_images(images).result(), expected, atol=NEAR)
    assert sizes == [7, 3, 1, 2, 4, 2, 2]


def test_out_of_memory_for_a_single_image_is_an_error(
    plain_pictogram: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_device(pixels: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError

    monkeypatch.setattr(plain_pictogram.images.vision._model, "encode_image", no_device)
    with pytest.raises(torch.OutOfMemoryError):
        plain_pictogram.submit_images(pictures(2, plain_pictogram.info.image.height)).result()


def test_out_of_memory_halves_the_prompts(
    plain_pictogram: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = [f"number {n}" for n in range(20)]
    expected = plain_pictogram.submit_texts(prompts).result()
    block = plain_pictogram.texts.tower.module.transformer.resblocks[0]
    forward, sizes = block.forward, []

    def small_device(x: torch.Tensor, attn_mask: torch.Tensor | None = None) -> torch.Tensor:
        sizes.append(x.shape[1])
        if x.shape[1] > 15:
            raise torch.OutOfMemoryError
        return forward(x, attn_mask=attn_mask)

    monkeypatch.setattr(block, "forward", small_device)
    np.testing.assert_allclose(plain_pictogram.submit_texts(prompts).result(), expected, atol=NEAR)
    assert max(sizes) > 15 >= min(sizes)


def test_steps_do_not_shrink_to_nothing_on_a_busy_machine(
    pictogram: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pictogram, "_positions_per_second", 1.0)
    monkeypatch.setattr(pictogram, "_note_speed", lambda positions, seconds: None)
    texts, sizes = pictogram.texts, []
    of_tree = texts.of_tree

    def watched(tree: Tree) -> np.ndarray:
        sizes.append(len(tree.tokens))
        return of_tree(tree)

    monkeypatch.setattr(texts, "of_tree", watched)
    pictogram.submit_texts([f"a photo of {n} cats" for n in range(100)]).result()
    assert min(sizes[:-1]) > LEAST_POSITIONS - 20


def test_a_closed_encoder_takes_nothing() -> None:
    encoder = load("pictogram")
    encoder.close()
    with pytest.raises(EncoderClosed):
        encoder.submit_texts(["cat"])


def test_word_memory_of_the_tokenizer_is_bounded(
    pictogram: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("models.tokens.WORD_CACHE_LIMIT", 50)
    before = pictogram.submit_texts(["zebra crossing"]).result()
    for start in range(0, 300, 10):
        pictogram.submit_texts(
            [f"qx{chr(97 + n % 26)}v{n}" for n in range(start, start + 10)]
        ).result()
    assert pictogram.tokens.remembered < 100
    np.testing.assert_allclose(
        pictogram.submit_texts(["zebra crossing"]).result(), before, atol=NEAR
    )
