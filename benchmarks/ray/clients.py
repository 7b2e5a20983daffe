"""Clients that classify all the time on a deployed service, and what became of their requests."""

import itertools
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

import httpx

CLIENTS: Final = 4
LABELS: Final = 15

# seconds that an answer may take; longer than the service lets it
PATIENCE: Final = 150.0

# predictions in an answer
SHOWN: Final = 5


@dataclass(frozen=True, slots=True)
class Failure:
    """A request that was not answered as it should be; when it was begun, by time.monotonic().

    Not `answered` are those whose connection was closed, or that the proxy answered a bare 500.
    """

    start: float
    url: str
    text: str
    answered: bool


class Load:
    """Clients that classify all the time, each at one of the addresses.

    With `fresh` labels each request keeps an encoder at work for a good part of a second.
    """

    def __init__(
        self,
        urls: Sequence[str],
        picture: bytes,
        pause: float = 0.0,
        fresh: bool = False,
    ) -> None:
        self._urls = _spread(urls)
        self._pause = pause
        self._numbers = itertools.count() if fresh else itertools.repeat(0)
        self._picture = picture
        self._ended = threading.Event()
        self.wrong: list[Failure] = []
        self.right = 0

    def __enter__(self) -> "Load":
        self._pool = ThreadPoolExecutor(len(self._urls))
        self._runs = [self._pool.submit(self._run, number) for number in range(len(self._urls))]
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._pool.shutdown()
        for run in self._runs:
            run.result()

    def move(self, urls: Sequence[str]) -> None:
        """Send what comes from now on to other addresses, as a load balancer does."""
        self._urls = _spread(urls)

    def answered(self, url: str) -> bool:
        """Whether an address answers one such request as it should; it does not count."""
        with httpx.Client(timeout=PATIENCE) as client:
            return self._failure(client, url) is None

    def _run(self, number: int) -> None:
        with httpx.Client(timeout=PATIENCE) as client:
            while not self._ended.wait(self._pause):
                self._ask(client, self._urls[number])

    def _ask(self, client: httpx.Client, url: str) -> None:
        start = time.monotonic()
        failure = self._failure(client, url)
        if failure is None:
            self.right += 1
        else:
            self.wrong.append(Failure(start, url, *failure))

    def _failure(self, client: httpx.Client, url: str) -> tuple[str, bool] | None:
        """What is wrong, and whether the service said so."""
        number = next(self._numbers)
        labels = ",".join(["cat", *(f"thing {number} of {n}" for n in range(LABELS))])
        fields = {"labels": labels, "templates": "imagenet"}
        try:
            answer = client.post(f"{url}/classify", files={"image": self._picture}, data=fields)
        except httpx.HTTPError as error:
            return repr(error), False
        if answer.is_success and len(answer.json()["predictions"]) == SHOWN:
            return None
        from_service = answer.headers.get("content-type", "").startswith("application/")
        return f"{answer.status_code} {answer.text}", from_service


def _spread(urls: Sequence[str]) -> list[str]:
    return [urls[number % len(urls)] for number in range(CLIENTS)]
