from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any, Final

import kubernetes_validate
import pytest
import yaml

from infra.local.paths import REPOSITORY
from stream.settings import Settings

HOME: Final = REPOSITORY / "infra" / "kubernetes"
VERSION: Final = "1.32"
COMPOSE: Final = yaml.safe_load((REPOSITORY / "docker-compose.yml").read_text())["services"]


def manifests() -> dict[str, Any]:
    """Every manifest, by file, kind and name."""
    found = {}
    for path in HOME.glob("*.yaml"):
        if path.name != "kustomization.yaml":
            for one in yaml.safe_load_all(path.read_text()):
                found[f"{path.name} {one['kind']} {one['metadata']['name']}"] = one
    return found


KUSTOMIZATION: Final = yaml.safe_load((HOME / "kustomization.yaml").read_text())
MANIFESTS: Final = manifests()


def pods() -> Iterator[Any]:
    """The pod template of each that has one."""
    for one in MANIFESTS.values():
        spec = one.get("spec", {})
        spec = spec["jobTemplate"]["spec"] if one["kind"] == "CronJob" else spec
        if "template" in spec:
            yield spec["template"]


def containers() -> Iterator[Any]:
    for pod in pods():
        yield from pod["spec"].get("initContainers", ())
        yield from pod["spec"]["containers"]


def named(kind: str, name: str) -> Any:
    (one,) = (v for k, v in MANIFESTS.items() if k.endswith(f"{kind} {name}"))
    return one


def settings_given() -> dict[str, str]:
    """What the config map says."""
    (generator,) = KUSTOMIZATION["configMapGenerator"]
    return dict(literal.split("=", 1) for literal in generator["literals"])


@pytest.mark.parametrize("name", MANIFESTS)
def test_every_manifest_is_one_that_kubernetes_knows(name: str) -> None:
    kubernetes_validate.validate(MANIFESTS[name], VERSION, strict=True)


def test_a_field_that_kubernetes_does_not_know_is_noticed() -> None:
    text = yaml.safe_dump(named("StatefulSet", "worker"))
    broken = yaml.safe_load(text.replace("livenessProbe", "livenesProbe"))
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, VERSION, strict=True)


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl")
def test_kustomize_renders_them_all() -> None:
    done = subprocess.run(["kubectl", "kustomize", HOME], capture_output=True, check=True)
    rendered = list(yaml.safe_load_all(done.stdout))
    assert len(rendered) == len(MANIFESTS) + len(KUSTOMIZATION["configMapGenerator"])
    for one in rendered:
        kubernetes_validate.validate(one, VERSION, strict=True)


def test_every_file_is_part_of_the_whole() -> None:
    files = {path.name for path in HOME.glob("*.yaml")} - {"kustomization.yaml"}
    assert set(KUSTOMIZATION["resources"]) == files


def test_pods_are_given_settings_that_exist() -> None:
    variables = {*settings_given()}
    variables |= {one["name"] for container in containers() for one in container.get("env", ())}
    assert {name.removeprefix("INTENT_").lower() for name in variables} <= (
        Settings.model_fields.keys()
    )


def test_workers_know_every_triton_by_its_own_name() -> None:
    triton = named("StatefulSet", "triton")
    (port,) = (
        port["port"]
        for port in named("Service", "triton")["spec"]["ports"]
        if port["name"] == "grpc"
    )
    urls = Settings(triton_url=settings_given()["INTENT_TRITON_URL"]).triton_urls
    service = triton["spec"]["serviceName"]
    assert list(urls) == [
        f"triton-{number}.{service}:{port}" for number in range(triton["spec"]["replicas"])
    ]


def test_triton_is_started_as_by_compose() -> None:
    (container,) = named("StatefulSet", "triton")["spec"]["template"]["spec"]["containers"]
    arguments = [re.sub("=/shared/", "=/", argument) for argument in container["args"]]
    assert arguments == COMPOSE["triton"]["command"]


def test_images_are_those_that_our_dockerfiles_make() -> None:
    images = {container["image"] for container in containers()}
    built = {service["image"] for service in COMPOSE.values() if "build" in service}
    assert images == built | {"intentstream-publisher"}
    tags = {image["name"]: image["newTag"] for image in KUSTOMIZATION["images"]}
    assert tags.keys() == images
    publisher = (REPOSITORY / "infra" / "docker" / "publisher.Dockerfile").read_text()
    assert f"FROM intentstream-worker:{tags['intentstream-worker']}\n" in publisher


def test_whoever_runs_for_long_is_probed_at_ports_that_it_has() -> None:
    for name in ("triton", "worker", "sink"):
        (container,) = named("StatefulSet", name)["spec"]["template"]["spec"]["containers"]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert {"livenessProbe", "readinessProbe"} <= container.keys()
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            asked = container.get(probe, {}).get("httpGet")
            assert asked is None or asked["port"] in ports
        published = {port["port"] for port in named("Service", name)["spec"]["ports"]}
        assert published <= set(ports.values())


def test_pods_are_unprivileged_and_bounded() -> None:
    for pod in pods():
        assert pod["spec"]["automountServiceAccountToken"] is False
        assert pod["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in containers():
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["resources"].keys() == {"requests", "limits"}


def test_our_own_images_run_as_the_user_that_owns_their_files() -> None:
    worker = (REPOSITORY / "infra" / "docker" / "worker.Dockerfile").read_text()
    made = re.search(r"useradd --system --uid (\d+)", worker)
    assert made is not None
    users = {
        pod["spec"]["securityContext"]["runAsUser"]
        for pod in pods()
        if all(one["image"] != "intentstream-triton" for one in pod["spec"]["containers"])
    }
    assert users == {int(made[1])}


def test_volumes_that_are_mounted_exist() -> None:
    for pod in pods():
        volumes = {volume["name"] for volume in pod["spec"].get("volumes", ())}
        for part in ("initContainers", "containers"):
            for container in pod["spec"].get(part, ()):
                assert {mount["name"] for mount in container.get("volumeMounts", ())} <= volumes
    claims = {
        volume["persistentVolumeClaim"]["claimName"]
        for pod in pods()
        for volume in pod["spec"].get("volumes", ())
        if "persistentVolumeClaim" in volume
    }
    assert {f"storage.yaml PersistentVolumeClaim {claim}" for claim in claims} <= MANIFESTS.keys()
