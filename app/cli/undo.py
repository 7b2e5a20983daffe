"""`openvocab undo`: put back what `openvocab classify` moved or copied. Knows no service."""

from pathlib import Path
from typing import Annotated, Final

import typer

from app.cli import help as help_
from app.cli import sorting
from app.cli.files import reason
from app.cli.terminal import Ended, printable, say, status_of
from app.server.exit_status import SOME_FAILED, USAGE_ERROR

EXAMPLES: Final = """
openvocab undo sorted/openvocab-undo-….jsonl --dry-run
openvocab undo sorted/openvocab-undo-….jsonl
"""

EXIT_STATUS: Final = "0 every file is restored, 1 some are not, 2 not an openvocab undo log."


def undo(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", help="The undo log that `classify` named at its end.")
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only print what would be done.")
    ] = False,
) -> None:
    """Undo `classify --move-to` or `--copy-to`.

    Puts files back where they were and removes the copies that were made.

    May be interrupted and run again.
    """

    def run() -> int:
        restored, failed = 0, 0
        try:
            for step in sorting.undo(file, dry=dry_run):
                if step.error is None:
                    restored += 1
                    typer.echo(f"{printable(step.path)} -> {printable(step.target)}")
                else:
                    failed += 1
                    say(f"{step.path}: {step.error}")
        except sorting.BadUndoFile as error:
            raise Ended(USAGE_ERROR, str(error)) from None
        except OSError as error:
            if error.filename is None:  # it is of standard output
                raise
            raise Ended(USAGE_ERROR, f"{file}: {reason(error)}") from None
        files = "file" if restored == 1 else "files"
        say(f"{'would restore' if dry_run else 'restored'} {restored} {files}, {failed} failed")
        return SOME_FAILED if failed else 0

    raise typer.Exit(status_of(run))


app = help_.alone(undo, EXAMPLES, EXIT_STATUS)
