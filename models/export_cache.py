"""Models exported once and kept in a folder, each under a key of all that decides its files.

Knows no torch: a child process with torch makes what is not there yet.
"""

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import json
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from models import bundle, errors, processor
from models.catalog import LOCAL_DIR, provenance_of
from models.checkpoint import folder_digest, local_folder
from models.choice import Candidates, Choice, choice_in
from models.device import CPU, has_torch, torch_or_error
from models.encoder import Encoder
from models.errors import BadExport, ModelError
from models.export_folder import FORMAT, MANIFEST, checked, open_export
from models.open_files import lock

# in the manifest of a model that cannot be exported: why
REASON: Final = "unsupported"
# what the child writes where it fails: which error, and its line
ERROR: Final = "error.json"
# its exit status where the folder cannot be written: EX_IOERR of sysexits.h
UNWRITABLE: Final = 74

UNUSED_SECONDS: Final = 30 * 86_400

# characters of a key
KEY_SIZE: Final = 32

# counts changes in how weights are read, after which what was exported before is made anew; the
# second: each with the activation that it was trained with
READING: Final = 2

# a folder that is being written, under the lock of what it is to become: .KEY-RANDOM.partial
PARTIAL: Final = ".partial"

# each holds a whole model in float32
_exporting: Final = threading.Lock()

log = logging.getLogger("openvocab.models")


@dataclass(frozen=True, slots=True)
class Wanted:
    """A model, what may run it, and how its export is opened.

    `threads` 0: those that were measured to be best. `room` is called before an export is opened.
    """

    spec: str
    loader: str
    candidates: Candidates
    threads: int = 0
    device: str = CPU
    room: Callable[[], None] = lambda: None

    def make(self, folder: Path) -> None:
        """Export it into a folder, whole or not at all. Raises ModelError, OSError."""
        make_export(self.spec, self.loader, self.candidates, folder)

    def open(self, folder: Path, manifest: Mapping[str, Any]) -> Encoder | Choice:
        """The encoder of a checked folder, or how torch serves the model. Raises BadExport."""
        spec, candidates = self.spec, self.candidates
        choice = choice_in(manifest, candidates.precisions[0])
        if REASON in manifest:
            log.info("%s runs in torch: %s", spec, manifest[REASON])
            return choice
        if choice.backend == "torch" and (self.device, candidates.backend) == (CPU, "auto"):
            log.info("%s runs in torch, which was measured to be faster here", spec)
            return choice
        self.room()
        cores = candidates.cores
        encoder = open_export(folder, manifest, self.threads, self.device, cores=cores)
        encoder.info = dataclasses.replace(encoder.info, name=spec, provenance=provenance_of(spec))
        return encoder


class ExportCache:
    """A folder of exported models; processes share it."""

    def __init__(self, folder: Path) -> None:
        """`folder` is made if it is missing."""
        self._folder = folder

    def encoder(self, wanted: Wanted) -> Encoder | Choice:
        """The encoder of a model, which is exported first where it was not yet.

        What comes back for a model that torch serves, because it cannot be exported or because
        torch is faster, is how.

        Raises:
            ModelError: the model cannot be had, or cannot be exported here.
        """
        self._remove_partial()
        folder = self._folder / export_key(wanted.loader, wanted.candidates)
        precision = wanted.candidates.precisions[0]
        choice = Choice("openvino", precision)
        for last in (False, True):
            try:
                manifest = checked(folder)
                if not _is_current(manifest):
                    raise BadExport(f"{folder}: the files that it was made of have changed")
                choice = choice_in(manifest, precision)
                served = wanted.open(folder, manifest)
            except BadExport as damage:
                if last:
                    _tell_who_serves(wanted, damage)
                    break
                try:
                    self._make(folder, wanted)
                except OSError as error:
                    why = error.strerror or error
                    log.warning("%s: %s; the model is exported for this process alone", folder, why)
                    try:
                        return _unkept(wanted)
                    except BadExport as full:
                        if not has_torch():
                            raise
                        _tell_who_serves(wanted, full)
                        break
            else:
                with contextlib.suppress(OSError):  # of another user, or read-only
                    os.utime(folder)
                return served
        return choice

    def _make(self, folder: Path, wanted: Wanted) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        with _locked(_lock_of(folder)):
            with contextlib.suppress(BadExport):
                if _is_current(checked(folder)):
                    return  # another process was faster
            wanted.make(folder)
        self._prune()

    def _remove_partial(self) -> None:
        """Remove what killed processes left: whoever writes has the lock while it lives."""
        # not those of `openvocab models export --to`, which takes no lock
        for partial in self._folder.glob(f".{'[0-9a-f]' * KEY_SIZE}-*{PARTIAL}"):
            folder = partial.with_name(partial.name[1:].rpartition("-")[0])
            # it is being written, or of another user
            with contextlib.suppress(OSError), _locked(_lock_of(folder), wait=False):
                log.info("removing %s: its export was interrupted", partial)
                shutil.rmtree(partial)

    def _prune(self) -> None:
        """Remove exports that nobody opened for long: of other releases, models or processors."""
        oldest = time.time() - UNUSED_SECONDS
        for folder in self._folder.iterdir():
            with contextlib.suppress(OSError):
                if (folder / MANIFEST).exists() and folder.stat().st_mtime < oldest:
                    with _locked(_lock_of(folder), wait=False):
                        log.info("removing the export %s: unused for 30 days", folder)
                        shutil.rmtree(folder)
                        _lock_of(folder).unlink()


def _tell_who_serves(wanted: Wanted, why: BadExport) -> None:
    """Log who serves a model whose export cannot be had."""
    instead = "torch" if wanted.device == CPU else "the CPU"
    log.warning("%s; %s serves %s", why, instead, wanted.spec)


def _unkept(wanted: Wanted) -> Encoder | Choice:
    """The same where nothing can be written: what is mapped outlives its names.

    The precision is not measured: each process would do so by itself, and workers of one server
    might differ.
    """
    candidates = wanted.candidates
    first = dataclasses.replace(candidates, precisions=candidates.precisions[:1])
    once = dataclasses.replace(wanted, candidates=first)
    try:
        # on Windows what is mapped cannot be deleted
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
            folder = Path(name) / "made"
            once.make(folder)
            return once.open(folder, checked(folder))
    except OSError as error:
        raise BadExport(
            f"model {wanted.spec!r}: it cannot be exported to a temporary folder (TMPDIR): "
            f"{error.strerror or error}"
        ) from error


def make_export(spec: str, loader: str, candidates: Candidates, folder: Path) -> None:
    """Export a model into a folder, whole or not at all; one that is there is replaced.

    Raises:
        ModelError: the model cannot be had, or not exported here.
        OSError: the folder cannot be written.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(PARTIAL, f".{folder.name}-", folder.parent) as name:
        export_to = Path(name) / "made"
        export_to.mkdir()
        if loader.startswith(LOCAL_DIR) and bundle.exists(local_folder(loader)):
            bundle.unpack(local_folder(loader), candidates.precisions[0], export_to)
        else:
            export(spec, candidates, export_to)
        if folder.exists():
            folder.rename(Path(name) / "damaged")
        export_to.rename(folder)


def export(spec: str, candidates: Candidates, folder: Path) -> None:
    """Export a model into an empty folder, in a process of its own. Raises ModelError, OSError."""
    torch_or_error(f"exporting model {spec!r}")
    line = ""
    arguments = spec, json.dumps(dataclasses.asdict(candidates)), str(folder)
    # -P: a folder `models` where the server is started is somebody else's
    command = [sys.executable, "-P", "-m", "models.export_process", *arguments]
    with (
        _exporting,
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child,  # noqa: S603
    ):
        assert child.stdout is not None
        for line in child.stdout:
            log.info("exporting %s, once: %s", spec, line.strip())
    if child.returncode == 0:
        return
    if child.returncode == UNWRITABLE:
        raise OSError(line.strip())
    try:
        failed = json.loads((folder / ERROR).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        raise BadExport(
            f"model {spec!r}: exporting it exited with status {child.returncode}"
        ) from None
    kind = getattr(errors, failed["kind"], ModelError)
    raise kind(failed["line"])


def export_key(loader: str, candidates: Candidates) -> str:
    """A name for all that decides an export: model, what may run it, releases, processor."""
    local = loader.startswith(LOCAL_DIR)
    source = folder_digest(local_folder(loader)) if local else loader
    allowed = ",".join(candidates.precisions) + " torch" * (candidates.backend == "torch")
    parts = source, allowed, str(FORMAT), str(READING), *_releases(), processor.described()
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:KEY_SIZE]


def _releases() -> Iterator[str]:
    for package in ("openvocab", "openvino"):
        try:
            yield importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            yield "unknown"


def _is_current(manifest: Mapping[str, Any]) -> bool:
    """Whether the files that an export was made of are as they were, if they are still there."""
    for name, size, modified in manifest.get("source_files", []):
        with contextlib.suppress(OSError):
            now = Path(name).stat()
            if (now.st_size, now.st_mtime_ns) != (size, modified):
                return False
    return True


def _lock_of(folder: Path) -> Path:
    return folder.with_name(f"{folder.name}.lock")


@contextlib.contextmanager
def _locked(file: Path, *, wait: bool = True) -> Iterator[None]:
    """Among all processes; a process that dies lets go. Without `wait` it may raise OSError."""
    while True:
        with file.open("w") as handle:
            try:
                lock(handle.fileno(), wait=wait)
            except OSError:
                # not every file system has such locks; two that export at once do no harm
                if not wait:
                    raise
            # removed meanwhile: whoever comes next locks a new one
            if os.fstat(handle.fileno()).st_nlink:
                yield
                return
