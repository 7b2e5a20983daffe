"""The label sets of a server, as its answers tell them. Knows nothing of files or terminals."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any, Final
from urllib.parse import quote

import httpx2

from app.remote import Client
from app.shell import Ended
from app.statuses import SERVER_ERROR, SOME_FAILED

PAGE: Final = 1_000

# seconds between two looks at a build
LOOK_EVERY: Final = 0.5


class LabelSets:
    """Every method raises Ended, with what the server said or that it is away."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def all(self) -> AsyncIterator[dict[str, Any]]:
        """The summary of each, by name."""
        after: str | None = ""
        while after is not None:
            query = {"limit": str(PAGE), **({"after": after} if after else {})}
            page = await self._ask("GET", "/labelsets", params=query)
            for found in page["labelsets"]:
                yield found
            after = page["next"]

    async def get(self, name: str) -> dict[str, Any]:
        """One with all that its owner wrote."""
        return await self._ask("GET", _path(name))

    async def create(self, content: dict[str, Any]) -> dict[str, Any]:
        """A new one."""
        return await self._ask("POST", "/labelsets", json=content)

    async def put(self, content: dict[str, Any], *, must_exist: bool) -> dict[str, Any]:
        """In place of one; or as a new one, unless there must be one."""
        rest = {key: value for key, value in content.items() if key != "name"}
        headers = {"If-Match": "*"} if must_exist else {}
        return await self._ask("PUT", _path(content["name"]), json=rest, headers=headers)

    async def delete(self, name: str) -> None:
        """One, with all its versions."""
        await self._ask("DELETE", _path(name))

    async def examples(self, name: str) -> AsyncIterator[dict[str, Any]]:
        """Each example of a set, without its picture."""
        after: str | None = ""
        while after is not None:
            query = {"limit": str(PAGE), **({"after": after} if after else {})}
            page = await self._ask("GET", f"{_path(name)}/examples", params=query)
            for found in page["examples"]:
                yield found
            after = page["next"]

    async def add_examples(
        self, name: str, pictures: Sequence[tuple[str, str, bytes]]
    ) -> dict[str, Any]:
        """Pictures as label, name and bytes; what became of them."""
        kind = "application/octet-stream"
        files = [("image", (called, data, kind)) for _, called, data in pictures]
        labels = {"label": [label for label, _, _ in pictures]}
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
