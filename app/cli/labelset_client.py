"""The label sets of a server, as its answers tell them. Knows nothing of files or terminals."""

import asyncio
import base64
import binascii
import hashlib
import re
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import quote

import httpx2

from app.api.json_text import RepeatedName, loaded
from app.cli.client import Client
from app.cli.terminal import Ended
from app.groups import groups
from app.server.exit_status import SERVER_ERROR, SOME_FAILED

PAGE: Final = 1_000

# seconds between two looks at a build
LOOK_EVERY: Final = 0.5


class LabelSetClient:
    """Every method raises Ended, with the server's message or that it is unreachable."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def all(self) -> AsyncIterator[dict[str, Any]]:
        """The summary of each, by name."""
        return self._pages("/labelsets", "labelsets")

    async def get(self, name: str) -> dict[str, Any]:
        """A label set with everything its owner wrote."""
        return await self._ask("GET", _path(name))

    async def create(self, content: dict[str, Any]) -> dict[str, Any]:
        """Create a label set."""
        return await self._ask("POST", "/labelsets", json=content)

    async def put(self, content: dict[str, Any], *, must_exist: bool) -> dict[str, Any]:
        """Replace a label set; with `must_exist` false, create it if missing."""
        rest = {key: value for key, value in content.items() if key != "name"}
        headers = {"If-Match": "*"} if must_exist else {}
        return await self._ask("PUT", _path(content["name"]), json=rest, headers=headers)

    async def delete(self, name: str) -> None:
        """Delete a label set and all its versions."""
        await self._ask("DELETE", _path(name))

    def examples(self, name: str) -> AsyncIterator[dict[str, Any]]:
        """Each example of a set, without its picture."""
        return self._pages(f"{_path(name)}/examples", "examples")

    async def add_examples(self, name: str, pictures: Sequence["Picture"]) -> dict[str, Any]:
        """What became of the pictures."""
        kind = "application/octet-stream"
        files = [("image", (picture.name, picture.data, kind)) for picture in pictures]
        labels = {"label": [picture.label for picture in pictures]}
        return await self._ask("POST", f"{_path(name)}/examples", files=files, data=labels)

    async def remove_examples(
        self, name: str, id_: str | None = None, label: str | None = None
    ) -> dict[str, Any]:
        """One example, those of a label, or all."""
        path = f"{_path(name)}/examples" + (f"/{quote(id_, safe='')}" if id_ else "")
        return await self._ask("DELETE", path, params={} if label is None else {"label": label})

    async def picture(self, name: str, id_: str) -> bytes:
        """The file of an example."""
        return (await self._answer("GET", f"{_path(name)}/examples/{id_}")).content

    async def ready(self, answer: dict[str, Any]) -> dict[str, Any]:
        """The set when it is built."""
        while answer["status"] == "building":
            await asyncio.sleep(LOOK_EVERY)
            answer = await self.get(answer["name"])
        if answer["status"] == "failed":
            raise Ended(SOME_FAILED, f"{answer['name']} cannot be built: {answer['error']}")
        return answer

    async def _pages(self, path: str, items: str) -> AsyncIterator[dict[str, Any]]:
        """What stands under `items` on each page."""
        after: str | None = ""
        while after is not None:
            query = {"limit": str(PAGE), **({"after": after} if after else {})}
            page = await self._ask("GET", path, params=query)
            for item in page[items]:
                yield item
            after = page["next"]

    async def _ask(self, method: str, path: str, **content: Any) -> dict[str, Any]:
        response = await self._answer(method, path, **content)
        return dict(self._client.content(response)) if response.content else {}

    async def _answer(self, method: str, path: str, **content: Any) -> httpx2.Response:
        try:
            response = await self._client.request(method, path, **content)
        except httpx2.TransportError as error:
            raise self._client.away(error) from None
        if response.is_success:
            return response
        problem = self._client.problem(response)
        code = int(problem["status"])
        barred = code in (401, 403, 421, 429) or code >= 500
        raise Ended(SERVER_ERROR if barred else SOME_FAILED, str(problem["detail"]))


def _path(name: str) -> str:
    return f"/labelsets/{quote(name, safe='')}"


# bytes of a file with labels or label sets; no server takes more
LARGEST: Final = 200_000_000


class BadFile(ValueError):
    """A file that holds no label set; a line for a person."""


def definition(data: bytes) -> dict[str, Any]:
    """What a file says: a JSON object as the API takes it, a JSON list, or one label a line.

    Raises BadFile.
    """
    if len(data) > LARGEST:
        raise BadFile(f"is over {LARGEST:,} bytes, the limit")
    text = _text(data)
    if not text.lstrip().startswith(("{", "[")):
        # not splitlines: it also splits at characters that a label may hold
        return {"labels": [line for line in re.split(r"\r\n|\n|\r", text) if line.strip()]}
    try:
        content = loaded(text)
    except ValueError as error:
        raise BadFile(f"looks like JSON but is not valid: {error}") from None
    return dict(content) if isinstance(content, dict) else {"labels": content}


def exported(answer: Mapping[str, Any]) -> dict[str, Any]:
    """What an owner wrote, from the server's answer: sent again, it makes an equal label set."""
    synonyms = answer["synonyms"]
    groups = answer.get("groups", {})
    labels: dict[str, Any] = {}
    for label in answer["labels"]:
        inside = labels
        for group in groups.get(label, []):
            inside = inside.setdefault(group, {})
        inside[label] = synonyms.get(label, [])
    by_name = answer["own_templates"] or answer["templates"]
    content = {
        "name": answer["name"],
        "labels": labels if synonyms or groups else answer["labels"],
        "combine": answer.get("combine"),
        "prompts": answer["prompts"],
        "prompts_with": answer.get("prompts_with"),
        "not": answer.get("not"),
        "templates": answer.get("asked_templates", by_name),
        "truncate": answer.get("truncate"),
        "description": answer["description"],
    }
    return {key: value for key, value in content.items() if value or key in ("name", "labels")}


def imported(lines: Iterable[bytes]) -> Iterator[dict[str, Any]]:
    """The label sets of a backup, one JSON object a line, with their examples as `Picture`s.

    Raises BadFile, with the line.
    """
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            content = loaded(_text(line))
        except RepeatedName as error:
            raise BadFile(f"line {number}: {error}") from None
        except ValueError:
            content = None
        if not isinstance(content, dict) or not isinstance(content.get("name"), str):
            raise BadFile(f"line {number} is not a JSON object with a name")
        if (kept := content.get("examples")) is not None:
            if not isinstance(kept, list):
                raise BadFile(f"line {number}: examples is not a list")
            content["examples"] = [_picture(*each, number) for each in enumerate(kept, start=1)]
        yield content


def _text(data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadFile(f"is not UTF-8 text: {error.reason} at byte {error.start}") from None


# pictures and bytes of them that one request carries: each request makes a version
BATCH: Final = 200
BATCH_BYTES: Final = 16_000_000


@dataclass(frozen=True, slots=True)
class Picture:
    """A file with what it shows; `name` is what its sender calls it."""

    label: str
    name: str
    data: bytes


@dataclass(slots=True)
class Sent:
    """What became of pictures; `answer` is the server's last one."""

    added: int = 0
    unchanged: int = 0
    refused: list[tuple[str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    answer: dict[str, Any] | None = None


async def send(
    sets: LabelSetClient, name: str, pictures: Iterable[Picture], tell: Callable[[str], None]
) -> Sent:
    """Add pictures to a label set, batch by batch; `tell` hears how far it is. Raises Ended."""
    report = Sent()
    for batch in groups(pictures, lambda picture: len(picture.data), BATCH_BYTES, BATCH):
        answer = await sets.add_examples(name, batch)
        report.added += answer["added"]
        report.unchanged += answer["unchanged"]
        for error in answer["errors"]:
            report.refused.append((batch[error["index"]].name, error["error"]["detail"]))
        # a server of an earlier release has none
        report.warnings += answer.get("warnings", ())
        report.answer = answer
        tell(f"{name}: {report.added} examples added, {report.unchanged} already present")
    return report


async def backed_up(sets: LabelSetClient, name: str) -> list[dict[str, str]]:
    """Every example with its picture, as a backup holds it."""
    return [
        {
            "label": example["label"],
            "image": base64.b64encode(await sets.picture(name, example["id"])).decode(),
        }
        async for example in sets.examples(name)
    ]


async def restore(
    sets: LabelSetClient, name: str, pictures: Sequence[Picture], tell: Callable[[str], None]
) -> None:
    """Make the examples those of a backup. Raises Ended."""
    label_by_id = {hashlib.sha256(p.data).hexdigest(): p.label for p in pictures}
    there = {example["id"]: example["label"] async for example in sets.examples(name)}
    # first those that are in the way: a picture can be of one label alone
    for id_, label in there.items():
        if label_by_id.get(id_) != label:
            await sets.remove_examples(name, id_)
    # those that are there already change nothing
    report = await send(sets, name, pictures, tell)
    if report.refused:
        which, why = report.refused[0]
        raise Ended(SOME_FAILED, f"{len(report.refused)} examples were refused; {which}: {why}")


def _picture(number: int, kept: Any, line: int) -> Picture:
    try:
        data = base64.b64decode(kept["image"], validate=True)
        return Picture(str(kept["label"]), f"example {number}", data)
    except (KeyError, TypeError, ValueError, binascii.Error):
        detail = f"line {line}: example {number} is not a label with an image in base64"
        raise BadFile(detail) from None
