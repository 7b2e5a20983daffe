"""The whole data flow: an image and labels in, ranked labels out. Knows nothing of HTTP."""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Final

import numpy as np

from app.classify import heatmap, labels, scoring
from app.classify.concept import Concept
from app.classify.embedding import ImageEmbedder, SeenBefore
from app.classify.ensemble import Ensemble
from app.classify.other_words import Competition, KnownRivals, OtherWords, Rivals, compete
from app.classify.query import Classes, Classification, Part, Prediction, Query, Result, one_label
from app.classify.scoring import SAME, Alternatives, Criteria, Decision, Group, Scale, decide
from app.classify.templates import TemplateSets
from app.classify.truncation import TextTooLong, advised
from app.errors import Invalid, Problem, TooLarge, first_of_group
from app.images.notes import bordered, cropped
from app.images.views import Cut, Look
from app.telemetry.spans import Stages
from models import EncoderInfo
from models.info import Floats, Pixels

SHOWN_BY_DEFAULT: Final = 5

# reasons with which a group of labels says no more than a label
FITS_NOTHING: Final = ("similarity_below_floor", "nearer_to_another_word")

# labels that get a heat map
MOST_EXPLAINED: Final = 10

# predictions of one picture with several boxes or label sets; twice as many as the labels of the
# largest set by default
MOST_PREDICTIONS: Final = 20_000

# labels that one warning names
WARNED: Final = 5


@dataclass(frozen=True, slots=True)
class Classifier:
    """Decode, batch, encode, ensemble and score, each in its own module, here in one view.

    `registered` finds what a label set of a query is made of; `others` names the one whose words
    labels are held against to abstain.
    """

    info: EncoderInfo
    embedder: ImageEmbedder
    ensemble: Ensemble
    templates: TemplateSets
    registered: Callable[[Query, str], Awaitable[Classes]]
    others: str
    known_rivals: KnownRivals = field(default_factory=KnownRivals)
    # of many heat maps one at a time is encoded: their covers would fill the queue for everybody
    explaining: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def classify(
        self, image: bytes | SeenBefore, query: Query, stages: Stages
    ) -> Classification:
        """Score every label of the query against the image.

        Raises: what decoding, batching, the ensemble and the label sets raise; Invalid;
        UnknownImage.
        """
        with first_of_group():
            async with asyncio.TaskGroup() as both:
                embedding = both.create_task(self.embedder.embed_regions(image, query.look, stages))
                text = both.create_task(self._lists(query, stages))
        (described, regions), lists = embedding.result(), text.result()
        parts = []
        spec = query.look.spec(self.info.image)
        for place, region in enumerate(regions):
            tiled = query.look.view.startswith("tiles")
            unseen = () if tiled else cropped(region.area, spec)
            if query.look.view == "auto":
                unseen += bordered(region.area, spec)
            warnings = tuple(each.warning for each in (*described.noticed, *unseen))
            looked = _Looked(image, place, region.rows, warnings)
            results = []
            for compared in lists:
                results.append(await self._result(looked, compared, query, stages))
                if len(regions) * len(lists) > 1:
                    await asyncio.sleep(0)  # others wait for one of them, not for all
            parts.append(Part(region.area, tuple(results)))
        return Classification(self.info.name, described, tuple(parts), bool(query.look.boxes))

    async def _result(
        self, looked: "_Looked", compared: "_Compared", query: Query, stages: Stages
    ) -> Result:
        with stages.stage("score"):
            scored = self._scored(looked, compared, query)
        classes, decision = compared.classes, scored.decision
        maps: dict[int, str] = {}
        if query.explain:
            with stages.stage("explain"):
                chosen = decision.order[:MOST_EXPLAINED]
                maps = await self._explain(looked, query.look, classes, scored.cosines, chosen)
        answered = scored.predictions(decision.order, maps)
        withheld = scored.predictions(decision.withheld, maps)
        shown = [prediction.label for prediction in answered or withheld]
        return Result(
            templates=classes.template_set,
            labelset=compared.labelset,
            labelset_version=classes.version,
            cached=classes.cached,
            predictions=answered,
            abstained=decision.reason is not None,
            # of a label set, which may be large, only what is answered
            warnings=(
                *query.warnings,
                *looked.warnings,
                *self._warnings(query.labels or shown, compared, query),
                *_same(scored, None if query.labels else decision.order),
                *islice(_same_nots(scored, compared.nots), WARNED),
            ),
            calibrated=classes.learned is not None,
            reason=decision.reason,
            withheld=withheld,
            groups=self._groups(decision, classes, query),
            covering=None
            if query.coverage is None
            else tuple(classes.labels[place] for place in decision.covering),
        )

    def _scored(self, looked: "_Looked", compared: "_Compared", query: Query) -> "_Scored":
        classes = compared.classes
        each = scoring.best_similarities(looked.rows, classes.rows)
        cosines = each if classes.alternatives is None else classes.alternatives.best(each)
        background = compared.background
        alone = None if background is None else float((looked.rows @ background).max())
        competition = compared.competition(looked.rows)
        decision = decide(
            cosines, alone, self._scale, classes.learned, _criteria(query, classes), competition
        )
        return _Scored(classes, each, cosines, competition, decision)

    def _groups(self, decision: Decision, classes: Classes, query: Query) -> tuple[Group, ...]:
        """The groups that are answered: not where the picture fits no label at all."""
        if classes.groups is None or (decision.reason and decision.reason.code in FITS_NOTHING):
            return ()
        criteria = _criteria(query, classes)
        shares = self._scale.scoring(criteria) == "softmax"
        ranked = classes.groups.ranked(decision.scores, shares=shares)
        return tuple(g for g in ranked[: criteria.top_k] if g.score >= (criteria.threshold or 0.0))

    async def _explain(
        self,
        looked: "_Looked",
        look: Look,
        classes: Classes,
        cosines: Floats,
        chosen: Sequence[int],
    ) -> dict[int, str]:
        """A heat map for each chosen label, by its number."""
        if isinstance(looked.image, SeenBefore):
            detail = "explain needs the picture's pixels, which are not kept; send the picture"
            raise Invalid(detail, field="explain")
        if not chosen:
            return {}
        if looked.covered is None:
            looked.covered = await self._covered(looked.image, looked.place, look)
        region = looked.covered
        places = list(chosen)
        covered = region.rows @ classes.rows.T
        if classes.alternatives is not None:
            covered = classes.alternatives.best(covered)
        without = covered[:, places]
        maps = heatmap.heat(cosines[places], without, heatmap.flat(region.pixels))
        shape = (region.area.width, region.area.height, look.spec(self.info.image))
        return {i: heatmap.png(cells, *shape) for i, cells in zip(places, maps, strict=True)}

    async def _covered(self, image: bytes, place: int, look: Look) -> "_Covered":
        decoded = await self.embedder.decoder.decode(image, look)
        (pixels,), area = decoded.views[place], decoded.regions[place].area
        async with self.explaining:
            copies = await asyncio.to_thread(heatmap.covered, pixels)
            rows = await self.embedder.encode(copies, Stages())
        return _Covered(area, pixels, rows)

    async def prepare(self, query: Query) -> None:
        """Check that labels and templates can be used, before many images are processed."""
        await self._lists(query, Stages())

    async def _lists(self, query: Query, stages: Stages) -> list["_Compared"]:
        """What the image is compared with: the labels of the request, or those of each set."""
        with stages.stage("text"):

            async def of(name: str) -> _Compared:
                return await self._compared(await self.registered(query, name), name, query)

            if query.labelsets:
                lists = await asyncio.gather(*map(of, query.labelsets))
            else:
                lists = [await self._compared(await self._sent_along(query), None, query)]
        _check_count(lists, query)
        return lists

    async def _compared(self, classes: Classes, labelset: str | None, query: Query) -> "_Compared":
        if len(classes.labels) == 1 and query.scores == "softmax":
            detail = "scores=softmax compares labels with one another, and there is 1; give more"
            raise Invalid(detail, field="scores", limit=2, value=1)
        if len(classes.labels) == 1 and not query.scores_alone:
            raise one_label("labels" if labelset is None else "labelset", classes.labels[0])
        if query.coverage is not None and (
            classes.learned is None or not classes.learned.conformal
        ):
            why = classes.warning or "POST /labelsets/{name}/calibrate fits it"
            detail = f"coverage needs a label set with a calibration that holds: {why}"
            raise Invalid(detail, field="coverage", value=query.coverage)
        rivals, late = await self._rivals(query, classes, labelset)
        background = nots = None
        if self._needs_background(query, classes):
            background = await self.ensemble.background(classes.templates)
        words = tuple(dict.fromkeys((*classes.nots, *query.nots)))
        if query.abstain and words:
            nots = OtherWords(words, (await self.ensemble.matrix(words, classes.templates)).rows)
        return _Compared(classes, background, labelset, nots, rivals, late)

    async def _rivals(
        self, query: Query, classes: Classes, labelset: str | None
    ) -> tuple[Rivals | None, bool]:
        """The words that labels are held against, and whether they should be known but are not."""
        if not query.abstain or query.tags or classes.learned is not None:
            return None, False
        if not compete(len(classes.rows)):
            return None, False  # so nothing is waited for
        rivals_query = replace(query, templates=None, patience=query.patience / 2)
        try:
            words = await self.registered(rivals_query, self.others)
        except Problem:  # being built, or it cannot be: no reason to answer nothing at all
            return None, True
        others = OtherWords(words.labels, words.rows)
        # all that the rows are made of
        labels_read = (classes.labels, query.texts, query.best, classes.templates)
        name = (query.namespace, labelset, classes.version, *labels_read)
        return self.known_rivals.of(name, classes.rows, others), False

    async def _sent_along(self, query: Query) -> Classes:
        name, templates = self.templates.resolve(query.templates)
        if not query.texts:
            try:
                vectors = await self.ensemble.matrix(query.labels, templates)
            except TextTooLong as problem:
                if not query.truncate:
                    raise advised(problem) from None
            else:
                return Classes(query.labels, vectors.rows, vectors.cached, name, templates)
        texts_of = query.texts or [(label,) for label in query.labels]
        concepts = [Concept(texts, templates) for texts in texts_of]
        alternatives = None
        if query.best:
            concepts = [Concept((text,), templates) for texts in texts_of for text in texts]
            alternatives = Alternatives.of([texts if len(texts) > 1 else () for texts in texts_of])
        fitted = await self.ensemble.read(concepts, truncate=query.truncate)
        return Classes(
            query.labels,
            fitted.vectors.rows,
            min(fitted.vectors.cached, len(query.labels)),
            name,
            templates,
            alternatives=alternatives,
            unread=fitted.warnings(),
        )

    def _needs_background(self, query: Query, classes: Classes) -> bool:
        sigmoids = self._scale.scoring(_criteria(query, classes)) == "sigmoid"
        if self.info.bias is None and sigmoids:
            return True
        return query.abstain and classes.learned is None

    @property
    def _scale(self) -> Scale:
        return Scale(self.info.scale, self.info.bias)

    def _warnings(
        self, texts: Sequence[str], compared: "_Compared", query: Query
    ) -> tuple[str, ...]:
        classes = compared.classes
        warnings = [f"the calibration is not used: {classes.warning}"] if classes.warning else []
        if classes.failed:
            warnings.append(classes.failed)
        if compared.late:
            warnings.append("abstain ran without the words to compare with: they are not ready yet")
        warnings += classes.unread
        if query.tags:
            warnings.append("no labels were given: these are tags from a shipped list of nouns")
        if classes.learned and self.info.bias is not None and query.scores == "softmax":
            warnings.append("the calibration's temperature is not used: it was fitted to sigmoids")
        unread = labels.unread(texts, self.info.provenance.languages)
        if unread:
            text = f"{self.info.name} was not trained to read the script of {_quoted(unread)}"
            warnings.append(f"{text}; such scores mean little")
        negated = labels.negated(texts)
        if negated:
            text = f"such models hardly understand negation, as in {_quoted(negated)}"
            warnings.append(f"{text}: it scores like what it negates; use abstain=true instead")
        return tuple(warnings)


@dataclass(frozen=True, slots=True)
class _Covered:
    """A region's pixels, and the rows (COVERS, D) of its covered copies."""

    area: Cut
    pixels: Pixels
    rows: Floats


@dataclass(slots=True)
class _Looked:
    """A region of an image file by its index among those requested, and its rows (V, D).

    It is `covered` once, however many lists of labels are explained.
    """

    image: bytes | SeenBefore
    place: int
    rows: Floats
    warnings: tuple[str, ...]
    covered: _Covered | None = None


@dataclass(frozen=True, slots=True)
class _Compared:
    """One list of labels, the background's row (D,) where it is needed, words that rule labels out
    (`nots`), and those that compete with them, which may come too `late`.
    """

    classes: Classes
    background: Floats | None
    labelset: str | None
    nots: OtherWords | None
    rivals: Rivals | None
    late: bool

    def competition(self, views: Floats) -> Competition | None:
        """How the best of a picture's views (V, D) fits other words."""
        if self.nots is None and self.rivals is None:
            return None
        words: tuple[str, ...] = ()
        own = None
        if self.nots is not None:
            words, own = self.nots.words, scoring.best_similarities(views, self.nots.rows)
        cosines = None
        if self.rivals is not None:
            of_words = scoring.best_similarities(views, self.rivals.others.rows)
            cosines = of_words[self.rivals.places]
        return Competition(words, own, self.rivals, cosines)


@dataclass(frozen=True, slots=True)
class _Scored:
    """Cosines of a region with `each` (R,) of the rows of some classes, of which the best of a
    label are its `cosines` (C,), and with other words; and what is decided by them.
    """

    classes: Classes
    each: Floats
    cosines: Floats
    competition: Competition | None
    decision: Decision

    def predictions(self, places: Sequence[int], maps: Mapping[int, str]) -> tuple[Prediction, ...]:
        """Those of the labels at these places, with the heat maps of some."""
        alternatives, groups = self.classes.alternatives, self.classes.groups
        return tuple(
            Prediction(
                self.classes.labels[i],
                float(self.decision.scores[i]),
                float(self.cosines[i]),
                maps.get(i),
                None if alternatives is None else alternatives.text(self.each, i),
                groups.paths[i] if groups else (),
            )
            for i in places
        )


def _check_count(lists: Sequence[_Compared], query: Query) -> None:
    """Nothing if the answer is not too long. Raises TooLarge."""
    top_k = query.top_k or SHOWN_BY_DEFAULT
    labels_of = [len(compared.classes.labels) for compared in lists]
    # with coverage any label may be in the set
    each = sum(labels_of) if query.coverage is not None else sum(min(top_k, n) for n in labels_of)
    boxes = max(1, len(query.look.boxes))
    count = each * boxes
    if len(lists) * boxes > 1 and count > MOST_PREDICTIONS:
        field, advice = "coverage", "send"
        if query.coverage is None:
            field, advice = "top_k", "lower top_k, or send"
        detail = f"the answer for one picture would have {count} predictions, the limit is "
        detail += f"{MOST_PREDICTIONS}; {advice} fewer boxes or label sets"
        raise TooLarge(detail, field=field, limit=MOST_PREDICTIONS, value=count)


def _criteria(query: Query, classes: Classes) -> Criteria:
    return Criteria(
        top_k=query.top_k or SHOWN_BY_DEFAULT,
        threshold=query.threshold,
        alone=query.multi_label or len(classes.labels) == 1,
        abstain=query.abstain,
        scores=query.scores,
        lead=not query.tags,
        coverage=query.coverage,
    )


def _same(scored: _Scored, places: Sequence[int] | None) -> Iterator[str]:
    """A warning for labels that are the same to the model, which then share one score."""
    classes, cosines, alternatives = scored.classes, scored.cosines, scored.classes.alternatives

    def row(label: int) -> int:
        return label if alternatives is None else alternatives.row(scored.each, label)

    chosen = np.arange(len(cosines)) if places is None else np.array(places, int)
    order = chosen[np.argsort(cosines[chosen], kind="stable")]
    close = np.flatnonzero(np.diff(cosines[order]) < SAME)
    groups: list[list[int]] = []
    for at in close:
        first, second = int(order[at]), int(order[at + 1])
        if float(classes.rows[row(first)] @ classes.rows[row(second)]) < 1 - SAME:
            continue
        if groups and groups[-1][-1] == first:
            groups[-1].append(second)
        else:
            groups.append([first, second])
    for group in groups[:WARNED]:
        named = _quoted([classes.labels[place] for place in sorted(group)])
        yield f"{named} are the same to the model and share what one of them would score"


def _same_nots(scored: _Scored, nots: OtherWords | None) -> Iterator[str]:
    """A warning for words that rule labels out but are the same to the model as a label."""
    classes, each, competition = scored.classes, scored.each, scored.competition
    if nots is None or competition is None or competition.own is None:
        return
    for word, row, cosine in zip(nots.words, nots.rows, competition.own, strict=True):
        # rows are compared where the cosines are close: label sets may be large
        close = np.flatnonzero(np.abs(each - cosine) < SAME)
        same = close[classes.rows[close] @ row >= 1 - SAME]
        if len(same):
            place = int(same[0])
            label = classes.alternatives.label(place) if classes.alternatives else place
            yield (
                f"{word!r} is the same to the model as the label {classes.labels[label]!r} and "
                "rules nothing out"
            )


def _quoted(texts: Sequence[str]) -> str:
    """The first of them in quotes, and how many more there are."""
    named = ", ".join(repr(text) for text in texts[:WARNED])
    return f"{named} and {len(texts) - WARNED} more" if len(texts) > WARNED else named
