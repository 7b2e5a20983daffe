"""Sizes that compiled towers run at: few, since each is prepared once and then held for good."""

from typing import Final

# a tree of tokens has a multiple of this many nodes; a smaller one has a multiple of the second
NODES: Final = 32
FEW_NODES: Final = 8

# a batch has a size of three binary digits and zeros behind them, which adds a quarter at most
_DIGITS: Final = 3


def batch_size(count: int) -> int:
    """The smallest size for `count` images or prompts (1 or more): 1 to 8, 10, 12, 14, 16, 20, …"""
    unit = 1 << max(0, (count - 1).bit_length() - _DIGITS)
    return _rounded_up(count, unit)


def tree_size(nodes: int) -> int:
    """The smallest size for a tree of so many nodes: 8, 16, 24, 32, 64, 96, …"""
    return _rounded_up(nodes, NODES if nodes > NODES else FEW_NODES)


def _rounded_up(count: int, unit: int) -> int:
    return -(-count // unit) * unit
