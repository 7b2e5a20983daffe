"""Where a model's files lie, and what tells one from another. Imports no torch."""

import difflib
import hashlib
import os
import re
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from models.catalog import HF_HUB, LOCAL_DIR, OFFLINE_MODEL, catalog
from models.errors import BadCheckpoint, UnknownModel

OFFLINE_HINT: Final = f"what works without a download: --model {OFFLINE_MODEL}"
CONFIG: Final = "open_clip_config.json"
TRANSFORMERS_CONFIG: Final = "config.json"

# what open_clip takes for a checkpoint
WEIGHTS: Final = (".safetensors", ".bin", ".pth")

# what open_clip's own training writes
TRAINED: Final = ".pt"

# a repository of the hub, and what else is written before one
REPOSITORY: Final = r"[\w.-]+/[\w.-]+"
BEFORE: Final = r"(?:hf[a-z_-]*:/*)?(?:https?://huggingface\.co/)?"

# beside them, files that a tokenizer may be made of
TOKENIZER: Final = (
    "tokenizer", "added_tokens", "special_tokens", "vocab", "merges", "spiece", "sentencepiece",
)  # fmt: skip


def unknown(name: str, known: Sequence[str] = ()) -> UnknownModel:
    """The error of a name that is neither in the catalogue nor among the `known` ones."""
    meant = _meant(name, list(dict.fromkeys([*catalog(), *known])))
    hint = f"did you mean {' or '.join(meant)}? " if meant else ""
    return UnknownModel(
        f"model {name!r} is unknown: {hint}use a name from `openvocab models list`, ARCH/TAG, "
        f"hf-hub:owner/name or local-dir:/path; {OFFLINE_HINT}"
    )


def _meant(name: str, known: Sequence[str]) -> list[str]:
    """What a name that is not known may stand for."""
    # whatever the name is: a Path raises where it is too long, or of no user
    if os.path.isdir(os.path.expanduser(name)):  # noqa: PTH111, PTH112
        return [LOCAL_DIR + name]
    if name.startswith((".", "/", "~")):
        return []
    plain = {_plain(each): each for each in reversed(known)}
    wanted = _plain(name)
    # other servers write ViT-B/32, clip-vit-b-32 or ViT-B-32__openai
    words = f"-{wanted.removeprefix('clip-')}-"
    holding = [each for spelt, each in plain.items() if words in f"-{spelt}-"]
    if holding:
        return sorted(holding, key=lambda each: (each not in catalog(), len(each)))[:3]
    # the misspelt names that were tried are nearer to the right one, names of the hub are not
    if close := difflib.get_close_matches(wanted, plain, n=3, cutoff=0.88):
        return [plain[each] for each in close]
    written = re.fullmatch(rf"({BEFORE})({REPOSITORY})(/.*|@.*)?", name)
    tags = {each.rpartition("/")[2] for each in known}
    if written and (written[1] or not written[3]) and name.rpartition("/")[2] not in tags:
        return [HF_HUB + written[2]]
    return [plain[each] for each in difflib.get_close_matches(wanted, plain, n=3, cutoff=0.5)]


def _plain(name: str) -> str:
    """Words in small letters."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


def local_folder(loader: str) -> Path:
    """The folder that `local-dir:/path` names. Raises BadCheckpoint where it holds no model."""
    folder = Path(loader.removeprefix(LOCAL_DIR)).expanduser()
    if not folder.is_dir():
        why = "a file, not a folder" if folder.is_file() else "no such folder"
        raise BadCheckpoint(f"model {loader!r}: {why}; {OFFLINE_HINT}")
    is_open_clip, is_transformers = (
        (folder / name).is_file() for name in (CONFIG, TRANSFORMERS_CONFIG)
    )
    if not is_open_clip and not is_transformers:
        # as sentence-transformers and a Trainer of transformers lay them out
        below = _newest(folder.glob(f"*/{TRANSFORMERS_CONFIG}"))
        hint = f", only in its subfolder {below.parent.name}" if below else ""
        raise BadCheckpoint(
            f"model {loader!r}: neither {CONFIG} nor {TRANSFORMERS_CONFIG} in the folder{hint}; "
            f"{OFFLINE_HINT}"
        )
    if not any(path.suffix in WEIGHTS for path in folder.iterdir()):
        name = "open_clip_model.safetensors" if is_open_clip else "model.safetensors"
        trained = _newest(folder.glob(f"*{TRAINED}"))
        hint = f"; rename {trained.name} to open_clip_pytorch_model.bin" if trained else ""
        raise BadCheckpoint(f"model {loader!r}: no {name} in the folder{hint}; {OFFLINE_HINT}")
    return folder


def _newest(files: Iterable[Path]) -> Path | None:
    return max(files, key=lambda file: file.stat().st_mtime_ns, default=None)


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
