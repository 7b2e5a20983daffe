"""Where a model's files lie, and what tells one from another. Imports no torch."""

import difflib
import hashlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from models.catalog import LOCAL_DIR, OFFLINE_MODEL, catalog
from models.errors import BadCheckpoint, UnknownModel

OFFLINE_HINT: Final = f"what works without a download: --model {OFFLINE_MODEL}"
CONFIG: Final = "open_clip_config.json"
TRANSFORMERS_CONFIG: Final = "config.json"

# what open_clip takes for a checkpoint
WEIGHTS: Final = (".safetensors", ".bin", ".pth")

# beside them, files that a tokenizer may be made of
TOKENIZER: Final = (
    "tokenizer", "added_tokens", "special_tokens", "vocab", "merges", "spiece", "sentencepiece",
)  # fmt: skip


def unknown(name: str, known: Sequence[str] = ()) -> UnknownModel:
    """The error of a name that is neither in the catalogue nor among the `known` ones."""
    close = difflib.get_close_matches(name, [*catalog(), *known], n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(close)}? " if close else ""
    return UnknownModel(
        f"model {name!r} is unknown: {hint}use a name from `openvocab models list`, ARCH/TAG, "
        f"hf-hub:owner/name or local-dir:/path; {OFFLINE_HINT}"
    )


def local_folder(loader: str) -> Path:
    """The folder that `local-dir:/path` names. Raises BadCheckpoint where it holds no model."""
    folder = Path(loader.removeprefix(LOCAL_DIR)).expanduser()
    if not folder.is_dir():
        raise BadCheckpoint(f"model {loader!r}: no such folder; {OFFLINE_HINT}")
    is_open_clip, is_transformers = (
        (folder / name).is_file() for name in (CONFIG, TRANSFORMERS_CONFIG)
    )
    if not is_open_clip and not is_transformers:
        raise BadCheckpoint(
            f"model {loader!r}: neither {CONFIG} nor {TRANSFORMERS_CONFIG} in the folder; "
            f"{OFFLINE_HINT}"
        )
    if not any(path.suffix in WEIGHTS for path in folder.iterdir()):
        name = "open_clip_model.safetensors" if is_open_clip else "model.safetensors"
        raise BadCheckpoint(f"model {loader!r}: no {name} in the folder; {OFFLINE_HINT}")
    return folder


def folder_digest(folder: Path) -> str:
    """A digest of all files in a folder that a model is made of."""
    files = sorted(
        path
        for path in folder.iterdir()
        if path.is_file()
        and (path.suffix in WEIGHTS or path.name.startswith(TOKENIZER) or "config" in path.name)
    )
    whole = hashlib.sha256()
    for file, digest in zip(files, digests(files), strict=True):
        whole.update(f"{file.name} {digest}\n".encode())
    return whole.hexdigest()


def digests(files: list[Path]) -> list[str]:
    """SHA-256 of each file, in hexadecimal digits."""
    with ThreadPoolExecutor() as pool:  # hashlib lets go of the interpreter lock
        return list(pool.map(_digest, files))


def _digest(file: Path) -> str:
    with file.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
