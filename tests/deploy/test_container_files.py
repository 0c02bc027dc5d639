"""Dockerfile, compose file and alerts fit the code, the packages and each other."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
DEPLOY = ROOT / "deploy"
PACKAGES = [
    line.strip()
    for line in (DEPLOY / "runtime-packages.txt").read_text().splitlines()
    if line.strip() and not line.startswith("#")
]


def needs(program: str) -> str:
    """Path of a program; the test is skipped where it is not installed."""
    path = shutil.which(program) or shutil.which(program, path=str(Path(sys.executable).parent))
    if path is None:
        pytest.skip(f"{program} is not installed")
    return path


def check(*command: object) -> None:
    done = subprocess.run([*map(str, command)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_dockerfile_is_well_formed():
    check(needs("hadolint"), ROOT / "Dockerfile")


def test_alerts_fire_when_they_should(tmp_path):
    promtool = needs("promtool")
    check(promtool, "check", "rules", DEPLOY / "alerts.yml")
    check(promtool, "check", "config", "--syntax-only", DEPLOY / "prometheus.yml")
    shutil.copy(DEPLOY / "alerts.yml", tmp_path)
    shutil.copy(HERE / "alert_cases.yml", tmp_path)
    check(promtool, "test", "rules", tmp_path / "alert_cases.yml")


def test_alerts_name_metrics_of_the_service():
    if importlib.util.find_spec("faprompt.serving") is None:
        pytest.skip("faprompt.serving is not there")
    pytest.importorskip("prometheus_client")
    from faprompt.serving.service_metrics import ServiceMetrics

    made = {
        family.name: {*family.samples[0].labels} if family.samples else None
        for family in ServiceMetrics().registry.collect()
    }
    text = (DEPLOY / "alerts.yml").read_text()
    used = set(re.findall(r"\bfaprompt_\w+", text))
    assert len(used) >= 4
    for name in used:
        assert re.sub(r"_(total|bucket|count|sum)$", "", name) in made, name


def test_packages_of_the_runtime_image_are_those_of_the_project():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    known = {*project["dependencies"], *extras["onnx"], *extras.get("serve", ())}
    serving = {"fastapi", "uvicorn", "prometheus-client", "python-multipart"}
    for wanted in PACKAGES:
        name = re.split(r"[><=]", wanted)[0]
        if name not in serving or "serve" in extras:
            assert wanted in known, wanted
    assert not {"torch", "scipy", "torchvision"} & {re.split(r"[><=]", p)[0] for p in PACKAGES}


def test_what_is_copied_reaches_the_build():
    dockerfile = (ROOT / "Dockerfile").read_text()
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for sources in re.findall(r"^COPY (?!--from)(.*) \S+$", dockerfile, re.MULTILINE):
        for source in sources.split():
            assert (ROOT / source).exists() and f"!{source}" in ignored, source


def test_what_the_wheel_is_made_of_is_copied():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wheel = project["tool"]["hatch"]["build"]["targets"]["wheel"]
    named = project["project"]
    wanted = [*wheel["force-include"], *wheel["packages"], named["readme"], *named["license-files"]]
    copied = " ".join(
        re.findall(r"^COPY (?!--from)(.*) \S+$", (ROOT / "Dockerfile").read_text(), re.MULTILINE)
    ).split()
    lost = [
        path for path in wanted if not any((ROOT / path).is_relative_to(ROOT / c) for c in copied)
    ]
    assert lost == []


def test_services_are_locked_down():
    services = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    for name, service in services.items():
        assert service["read_only"] is True and service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
    assert services["faprompt"]["user"] == services["watch"]["user"] == "10001:10001"
    assert "\nUSER 10001:10001\n" in (ROOT / "Dockerfile").read_text()
    alerts = [v for v in services["prometheus"]["volumes"] if v.startswith("./deploy/")]
    assert all((ROOT / volume.split(":")[0]).is_file() for volume in alerts) and len(alerts) == 2
