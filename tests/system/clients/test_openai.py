"""The Python client openai against a live server: texts, images, encodings, models and errors."""

import asyncio
import base64
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import openai
import pytest
from openai import OpenAI

from models.encoder import Encoder

TEXTS = ["a cat", "a dog", "a rocket"]


@pytest.fixture
def ai(url: str) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as sdk:
        yield sdk


def rows(answer: openai.types.CreateEmbeddingResponse) -> np.ndarray:
    assert [item.index for item in answer.data] == list(range(len(answer.data)))
    return np.array([item.embedding for item in answer.data], np.float32)


def data_uri(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def test_a_text_and_a_list_of_texts_have_the_encoders_own_rows(
    ai: OpenAI, pictogram: Encoder
) -> None:
    reference = pictogram.submit_texts(TEXTS).result()
    answer = ai.embeddings.create(model="pictogram", input=TEXTS)
    np.testing.assert_allclose(rows(answer), reference, atol=1e-6)
    alone = ai.embeddings.create(model="pictogram", input=TEXTS[1])
    np.testing.assert_array_equal(rows(alone), rows(answer)[1:2])
    assert answer.model == "pictogram"
    assert (answer.usage.prompt_tokens, answer.usage.total_tokens) == (3, 3)


def test_both_encodings_carry_the_same_float32(ai: OpenAI) -> None:
    default = rows(ai.embeddings.create(model="pictogram", input=TEXTS))
    numbers = ai.embeddings.create(model="pictogram", input=TEXTS, encoding_format="float")
    coded = ai.embeddings.create(model="pictogram", input=TEXTS, encoding_format="base64")
    np.testing.assert_array_equal(rows(numbers), default)
    for row, item in zip(default, coded.data, strict=True):
        assert isinstance(item.embedding, str)
        np.testing.assert_array_equal(np.frombuffer(base64.b64decode(item.embedding), "<f4"), row)


@pytest.mark.parametrize("body", [{}, {"modality": "image"}], ids=["detected", "told"])
def test_data_uris_are_images(
    ai: OpenAI, client: httpx.Client, samples: dict[str, Path], body: dict[str, str]
) -> None:
    files = [samples["cat"], samples["rocket"]]
    answer = ai.embeddings.create(
        model="pictogram", input=[data_uri(file) for file in files], extra_body=body
    )
    document = client.post(
        "/embeddings/image", files=[("image", file.read_bytes()) for file in files]
    ).json()
    np.testing.assert_allclose(rows(answer), document["embeddings"], atol=1e-6)


def test_bare_base64_is_an_image_where_that_is_told(ai: OpenAI, samples: dict[str, Path]) -> None:
    uri = data_uri(samples["cat"])
    answer = ai.embeddings.create(
        model="pictogram", input=uri.partition(",")[2], extra_body={"modality": "image"}
    )
    by_uri = ai.embeddings.create(model="pictogram", input=uri)
    np.testing.assert_allclose(rows(answer), rows(by_uri), atol=1e-6)


def test_texts_and_images_of_one_request_keep_their_order(
    ai: OpenAI, samples: dict[str, Path]
) -> None:
    cat, rocket = data_uri(samples["cat"]), data_uri(samples["rocket"])
    mixed: Any = ["a cat", cat, {"text": "a rocket"}, {"image": rocket.partition(",")[2]}]
    vectors = rows(ai.embeddings.create(model="pictogram", input=mixed))
    cosines = vectors @ vectors.T
    np.testing.assert_allclose(np.diag(cosines), 1, atol=1e-5)
    assert cosines[0, 1] > cosines[0, 3]
    assert cosines[2, 3] > cosines[2, 1]


def test_the_forms_of_other_servers_of_clip_are_understood(
    ai: OpenAI, samples: dict[str, Path]
) -> None:
    """Parts of messages as OpenRouter takes them, and messages as vLLM's clients send them."""
    uri = data_uri(samples["cat"])
    parts: list[Any] = [
        {"type": "image_url", "image_url": {"url": uri}},
        {"type": "text", "text": "a cat"},
    ]
    expected = rows(ai.embeddings.create(model="pictogram", input=[uri, "a cat"]))
    wrapped: Any = [{"content": [part]} for part in parts]
    for items in (parts, wrapped):
        vectors = rows(ai.embeddings.create(model="pictogram", input=items))
        np.testing.assert_allclose(vectors, expected, atol=1e-6)
    for part, row in zip(parts, expected, strict=True):
        answer = ai.post(
            "/embeddings",
            cast_to=openai.types.CreateEmbeddingResponse,
            body={
                "model": "pictogram",
                "messages": [{"role": "user", "content": [part]}],
                "encoding_format": "float",
                "continue_final_message": False,
                "add_special_tokens": False,
            },
        )
        np.testing.assert_allclose(rows(answer)[0], row, atol=1e-6)
    for messages in ([], [{"role": "system", "content": "x"}], [{"role": "user"}] * 2, "x"):
        with pytest.raises(openai.UnprocessableEntityError) as caught:
            ai.post("/embeddings", cast_to=object, body={"messages": messages})
        assert caught.value.param == "messages"


def test_a_data_uri_is_a_text_where_that_is_told(ai: OpenAI, pictogram: Encoder) -> None:
    uri = "data:image/png;base64,aGk="
    answer = ai.embeddings.create(
        model="pictogram", input=[uri, "a cat"], extra_body={"modality": "text"}
    )
    reference = pictogram.submit_texts([uri, "a cat"]).result()
    np.testing.assert_allclose(rows(answer), reference, atol=1e-6)


def test_the_width_itself_may_be_asked_for_and_nothing_else(ai: OpenAI, pictogram: Encoder) -> None:
    width = pictogram.info.embedding_width
    answer = ai.embeddings.create(model="pictogram", input="a cat", dimensions=width)
    assert rows(answer).shape == (1, width)
    with pytest.raises(openai.UnprocessableEntityError) as caught:
        ai.embeddings.create(model="pictogram", input="a cat", dimensions=64)
    assert caught.value.param == "dimensions"
    assert f"pictogram has {width} dimensions" in caught.value.message


def test_the_loaded_model_is_listed_and_no_other_is_taken(ai: OpenAI) -> None:
    assert [model.id for model in ai.models.list()] == ["pictogram"]
    assert ai.models.retrieve("pictogram").id == "pictogram"
    for call in (
        lambda: ai.models.retrieve("openai/clip"),
        lambda: ai.embeddings.create(model="openai/clip", input="a cat"),
    ):
        with pytest.raises(openai.NotFoundError) as caught:
            call()
        assert caught.value.code == "model_not_found"
        assert caught.value.param == "model"
        assert "this server has pictogram" in caught.value.message


@pytest.mark.parametrize(
    ("content", "kind", "code", "message"),
    [
        ([1, 2, 3], openai.UnprocessableEntityError, "invalid", "input holds token ids"),
        ([[1, 2], [3]], openai.UnprocessableEntityError, "invalid", "input holds token ids"),
        (["a", []], openai.UnprocessableEntityError, "invalid", "input[1] is not a text"),
        ([["a cat"]], openai.UnprocessableEntityError, "invalid", "input[0] is not a text"),
        ([], openai.UnprocessableEntityError, "invalid", "input is missing"),
        (["a cat", " "], openai.UnprocessableEntityError, "invalid", "number 2 of input is empty"),
        (["a cat", None], openai.UnprocessableEntityError, "invalid", "input[1] is not a text"),
        ([{"audio": "x"}], openai.UnprocessableEntityError, "invalid", "input[0] is not a text"),
        (
            [{"content": [{"type": "text", "text": "a"}] * 2}],
            openai.UnprocessableEntityError,
            "invalid",
            "input[0] has 2 parts",
        ),
        (
            ["a cat", {"image": "http://127.0.0.1/cat.png"}],
            openai.UnprocessableEntityError,
            "invalid",
            "input[1]: fetching images by URL is disabled on this server (OPENVOCAB_IMAGE_URLS",
        ),
        ("cat " * 200, openai.APIStatusError, "too_large", "or set truncate to take its beginning"),
        ("x" * 2001, openai.APIStatusError, "too_large", "is 2000; set truncate"),
        (["a"] * 2049, openai.APIStatusError, "too_large", "the limit is 2048"),
        (
            ["data:image/png;base64,aGk=", "data:image/png;base64,!!"],
            openai.UnprocessableEntityError,
            "invalid",
            "input[1]: image is not base64",
        ),
        (
            ["data:image/png;base64,aGk="] * 2,
            openai.APIStatusError,
            "unsupported_image",
            "image 1 of 2: this is text",
        ),
        (
            ["data:image/png;base64,aGk="] * 65,
            openai.APIStatusError,
            "too_large",
            "65 images or more, the limit is 64",
        ),
    ],
)  # fmt: skip
def test_an_error_names_the_input_and_what_is_wrong_with_it(
    ai: OpenAI, content: Any, kind: type[openai.APIStatusError], code: str, message: str
) -> None:
    with pytest.raises(kind) as caught:
        ai.embeddings.create(model="pictogram", input=content)
    assert message in caught.value.message
    assert caught.value.param == "input"
    assert caught.value.code == code
    assert caught.value.type == "invalid_request_error"
    assert caught.value.request_id


def test_the_beginnings_of_long_texts_are_embedded_where_that_is_told(
    ai: OpenAI, pictogram: Encoder
) -> None:
    """Vector stores send documents, of any length and as many as OpenAI takes at once."""
    words = ["cat", "dog", "sun"] * 1_000
    texts = ["a cat", " ".join(words), *["a dog"] * 2_046]
    vectors = rows(
        ai.embeddings.create(model="pictogram", input=texts, extra_body={"truncate": True})
    )
    assert len(vectors) == len(texts)
    beginnings = [" ".join(words[:count]) for count in range(10, 31)]
    reference = pictogram.submit_texts(["a cat", "a dog", *beginnings]).result()
    np.testing.assert_allclose(vectors[[0, 2]], reference[:2], atol=1e-6)
    assert (reference[2:] @ vectors[1]).max() == pytest.approx(1, abs=1e-6)


def test_an_unknown_field_and_modality_are_refused(ai: OpenAI) -> None:
    with pytest.raises(openai.UnprocessableEntityError, match="unknown field 'task'"):
        ai.embeddings.create(model="pictogram", input="a cat", extra_body={"task": "x"})
    with pytest.raises(openai.UnprocessableEntityError, match="should be 'text' or 'image'"):
        ai.embeddings.create(model="pictogram", input="a cat", extra_body={"modality": "audio"})


def test_the_api_key_is_the_clients(guarded: str) -> None:
    with OpenAI(base_url=f"{guarded}/v1", api_key="a key of this test", max_retries=0) as ai_client:
        assert [model.id for model in ai_client.models.list()] == ["pictogram"]
    with (
        OpenAI(base_url=f"{guarded}/v1", api_key="another", max_retries=0) as stranger,
        pytest.raises(openai.AuthenticationError) as caught,
    ):
        stranger.embeddings.create(model="pictogram", input="a cat")
    assert caught.value.code == "unauthenticated"
    assert caught.value.type == "authentication_error"
    assert "unknown API key" in caught.value.message


def test_what_is_not_there_is_told_in_the_same_form(ai: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as caught:
        ai.chat.completions.create(model="pictogram", messages=[])
    assert caught.value.code == "not_found"
    assert "/v1/chat/completions not found" in caught.value.message


def test_a_base_url_without_v1_is_told_what_it_lacks(url: str) -> None:
    with (
        OpenAI(base_url=url, api_key="none", max_retries=0) as astray,
        pytest.raises(openai.NotFoundError, match="did you mean /v1/embeddings"),
    ):
        astray.embeddings.create(model="pictogram", input="a cat")


def test_the_asynchronous_client_is_answered_too(url: str) -> None:
    async def call() -> int:
        async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none") as ai:
            answer = await ai.embeddings.create(model="pictogram", input=TEXTS)
        return len(answer.data)

    assert asyncio.run(call()) == len(TEXTS)
