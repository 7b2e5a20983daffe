"""The Kubernetes manifests, as kubectl puts them together and as its own schemas see them."""

import functools
import re
import shutil
import subprocess
import sysconfig
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from app.server.settings import Settings
from app.server.workers import GRACE

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "docker" / "kubernetes"
KUBECTL = Path(sysconfig.get_path("scripts")) / "kubectl"
OVERLAYS = ("cpu", "gpu")
# the oldest release that somebody still supports, and the newest that the schemas know
RELEASES = ("1.33", "1.37")


@functools.cache
def built(overlay: str) -> list[dict[str, Any]]:
    """What `kubectl apply -k` would send; no cluster is asked."""
    return built_in(FOLDER / overlay)


def built_in(folder: Path) -> list[dict[str, Any]]:
    command = [str(KUBECTL), "kustomize", str(folder)]
    completed = subprocess.run(command, capture_output=True, text=True, check=True)
    return list(yaml.safe_load_all(completed.stdout))


def resource(overlay: str, kind: str, name: str = "openvocab") -> dict[str, Any]:
    (match,) = [
        manifest
        for manifest in built(overlay)
        if manifest["kind"] == kind
        and re.fullmatch(rf"{name}(-\w+)?", manifest["metadata"]["name"])
    ]
    return match


def pods(overlay: str) -> dict[str, dict[str, Any]]:
    """By name: what a pod of each workload is."""
    return {
        manifest["metadata"]["name"]: manifest["spec"]["template"]["spec"]
        for manifest in built(overlay)
        if manifest["kind"] in ("Deployment", "StatefulSet")
    }


def settings(overlay: str) -> Settings:
    """As a pod reads them."""
    data = resource(overlay, "ConfigMap")["data"]
    return Settings(**{k.removeprefix("OPENVOCAB_").lower(): v for k, v in data.items()})


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_manifest_is_one_that_kubernetes_takes(overlay: str) -> None:
    for release in RELEASES:
        for manifest in built(overlay):
            kubernetes_validate.validate(manifest, release, strict=True)


def test_a_manifest_that_kubernetes_does_not_take_is_found() -> None:
    broken = {**resource("cpu", "Service"), "spec": {"port": 80}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, RELEASES[-1], strict=True)


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_no_pod_can_do_harm(overlay: str) -> None:
    assert (
        resource(overlay, "Namespace")["metadata"]["labels"]["pod-security.kubernetes.io/enforce"]
        == "restricted"
    )
    for pod in pods(overlay).values():
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "memory" in container["resources"]["limits"]
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    context = pods(overlay)["openvocab"]["securityContext"]
    assert f"USER {context['runAsUser']}:{context['runAsGroup']}\n" in text


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_a_pod_that_ends_has_time_for_what_it_accepted(overlay: str) -> None:
    variables = settings(overlay)
    pod = pods(overlay)["openvocab"]
    needed = variables.drain_seconds + variables.request_timeout + GRACE
    assert pod["terminationGracePeriodSeconds"] >= needed
    # and nobody sends to it any more by then
    probe = pod["containers"][0]["readinessProbe"]
    assert probe["periodSeconds"] * probe["failureThreshold"] <= variables.drain_seconds


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_probes_ask_what_the_service_answers(overlay: str) -> None:
    container = pods(overlay)["openvocab"]["containers"][0]
    paths = {kind: container[kind]["httpGet"]["path"] for kind in container if "Probe" in kind}
    assert paths == {
        "startupProbe": "/readyz", "readinessProbe": "/readyz", "livenessProbe": "/healthz",
    }  # fmt: skip
    (port,) = container["ports"]
    assert port == {"name": "http", "containerPort": 8000}
    assert resource(overlay, "Service")["spec"]["ports"][0]["targetPort"] == "http"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_largest_archive_fits_where_it_is_written_to(overlay: str) -> None:
    pod = pods(overlay)["openvocab"]
    (tmp,) = (volume["emptyDir"] for volume in pod["volumes"] if volume["name"] == "tmp")
    largest = resource(overlay, "ConfigMap")["data"]["OPENVOCAB_MAX_UPLOAD_BYTES"]
    assert int(largest) < int(tmp["sizeLimit"].removesuffix("Mi")) * 2**20


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_variable_of_ours_is_a_setting_and_no_secret_is_written_down(overlay: str) -> None:
    names = {f"OPENVOCAB_{name.upper()}" for name in Settings.model_fields}
    pod = pods(overlay)["openvocab"]
    # a Service of this name would put OPENVOCAB_SERVICE_HOST among them
    assert pod["enableServiceLinks"] is False
    variables = {entry["name"]: entry for entry in pod["containers"][0]["env"]}
    assert set(resource(overlay, "ConfigMap")["data"]) <= names
    assert {name for name in variables if name.startswith("OPENVOCAB_")} <= names
    for name in ("REDIS_PASSWORD", "OPENVOCAB_API_KEYS"):
        assert variables[name]["valueFrom"]["secretKeyRef"]["name"] == "openvocab"
    # a variable can only name those above it
    order = list(variables)
    assert order.index("REDIS_PASSWORD") < order.index("OPENVOCAB_STORE_URL")
    assert not any(manifest["kind"] == "Secret" for manifest in built(overlay))
    guide = (FOLDER / "README.md").read_text(encoding="utf-8")
    for key in ("redis-password", "api-keys"):
        assert f"--from-literal={key}=" in guide


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_number_of_pods_follows_the_queue_and_is_the_autoscalers_alone(overlay: str) -> None:
    deployment = resource(overlay, "Deployment")
    assert "replicas" not in deployment["spec"]
    scaler = resource(overlay, "HorizontalPodAutoscaler")["spec"]
    assert scaler["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    (queue,) = [metric["pods"] for metric in scaler["metrics"] if metric["type"] == "Pods"]
    assert int(queue["target"]["averageValue"]) < Settings.model_fields["max_queue"].default
    name = queue["metric"]["name"]
    rules = yaml.safe_load((FOLDER / "prometheus-adapter.yaml").read_text(encoding="utf-8"))
    (rule,) = rules["rules"]["custom"]
    assert rule["name"]["as"] == name
    assert rule["seriesQuery"].startswith(f"{name}{{")
    budget = resource(overlay, "PodDisruptionBudget")["spec"]
    assert budget["maxUnavailable"] < scaler["minReplicas"]
    labels = deployment["spec"]["template"]["metadata"]["labels"].items()
    selectors = [
        budget["selector"]["matchLabels"],
        resource(overlay, "Service")["spec"]["selector"],
    ]
    for spread in pods(overlay)["openvocab"]["topologySpreadConstraints"]:
        selectors.append(spread["labelSelector"]["matchLabels"])
    assert all(selector.items() <= labels for selector in selectors)


def test_the_queue_that_is_followed_is_one_that_the_service_counts(client: Any) -> None:
    assert "\nopenvocab_queued_images{" in client.get("/metrics").text


def test_redis_has_the_settings_of_the_compose_file() -> None:
    (config,) = [m for m in built("cpu") if m["metadata"]["name"].startswith("redis-")]
    text = (ROOT / "docker" / "redis.conf").read_text(encoding="utf-8")
    assert config["data"]["redis.conf"] == text
    store = resource("cpu", "StatefulSet", "redis")["spec"]["template"]["spec"]
    limit = store["containers"][0]["resources"]["limits"]["memory"]
    assert limit == "1Gi"
    assert "maxmemory 512mb\n" in text


def test_the_gpu_overlay_asks_for_one_and_changes_nothing_that_protects() -> None:
    cpu, gpu = (pods(overlay)["openvocab"] for overlay in OVERLAYS)
    assert gpu["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert gpu["containers"][0]["image"] == "openvocab:gpu-b32"
    for pod in (cpu, gpu):
        del pod["containers"][0]["resources"], pod["containers"][0]["image"]
    assert gpu.pop("tolerations")
    assert gpu == cpu


def test_each_overlay_runs_the_image_that_stands_in_it(tmp_path: Path) -> None:
    folder = shutil.copytree(FOLDER, tmp_path / "kubernetes")
    for overlay in OVERLAYS:  # as the guide says: the address of one's own registry
        file = folder / overlay / "kustomization.yaml"
        text = file.read_text(encoding="utf-8")
        assert text.count("newName: openvocab\n") == 1
        own = text.replace("newName: openvocab\n", "newName: registry.example.org/openvocab\n")
        file.write_text(own, encoding="utf-8")
    for overlay, tag in (("cpu", "b32"), ("gpu", "gpu-b32")):
        (deployment,) = [m for m in built_in(folder / overlay) if m["kind"] == "Deployment"]
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        assert container["image"] == f"registry.example.org/openvocab:{tag}"
