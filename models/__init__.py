"""The encoders: the only place that imports torch. Arrays cross its border, tensors do not."""

from models.catalog import OFFLINE_MODEL, CatalogEntry, catalog
from models.errors import (
    BadCheckpoint,
    BadDevice,
    EncoderClosed,
    ModelError,
    ModelUnavailable,
    PromptTooLong,
    UnknownModel,
)
from models.info import EncoderInfo, ImageSpec, Provenance

__all__ = [
    "OFFLINE_MODEL",
    "BadCheckpoint",
    "BadDevice",
    "CatalogEntry",
    "EncoderClosed",
    "EncoderInfo",
    "ImageSpec",
    "ModelError",
    "ModelUnavailable",
    "PromptTooLong",
    "Provenance",
    "UnknownModel",
    "catalog",
]
