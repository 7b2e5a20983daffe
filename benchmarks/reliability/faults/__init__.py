"""Faults of the stores, to be put into running servers: for measurements and for tests."""
