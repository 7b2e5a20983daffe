"""Labels in templates to class vectors, by a service: here or elsewhere. Knows no pictures.

The vectors are those that /classify compares with.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from typing import Any, Final

import httpx2
import numpy as np

from app.classify.concept import Concept, ensemble_mean
from app.classify.ensemble import BACKGROUND
from app.classify.templates import BARE
from app.cli.client import Client
from app.cli.terminal import Ended
from app.evaluation.data import ClassRows, ModelInfo, TemplateRows
from app.evaluation.picture_vectors import EVERYBODYS, rows_from, same_model
from app.labelsets.definition import Definition
from app.server.exit_status import SERVER_ERROR, USAGE_ERROR
from models.info import Floats
from prompts import TemplateSet

# of one request
PROMPTS: Final = 1_024
TEXTS: Final = 200
TEMPLATES: Final = 80

# the model's own template set
DEFAULT: Final = ""


@dataclass(frozen=True, slots=True)
class Templates:
    """A set of templates as reports call it."""

    name: str
    texts: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TextSide:
    """What a service says of itself and of texts. Every method raises Ended.

    `truncate`: texts that are longer than the model reads are cut; `warnings` says which, once.
    """

    client: Client
    info: ModelInfo
    sets: Mapping[str, TemplateSet]
    languages: tuple[str, ...] = ()
    truncate: bool = False
    warnings: dict[str, None] = field(default_factory=dict)

    def templates(self, name: str) -> Templates:
        """A set by its name; DEFAULT is the model's own."""
        name = name or self.info.templates
        template_set = self.sets.get(name)
        if template_set is None:
            line = f"template set {name!r} not found; there are {', '.join(self.sets)}"
            raise Ended(USAGE_ERROR, line)
        return Templates(name, template_set.templates)

    async def classes(
        self, definition: Definition, templates: Templates, *, multi_label: bool
    ) -> ClassRows:
        """The class vectors, and where labels are scored alone what they are held against."""
        rows = await self._ensembles(definition.concepts(templates.texts))
        if not multi_label or self.info.bias is not None:
            return ClassRows(rows, alternatives=definition.alternatives)
        background = await self._ensembles([Concept(BACKGROUND, templates.texts)])
        return ClassRows(rows, np.asarray(background[0], np.float32), definition.alternatives)

    async def by_template(self, definition: Definition, templates: Templates) -> TemplateRows:
        """Rows for each template, from which any subset's ensemble can be made.

        Whole prompts that replace the templates stand in the place of every template.
        """
        concepts = await self._fitted(definition.concepts(templates.texts))
        prompts = list(chain.from_iterable(concept.prompts() for concept in concepts))
        flat = await self.bare(prompts)
        rows = np.empty((len(templates.texts), len(concepts), self.info.width), np.float32)
        beside, at = np.zeros(rows.shape[1:], np.float32), 0
        for place, concept in enumerate(concepts):
            block = flat[at : at + concept.count]
            at += concept.count
            texts, filled = len(concept.texts), concept.count - len(concept.whole)
            # text by text, and of each text template by template
            rows[:, place] = block[:filled].reshape(texts, len(concept.templates), -1).mean(axis=0)
            beside[place] = block[filled:].sum(axis=0) / texts
        return TemplateRows(templates.texts, rows, beside, definition.alternatives)

    async def bare(self, texts: Sequence[str]) -> Floats:
        """A row (D,) for each text as it is, in no template."""
        unique = list(dict.fromkeys(texts))
        parts = [
            await self._request_rows(unique[i : i + TEXTS]) for i in range(0, len(unique), TEXTS)
        ]
        rows = np.concatenate([part for part, _ in parts])
        place = {text: number for number, text in enumerate(unique)}
        return np.asarray(rows[[place[text] for text in texts]], np.float32)

    async def _ensembles(self, concepts: Sequence[Concept]) -> Floats:
        """One vector for each concept; the service makes those of one text itself."""
        rows = np.empty((len(concepts), self.info.width), np.float32)
        for templates, places in _alike(concepts).items():
            size = max(1, min(TEXTS, PROMPTS // len(templates)))
            for start in range(0, len(places), size):
                some = places[start : start + size]
                texts = [concepts[place].texts[0] for place in some]
                rows[some], _ = await self._request_rows(texts, templates)
        several = [place for place, concept in enumerate(concepts) if not _is_single(concept)]
        fitted = await self._fitted([concepts[place] for place in several])
        for place, concept in zip(several, fitted, strict=True):
            rows[place] = ensemble_mean(await self.bare(concept.prompts()))
        return rows

    async def _fitted(self, concepts: Sequence[Concept]) -> Sequence[Concept]:
        """With `truncate` the concepts with texts cut as in their templates the service cuts them.

        A prompt that is made here would lose the end of its template.
        """
        if not self.truncate:
            return concepts
        by_templates: dict[tuple[str, ...], dict[str, None]] = {}
        for concept in concepts:
            by_templates.setdefault(concept.templates, {}).update(dict.fromkeys(concept.texts))
        kept = {
            templates: await self._beginnings(list(texts), templates)
            for templates, texts in by_templates.items()
        }
        return [
            replace(concept, texts=tuple(kept[concept.templates][text] for text in concept.texts))
            for concept in concepts
        ]

    async def _beginnings(
        self, texts: Sequence[str], templates: Sequence[str]
    ) -> Mapping[str, str]:
        """What is left of each text so that it fits into all of the templates."""
        kept = {text: text for text in texts}
        for first in range(0, len(templates), TEMPLATES):
            some = templates[first : first + TEMPLATES]
            size = max(1, min(TEXTS, PROMPTS // len(some)))
            for start in range(0, len(texts), size):
                block = texts[start : start + size]
                _, cut = await self._request_rows([kept[text] for text in block], some)
                kept |= {text: cut.get(kept[text], kept[text]) for text in block}
        return kept

    async def _request_rows(
        self, texts: Sequence[str], templates: Sequence[str] = BARE
    ) -> tuple[Floats, Mapping[str, str]]:
        """Rows of up to TEXTS texts, each an ensemble over the templates; what was cut of them."""
        body: dict[str, Any] = {"texts": list(texts), "encoding_format": "base64"}
        if self.truncate:
            body["truncate"] = True
        if tuple(templates) != BARE:
            body["templates"] = self._name_of(templates) or list(templates)
        try:
            response = await self.client.request("POST", "/embeddings/text", json=body)
        except httpx2.TransportError as error:
            raise self.client.away(error) from None
        if response.status_code != 200:
            problem = self.client.problem(response)
            everybodys = problem["status"] in EVERYBODYS or problem["status"] >= 500
            raise Ended(SERVER_ERROR if everybodys else USAGE_ERROR, str(problem["detail"]))
        answer = self.client.content(response)
        same_model(answer, self.info)
        self.warnings.update(dict.fromkeys(answer.get("warnings", ())))
        return rows_from(answer, self.info.width), answer.get("cut", {})

    def _name_of(self, templates: Sequence[str]) -> str | None:
        """What the service calls them, which may be shorter, and allows more, than they are."""
        texts = tuple(templates)
        return next((s.name for s in self.sets.values() if s.templates == texts), None)


async def connected(client: Client, *, truncate: bool = False) -> TextSide:
    """Who answers: the model and its template sets. Raises Ended."""
    loaded = (await _get(client, "/models"))["loaded"]
    info = ModelInfo(
        name=loaded["name"],
        fingerprint=loaded["fingerprint"],
        precision=loaded["precision"],
        device=loaded["device"],
        backend=loaded["backend"],
        scale=loaded["logit_scale"],
        bias=loaded["logit_bias"],
        width=loaded["embedding_width"],
        templates=loaded["default_templates"],
    )
    sets = (await _get(client, "/templates"))["sets"]
    by_name = {content["name"]: _set(content) for content in sets}
    return TextSide(client, info, by_name, tuple(loaded["languages"]), truncate)


def _set(content: Mapping[str, Any]) -> TemplateSet:
    templates = tuple(content["templates"])
    return TemplateSet(content["name"], content["description"], content["language"], templates)


async def _get(client: Client, path: str) -> Any:
    try:
        response = await client.request("GET", path)
    except httpx2.TransportError as error:
        raise client.away(error) from None
    if response.status_code != 200:
        status = USAGE_ERROR if response.status_code == 404 else SERVER_ERROR
        raise Ended(status, str(client.problem(response)["detail"]))
    return client.content(response)


def _is_single(concept: Concept) -> bool:
    """Whether it is one text in templates and nothing else."""
    return len(concept.texts) == 1 and not concept.whole


def _alike(concepts: Sequence[Concept]) -> Mapping[tuple[str, ...], list[int]]:
    """Places of the concepts of one text, by their templates."""
    groups: dict[tuple[str, ...], list[int]] = {}
    for place, concept in enumerate(concepts):
        if _is_single(concept):
            groups.setdefault(concept.templates, []).append(place)
    return groups
