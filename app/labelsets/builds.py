"""Build the class vectors of label sets in the background. Knows neither stores nor HTTP."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Final, Literal

import numpy as np

from app.classify.concept import PROMPTS_PER_BLOCK, Concept
from app.classify.ensemble import Ensemble, Fitted
from app.classify.templates import TemplateSets
from app.classify.tenancy import working_for
from app.classify.truncation import Cut, TextTooLong, advised, few, together
from app.errors import Internal, Problem, TooLarge, failure
from app.groups import groups
from app.labelsets.blending import Blending
from app.labelsets.definition import Definition, Stored, namespace_of, unreadable_problem
from app.labelsets.known import Known
from app.labelsets.turns import Turns
from app.stores.lru import ByteLru
from app.telemetry import spans
from models.info import Floats

Version = tuple[str, int]

# labels that are left, at least, where some are too long for the model
LEAST: Final = 2

# rows of a label set whose build is prepared in a thread
MANY: Final = 2_000

# bytes of the versions that serve without some labels, or with cut texts
READ_BYTES: Final = 64_000_000

# seconds after which a build that failed for a reason of ours is begun again, if somebody asks
RETRY_AFTER: Final = 30.0

log = logging.getLogger("openvocab.labelsets")

# `refused` for what the set holds, `failed` for a fault of ours
Result = Literal["built", "refused", "failed", "cancelled"]
Ended = Callable[[Result, float, int], None]


@dataclass(frozen=True, slots=True)
class Serving:
    """What answers for a label set now: `rows` (C, D) float32 of unit length, one a label, or more
    where labels have alternatives; `failed` says why no newer version does, and `is_final` whether
    that stays so.
    """

    stored: Stored
    rows: Floats
    failed: str | None = None
    is_final: bool = False


@dataclass(slots=True)
class Build:
    """One build: `done` of `total` labels, its task while it runs, and why it failed."""

    total: int
    done: int = 0
    error: Problem | None = None
    task: asyncio.Task[Serving | None] | None = None
    ended_at: float = 0.0

    @property
    def is_final(self) -> bool:
        """Whether it can only fail again."""
        return self.error is not None and self.error.status < Internal.status

    @property
    def may_be_tried_again(self) -> bool:
        """Whether it failed for a reason of ours, and long enough ago."""
        failed = self.error is not None and self.task is None and not self.is_final
        return failed and time.monotonic() - self.ended_at >= RETRY_AFTER

    @property
    def progress(self) -> float:
        """0..1."""
        return self.done / self.total if self.total else 0.0


@dataclass(frozen=True, slots=True)
class Status:
    """How far a version is: `progress` 0..1, `error` where it failed."""

    state: Literal["ready", "building", "failed"]
    progress: float
    error: str | None = None


def _nobody(_result: Result, _seconds: float, _labels: int) -> None: ...


@dataclass(slots=True)
class Builds:
    """Matrices (C, D) of label-set versions: in memory, from known vectors, or built again.

    `ended` hears of each build: its result, its seconds and its labels. The last `remembered` that
    were used are known after their end; of the others nothing is lost but how they ended.
    """

    ensemble: Ensemble
    blending: Blending
    templates: TemplateSets
    matrices: ByteLru
    on_built: Callable[[Stored], Awaitable[None]]
    max_prompts: int
    ended: Ended = _nobody
    remembered: int = 2_000
    _running: dict[Version, Build] = field(default_factory=dict)
    _turns: Turns = field(default_factory=Turns)
    _read: Known = field(default_factory=lambda: Known(READ_BYTES))

    def check(self, definition: Definition) -> None:
        """Nothing if a set like this can be built. Raises TooLarge, UnknownTemplates."""
        _, templates = self.templates.resolve(definition.templates)
        total = sum(concept.count for concept in definition.concepts(templates))
        if total > self.max_prompts:
            detail = f"the label set has {total} prompts, the limit is {self.max_prompts}"
            raise TooLarge(detail, field="labels", limit=self.max_prompts, value=total)

    @property
    def running(self) -> int:
        """Builds under way, those that wait for their turn included."""
        return sum(build.task is not None for build in list(self._running.values()))

    def state(self, stored: Stored) -> Build | None:
        """The build of this version, also when it has ended; None if none was started here."""
        return self._running.get((stored.name, stored.version))

    def status(self, stored: Stored) -> Status:
        """How far this version is in this process."""
        if stored.unreadable:
            return Status("failed", 0.0, unreadable_problem(stored.name).detail)
        build = self.state(stored)
        if build is None:
            return Status("building", 0.0)
        if build.error is not None:
            return Status("failed", build.progress, build.error.detail)
        return Status("ready" if build.task is None else "building", build.progress)

    def read(self, stored: Stored) -> Stored:
        """A version as it serves: without the labels that turned out too long for the model."""
        read = self._read.get(stored.name)
        return read if read is not None and read.version == stored.version else stored

    async def rows(self, stored: Stored) -> Serving | None:
        """What serves for a version if nothing needs to be encoded for it."""
        stored = self.read(stored)
        matrix = self.matrices.get(stored.key)
        if matrix is None:
            with working_for(namespace_of(stored.name)):
                text = await self.ensemble.known(self._concepts(stored))
                matrix = None if text is None else await self.blending.known(stored, text)
            if matrix is not None:
                self.matrices.put(stored.key, matrix)
        return None if matrix is None else Serving(stored, matrix)

    def start(self, stored: Stored) -> Build:
        """Begin a build of this version; builds of the name's older versions end."""
        self._end(v for v in self._running if v[0] == stored.name and v[1] <= stored.version)
        self._drop_oldest()
        build = Build(total=stored.definition.rows)
        self._running[stored.name, stored.version] = build
        if stored.unreadable:
            build.error = unreadable_problem(stored.name)
            return build
        if stored.built and self.matrices.get(stored.key) is not None:
            build.done = build.total  # another version has the same vectors
            return build
        build.task = asyncio.get_running_loop().create_task(self._run(stored, build))
        return build

    def ensure(self, stored: Stored) -> Build:
        """The build of a version, begun if there was none, or one that may be tried again."""
        build = self.state(stored)
        if build is None or build.may_be_tried_again:
            return self.start(stored)
        self._used((stored.name, stored.version), build)
        return build

    def begin(self, stored: Stored) -> Build:
        """The running build of a version, or a new one.

        Raises: the problem of a build that can only fail again.
        """
        build = self.ensure(stored)
        if build.error is not None and build.is_final:
            raise build.error
        # ended: it failed for a reason of ours, or every cache has lost its vectors since
        return build if build.task is not None else self.start(stored)

    def forget(self, name: str, newest: int | None = None) -> None:
        """End and drop the builds of a name's versions, up to the `newest` where that is given."""
        self._end(
            (known, version)
            for known, version in self._running
            if known == name and (newest is None or version <= newest)
        )

    def _end(self, versions: Iterable[Version]) -> None:
        for version in list(versions):
            build = self._running.pop(version)
            if build.task is not None:
                build.task.cancel()

    def _used(self, version: Version, build: Build) -> None:
        if self._running.get(version) is build:
            self._running[version] = self._running.pop(version)  # behind all others

    def _drop_oldest(self) -> None:
        """Make room for one more; nobody tells this process of names that others delete."""
        more = len(self._running) + 1 - self.remembered
        if more > 0:
            ended = [version for version, build in self._running.items() if build.task is None]
            for version in ended[:more]:
                del self._running[version]

    async def close(self) -> None:
        """End all builds; what they computed is in the store already."""
        tasks = [build.task for build in self._running.values() if build.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, stored: Stored, build: Build) -> Serving | None:
        begun = time.monotonic()
        result: Result = "cancelled"
        try:
            with spans.span("build label set", labels=build.total, model=self.ensemble.model):
                serving = await self._build(stored, build)
            await self.on_built(stored)
        except Problem as problem:
            build.error = problem
            result = "refused" if problem.status < Internal.status else "failed"
            # not its text: that may hold a label
            log.warning("label set %s version %d: %s", stored.name, stored.version, problem.code)
        except Exception as error:
            build.error = failure(error)
            result = "failed"
            log.exception("label set %s version %d cannot be built", stored.name, stored.version)
        else:
            result = "built"
            return serving
        finally:
            self.ended(result, time.monotonic() - begun, build.total)
            # the matrix lives on in the bounded cache, and with those who wait for the task
            build.task, build.ended_at = None, time.monotonic()
            self._used((stored.name, stored.version), build)  # who waits for it finds it still
        return None

    async def _build(self, stored: Stored, build: Build) -> Serving:
        namespace = namespace_of(stored.name)

        def prepared() -> list[list[Concept]]:
            return list(_steps(self._concepts(stored)))

        # of a large one in a thread, so that other requests do not wait
        is_large = stored.definition.rows > MANY
        steps = await asyncio.to_thread(prepared) if is_large else prepared()
        reading, parts = _Reading(stored), []
        with working_for(namespace):
            left = [sum(concept.count for concept in step) for step in steps]
            for number, step in enumerate(steps):
                async with self._turns.turn(namespace, sum(left[number:])):
                    fitted = await self.ensemble.fitted(
                        step, truncate=stored.definition.truncate, counted=False
                    )
                reading.note(fitted)
                parts.append(fitted.vectors.rows)
                build.done += len(step)
            read, rows = reading.outcome(np.vstack(parts))
            if read is not stored:
                self._read.put(read)
            matrix = await self.blending.rows(read, rows)
        self.matrices.put(read.key, matrix)
        return Serving(read, matrix)

    def _concepts(self, stored: Stored) -> list[Concept]:
        _, templates = self.templates.resolve(stored.definition.templates)
        return stored.definition.concepts(templates)


def _steps(concepts: Sequence[Concept]) -> Iterator[list[Concept]]:
    return groups(concepts, attrgetter("count"), PROMPTS_PER_BLOCK)


class _Reading:
    """What of a label set the model reads, step by step of its build."""

    def __init__(self, stored: Stored) -> None:
        self._stored = stored
        self._seen = 0
        self._too_long: dict[int, TextTooLong] = {}
        self._cut: list[Cut] = []

    def note(self, step: Fitted) -> None:
        """What became of the next rows."""
        for place, problem in step.too_long.items():
            self._too_long.setdefault(self._label(self._seen + place), problem)
        self._cut += [cut for cuts in step.cut.values() for cut in cuts]
        self._seen += len(step.concepts)

    def outcome(self, rows: Floats) -> tuple[Stored, Floats]:
        """The label set as it serves, and its rows.

        Raises TextTooLong where fewer than two labels are left: one alone answers nothing.
        """
        entries = self._stored.definition.entries
        if not self._too_long and not self._cut:
            return self._stored, rows
        problems = list(self._too_long.values())
        if problems and len(entries) - len(problems) < LEAST:
            raise advised(together(problems))
        left_out = [entries[place].label for place in sorted(self._too_long)]
        unread = [f"{problem.detail}: this label is left out" for problem in problems]
        unread += [cut.warning() for cut in self._cut]
        kept = {cut.text: cut.kept for cut in self._cut}
        is_read = np.array([self._label(row) not in self._too_long for row in range(len(rows))])
        return self._stored.read(left_out, kept, few(unread)), rows[is_read]

    def _label(self, row: int) -> int:
        """The place of the label that a row belongs to."""
        alternatives = self._stored.definition.alternatives
        return row if alternatives is None else alternatives.label(row)
