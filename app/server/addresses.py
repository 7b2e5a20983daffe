"""Hosts, origins and proxies as an operator lists them. Knows nothing of requests.

A mistyped entry would match nothing, and so refuse or mistrust everybody without a word.
"""

import ipaddress
from typing import Final
from urllib.parse import urlsplit

from app.errors import shown
from app.images.urls import NAME

ANY: Final = "*"

USUAL_PORTS: Final = {"http": 80, "https": 443}


def check_host(text: str) -> None:
    """A host as `Host` names it, without its port. Raises ValueError."""
    if text == ANY or NAME.fullmatch(text.lower().removesuffix(".")):
        return
    try:
        ipaddress.ip_address(text)
    except ValueError:
        detail = f"{shown(text)} is not the name or address of a host, without a port"
        raise ValueError(detail) from None


def check_origin(text: str) -> None:
    """An origin as browsers send it. Raises ValueError."""
    origin = _origin(text)
    if text in (ANY, "null", origin):
        return
    hint = f": browsers send {origin}" if origin else " such as https://example.org"
    raise ValueError(f"{shown(text)} is not an origin{hint}")


def check_proxy(text: str) -> None:
    """An address or a network. Raises ValueError."""
    if text == ANY:
        return
    try:
        network = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise ValueError(f"{shown(text)} is not an address or a network") from None
    address = text.partition("/")[0]
    if "/" in text and ipaddress.ip_address(address) != network.network_address:
        raise ValueError(f"{shown(text)} is an address within a network: {address} or {network}")


def _origin(text: str) -> str | None:
    """What browsers send of an address; None where it is none."""
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        return None
    if not (parts.scheme and host and (":" in host or NAME.fullmatch(host))):
        return None
    ending = "" if port in (None, USUAL_PORTS.get(parts.scheme)) else f":{port}"
    return f"{parts.scheme}://{f'[{host}]' if ':' in host else host}{ending}"
