"""The models of a server by name: which are loaded, in use, or to be unloaded.

Knows neither how a model is loaded nor what its parts are.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Final, Generic, Literal, TypeVar

from app.errors import ModelLoading, NotFound, NotReady, excerpt, shown
from models import ModelError

P = TypeVar("P")

State = Literal["loaded", "loading", "idle", "failed"]
End = Callable[[], Awaitable[None]]
# a name to the model's parts, and what ends them; raises models.ModelError
Load = Callable[[str], Awaitable[tuple[P, End]]]

log = logging.getLogger("openvocab")

# seconds after which a model that could not be loaded is tried again, if somebody asks for it
RETRY_AFTER: Final = 30.0

# seconds between two checks for idle models
LOOK_EVERY: Final = 1.0


@dataclass(slots=True, eq=False)
class _Entry(Generic[P]):
    """`leaving` while its last requests run: new ones wait until it is loaded again."""

    name: str
    used_at: float
    parts: P | None = None
    end: End | None = None
    loading: asyncio.Task[None] | None = None
    problem: NotReady | None = None
    failed_at: float = 0.0
    users: int = 0
    leaving: bool = False


@dataclass(frozen=True, slots=True)
class ModelState(Generic[P]):
    """A model as in GET /models; `parts` while it is loaded, `reason` if it failed."""

    name: str
    state: State
    aliases: tuple[str, ...]
    parts: P | None
    reason: str | None


async def _nobody() -> None: ...


class ModelPool(Generic[P]):
    """The first model is always loaded; others at the start, or when first requested.

    At most `most` are loaded at once, the first included (0: all of them, from the start); the
    least recently used goes. One that nobody used for `idle` seconds goes, too (0: never).
    `observe` is called before and after a model is unloaded, for the metrics.
    """

    def __init__(
        self,
        names: Sequence[str],
        load: Load[P],
        aliases: Mapping[str, str],
        most: int = 0,
        idle: float = 0.0,
        observe: Callable[[], Awaitable[object]] = _nobody,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._entries = {name: _Entry[P](name, clock()) for name in names}
        self._first = self._entries[names[0]]
        self._load = load
        self._aliases = aliases
        self._most = most
        self._idle = idle
        self._observe = observe
        self._clock = clock
        self._one_at_a_time = asyncio.Lock()
        self._released = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None

    def start(self, first: P) -> None:
        """Take the parts of the first model, and begin to load the others if all are to be."""
        self._first.parts = first
        if not self._most:
            for entry in self._entries.values():
                self._begin(entry)
        if self._idle:
            self._looking = asyncio.create_task(self._keep_looking())

    async def use(self, name: str | None, patience: float) -> AbstractContextManager[P]:
        """The parts of a model, loaded first if need be; it stays while the context is open.

        None is the first model. Waits `patience` seconds for a model to load.

        Raises:
            NotFound: there is no model of this name. ModelLoading: it takes longer.
            NotReady: it cannot be loaded, and why.
        """
        entry = self._find(name)
        ends_at = self._clock() + patience
        while entry.parts is None or entry.leaving:
            if entry.problem is not None and self._clock() - entry.failed_at < RETRY_AFTER:
                raise entry.problem
            task = self._begin(entry)
            left = ends_at - self._clock()
            if left > 0:
                await asyncio.wait({task}, timeout=left)
            if not task.done():
                detail = f"the model {entry.name} is being loaded"
                raise ModelLoading(detail, field="model", retry_after=5)
        return self._lease(entry, entry.parts)

    def states(self) -> list[ModelState[P]]:
        """Every model, the first first."""
        return [
            ModelState(
                entry.name,
                self._state(entry),
                tuple(alias for alias, name in self._aliases.items() if name == entry.name),
                entry.parts,
                None if entry.problem is None else entry.problem.detail,
            )
            for entry in self._entries.values()
        ]

    def loaded(self) -> list[P]:
        """The parts of the models that are loaded, the first first."""
        return [entry.parts for entry in self._entries.values() if entry.parts is not None]

    def names(self) -> list[str]:
        """Every name that is answered for: of models, then aliases."""
        return [*self._entries, *self._aliases]

    def known(self, name: str) -> str:
        """The model that a name or an alias stands for. Raises NotFound."""
        return self._find(name).name

    async def close(self) -> None:
        """Unload all models but the first, which is closed by its owner."""
        tasks = [entry.loading for entry in self._entries.values() if entry.loading]
        if self._looking is not None:
            tasks.append(self._looking)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for entry in self._entries.values():
            if entry is not self._first and entry.parts is not None:
                await self._unload(entry)

    def _find(self, name: str | None) -> _Entry[P]:
        if name is None:
            return self._first
        entry = self._entries.get(self._aliases.get(name, name))
        if entry is None:
            served = ", ".join(self.names())
            detail = f"the model {shown(name)} is not served here; this server has {served}"
            raise NotFound(detail, field="model", limit=served, value=excerpt(name))
        return entry

    def _state(self, entry: _Entry[P]) -> State:
        if entry.parts is not None:
            return "loaded"
        if entry.loading is not None:
            return "loading"
        return "failed" if entry.problem else "idle"

    @contextlib.contextmanager
    def _lease(self, entry: _Entry[P], parts: P) -> Iterator[P]:
        entry.users += 1
        entry.used_at = self._clock()
        try:
            yield parts
        finally:
            entry.users -= 1
            entry.used_at = self._clock()
            self._released.set()

    def _begin(self, entry: _Entry[P]) -> asyncio.Task[None]:
        if entry.loading is None:
            entry.loading = asyncio.create_task(self._loaded(entry))
        return entry.loading

    async def _loaded(self, entry: _Entry[P]) -> None:
        try:
            # two at once would need the memory of both while they are read
            async with self._one_at_a_time:
                if entry.parts is None:
                    await self._make_room()
                    log.info("loading %s", entry.name)
                    entry.parts, entry.end = await self._load(entry.name)
                entry.problem, entry.used_at = None, self._clock()
        except ModelError as error:
            self._failed(entry, str(error))
        except Exception:
            log.exception("the model %s cannot be loaded", entry.name)
            self._failed(entry, f"the model {entry.name} cannot be loaded; see its log")
        finally:
            entry.loading = None

    def _failed(self, entry: _Entry[P], reason: str) -> None:
        log.error("%s", reason)
        entry.problem = NotReady(reason, field="model", retry_after=int(RETRY_AFTER))
        entry.failed_at = self._clock()

    async def _make_room(self) -> None:
        while self._most and len(self.loaded()) >= self._most:
            others = [e for e in self._entries.values() if e.parts and e is not self._first]
            await self._unload(min(others, key=lambda entry: entry.used_at))

    async def _unload(self, entry: _Entry[P]) -> None:
        """Unload a model once no request uses it; new requests wait meanwhile."""
        entry.leaving = True
        try:
            while entry.users:
                self._released.clear()
                await self._released.wait()
            await self._observe()
            end, entry.parts, entry.end = entry.end, None, None
        finally:
            entry.leaving = False
        if end is not None:
            await end()
        await self._observe()
        log.info("unloaded %s", entry.name)

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(min(LOOK_EVERY, self._idle))
            before = self._clock() - self._idle
            for entry in self._entries.values():
                if entry is self._first or entry.parts is None or entry.users:
                    continue
                if entry.used_at <= before and not entry.leaving:
                    async with self._one_at_a_time:
                        if entry.parts is not None and not entry.users:
                            await self._unload(entry)
