"""Request bodies, prepared as files for the load generator. Knows no server and no process."""

import base64
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

BOUNDARY: Final = "openvocab-benchmark-boundary"
RAW: Final = "image/jpeg"
MULTIPART: Final = f"multipart/form-data; boundary={BOUNDARY}"


@dataclass(frozen=True, slots=True)
class Bodies:
    """Files that hold one body each, listed in `index`, and their content type."""

    index: Path
    kind: str

    def first(self, count: int) -> list[bytes]:
        """The first bodies themselves."""
        return [Path(line).read_bytes() for line in self.index.read_text().splitlines()[:count]]


def multipart(images: Sequence[Path], fields: Mapping[str, str], folder: Path) -> Bodies:
    """Forms with the field `image` and these text fields."""
    return _written(folder, MULTIPART, (form(path.read_bytes(), fields) for path in images))


def form(image: bytes, fields: Mapping[str, str]) -> bytes:
    """One multipart/form-data body (RFC 7578)."""
    parts = [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    parts += [
        f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\n'
        "Content-Type: image/jpeg\r\n\r\n".encode(),
        image,
        f"\r\n--{BOUNDARY}--\r\n".encode(),
    ]
    return b"".join(parts)


def raw(images: Sequence[Path], folder: Path) -> Bodies:
    """The files themselves."""
    return _written(folder, RAW, (path.read_bytes() for path in images))


def with_base64(images: Sequence[Path], folder: Path, document: Callable[[str], object]) -> Bodies:
    """JSON documents made from each file in base64."""
    coded = (base64.b64encode(path.read_bytes()).decode() for path in images)
    return _written(folder, "application/json", (json.dumps(document(x)).encode() for x in coded))


def _written(folder: Path, kind: str, contents: Iterable[bytes]) -> Bodies:
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, content in enumerate(contents):
        path = folder / f"{number:03}.body"
        path.write_bytes(content)
        paths.append(path)
    index = folder / "index"
    index.write_text("".join(f"{path}\n" for path in paths))
    return Bodies(index, kind)
