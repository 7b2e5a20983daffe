"""How `--help` looks: plain text in groups, at any width and in any encoding. Knows no command."""

from typing import Any

import typer
from typer.core import TyperCommand

OPTIONS = "Options"


class Command(TyperCommand):
    """A command whose options stand in groups, each under its `rich_help_panel`."""

    def format_options(self, ctx: Any, formatter: Any) -> None:
        """Write arguments first, then the groups as they are declared, then what has no group."""
        groups: dict[str, list[tuple[str, str]]] = {}
        for param in self.get_params(ctx):
            record = param.get_help_record(ctx)
            if record is not None:
                plain = "Arguments" if param.param_type_name == "argument" else OPTIONS
                name = getattr(param, "rich_help_panel", None) or plain
                groups.setdefault(name, []).append(record)
        for name in sorted(groups, key=OPTIONS.__eq__):
            with formatter.section(name):
                formatter.write_dl(groups[name])


def group(text: str, epilog: str | None = None) -> typer.Typer:
    """A command that has commands below it."""
    return typer.Typer(
        no_args_is_help=True,
        help=text,
        epilog=epilog,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    )
