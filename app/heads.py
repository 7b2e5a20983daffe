"""What the head of a request must be for every server to read it alike. Knows no connection."""

from collections.abc import Sequence
from typing import Final

from app.errors import Problem

# request line and headers together; and the trailers, or one chunk's extensions
HEAD_BYTES: Final = 65_536
HEADERS: Final = 200

Headers = Sequence[tuple[bytes, bytes]]


class BadRequest(Problem):
    status, code, title = 400, "bad_request", "The request is not valid HTTP/1.1"


class HeadTimeout(Problem):
    status, code, title = 408, "head_timeout", "The request did not arrive in time"


class HeadTooLarge(Problem):
    status, code, title = 431, "head_too_large", "The request's line and headers are too large"


def check_size(size: int, headers: int = 0) -> None:
    """Raises HeadTooLarge."""
    if size > HEAD_BYTES:
        detail = f"the request's line and headers have over {HEAD_BYTES} bytes"
        raise HeadTooLarge(detail, limit=HEAD_BYTES, value=size)
    if headers > HEADERS:
        detail = f"the request has over {HEADERS} headers"
        raise HeadTooLarge(detail, limit=HEADERS, value=headers)


def check(method: bytes, version: str, headers: Headers) -> None:
    """Refuse what two servers could read in two ways (RFC 9112, section 11.2).

    Raises BadRequest.
    """
    if version not in ("1.0", "1.1"):
        raise BadRequest(f"HTTP/{version} is not spoken here, HTTP/1.1 is")
    if method == b"CONNECT":
        raise BadRequest("CONNECT is for proxies, and this is none")
    hosts = _values(headers, b"host")
    if len(hosts) > 1 or (not hosts and version == "1.1"):
        raise BadRequest(f"one Host header is needed, not {len(hosts)}", field="Host")
    lengths, codings = _values(headers, b"content-length"), _values(headers, b"transfer-encoding")
    if codings and (codings != [b"chunked"] or version == "1.0"):
        detail = "Transfer-Encoding can only be chunked, once, and in HTTP/1.1"
        raise BadRequest(detail, field="Transfer-Encoding")
    if lengths and (codings or len(lengths) > 1 or not lengths[0].isdigit()):
        detail = "Content-Length can only be one number, and not beside Transfer-Encoding"
        raise BadRequest(detail, field="Content-Length")


def without_upgrade(method: bytes, target: bytes, version: str, headers: Headers) -> bytes:
    """The head as its client would have sent it without the offer to switch protocols."""
    lines = [b" ".join([method, target, b"HTTP/" + version.encode()])]
    lines += [name + b": " + value for name, value in headers if name != b"upgrade"]
    return b"\r\n".join([*lines, b"", b""])


def _values(headers: Headers, wanted: bytes) -> list[bytes]:
    return [value.strip(b" \t").lower() for name, value in headers if name == wanted]
