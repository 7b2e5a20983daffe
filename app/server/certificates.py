"""The certificate of a TLS server: whether its files are good, and how long it is valid."""

import base64
import re
import ssl
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

PEM: Final = re.compile(r"-----BEGIN (?:X509 |TRUSTED )?CERTIFICATE-----(.+?)-----END", re.DOTALL)

# tags of DER
VERSION_TAG: Final = 0xA0
UTC_TIME: Final = 0x17


def check_certificate(certificate: Path, key: Path | None) -> str | None:
    """The error in the files of a TLS server, or None."""
    for file in (certificate, key):
        if file is not None and not file.is_file():
            return f"{file}: no such file"
    try:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        # an empty password, or a key that has one would be asked for on the terminal
        context.load_cert_chain(certificate, key, password=lambda: b"")
    except ssl.SSLError as error:
        return f"{certificate}: not a certificate with its key ({error.reason or 'unreadable'})"
    except (OSError, ValueError) as error:
        return f"{certificate}: cannot be read ({error})"
    return None


def valid_until(file: Path) -> float:
    """Seconds since 1970 at which the first certificate of a PEM file ends.

    Raises: OSError, ValueError.
    """
    # notes beside it may be in any encoding
    block = PEM.search(file.read_text(encoding="latin-1"))
    if block is None:
        raise ValueError("there is no certificate in PEM format")
    _, certificate, _ = _element(base64.b64decode(block[1]))
    _, signed, _ = _element(certificate)
    tag, _, rest = _element(signed)
    # the version may be missing; then serial number, algorithm and issuer
    for _ in range(3 if tag == VERSION_TAG else 2):
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
