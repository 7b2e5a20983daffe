"""Where a command's requests go: to a server, or to the application in this process.

Knows nothing of what is asked.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, TypeVar

from app import logs
from app.local import in_process, loaded, local_settings
from app.remote import Client, http_client
from app.shell import Ended
from app.statuses import USAGE_ERROR

T = TypeVar("T")

# requests under way at once, where nothing else is said
REMOTE_JOBS: Final = 8
LOCAL_JOBS: Final = 64

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
    """A server's URL and key, or where that is empty a model; seconds that it may be away."""

    url: str
    api_key: str | None
    model: str | None
    jobs: int | None
    retry_for: float

    def run(self, work: Callable[[Reached], Awaitable[T]], *, stored: bool) -> T:
        """What the work returns; `stored`: it needs label sets. Raises Ended."""
        if self.url and self.model:
            line = "a server has its own model: leave out --model, or --url (OPENVOCAB_URL)"
            raise Ended(USAGE_ERROR, line)
        return self._remotely(work) if self.url else self._locally(work, stored)

    def _remotely(self, work: Callable[[Reached], Awaitable[T]]) -> T:
        jobs = self.jobs or REMOTE_JOBS

        async def run() -> T:
            async with http_client(self.url, self.api_key, jobs) as http:
                return await work(Reached(Client(http, self.retry_for), jobs, LARGEST_FILE))

        return asyncio.run(run())

    def _locally(self, work: Callable[[Reached], Awaitable[T]], stored: bool) -> T:
        settings = local_settings(self.model, stored=stored)
        logs.set_up(settings.log_level)
        jobs = min(self.jobs or LOCAL_JOBS, settings.max_queue)

        # before the loop begins: Ctrl-C ends a download at once
        with loaded(settings) as encoder:

            async def run() -> T:
                async with in_process(settings, encoder) as http:
                    client = Client(http, self.retry_for)
                    return await work(Reached(client, jobs, settings.max_image_bytes))

            return asyncio.run(run())
