"""A Ray cluster on this machine for measurements and tests, and deployments on it.

Ray runs in processes of its own, so that its threads and warnings stay away from the caller's.
Run as a program it is the first of them: it begins the cluster, tells how an application is at each
line that names one, and ends all of the cluster's processes with its input.
"""

import contextlib
import json
import os
import re
import secrets
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import yaml  # type: ignore[import-untyped]

from benchmarks.servers import free_port, wait_until
from benchmarks.usage import ended, tree

ROOT: Final = Path(__file__).parents[2]
CONFIG: Final = ROOT / "docker" / "ray" / "serve.yaml"
APPLICATION: Final = "openvocab"

# for a model to be loaded on a busy machine
DEPLOY_SECONDS: Final = 300.0

# a raylet that takes more than 30 s to begin, as on a very busy machine, ends Ray's patience
STARTS: Final = 3

OBJECT_STORE_BYTES: Final = 200_000_000


@dataclass(frozen=True, slots=True)
class Cluster:
    """A cluster that runs; `folder` has its logs. Each of its nodes serves at one of `ports`.

    `raylets` are the first processes of the nodes. The first node is the head.
    """

    process: subprocess.Popen[str]
    address: str
    env: Mapping[str, str]
    folder: Path
    ports: Sequence[int]
    raylets: Sequence[int]

    @property
    def port(self) -> int:
        """Where the head serves."""
        return self.ports[0]

    @property
    def url(self) -> str:
        """Where the head serves."""
        return self.urls[0]

    @property
    def urls(self) -> list[str]:
        """Where each node serves."""
        return [f"http://127.0.0.1:{port}" for port in self.ports]

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
            state = self.status(application)
            if state["status"] == "DEPLOY_FAILED":
                raise RuntimeError(f"the deployment failed: {state}")
            return bool(state["status"] == "RUNNING")

        wait_until(settled, DEPLOY_SECONDS)

    def status(self, application: str = APPLICATION) -> dict[str, Any]:
        """How an application is: its `status`, and that of each of its `deployments`."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(f"{application}\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            log = (self.folder / "ray.log").read_text()
            raise RuntimeError(f"the cluster ended with {self.process.wait(60)}:\n{log}")
        state: dict[str, Any] = json.loads(answer)
        return state

    def replicas(
        self, deployment: str, node: int | None = None, application: str = APPLICATION
    ) -> list[int]:
        """Process ids of a deployment's replicas, those that begin or end included."""
        # neither Encoder-NAME, if that of Encoder is asked; a method's name may follow
        title = re.compile(
            rf"ray::ServeReplica:{application}:{re.escape(deployment)}(?![\w-])".encode()
        )
        root = self.process.pid if node is None else self.raylets[node]
        return [pid for pid in tree(root) if title.match(_read_proc(pid, "cmdline"))]

    def kill_node(self, node: int) -> None:
        """End all processes of a node as a power cut would, but for its network."""
        kill(tree(self.raylets[node]))

    def document(self, replicas: Mapping[str, int], **args: object) -> dict[str, Any]:
        """docker/ray/serve.yaml with these settings: fixed replicas on CPU cores."""
        # a replica has to be reached at the addresses of several nodes
        host = "127.0.0.1" if len(self.ports) == 1 else "0.0.0.0"
        return _document(host, self.port, replicas, args)


def _document(
    host: str, port: int, replicas: Mapping[str, int], args: Mapping[str, object]
) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load(CONFIG.read_text())
    document["http_options"] = {"host": host, "port": port}
    application = document["applications"][0]
    application["args"] = {"model": "pictogram", **{name: str(v) for name, v in args.items()}}
    for deployment in application["deployments"]:
        count = replicas[deployment["name"]]
        deployment["autoscaling_config"] |= {"min_replicas": count, "max_replicas": count}
        deployment |= {"ray_actor_options": {"num_cpus": 0.1}, "max_surge_percent": 100}
    return document


@contextlib.contextmanager
def ray_cluster(folder: Path, cpus: Sequence[int] = (4,), **settings: object) -> Iterator[Cluster]:
    """An empty cluster with a node for each number of CPUs, which say what may run there.

    Settings as in OPENVOCAB_*, in lower case, for all that runs on it.
    """
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
        # short, as it holds sockets
        env["RAY_TMPDIR"] = scratch
        Path(scratch, "ray").mkdir()
        proxies = [_own_proxy(Path(scratch, f"haproxy-{number}")) for number in range(len(cpus))]
        yield from _run_cluster(
            folder, env, [Node(*node) for node in zip(cpus, proxies, strict=True)]
        )


@dataclass(frozen=True, slots=True)
class Node:
    """What a node is begun with: CPUs that it offers, and its variables."""

    cpus: int
    env: Mapping[str, str]


def _own_proxy(folder: Path) -> dict[str, str]:
    """HAProxy of a node with files and ports of its own: by default all of a machine share them."""
    folder.mkdir()
    return {
        "RAY_SERVE_HAPROXY_CONFIG_FILE_LOC": f"{folder}/haproxy.cfg",
        "RAY_SERVE_HAPROXY_SOCKET_PATH": f"{folder}/admin.sock",
        "RAY_SERVE_HAPROXY_SERVER_STATE_BASE": f"{folder}",
        "RAY_SERVE_HAPROXY_SERVER_STATE_FILE": f"{folder}/server-state",
        "RAY_SERVE_HAPROXY_STATS_PORT": str(free_port()),
        "RAY_SERVE_HAPROXY_METRICS_PORT": str(free_port()),
        # of the head it is a field of the configuration
        "RAY_SERVE_WORKER_PROXY_HTTP_PORT": str(free_port()),
    }


def _run_cluster(folder: Path, env: Mapping[str, str], nodes: Sequence[Node]) -> Iterator[Cluster]:
    log = folder / "ray.log"
    for _ in range(STARTS):
        process, first_line = _start_process(log, env, nodes)
        if first_line:
            break
        _end(process)
    else:
        raise RuntimeError(f"Ray did not start:\n{log.read_text()}")
    try:
        ports = [int(node.env["RAY_SERVE_WORKER_PROXY_HTTP_PORT"]) for node in nodes]
        yield Cluster(process, env=env, folder=folder, ports=ports, **json.loads(first_line))
    finally:
        # nobody needs what it holds, and a decent end takes half a minute
        _end(process)


def _start_process(
    log: Path, env: Mapping[str, str], nodes: Sequence[Node]
) -> tuple[subprocess.Popen[str], str]:
    """The process that holds a cluster, and the line that it begins with, empty if it failed."""
    command = [sys.executable, "-m", "benchmarks.ray.cluster"]
    command.append(json.dumps([asdict(node) for node in nodes]))
    with log.open("ab") as out:
        process = subprocess.Popen(
            command, env=env, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=out,
            text=True, start_new_session=True,
        )  # fmt: skip
    assert process.stdout is not None
    return process, process.stdout.readline()


def _end(process: subprocess.Popen[str]) -> None:
    """End all processes of a cluster."""
    kill(tree(process.pid))
    process.wait()
    for stream in (process.stdin, process.stdout):
        if stream is not None:
            stream.close()


def wait_for(client: httpx.Client, path: str = "/readyz") -> None:
    """Until it answers."""

    def answers() -> bool:
        with contextlib.suppress(httpx.TransportError):
            return client.get(path).is_success
        return False

    wait_until(answers, DEPLOY_SECONDS)


def _read_proc(pid: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/{name}").read_bytes()
    except OSError:  # it has ended
        return b""


def kill(pids: Sequence[int]) -> None:
    """End processes at once; return when they are gone, and their connections with them."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    wait_until(lambda: all(ended(pid) for pid in pids), 60)


def _address(number: int) -> str:
    """An address of this machine alone; 127.0.0.1 Ray would exchange for one that others reach."""
    return f"127.0.0.{2 + number}"


def main() -> None:
    """Hold a cluster until the input ends."""
    import ray
    from ray import cluster_utils, serve

    nodes = [Node(**node) for node in json.loads(sys.argv[1])]
    cluster = cluster_utils.Cluster(shutdown_at_exit=False)
    try:
        cluster_nodes = [
            cluster.add_node(
                num_cpus=node.cpus,
                object_store_memory=OBJECT_STORE_BYTES,
                node_ip_address=_address(number),
                env_vars=dict(node.env),
                include_dashboard=False,
            )
            for number, node in enumerate(nodes)
        ]
    except Exception:
        kill(tree(os.getpid())[1:])  # they would not end with this one
        raise
    ray.init(address=cluster.address, log_to_driver=False, _node_ip_address=_address(0))
    raylets = [node.all_processes["raylet"][0].process.pid for node in cluster_nodes]
    out, sys.stdout = sys.stdout, sys.stderr  # Ray tells there when a node dies
    print(json.dumps({"address": cluster.address, "raylets": raylets}), file=out, flush=True)
    for line in sys.stdin:
        application = serve.status().applications.get(line.strip())
        deployments = application.deployments.items() if application else ()
        answer = {
            "status": str(application.status.value) if application else "NONE",
            "message": application.message if application else "",
            "deployments": {
                name: {"message": state.message, **state.replica_states}
                for name, state in deployments
            },
        }
        print(json.dumps(answer), file=out, flush=True)
    # whoever held it was killed
    kill(tree(os.getpid())[1:])


if __name__ == "__main__":
    main()
