"""The OpenAPI document of the whole application, for people and for generators of clients.

FastAPI writes it; here every schema gets a name, every property a text and an example, and every
response a sentence.
"""

from collections.abc import Iterator
from typing import Any, Final

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

Schema = dict[str, Any]

TAGS: Final = {
    "Classify": "Which of your labels fit an image, or many images.",
    "Label sets": "Vocabularies that are registered once and used by name.",
    "Examples and calibration": "Labelled images that make a label set better.",
    "Embeddings": "The vectors behind the scores.",
    "Server": "Models, template sets, vocabularies, health and metrics. Health needs no key.",
    "OpenAI's API": "For clients of OpenAI's embeddings.",
    "Hugging Face's API": "For clients of Hugging Face's inference.",
    "immich's API": "For immich's smart search.",
    "PhotoPrism's API": "For PhotoPrism's labels.",
}

# routes that are answered without a key, whatever the server's keys are
OPEN: Final = ("/healthz", "/readyz", "/ping")

PROBLEMS: Final = {
    "400": "The URL or the body cannot be parsed.",
    "401": "The API key is missing or unknown.",
    "403": "The API key lacks the scope.",
    "404": "It does not exist.",
    "408": "The body did not arrive in time.",
    "409": "It already exists, this release cannot read it, or the picture is an example of "
    "another label.",
    "412": "Somebody else changed it (`If-Match`), or it exists (`If-None-Match: *`).",
    "413": "A size or count is over its limit; `field`, `limit` and `value` say which.",
    "415": "The image's format, or the `Content-Encoding` of the body, is not supported.",
    "422": "A field is invalid; `field`, `limit` and `value` say which.",
    "429": "Too many requests for this key; see `Retry-After`.",
    "502": "An image could not be fetched from its URL.",
    "503": "The server is busy, starting or stopping; see `Retry-After`.",
    "504": "The request ran out of time.",
}

RESPONSES: Final = {
    "classify": "Labels with their scores, best first.",
    "classifyBatch": "A result or an error for each image, in order.",
    "createLabelset": "The label set, ready to use.",
    "putLabelset": "The label set, replaced.",
    "getLabelset": "The label set.",
    "listLabelsets": "Label sets by name, a page at a time.",
    "calibrateLabelset": "The calibration, and its results on held-out pictures.",
    "getCalibration": "The calibration.",
    "addExamples": "The examples of each label after the change.",
    "listExamples": "Examples in the order in which they were added, a page at a time.",
    "getExamplePicture": "The picture, as it was sent.",
    "deleteExample": "The examples of each label after the change.",
    "deleteExamples": "The examples of each label after the change.",
    "embedTexts": "A vector for each text.",
    "embedImages": "A vector for each image.",
    "openaiCreateEmbeddings": "A vector for each input.",
    "openaiListModels": "The models and their aliases.",
    "openaiGetModel": "The model.",
    "hfZeroShotImageClassification": "Labels with their scores, best first.",
    "immichPing": "`pong`.",
    "immichPredict": "The vector, in immich's format.",
    "photoprismLabels": "Labels with their confidence, best first.",
    "listTemplates": "The template sets, and the default.",
    "listVocabularies": "The vocabularies that ship with the service: lists of labels by name.",
    "getModels": "The models, and the size of their caches.",
    "getHealth": "The process responds.",
    "getReadiness": "The model works.",
    "getMetrics": "Metrics in Prometheus' text format.",
}
LATER: Final = {
    "202": "Accepted; the build continues, and GET says when it is ready.",
    "204": "Deleted.",
    "304": "Unchanged since the ETag in `If-None-Match`.",
}

# by name of the property: its description, unless the schema has one of its own, and an example
GLOSSARY: Final[dict[str, tuple[str, Any]]] = {
    "abstained": ("", False),
    "added": ("How many were added.", None),
    "ExampleAnswer.added": ("When it was added.", "2026-01-31T12:00:00Z"),
    "away": ("Whether the store is unavailable.", False),
    "aliases": ("Other names of it.", ["default"]),
    "background": ("", "white"),
    "backend": ("Runs the model: `torch` or `openvino`.", "openvino"),
    "box": ("The part of the picture.", None),
    "boxes": ("A result for each box, in order.", None),
    "bytes": ("Size in bytes.", 48_213),
    "cached": ("", 2),
    "ImageAnswer.cached": ("", False),
    "EmbeddedImageAnswer.cached": ("Whether the image was encoded before.", False),
    "calibration": ("The calibration, if there is one.", None),
    "code": ("", "similarity_below_floor"),
    "context_length": ("Maximum number of tokens of a prompt.", 77),
    "count": ("How many there are.", 2),
    "data": ("The results, in the order of the input.", None),
    "default": ("The template set of requests that name none.", "imagenet"),
    "ModelAnswer.default": ("Whether it answers requests that name no model.", True),
    "default_templates": ("The template set that suits the model best.", "imagenet"),
    "description": ("A description.", "What comes through the cat flap"),
    "detail": ("What happened, in a sentence.", "top_k: input should be greater than 0"),
    "device": ("Where the model runs.", "cpu"),
    "embedding": ("The vector, as numbers or base64.", [0.0123, -0.0456]),
    "embedding_width": ("Numbers in a vector.", 512),
    "encoding_format": ("", "float"),
    "entries": ("Number of entries.", 128),
    "error": ("Why there is no result.", None),
    "examples": ("The examples.", None),
    "failed": ("How many failed.", 0),
    "field": ("The field at fault.", "top_k"),
    "fingerprint": ("Digest of the model; vectors of others cannot be compared.", "9f2c41d0"),
    "height": ("Height in pixels.", 480),
    "heatmap": ("", "data:image/png;base64,iVBORw0…"),
    "hits": ("Look-ups that found an entry.", 512),
    "id": ("The identifier.", "pictogram"),
    "image": ("The image, upright.", None),
    "image_cache": ("Embeddings of images in memory.", None),
    "image_height": ("Height in pixels of what the model sees.", 224),
    "image_width": ("Width in pixels of what the model sees.", 224),
    "images": ("The images, in order.", None),
    "images_at_once": (
        "Images of a forward pass, or up to twice as many: the number at which an image costs the "
        "processor least, as measured when the model was exported; null if all run together.",
        8,
    ),
    "index": ("Place in the order of the input, from 0.", 0),
    "label": ("The label.", "cat"),
    "label_count": ("How many labels it has.", 3),
    "labels": ("The labels, in order.", ["cat", "dog"]),
    "labelset": ("The label set used; null for labels of the request.", "pets"),
    "labelset_cache": ("Label sets in memory.", None),
    "labelsets": ("Label sets by name.", None),
    "language": ("Language of the templates (BCP 47).", "en"),
    "languages": ("Languages that the model understands (BCP 47).", ["en"]),
    "licence": ("Licence of the weights (SPDX).", "MIT"),
    "rows_cached": ("", 2),
    "limit": ("The limit.", 1),
    "log_loss": ("Mean negative log-likelihood of the right label.", 0.31),
    "logit_bias": ("Bias of a model that was trained with a sigmoid, else null.", None),
    "logit_scale": ("Factor of the cosines before the softmax.", 100.0),
    "max_bytes": ("Maximum size in bytes.", 268_435_456),
    "misses": ("Look-ups that found nothing.", 64),
    "model": ("The model used.", "pictogram"),
    "name": ("The name.", "pets"),
    "object": ("The kind of object, for clients of OpenAI.", None),
    "own_templates": ("Its own templates, if it has any.", ["a photo of a {}."]),
    "owned_by": ("`openvocab`.", None),
    "parameters": ("Labels and template.", None),
    "precision": ("Number format of the weights.", "fp32"),
    "predictions": ("Labels with scores, best first.", None),
    "prompt_tokens": ("Number of inputs; tokens are not counted.", 2),
    "prompts": ("Whole prompts of a label, used as they are.", {"cat": ["a cat asleep"]}),
    "prompts_with": ("`templates` if prompts are used in addition to the templates.", "templates"),
    "reason": ("Why there are no predictions.", None),
    "removed": ("How many were removed.", None),
    "request_id": ("The request ID, as in the log and in X-Request-ID.", "5f0c1e9a"),
    "result": ("The result for this image.", None),
    "results": ("A result for each.", None),
    "score": ("From 0 to 1.", 0.981203),
    "sets": ("The template sets.", None),
    "sha256": ("SHA-256 of the bytes received.", "9f86d081884c7d65"),
    "similarity": ("Cosine of image and label.", 0.412),
    "source": ("Where the weights come from.", "https://example.org/weights"),
    "status": ("", "ready"),
    "HealthAnswer.status": ("`ok`.", None),
    "Problem.status": ("The HTTP status.", 422),
    "Problem.detail": ("What happened, the limit, and what to do.", "labels is missing"),
    "ReadyAnswer.status": ("`degraded` while the store or another model is unavailable.", None),
    "ReadyAnswer.store": ("The state of the store.", None),
    "state": ("`loaded`, `loading`, `idle` or `failed`.", None),
    "store": ("The store behind the vectors in memory.", None),
    "templates": ("", "imagenet"),
    "LabelSetRequest.templates": ("", ["imagenet"]),
    "TextsRequest.templates": ("", ["imagenet"]),
    "TemplateSetAnswer.templates": ("The templates.", ["a photo of a {}."]),
    "text_family": ("How the text tower pools.", "clip"),
    "title": ("The kind of problem, in words.", "A field is invalid"),
    "total_tokens": ("Number of inputs; tokens are not counted.", 2),
    "trims_text": ("Whether prompts are encoded without padding, with the same result.", True),
    "type": ("The kind of problem, as a URN.", None),
    "usage": ("Number of inputs; tokens are not counted.", None),
    "value": ("The value that was sent.", 0),
    "ReasonAnswer.value": ("The value reached.", 0.19),
    "ReasonAnswer.limit": ("The value required.", 0.22),
    "vector_cache": ("Label vectors in memory.", None),
    "version": ("Grows with each change.", 1),
    "vocabularies": ("The vocabularies, by name.", None),
    "threads": ("", 8),
    "cpu_ms": ("", {"1": 27.4, "8": 22.9, "32": 22.9}),
    "ms": ("", {"1": 15.1, "8": 12.2, "32": 12.1}),
    "weights_bytes": ("Size of the weights in bytes: of tensors, or of mapped files.", 54000000),
    "VocabularyAnswer.description": ("What it is good for.", "Animals of the house and the zoo."),
    "VocabularyAnswer.labelset": ("The `labelset` that selects it.", "preset:animals"),
    "VocabularyAnswer.name": ("The name.", "animals"),
    "VocabularyAnswer.source": ("Where the labels come from.", "written for this project"),
    "warnings": ("Guesses that were made, and omissions.", []),
    "width": ("Width in pixels.", 640),
    "TextEmbeddingsAnswer.width": ("", 512),
    "ImageEmbeddingsAnswer.width": ("Numbers in a vector.", 512),
    "accuracy": ("", 0.93),
    "abstain": ("", True),
    "add_special_tokens": ("", True),
    "continue_final_message": ("", False),
    "coverage": ("", 0.87),
    "error_type": ("", "invalid"),
    "Problem.error": ("", "labels is missing"),
    "explain": ("", True),
    "explains": ("", True),
    "floor": ("", 0.21),
    "kind": ("", "sqlite"),
    "lost": ("", 0),
    "margin": ("", 0.02),
    "multi_label": ("", True),
    "others": ("", 12),
    "pictures": ("", 200),
    "preset": ("", "imagenet-1k"),
    "progress": ("", 0.5),
    "risk": ("", 0.05),
    "risk_at_most": ("", 0.08),
    "temperature": ("", 1.3),
    "threshold": ("", 0.2),
    "top_k": ("", 3),
    "tried": ("", 20),
    "truncate": ("", False),
    "weight": ("", 0.3),
    "ClassifyRequest.image": ("", "data:image/png;base64,iVBORw0…"),
    "NamedImage.image": ("", "data:image/png;base64,iVBORw0…"),
    "VisionResult.labels": ("The labels, best first.", None),
    "x": ("Pixels from the left.", 0),
    "y": ("Pixels from the top.", 0),
}


# a class may not be called as the exception that it describes
RENAMED: Final = {"ProblemAnswer": "Problem"}


def document(app: FastAPI) -> Schema:
    """The OpenAPI 3.1 document, made once for an application."""
    if app.openapi_schema is None:
        app.openapi_schema = _completed(
            get_openapi(
                title=app.title, version=app.version, summary=app.summary, routes=app.routes
            )
        )
    return app.openapi_schema


def _completed(api: Schema) -> Schema:
    schemas: Schema = api["components"]["schemas"]
    # problems are ours, not the framework's
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    named = _Names(schemas)
    for path, item in api["paths"].items():
        for operation in item.values():
            _complete(operation, path)
            for content in _contents(operation):
                if "schema" in content:
                    content["schema"] = named.lifted(content["schema"])
    for name, schema in list(schemas.items()):
        schemas[RENAMED.get(name, name)] = named.lifted(schema, top=True)
    for name in RENAMED:
        del schemas[name]
    for name, schema in schemas.items():
        for field, property_schema in schema.get("properties", {}).items():
            _explain(name, field, property_schema)
    api["components"]["schemas"] = dict(sorted(schemas.items()))
    api["components"]["securitySchemes"] = {
        "apiKey": {
            "type": "http",
            "scheme": "bearer",
            "description": "A key of this server (`openvocab keys new`), where it has keys.",
        }
    }
    api["tags"] = [{"name": name, "description": text} for name, text in TAGS.items()]
    return api


def _complete(operation: Schema, path: str) -> None:
    for status, response in operation["responses"].items():
        if status in PROBLEMS:
            response["description"] = PROBLEMS[status]
        elif status in ("200", "201") and operation["operationId"] in RESPONSES:
            response["description"] = RESPONSES[operation["operationId"]]
        else:
            response["description"] = LATER[status]
    responses = operation["responses"]
    if "HTTPValidationError" in str(responses.get("422", "")):
        del responses["422"]
    operation["security"] = [] if path in OPEN else [{}, {"apiKey": []}]
    for parameter in operation.get("parameters", []):
        text, example = GLOSSARY.get(parameter["name"], ("", None))
        parameter.setdefault("description", text)
        if example is not None and not parameter["schema"].keys() & {"examples", "default"}:
            parameter["schema"].setdefault("examples", [example])


def _contents(operation: Schema) -> Iterator[Schema]:
    yield from operation.get("requestBody", {}).get("content", {}).values()
    for response in operation["responses"].values():
        yield from response.get("content", {}).values()


class _Names:
    """Moves schemas that have a title, or are in `$defs`, to the named ones."""

    def __init__(self, schemas: Schema) -> None:
        self._schemas = schemas

    def lifted(self, schema: Any, *, top: bool = False) -> Any:
        """The schema, or a reference to it; titles of properties are removed."""
        if isinstance(schema, list):
            return [self.lifted(part) for part in schema]
        if not isinstance(schema, dict):
            return schema
        schema = dict(schema)
        for name, part in schema.pop("$defs", {}).items():
            self._schemas[name] = self.lifted(part, top=True)
        title = schema.get("title")
        if not top and not ("properties" in schema and isinstance(title, str)):
            schema.pop("title", None)
        lifted_schema: Schema = {}
        for key, value in schema.items():
            if key == "properties":
                lifted_schema[key] = {name: self.lifted(part) for name, part in value.items()}
            elif key == "$ref":
                name = value.rpartition("/")[2]
                lifted_schema[key] = f"#/components/schemas/{RENAMED.get(name, name)}"
            elif key in ("examples", "example", "default", "enum", "const"):
                lifted_schema[key] = value
            else:
                lifted_schema[key] = self.lifted(value)
        if top or "properties" not in lifted_schema or "title" not in lifted_schema:
            return lifted_schema
        self._schemas[lifted_schema["title"]] = lifted_schema
        return {"$ref": f"#/components/schemas/{lifted_schema['title']}"}


def _explain(name: str, field: str, schema: Schema) -> None:
    text, example = GLOSSARY.get(f"{name}.{field}", GLOSSARY.get(field, ("", None)))
    if "$ref" not in schema or text:
        schema.setdefault("description", text)
    if example is not None and not schema.keys() & {"default", "enum", "$ref"}:
        schema.setdefault("examples", [example])
