"""What commands that work on files and servers have in common. Knows nothing of what they do."""

import asyncio
import contextlib
import sys
import threading
import unicodedata
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, Final, NoReturn, TypeVar

import typer

from app.cli.files import reason
from app.cli.help import forget_stdout
from app.errors import SHOWN
from app.server.exit_status import INTERRUPTED, MODEL_ERROR, READER_LEFT, USAGE_ERROR
from models import ModelError

if TYPE_CHECKING:
    from app.server.settings import Settings

T = TypeVar("T")
# names standard input
STDIN: Final = "-"


class Ended(Exception):
    """Why a command cannot go on: a line for a person, and its exit status."""

    def __init__(self, status: int, line: str) -> None:
        super().__init__(line)
        self.status = status
        self.line = line


def say(line: str) -> None:
    """A line to standard error, where nothing reads data."""
    typer.echo(f"openvocab: {printable(line)}", err=True)


def end(line: str, status: int = USAGE_ERROR) -> NoReturn:
    """End the command with a line that says why."""
    say(line)
    raise typer.Exit(status)


def printable(text: str) -> str:
    """The text in one line without what moves a terminal's cursor, or is no character at all."""
    if text.isprintable():
        return text
    return "".join(c if _is_shown(c) else c.encode("unicode_escape").decode() for c in text)


def _is_shown(character: str) -> bool:
    # spaces of every kind are shown: French and Swedish write no-break spaces
    return character.isprintable() or unicodedata.category(character) == "Zs"


def check_text(option: str, text: str) -> None:
    """Raises Ended for an argument that is not UTF-8, whose bytes Python keeps as surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        line = f"{option} is not UTF-8 text: {text[:SHOWN]}"
        raise Ended(USAGE_ERROR, line) from None


@contextlib.contextmanager
def opened(name: str) -> Iterator[BinaryIO]:
    """A file that an option or argument names, or standard input. Raises Ended."""
    if name == STDIN:
        if sys.stdin.isatty():
            say("reading from this terminal; Ctrl-D on a line of its own ends it")
        yield sys.stdin.buffer
        return
    try:
        file: BinaryIO = Path(name).open("rb")  # noqa: SIM115
    except OSError as error:
        raise Ended(USAGE_ERROR, f"{name}: {reason(error)}") from None
    with file:
        yield file


async def aside(function: Callable[[], T]) -> T:
    """What the function returns, from a daemon thread that the command does not wait for.

    For reading: a pipe or a disk of the network may never answer, and Ctrl-C must.
    """
    future: Future[T] = Future()

    def run() -> None:
        if not future.set_running_or_notify_cancel():  # nobody waits any more
            return
        try:
            future.set_result(function())
        except BaseException as error:
            future.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return await asyncio.wrap_future(future)


def settings_or_exit(**options: Any) -> "Settings":
    """The settings, with the options that are given; ends the command where one is invalid."""
    # commands that ask a server need none, and would take twice as long to start
    from app.server.settings import BadSettings, settings_from

    try:
        return settings_from(**{k: value for k, value in options.items() if value is not None})
    except BadSettings as error:
        end(str(error))


def or_exit(action: Callable[[], T]) -> T:
    """What the action returns; ends the command if the model cannot be loaded."""
    try:
        return action()
    except ModelError as error:
        end(str(error), MODEL_ERROR)


def status_of(run: Callable[[], int]) -> int:
    """The exit status of a command, after printing one line for the user."""
    try:
        return run()
    except Ended as ended:
        say(ended.line)
        return ended.status
    except KeyboardInterrupt:
        say("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        forget_stdout()
        return READER_LEFT
