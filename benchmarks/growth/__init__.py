"""How time and memory grow with what is asked."""

from benchmarks.growth.asked import labels, sizes, templates
from benchmarks.growth.served import connections, labelsets, workers
from benchmarks.growth.stored import stored
from benchmarks.ray.scaling import encoders

PIECES = {
    "labels": labels,
    "templates": templates,
    "sizes": sizes,
    "labelsets": labelsets,
    "connections": connections,
    "workers": workers,
    "stored": stored,
    "encoders": encoders,
}
