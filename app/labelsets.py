"""Label sets by name: what serves, and what is built meanwhile. Knows neither stores nor HTTP."""

import asyncio
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal

import numpy as np
import numpy.typing as npt

from app.builds import Build, Builds
from app.definitions import Definition, Stored, new
from app.errors import Internal, LabelsetBuilding, Problem, StoreUnavailable
from app.registry import Match, Registry, unknown

Floats = npt.NDArray[np.float32]

log = logging.getLogger("openvocab.labelsets")

# seconds between two looks for a store that is away when the process starts
RETRY_EVERY: Final = 1.0


@dataclass(frozen=True, slots=True)
class Serving:
    """What answers for a label set now: `rows` (C, D) float32 of unit length, one a label."""

    stored: Stored
    rows: Floats


@dataclass(frozen=True, slots=True)
class Status:
    """How far a version is: `progress` 0..1, `error` where it failed."""

    state: Literal["ready", "building", "failed"]
    progress: float
    error: str | None = None


class LabelSetService:
    """Registers, replaces and serves label sets; old versions serve until new ones are built."""

    def __init__(self, registry: Registry, builds: Builds) -> None:
        self._registry = registry
        self._builds = builds

    async def create(self, name: str, definition: Definition) -> Stored:
        """Register a new name and begin its build.

        Raises: LabelsetExists, TooLarge, UnknownTemplates.
        """
        self._builds.templates.resolve(definition.templates)
        stored = await self._registry.write(new(name, 0, definition), expected=None)
        self._ensure(stored)
        return stored

    async def put(self, name: str, definition: Definition, match: Match) -> tuple[Stored, bool]:
        """Create or replace, and whether it was created.

        Raises: PreconditionFailed, TooLarge, UnknownTemplates.
        """
        self._builds.templates.resolve(definition.templates)
        current = await self._registry.fresh(name)
        match.check(name, current)
        if current is None:
            return await self.create(name, definition), True
        if current.definition != definition:
            serves = replace(current, previous=None) if current.built else current.previous
            current = await self._registry.write(
                new(name, 0, definition, serves), expected=current.version
            )
        self._ensure(current)
        return current, False

    async def delete(self, name: str, match: Match) -> None:
        """Forget a name for good. Raises UnknownLabelset, PreconditionFailed."""
        current = await self._registry.fresh(name)
        if current is None:
            raise unknown(name)
        match.check(name, current)
        await self._registry.delete(name, current.version)
        self._builds.forget(name)

    async def get(self, name: str) -> Stored:
        """The current version. Raises UnknownLabelset; StoreUnavailable if nothing is known."""
        stored = await self._registry.current(name)
        self._ensure(stored)
        return stored

    async def page(self, after: str, limit: int) -> Sequence[Stored]:
        """Up to `limit` sets with names greater than `after`, by name."""
        found = await self._registry.page(after, limit)
        for stored in found:
            self._ensure(stored)
        return found

    def status(self, stored: Stored) -> Status:
        """How far this version is in this process."""
        build = self._ensure(stored)
        if build.error is not None:
            return Status("failed", build.progress, build.error.detail)
        return Status("ready" if build.task is None else "building", build.progress)

    async def wait(self, stored: Stored, patience: float) -> None:
        """Return when the version is built, or after `patience` seconds; raise why it failed."""
        build = self._ensure(stored)
        if build.task is not None:
            await asyncio.wait({build.task}, timeout=patience)
        if build.error is not None:
            raise build.error

    async def resolve(self, name: str, patience: float) -> Serving:
        """What serves for a name now; waits `patience` seconds for a first build.

        Raises:
            UnknownLabelset, LabelsetBuilding; what made the build fail.
        """
        deadline = time.monotonic() + patience
        self._registry.touch(name)
        while True:
            stored = await self._registry.current(name)
            for version in (stored, stored.previous):
                rows = await self._rows(version)
                if version is not None and rows is not None:
                    self._ensure(stored)
                    return Serving(version, rows)
            build = self._begin(stored)
            if build.task is not None:
                # held here: the build lets go of its task, and with it of the matrix, when it ends
                task = build.task
                await asyncio.wait({task}, timeout=max(0, deadline - time.monotonic()))
                if task.done() and not task.cancelled() and (rows := task.result()) is not None:
                    return Serving(stored, rows)
            if build.error is not None:
                raise build.error
            if time.monotonic() >= deadline:
                detail = f"the label set {name} is being built, {build.progress:.0%} done"
                raise LabelsetBuilding(detail, field="labelset", retry_after=5)

    async def resume(self) -> None:
        """Build what the store has, most recently used first; waits for a store that is away."""
        while True:
            try:
                names = await self._registry.recent()
                break
            except StoreUnavailable:
                await asyncio.sleep(RETRY_EVERY)
        for name in names:
            await self._resume(name)
        log.info("%d stored label sets looked after", len(names))

    async def close(self) -> None:
        """End what runs in the background."""
        await self._registry.close()
        await self._builds.close()

    async def _rows(self, version: Stored | None) -> Floats | None:
        if version is None:
            return None
        build = self._builds.state(version)
        if build is not None and build.task is not None:
            return None  # being built: asking the store for all of it would only slow that down
        return await self._builds.rows(version)

    async def _resume(self, name: str) -> None:
        while True:
            try:
                build = self._begin(await self._registry.current(name))
            except StoreUnavailable:
                await asyncio.sleep(RETRY_EVERY)
            except Problem:
                return  # deleted meanwhile, or never buildable: told to whoever asks for it
            else:
                if build.task is not None:
                    await asyncio.wait({build.task})
                return

    def _ensure(self, stored: Stored) -> Build:
        """The build of a version, begun if there was none."""
        return self._builds.state(stored) or self._builds.start(stored)

    def _begin(self, stored: Stored) -> Build:
        """The running build of a version, or a new one.

        Raises: the problem of a build that can only fail again.
        """
        build = self._ensure(stored)
        if build.error is not None and build.error.status < Internal.status:
            raise build.error
        # ended: it failed for a reason of ours, or every cache has lost its vectors since
        return build if build.task is not None else self._builds.start(stored)
