"""Each thing that makes the service fast, alone: both sides in one run."""

from benchmarks.levers.backends import backends
from benchmarks.levers.http import bodies, loops
from benchmarks.levers.image import batching, precision
from benchmarks.levers.jpeg import decoders, draft
from benchmarks.levers.kernels import kernels
from benchmarks.levers.stores import redis
from benchmarks.levers.text import cached, text
from benchmarks.levers.threads import threads

PIECES = {
    "cached": cached,
    "text": text,
    "precision": precision,
    "batching": batching,
    "threads": threads,
    "draft": draft,
    "decoders": decoders,
    "loops": loops,
    "bodies": bodies,
    "redis": redis,
    "backends": backends,
    "kernels": kernels,
}
