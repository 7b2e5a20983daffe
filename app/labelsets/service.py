"""Label sets by name: what serves, and what is built meanwhile. Knows neither stores nor HTTP."""

import asyncio
import logging
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Final

from app.classify.query import Classes, Query
from app.errors import (
    LabelsetBuilding,
    LabelsetExists,
    PreconditionFailed,
    Problem,
    StoreUnavailable,
    TooLarge,
    UnknownLabelset,
)
from app.labelsets.builds import Builds, Serving, Status
from app.labelsets.calibration.validity import Validity
from app.labelsets.definition import (
    Definition,
    Stored,
    created,
    in_namespace,
    new,
    unreadable_problem,
    without_namespace,
)
from app.labelsets.known import Known
from app.labelsets.preconditions import Match, contended, exists, overtaken, taken, unknown
from app.labelsets.presets import Presets
from app.labelsets.registry import Registry
from models.info import Floats

log = logging.getLogger("openvocab.labelsets")

# seconds between two looks for a store that is away when the process starts
RETRY_EVERY: Final = 1.0

# times that a change of any version is tried where others change the same name; seconds between the
# first two of them at most, and each later pause may be twice as long
RACES: Final = 10
PAUSE: Final = 0.01


class LabelSetService:
    """Registers, replaces and serves label sets; old versions serve until new ones are built."""

    def __init__(
        self,
        registry: Registry,
        builds: Builds,
        validity: Validity,
        presets: Presets,
        max_prompts: int,
    ) -> None:
        """A request may make `max_prompts` prompts of a set in other templates than its own."""
        self._presets = presets
        self._registry = registry
        self._builds = builds
        self.validity = validity
        self._max_prompts = max_prompts
        # mostly the same values as the registry's
        self._served = Known(registry.memory_bytes // 2)

    async def create(
        self, name: str, definition: Definition, match: Match, most: int | None = None
    ) -> Stored:
        """Register a new name and begin its build; its namespace may hold `most` sets.

        Raises: LabelsetExists, PreconditionFailed, TooLarge, UnknownTemplates.
        """
        self._builds.check(definition)
        current = await self._registry.fresh(name)
        if match.exists or match.versions is not None:  # what is new has no version
            match.check(name, current)
        if current is not None:
            raise exists(name)
        return await self._write(created(name, definition), None, most)

    async def put(
        self, name: str, definition: Definition, match: Match, most: int | None = None
    ) -> tuple[Stored, bool]:
        """`create` or replace, and whether it was created. May also raise PreconditionFailed."""
        self._builds.check(definition)

        def make(current: Stored | None) -> Definition:
            # what was learned stays: it knows itself what it is good for
            return current.definition.relearned(definition) if current else definition

        return await self._change(name, match, make, most)

    async def change(
        self, name: str, match: Match, make: Callable[[Definition], Definition]
    ) -> Stored:
        """As `put`, what `make` makes of the current definition; also raises UnknownLabelset."""

        def changed(current: Stored | None) -> Definition:
            if current is None:
                raise unknown(name)
            if current.unreadable:
                raise unreadable_problem(name)
            return make(current.definition)

        return (await self._change(name, match, changed))[0]

    async def _change(
        self,
        name: str,
        match: Match,
        make: Callable[[Stored | None], Definition],
        most: int | None = None,
    ) -> tuple[Stored, bool]:
        for race in range(RACES):
            await _pause(race)
            current = await self._registry.fresh(name)
            match.check(name, current)
            definition = make(current)
            try:
                return await self._put(name, definition, current, most)
            except (PreconditionFailed, LabelsetExists):
                # somebody else was faster, and that was not allowed
                if match.absent:
                    raise taken(name) from None
                if match.versions is not None:
                    raise
        raise contended(name)

    async def _put(
        self, name: str, definition: Definition, current: Stored | None, most: int | None
    ) -> tuple[Stored, bool]:
        if current is None:
            return await self._write(created(name, definition), None, most), True
        if current.definition == definition:
            if current.definition.calibrations != definition.calibrations:
                # the same vectors: whatever is built of them stays so
                learned = replace(current, definition=definition)
                return await self._write(learned, current), False
            self._builds.ensure(current)
            return current, False
        serves = replace(current, previous=None) if current.built else current.previous
        replaced = new(name, 0, definition, serves, current.lineage)
        return await self._write(replaced, current), False

    async def delete(self, name: str, match: Match) -> None:
        """Forget a name for good. Raises UnknownLabelset, PreconditionFailed, Overloaded."""
        for race in range(RACES):
            await _pause(race)
            current = await self._registry.fresh(name)
            if current is None:
                raise unknown(name)
            match.check(name, current)
            try:
                await self._registry.delete(current)
            except PreconditionFailed:
                if match.versions is not None:
                    raise
            else:
                self._builds.forget(name, current.version)
                served = self._served.get(name)
                if served is not None and served.version <= current.version:
                    self._served.pop(name)
                return
        raise contended(name)

    async def get(self, name: str) -> Stored:
        """The current version. Raises UnknownLabelset; StoreUnavailable if nothing is known."""
        stored = await self._current(name)
        self._builds.ensure(stored)
        return stored

    async def page(self, after: str, before: str, limit: int) -> Sequence[Stored]:
        """Up to `limit` sets with names strictly between the two, by name; begins no build."""
        return await self._registry.page(after, before, limit)

    @property
    def building(self) -> int:
        """Builds under way, those that wait for their turn included."""
        return self._builds.running

    def begun(self, stored: Stored) -> bool:
        """Whether a build of this version was begun in this process."""
        return self._builds.state(stored) is not None

    def read(self, stored: Stored) -> Stored:
        """A version as it serves: without the labels that turned out too long for the model."""
        return self._builds.read(stored)

    def status(self, stored: Stored) -> Status:
        """How far this version is in this process."""
        return self._builds.status(stored)

    async def wait(self, stored: Stored, patience: float) -> None:
        """Return when the version is built, or after `patience` seconds.

        Raises: why it failed; PreconditionFailed if it was replaced or deleted meanwhile.
        """
        build = self._builds.state(stored)
        if build is not None and build.task is not None:
            await asyncio.wait({build.task}, timeout=patience)
        if build is None or self._builds.state(stored) is not build:
            raise overtaken(stored.name)
        if build.error is not None:
            raise build.error

    async def resolve(self, name: str, patience: float) -> Serving:
        """What serves for a name now; waits `patience` seconds for a first build.

        Raises:
            UnknownLabelset, LabelsetBuilding; what made the build fail.
        """
        deadline = time.monotonic() + patience
        while True:
            stored = await self._current(name)
            if stored.version:
                self._registry.touch(name)
            # the last one is what this process served, if others were faster than it; not what the
            # name meant before it was deleted and created anew
            served = self._served.get(name)
            if served is not None and served.lineage != stored.lineage:
                served = None
            for version in (stored, stored.previous, served):
                serving = await self._rows(version)
                if version is not None and serving is not None:
                    newest = self._builds.ensure(stored)
                    self._served.put(version)
                    if version is stored or newest.error is None:
                        return serving
                    detail = f"version {stored.version} of {without_namespace(name)} could not be "
                    detail += f"built ({newest.error.detail}); version {version.version} answers"
                    return replace(serving, failed=detail, is_final=newest.is_final)
            build = self._builds.begin(stored)
            if build.task is not None:
                # held here: the build lets go of its task, and with it of the matrix, when it ends
                task = build.task
                await asyncio.wait({task}, timeout=max(0, deadline - time.monotonic()))
                if task.done() and not task.cancelled() and (built := task.result()) is not None:
                    return built
            if build.error is not None:
                raise build.error
            if time.monotonic() >= deadline:
                own = without_namespace(name)
                detail = f"the label set {own} is being built, {build.progress:.0%} done"
                raise LabelsetBuilding(detail, field="labelset", retry_after=5)

    def templates_of(self, definition: Definition) -> tuple[str, ...]:
        """The templates that a label set is built with. Raises UnknownTemplates."""
        return self._builds.templates.resolve(definition.templates)[1]

    async def classes(self, query: Query, name: str) -> Classes:
        """What a label set of a query compares an image with, in the query's templates.

        Raises: as `resolve`; UnknownTemplates, TooLarge.
        """
        own = name if self._presets.named(name) else in_namespace(query.namespace, name)
        serving = await self.resolve(own, query.patience)
        definition = serving.stored.definition
        requested = query.templates or definition.templates
        template_set, templates = self._builds.templates.resolve(requested)
        rows, cached = serving.rows, len(definition.labels)
        unread = serving.stored.unread
        if query.templates is not None:
            truncate = query.truncate or definition.truncate
            rows, cached, warnings = await self._in_templates(
                serving.stored, templates, name, truncate=truncate
            )
            unread = warnings or unread
        learned, warning = self.validity.learned(serving.stored)
        if definition.calibrations and templates != self.templates_of(definition):
            learned, warning = None, "it was fitted with the label set's own templates"
        return Classes(
            labels=definition.labels,
            rows=rows,
            cached=cached,
            template_set=template_set,
            templates=templates,
            version=serving.stored.version or None,
            learned=learned,
            warning=warning,
            alternatives=definition.alternatives,
            groups=definition.groups,
            nots=definition.nots,
            unread=unread,
            failed=serving.failed,
        )

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
        log.info("prepared %d stored label sets", len(names))

    async def close(self) -> None:
        """End what runs in the background."""
        await self._builds.close()

    async def _in_templates(
        self, stored: Stored, templates: tuple[str, ...], shown: str, *, truncate: bool
    ) -> tuple[Floats, int, tuple[str, ...]]:
        """Rows of a label set in other templates than its own, how many were cached, warnings."""
        ensemble, name = self._builds.ensemble, (stored.digest, templates)
        text = ensemble.list_of(name)
        if text is not None:
            rows = await self._builds.blending.rows(stored, text)
            return rows, len(stored.definition.labels), ()
        concepts = stored.definition.concepts(templates)
        prompts = sum(concept.count for concept in concepts)
        if prompts > self._max_prompts:
            detail = f"{shown} in these templates makes {prompts} prompts; register it with them"
            raise TooLarge(detail, field="templates", limit=self._max_prompts, value=prompts)
        fitted = await ensemble.read(concepts, truncate=truncate)
        if not fitted.cut:
            ensemble.keep_list(name, fitted.vectors.rows)
        cached = min(fitted.vectors.cached, len(stored.definition.labels))
        rows = await self._builds.blending.rows(stored, fitted.vectors.rows)
        return rows, cached, fitted.warnings()

    async def _rows(self, version: Stored | None) -> Serving | None:
        if version is None:
            return None
        build = self._builds.state(version)
        if version.unreadable or (build is not None and (build.task or build.error)):
            return None  # being built, or never will be: asking the store would only cost time
        return await self._builds.rows(version)

    async def _resume(self, name: str) -> None:
        while True:
            try:
                build = self._builds.begin(await self._current(name))
                if build.task is not None:
                    await asyncio.wait({build.task})
            except StoreUnavailable:
                await asyncio.sleep(RETRY_EVERY)
            except Problem:
                return  # deleted meanwhile, or never buildable: told to whoever asks for it
            except Exception:
                log.exception("label set %s cannot be prepared", name)
                return
            else:
                return

    async def _current(self, name: str) -> Stored:
        if self._presets.named(name):
            stored = self._presets.stored(name)
            if not self.begun(stored):  # once, not at each request: there can be thousands of words
                self._builds.check(stored.definition)
            return stored
        try:
            return await self._registry.current(name)
        except UnknownLabelset:
            self._builds.forget(name)
            self._served.pop(name)
            raise

    async def _write(
        self, stored: Stored, before: Stored | None, most: int | None = None
    ) -> Stored:
        written = await self._registry.write(stored, before, most)
        self._builds.ensure(written)
        return written


async def _pause(race: int) -> None:
    """Wait before all tries but the first, each time for another while than the others who try."""
    if race:
        await asyncio.sleep(random.random() * PAUSE * 2 ** (race - 1))  # noqa: S311
