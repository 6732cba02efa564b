"""The chart in `deploy/helm`: what it makes is valid for Kubernetes and for the server."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from fastsse.config import Config
from fastsse.units import parse_duration_s
from fastsse.version import __version__
from tests.cli.commandline import command, environment

CHART = Path(__file__).parents[2] / "deploy" / "helm"
DOCKERFILE = (CHART.parent / "Dockerfile").read_text()
REDIS = ("config.store=redis://redis:6379/0", "existingSecret=fastsse")
ALL = (
    *REDIS,
    "autoscaling.enabled=true",
    "serviceMonitor.enabled=true",
    "ingress.enabled=true",
    "ingress.tlsSecret=site",
    "sysctls[0].name=net.ipv4.tcp_keepalive_time",
    "topics[0].match=prices/*",
    "topics[0].history_events=10",
    "topics[0].private=true",
    "config.trusted_proxies={10.0.0.0/8,192.168.0.0/16}",
    "config.history_events=2000",
)
FILE = ("config.store=sqlite:/var/lib/fastsse/history.db", "persistence.enabled=true")
needs_helm = pytest.mark.skipif(shutil.which("helm") is None, reason="no helm here")


def helm(*values: str) -> "subprocess.CompletedProcess[str]":
    # A helm that was built from its module takes an old Kubernetes for the default.
    words = ["helm", "template", "x", CHART, "--kube-version", "1.31.0"]
    for value in values:
        # The value of a kernel setting is text.
        words += ["--set", value]
    words += ["--set-string", "sysctls[0].value=120"] if values == ALL else []
    return subprocess.run(words, capture_output=True, text=True, check=False)


def objects(*values: str) -> dict[tuple[str, str], Any]:
    """What the chart makes, by kind and name."""
    done = helm(*values)
    assert done.returncode == 0, done.stderr
    found = [one for one in yaml.safe_load_all(done.stdout) if one]
    by_name = {(one["kind"], one["metadata"]["name"]): one for one in found}
    assert len(by_name) == len(found)
    return by_name


def pod(made: dict[tuple[str, str], Any]) -> Any:
    return made["Deployment", "x-fastsse"]["spec"]["template"]["spec"]


@needs_helm
def test_helm_finds_nothing_wrong() -> None:
    done = subprocess.run(
        ["helm", "lint", "--strict", CHART], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@needs_helm
@pytest.mark.parametrize("values", [(), REDIS, ALL, FILE], ids=["none", "redis", "all", "file"])
def test_what_it_makes_is_valid_for_kubernetes(values: tuple[str, ...]) -> None:
    validator = pytest.importorskip("kubernetes_validate")
    for (kind, _), one in objects(*values).items():
        # Not a part of Kubernetes: the Prometheus operator's.
        if kind != "ServiceMonitor":
            for version in ("1.29", "1.34"):
                validator.validate(one, version, strict=True)


@needs_helm
@pytest.mark.parametrize("values", [(), ALL, FILE], ids=["none", "all", "file"])
def test_the_server_takes_its_configuration(values: tuple[str, ...], tmp_path: Path) -> None:
    made = objects(*values)
    path = tmp_path / "fastsse.toml"
    path.write_text(made["ConfigMap", "x-fastsse"]["data"]["fastsse.toml"])
    image = dict(re.findall(r"(FASTSSE_\w+)=(\S+)", DOCKERFILE.partition("\nENV ")[2]))
    image |= {one["name"]: one["value"] for one in pod(made)["containers"][0]["env"]}
    done = subprocess.run(
        command(["config", "check", "--config", str(path)]),
        env=environment(FASTSSE_JWT_KEY="k" * 32, **image),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "The configuration is valid.\n"), done.stderr


@needs_helm
def test_a_pod_may_do_nothing_more_than_serve() -> None:
    spec = pod(objects(*ALL))
    (container,) = spec["containers"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert spec["securityContext"]["runAsNonRoot"]
    assert f"USER {spec['securityContext']['runAsUser']}:" in DOCKERFILE
    assert spec["automountServiceAccountToken"] is False
    assert spec["securityContext"]["sysctls"] == [
        {"name": "net.ipv4.tcp_keepalive_time", "value": "120"}
    ]


@needs_helm
@pytest.mark.parametrize(("drain", "seconds"), [("10s", 10), ("2m", 120), ("1500ms", 2), ("7", 7)])
def test_a_pod_has_the_time_that_its_drain_takes(drain: str, seconds: int) -> None:
    spec = pod(objects(f"config.drain={drain}", "preStopSeconds=4"))
    assert spec["terminationGracePeriodSeconds"] == 4 + seconds + 15
    assert spec["containers"][0]["lifecycle"]["preStop"]["exec"]["command"] == ["sleep", "4"]


def test_the_default_drain_is_the_servers() -> None:
    values = yaml.safe_load((CHART / "values.yaml").read_text())
    assert parse_duration_s(values["config"]["drain"]) == Config().drain


@needs_helm
def test_more_than_one_pod_has_a_budget_and_is_spread() -> None:
    assert ("PodDisruptionBudget", "x-fastsse") not in objects()
    made = objects("replicas=3", *REDIS)
    selector = made["PodDisruptionBudget", "x-fastsse"]["spec"]["selector"]
    labels = made["Deployment", "x-fastsse"]["spec"]["template"]["metadata"]["labels"]
    assert selector["matchLabels"].items() <= labels.items()
    spread = pod(made)["topologySpreadConstraints"]
    assert [one["topologyKey"] for one in spread] == [
        "topology.kubernetes.io/zone",
        "kubernetes.io/hostname",
    ]


@needs_helm
def test_the_metric_that_it_scales_on_is_one_of_the_server() -> None:
    made = objects(*ALL)
    (metric,) = made["HorizontalPodAutoscaler", "x-fastsse"]["spec"]["metrics"]
    page = (CHART.parents[1] / "docs" / "reference" / "metrics.md").read_text()
    assert f"`{metric['pods']['metric']['name']}`" in page
    assert "replicas" not in made["Deployment", "x-fastsse"]["spec"]


@needs_helm
def test_only_the_admin_service_is_scraped() -> None:
    made = objects(*ALL)
    wanted = made["ServiceMonitor", "x-fastsse"]["spec"]["selector"]["matchLabels"]
    services = [one for (kind, _), one in made.items() if kind == "Service"]
    scraped = [one for one in services if wanted.items() <= one["metadata"]["labels"].items()]
    assert [one["metadata"]["name"] for one in scraped] == ["x-fastsse-admin"]


@needs_helm
@pytest.mark.parametrize(
    ("values", "said"),
    [
        (("replicas=2",), "more than one pod needs a Redis"),
        (("autoscaling.enabled=true",), "more than one pod needs a Redis"),
        ((*FILE, "replicas=2", "existingSecret=x"), "persistence is for one pod"),
        (FILE[:1], "set persistence.enabled"),
        (("config.port=80",), "config.port is set by the chart"),
        (("replica=2",), "replica"),
        (("preStopSeconds=-1",), "preStopSeconds"),
        (("adminPort=8080",), "adminPort"),
        (("sysctls[0].name=a",), "value"),
    ],
)
def test_values_that_cannot_work_are_refused(values: tuple[str, ...], said: str) -> None:
    done = helm(*values)
    assert done.returncode != 0
    assert said in done.stderr


def test_the_chart_is_of_this_version() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == chart["version"] == __version__
