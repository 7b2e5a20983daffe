"""Kill processes with -9 while they write label sets to one SQLite file; count what was lost.

Knows the store alone: `benchmarks.reliability.crash` does the same to whole servers, less often.
"""

import contextlib
import json
import random
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.servers import wait_until

WRITERS = 2
LONGEST = 0.25
START_SECONDS = 240.0

# it tells of each change when it begins ("?") and when the store has acknowledged it ("!")
WRITER = """
import asyncio, json, random, sys
from pathlib import Path
from app.stores.sqlite.store import SqliteStore

def tell(mark, name, version, body):
    print(mark, json.dumps([name, version, body and [body[0], len(body)]]), flush=True)

async def change(sets, name, dice):
    head, record = await sets.head(name), await sets.get(name)
    version = 1 if head is None else head.version + 1
    delete = record is not None and dice.random() < 0.2
    body = None if delete else bytes([dice.randrange(256)]) * dice.randrange(1, 20_000)
    tell("?", name, version, body)
    if delete:
        await sets.delete(name, record.version)
    else:
        await sets.write(name, body, record and record.version, 10**6)
    tell("!", name, version, body)
    return {name: body or b"-"}

async def main(path, mine):
    store, dice = SqliteStore(Path(path), 10.0, 3600, 1 << 30), random.Random()
    await store.open()
    while True:
        values = await change(store.labelsets, f"{mine}-{dice.randrange(20)}", dice)
        await store.vectors.put_many(values)

asyncio.run(main(*sys.argv[1:]))
"""

# a version and its body in short, one byte and how often; None: deleted
State = tuple[int, tuple[int, int] | None]


@dataclass
class Outcome:
    """What became of all changes; `unreadable` counts files that SQLite finds fault with."""

    kills: int = 0
    acknowledged: int = 0
    lost: int = 0
    wrong: int = 0
    unreadable: int = 0


@dataclass
class Writer:
    """One process, and what it has told so far."""

    process: subprocess.Popen[str]
    acknowledged: dict[str, State] = field(default_factory=dict)
    under_way: dict[str, State] = field(default_factory=dict)
    changes: int = 0

    def listen(self) -> None:
        """Take down what it tells, until it is dead."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if not line.endswith("\n"):
                return  # the kill came in the middle of it
            name, version, body = json.loads(line[2:])
            state = (version, None if body is None else tuple(body))
            if line.startswith("?"):
                self.under_way[name] = state
            else:
                self.acknowledged[name] = self.under_way.pop(name)
                self.changes += 1


def kill_writers(kills: int, folder: Path, dice: random.Random) -> Outcome:
    """The whole experiment: two processes write at a time, and both are killed."""
    path, outcome, states = folder / "killed.sqlite3", Outcome(), dict[str, State]()
    while outcome.kills < kills:
        with contextlib.ExitStack() as stack:
            writers = [stack.enter_context(_writing(path, str(n))) for n in range(WRITERS)]
            wait_until(lambda: all(writer.changes for writer in writers), START_SECONDS)  # noqa: B023
            time.sleep(dice.uniform(0, LONGEST))
        for writer in writers:
            states |= writer.acknowledged
            outcome.acknowledged += writer.changes
        outcome.kills += WRITERS
        under_way = {name: state for writer in writers for name, state in writer.under_way.items()}
        states = _compare(path, states, under_way, outcome)
    return outcome


@contextlib.contextmanager
def _writing(path: Path, name: str) -> Iterator[Writer]:
    command = [sys.executable, "-c", WRITER, str(path), name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        writer = Writer(process)
        listener = threading.Thread(target=writer.listen)
        listener.start()
        try:
            yield writer
        finally:
            process.kill()
            listener.join()


def _compare(
    path: Path, states: dict[str, State], under_way: dict[str, State], outcome: Outcome
) -> dict[str, State]:
    """What is there; only a change that was under way may have happened or not."""
    with contextlib.closing(sqlite3.connect(path)) as file:
        outcome.unreadable += file.execute("PRAGMA integrity_check").fetchall() != [("ok",)]
        rows = file.execute("SELECT name, version, body FROM labelsets").fetchall()
    there = {name: (version, _short(body)) for name, version, body in rows}
    for name, state in states.items():
        if name not in there:
            outcome.lost += 1
        elif there[name] not in (state, under_way.get(name)):
            outcome.wrong += 1
    outcome.wrong += sum(
        there[name] != under_way.get(name) for name in there.keys() - states.keys()
    )
    return there


def _short(body: bytes | None) -> tuple[int, int] | None:
    if body is None:
        return None
    whole = body == body[:1] * len(body)
    return (body[0], len(body)) if whole else (-1, len(body))
