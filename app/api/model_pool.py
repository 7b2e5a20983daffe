"""The models of a server by name: which are loaded, in use, or to be unloaded.

Knows neither how a model is loaded nor what its parts are.
"""

import asyncio
import contextlib
import functools
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
# waited for before a model takes memory: until others have made room for it
Room = Callable[[], Awaitable[None]]
# a name to the model's parts, and what ends them; raises models.ModelError
Load = Callable[[str, Room], Awaitable[tuple[P, End]]]

log = logging.getLogger("openvocab")

# seconds after which a model that could not be loaded is tried again, if somebody asks for it
RETRY_AFTER: Final = 30.0

# seconds between two checks for idle models
LOOK_EVERY: Final = 1.0


async def _nobody() -> None: ...


def _never(_parts: object) -> bool:
    return False


@dataclass(slots=True, eq=False)
class _Stay(Generic[P]):
    """One stay of a model in memory.

        loading -> loaded -> leaving -> gone        or        loading -> failed

    A request is one of its `users` from when it asks, so that what is loaded for it stays until it
    has ended. One that asks while it is leaving waits for the next stay: this one comes to its end.
    """

    name: str
    used_at: float
    users: int = 0
    loading: asyncio.Task[None] | None = None
    parts: P | None = None
    end: End = _nobody
    leaving: bool = False
    reason: str | None = None
    failed_at: float = 0.0


@dataclass(slots=True, eq=False)
class _Entry(Generic[P]):
    """A model: its present stay, and the `next` one, begun while that is leaving."""

    name: str
    stay: _Stay[P] | None = None
    next: _Stay[P] | None = None

    @property
    def parts(self) -> P | None:
        return None if self.stay is None else self.stay.parts


@dataclass(frozen=True, slots=True)
class ModelState(Generic[P]):
    """A model as in GET /models; `parts` while it is loaded, `reason` if it failed."""

    name: str
    state: State
    aliases: tuple[str, ...]
    parts: P | None
    reason: str | None


class ModelPool(Generic[P]):
    """The first model is always loaded; others at the start, or when first requested.

    At most `most` are loaded at once, the first included (0: all of them, from the start). To make
    room the least recently used goes: one that nobody uses if there is one, and one that is `busy`
    with what no request waits for only if all are. None goes for what `load` does before it asks
    for the room, such as a download. One that was neither used nor busy for `idle` seconds goes,
    too (0: never). `observe` is called before and after a model is unloaded, for the metrics.
    """

    def __init__(
        self,
        names: Sequence[str],
        load: Load[P],
        aliases: Mapping[str, str],
        most: int = 0,
        idle: float = 0.0,
        observe: Callable[[], Awaitable[object]] = _nobody,
        busy: Callable[[P], bool] = _never,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._entries = {name: _Entry[P](name) for name in names}
        self._first, *self._others = self._entries.values()
        self._load = load
        self._aliases = aliases
        self._most = most
        self._idle = idle
        self._observe = observe
        self._busy = busy
        self._clock = clock
        self._one_at_a_time = asyncio.Lock()
        self._released = asyncio.Event()
        self._looking: asyncio.Task[None] | None = None

    def start(self, first: P) -> None:
        """Take the parts of the first model, and begin to load the others if all are to be."""
        self._first.stay = _Stay(self._first.name, self._clock(), parts=first)
        if not self._most:
            for entry in self._others:
                self._join(entry)
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
        stay = self._join(entry)
        stay.users += 1
        try:
            if stay.loading is not None:
                await asyncio.wait({stay.loading}, timeout=patience)
            if stay.reason is not None:
                raise NotReady(stay.reason, field="model", retry_after=int(RETRY_AFTER))
            if stay.parts is None:
                detail = f"the model {entry.name} is being loaded"
                raise ModelLoading(detail, field="model", retry_after=5)
        except BaseException:
            self._release(stay)
            raise
        return self._lease(stay, stay.parts)

    def states(self) -> list[ModelState[P]]:
        """Every model, the first first."""
        return [
            ModelState(
                entry.name,
                self._state(entry),
                tuple(alias for alias, name in self._aliases.items() if name == entry.name),
                entry.parts,
                None if entry.stay is None else entry.stay.reason,
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
        stays = [stay for entry in self._others for stay in (entry.stay, entry.next) if stay]
        tasks = [stay.loading for stay in stays if stay.loading]
        if self._looking is not None:
            tasks.append(self._looking)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for stay in self._further():
            await self._unload(stay)

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
        stay = entry.stay
        if stay is None:
            return "idle"
        if stay.parts is not None:
            return "loaded"
        return "loading" if stay.reason is None else "failed"

    def _further(self) -> list[_Stay[P]]:
        """The models in memory that may be unloaded."""
        stays = (entry.stay for entry in self._others)
        return [stay for stay in stays if stay is not None and stay.parts is not None]

    def _join(self, entry: _Entry[P]) -> _Stay[P]:
        """The stay that a request of now belongs to, begun if there is none."""
        present = entry.stay
        if present is not None and present.leaving:
            entry.next = entry.next or self._begin(entry.name)
            return entry.next
        if present is None or self._may_be_tried_again(present):
            entry.stay = present = self._begin(entry.name)
        return present

    def _may_be_tried_again(self, stay: _Stay[P]) -> bool:
        return stay.reason is not None and self._clock() - stay.failed_at >= RETRY_AFTER

    def _begin(self, name: str) -> _Stay[P]:
        stay = _Stay[P](name, self._clock())
        stay.loading = asyncio.create_task(self._fill(stay))
        return stay

    @contextlib.contextmanager
    def _lease(self, stay: _Stay[P], parts: P) -> Iterator[P]:
        try:
            yield parts
        finally:
            self._release(stay)

    def _release(self, stay: _Stay[P]) -> None:
        stay.users -= 1
        stay.used_at = self._clock()
        self._released.set()

    async def _fill(self, stay: _Stay[P]) -> None:
        try:
            async with contextlib.AsyncExitStack() as turn:
                room = functools.partial(self._room, turn)
                log.info("loading %s", stay.name)
                stay.parts, stay.end = await self._load(stay.name, room)
            stay.used_at = self._clock()
        except ModelError as error:
            self._fail(stay, str(error))
        except Exception:
            log.exception("the model %s cannot be loaded", stay.name)
            self._fail(stay, f"the model {stay.name} cannot be loaded; see its log")
        finally:
            stay.loading = None

    def _fail(self, stay: _Stay[P], reason: str) -> None:
        log.error("%s", reason)
        stay.reason, stay.failed_at = reason, self._clock()

    async def _room(self, turn: contextlib.AsyncExitStack) -> None:
        """Wait until it is one's turn, and there is room. The turn ends with the stack."""
        # two at once would need the memory of both while they are read
        await turn.enter_async_context(self._one_at_a_time)
        while self._most and len(self.loaded()) >= self._most:
            await self._unload(min(self._further(), key=self._order))

    def _order(self, stay: _Stay[P]) -> tuple[bool, bool, float]:
        """Which goes first: requests end by themselves, what a model is busy with is stopped."""
        return self._is_busy(stay), stay.users > 0, stay.used_at

    def _is_busy(self, stay: _Stay[P]) -> bool:
        return stay.parts is not None and self._busy(stay.parts)

    async def _unload(self, stay: _Stay[P]) -> None:
        """End a stay once its last request has; new ones wait for the next stay meanwhile."""
        stay.leaving = True
        while stay.users:
            self._released.clear()
            await self._released.wait()
        try:
            await self._observe()
        finally:
            entry = self._entries[stay.name]
            entry.stay, entry.next = entry.next, None
            await stay.end()
        await self._observe()
        log.info("unloaded %s", stay.name)

    async def _keep_looking(self) -> None:
        while True:
            await asyncio.sleep(min(LOOK_EVERY, self._idle))
            for stay in self._further():
                if self._is_used(stay):
                    stay.used_at = self._clock()
                elif self._has_idled(stay):
                    async with self._one_at_a_time:
                        # while others were loaded it may have been used, or unloaded
                        if stay in self._further() and self._has_idled(stay):
                            await self._unload(stay)

    def _is_used(self, stay: _Stay[P]) -> bool:
        return stay.users > 0 or self._is_busy(stay)

    def _has_idled(self, stay: _Stay[P]) -> bool:
        return not self._is_used(stay) and self._clock() - stay.used_at >= self._idle
