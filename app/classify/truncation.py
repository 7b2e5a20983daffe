"""Texts that are longer than a text tower reads, cut until they fit. Pure: knows no tokenizer."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from app.classify.concept import Concept
from app.errors import TooLarge, shown

# so many times a text is cut; each time by what is over, so that few are needed
ROUNDS: Final = 30

# characters of the last words that count
TAIL: Final = 30

# texts that one sentence names
NAMED: Final = 5


class TextTooLong(TooLarge):
    """A text whose prompt has more tokens than the model reads: `value` of `limit`.

    `text` stands in a template, or is a whole prompt.
    """

    text: str = ""

    @classmethod
    def of(cls, text: str, prompt: str, tokens: int, limit: int) -> "TextTooLong":
        """The problem of a text whose prompt has so many tokens."""
        whose = shown(text) if prompt == text else f"the prompt {shown(prompt)} of {shown(text)}"
        detail = f"{whose} has {tokens} tokens, the model reads {limit}"
        problem = cls(detail, field="labels", limit=limit, value=tokens)
        problem.text = text
        return problem


@dataclass(frozen=True, slots=True)
class Cut:
    """What is left of a text, and how many tokens its prompt had of how many that are read."""

    text: str
    kept: str
    tokens: int
    limit: int

    def warning(self) -> str:
        """What the answer says of it."""
        tail = self.kept if len(self.kept) <= TAIL else f"...{self.kept[-TAIL:]}"
        return (
            f"{shown(self.text)} is longer than the model reads ({self.tokens} tokens of "
            f"{self.limit}); only its beginning counts, as far as {tail!r}"
        )


def few(warnings: list[str]) -> tuple[str, ...]:
    """The first of them, and how many more there are."""
    more = len(warnings) - NAMED
    last = [f"and {more} more that the model does not read whole"] if more > 0 else []
    return (*warnings[:NAMED], *last)


def together(problems: list[TextTooLong]) -> TextTooLong:
    """One problem that names the texts of all, of which there is one at least."""
    first = problems[0]
    rest = [shown(problem.text) for problem in problems[1:NAMED]]
    more = [f"{len(problems) - NAMED} more"] if len(problems) > NAMED else []
    if not rest:
        return first
    detail = f"{first.detail}; too long as well: {', '.join(rest + more)}"
    return TextTooLong(detail, field=first.field, limit=first.limit, value=first.value)


# what helps where a text is too long
TAKE_BEGINNING: Final = "set truncate to take its beginning"


def advised(problem: TextTooLong) -> TextTooLong:
    """The same with what helps, where the request or the label set can say it."""
    detail = f"{problem.detail}; shorten it, or {TAKE_BEGINNING}"
    return TextTooLong(detail, field=problem.field, limit=problem.limit, value=problem.value)


def shortened(text: str, tokens: int, limit: int) -> str:
    """A beginning of a text whose prompt has `tokens`: whole words, or of one word a part."""
    over = max(1, tokens - limit) / max(tokens, 1)
    words = text.split(" ")
    if len(words) > 1:
        return " ".join(words[: len(words) - max(1, int(len(words) * over))])
    return text[: len(text) - max(1, int(len(text) * over))]


def without(concept: Concept, problem: TextTooLong) -> Concept:
    """The concept with less of the text at fault. Raises the problem if none is left."""
    assert isinstance(problem.value, int)
    assert isinstance(problem.limit, int)
    kept = shortened(problem.text, problem.value, problem.limit)
    if not kept:
        raise problem
    return replace(
        concept,
        texts=tuple(kept if text == problem.text else text for text in concept.texts),
        whole=tuple(kept if text == problem.text else text for text in concept.whole),
    )


def cuts(before: Concept, after: Concept, problems: Mapping[str, TextTooLong]) -> list[Cut]:
    """What was cut of a concept; `problems` of its texts, of each as it was the first time."""
    pairs = zip((*before.texts, *before.whole), (*after.texts, *after.whole), strict=True)
    return [_cut(problems[text], kept) for text, kept in pairs if text != kept]


def _cut(problem: TextTooLong, kept: str) -> Cut:
    assert isinstance(problem.value, int)
    assert isinstance(problem.limit, int)
    return Cut(problem.text, kept, problem.value, problem.limit)
