"""Ask a server, again where that helps. Knows its answers, nothing of files or terminals.

What carries the requests may be a network or an application in this process (app.local).
"""

import asyncio
import random
from collections.abc import Mapping
from typing import Any, Final

import httpx2

from app.shell import Ended
from app.statuses import SERVER_ERROR, USAGE_ERROR

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

# fields that are the same for every image of a command
COMMON: Final = frozenset(
    {"labels", "labelset", "templates", "top_k", "threshold", "multi_label", "abstain"}
)


class Refused(Exception):
    """A problem that the server answers with (RFC 9457), for this request alone."""

    def __init__(self, problem: Mapping[str, Any]) -> None:
        super().__init__(problem["detail"])
        self.problem = problem


def http_client(url: str, api_key: str | None, jobs: int) -> httpx2.AsyncClient:
    """A client of the server at a URL. Raises Ended."""
    headers = {"Authorization": f"Bearer {api_key}"} if api_key else {}
    try:
        address = httpx2.URL(url)
        if address.scheme not in ("http", "https") or not address.host:
            raise ValueError
        return httpx2.AsyncClient(
            base_url=address,
            headers=headers,
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
            found: dict[str, Any] = self.content(response)
            return found
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
                sent = not isinstance(error, httpx2.ConnectError)
                if (sent and not harmless) or loop.time() + wait > end:
                    raise
            await asyncio.sleep(wait)
            pause = min(2 * pause, LONGEST_PAUSE)

    def content(self, response: httpx2.Response) -> Any:
        """The JSON of an answer. Raises Ended where there is none."""
        try:
            return response.json()
        except ValueError:
            raise self._stranger(response) from None

    def problem(self, response: httpx2.Response) -> dict[str, Any]:
        """The problem of an answer that is one. Raises Ended where nobody of ours answered."""
        try:
            found = response.json()
        except ValueError:
            found = None
        if isinstance(found, dict) and isinstance(found.get("detail"), str) and "status" in found:
            return found
        if response.status_code in (413, *BUSY):  # what stands before a server may say this
            title = f"status {response.status_code}"
            detail = f"{self._http.base_url.host} answered with {title}"
            return {"title": title, "status": response.status_code, "detail": detail}
        raise self._stranger(response)

    def away(self, error: httpx2.TransportError) -> Ended:
        """That nobody answers."""
        why = str(error) or type(error).__name__
        return Ended(SERVER_ERROR, f"{self._http.base_url} does not answer: {why}")

    async def _lives(self) -> bool:
        try:
            return (await self._http.get("/healthz")).is_success
        except httpx2.TransportError:
            return False

    def _stranger(self, response: httpx2.Response) -> Ended:
        where = f" to {response.headers['location']}" if response.has_redirect_location else ""
        said = f"status {response.status_code}{where}"
        return Ended(SERVER_ERROR, f"{self._http.base_url} answers with {said}, not as openvocab")


def _asked_for(response: httpx2.Response) -> float:
    """Seconds that the server asks to wait; 0 where it names none, or a date."""
    asked = response.headers.get("retry-after", "")
    return min(float(asked), LONGEST_ASKED) if asked.isdecimal() else 0.0


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
    return {"title": "The server broke off", "status": 502, "detail": f"no answer: {why}"}
