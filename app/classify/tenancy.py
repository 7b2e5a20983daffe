"""Whose vectors may answer: those that the caller's own namespace has had.

Who is answered from a cache learns that somebody sent the same picture or label before, by `cached`
and by the time it takes. The keys of all vectors therefore hold the namespace that a request, or a
build, works for. It goes with the context, so that no way to a cache can leave it out.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Final

_NAMESPACE: Final[ContextVar[str]] = ContextVar("openvocab_namespace", default="")


@contextmanager
def working_for(namespace: str) -> Iterator[None]:
    """Inside, and in tasks started there, caches belong to this namespace."""
    before = _NAMESPACE.set(namespace)
    try:
        yield
    finally:
        _NAMESPACE.reset(before)


def own(fingerprint: str) -> str:
    """An encoder's fingerprint as the keys of vectors hold it; plain without a namespace."""
    namespace = _NAMESPACE.get()
    return f"{fingerprint}\0{namespace}" if namespace else fingerprint
