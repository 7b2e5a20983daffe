"""Kill the server with -9 at random moments of registering and building; count what was lost.

    python -m benchmarks.reliability.crash --kills 100 --store sqlite
    python -m benchmarks.reliability.crash --kills 100 --store redis

A label set counts as acknowledged when its answer has arrived. After each kill the server is
started again on the same store, and every acknowledged set must be there with its labels; only the
one change that was under way may have happened or not.
"""

import argparse
import contextlib
import platform
import random
import tempfile
import threading
import time
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import httpx

from benchmarks.record import publish
from benchmarks.servers import Server, openvocab, redis_server, wait_until

NAMES = 40
BUILT_SECONDS = 240.0
# for an answer of the store: one that is late is no loss
STORE_TIMEOUT = 10


@dataclass
class Expected:
    """What the client knows: labels by name as acknowledged, and the change under way."""

    acknowledged: dict[str, list[str]] = field(default_factory=dict)
    under_way: tuple[str, list[str] | None] | None = None
    changes: int = 0


@dataclass
class Result:
    """What is written down."""

    store: str
    kills: int
    changes: int = 0
    lost: int = 0
    wrong: int = 0
    not_built: int = 0
    seconds: float = 0.0


def change_until_it_dies(client: httpx.Client, state: Expected, dice: random.Random) -> None:
    """Register, replace and delete label sets until the server is gone."""
    with contextlib.suppress(httpx.HTTPError):
        while True:
            name = f"set-{dice.randrange(NAMES)}"
            delete = name in state.acknowledged and dice.random() < 0.2
            labels = [f"thing {dice.randrange(10**9)}" for _ in range(dice.randrange(2, 60))]
            state.under_way = (name, None if delete else labels)
            if delete:
                answer = client.delete(f"/labelsets/{name}")
            else:
                answer = client.put(f"/labelsets/{name}", json={"labels": labels})
            if answer.is_success:
                state.changes += 1
                if delete:
                    del state.acknowledged[name]
                else:
                    state.acknowledged[name] = labels
            state.under_way = None


def check(client: httpx.Client, state: Expected, result: Result) -> None:
    """Compare what is stored with what was acknowledged; take over what is there."""
    name_in_doubt, labels_in_doubt = state.under_way or ("", None)
    stored: dict[str, list[str]] = {}
    for name in sorted({*state.acknowledged, name_in_doubt} - {""}):
        answer = client.get(f"/labelsets/{name}")
        if answer.status_code == httpx.codes.OK:
            stored[name] = answer.json()["labels"]
        elif answer.status_code != httpx.codes.NOT_FOUND:
            answer.raise_for_status()
    for name, labels in state.acknowledged.items():
        allowed = [labels, labels_in_doubt] if name == name_in_doubt else [labels]
        current = stored.get(name)
        if current not in allowed:
            result.lost += current is None
            result.wrong += current is not None
    state.acknowledged, state.under_way = stored, None


def all_get_built(client: httpx.Client, result: Result) -> None:
    """Builds that a kill interrupted must come to their end."""
    end = time.monotonic() + BUILT_SECONDS
    while True:
        sets = client.get("/labelsets?limit=1000").json()["labelsets"]
        waiting = [entry["name"] for entry in sets if entry["status"] != "ready"]
        if not waiting or time.monotonic() > end:
            result.not_built = len(waiting)
            return
        time.sleep(0.1)


def kill_and_look(kills: int, store: str, store_url: str, folder: Path, seed: int = 0) -> Result:
    """The whole experiment on one store."""
    dice, state, result = random.Random(seed), Expected(), Result(store, kills)
    start = time.monotonic()
    for _ in range(kills):
        with openvocab(store_url, folder, store_timeout=STORE_TIMEOUT) as server:
            check(server.client, state, result)
            _kill_at_random(server, state, dice)
    with openvocab(store_url, folder, store_timeout=STORE_TIMEOUT) as server:
        check(server.client, state, result)
        all_get_built(server.client, result)
    result.changes, result.seconds = state.changes, round(time.monotonic() - start, 1)
    return result


def _kill_at_random(server: Server, state: Expected, dice: random.Random) -> None:
    client = httpx.Client(base_url=server.client.base_url, timeout=30)
    worker = threading.Thread(target=change_until_it_dies, args=(client, state, dice))
    changes = state.changes
    worker.start()
    wait_until(lambda: state.changes > changes)
    time.sleep(dice.uniform(0.0, 1.0))
    server.kill()
    worker.join()
    client.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--store", choices=["sqlite", "redis"], required=True)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if options.store == "sqlite":
            result = kill_and_look(options.kills, "sqlite", "", folder)
        else:
            with redis_server(folder) as url:
                result = kill_and_look(options.kills, "redis", url, folder)
    document = {
        "what": "label sets lost by kill -9 of the server at random moments",
        "date": datetime.now(UTC).date().isoformat(),
        "python": platform.python_version(),
        **asdict(result),
    }
    publish(f"crash-{options.store}", document)


if __name__ == "__main__":
    main()
