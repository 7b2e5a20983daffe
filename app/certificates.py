"""Until when a certificate is valid. Knows nothing of who serves it.

Reads as much of X.509 (RFC 5280, section 4.1) as leads to that date.
"""

import re
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

PEM: Final = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)

# tags of DER
VERSION: Final = 0xA0
UTC_TIME: Final = 0x17


def valid_until(file: Path) -> float:
    """Seconds since 1970 at which the first certificate of a PEM file ends.

    Raises: OSError, ValueError.
    """
    found = PEM.search(file.read_text(encoding="ascii"))
    if found is None:
        raise ValueError("there is no certificate in PEM format")
    _, certificate, _ = _element(ssl.PEM_cert_to_DER_cert(found[0]))
    _, signed, _ = _element(certificate)
    tag, _, rest = _element(signed)
    # the version may be missing; then serial number, algorithm and issuer
    for _ in range(3 if tag == VERSION else 2):
        _, _, rest = _element(rest)
    _, validity, _ = _element(rest)
    _, _, rest = _element(validity)
    tag, text, _ = _element(rest)
    # a year of two digits is one from 1950 to 2049, and strptime's from 1969 to 2068
    when = datetime.strptime(text.decode(), "%y%m%d%H%M%SZ" if tag == UTC_TIME else "%Y%m%d%H%M%SZ")
    return when.replace(tzinfo=UTC).timestamp()


def _element(data: bytes) -> tuple[int, bytes, bytes]:
    """The tag and content of the first element, and what follows it."""
    if len(data) < 2:
        raise ValueError("the certificate is damaged")
    tag, size, start = data[0], data[1], 2
    if size & 0x80:
        start += size & 0x7F
        size = int.from_bytes(data[2:start])
    return tag, data[start : start + size], data[start + size :]
