"""Where the measurements keep what they make once. Knows nothing of what is kept."""

import os
from pathlib import Path

RESULTS = Path(__file__).parent / "results"


def cache(*names: str) -> Path:
    """A folder under the user's cache that lasts between runs, made if missing."""
    home = os.environ.get("XDG_CACHE_HOME") or str(Path("~/.cache").expanduser())
    folder = Path(home, "openvocab-bench", *names)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
