"""Make a bundled model's bundle anew, after its weights changed: `python -m models.bundle_export`.

Imports torch, open_clip and OpenVINO.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Final

from models import bundle, torch_loader
from models.catalog import LOCAL_DIR, OFFLINE_MODEL, catalog
from models.choice import Candidates
from models.export import export
from models.info import Precision

PRECISIONS: Final[tuple[Precision, ...]] = ("fp32", "bf16")


def main(name: str) -> None:
    """Write the folder `exported` beside the model's weights."""
    loader = catalog()[name].loader
    parts = torch_loader.read(name, loader, "cpu", PRECISIONS[0], "openvino")
    fingerprints = {precision: parts.fingerprint_in(precision) for precision in PRECISIONS}
    with tempfile.TemporaryDirectory() as folder:
        export(name, Candidates(("fp32",)), Path(folder), traced=True)
        bundle.pack(Path(folder), Path(loader.removeprefix(LOCAL_DIR)), fingerprints)


if __name__ == "__main__":
    bundled = [entry for entry, model in catalog().items() if model.loader.startswith(LOCAL_DIR)]
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", nargs="?", default=OFFLINE_MODEL, choices=bundled)
    main(parser.parse_args().model)
