"""From a model's name to a running encoder. Knows nothing of labels, images or HTTP.

On a CPU a model is exported once and mapped from then on; torch is imported for everything else.
"""

import logging
import shutil
from pathlib import Path
from typing import Final

from models import bundle
from models.catalog import LOCAL_DIR, catalog
from models.checkpoint import local_folder, unknown
from models.device import (
    CPU,
    OPENVINO_GPU,
    choose_backend,
    choose_device,
    choose_precision,
    kind_of,
    torch_or_error,
)
from models.encoder import Encoder
from models.errors import BadDevice, BadExport, DeviceUnfit
from models.export_cache import REASON, ExportCache, make_export
from models.export_folder import checked, open_export
from models.openvino_towers import available

# `exported:DIR` is a folder that `openvocab models export` wrote
EXPORTED: Final = "exported:"

log = logging.getLogger("openvocab.models")


def load(
    spec: str,
    *,
    device: str = "auto",
    precision: str = "auto",
    threads: int = 0,
    max_batch: int = 64,
    backend: str = "auto",
    exports: Path | None = None,
) -> Encoder:
    """Load a model, warm it up and hand over its encoder.

    `spec` is a name of the catalogue, `ARCH/TAG` as open_clip lists them, `hf-hub:owner/name`,
    `local-dir:/path` with `open_clip_config.json` or transformers' `config.json` beside the
    weights, or `exported:/path`.
    `threads` limits the threads of a forward pass on a CPU (0: as many as there are cores). Batches
    of up to `max_batch` images are recorded on a GPU (models/cuda_graphs.py); larger ones run all
    the same. `backend`: "torch", "openvino", or "auto", which is OpenVINO on a CPU where it is
    installed. `exports` is a folder for exported models, made if missing; without it torch is
    loaded each time, and OpenVINO runs the image tower alone.

    Raises:
        UnknownModel, ModelUnavailable, BadCheckpoint, BadDevice, BadExport: each a single line for
            a person.
    """
    if spec.startswith(EXPORTED):
        return _exported(spec, device, precision, threads, backend)
    where = choose_device(device, backend)
    try:
        return _load(spec, where, precision, threads, max_batch, backend, exports)
    except DeviceUnfit as error:
        if device != "auto":
            raise
        log.warning("%s; it runs on the CPU", error)
        return _load(spec, CPU, precision, threads, max_batch, backend, exports)


def _load(
    spec: str,
    device: str,
    precision: str,
    threads: int,
    max_batch: int,
    backend: str,
    exports: Path | None,
) -> Encoder:
    """An encoder on a device that is here."""
    entry = catalog().get(spec)
    kept_in = choose_precision(precision, device, entry.precision if entry else None)
    chosen = choose_backend(backend, device, available())
    loader = _loader(spec)
    if loader.startswith(LOCAL_DIR):
        local_folder(loader)
    if chosen == "openvino" and exports is not None:
        encoder = ExportCache(exports).encoder(spec, loader, kept_in, threads, device)
        if encoder is not None:
            return encoder
    if kind_of(device) == OPENVINO_GPU:
        raise DeviceUnfit(f"model {spec!r} cannot be exported, or does not run on {device}")
    torch_or_error(f"model {spec!r}")
    from models import torch_loader

    return torch_loader.load(spec, loader, device, kept_in, chosen, threads, max_batch)


def fetch(spec: str) -> None:
    """Bring a model's files to this machine, so that a later load needs no network."""
    loader = _loader(spec)
    if loader.startswith(LOCAL_DIR) and bundle.exists(local_folder(loader)):
        return  # all that serves it was installed with it
    torch_or_error(f"model {spec!r}")
    from models import torch_loader

    torch_loader.from_source(loader)


def _loader(spec: str) -> str:
    """What open_clip calls a model; warns of its licence before anything is downloaded.

    Raises UnknownModel for a plain name that is not in the catalogue: that needs no PyTorch.
    """
    entry = catalog().get(spec)
    if entry is None:
        if "/" not in spec and ":" not in spec:
            raise unknown(spec)
        return spec
    if not entry.free:
        licence = entry.provenance.licence
        log.warning("%s: its licence (%s) allows no commercial use", spec, licence)
    return entry.loader


def export_to(spec: str, precision: str, folder: Path) -> None:
    """Export a model for CPUs into a folder that is not there yet; half an export is never left.

    Raises:
        ModelError: it cannot be had, or not exported.
    """
    entry = catalog().get(spec)
    kept_in = choose_precision(precision, CPU, entry.precision if entry else None)
    choose_backend("openvino", CPU, available())
    make_export(spec, _loader(spec), kept_in, folder)
    reason = checked(folder).get(REASON)
    if reason is not None:
        shutil.rmtree(folder)
        raise BadExport(f"model {spec!r} cannot be exported: {reason}")


def _exported(spec: str, device: str, precision: str, threads: int, backend: str) -> Encoder:
    folder = Path(spec.removeprefix(EXPORTED)).expanduser()
    choose_backend("openvino" if backend == "auto" else backend, CPU, available())
    manifest = checked(folder)
    kept_in = manifest["info"]["precision"]
    if kind_of(device.lower()) not in ("auto", CPU, OPENVINO_GPU) or backend == "torch":
        line = f"model {spec!r}: an exported model runs on a CPU or {OPENVINO_GPU}, by OpenVINO"
        raise BadDevice(line)
    where = CPU if device == "auto" else choose_device(device)
    if precision not in ("auto", kept_in):
        raise BadDevice(f"model {spec!r}: it was exported in {kept_in}, not in {precision}")
    return open_export(folder, manifest, threads, where)
