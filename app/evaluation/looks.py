"""The closer looks that an evaluation can take, as options ask for them. Knows no command line."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from app.calibration import fitted_for
from app.calibration_fit import Aim, NotEnough
from app.classifier import BACKGROUND
from app.definitions import Entry
from app.evaluation.calibration_report import calibrate
from app.evaluation.class_labels import BadData
from app.evaluation.data import TemplateRows
from app.evaluation.evaluating import CannotLook, Look, Seen, Study
from app.evaluation.probe import NoScikitLearn, available
from app.evaluation.shots import ShotsError, shots
from app.evaluation.shots_report import ShotsSection
from app.evaluation.template_search import pool, search
from app.evaluation.template_search_report import SearchSection
from app.evaluation.texts import Templates
from app.evaluation.trials import judge
from app.evaluation.trials_report import TrialsSection

# files that a look leaves beside the report
TEMPLATES_FILE = "templates.txt"
CALIBRATION_FILE = "calibration.json"


@dataclass(frozen=True, slots=True)
class Asked:
    """Which looks: `compare` template sets, `search` a subset, `shots` a class, a wanted `risk`.

    `seeds` draws of examples; `seed` begins whatever is drawn by chance.
    """

    compare: bool
    search: bool
    shots: str | None
    seeds: int
    risk: float | None
    seed: int


def looks(asked: Asked, *, multi_label: bool) -> Sequence[Look]:
    """The looks, in the order of the report. Raises BadData for what they could not do."""
    found: list[Look] = []
    if asked.compare:
        found.append(_trials(asked.seed))
    if asked.search:
        found.append(_search(asked.seed))
    if asked.shots is not None:
        found.append(_shots(_counts(asked.shots, multi_label), asked.seeds, asked.seed))
    if asked.risk is not None:
        found.append(_calibration(Aim(asked.risk), asked.seed))
    return found


def _trials(seed: int) -> Look:
    async def look(study: Study) -> Seen:
        """The first set that is asked for is what the others are compared with."""
        sets = {}
        for one in study.sets:
            study.step(f"labels in the templates {one.name}")
            sets[one.name] = await study.classes_in(one)
        study.step("templates on trial")
        default = study.sets[0].name
        found = await asyncio.to_thread(judge, study.encoded, sets, default, seed=seed)
        return Seen(TrialsSection(found))

    return look


def _search(seed: int) -> Look:
    async def look(study: Study) -> Seen:
        """Among the templates of all sets in the model's languages; the first set is compared."""
        first = study.sets[0]
        languages = study.texts.languages or ("en",)
        texts = tuple(dict.fromkeys((*pool(study.texts.sets, languages), *first.texts)))
        study.step(f"labels in {len(texts)} templates")
        every = Templates("", texts)
        rows = await study.texts.by_template(study.entries, every)
        background = await _background(study, every)
        study.step("the search for templates")
        try:
            found = await asyncio.to_thread(
                search,
                study.encoded,
                rows,
                first.texts,
                default_name=first.name,
                background=background,
                seed=seed,
            )
        except ValueError as error:
            raise CannotLook(f"--search-templates: {error}") from None
        section = SearchSection(found)
        return Seen(section, {TEMPLATES_FILE: section.file_text()})

    return look


async def _background(study: Study, templates: Templates) -> TemplateRows | None:
    if not study.encoded.dataset.multi_label or study.encoded.info.bias is not None:
        return None
    return await study.texts.by_template([Entry("background", BACKGROUND)], templates)


def _shots(counts: Sequence[int], seeds: int, seed: int) -> Look:
    async def look(study: Study) -> Seen:
        study.step("zero-shot, few-shot, linear probe")
        try:
            found = await asyncio.to_thread(
                shots, study.encoded, study.classes, counts, seeds=seeds, seed=seed
            )
        except ShotsError as error:
            raise CannotLook(str(error)) from None
        return Seen(ShotsSection(found))

    return look


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


def _calibration(aim: Aim, seed: int) -> Look:
    async def look(study: Study) -> Seen:
        """With a background, so that labels that are scored alone get thresholds, too."""
        study.step("calibration")
        first = study.sets[0]
        classes = await study.texts.classes(study.entries, first, multi_label=True)
        concepts = [entry.concept(first.texts) for entry in study.entries]
        stamp = fitted_for(study.encoded.dataset.classes, concepts)
        try:
            found = await asyncio.to_thread(
                calibrate, study.encoded, classes, stamp, aim=aim, seed=seed
            )
        except NotEnough as error:
            raise CannotLook(f"--calibrate: {error}") from None
        text = found.file_text()
        return Seen(found, {} if text is None else {CALIBRATION_FILE: text})

    return look
