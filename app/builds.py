"""Build the class vectors of label sets in the background. Knows neither stores nor HTTP."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from app.concepts import Concept
from app.definitions import Stored
from app.ensemble import ClassVectors, Ensemble
from app.errors import Overloaded, Problem
from app.stores.lru import ByteLru
from app.templates import TemplateSets

Floats = npt.NDArray[np.float32]
Version = tuple[str, int]

log = logging.getLogger("openvocab.labelsets")

# labels handed to the ensemble at once: progress moves, and a crash loses no more than these
LABELS_A_STEP: Final = 16
BUILDS_AT_ONCE: Final = 4

# seconds until a build asks again where too many prompts wait
OVERLOAD_PAUSE: Final = 0.2


@dataclass(slots=True)
class Build:
    """One build: `done` of `total` labels, its task while it runs, and why it failed."""

    total: int
    done: int = 0
    error: Problem | None = None
    task: asyncio.Task[Floats | None] | None = None

    @property
    def progress(self) -> float:
        """0..1."""
        return self.done / self.total


@dataclass(slots=True)
class Builds:
    """Matrices (C, D) of label-set versions: in memory, from known vectors, or built anew."""

    ensemble: Ensemble
    templates: TemplateSets
    matrices: ByteLru
    on_built: Callable[[Stored], Awaitable[None]]
    _running: dict[Version, Build] = field(default_factory=dict)
    _slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(BUILDS_AT_ONCE))

    def state(self, stored: Stored) -> Build | None:
        """The build of this version, also when it has ended; None if none was started here."""
        return self._running.get((stored.name, stored.version))

    async def rows(self, stored: Stored) -> Floats | None:
        """The matrix of a version if nothing needs to be encoded for it."""
        matrix = self.matrices.get(stored.digest)
        if matrix is None:
            matrix = await self.ensemble.known(self._concepts(stored))
            if matrix is not None:
                self.matrices.put(stored.digest, matrix)
        return matrix

    def start(self, stored: Stored) -> Build:
        """Begin a build of this version; builds of the name's other versions end."""
        self.forget(stored.name)
        build = Build(total=len(stored.definition.entries))
        build.task = asyncio.get_running_loop().create_task(self._run(stored, build))
        self._running[stored.name, stored.version] = build
        return build

    def forget(self, name: str) -> None:
        """End and drop the builds of every version of a name."""
        for version in [version for version in self._running if version[0] == name]:
            build = self._running.pop(version)
            if build.task is not None:
                build.task.cancel()

    async def close(self) -> None:
        """End all builds; what they computed is in the store already."""
        tasks = [build.task for build in self._running.values() if build.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, stored: Stored, build: Build) -> Floats | None:
        try:
            async with self._slots:
                matrix = await self._build(stored, build)
            await self.on_built(stored)
        except Problem as problem:
            build.error = problem
            log.warning("label set %s version %d: %s", stored.name, stored.version, problem)
        except Exception:
            build.error = Problem("the server failed; its log tells more")
            log.exception("label set %s version %d cannot be built", stored.name, stored.version)
        else:
            return matrix
        finally:
            # the matrix lives on in the bounded cache, and with those who wait for the task
            build.task = None
        return None

    async def _build(self, stored: Stored, build: Build) -> Floats:
        concepts = self._concepts(stored)
        parts = []
        for start in range(0, len(concepts), LABELS_A_STEP):
            found = await self._vectors(concepts[start : start + LABELS_A_STEP])
            parts.append(found.rows)
            build.done += len(found.rows)
        matrix = np.vstack(parts)
        self.matrices.put(stored.digest, matrix)
        return matrix

    async def _vectors(self, concepts: list[Concept]) -> ClassVectors:
        while True:
            try:
                return await self.ensemble.vectors(concepts)
            except Overloaded:  # those who wait for an answer go first; a build has time
                await asyncio.sleep(OVERLOAD_PAUSE)

    def _concepts(self, stored: Stored) -> list[Concept]:
        _, templates = self.templates.resolve(stored.definition.templates)
        return stored.definition.concepts(templates)
