"""Say in one line, and within seconds, why a download cannot work. Knows nothing of models."""

import contextlib
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from open_clip.constants import HF_SAFE_WEIGHTS_NAME, HF_WEIGHTS_NAME

from models.checkpoint import OFFLINE_HINT
from models.errors import ModelUnavailable, UnknownModel, first_line

SECONDS: Final = 5
EXTRA_HINT: Final = "install the extra: pip install 'openvocab[hf]'"
# of open_clip's form and of transformers', each whole or in parts
HF_WEIGHTS: Final = (
    HF_SAFE_WEIGHTS_NAME,
    HF_WEIGHTS_NAME,
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)


@contextlib.contextmanager
def reachable(
    name: str, *, repository: str | None = None, url: str | None = None
) -> Iterator[None]:
    """Around a download: turn every failure into one line that names the model, and what helps.

    A repository or url that cannot be reached is found out before the download starts, unless the
    files are here already.
    """
    try:
        if repository:
            _check_repository(name, repository.rstrip("/"))
        elif url:
            _check_url(name, url)
        yield
    except (ModelUnavailable, UnknownModel):
        raise
    except ImportError as error:
        raise ModelUnavailable(f"model {name!r}: {error}; {EXTRA_HINT}") from error
    except Exception as error:
        raise ModelUnavailable(
            f"model {name!r}: cannot be loaded ({first_line(error)}); {OFFLINE_HINT}"
        ) from error


def has_file(repository: str, name: str) -> bool:
    """Whether a repository has a file; without a network, what the cache knows."""
    from huggingface_hub import HfApi, try_to_load_from_cache

    cached = try_to_load_from_cache(repository, name)
    if cached is not None:
        return isinstance(cached, str)
    try:
        return bool(HfApi().file_exists(repository, name))
    except Exception:
        if _is_here(repository, ""):
            return False
        raise


def snapshot(repository: str, small: Sequence[str], weights: Sequence[str]) -> Path:
    """A folder with the files of a repository that match `small`, and its weights.

    `weights` are patterns in order of preference: the first that matches any file is downloaded.
    """
    from huggingface_hub import snapshot_download

    folder = Path()
    for pattern in weights:
        folder = Path(snapshot_download(repository, allow_patterns=[*small, pattern]))
        if any(folder.glob(pattern)):
            break
    return folder


def downloaded(owner: str, name: str, endings: Sequence[str]) -> list[Path]:
    """A repository's cached files with one of these endings, and the one that names its version."""
    from huggingface_hub import snapshot_download

    folder = Path(snapshot_download(f"{owner}/{name}", local_files_only=True))
    files = [file.resolve() for file in folder.rglob("*") if file.suffix in endings]
    return [*files, *folder.parents[1].glob("refs/main")]


def _check_repository(name: str, repository: str) -> None:
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    owner, model, *file = repository.split("/", 2)
    owner_and_name = f"{owner}/{model}"
    if _is_here(owner_and_name, file[0] if file else ""):
        return
    try:
        HfApi().model_info(owner_and_name, timeout=SECONDS)
    except RepositoryNotFoundError:
        raise UnknownModel(
            f"model {name!r}: the hub has no model {owner_and_name!r}, or it is private; "
            f"{OFFLINE_HINT}"
        ) from None
    except Exception as error:
        raise ModelUnavailable(
            f"model {name!r}: the model hub cannot be reached ({type(error).__name__}); "
            f"{OFFLINE_HINT}"
        ) from error


def _is_here(repository: str, file: str) -> bool:
    """Whether the weights lie in the hub's cache, complete: half a download is not enough."""
    from huggingface_hub import try_to_load_from_cache

    names = {file, file.rpartition(".")[0] + ".safetensors"} if file else {*HF_WEIGHTS}
    return any(isinstance(try_to_load_from_cache(repository, name), str) for name in names)


def _check_url(name: str, url: str) -> None:
    try:
        # the address stands in open_clip's own table, no caller can choose it
        request = urllib.request.Request(url, method="HEAD")  # noqa: S310
        with urllib.request.urlopen(request, timeout=SECONDS):  # noqa: S310
            return
    except (urllib.error.URLError, OSError) as error:
        raise ModelUnavailable(
            f"model {name!r}: its address cannot be reached ({type(error).__name__}); "
            f"{OFFLINE_HINT}"
        ) from error
