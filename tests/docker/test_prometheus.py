"""A real Prometheus with our files: it takes them, reads a live server, and answers every panel."""

import contextlib
import json
import math
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from app.api.middleware import ROUTES
from app.server.main import create_app
from app.server.settings import Settings
from benchmarks.metrics_page import PAGE as METRICS_PAGE
from benchmarks.servers import free_port, wait_until
from models.encoder import Encoder
from tests.conftest import Serve

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docker" / "prometheus"
GRAFANA = ROOT / "docker" / "grafana"
CONFIG = yaml.safe_load((FOLDER / "prometheus.yml").read_text(encoding="utf-8"))
RULES = yaml.safe_load((FOLDER / "alerts.yml").read_text(encoding="utf-8"))["groups"][0]["rules"]
DASHBOARD = json.loads((GRAFANA / "dashboards" / "openvocab.json").read_text(encoding="utf-8"))
PANELS = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
TARGETS = [
    pytest.param(target["expr"], id=f"{panel['title']}-{target['refId']}")
    for panel in PANELS
    for target in panel["targets"]
]
TESTS = Path(__file__).with_name("alerts_test.yml")

CLASSIFIED = 'openvocab_requests_total{route="/classify",status="200"}'

# what a machine without a GPU has not
ABSENT = "openvocab_device_memory"


def promtool(*arguments: str) -> None:
    process = subprocess.run(
        ["promtool", *arguments], capture_output=True, text=True, timeout=240, check=False
    )
    assert process.returncode == 0, process.stdout + process.stderr


def test_promtool_takes_the_configuration_and_the_rules() -> None:
    promtool("check", "config", str(FOLDER / "prometheus.yml"))
    promtool("check", "rules", "--lint-fatal", str(FOLDER / "alerts.yml"))


def test_each_alert_fires_when_it_should_and_not_when_it_should_not() -> None:
    promtool("test", "rules", str(TESTS))
    text = TESTS.read_text(encoding="utf-8")
    for rule in RULES:
        assert f'alertname="{rule["alert"]}"' in text


def test_each_alert_says_what_it_means_and_where_to_read_on() -> None:
    for rule in RULES:
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        notes = rule["annotations"]
        assert set(notes) == {"summary", "description", "runbook_url"}
        assert notes["runbook_url"] == f"docs/operations.md#{rule['alert'].lower()}"


def test_each_alert_has_its_paragraph_in_the_guide() -> None:
    guide = (ROOT / "docs" / "operations.md").read_text(encoding="utf-8")
    for rule in RULES:
        assert re.search(rf"^#+ {rule['alert']}$", guide, re.MULTILINE), rule["alert"]


def test_every_metric_that_is_asked_for_exists() -> None:
    names = set(re.findall(r"^\| `(\w+)", METRICS_PAGE.read_text(encoding="utf-8"), re.MULTILINE))
    names |= {f"{name}{end}" for name in names for end in ("_bucket", "_sum", "_count")}
    expressions = [rule["expr"] for rule in RULES] + [target.values[0] for target in TARGETS]
    expressions += [target["query"]["query"] for target in DASHBOARD["templating"]["list"]]
    for expr in expressions:
        bare = re.sub(r'"[^"]*"', "", expr)
        assert set(re.findall(r"\b(?:openvocab|process)_\w+", bare)) <= names, expr


def test_whatever_takes_images_or_texts_counts_for_how_slow_it_is() -> None:
    expressions = [rule["expr"] for rule in RULES] + [target.values[0] for target in TARGETS]
    patterns = {found for expr in expressions for found in re.findall(r'route=~"([^"]+)"', expr)}
    (pattern,) = patterns
    for name, rule in ROUTES.items():
        path = name.partition(" ")[2]
        assert bool(re.fullmatch(pattern, path)) == (rule.queued and not rule.streams), name


def test_the_jobs_that_rules_ask_for_are_the_one_of_the_configuration() -> None:
    jobs = {job for rule in RULES for job in re.findall(r'job="(\w+)"', rule["expr"])}
    guide = (ROOT / "docker" / "kubernetes" / "README.md").read_text(encoding="utf-8")
    assert jobs == {CONFIG["scrape_configs"][0]["job_name"]}
    for job in jobs:
        assert f"target_label: job\n     replacement: {job}\n" in guide


def test_all_servers_are_those_that_the_dashboard_lists() -> None:
    (variable,) = DASHBOARD["templating"]["list"]
    assert variable["includeAll"]
    assert "allValue" not in variable, "it would match servers of other services"


def test_grafana_finds_the_dashboard_and_the_source_of_its_data() -> None:
    provisioning = GRAFANA / "provisioning"
    (source,) = yaml.safe_load((provisioning / "datasources" / "prometheus.yml").read_text())[
        "datasources"
    ]
    assert source["jsonData"]["timeInterval"] == CONFIG["global"]["scrape_interval"]
    for panel in PANELS:
        assert panel["datasource"] == {"type": "prometheus", "uid": source["uid"]}
        assert panel["targets"]
    (provider,) = yaml.safe_load((provisioning / "dashboards" / "openvocab.yml").read_text())[
        "providers"
    ]
    assert provider["options"]["path"] == "/var/lib/grafana/dashboards"
    numbers = [panel["id"] for panel in DASHBOARD["panels"]]
    assert len(set(numbers)) == len(numbers)
    places = [tuple(panel["gridPos"].values()) for panel in DASHBOARD["panels"]]
    assert places == sorted(places, key=lambda at: (at[1], at[0]))
    assert all(x + w <= 24 for x, _, w, _ in places)


def test_the_target_listens_where_the_container_does() -> None:
    (job,) = CONFIG["scrape_configs"]
    assert job["job_name"] == "openvocab"
    assert job["static_configs"] == [{"targets": ["openvocab:8000"]}]
    assert "metrics_path" not in job
    assert "/metrics" in create_app(Settings(model="pictogram")).openapi()["paths"]


class Prometheus:
    """A server that has read a busy service for some seconds."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client
        # what queries mean by now: however late they come, they are about those seconds
        self.now: float | None = None

    def query(self, expr: str) -> list[dict[str, Any]]:
        params = {"query": expr} if self.now is None else {"query": expr, "time": self.now}
        answer = self._client.get("/api/v1/query", params=params).json()
        assert answer["status"] == "success", answer
        assert not answer.get("warnings")
        samples: list[dict[str, Any]] = answer["data"]["result"]
        return samples

    def get(self, path: str) -> Any:
        with contextlib.suppress(httpx.TransportError):
            return self._client.get(path)
        return None


@pytest.fixture(scope="module")
def prometheus(
    pictogram: Encoder, serve: Serve, samples: dict[str, Path], tmp_path_factory: Any
) -> Iterator[Prometheus]:
    folder: Path = tmp_path_factory.mktemp("prometheus")
    shutil.copy(FOLDER / "alerts.yml", folder)
    with serve(pictogram, image_cache_bytes=1_000_000, max_image_bytes=200_000) as client:
        config = dict(
            CONFIG, **{"global": {"scrape_interval": "500ms", "evaluation_interval": "1s"}}
        )
        job = dict(CONFIG["scrape_configs"][0])
        job["static_configs"] = [{"targets": [f"127.0.0.1:{client.base_url.port}"]}]
        file = folder / "prometheus.yml"
        file.write_text(yaml.safe_dump({**config, "scrape_configs": [job]}))
        port = free_port()
        command = ["prometheus", f"--config.file={file}", f"--storage.tsdb.path={folder / 'data'}",
                   f"--web.listen-address=127.0.0.1:{port}", "--log.level=error"]  # fmt: skip
        with (
            httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as asking,
            subprocess.Popen(command, cwd=folder) as process,
        ):
            server = Prometheus(asking)
            try:
                wait_until(lambda: (a := server.get("/-/ready")) is not None and a.is_success, 240)
                wait_until(lambda: bool(server.query('up{job="openvocab"} == 1')), 240)
                for number in range(5):
                    use(client, samples, number)
                    seen = f"{CLASSIFIED} == {4 * (number + 1)}"
                    wait_until(lambda query=seen: bool(server.query(query)), 240)  # type: ignore[misc]
                server.now = time.time()
                yield server
            finally:
                process.kill()


def use(client: httpx.Client, samples: dict[str, Path], number: int) -> None:
    """A bit of everything that a panel shows."""
    for name in ("cat", "key", "octopus", "cat"):
        image = {"image": samples[name].read_bytes()}
        labels = {"labels": f"a cat,thing {number}"}
        client.post("/classify", files=image, data=labels).raise_for_status()
    body = {"labels": [f"one {number}", f"two {number}"]}
    client.put("/labelsets/mine", json=body, params={"wait": True}).raise_for_status()
    assert client.post("/classify", files={"image": b"no"}).status_code == 415


@pytest.mark.parametrize("expr", TARGETS)
def test_a_panel_shows_something(expr: str, prometheus: Prometheus) -> None:
    expr = expr.replace("$__rate_interval", "5m").replace("$instance", ".*")
    assert "$" not in expr
    samples = prometheus.query(expr)
    if ABSENT in expr:
        assert samples == []
        return
    values = [float(series["value"][1]) for series in samples]
    assert not all(map(math.isnan, values)), samples


def test_the_rules_are_loaded_and_a_server_that_is_well_fires_none(prometheus: Prometheus) -> None:
    groups = prometheus.get("/api/v1/rules").json()["data"]["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert [rule["name"] for rule in rules] == [rule["alert"] for rule in RULES]
    assert {rule["health"] for rule in rules} <= {"ok", "unknown"}
    assert not any(rule.get("lastError") for rule in rules)
    assert prometheus.query('ALERTS{alertstate="firing"}') == []


def test_what_prometheus_has_is_what_the_server_said(prometheus: Prometheus) -> None:
    (sample,) = prometheus.query(CLASSIFIED)
    assert float(sample["value"][1]) == 20
    (p99,) = prometheus.query(
        "histogram_quantile(0.99, sum by (le) (openvocab_request_seconds_bucket))"
    )
    assert 0 < float(p99["value"][1]) < 60
