"""API keys: read, hashed, compared and read again when they change. Knows nothing of requests."""

import functools
import hashlib
import hmac
import ipaddress
import logging
import os
import secrets
import time
import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Annotated, Any, Final, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, TypeAdapter, ValidationError

from app.stores.gcra import LEAST_RATE, MOST_BURST, MOST_RATE

Scope = Literal["classify", "labelsets:write", "admin"]
SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller. None means the value of the settings.

    `namespace` is where its label sets live, of which there may be `max_labelsets`; `rate_limit`
    is in requests a second, of which `rate_burst` may come at once; of its uploads so many may be
    under way. `network` is what an anonymous caller's rate is counted by.
    """

    name: str
    scopes: frozenset[Scope]
    namespace: str = ""
    max_labelsets: int | None = None
    rate_limit: float | None = None
    rate_burst: int | None = None
    max_uploads: int | None = None
    network: str | None = None

    @property
    def anonymous(self) -> bool:
        """Whether no key was needed."""
        return self.network is not None

    def may(self, *scopes: Scope) -> bool:
        """Whether one of these scopes is among its own; `admin` is all of them."""
        return "admin" in self.scopes or not self.scopes.isdisjoint(scopes)


def anyone(address: str) -> Identity:
    """A caller of a server without keys, known by the address it comes from.

    The owner of an IPv6 address has its whole /64, so these addresses count as one.
    """
    return Identity(address, frozenset(SCOPES), network=_network(address))


@functools.lru_cache(maxsize=1_024)
def _network(address: str) -> str:
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:  # a Unix socket has none
        return address
    if parsed.version == 4:
        return address
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((int(parsed) >> 64 << 64, 64)))


log = logging.getLogger("openvocab.keys")

PREFIX: Final = "ov_"

# seconds between two looks at whether the file changed
LOOK_EVERY: Final = 1.0

# of a key, or of a namespace
NAME: Final = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"

Name = Annotated[str, StringConstraints(pattern=f"^{NAME}$")]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class BadKeys(ValueError):
    """Keys that cannot be read; a line for a person, without any secret."""


class KeyEntry(BaseModel):
    """One `[keys.NAME]` of the file."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    sha256: Digest | Annotated[list[Digest], Field(min_length=1)]
    scopes: Annotated[list[Scope], Field(min_length=1)]
    namespace: Name | None = None
    max_labelsets: int | None = Field(None, ge=0)
    rate_limit: float | None = Field(None, ge=LEAST_RATE, le=MOST_RATE)
    rate_burst: int | None = Field(None, ge=1, le=MOST_BURST)
    max_uploads: int | None = Field(None, ge=1)
    expires: date | None = None


class KeyFile(BaseModel):
    """The whole file."""

    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)

    keys: dict[Name, KeyEntry]


@dataclass(frozen=True, slots=True)
class Key:
    """One accepted secret, by its hash; `expires` in Unix time."""

    digest: str
    identity: Identity
    expires: float | None = None


def new_secret() -> str:
    """A key as a caller sends it: 256 random bits. So many that a plain hash cannot be reversed."""
    return PREFIX + secrets.token_urlsafe(32)


def digest(secret: str) -> str:
    """What is stored of a key: the SHA-256 of its text, in hexadecimal."""
    return hashlib.sha256(secret.encode(errors="surrogateescape")).hexdigest()


def from_toml(text: str) -> tuple[Key, ...]:
    """The keys of a file. Raises BadKeys."""
    try:
        read = KeyFile.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise BadKeys(f"not TOML: {error}") from None
    except ValidationError as error:
        raise BadKeys(_reason_of(error)) from None
    return tuple(key for name, entry in read.keys.items() for key in _keys(name, entry))


def from_line(line: str) -> tuple[Key, ...]:
    """The keys of an environment variable: NAME:SCOPE+SCOPE:SHA256, with commas. Raises BadKeys."""
    keys: list[Key] = []
    for number, part in enumerate(filter(None, map(str.strip, line.split(","))), 1):
        name, _, rest = part.partition(":")
        scopes, _, hashed = rest.rpartition(":")
        content = {"sha256": hashed, "scopes": scopes.split("+")}
        try:
            entry = KeyEntry.model_validate(content)
            TypeAdapter(Name).validate_python(name)
        except ValidationError as error:
            form = f"each is NAME:SCOPE+SCOPE:SHA256, scopes are {', '.join(SCOPES)}"
            reason = f"{_reason_of(error)}; {form}"
            raise BadKeys(f"key {number}: {reason}") from None
        keys += _keys(name, entry)
    return tuple(keys)


class KeyRing:
    """The keys in force, from a file that is read again when it changes, and from a line.

    A changed file that cannot be read leaves the keys as they were, and says so in the log.

    Raises:
        BadKeys: at first.
    """

    def __init__(
        self,
        file: Path | None,
        line: str = "",
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._file = file
        self._clock = clock
        self._fixed = from_line(line)
        self._seen: Any = None
        self._told = ""  # why the file cannot be read, once for each reason
        self._looked = clock()
        self._keys = self._fixed
        if file is not None:
            self._seen = _state(file)
            self._keys = self._fixed + _read(file)
        self.required = file is not None or bool(self._fixed)

    def identify(self, secret: str) -> Identity | None:
        """The owner of a key; None if it is unknown or expired."""
        self._refresh()
        hashed = digest(secret).encode()
        match: Key | None = None
        for key in self._keys:  # all of them: how long it takes tells nothing
            if hmac.compare_digest(key.digest.encode(), hashed):
                match = key
        if match is None or (match.expires is not None and self._clock() >= match.expires):
            return None
        return match.identity

    def _refresh(self) -> None:
        now = self._clock()
        if self._file is None or abs(now - self._looked) < LOOK_EVERY:
            return
        self._looked = now
        state = _state(self._file)
        if state == self._seen:
            self._told = ""
            return
        try:
            self._keys = self._fixed + _read(self._file)
        except BadKeys as error:  # the next look tries again: what was in the way may be gone
            if str(error) != self._told:
                log.error("%s; the previous keys stay in force", error)
            self._told = str(error)
        else:
            self._seen, self._told = state, ""
            log.warning("API keys were reloaded: %d", len(self._keys))


def _keys(name: str, entry: KeyEntry) -> Sequence[Key]:
    identity = Identity(
        name=name,
        scopes=frozenset(entry.scopes),
        namespace=entry.namespace or "",
        max_labelsets=entry.max_labelsets,
        rate_limit=entry.rate_limit,
        rate_burst=entry.rate_burst,
        max_uploads=entry.max_uploads,
    )
    ends = None
    if entry.expires is not None:
        ends = datetime.combine(entry.expires, datetime.min.time(), UTC).timestamp()
    hashes = [entry.sha256] if isinstance(entry.sha256, str) else entry.sha256
    return [Key(hashed, identity, ends) for hashed in hashes]


def _read(file: Path) -> tuple[Key, ...]:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8 text"
        raise BadKeys(f"{file}: {reason}") from None
    try:
        return from_toml(text)
    except BadKeys as error:
        raise BadKeys(f"{file}: {error}") from None


def _state(file: Path) -> tuple[int, ...] | None:
    """A value that changes when a file is rewritten or replaced."""
    try:
        status = os.stat(file)  # noqa: PTH116 - follows links, as mounted secrets are
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def _reason_of(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(map(str, first["loc"]))
    return f"{where}: {first['msg']}" if where else first["msg"]
