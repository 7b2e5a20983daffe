"""How time and memory grow with what is asked."""

from benchmarks.growth.asked import labels, sizes, templates
from benchmarks.growth.served import connections, labelsets, workers

PIECES = {
    "labels": labels,
    "templates": templates,
    "sizes": sizes,
    "labelsets": labelsets,
    "connections": connections,
    "workers": workers,
}
