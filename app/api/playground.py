"""The playground: a page and what it loads, from files beside this module.

Knows nothing of the API that the page talks to.
"""

import functools
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fastapi import APIRouter, Request, Response

from app.errors import NotFound, shown

FOLDER: Final = Path(__file__).with_name("page")
INDEX: Final = "index.html"
SAMPLES: Final = "samples.json"
KINDS: Final = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".jpg": "image/jpeg",
    ".js": "text/javascript; charset=utf-8",
    ".md": "text/plain; charset=utf-8",
    ".svg": "image/svg+xml",
    ".webp": "image/webp",
}

# nothing inline, nothing from elsewhere, and no text that becomes markup (Trusted Types)
POLICY: Final = "; ".join((
    "default-src 'none'",
    "script-src 'self'",
    "style-src 'self'",
    "img-src 'self' data: blob:",
    "connect-src 'self'",
    "form-action 'none'",
    "base-uri 'none'",
    "frame-ancestors 'none'",
    "require-trusted-types-for 'script'",
    "trusted-types 'none'",
))  # fmt: skip

HEADERS: Final = {
    # the names of the files carry no version, so each use asks whether they are the same
    "Cache-Control": "no-cache",
    "Content-Security-Policy": POLICY,
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(self), geolocation=(), microphone=()",
}

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, slots=True)
class Asset:
    """One file of the page as it is sent."""

    content: bytes
    kind: str
    etag: str


@functools.cache
def assets() -> Mapping[str, Asset]:
    """Every file of the page by its path, and the list of samples; there is nothing else."""
    by_name = {
        path.relative_to(FOLDER).as_posix(): _asset(path.read_bytes(), KINDS[path.suffix])
        for path in sorted(FOLDER.rglob("*"))
        if path.suffix in KINDS
    }
    names = json.dumps(samples()).encode()
    return {**by_name, SAMPLES: _asset(names, "application/json")}


def samples() -> list[str]:
    """File names of the sample pictures, photographs (JPEG) before drawings (WebP)."""
    pictures = [path.name for path in (FOLDER / "samples").iterdir() if _is_picture(path)]
    return sorted(pictures, key=lambda name: (not name.endswith(".jpg"), name))


def _is_picture(path: Path) -> bool:
    return KINDS.get(path.suffix, "").startswith("image/")


def _asset(content: bytes, kind: str) -> Asset:
    return Asset(content, kind, f'"{hashlib.sha256(content).hexdigest()[:32]}"')


@router.get("/")
async def index(request: Request) -> Response:
    return _answer(request, INDEX)


@router.get("/page/{name:path}")
async def part(name: str, request: Request) -> Response:
    if name not in assets():
        raise NotFound(f"the playground has no file {shown(name)}")
    return _answer(request, name)


def _answer(request: Request, name: str) -> Response:
    """The file, or 304 where the caller has it."""
    asset = assets()[name]
    headers = {**HEADERS, "ETag": asset.etag}
    if _has(request.headers.get("if-none-match", ""), asset.etag):
        return Response(status_code=304, headers=headers)
    return Response(asset.content, headers=headers, media_type=asset.kind)


def _has(header: str, etag: str) -> bool:
    """Weak comparison (RFC 9110, section 13.1.2): a proxy that compresses marks tags as weak."""
    tags = [tag.strip().removeprefix("W/") for tag in header.split(",")]
    return "*" in tags or etag in tags
