from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Final

import kubernetes_validate
import pytest
import yaml

from stream.settings import Settings
from tests.checkout import REPOSITORY

HOME: Final = REPOSITORY / "infra" / "kubernetes"
DOCS: Final = REPOSITORY / "docs" / "kubernetes.md"
VERSION: Final = "1.32"
STORAGE: Final = "storage"
"""The init container that gives claims to the user of our images."""

needs_kubectl = pytest.mark.skipif(shutil.which("kubectl") is None, reason="needs kubectl")
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


def pods(among: Iterable[Any] = MANIFESTS.values()) -> Iterator[Any]:
    """The pod template of each that has one."""
    for one in among:
        spec = one.get("spec", {})
        spec = spec["jobTemplate"]["spec"] if one["kind"] == "CronJob" else spec
        if "template" in spec:
            yield spec["template"]


def containers(among: Iterable[Any] = MANIFESTS.values()) -> Iterator[Any]:
    for pod in pods(among):
        yield from pod["spec"].get("initContainers", ())
        yield from pod["spec"]["containers"]


def claims_of(pod: Any) -> dict[str, str]:
    """The claim behind each volume that has one."""
    return {
        volume["name"]: volume["persistentVolumeClaim"]["claimName"]
        for volume in pod["spec"].get("volumes", ())
        if "persistentVolumeClaim" in volume
    }


def named(kind: str, name: str) -> Any:
    (one,) = (v for k, v in MANIFESTS.items() if k.endswith(f"{kind} {name}"))
    return one


def settings_given() -> dict[str, str]:
    """What the config map says."""
    (generator,) = KUSTOMIZATION["configMapGenerator"]
    return dict(literal.split("=", 1) for literal in generator["literals"])


def our_user() -> int:
    """Whom our own images run as."""
    worker = (REPOSITORY / "infra" / "docker" / "worker.Dockerfile").read_text()
    made = re.search(r"useradd --system --uid (\d+)", worker)
    assert made is not None
    return int(made[1])


def kustomized(folder: Path) -> list[Any]:
    """What kustomize makes of a folder; each a manifest that Kubernetes knows."""
    done = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, check=True)
    rendered = list(yaml.safe_load_all(done.stdout))
    for one in rendered:
        kubernetes_validate.validate(one, VERSION, strict=True)
    return rendered


def documented() -> list[Any]:
    """The overlay that the docs show, and what they add to it for a catalogue."""
    return list(map(yaml.safe_load, re.findall(r"```yaml\n(.+?)```", DOCS.read_text(), re.DOTALL)))


def overlaid(overlay: dict[str, Any], folder: Path) -> list[Any]:
    """What kustomize makes of an overlay, written to a folder, over this checkout's manifests."""
    here = overlay | {"resources": [os.path.relpath(HOME, folder)]}
    (folder / "kustomization.yaml").write_text(yaml.safe_dump(here))
    return kustomized(folder)


@pytest.mark.parametrize("name", MANIFESTS)
def test_every_manifest_is_one_that_kubernetes_knows(name: str) -> None:
    kubernetes_validate.validate(MANIFESTS[name], VERSION, strict=True)


def test_a_field_that_kubernetes_does_not_know_is_noticed() -> None:
    text = yaml.safe_dump(named("StatefulSet", "worker"))
    broken = yaml.safe_load(text.replace("livenessProbe", "livenesProbe"))
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, VERSION, strict=True)


@needs_kubectl
def test_kustomize_renders_them_all() -> None:
    generated = len(KUSTOMIZATION["configMapGenerator"])
    assert len(kustomized(HOME)) == len(MANIFESTS) + generated


@needs_kubectl
def test_the_overlay_of_the_docs_says_of_every_image_where_it_is(tmp_path: Path) -> None:
    overlay, _ = documented()
    rendered = overlaid(overlay, tmp_path)
    found = {container["image"] for container in containers(rendered)}
    assert found == {f"{image['newName']}:{image['newTag']}" for image in overlay["images"]}


@needs_kubectl
def test_the_catalogue_of_the_docs_is_where_the_worker_looks_for_it(tmp_path: Path) -> None:
    overlay, catalogue = documented()
    maps = overlay["configMapGenerator"] + catalogue["configMapGenerator"]
    (tmp_path / "catalogue.parquet").write_bytes(b"\xff")
    rendered = overlaid(overlay | catalogue | {"configMapGenerator": maps}, tmp_path)
    (pod,) = (one for one in pods(rendered) if one["spec"]["containers"][0]["name"] == "worker")
    (container,) = pod["spec"]["containers"]
    (path,) = (one["value"] for one in container["env"] if one["name"] == "INTENT_CATALOGUE")
    folder, _, file = path.rpartition("/")
    (mount,) = (one for one in container["volumeMounts"] if one["mountPath"] == folder)
    (volume,) = (one for one in pod["spec"]["volumes"] if one["name"] == mount["name"])
    (held,) = (one for one in rendered if one["metadata"]["name"] == volume["configMap"]["name"])
    assert file in held["binaryData"]


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
    # A cluster has a Prometheus and a Grafana of its own.
    monitoring = {"intentstream-prometheus", "intentstream-grafana"}
    assert images == built - monitoring | {"intentstream-publisher"}
    tags = {image["name"]: image["newTag"] for image in KUSTOMIZATION["images"]}
    assert tags.keys() == images
    publisher = (REPOSITORY / "infra" / "docker" / "publisher.Dockerfile").read_text()
    assert f"FROM intentstream-worker:{tags['intentstream-worker']}\n" in publisher


def test_whoever_runs_for_long_is_probed_at_ports_that_it_has() -> None:
    for name in ("triton", "worker", "sink", "bridge"):
        kind = "Deployment" if name == "bridge" else "StatefulSet"
        (container,) = named(kind, name)["spec"]["template"]["spec"]["containers"]
        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        assert {"livenessProbe", "readinessProbe"} <= container.keys()
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            asked = container.get(probe, {}).get("httpGet")
            assert asked is None or asked["port"] in ports
        published = {port["port"] for port in named("Service", name)["spec"]["ports"]}
        assert published <= set(ports.values())


def test_no_bridge_runs_before_an_overlay_names_its_topic() -> None:
    assert named("Deployment", "bridge")["spec"]["replicas"] == 0
    assert "INTENT_BRIDGE_TOPIC" not in settings_given()


def test_pods_are_unprivileged_and_bounded() -> None:
    for pod in pods():
        assert pod["spec"]["automountServiceAccountToken"] is False
        assert pod["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    for container in containers():
        assert container["resources"].keys() == {"requests", "limits"}
        if container["name"] != STORAGE:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "capabilities": {"drop": ["ALL"]},
            }


def test_what_prepares_storage_is_root_for_that_alone() -> None:
    for pod in pods():
        for container in pod["spec"].get("initContainers", ()):
            if container["name"] == STORAGE:
                security = container["securityContext"]
                assert security["runAsUser"] == 0
                assert security["allowPrivilegeEscalation"] is False
                assert security["capabilities"] == {"drop": ["ALL"], "add": ["CHOWN", "FOWNER"]}
                assert container["command"][0] == "install"
                assert {mount["name"] for mount in container["volumeMounts"]} <= {*claims_of(pod)}


def test_every_claim_is_given_to_our_user_before_it_is_used() -> None:
    for pod in pods():
        claims = claims_of(pod)
        for container in pod["spec"]["containers"] if claims else ():
            first = pod["spec"]["initContainers"][0]
            command = " ".join(first["command"])
            assert first["name"] == STORAGE
            assert f"-o {our_user()} -g {our_user()} -m 2775" in command
            for mount in container["volumeMounts"]:
                if mount["name"] in claims:
                    prepared = {key: mount[key] for key in ("name", "mountPath")}
                    assert prepared in first["volumeMounts"]
                    assert mount["mountPath"] in first["command"]
            assert ("models" in claims.values()) == ("/shared/models" in first["command"])


def test_workers_read_the_live_version_s_titles_where_versions_are_published() -> None:
    places = {
        one["value"]
        for kind, name in (("StatefulSet", "worker"), ("CronJob", "publish-model"))
        for container in containers([named(kind, name)])
        for one in container.get("env", ())
        if one["name"] == "INTENT_TRITON_MODELS"
    }
    assert places == {"/shared/models"}
    assert "models" in claims_of(named("StatefulSet", "worker")["spec"]["template"]).values()


def test_our_own_images_run_as_the_user_that_owns_their_files() -> None:
    users = {
        pod["spec"]["securityContext"]["runAsUser"]
        for pod in pods()
        if all(one["image"] != "intentstream-triton" for one in pod["spec"]["containers"])
    }
    assert users == {our_user()}


def test_volumes_that_are_mounted_exist() -> None:
    for pod in pods():
        volumes = {volume["name"] for volume in pod["spec"].get("volumes", ())}
        for part in ("initContainers", "containers"):
            for container in pod["spec"].get(part, ()):
                assert {mount["name"] for mount in container.get("volumeMounts", ())} <= volumes
    claims = {claim for pod in pods() for claim in claims_of(pod).values()}
    assert {f"storage.yaml PersistentVolumeClaim {claim}" for claim in claims} <= MANIFESTS.keys()
