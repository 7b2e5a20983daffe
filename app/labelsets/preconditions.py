"""What a change of a label set may expect, and the problems of its name. Knows no store.

Names come as the store keeps them; what is said of them is said to their owner.
"""

from dataclasses import dataclass

from app.errors import (
    LabelsetExists,
    Overloaded,
    PreconditionFailed,
    StoreUnavailable,
    TooLarge,
    UnknownLabelset,
)
from app.labelsets.definition import Stored, without_namespace


@dataclass(frozen=True, slots=True)
class Match:
    """If-Match and If-None-Match of a change (RFC 9110, section 13.1).

    `versions` are those it expects; `exists`: any version; `absent`: none.
    """

    versions: frozenset[int] | None = None
    exists: bool = False
    absent: bool = False

    def check(self, name: str, current: Stored | None) -> None:
        """Nothing if the change may go on. Raises PreconditionFailed."""
        if self.exists and current is None:
            raise PreconditionFailed(
                f"there is no label set {without_namespace(name)}", field="If-Match"
            )
        if self.absent and current is not None:
            raise taken(name)
        if self.versions is not None and (current is None or current.version not in self.versions):
            raise changed(name, None if current is None else current.version)


def unknown(name: str) -> UnknownLabelset:
    """The problem of a name that is in no store."""
    own = without_namespace(name)
    return UnknownLabelset(f"label set {own} not found", field="labelset", value=own)


def exists(name: str) -> LabelsetExists:
    """The problem of a name that is taken."""
    own = without_namespace(name)
    detail = f"the label set {own} already exists; PUT /labelsets/{own} replaces it"
    return LabelsetExists(detail, field="name", value=own)


def taken(name: str) -> PreconditionFailed:
    """The problem of a name that was to be created only."""
    detail = f"the label set {without_namespace(name)} already exists"
    return PreconditionFailed(detail, field="If-None-Match")


def changed(name: str, current: int | None) -> PreconditionFailed:
    """The problem of a version that is not the expected one; None: the name does not exist."""
    at = "it does not exist" if current is None else f"it is at version {current}"
    detail = f"the label set {without_namespace(name)} has changed: {at}"
    return PreconditionFailed(detail, field="If-Match", value=at)


def full(limit: int, *, own: bool) -> TooLarge:
    """The problem of one name too many: of the caller's `own`, or of all."""
    which = "this key has, its limit" if own else "are stored, the limit of max_labelsets"
    detail = f"{limit} label sets {which}; delete one"
    return TooLarge(detail, field="name", limit=limit, value=limit + 1)


def contended(name: str) -> Overloaded:
    """The problem of a change of any version that others were faster than each time."""
    detail = f"the label set {without_namespace(name)} is being changed by others at the moment"
    return Overloaded(detail, retry_after=1)


def overtaken(name: str) -> PreconditionFailed:
    """The problem of a version that is the current one no more."""
    return PreconditionFailed(
        f"the label set {without_namespace(name)} was changed again meanwhile"
    )


def away() -> StoreUnavailable:
    """The problem of a store that does not answer."""
    detail = "the label set store is unavailable; label sets already in memory still work"
    return StoreUnavailable(detail, retry_after=1)
