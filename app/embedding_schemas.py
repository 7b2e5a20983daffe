"""What requests for embeddings send and are answered, as pydantic sees it. Knows no encoder."""

import base64
from typing import Annotated, Any, Final, Literal

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import to_json

from app.schemas import Templates

Floats = npt.NDArray[np.float32]
Encoding = Literal["float", "base64"]
Row = list[float] | str

ENCODING: Final = "`float`: numbers; `base64`: the row's float32 numbers, little-endian."

EncodingField = Annotated[Encoding, Field(description=ENCODING)]
Rows = Annotated[list[Row], Field(description="Rows of unit length, in the order of the request.")]
Cached = Annotated[int, Field(description="How many rows needed no encoding.")]


class TextsFields(BaseModel):
    """The JSON body of POST /embeddings/text."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    texts: list[str] = Field(
        description="Each is embedded as it is, in no template.", examples=[["a cat", "a dog"]]
    )
    templates: Templates | None = Field(
        None,
        description="A template set's name, or own templates with one `{}` each: the row of a text "
        "is then that of a label, the ensemble over these templates.",
    )
    encoding_format: EncodingField = "float"


class ImagesFields(BaseModel):
    """What POST /embeddings/image takes beside the images."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    encoding_format: EncodingField = "float"


class ImagesBody(ImagesFields):
    """The JSON body of POST /embeddings/image."""

    images: list[str] = Field(description="Image files in base64, or data URIs of them.")


class TextEmbeddingsAnswer(BaseModel):
    """The answer of POST /embeddings/text."""

    model: str
    fingerprint: str = Field(description="Vectors of one fingerprint can be compared.")
    width: int = Field(description="Numbers in each row.")
    templates: str | None = Field(description="The template set; null for bare texts.")
    cached: Cached
    embeddings: Rows


class EmbeddedImageAnswer(BaseModel):
    """An image that was embedded, upright, as a viewer shows it."""

    width: int
    height: int
    sha256: str
    cached: bool


class ImageEmbeddingsAnswer(BaseModel):
    """The answer of POST /embeddings/image."""

    model: str
    fingerprint: str
    width: int
    images: list[EmbeddedImageAnswer]
    cached: Cached
    embeddings: Rows


class OpenAiFields(BaseModel):
    """The JSON body of POST /v1/embeddings, but for its input, which has many forms."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True, protected_namespaces=())

    model: str | None = Field(None, description="The loaded model's name; any other is refused.")
    encoding_format: EncodingField = "float"
    dimensions: int | None = Field(None, description="Nothing but the width of the model.")
    modality: Literal["text", "image"] | None = Field(
        None, description="What all inputs are; if not said, data URIs are images, the rest texts."
    )
    user: str | None = Field(None, description="Taken and not used.")
    continue_final_message: bool = Field(False, description="As `user`; vLLM's clients send it.")
    add_special_tokens: bool = Field(False, description="As `user`; vLLM's clients send it.")


class OpenAiBody(OpenAiFields):
    """The JSON body of POST /v1/embeddings."""

    input: str | list[str | dict[str, Any]] | None = Field(
        None,
        description="A text or many; images as data URIs, or as URLs where the operator allows "
        'them and `modality` or the form says that they are images; or `{"text": …}` and '
        '`{"image": …}`; or parts of a chat message.',
        examples=[["a cat", "a dog"]],
    )
    messages: list[dict[str, Any]] | None = Field(
        None, description="In place of `input`: one chat message with one text or image."
    )


class OpenAiEmbedding(BaseModel):
    """One row."""

    object: Literal["embedding"] = "embedding"
    index: int
    embedding: Row


class OpenAiUsage(BaseModel):
    """How much was asked: inputs, because tokens are not counted here."""

    prompt_tokens: int
    total_tokens: int


class OpenAiAnswer(BaseModel):
    """The answer of POST /v1/embeddings."""

    object: Literal["list"] = "list"
    model: str
    usage: OpenAiUsage
    data: list[OpenAiEmbedding]


class OpenAiModel(BaseModel):
    """The loaded model."""

    id: str
    object: Literal["model"] = "model"
    created: int = Field(0, description="Not known, so 0.")
    owned_by: str = "openvocab"


class OpenAiModels(BaseModel):
    """The answer of GET /v1/models."""

    object: Literal["list"] = "list"
    data: list[OpenAiModel]


def rows_as_json(rows: Floats, encoding: Encoding) -> list[bytes]:
    """Each row (D,) of `rows` (N, D) as JSON: numbers that read back to the same float32, or text.

    Row by row, so that in a thread other requests get their turn between two of them.
    """
    little = rows.astype("<f4", copy=False)
    if encoding == "base64":
        return [b'"' + base64.b64encode(row.tobytes()) + b'"' for row in little]
    return [to_json(row.tolist()) for row in little]


def with_rows(head: dict[str, Any], name: str, items: list[bytes]) -> bytes:
    """A JSON object of `head` and then `name`, a list of items that are JSON already."""
    begun = to_json(head).removesuffix(b"}")
    return b"%b,%b:[%b]}\n" % (begun, to_json(name), b",".join(items))
