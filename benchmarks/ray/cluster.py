"""A Ray cluster on this machine for measurements and tests, and deployments on it.

Ray runs in processes of its own, so that its threads and warnings stay away from the caller's.
Run as a program it is the first of them: it begins the cluster, tells how an application is at each
line that names one, and ends the cluster with its input.
"""

import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import yaml  # type: ignore[import-untyped]

from benchmarks.servers import free_port, wait_until
from benchmarks.usage import tree

ROOT: Final = Path(__file__).parents[2]
CONFIG: Final = ROOT / "docker" / "ray" / "serve.yaml"
APPLICATION: Final = "openvocab"

# for a model to be loaded on a busy machine
DEPLOY_SECONDS: Final = 300.0

OBJECT_STORE_BYTES: Final = 200_000_000


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster that runs; `folder` has its logs, `port` is where it serves."""

    process: subprocess.Popen[str]
    address: str
    env: Mapping[str, str]
    folder: Path
    port: int

    @property
    def url(self) -> str:
        """Where it serves."""
        return f"http://127.0.0.1:{self.port}"

    def deploy(self, document: Mapping[str, Any]) -> None:
        """Apply a configuration; returns before it is in force."""
        config = self.folder / "serve.yaml"
        config.write_text(yaml.safe_dump(dict(document)))
        command = [str(Path(sys.executable).with_name("serve")), "run", "--non-blocking"]
        command += ["--address", self.address, str(config)]
        with (self.folder / "serve.log").open("ab") as log:
            subprocess.run(command, env=dict(self.env), stdout=log, stderr=log, check=True)

    def wait(self, application: str = APPLICATION) -> None:
        """Until what was deployed is in force. Raises RuntimeError if it cannot be."""

        def settled() -> bool:
            found = self.status(application)
            if found["status"] == "DEPLOY_FAILED":
                raise RuntimeError(f"the deployment failed: {found}")
            return bool(found["status"] == "RUNNING")

        wait_until(settled, DEPLOY_SECONDS)

    def status(self, application: str = APPLICATION) -> dict[str, Any]:
        """How an application is: its `status`, and that of each of its `deployments`."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{application}\n")
        self.process.stdin.flush()
        found: dict[str, Any] = json.loads(self.process.stdout.readline())
        return found

    def replicas(self, deployment: str) -> list[int]:
        """Process ids of a deployment's replicas, those that begin or end included."""
        title = f"ray::ServeReplica:{APPLICATION}:{deployment}".encode()
        return [pid for pid in tree(self.process.pid) if _read(pid, "cmdline").startswith(title)]


def document(port: int, replicas: Mapping[str, int], **args: object) -> dict[str, Any]:
    """docker/ray/serve.yaml with these settings, for this machine: fixed replicas on CPU cores."""
    found: dict[str, Any] = yaml.safe_load(CONFIG.read_text())
    found["http_options"] = {"host": "127.0.0.1", "port": port}
    application = found["applications"][0]
    application["args"] = {"model": "pictogram", **{name: str(v) for name, v in args.items()}}
    for deployment in application["deployments"]:
        count = replicas[deployment["name"]]
        deployment["autoscaling_config"] |= {"min_replicas": count, "max_replicas": count}
        deployment |= {"ray_actor_options": {"num_cpus": 0.1}, "max_surge_percent": 100}
    return found


@contextlib.contextmanager
def ray_cluster(folder: Path, **settings: object) -> Iterator[Cluster]:
    """An empty cluster; settings as in OPENVOCAB_*, in lower case, for all that runs on it."""
    env = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "RAY_USAGE_STATS_ENABLED": "0",
        # by default 15: whatever else runs here, the load generator too, would go first
        "RAY_worker_niceness": "0",
        # HAProxy hands requests to the replicas' own servers, and calls between them are gRPC:
        # a third of the CPU time a request
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_THROUGHPUT_OPTIMIZED": "1",
        # no other cluster of this machine, and no file in anybody's home
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": secrets.token_hex(32),
        # on a busy machine a proxy takes longer to start than Ray waits for it, three times
        "RAY_SERVE_PROXY_READY_CHECK_TIMEOUT_S": "60",
        "OPENVOCAB_DATA_DIR": str(folder),
        "OPENVOCAB_LOG_LEVEL": "warning",
        **{f"OPENVOCAB_{name.upper()}": str(value) for name, value in settings.items()},
    }
    with tempfile.TemporaryDirectory(prefix="ray-", ignore_cleanup_errors=True) as scratch:
        yield from _held(folder, env, scratch)


def _held(folder: Path, env: Mapping[str, str], scratch: str) -> Iterator[Cluster]:
    command = [sys.executable, "-m", "benchmarks.ray.cluster", scratch]
    with (folder / "ray.log").open("ab") as log:
        process = subprocess.Popen(
            command, env=env, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log,
            text=True, start_new_session=True,
        )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        address = process.stdout.readline().strip()
        if not address:
            raise RuntimeError(f"Ray did not start:\n{(folder / 'ray.log').read_text()}")
        yield Cluster(process, address, env, folder, free_port())
    finally:
        begun = tree(process.pid)[1:]
        process.stdin.close()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()
        _end(begun)


def wait_for(client: httpx.Client, path: str = "/readyz") -> None:
    """Until it answers."""

    def answers() -> bool:
        with contextlib.suppress(httpx.TransportError):
            return client.get(path).is_success
        return False

    wait_until(answers, DEPLOY_SECONDS)


def _read(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:  # it has ended
        return b""


def _end(pids: list[int]) -> None:
    """What a cluster that ended left behind, by its ids."""
    end = time.monotonic() + 10
    while time.monotonic() < end and any(_read(pid, "cmdline") for pid in pids):
        time.sleep(0.05)
    for pid in pids:
        if b"ray" in _read(pid, "cmdline"):  # not a process that got the id since
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def main() -> None:
    """Hold a cluster until the input ends."""
    import ray
    from ray import serve

    context: Any = ray.init(
        num_cpus=4,
        object_store_memory=OBJECT_STORE_BYTES,
        include_dashboard=False,
        log_to_driver=False,
        _node_ip_address="127.0.0.1",
        # short, as it holds sockets
        _temp_dir=sys.argv[1],
    )
    print(context.address_info["gcs_address"], flush=True)
    for line in sys.stdin:
        found = serve.status().applications.get(line.strip())
        deployments = found.deployments.items() if found else ()
        answer = {
            "status": str(found.status.value) if found else "NONE",
            "message": found.message if found else "",
            "deployments": {
                name: {"message": one.message, **one.replica_states} for name, one in deployments
            },
        }
        print(json.dumps(answer), flush=True)
    serve.shutdown()  # type: ignore[no-untyped-call]
    ray.shutdown()


if __name__ == "__main__":
    main()
