"""The service beside others that do the same work with the same weights."""

from benchmarks.peers.measure import eighty, large, small, variants

PIECES = {"variants": variants, "small": small, "large": large, "eighty": eighty}
