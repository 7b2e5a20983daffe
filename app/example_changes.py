"""Which examples a label set has after a change. Pure: knows neither stores nor vectors."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Final

from app import labels
from app.batch import Outcome
from app.definitions import Definition, Example
from app.errors import ExampleElsewhere, Invalid, NotFound, Problem
from app.namespaces import outside
from app.preconditions import overtaken

LABEL: Final = "label"

# labels that an error offers in place of an unknown one
NEAR: Final = 3


@dataclass(frozen=True, slots=True)
class Kept:
    """A picture that was read; `key` is where it was written, "" if it was there already."""

    sha256: str
    width: int
    height: int
    size: int
    key: str


def checked_label(label: str, known: Sequence[str]) -> str:
    """The label, if it is one of those. Raises Invalid, which offers near ones."""
    if label in known:
        return label
    if label.strip() in known:
        return label.strip()
    near = get_close_matches(label, known, NEAR)
    offer = f"; near are {', '.join(map(repr, near))}" if near else ""
    detail = f"{labels.shown(label)} is no label of this label set{offer}"
    raise Invalid(detail, field=LABEL, value=labels.excerpt(label))


def no_example(sha256: str) -> NotFound:
    """The problem of an id that no example has."""
    return NotFound("no example has this id", field="id", value=labels.excerpt(sha256))


def sorted_out(
    seen: Sequence[Outcome], claims: Callable[[int], str | Problem], definition: Definition
) -> tuple[list[tuple[Kept, str]], tuple[Outcome, ...]]:
    """Pictures with their labels, and those that cannot be taken."""
    kept: list[tuple[Kept, str]] = []
    failed: list[Outcome] = []
    for outcome in seen:
        try:
            label = claims(outcome.index)
            for found in (outcome.found, label):
                if isinstance(found, Problem):
                    raise found
            assert isinstance(outcome.found, bytes)
            assert isinstance(label, str)
            label = checked_label(label, definition.labels)
            kept.append((Kept(**json.loads(outcome.found)), label))
        except Problem as problem:
            failed.append(replace(outcome, found=problem))
    return kept, tuple(failed)


def first_problem(failed: Sequence[Outcome]) -> Problem:
    found = failed[0].found if failed else Invalid("no image was sent", field="image")
    assert isinstance(found, Problem)
    return found


def with_pictures(
    definition: Definition, kept: Sequence[tuple[Kept, str]], name: str
) -> Definition:
    """The definition with these pictures. Raises Invalid, ExampleElsewhere, PreconditionFailed."""
    found = {example.sha256: example for example in definition.examples}
    for one, label in kept:
        checked_label(label, definition.labels)
        there = found.get(one.sha256)
        if there is not None and there.label != label:
            detail = f"the picture {one.sha256[:12]}… is an example of {there.label!r} in "
            detail += f"{outside(name)}; remove it there to make it one of {label!r}"
            raise ExampleElsewhere(detail, field=LABEL, value=there.label)
        if one.key and (there is None or there.key not in {k.key for k, _ in kept}):
            found[one.sha256] = Example(one.sha256, label, one.width, one.height, one.size, one.key)
        elif there is None:
            raise overtaken(name)
    return replace(definition, examples=tuple(found.values()))
