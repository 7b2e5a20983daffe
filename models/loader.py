"""From a model's name to a running encoder. Knows nothing of labels, images or HTTP.

On a CPU a model is exported once, what runs it fastest there is measured with it, and it is mapped
from then on; torch is imported for everything else.
"""

import functools
import logging
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final, Literal, cast

from models import bundle
from models.catalog import HF_HUB, LOCAL_DIR, catalog, restricted_licence
from models.checkpoint import REPOSITORY, local_folder, unknown
from models.choice import Candidates, Choice
from models.device import (
    CPU,
    OPENVINO_GPU,
    allowed_precisions,
    choose_backend,
    choose_device,
    importing_torch,
    kind_of,
    may_be_gpu,
    with_room,
)
from models.encoder import Encoder
from models.errors import BadDevice, BadExport, DeviceUnfit
from models.export_cache import REASON, ExportCache, Wanted, make_export
from models.export_folder import checked, open_export
from models.info import Backend, Precision
from models.openvino_towers import available

# `exported:DIR` is a folder that `openvocab models export` wrote
EXPORTED: Final = "exported:"

log = logging.getLogger("openvocab.models")


@dataclass(frozen=True, slots=True)
class _Asked:
    """What `load` was asked for: its arguments, but for the device."""

    spec: str
    precision: str
    threads: int
    cores: int
    max_batch: int
    backend: str
    exports: Path | None
    room: Callable[[], None]


def load(
    spec: str,
    *,
    device: str = "auto",
    precision: str = "auto",
    threads: int = 0,
    cores: int = 0,
    max_batch: int = 64,
    backend: str = "auto",
    exports: Path | None = None,
    room: Callable[[], None] = lambda: None,
) -> Encoder:
    """Load a model, warm it up and hand over its encoder.

    `spec` is a name of the catalogue, `ARCH/TAG` as open_clip lists them, `hf-hub:owner/name`,
    `local-dir:/path` with `open_clip_config.json` or transformers' `config.json` beside the
    weights, or `exported:/path`.
    `threads` are those of a forward pass on a CPU (0: as many as were measured to be best), of the
    `cores` that this process may use (0: all). Batches of up to `max_batch` images are recorded on
    a GPU (models/cuda_graphs.py); larger ones run all the same. `backend`: "torch", "openvino", or
    "auto", which is OpenVINO on a CPU where it is installed and torch was not measured to be
    faster. `exports` is a folder for exported models and what was measured with them, made if
    missing; without it torch is loaded each time, OpenVINO runs the image tower alone, and a CPU
    with instructions for bf16 computes in that. `room` is called once, when all is downloaded and
    exported, before the model takes memory in this process.

    Raises:
        UnknownModel, ModelUnavailable, BadCheckpoint, BadDevice, BadExport: each a single line for
            a person.
    """
    once = functools.cache(room)
    asked = _Asked(spec, precision, threads, cores, max_batch, backend, exports, once)
    with with_room(f"model {spec!r}"):
        if spec.startswith(EXPORTED):
            return _exported(asked, device)
        where = choose_device(device, backend)
        try:
            return _load(asked, where)
        except DeviceUnfit as error:
            if device != "auto":
                raise
            log.warning("%s; it runs on the CPU", error)
            return _load(asked, CPU)


def _load(asked: _Asked, device: str) -> Encoder:
    """An encoder on a device that is here."""
    spec, loader = asked.spec, _loader(asked.spec)
    choice = _mapped(asked, loader, device)
    if isinstance(choice, Encoder):
        return choice
    if kind_of(device) == OPENVINO_GPU:
        raise DeviceUnfit(f"model {spec!r} cannot be exported, or does not run on {device}")
    with importing_torch(f"model {spec!r}"):
        from models import torch_loader

    torch_loader.download(loader)
    asked.room()
    runs_in: Backend = "openvino" if asked.backend == "openvino" else choice.backend
    threads = asked.threads or asked.cores
    encoder = torch_loader.load(
        spec, loader, device, choice.precision, runs_in, threads, asked.max_batch
    )
    on_cpu = threads if device == CPU else 0
    encoder.info = replace(encoder.info, threads=on_cpu, measured=choice.measured)
    return encoder


def _mapped(asked: _Asked, loader: str, device: str) -> Encoder | Choice:
    """The encoder of a model's export, which is made first; or how torch serves the model."""
    entry = catalog().get(asked.spec)
    allowed = allowed_precisions(asked.precision, device, entry.precision if entry else None)
    chosen = choose_backend(asked.backend, device, available())
    if loader.startswith(LOCAL_DIR):
        local_folder(loader)
    allowed = _of_bundle(loader, allowed)
    # torch on request is timed only where it leaves a choice
    if asked.exports is None or (chosen == "torch" and len(allowed) == 1):
        return Choice(chosen, allowed[0])
    backend = chosen if chosen == "torch" else cast(Literal["auto", "openvino"], asked.backend)
    candidates = Candidates(allowed, backend, asked.threads or asked.cores)
    wanted = Wanted(asked.spec, loader, candidates, asked.threads, device, asked.room)
    return ExportCache(asked.exports).encoder(wanted)


def _of_bundle(loader: str, allowed: tuple[Precision, ...]) -> tuple[Precision, ...]:
    """A bundled model is not measured where it starts: it runs in what it was judged in."""
    is_open = len(allowed) > 1 and loader.startswith(LOCAL_DIR)
    return ("fp32",) if is_open and bundle.exists(local_folder(loader)) else allowed


def load_to_share(
    spec: str,
    *,
    device: str,
    precision: str,
    threads: int,
    cores: int,
    backend: str,
    exports: Path,
) -> Encoder | None:
    """An encoder that processes forked from this one can go on with (models/forking.py).

    Arguments as of `load`. None where each process has to load its own: a fork copies one thread
    only, so nothing may be computed by others. That holds for OpenVINO on one thread of a CPU,
    which is then the thread that calls it. Neither torch nor the driver of a GPU is touched: each
    process asks for itself whether `auto` is one.

    Raises:
        ModelError: no process could load the model.
    """
    if threads != 1 or backend == "torch" or not available() or device not in ("auto", CPU):
        return None
    asked = _Asked(spec, precision, threads, cores, 0, backend, exports, lambda: None)
    with with_room(f"model {spec!r}"):
        if spec.startswith(EXPORTED):
            return _exported(asked, device)
        if device == "auto" and may_be_gpu(backend):
            return None
        encoder = _mapped(asked, _loader(spec), CPU)
    return encoder if isinstance(encoder, Encoder) else None


def fetch(spec: str) -> None:
    """Bring a model's files to this machine, so that a later load needs no network."""
    loader = _loader(spec)
    if loader.startswith(LOCAL_DIR) and bundle.exists(local_folder(loader)):
        return  # all that serves it was installed with it
    with importing_torch(f"model {spec!r}"):
        from models import torch_loader

    torch_loader.from_source(loader)


def _loader(spec: str) -> str:
    """What open_clip calls a model; warns of its licence before anything is downloaded.

    Raises UnknownModel for a plain name that is not in the catalogue, and for what names no
    repository of the hub: that needs no PyTorch.
    """
    entry = catalog().get(spec)
    if entry is None:
        plain = "/" not in spec and ":" not in spec
        hub = spec.startswith(HF_HUB)
        if plain or (hub and not re.fullmatch(REPOSITORY, spec.removeprefix(HF_HUB))):
            raise unknown(spec)
        licence = restricted_licence(spec)
        if licence is None and not spec.startswith(LOCAL_DIR):
            log.warning("%s: its licence is not known here; see where it comes from", spec)
    else:
        licence = None if entry.free else entry.provenance.licence
    if licence is not None:
        log.warning("%s: its licence (%s) allows no commercial use", spec, licence)
    return spec if entry is None else entry.loader


def export_to(spec: str, precision: str, folder: Path) -> None:
    """Export a model for CPUs into a folder that is not there yet; half an export is never left.

    Raises:
        ModelError: it cannot be had, or not exported.
    """
    entry = catalog().get(spec)
    allowed = allowed_precisions(precision, CPU, entry.precision if entry else None)
    choose_backend("openvino", CPU, available())
    loader = _loader(spec)
    candidates = Candidates(_of_bundle(loader, allowed), "openvino")
    try:
        make_export(spec, loader, candidates, folder)
    except OSError as error:
        why = error.strerror or error
        raise BadExport(f"model {spec!r} cannot be exported to {folder}: {why}") from error
    reason = checked(folder).get(REASON)
    if reason is not None:
        shutil.rmtree(folder)
        raise BadExport(f"model {spec!r} cannot be exported: {reason}")


def _exported(asked: _Asked, device: str) -> Encoder:
    spec = asked.spec
    folder = Path(spec.removeprefix(EXPORTED)).expanduser()
    choose_backend("openvino" if asked.backend == "auto" else asked.backend, CPU, available())
    manifest = checked(folder)
    kept_in = manifest["info"]["precision"]
    is_there = kind_of(device.lower()) in ("auto", CPU, OPENVINO_GPU)
    if not is_there or asked.backend == "torch":
        line = f"model {spec!r}: an exported model runs on a CPU or {OPENVINO_GPU}, by OpenVINO"
        raise BadDevice(line)
    where = CPU if device == "auto" else choose_device(device)
    if asked.precision not in ("auto", kept_in):
        raise BadDevice(f"model {spec!r}: it was exported in {kept_in}, not in {asked.precision}")
    asked.room()
    return open_export(folder, manifest, asked.threads, where, cores=asked.cores)
