"""The request body of POST /classify as OpenAPI shows it: three forms, with examples that work."""

from typing import Any, Final

from app.api.fields import ClassifyBody, ClassifyFields

# a red square of 8 x 8 pixels, PNG
TINY_PNG: Final = (
    "iVBORw0KGgoAAAANSUhEUgAAAAgAAAAICAIAAABLbSncAAAAEUlEQVR42mP4z8CAFTEMLQkAKP8/wc53yE8AAAAASUVORK5C"
    "YII="
)

CLASSIFY_DESCRIPTION: Final = """\
Which of these labels fits the image best?

* **Form**: `curl -F image=@cat.png -F labels=cat,dog localhost:8000/classify`
* **Raw body**: `curl --data-binary @cat.png 'localhost:8000/classify?labels=cat,dog'`
* **JSON**: `{"image": "<base64 or data URI>", "labels": ["cat", "dog"]}`

`Accept: text/plain` answers `score<TAB>label` lines, `text/csv` a table, anything else JSON.
"""


BATCH_DESCRIPTION: Final = """\
The same labels for many images; a result or an error for each.

* **Form**: `curl -F labels=cat,dog -F image=@a.png -F image=@b.png localhost:8000/classify/batch`;
  the fields come before the images.
* **ZIP or TAR** (also compressed) as the body, the fields in the address.
* **JSON**: `{"images": ["<base64>", {"name": "b.png", "image": "<base64>"}], "labels": [...]}`

`Accept: application/x-ndjson` answers a line for each image as soon as it is done, with its index.
"""


def batch_body() -> dict[str, Any]:
    """The `requestBody` object of a batch."""
    body = classify_body()
    content = body["requestBody"]["content"]
    form = content["multipart/form-data"]["schema"]
    files = {"type": "array", "items": {"type": "string", "format": "binary"}}
    form = {**form, "properties": {**form["properties"], "image": files}}
    schema = ClassifyFields.model_json_schema()
    images = {"type": "array", "minItems": 1, "items": {"type": "string"}}
    batch = {**schema, "properties": {"images": images, **schema["properties"]}}
    batch["required"] = ["images"]
    file = {"schema": {"type": "string", "format": "binary"}}
    body["requestBody"]["content"] = {
        "multipart/form-data": {"schema": form},
        "application/json": {"schema": batch},
        "application/zip": file,
        "application/x-tar": file,
    }
    return body


def classify_body() -> dict[str, Any]:
    """The `requestBody` object (OpenAPI 3.1) and the query parameters of the raw form."""
    fields = ClassifyFields.model_json_schema()
    form = {
        **fields,
        "properties": {"image": {"type": "string", "format": "binary"}, **fields["properties"]},
        "required": ["image", "labels"],
    }
    return {
        "requestBody": {
            "required": True,
            "content": {
                "multipart/form-data": {"schema": form},
                "application/json": {
                    "schema": ClassifyBody.model_json_schema(),
                    "examples": {
                        "red": {
                            "summary": "A red square",
                            "value": {"image": TINY_PNG, "labels": ["red square", "cat"]},
                        }
                    },
                },
                "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
            },
        },
        "parameters": [
            {
                "name": name,
                "in": "query",
                "required": False,
                "description": f"For the raw body: {schema.get('description', '')}",
                "schema": {k: v for k, v in schema.items() if k not in ("description", "title")},
            }
            for name, schema in fields["properties"].items()
        ],
    }
