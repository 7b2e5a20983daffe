"""The service: HTTP, command line, stores, batching, scoring."""

from typing import Final

VERSION: Final = "0.1.0"
