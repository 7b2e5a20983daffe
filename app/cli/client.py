"""Ask a server, again where that helps. Knows its answers, nothing of files.

Requests go over a network or to an application in this process.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final, TypeVar

import httpx2

from app.cli.imports import uncollected
from app.cli.terminal import Ended, say
from app.server.exit_status import SERVER_ERROR, USAGE_ERROR
from app.telemetry import logs

# what another try may change; and where it is certain that nothing was done
BUSY: Final = frozenset({408, 429, 502, 503, 504})
REFUSED: Final = frozenset({429, 503})

# seconds: the first pause, the longest one, and the longest that a server may ask for
FIRST_PAUSE: Final = 0.2
LONGEST_PAUSE: Final = 10.0
LONGEST_ASKED: Final = 60.0

# seconds: until a connection is there, and until a server says something
CONNECT: Final = 10.0
ANSWER: Final = 120.0

# fields that are the same for every image of a command; a box may lie beyond one of them
COMMON: Final = frozenset({
    "labels", "labelset", "combine", "not", "templates", "top_k", "threshold", "multi_label",
    "abstain", "scores", "coverage", "view", "background", "truncate", "model",
})  # fmt: skip


class Refused(Exception):
    """A problem that the server answers with (RFC 9457), for this request alone."""

    def __init__(self, problem: Mapping[str, Any]) -> None:
        super().__init__(problem["detail"])
        self.problem = problem


def http_client(
    url: str, api_key: str | None, jobs: int, model: str | None = None
) -> httpx2.AsyncClient:
    """A client of the server at a URL, which names the model in each request. Raises Ended."""
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        address = httpx2.URL(url)
        if address.scheme not in ("http", "https") or not address.host:
            raise ValueError
        return httpx2.AsyncClient(
            base_url=address,
            headers=headers,
            params={} if model is None else {"model": model},
            timeout=httpx2.Timeout(ANSWER, connect=CONNECT, pool=None),
            limits=httpx2.Limits(max_connections=jobs),
        )
    except (httpx2.InvalidURL, ValueError):
        raise Ended(USAGE_ERROR, f"--url is {url!r}; a server's is http://HOST:PORT") from None


class Client:
    """Asks a server for up to `retry_for` seconds while it is busy or away."""

    def __init__(self, http: httpx2.AsyncClient, retry_for: float) -> None:
        self._http = http
        self._retry_for = retry_for
        self._has_told = False

    async def classify(self, image: bytes, fields: Mapping[str, str]) -> dict[str, Any]:
        """The answer of POST /classify.

        Raises:
            Refused: for this image.
            Ended: for every image there is: the server is away, or refuses key or fields.
        """
        part = {"image": ("image", image, "application/octet-stream")}
        try:
            response = await self.request("POST", "/classify", data=fields, files=part)
        except httpx2.TransportError as error:
            if await self._lives():  # then it was this image
                raise Refused(_broken_off(error)) from None
            raise self.away(error) from None
        if response.status_code == 200:
            content: dict[str, Any] = self.content(response)
            return content
        problem = self.problem(response)
        _end_if_common(problem)
        raise Refused(problem)

    async def request(self, method: str, path: str, **content: Any) -> httpx2.Response:
        """The last answer, which may still say that the server is busy.

        Raises httpx2.TransportError.
        """
        loop = asyncio.get_running_loop()
        end, pause = loop.time() + self._retry_for, FIRST_PAUSE
        # what was sent may have been done already: only a picture may be sent twice then
        harmless = method != "POST" or "files" in content
        while True:
            wait = pause * random.uniform(0.5, 1.5)  # noqa: S311
            try:
                response = await self._http.request(method, path, **content)
                if response.status_code not in (BUSY if harmless else REFUSED):
                    return response
                wait = max(wait, _asked_for(response))
                if loop.time() + wait > end:
                    return response
            except httpx2.TransportError as error:
                arrived = not isinstance(error, httpx2.ConnectError)
                if (arrived and not harmless) or loop.time() + wait > end:
                    raise
                self._tell(error)
            await asyncio.sleep(wait)
            pause = min(2 * pause, LONGEST_PAUSE)

    def content(self, response: httpx2.Response) -> Any:
        """The JSON of a response. Raises Ended if there is none."""
        try:
            return response.json()
        except ValueError:
            raise self._stranger(response) from None

    def problem(self, response: httpx2.Response) -> dict[str, Any]:
        """The problem document in a response. Raises Ended if this is not an openvocab server."""
        try:
            content = response.json()
        except ValueError:
            content = None
        if (
            isinstance(content, dict)
            and isinstance(content.get("detail"), str)
            and "status" in content
        ):
            return content
        if response.status_code in (413, *BUSY):  # what stands before a server may say this
            title = f"status {response.status_code}"
            detail = f"{self._http.base_url.host} answered with {title}"
            return {"title": title, "status": response.status_code, "detail": detail}
        raise self._stranger(response)

    def away(self, error: httpx2.TransportError) -> Ended:
        """The server does not respond."""
        return Ended(SERVER_ERROR, self._no_response(error))

    def _no_response(self, error: httpx2.TransportError) -> str:
        return f"{self._http.base_url} does not respond: {str(error) or type(error).__name__}"

    def _tell(self, error: httpx2.TransportError) -> None:
        """Why nothing happens for a while; once, as many requests may wait for the same server."""
        if not self._has_told:
            say(f"{self._no_response(error)}; trying again for {self._retry_for:g} s")
        self._has_told = True

    async def _lives(self) -> bool:
        try:
            return (await self._http.get("/healthz")).is_success
        except httpx2.TransportError:
            return False

    def _stranger(self, response: httpx2.Response) -> Ended:
        where = f" to {response.headers['location']}" if response.has_redirect_location else ""
        answer = f"status {response.status_code}{where}"
        return Ended(SERVER_ERROR, f"{self._http.base_url} is not an openvocab server ({answer})")


def _asked_for(response: httpx2.Response) -> float:
    """Seconds that the server asks to wait; 0 where it names none, or a date."""
    header = response.headers.get("retry-after", "")
    return min(float(header), LONGEST_ASKED) if header.isdecimal() else 0.0


def _end_if_common(problem: Mapping[str, Any]) -> None:
    """Raise Ended for a problem that every image will have."""
    status, field = problem["status"], problem.get("field")
    line = str(problem["detail"])
    if status in (401, 403, 421, 429, 502, 503):
        raise Ended(SERVER_ERROR, line)
    if status in (404, 405) or field in COMMON:
        raise Ended(USAGE_ERROR, line)


def _broken_off(error: httpx2.TransportError) -> dict[str, Any]:
    why = str(error) or type(error).__name__
    return {
        "title": "The server closed the connection",
        "status": 502,
        "detail": f"no answer: {why}",
    }


T = TypeVar("T")

# requests under way at once, where nothing else is said
REMOTE_JOBS: Final = 8
LOCAL_JOBS: Final = 64

# a name that leads nowhere (RFC 6761)
NOBODY: Final = "http://nobody.invalid"

# no server takes more; a smaller limit is its own
LARGEST_FILE: Final = 200_000_000


@dataclass(frozen=True, slots=True)
class Reached:
    """A client of the service, how many requests it is sent at once, and bytes of a file."""

    client: Client
    jobs: int
    limit: int


@dataclass(frozen=True, slots=True)
class Service:
    """A server's URL and key, or where that is empty none; which model; seconds to try again."""

    url: str
    api_key: str | None
    model: str | None
    jobs: int | None
    retry_for: float

    def run(self, work: Callable[[Reached], Awaitable[T]], *, stored: bool, asks: bool = True) -> T:
        """What the work returns; `stored`: it needs label sets. Raises Ended.

        For work that `asks` nothing no model is loaded, or downloaded.
        """
        return self._remotely(work) if self.url or not asks else self._locally(work, stored)

    def _remotely(self, work: Callable[[Reached], Awaitable[T]]) -> T:
        jobs = self.jobs or REMOTE_JOBS

        async def run() -> T:
            async with http_client(self.url or NOBODY, self.api_key, jobs, self.model) as http:
                return await work(Reached(Client(http, self.retry_for), jobs, LARGEST_FILE))

        return asyncio.run(run())

    def _locally(self, work: Callable[[Reached], Awaitable[T]], stored: bool) -> T:
        with uncollected():
            from app.cli import local  # the whole service: only who runs it pays for it

        settings = local.settings(self.model, stored=stored)
        logs.set_up(settings.log_level)
        jobs = min(self.jobs or LOCAL_JOBS, settings.max_queue)

        # before the loop begins: Ctrl-C ends a download at once
        with local.loaded(settings) as encoder:

            async def run() -> T:
                async with local.client(settings, encoder) as http:
                    client = Client(http, self.retry_for)
                    return await work(Reached(client, jobs, settings.max_image_bytes))

            return asyncio.run(run())
