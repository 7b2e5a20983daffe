"""How `--help` looks and how a command line ends: plain text in groups, in any width and encoding.

Knows no command.
"""

import contextlib
import errno
import importlib
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, Final

import typer
from typer.core import TyperCommand, TyperGroup

from app.cli.files import reason
from app.cli.imports import uncollected
from app.server.exit_status import READER_LEFT, SOME_FAILED

# an option of each group
label_option: Final = partial(typer.Option, rich_help_panel="Labels")
input_option: Final = partial(typer.Option, rich_help_panel="Input")
output_option: Final = partial(typer.Option, rich_help_panel="Output")
sorting_option: Final = partial(typer.Option, rich_help_panel="Sorting")
server_option: Final = partial(typer.Option, rich_help_panel="Model or server")
analysis_option: Final = partial(typer.Option, rich_help_panel="Analyses")

_UNGROUPED: Final = "Options"

# what writing to a file fails with that was open
NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})


class Command(TyperCommand):
    """A command whose options are grouped by their `rich_help_panel`."""

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """A required argument is NAME, as in manual pages, and not {NAME}."""
        return [re.sub("[{}]", "", piece) for piece in super().collect_usage_pieces(ctx)]

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments first, then the groups as they are declared, then what has no group."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                plain = _UNGROUPED
                if param.param_type_name == "argument":
                    plain, record = "Arguments", (param.metavar or param.name, record[1])
                name = getattr(param, "rich_help_panel", None) or plain
                groups.setdefault(name, []).append(record)
        for name in sorted(groups, key=_UNGROUPED.__eq__):
            with formatter.section(name):
                formatter.write_dl(groups[name])


class Root(TyperGroup):
    """`openvocab` itself: texts fit any terminal, and output that nobody takes is told in a line.

    Its commands are those that `modules` tells, and each module is imported when its command is
    run, or described: a server does not wait for what draws reports.
    """

    # of each command the module that defines it, in the order of the help
    modules: ClassVar[Mapping[str, str]] = {}

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "commands": _Imported(self.modules)})

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run the command line; ends the process."""
        if sys.stdout is None:  # closed by who started this, and so nobody reads it
            sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
        for stream in (sys.stdout, sys.stderr):
            # a terminal in ASCII or Latin-1 shows a question mark rather than a traceback
            with contextlib.suppress(AttributeError, ValueError):
                stream.reconfigure(errors="replace")  # type: ignore[union-attr]
        return super().main(*args, **extra)

    def make_context(self, *args: Any, **extra: Any) -> Any:
        """Parse the options; `--help` and `--version` print here."""
        with _output_may_end():
            return super().make_context(*args, **extra)

    def invoke(self, ctx: Any) -> Any:
        """Run the command."""
        with _output_may_end():
            return super().invoke(ctx)


class _Imported(Mapping[str, Any]):
    """Commands by their names, imported when they are looked up: each module has an `app`."""

    def __init__(self, modules: Mapping[str, str]) -> None:
        self._modules = modules

    def __getitem__(self, name: str) -> Any:
        with uncollected():
            module = importlib.import_module(self._modules[name])
        own: Any = typer.main.get_group(module.app)
        own.name = name
        return own.commands.get(name, own)  # one command alone, or those below this name

    def __iter__(self) -> Iterator[str]:
        return iter(self._modules)

    def __len__(self) -> int:
        return len(self._modules)


@contextlib.contextmanager
def _output_may_end() -> Iterator[None]:
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        forget_stdout()
        raise typer.Exit(READER_LEFT) from None
    except OSError as error:
        # a failed write has no name; what else fails in opening or writing a file is told by whom
        # it belongs to
        if error.errno not in NO_ROOM or error.filename is not None:
            raise
        forget_stdout()
        typer.echo(f"openvocab: standard output: {reason(error)}", err=True)
        raise typer.Exit(SOME_FAILED) from None


def forget_stdout() -> None:
    """Nobody takes any more; without this, Python would try to write the rest at exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def group(text: str, epilog: str | None = None, cls: type[TyperGroup] = TyperGroup) -> typer.Typer:
    """A command that has commands below it."""
    return typer.Typer(
        cls=cls,
        no_args_is_help=True,
        help=text,
        epilog=epilog,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )


def add(
    app: typer.Typer,
    function: Callable[..., None],
    name: str | None = None,
    examples: str = "",
    exit_status: str = "",
) -> None:
    """A command of the group, with its own examples and exit statuses below its options."""
    lines = [f"  {line}" for line in examples.strip().splitlines()]
    epilog = "\b\nExamples:\n" + "\n".join(lines) if lines else ""
    if exit_status:
        epilog += ("\n\n" if epilog else "") + f"Exit status: {exit_status}"
    app.command(name, cls=Command, epilog=epilog or None)(function)


def alone(
    function: Callable[..., None], examples: str, exit_status: str, name: str | None = None
) -> typer.Typer:
    """A command that is right below `openvocab`."""
    app = group("")
    add(app, function, name, examples, exit_status)
    return app
