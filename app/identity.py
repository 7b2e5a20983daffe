"""Who a caller is and what it may do. Knows neither keys nor requests."""

from dataclasses import dataclass
from typing import Final, Literal, get_args

Scope = Literal["classify", "labelsets:write", "admin"]
SCOPES: Final[tuple[Scope, ...]] = get_args(Scope)


@dataclass(frozen=True, slots=True)
class Identity:
    """A caller. What is None is as the settings have it.

    `namespace` is where its label sets live, of which there may be `max_labelsets`; `rate_limit`
    is in requests a second, of which `rate_burst` may come at once.
    """

    name: str
    scopes: frozenset[Scope]
    namespace: str = ""
    max_labelsets: int | None = None
    rate_limit: float | None = None
    rate_burst: int | None = None

    def may(self, *scopes: Scope) -> bool:
        """Whether one of these scopes is among its own; `admin` is all of them."""
        return "admin" in self.scopes or not self.scopes.isdisjoint(scopes)


def anyone(address: str) -> Identity:
    """A caller of a server without keys, known by the address it comes from."""
    return Identity(address, frozenset(SCOPES))
