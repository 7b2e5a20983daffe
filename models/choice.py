"""What runs a model's image tower on this machine, chosen by measuring and kept in its export.

Knows neither torch nor OpenVINO: models/export.py measures, in a process that has both.
"""

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final, Literal

from models.info import Backend, Precision, Timing

# in a manifest
CHOICE: Final = "choice"


@dataclass(frozen=True, slots=True)
class Candidates:
    """What may run a model here.

    `precisions` are those allowed, first the one that is taken where nothing is measured. `cores`
    are those that a forward pass may use (0: all of the machine).
    """

    precisions: tuple[Precision, ...]
    backend: Literal["auto", "openvino", "torch"] = "auto"
    cores: int = 0


@dataclass(frozen=True, slots=True)
class Choice:
    """What was chosen, and by which figures.

    `threads` of a forward pass (0: as many as the backend takes) are for a process that may use as
    many `cores` as the one that measured.
    """

    backend: Backend
    precision: Precision
    images_at_once: int | None = None
    threads: int = 0
    cores: int = 0
    measured: tuple[Timing, ...] = ()

    def threads_of(self, cores: int) -> int:
        """The threads of a process that may use so many cores (0: all of the machine)."""
        return self.threads if counted(cores) == self.cores else cores

    def as_json(self) -> Mapping[str, Any]:
        """As a manifest has it."""
        return asdict(self)


def counted(cores: int) -> int:
    """The number of cores, where 0 stands for all of the machine."""
    return cores or os.cpu_count() or 1


def choice_in(manifest: Mapping[str, Any], default: Precision) -> Choice:
    """The choice in an export's manifest; of one that was not measured here, what it was made for.

    `default` is the precision where the manifest has none.
    """
    if CHOICE not in manifest:
        info = manifest.get("info", {})
        return Choice("openvino", info.get("precision", default), info.get("images_at_once"))
    fields = manifest[CHOICE]
    return Choice(**{**fields, "measured": tuple(map(_timing, fields["measured"]))})


def _timing(fields: Mapping[str, Any]) -> Timing:
    # JSON has no numbers as keys
    cpu, wall = (
        {int(batch): each for batch, each in fields[name].items()} for name in ("cpu_ms", "ms")
    )
    return Timing(fields["backend"], fields["precision"], fields["threads"], cpu, wall)
