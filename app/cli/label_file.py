"""Labels as `--labels` takes them: words, or a file with one label a line. Knows no command."""

from pathlib import Path
from typing import Final

from app.cli.labelset_client import BadFile, definition
from app.cli.terminal import STDIN, Ended, opened, say
from app.server.exit_status import USAGE_ERROR

# what marks a file in place of words, as curl has it
MARK: Final = "@"

# bytes of a file of labels; no server takes more
LARGEST: Final = 200_000_000


def given_labels(values: list[str] | None) -> list[str] | None:
    """The words of `--labels`, those of a file where one is named. Raises Ended."""
    if values is None or len(values) != 1:
        return values
    file = label_file(values[0])
    return values if file is None else labels_of(file)


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


def labels_of(file: str) -> list[str]:
    """One label a line without empty lines, or a JSON list. Raises Ended."""
    name = "stdin" if file == STDIN else file
    with opened(file) as source:
        data = source.read(LARGEST)
    try:
        labels = definition(data)["labels"]
    except BadFile as error:
        raise Ended(USAGE_ERROR, f"--labels: {name} {error}") from None
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        line = f"--labels: {name} is a label set; register it with `openvocab labelset create`"
        raise Ended(USAGE_ERROR, line)
    if not labels:
        raise Ended(USAGE_ERROR, f"--labels: {name} holds no labels")
    return [label.strip() for label in labels]
