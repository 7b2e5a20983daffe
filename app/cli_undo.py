"""`openvocab undo`: files back to where they were. Knows nothing of labels."""

from pathlib import Path
from typing import Annotated

import typer

from app import undoing
from app.folders import reason
from app.shell import Ended, printable, say, status_of
from app.statuses import SOME_FAILED, USAGE_ERROR


def undo(
    file: Annotated[Path, typer.Argument(help="What `openvocab classify` named at its end.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be done.")
    ] = False,
) -> None:
    """Put files back where `openvocab classify --move-to` found them; remove copies it made.

    May be interrupted and run again, such as: openvocab undo sorted/openvocab-undo-….jsonl

    Exit status: 0 all are back, 1 some are not, 2 the file is none of ours.
    """

    def run() -> int:
        done, failed = 0, 0
        try:
            for step in undoing.undo(file, dry=dry_run):
                if step.error is None:
                    done += 1
                    typer.echo(f"{printable(step.target)} -> {printable(step.path)}")
                else:
                    failed += 1
                    say(f"{step.path}: {step.error}")
        except undoing.BadUndoFile as error:
            raise Ended(USAGE_ERROR, str(error)) from None
        except OSError as error:
            raise Ended(USAGE_ERROR, f"{file}: {reason(error)}") from None
        say(f"{done} {'would be' if dry_run else 'are'} back, {failed} not")
        return SOME_FAILED if failed else 0

    raise typer.Exit(status_of(run))
