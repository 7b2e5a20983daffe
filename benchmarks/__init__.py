"""Reproducible measurements; their results are in results/."""
