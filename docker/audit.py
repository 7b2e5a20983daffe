"""Has anything that is locked a known vulnerability? Knows nothing of how the locks are made.

    python docker/audit.py requirements.lock ...

Exit status 1 if there is one. Where the advisory data cannot be had, one line says so: 0.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

SECONDS = 300

Dependency = dict[str, Any]


def ask(locks: Sequence[str], program: str) -> list[Dependency] | None:
    """What pip-audit says of each package of these files, None if it cannot be asked."""
    command = [program, "--disable-pip", "--require-hashes", "--progress-spinner", "off"]
    for lock in locks:
        command += ["--requirement", lock]
    try:
        found = subprocess.run(  # noqa: S603 - a program and files that the Makefile names
            [*command, "--format", "json"],
            capture_output=True, text=True, timeout=SECONDS, check=False,
        )  # fmt: skip
        listed: list[Dependency] = json.loads(found.stdout)["dependencies"]
    except (OSError, subprocess.TimeoutExpired, ValueError, KeyError):
        return None
    return listed


def verdict(found: list[Dependency] | None) -> tuple[list[str], int]:
    """Lines for a person, and the exit status."""
    known = {(one["name"], one.get("version")): one for one in found or []}.values()
    asked = [one for one in known if "skip_reason" not in one]
    if not asked:
        return ["audit: the advisory data cannot be had here; nothing was looked up"], 0
    lines = [
        f"audit: {one['name']} {one['version']}: {flaw['id']}, "
        f"mended in {', '.join(flaw['fix_versions']) or 'no release'}"
        for one in asked
        for flaw in one["vulns"]
    ]
    status = 1 if lines else 0
    unknown = [one["name"] for one in known if "skip_reason" in one]
    if unknown:
        lines.append(f"audit: not looked up: {', '.join(sorted(unknown))}")
    lines.append(f"audit: {len(asked)} packages, {'see above' if status else 'nothing known'}")
    return lines, status


def main() -> None:
    """The command line."""
    program = Path(sys.executable).with_name("pip-audit")
    lines, status = verdict(ask(sys.argv[1:], str(program)))
    sys.stdout.write("\n".join(lines) + "\n")
    sys.exit(status)


if __name__ == "__main__":
    main()
