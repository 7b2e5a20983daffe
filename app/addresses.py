"""Which addresses of a network belong to the public internet. Knows nothing of names or HTTP.

IANA's registries of special-purpose addresses as they are, not what a Python version makes of them.
"""

import ipaddress
import re
from collections.abc import Collection
from typing import Final

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
