"""The analyses of an evaluation: template sets compared and searched, shots, calibration.

Each takes a `Study` and returns its section of the report.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

from app.classify.ensemble import BACKGROUND
from app.cli.terminal import say
from app.evaluation import shots as draws
from app.evaluation import template_search
from app.evaluation.class_labels import labelset_file
from app.evaluation.class_vectors import Templates, TextSide
from app.evaluation.data import ClassRows, Encoded, Scores, Section, TemplateRows
from app.evaluation.linear_probe import NoScikitLearn, available
from app.evaluation.report.calibration import calibrate
from app.evaluation.report.files import CALIBRATION, LABELSET, TEMPLATES
from app.evaluation.report.shots import ShotsSection
from app.evaluation.report.template_search import SearchSection
from app.evaluation.report.trials import TrialsSection
from app.evaluation.tables import BadData
from app.evaluation.trials import judge
from app.labelsets.calibration.fit import Aim, NotEnough
from app.labelsets.calibration.value import fitted_for
from app.labelsets.definition import Definition, Entry


@dataclass(frozen=True, slots=True)
class Study:
    """What an analysis can use: pictures and labels as vectors, and the text side for more.

    `sets` are the template sets that were asked for, the first is that of `classes` and `scores`.
    `once` is for what divides the pictures: none is in two parts, whatever its labels. `step` tells
    a person what is being done.
    """

    encoded: Encoded
    once: Encoded
    definition: Definition
    texts: TextSide
    sets: tuple[Templates, ...]
    classes: ClassRows
    scores: Scores
    step: Callable[[str], None]

    async def classes_in(self, templates: Templates) -> ClassRows:
        """The class vectors in another template set. Raises Ended."""
        if templates == self.sets[0]:
            return self.classes
        several = self.encoded.dataset.multi_label
        return await self.texts.classes(self.definition, templates, multi_label=several)


@dataclass(frozen=True, slots=True)
class AnalysisResult:
    """A section of the report, and the files that belong to it, by name."""

    section: Section
    files: Mapping[str, str] = field(default_factory=dict)


class CannotAnalyse(ValueError):
    """Why one analysis is not possible with this data; the others go on. A line for a person."""


Analysis = Callable[[Study], Awaitable[AnalysisResult]]


def analyses(
    *,
    compare: bool,
    search: bool,
    shots: str | None,
    seeds: int,
    risk: float | None,
    seed: int,
    force: bool,
    multi_label: bool,
) -> Sequence[Analysis]:
    """The analyses, in the order of the report: `compare` template sets, `search` a subset, `shots`
    a class, a wanted `risk`.

    `seeds` draws of examples; `seed` begins whatever is drawn by chance. `force`: a calibration is
    written even where it makes held-out figures worse. Raises BadData for what they could not do.
    """
    chosen: list[Analysis] = []
    if compare:
        chosen.append(partial(_trials, seed=seed))
    if search:
        chosen.append(partial(_search, seed=seed))
    if shots is not None:
        counts = _counts(shots, multi_label)
        chosen.append(partial(_shots, counts=counts, seeds=seeds, seed=seed))
    if risk is not None:
        chosen.append(partial(_calibration, aim=Aim(risk), seed=seed, force=force))
    return chosen


async def _trials(study: Study, seed: int) -> AnalysisResult:
    """The other sets are compared with the first one."""
    sets = {}
    for templates in study.sets:
        study.step(f"labels in the templates {templates.name}")
        sets[templates.name] = await study.classes_in(templates)
    study.step("comparing templates")
    default = study.sets[0].name
    try:
        trials = await asyncio.to_thread(judge, study.encoded, sets, default, seed=seed)
    except ValueError as error:
        raise CannotAnalyse(f"--templates: {error}") from None
    return AnalysisResult(TrialsSection(trials))


async def _search(study: Study, seed: int) -> AnalysisResult:
    """Among the templates of all sets in the model's languages; the first set is compared."""
    first = study.sets[0]
    languages = study.texts.languages or ("en",)
    texts = tuple(dict.fromkeys((*template_search.pool(study.texts.sets, languages), *first.texts)))
    study.step(f"labels in {len(texts)} templates")
    every = Templates("", texts)
    rows = await study.texts.by_template(study.definition, every)
    background = await _background(study, every)
    study.step("the search for templates")
    try:
        result = await asyncio.to_thread(
            template_search.search,
            study.once,
            rows,
            first.texts,
            default_name=first.name,
            background=background,
            seed=seed,
        )
    except ValueError as error:
        raise CannotAnalyse(f"--search-templates: {error}") from None
    section = SearchSection(result)
    return AnalysisResult(section, {TEMPLATES: section.file_text()})


async def _background(study: Study, templates: Templates) -> TemplateRows | None:
    if not study.encoded.dataset.multi_label or study.encoded.info.bias is not None:
        return None
    background = Definition((Entry("background", BACKGROUND),))
    return await study.texts.by_template(background, templates)


async def _shots(study: Study, counts: Sequence[int], seeds: int, seed: int) -> AnalysisResult:
    study.step("zero-shot, few-shot, linear probe")
    try:
        measured_shots = await asyncio.to_thread(
            draws.shots, study.once, study.classes, counts, seeds=seeds, seed=seed
        )
    except draws.ShotsError as error:
        raise CannotAnalyse(str(error)) from None
    return AnalysisResult(ShotsSection(measured_shots))


def _counts(text: str, multi_label: bool) -> list[int]:
    """From 0,1,2,4. Raises BadData, before anything is encoded."""
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() and len(part) < 6 for part in parts):
        raise BadData(f"--shots: {text!r} is not a list of whole numbers like 0,1,2,4,8,16")
    if multi_label:
        raise BadData("--shots needs pictures of one label each")
    try:
        available()
    except NoScikitLearn as error:
        raise BadData(str(error)) from None
    return sorted({int(part) for part in parts})


async def _calibration(study: Study, aim: Aim, seed: int, force: bool) -> AnalysisResult:
    """With a background, so that labels that are scored alone get thresholds, too."""
    study.step("calibration")
    first = study.sets[0]
    classes = await study.texts.classes(study.definition, first, multi_label=True)
    concepts = study.definition.concepts(first.texts)
    stamp = fitted_for(study.definition.labels, concepts)
    try:
        section = await asyncio.to_thread(calibrate, study.once, classes, stamp, aim=aim, seed=seed)
    except NotEnough as error:
        raise CannotAnalyse(f"--calibrate: {error}") from None
    text = section.file_text()
    if text is not None and section.worse and not force:
        say(f"no {CALIBRATION}: {section.worse} (--force writes it anyway)")
        text = None
    if text is None:
        return AnalysisResult(section)
    # a calibration holds for these labels in this order and these templates alone
    templates = first.name if first.name in study.texts.sets else first.texts
    labelset = labelset_file(study.definition, templates, truncate=study.texts.truncate)
    return AnalysisResult(section, {CALIBRATION: text, LABELSET: labelset})
