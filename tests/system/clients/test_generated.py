"""Clients that generators write from /openapi.json, against a live server."""

import base64
import importlib
import io
import json
import pkgutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
from jsonschema_rs import Draft202012Validator

LABELS = ["cat", "dog", "pizza"]

# apart from the service, since it holds typer to an older release
GENERATOR = Path(sys.prefix) / "tools/bin/openapi-python-client"

# what the generator has no client code for; each is said once for each route that takes it
ARCHIVES = ("application/zip", "application/x-tar", "text/plain", "image/*")

TYPED = """
import type { paths, components, operations } from "./api";

type Classify = operations["classify"];
const form: Classify["requestBody"]["content"]["multipart/form-data"] = {
  image: "", labels: ["cat", "dog"], top_k: 3,
};
const json: components["schemas"]["ClassifyRequest"] = { image: "", labels: ["cat"] };
type Found = Classify["responses"][200]["content"]["application/json"];
export function best(found: Found): string | undefined {
  return "predictions" in found ? found.predictions[0]?.label : undefined;
}
type Refused = paths["/labelsets"]["post"]["responses"][422]["content"]["application/problem+json"];
export const why = ({ field, detail }: Refused): string => `${field}: ${detail}`;
// @ts-expect-error: there is no such field
const wrong: typeof form = { image: "", label: "cat" };
export default [form, json, wrong];
"""


@pytest.fixture(scope="module")
def document(client: httpx.Client, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The server's description as a file."""
    path = tmp_path_factory.mktemp("openapi") / "openapi.json"
    path.write_bytes(client.get("/openapi.json").content)
    return path


@pytest.fixture(scope="module")
def generated(document: Path, environment: Mapping[str, str]) -> Iterator[ModuleType]:
    """The package that openapi-python-client writes."""
    assert GENERATOR.exists(), "the generator is missing: run make audit"
    ran = subprocess.run(
        [GENERATOR, "generate", "--path", document,
         "--output-path", document.parent / "generated_client", "--meta", "none"],
        capture_output=True, text=True, timeout=300, check=False,
        env={**environment, "PATH": f"{GENERATOR.parent}:{environment['PATH']}"},
    )  # fmt: skip
    assert ran.returncode == 0, ran.stdout + ran.stderr
    said = ran.stdout + ran.stderr
    warnings = [line for line in said.splitlines() if line.startswith(("Unsupported", "Cannot"))]
    assert len(warnings) <= 10
    assert all(any(kind in line for kind in ARCHIVES) for line in warnings), warnings
    sys.path.insert(0, str(document.parent))
    yield importlib.import_module("generated_client")
    sys.path.remove(str(document.parent))


def test_the_python_client_classifies_a_picture_in_each_form(
    generated: ModuleType, url: str, samples: dict[str, Path], client: httpx.Client
) -> None:
    classify = importlib.import_module("generated_client.api.classify.classify")
    models = importlib.import_module("generated_client.models")
    types = importlib.import_module("generated_client.types")
    caller = generated.Client(base_url=url)

    def file() -> Any:
        return types.File(payload=io.BytesIO(samples["cat"].read_bytes()), file_name="cat.png")

    uri = f"data:image/png;base64,{base64.b64encode(samples['cat'].read_bytes()).decode()}"
    form = models.ClassifyForm(image=file(), labels=LABELS, top_k=2, multi_label=False)
    request = models.ClassifyRequest(image=uri, labels=LABELS, top_k=2)
    with caller:
        answers = [
            classify.sync(client=caller, body=form),
            classify.sync(client=caller, body=request),
            classify.sync(client=caller, body=file(), labels=LABELS, top_k=2),
            # the same value at both places, as some generators send it
            classify.sync(client=caller, body=form, labels=LABELS, top_k=2, multi_label=False),
        ]
        refused = classify.sync(client=caller, body=request, labels=["dog", "cat"])
    for answer in answers:
        assert isinstance(answer, models.ClassifyAnswer), answer
        assert answer.predictions[0].label == "cat"
        assert len(answer.predictions) == 2
    assert isinstance(refused, models.Problem)
    assert refused.field == "labels"
    assert "one value in the URL and another in the body" in refused.detail
    assert client.get("/healthz").status_code == 200


def test_the_python_client_registers_a_label_set_by_form_and_by_json(
    generated: ModuleType, url: str
) -> None:
    create = importlib.import_module("generated_client.api.label_sets.create_labelset")
    models = importlib.import_module("generated_client.models")
    form = models.LabelSetForm(name="generated-form", labels=LABELS)
    request = models.LabelSetRequest(name="generated-json", labels=LABELS, description="pets")
    with generated.Client(base_url=url) as caller:
        answers = [create.sync(client=caller, wait=True, body=body) for body in (form, request)]
    for answer in answers:
        assert isinstance(answer, models.LabelSetAnswer), answer
        assert (answer.labels, answer.status) == (LABELS, "ready")


def test_every_module_of_the_python_client_can_be_imported(generated: ModuleType) -> None:
    """One of a route with several bodies and no parameter cannot: the generator forgets a name."""
    package = importlib.import_module("generated_client.api")
    modules = [
        module.name
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
        if not module.ispkg
    ]
    assert len(modules) > 25
    for module in modules:
        importlib.import_module(module)


def test_the_python_client_embeds_pictures_and_classifies_a_batch_by_form(
    generated: ModuleType, url: str, samples: dict[str, Path]
) -> None:
    embed = importlib.import_module("generated_client.api.embeddings.embed_images")
    batch = importlib.import_module("generated_client.api.classify.classify_batch")
    models = importlib.import_module("generated_client.models")
    types = importlib.import_module("generated_client.types")

    def files() -> list[Any]:
        return [
            types.File(payload=io.BytesIO(samples[name].read_bytes()), file_name=f"{name}.png")
            for name in ("cat", "dog")
        ]

    with generated.Client(base_url=url) as caller:
        rows = embed.sync(client=caller, body=models.ImagesForm(image=files()))
        form = models.BatchForm(image=files(), labels=LABELS, top_k=1)
        answer = batch.sync(client=caller, body=form)
    assert isinstance(rows, models.ImageEmbeddingsAnswer), rows
    assert len(rows.embeddings) == 2
    assert isinstance(answer, models.BatchAnswer), answer
    assert [line.result.predictions[0].label for line in answer.results] == ["cat", "dog"]


def test_the_python_client_changes_the_version_that_it_knows_and_reads_openais_errors(
    generated: ModuleType, url: str, client: httpx.Client
) -> None:
    put = importlib.import_module("generated_client.api.label_sets.put_labelset")
    retrieve = importlib.import_module("generated_client.api.open_a_is_api.openai_get_model")
    models = importlib.import_module("generated_client.models")
    request = models.LabelSetRequest(labels=LABELS)
    changed = models.LabelSetRequest(labels=LABELS, description="changed")
    with generated.Client(base_url=url) as caller:
        first = put.sync_detailed("versions", client=caller, body=request, if_none_match="*")
        etag = first.headers["etag"]
        second = put.sync_detailed("versions", client=caller, body=changed, if_match=etag)
        third = put.sync_detailed("versions", client=caller, body=request, if_match=etag)
        refused = retrieve.sync("nobody", client=caller)
    assert first.status_code in (201, 202)
    assert second.status_code in (200, 202)
    assert third.status_code == 412
    assert isinstance(third.parsed, models.Problem)
    assert isinstance(refused, models.OpenAiError)
    assert refused.error.code == "model_not_found"
    client.delete("/labelsets/versions")


def test_the_typescript_types_compile(
    document: Path, node_modules: Path, environment: Mapping[str, str]
) -> None:
    folder = document.parent
    (folder / "use.ts").write_text(TYPED)
    commands = [
        ["openapi-typescript", str(document), "-o", str(folder / "api.ts")],
        ["tsc", "--noEmit", "--strict", "--skipLibCheck", "--target", "es2022",
         "--module", "esnext", "--moduleResolution", "bundler", str(folder / "use.ts")],
    ]  # fmt: skip
    for command in commands:
        ran = subprocess.run(
            [str(node_modules / ".bin" / command[0]), *command[1:]],
            capture_output=True, text=True, timeout=300, check=False, env=dict(environment),
        )  # fmt: skip
        assert ran.returncode == 0, ran.stdout + ran.stderr


def test_what_any_route_may_refuse_is_in_the_document_in_the_form_in_which_it_is_sent(
    document: Path, client: httpx.Client, guarded: str
) -> None:
    api = json.loads(document.read_text())
    asked = set()
    for path, item in api["paths"].items():
        for method, operation in item.items():
            url = path.replace("{", "").replace("}", "")
            answers = [client.request(method, f"{url}?model=nowhere&x=%FF")]
            answers.append(client.request(method, url, params={"model": "nowhere"}))
            answers.append(httpx.request(method, f"{guarded}{url}"))
            answers.append(client.request(method, url, headers={"X-Request-Timeout": "soon"}))
            if "requestBody" in operation:
                packed = {"Content-Encoding": "br", "Content-Type": "application/json"}
                answers.append(client.request(method, url, content=b"x", headers=packed))
            for answer in answers:
                if answer.status_code < 400 or path in ("/healthz", "/readyz", "/ping"):
                    continue
                asked.add((path, method, answer.status_code))
                told = operation["responses"].get(str(answer.status_code))
                assert told, (method, path, answer.status_code, answer.text)
                kind = answer.headers["content-type"].partition(";")[0]
                content = told["content"][kind]
                name = content["schema"]["$ref"].rpartition("/")[2]
                required = api["components"]["schemas"][name]["required"]
                assert set(required) <= set(answer.json()), (method, path, answer.text)
    assert ("/embeddings/text", "post", 415) in asked
    assert ("/v1/models", "get", 401) in asked


def test_every_example_is_one_of_what_it_is_an_example_of(document: Path) -> None:
    api = json.loads(document.read_text())
    places = [
        (f"{name}.{field}", schema)
        for name, one in api["components"]["schemas"].items()
        for field, schema in one.get("properties", {}).items()
    ]
    places += [
        (f"{method} {path}?{parameter['name']}", parameter["schema"])
        for path, item in api["paths"].items()
        for method, operation in item.items()
        for parameter in operation.get("parameters", [])
    ]
    examples = 0
    for place, schema in places:
        valid = Draft202012Validator({**schema, "components": api["components"]})
        for example in schema.get("examples", []):
            examples += 1
            assert valid.is_valid(example), (place, example)
    assert examples > 200


def test_the_document_is_complete(document: Path) -> None:
    api = json.loads(document.read_text())
    operations = [one for item in api["paths"].values() for one in item.values()]
    ids = [operation["operationId"] for operation in operations]
    assert len(set(ids)) == len(ids)
    assert all(name.isidentifier() and "_" not in name for name in ids)
    tags = {tag["name"] for tag in api["tags"]}
    for operation in operations:
        assert set(operation["tags"]) <= tags
        for parameter in operation.get("parameters", []):
            assert parameter["description"], (operation["operationId"], parameter["name"])
        for status, response in operation["responses"].items():
            assert response["description"] not in ("", "Problem", "Successful Response")
            if status >= "400":
                (content,) = response["content"].values()
                kind = "OpenAiError" if "OpenAI" in operation["tags"][0] else "Problem"
                assert content["schema"] == {"$ref": f"#/components/schemas/{kind}"}
    for parameter in api["paths"]["/classify"]["post"]["parameters"]:
        assert "default" not in parameter["schema"], parameter["name"]
    texts = api["paths"]["/classify"]["post"]["responses"]["200"]["content"]
    assert texts["text/plain"]["schema"]["type"] == texts["text/csv"]["schema"]["type"] == "string"
    assert api["components"]["securitySchemes"]["apiKey"]["scheme"] == "bearer"
    for name, schema in api["components"]["schemas"].items():
        for field, one in schema.get("properties", {}).items():
            assert one.get("description"), (name, field)
            simple = one.get("type") in ("string", "integer", "number", "boolean")
            known = {"examples", "default", "enum", "const", "format"}
            assert not simple or one.keys() & known, (name, field)
    assert len(document.read_bytes()) < 200_000
