"""The process of an export: `python -m models.export_process MODEL CANDIDATES FOLDER`.

CANDIDATES is a models.choice.Candidates in JSON. Says on standard output what it does; where it
fails, what failed is in the folder as error.json; where the folder cannot be written, it is what it
says last, and the exit status is EX_IOERR.
"""

import json
import sys
from pathlib import Path

from models.choice import Candidates
from models.device import importing_torch
from models.errors import ModelError
from models.export_cache import ERROR, UNWRITABLE
from models.forking import end_with_parent


def main(spec: str, candidates: str, folder: str) -> int:
    """The exit status."""
    end_with_parent()  # nobody needs the export then
    fields = json.loads(candidates)
    precisions = tuple(fields.pop("precisions"))
    try:
        with importing_torch(f"exporting model {spec!r}"):
            import torch

        from models.export import export

        torch.set_grad_enabled(False)
        export(spec, Candidates(precisions, **fields), Path(folder))
    except ModelError as error:
        failed = {"kind": type(error).__name__, "line": str(error)}
        (Path(folder) / ERROR).write_text(json.dumps(failed), encoding="utf-8")
        return 1
    except OSError as error:  # where the disk is full nothing can be left in the folder
        sys.stdout.write(f"{error.strerror or error}\n")
        return UNWRITABLE
    return 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
