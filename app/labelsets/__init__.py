"""Registered vocabularies: definitions, versions, builds, examples. Does not know HTTP."""
