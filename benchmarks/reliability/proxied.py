"""Requests through a real nginx that keeps its connections to the server: how many are 502.

    python -m benchmarks.reliability.proxied --minutes 3 --write

nginx keeps 32 idle connections for 60 s, as it does by default, and a POST, which it does not
repeat, comes every 5 s. Then the same with a server that closes idle connections after a second,
and a POST a second after each answer, give or take a few milliseconds: some meet a closed one.
"""

import argparse
import contextlib
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx

from benchmarks.record import Cell, Result
from benchmarks.reliability import page
from benchmarks.servers import free_port, openvocab, wait_until

# of the requests to a server that closes first: how many, and seconds around the moment
CLOSED = 100
SPREAD = 0.004

ROOT = Path(__file__).parents[2]
PICTURE = ROOT / "tests" / "samples" / "cat.png"
UNPACKED = ROOT / "build" / "nginx" / "usr" / "sbin" / "nginx"

CONF = """
daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log notice;
events {{}}
http {{
  access_log off;
  client_body_buffer_size 25m;
  client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi; uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi;
  {block}
}}
"""

# the addresses are replaced
BLOCK = """
  upstream openvocab { server 127.0.0.1:8000; keepalive 32; keepalive_timeout %gs; }
  server {
    listen 80;
    client_max_body_size 25m;
    location / {
      proxy_pass http://openvocab;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
    }
  }
"""


def nginx_program() -> str | None:
    """Where nginx is, if it is installed or `make nginx` unpacked it."""
    places = ("nginx", "/usr/sbin/nginx", str(UNPACKED))
    return next((found for place in places if (found := shutil.which(place))), None)


@contextlib.contextmanager
def nginx(upstream: str, folder: Path, block: str) -> Iterator[str]:
    """An nginx with this block before the server at HOST:PORT; its URL."""
    program = nginx_program()
    if program is None:
        raise RuntimeError("nginx is missing; run `make nginx`")
    port = free_port()
    conf = folder / "nginx.conf"
    block = block.replace("server 127.0.0.1:8000;", f"server {upstream};")
    block = block.replace("listen 80;", f"listen 127.0.0.1:{port};")
    conf.write_text(CONF.format(folder=folder, block=block))
    with subprocess.Popen([program, "-c", str(conf), "-e", str(folder / "error.log")]) as process:
        url = f"http://127.0.0.1:{port}"

        def answers() -> bool:
            with contextlib.suppress(httpx.TransportError):
                return httpx.get(f"{url}/healthz", timeout=60).status_code == 200
            return False

        try:
            wait_until(answers)
            yield url
        finally:
            process.terminate()


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the requests: how many had each status."""

    statuses: Counter[int]
    longest_ms: float

    @property
    def total(self) -> int:
        """How many there were."""
        return self.statuses.total()

    @property
    def failed(self) -> int:
        """How many were not answered 200."""
        return self.total - self.statuses[200]


def passed(
    folder: Path, keep_alive: float, proxy: float, every: float, count: int, spread: float = 0
) -> Outcome:
    """Send `count` POSTs through nginx, each `every` seconds after an answer, +- `spread`."""
    chance = random.Random(1)
    statuses: Counter[int] = Counter()
    longest = 0.0
    picture = PICTURE.read_bytes()
    with (
        openvocab("memory://", folder, keep_alive=keep_alive) as server,
        nginx(server.url.removeprefix("http://"), folder, BLOCK % proxy) as url,
        httpx.Client(base_url=url, timeout=60) as client,
    ):
        for number in range(count):
            if number:
                _wait(every + chance.uniform(-spread, spread))
            start = time.perf_counter()
            answer = client.post("/classify?labels=cat,dog", files={"image": picture})
            longest = max(longest, time.perf_counter() - start)
            statuses[answer.status_code] += 1
    return Outcome(statuses, 1000 * longest)


def _wait(seconds: float) -> None:
    """To a millisecond, which a sleep alone is not on a busy machine."""
    end = time.perf_counter() + seconds
    time.sleep(max(0.0, seconds - 0.05))
    while time.perf_counter() < end:
        pass


def main() -> None:
    """Measure with the default, and with what closes first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=3)
    parser.add_argument("--every", type=float, default=5)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    start = time.monotonic()
    count = round(60 * options.minutes / options.every)
    rows: list[list[Cell]] = []
    for keep_alive, every, spread, number in (
        (75, options.every, 0.0, count),
        (1, 1.0, SPREAD, CLOSED),
    ):
        with tempfile.TemporaryDirectory() as folder:
            outcome = passed(Path(folder), keep_alive, 60, every, number, spread)
        rows.append([keep_alive, 60, every, outcome.total, outcome.failed])
        sys.stdout.write(f"OPENVOCAB_KEEP_ALIVE={keep_alive:g}: {dict(outcome.statuses)}\n")
    if options.write:
        table = Result(
            "Through nginx with `keepalive 32`",
            ["`OPENVOCAB_KEEP_ALIVE`", "nginx idle timeout, s", "POST after, s", "requests", "502"],
            rows,
            ["The second row shows the mistake: a server that closes before its proxy."],
        )
        subject = "requests through a proxy that keeps its connections"
        page.write("proxied", subject, [table], time.monotonic() - start)


if __name__ == "__main__":
    main()
