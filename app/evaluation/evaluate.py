"""An evaluation from end to end: encode, score, analyse, put together. Knows no options.

Analyses are handed in, and give sections of the report (analyses.py).
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final

from app.classify.labels import unread
from app.classify.scoring import SAME
from app.classify.templates import OWN
from app.cli.client import Reached
from app.cli.files import reason
from app.cli.terminal import Ended, say
from app.evaluation.analyses import Analysis, AnalysisResult, CannotAnalyse, Study
from app.evaluation.class_vectors import DEFAULT, Templates, TextSide, connected
from app.evaluation.data import Dataset
from app.evaluation.dataset_files import Labelled
from app.evaluation.figures import figures_of, mistakes, scored
from app.evaluation.picture_vectors import EncodedPictures, Encoding, Progress, RowFile
from app.evaluation.report.files import thumbnail
from app.evaluation.report.html import many
from app.evaluation.report.result import Picture, Result, data_digest
from app.images.limits import ImageLimits
from app.server.exit_status import SOME_FAILED

# a preview is never worth more than what the service takes by default
PREVIEWS: Final = ImageLimits()

# labels that a warning names
NAMED: Final = 3

# wrong answers that a report shows
MISTAKES: Final = 24

# pictures with two labels of which it shows a thumbnail
PREVIEWED: Final = 24


@dataclass(frozen=True, slots=True)
class Order:
    """The order: template sets by name or value; none: those of the data or the model.

    `kept` is the folder of vectors, None to keep none; `variant` tells apart vectors that one model
    makes of one file in different ways. `truncate`: texts that are too long for the model are cut.
    """

    source: Path
    labelled: Labelled
    sets: tuple[str | Templates, ...]
    analyses: Sequence[Analysis]
    kept: Path | None
    variant: str
    heic: bool
    previews: bool
    command: str
    version: str
    truncate: bool


@dataclass(frozen=True, slots=True)
class Steps:
    """How a person sees it move: `encoding` after each picture, `step` for what comes then."""

    encoding: Callable[[Progress], None]
    step: Callable[[str], None]


async def evaluate(reached: Reached, order: Order, steps: Steps) -> Result:
    """Everything there is to say. Raises Ended."""
    texts = await connected(reached.client, truncate=order.truncate)
    sets = _sets(order, texts)
    pictures = await _pictures(reached, order, texts, steps)
    encoded, definition = pictures.encoded, order.labelled.chosen.definition
    several = encoded.dataset.multi_label
    steps.step(f"{len(definition.labels):,} labels in the templates {sets[0].name}")
    classes = await texts.classes(definition, sets[0], multi_label=several)
    scores = await asyncio.to_thread(scored, encoded, classes)
    once = pictures.once()
    study = Study(encoded, once, definition, texts, sets, classes, scores, steps.step)
    sections, missing = [], []
    for analysis in order.analyses:
        try:
            sections.append(await analysis(study))
        except CannotAnalyse as error:
            say(str(error))
            missing.append(str(error))
    warnings = await asyncio.to_thread(_warnings, study)
    for warning in warnings:
        say(f"warning: {warning}")
    steps.step("the report")
    return await asyncio.to_thread(_result, order, pictures, study, sections, missing, warnings)


def _sets(order: Order, texts: TextSide) -> tuple[Templates, ...]:
    """The requested template sets, else the data's, else the model's."""
    sets = [texts.templates(name) if isinstance(name, str) else name for name in order.sets]
    recommended = order.labelled.chosen.definition.templates
    if sets:
        return tuple(dict.fromkeys(sets))
    if isinstance(recommended, tuple):
        return (Templates(OWN, recommended),)
    return (texts.templates(recommended or DEFAULT),)


async def _pictures(
    reached: Reached, order: Order, texts: TextSide, steps: Steps
) -> EncodedPictures:
    dataset = order.labelled.dataset
    kept = _row_file(order, texts)
    encoding = Encoding(reached.client, texts.info, reached.jobs, reached.limit, kept)
    progress = Progress(len(dataset.files))
    try:
        pictures = await encoding.run(dataset, progress, partial(steps.encoding, progress))
    except (asyncio.CancelledError, Ended):
        finished = progress.encoded + progress.known
        if encoding.kept is not None:
            done = f"{finished} of {progress.count} pictures are encoded"
            say(f"{done}; run the same command again to continue")
        raise
    finally:
        if kept is not None:
            kept.close()
    _tell(order, pictures, progress)
    if not len(pictures.encoded.rows):
        raise Ended(SOME_FAILED, f"none of the {progress.count} pictures could be read")
    return pictures


def _tell(order: Order, pictures: EncodedPictures, progress: Progress) -> None:
    """Say what a person should know of the pictures before any figure."""
    if progress.known:
        say(f"{progress.known} pictures were already encoded, {progress.encoded} are new")
    for file in pictures.encoded.unread:
        say(f"{file.file}: {file.reason}")
    for note in _copies(pictures):
        say(note)
    conflicts = pictures.conflicts
    if conflicts:
        files = pictures.encoded.dataset.files
        names = " = ".join(_names(order.source, [files[place] for place in conflicts[0]]))
        such = ", such as" if len(conflicts) > 1 else ":"
        say(f"warning: {many(len(conflicts), 'picture')} labelled in two ways{such} {names}")


def _row_file(order: Order, texts: TextSide) -> RowFile | None:
    if order.kept is None:
        return None
    name = "".join(c if c.isalnum() else "-" for c in texts.info.fingerprint)
    try:
        return RowFile(order.kept / f"{name}-{order.variant}.rows", texts.info.width)
    except OSError as error:
        say(f"embeddings cannot be cached in {order.kept}: {reason(error)}")
        return None


def _result(
    order: Order,
    pictures: EncodedPictures,
    study: Study,
    sections: Sequence[AnalysisResult],
    missing: Sequence[str],
    warnings: Sequence[str],
) -> Result:
    encoded, data = pictures.encoded, pictures.encoded.dataset
    figures = figures_of(data.truth, study.scores, multi_label=data.multi_label)
    names = _names(order.source, data.files)
    copies = {place: _names(order.source, files) for place, files in pictures.copies.items()}
    worst = mistakes(data.truth, figures, study.scores, MISTAKES)
    first = study.sets[0]
    return Result(
        version=order.version,
        when=datetime.now(UTC),
        command=order.command,
        source=order.source.resolve().name or str(order.source),
        data=data_digest(encoded, pictures.digests),
        encoded=encoded,
        names=names,
        template_set=first.name,
        templates=first.texts,
        scores=study.scores,
        figures=figures,
        mistakes=[
            Picture(
                entry,
                names[entry.picture],
                thumbnail(data.files[entry.picture], PREVIEWS, heic=order.heic)
                if order.previews
                else None,
            )
            for entry in worst
        ],
        conflicts=pictures.conflicts,
        copies=copies,
        notes=[*order.labelled.notes, *_copies(pictures), *warnings],
        missing=missing,
        sections=[entry.section for entry in sections],
        files={name: text for entry in sections for name, text in entry.files.items()},
        previews=_previews(order, data, pictures.conflicts),
    )


def _previews(order: Order, data: Dataset, conflicts: Sequence[tuple[int, ...]]) -> dict[int, str]:
    """Thumbnails of the first of each group of equal pictures with different labels."""
    previews: dict[int, str] = {}
    for group in conflicts if order.previews else ():
        if len(previews) < PREVIEWED:
            picture = thumbnail(data.files[group[0]], PREVIEWS, heic=order.heic)
            if picture is not None:
                previews[group[0]] = picture
    return previews


def _names(source: Path, files: Sequence[Path]) -> list[str]:
    """Each file's name below the data's folder."""
    root = source if source.is_dir() else source.parent
    return [
        str(file.relative_to(root)) if file.is_relative_to(root) else str(file) for file in files
    ]


def _copies(pictures: EncodedPictures) -> list[str]:
    count = sum(map(len, pictures.copies.values()))
    if not count:
        return []
    what = f"{many(count, 'copy', 'copies')} left out of all figures"
    return [f"{what}: the same bytes with the same labels"]


def _warnings(study: Study) -> list[str]:
    """What may be wrong with the labels."""
    labels, texts, warnings = study.encoded.dataset.classes, study.texts, []
    foreign = unread(labels, texts.languages)
    if foreign:
        named = f"{_quoted(foreign)} ({many(len(foreign), 'label')})"
        warnings.append(f"{texts.info.name} was not trained to read the script of {named}")
    for group in study.classes.alike(SAME):
        named = _quoted([labels[place] for place in group])
        same = "are the same to the model and share what one of them would score"
        warnings.append(f"{named} {same}")
    return [*warnings, *texts.warnings]


def _quoted(labels: Sequence[str]) -> str:
    return ", ".join(map(repr, labels[:NAMED])) + (", ..." if len(labels) > NAMED else "")
