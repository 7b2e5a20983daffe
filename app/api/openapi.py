"""The bodies of routes as OpenAPI shows them, those of POST /classify and /classify/batch whole."""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Final

from app.api.bodies import FORM, JSON
from app.api.fields import ClassifyBody, ClassifyFields

Schema = dict[str, Any]

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

`image_sha256` in place of the image, from an earlier answer's `image.sha256`, asks for other labels
of the same picture without sending it again; 404 `image_unknown` where it is no longer remembered.

`Accept: text/plain` answers `score<TAB>label` lines, `text/csv` a table, anything else JSON.
"""


BATCH_DESCRIPTION: Final = """\
The same labels for many images; a result or an error for each.

* **Form**: `curl -F labels=cat,dog -F image=@a.png -F image=@b.png localhost:8000/classify/batch`;
  the fields come before the images.
* **ZIP or TAR** (also compressed) as the body, the fields in the URL.
* **JSON**: `{"images": ["<base64>", {"name": "b.png", "image": "<base64>"}], "labels": [...]}`

`Accept: application/x-ndjson` answers a line for each image, with its index, as soon as it is
done and the body has arrived; `text/csv` a table and `text/plain` lines, both in the order of the
images.
"""


FILE: Final = {"type": "string", "format": "binary", "description": "The image file."}
FILES: Final = {"type": "array", "items": FILE, "description": "The image files."}
ARCHIVE: Final = FILE | {"description": "An archive of image files."}
CODED: Final = {
    "type": "string",
    "description": "Base64 or a data URI.",
    "examples": [TINY_PNG],
}
LINES: Final = {
    "schema": {"type": "string", "description": "A line for each prediction, best first."},
    "examples": {"cat": {"value": "0.981203\tcat\n0.012345\tdog\n"}},
}
TABLE: Final = {
    "schema": {
        "type": "string",
        "description": "A header and a line for each prediction; "
        "with `coverage` also the column `set`.",
    },
    "examples": {"cat": {"value": "label,score,similarity\r\ncat,0.981203,0.41\r\n"}},
}


BATCH_LINES: Final = {
    "schema": {
        "type": "string",
        "description": "A line for each prediction, picture by picture, with its file at the end.",
    },
    "examples": {"cat": {"value": "0.981203\tcat\ta.png\n-\terror: the image is empty\tb.png\n"}},
}
BATCH_TABLE: Final = {
    "schema": {
        "type": "string",
        "description": "A header and a line for each prediction; a picture without any has one "
        "line, with the reason or the error. With `coverage` also the column `set`.",
    },
    "examples": {
        "cat": {
            "value": "index,name,label,score,similarity,reason,error\r\n"
            "0,a.png,cat,0.981203,0.41,,\r\n"
        }
    },
}


def body(
    schemas: Mapping[str, Schema],
    parameters: Sequence[Schema] = (),
    examples: Mapping[str, Schema] | None = None,
) -> Schema:
    """A route's `openapi_extra` for a body with one of these schemas, by media type.

    `examples` are what stands beside a schema, by media type as well.
    """
    beside = examples or {}
    content = {kind: {"schema": schema, **beside.get(kind, {})} for kind, schema in schemas.items()}
    request = {"requestBody": {"required": True, "content": content}}
    return {"parameters": [*parameters], **request} if parameters else request


def titled(title: str, schema: Schema) -> Schema:
    """The schema of a body with a title, by which the document names it.

    Defaults are told in words: generators would send each default, or require the field.
    """
    properties = {
        name: _in_words(property_schema)
        for name, property_schema in schema.get("properties", {}).items()
    }
    return {"type": "object", **schema, "properties": properties, "title": title}


def _in_words(schema: Schema) -> Schema:
    rest = {key: value for key, value in schema.items() if key != "default"}
    if schema.get("default") in (None, "", {}):
        return rest
    default = json.dumps(schema["default"])
    return rest | {"description": f"{schema.get('description', '')} Default: `{default}`.".strip()}


def batch_body() -> Schema:
    """The body of a batch, with the query parameters of an archive."""
    fields = ClassifyFields.model_json_schema()
    item = titled(
        "NamedImage",
        {
            "properties": {
                "image": {"type": "string", "description": "Base64 or a data URI."},
                "name": {"type": "string", "description": "Returned with the result."},
            },
            "required": ["image"],
        },
    )
    images = {
        "type": "array",
        "minItems": 1,
        "items": {"anyOf": [{"type": "string"}, item]},
        "description": "The images: base64 or data URIs, each alone or with a name.",
        "examples": [[TINY_PNG]],
    }
    files = FILES | {"description": "The image files, after all fields."}
    batch = {**fields, "properties": {"images": images, **fields["properties"]}}
    return body(
        {
            FORM: titled("BatchForm", _form(fields["properties"], files)),
            JSON: titled("BatchRequest", {**batch, "required": ["images"]}),
            "application/zip": ARCHIVE,
            "application/x-tar": ARCHIVE,
        },
        url_fields(fields["properties"], "For the raw body: "),
    )


def classify_body() -> Schema:
    """The body of a classification, with the query parameters of the raw form."""
    fields = ClassifyFields.model_json_schema()
    form = _form(fields["properties"], FILE)
    request = ClassifyBody.model_json_schema()
    for name in ("image_sha256", "image_url"):
        form["properties"][name] = _in_words(request["properties"][name])
    red = {"image": TINY_PNG, "labels": ["red square", "cat"]}
    return body(
        {
            FORM: titled("ClassifyForm", form),
            JSON: titled("ClassifyRequest", request),
            "application/octet-stream": FILE,
        },
        url_fields(fields["properties"], "For the raw body: "),
        {JSON: {"examples": {"red": {"summary": "A red square", "value": red}}}},
    )


def url_fields(fields: Schema, when: str = "") -> list[Schema]:
    """The parameters of a route that reads these fields from the URL."""
    return [
        {
            "name": name,
            "in": "query",
            "required": False,
            "description": f"{when}{schema.get('description', '')}",
            "schema": {k: v for k, v in schema.items() if k != "description"},
        }
        for name, schema in form_properties(fields).items()
    ]


def _condition(name: str, description: str, example: str) -> Schema:
    schema = {"type": "string", "examples": [example]}
    return {
        "name": name, "in": "header", "required": False, "description": description,
        "schema": schema,
    }  # fmt: skip


ETAG: Final = '"1795437262838"'
IF_MATCH: Final = _condition("If-Match", "Change this version only: its `ETag`.", ETAG)
IF_ABSENT: Final = _condition("If-None-Match", "Create only: `*`.", "*")
IF_CHANGED: Final = _condition("If-None-Match", "An `ETag`; 304 while it is the same.", ETAG)


def _form(fields: Schema, image: Schema) -> Schema:
    # nothing is required: a generator writes that first, and would send images before the fields
    return {
        "description": "The fields of a classification, and the image as a file.",
        "properties": {**form_properties(fields), "image": image},
    }


def form_properties(fields: Schema) -> Schema:
    """The fields as a form or a query sends them: without null."""
    properties = {}
    for name, property_schema in fields.items():
        schema = _in_words(property_schema)
        options = [kind for kind in schema.get("anyOf", []) if kind.get("type") != "null"]
        rest = {k: v for k, v in schema.items() if k not in ("anyOf", "title")}
        if len(options) == 1:
            properties[name] = options[0] | rest
        elif options:
            properties[name] = {"anyOf": options} | rest
        else:
            properties[name] = rest
        if name == "boxes":  # an array of arrays has no form of its own in forms and queries
            properties[name] = {
                "type": "string",
                "description": f"{schema['description']} As a JSON list.",
                "examples": ["[[0, 0, 0.5, 1], [0.5, 0, 0.5, 1]]"],
            }
    return properties
