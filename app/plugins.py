"""How Pillow's plugins are set up for files from strangers. Knows no file."""

import contextlib
import ctypes
import logging
import re
import warnings
from pathlib import Path

from PIL import Image


def quieten() -> None:
    """Decoders tell of oddities in files from strangers; nobody here can act on them."""
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.")
    warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    # libtiff writes to the standard error by itself, a line for each row that is damaged
    with contextlib.suppress(OSError, AttributeError):
        found = re.search(r"/\S*libtiff\S*", Path("/proc/self/maps").read_text())
        if found:
            libtiff = ctypes.CDLL(found[0])
            libtiff.TIFFSetErrorHandler(None)
            libtiff.TIFFSetWarningHandler(None)


def enable_heic() -> None:
    """Have Pillow read HEIC, too; needs pi-heif."""
    from pi_heif import register_heif_opener

    register_heif_opener()
