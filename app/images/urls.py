"""Which URLs an image may be fetched from, as far as the URL itself tells. Knows no network."""

import ipaddress
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

import httpx2

from app import errors
from app.errors import Invalid

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

NOT_PUBLIC_4: Final = tuple(
    ipaddress.IPv4Network(text)
    for text in (
        "0.0.0.0/8",  # this network
        "10.0.0.0/8",
        "100.64.0.0/10",  # shared by a provider's customers (RFC 6598)
        "127.0.0.0/8",
        "168.63.129.16/32",  # a cloud's own services, though the number is a public one
        "169.254.0.0/16",  # link-local, and the metadata of clouds
        "172.16.0.0/12",
        "192.0.0.0/24",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)

# what is given out to hosts; mapped, translated (NAT64), local and multicast ones lie outside
PUBLIC_6: Final = ipaddress.IPv6Network("2000::/3")

NOT_PUBLIC_6: Final = tuple(
    ipaddress.IPv6Network(text)
    for text in (
        "2001::/23",  # protocols, among them Teredo, which hides an IPv4 address
        "2001:db8::/32",
        "2002::/16",  # 6to4, which hides one too
        "3fff::/20",
    )
)

# the last label of a name that some resolvers read as a number: 127.0.0.1, 0x7f.1, 2130706433
NUMERIC: Final = re.compile(r"(?:.*\.)?(?:\d+|0x[0-9a-f]*)", re.IGNORECASE | re.DOTALL)


def is_public(address: Address, also: Collection[Network] = ()) -> bool:
    """Whether anybody could reach this address, or it is in one of the networks in `also`."""
    if any(address in network for network in also):
        return True
    if isinstance(address, ipaddress.IPv4Address):
        return not any(address in network for network in NOT_PUBLIC_4)
    if address.scope_id is not None or address not in PUBLIC_6:
        return False
    return not any(address in network for network in NOT_PUBLIC_6)


def literal(host: str) -> Address | None:
    """The address that a URL's host is, or None for a name.

    Raises:
        ValueError: a number that is not written as an address is, such as 0x7f.1 or 2130706433.
    """
    if ":" in host:
        address = ipaddress.IPv6Address(host)
        if address.scope_id is not None:
            raise ValueError("a zone says something on this machine alone")
        return address
    return ipaddress.IPv4Address(host) if NUMERIC.fullmatch(host) else None


FIELD: Final = "image_url"
LONGEST_URL: Final = 2_048
USUAL_PORTS: Final = frozenset({80, 443})
NAME: Final = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?:\.[a-z0-9_-]{1,63})*")


@dataclass(frozen=True, slots=True)
class AllowedHost:
    """A host that may be fetched from: a name, `*.example.org`, or `*`.

    Without a port the usual ones are allowed.
    """

    pattern: str
    port: int | None = None

    @classmethod
    def parse(cls, text: str) -> "AllowedHost":
        """From `HOST` or `HOST:PORT`. Raises ValueError."""
        name, colon, port = text.strip().lower().partition(":")
        wildcard, bare = ("*.", name[2:]) if name.startswith("*.") else ("", name)
        if (colon and not port.isdecimal()) or int(port or "1") not in range(1, 65_536):
            raise ValueError(f"{errors.shown(text)} does not end in a port from 1 to 65535")
        if bare != "*" or wildcard:
            bare = _ascii(bare)
        return cls(wildcard + bare, int(port) if port else None)

    def allows(self, host: str, port: int) -> bool:
        """Whether a URL may name this host and port."""
        if port not in (USUAL_PORTS if self.port is None else {self.port}):
            return False
        if self.pattern.startswith("*."):
            return host.endswith(self.pattern[1:])
        return self.pattern in ("*", host)


def checked(text: str, allowed: Collection[AllowedHost]) -> httpx2.URL:
    """The URL, if it may be fetched; without `allowed`, from any host.

    Raises Invalid.
    """
    url = _parsed(text)
    host, port = url.raw_host.decode("ascii"), port_of(url)
    if allowed and not any(entry.allows(host, port) for entry in allowed):
        raise refused("its host, or that port of it, is not among those allowed here", host)
    if not allowed and port not in USUAL_PORTS:
        raise refused(f"its port is {port}, which is neither 80 nor 443", host)
    return url


def joined(base: httpx2.URL, location: str) -> str:
    """Where a redirect leads, not checked yet. Raises Invalid."""
    try:
        return str(base.join(location))
    except (httpx2.InvalidURL, ValueError):
        raise refused("it redirects to something that is not a URL", base.host) from None


def refused(why: str, value: str) -> Invalid:
    """The problem of a URL that is invalid or may not be fetched."""
    return Invalid(f"image_url cannot be fetched: {why}", field=FIELD, value=errors.excerpt(value))


def port_of(url: httpx2.URL) -> int:
    """The port, explicit or the scheme's default."""
    usual = 443 if url.scheme == "https" else 80
    return usual if url.port is None else url.port


def _parsed(text: str) -> httpx2.URL:
    if len(text) > LONGEST_URL:
        detail = f"image_url has {len(text)} characters, the limit is {LONGEST_URL}"
        raise Invalid(detail, field=FIELD, limit=LONGEST_URL, value=len(text))
    try:
        url = httpx2.URL(text.strip())
        url = url.copy_with(host=url.host.removesuffix("."), fragment=None)
    except (httpx2.InvalidURL, ValueError):
        raise refused("it is not a URL", text) from None
    if url.scheme not in ("http", "https"):
        raise refused("it starts with neither https:// nor http://", text)
    if url.userinfo:
        raise refused("it contains a user name or password", url.host)
    host = url.raw_host.decode("ascii")
    try:
        # numbers are addresses only where they look like one: not 0x7f.1, not 2130706433
        named = literal(host) is None
    except ValueError:
        raise refused("its host is not a valid address", host) from None
    if named and not NAME.fullmatch(host):
        raise refused("its host is not a host name", host)
    return url


def _ascii(name: str) -> str:
    try:
        host = httpx2.URL(f"http://{name}").raw_host.decode("ascii")
    except (httpx2.InvalidURL, ValueError):
        host = ""
    if not NAME.fullmatch(host):
        raise ValueError(f"{errors.shown(name)} is not a host name")
    return host
