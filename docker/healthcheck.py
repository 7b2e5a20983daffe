"""Exit 0 if the server in this container answers /readyz with 200, else 1. Standard library only.

Usage: healthcheck.py [PORT]. Without one it takes the port that the container's first process was
started with (`--port`), so that an own command line needs no own health check. It speaks HTTPS
where OPENVOCAB_TLS_CERT_FILE is set.
"""

import os
import ssl
import sys
import urllib.error
import urllib.request
from pathlib import Path

DEFAULT_PORT = 8000
SECONDS = 5.0


def port_of(arguments: list[str]) -> int:
    """The value of the last `--port` of a command line, or the default one."""
    port = DEFAULT_PORT
    for here, following in zip(arguments, [*arguments[1:], ""], strict=True):
        name, equals, value = here.partition("=")
        found = value if equals else following
        if name == "--port" and found.isdecimal():
            port = int(found)
    return port


def status(port: int) -> int:
    """The HTTP status of /readyz; raises OSError or HTTPException where nothing answers."""
    scheme = "https" if os.environ.get("OPENVOCAB_TLS_CERT_FILE") else "http"
    trusting = ssl.create_default_context()
    trusting.check_hostname = False  # it is made out to a name, and the server is this container's
    trusting.verify_mode = ssl.CERT_NONE
    # a proxy from the environment is for the outside
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}), urllib.request.HTTPSHandler(context=trusting)
    )
    try:
        with opener.open(f"{scheme}://127.0.0.1:{port}/readyz", timeout=SECONDS) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


def main() -> None:
    if len(sys.argv) > 1:
        port = int(sys.argv[1])
    else:
        port = port_of(Path("/proc/1/cmdline").read_bytes().decode(errors="replace").split("\0"))
    try:
        found = status(port)
    except Exception as error:  # whatever it is, the server did not answer
        sys.exit(f"port {port}: {error}")
    if found != 200:
        sys.exit(f"port {port}: status {found}")


if __name__ == "__main__":
    main()
