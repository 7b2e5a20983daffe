"""Build the class vectors of label sets in the background. Knows neither stores nor HTTP."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import numpy.typing as npt

from app.concepts import PROMPTS_PER_BLOCK, Concept
from app.definitions import Definition, Stored, unreadable_problem
from app.ensemble import Ensemble
from app.errors import Problem, TooLarge
from app.stores.lru import ByteLru
from app.templates import TemplateSets

Floats = npt.NDArray[np.float32]
Version = tuple[str, int]

log = logging.getLogger("openvocab.labelsets")

BUILDS_AT_ONCE: Final = 4


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
        return self.done / self.total if self.total else 0.0


@dataclass(slots=True)
class Builds:
    """Matrices (C, D) of label-set versions: in memory, from known vectors, or built anew."""

    ensemble: Ensemble
    templates: TemplateSets
    matrices: ByteLru
    on_built: Callable[[Stored], Awaitable[None]]
    max_prompts: int
    _running: dict[Version, Build] = field(default_factory=dict)
    _slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(BUILDS_AT_ONCE))

    def check(self, definition: Definition) -> None:
        """Nothing if a set like this can be built. Raises TooLarge, UnknownTemplates."""
        _, templates = self.templates.resolve(definition.templates)
        total = sum(concept.count for concept in definition.concepts(templates))
        if total > self.max_prompts:
            detail = f"the label set makes {total} prompts, the limit is {self.max_prompts}"
            raise TooLarge(detail, field="labels", limit=self.max_prompts, value=total)

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
        """Begin a build of this version; builds of the name's older versions end."""
        self._end(v for v in self._running if v[0] == stored.name and v[1] <= stored.version)
        build = Build(total=len(stored.definition.entries))
        self._running[stored.name, stored.version] = build
        if stored.unreadable:
            build.error = unreadable_problem(stored.name)
            return build
        build.task = asyncio.get_running_loop().create_task(self._run(stored, build))
        return build

    def forget(self, name: str) -> None:
        """End and drop the builds of every version of a name."""
        self._end(version for version in self._running if version[0] == name)

    def _end(self, versions: Iterable[Version]) -> None:
        for version in list(versions):
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
        for step in _steps(concepts):
            found = await self.ensemble.vectors(step, counted=False)
            parts.append(found.rows)
            build.done += len(found.rows)
        matrix = np.vstack(parts)
        self.matrices.put(stored.digest, matrix)
        return matrix

    def _concepts(self, stored: Stored) -> list[Concept]:
        _, templates = self.templates.resolve(stored.definition.templates)
        return stored.definition.concepts(templates)


def _steps(concepts: Sequence[Concept]) -> Iterator[list[Concept]]:
    step: list[Concept] = []
    for concept in concepts:
        if step and sum(c.count for c in step) + concept.count > PROMPTS_PER_BLOCK:
            yield step
            step = []
        step.append(concept)
    yield step
