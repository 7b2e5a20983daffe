"""The service beside what its parts cost alone."""

from benchmarks.limit.cold import cold
from benchmarks.limit.cpu import cpu
from benchmarks.limit.labels import labels
from benchmarks.limit.light import light
from benchmarks.limit.memory import memory
from benchmarks.limit.models import cycles, models
from benchmarks.limit.pictogram import pictogram

PIECES = {
    "cpu": cpu,
    "pictogram": pictogram,
    "labels": labels,
    "cold": cold,
    "memory": memory,
    "light": light,
    "models": models,
    "cycles": cycles,
}
