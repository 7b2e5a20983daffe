"""Labels as `--labels` takes them: words, or a file with one label a line. Knows no command."""

from pathlib import Path
from typing import Final

from app.api.json_text import loaded, looks_like_json
from app.cli.labelset_client import LARGEST, BadFile, definition
from app.cli.terminal import STDIN, Ended, opened, say
from app.server.exit_status import USAGE_ERROR

# what marks a file in place of words, as curl has it
MARK: Final = "@"

# labels, or labels with the texts that stand for each
LabelInput = list[str] | dict[str, list[str]]


def given_labels(values: list[str] | None) -> LabelInput | None:
    """The words of `--labels`, those of a file where one is named. Raises Ended."""
    if values is None or len(values) != 1:
        return values
    file = label_file(values[0])
    return split(values[0], "--labels") if file is None else labels_of(file)


def split(text: str, option: str) -> LabelInput:
    """The texts of a JSON list or object, or those between commas. Raises Ended."""
    if not looks_like_json(text):
        return text.split(",")
    try:
        content = loaded(text)
    except ValueError as error:
        line = f"{option}: looks like JSON but is not valid: {error}"
        raise Ended(USAGE_ERROR, line) from None
    if _is_texts(content):
        return list(content)
    if isinstance(content, dict) and all(map(_is_texts, content.values())):
        return content
    line = f"{option}: the JSON is neither a list of texts nor an object of such lists"
    raise Ended(USAGE_ERROR, line)


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def label_file(value: str) -> str | None:
    """The file that a value of `--labels` names: after @, or because it is there; None: words."""
    if value.startswith(MARK) and len(value) > 1:
        return value[1:]
    try:
        there = Path(value).is_file()
    except (OSError, ValueError):
        return None
    if there:
        say(f"--labels: reading labels from the file {value}")
    return value if there else None


def labels_of(file: str) -> LabelInput:
    """One label a line without empty lines, or JSON: a list, or labels with their texts.

    Raises Ended.
    """
    name = "stdin" if file == STDIN else file
    with opened(file) as source:
        data = source.read(LARGEST + 1)
    try:
        content = definition(data)
    except BadFile as error:
        raise Ended(USAGE_ERROR, f"--labels: {name} {error}") from None
    labels = content["labels"] if content.keys() == {"labels"} else content
    if isinstance(labels, dict) and labels and all(map(_is_texts, labels.values())):
        return labels
    if not isinstance(labels, list) or not _is_texts(labels):
        line = f"--labels: {name} is a label set; register it with `openvocab labelset create`"
        raise Ended(USAGE_ERROR, line)
    if not labels:
        raise Ended(USAGE_ERROR, f"--labels: {name} holds no labels")
    return [label.strip() for label in labels]
