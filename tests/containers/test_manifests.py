"""The samples agree with jobd's own defaults and with each other, and grant nothing that jobd does not need."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobd import durations
from jobd.settings import DECLARED, DEFAULTS

from .containerfile import Stage, read
from .engine import CHECKOUT, CONTAINERFILE

SAMPLES = CHECKOUT / "containers"
#: What jobd may take beyond its two periods.
TO_LEAVE_S = 1.0
#: What a busy node may add: the container's end has to be noticed, too.
ROOM_S = 3.0


@pytest.fixture(scope="module")
def stage() -> Stage:
    """The stage that becomes the image."""
    return read(CONTAINERFILE)[-1]


@pytest.fixture(scope="module")
def deployment() -> dict[str, Any]:
    """The specification of the Kubernetes deployment."""
    (document,) = yaml.safe_load_all((SAMPLES / "kubernetes.yaml").read_text())
    assert (document["apiVersion"], document["kind"]) == ("apps/v1", "Deployment")
    return dict(document["spec"])


@pytest.fixture(scope="module")
def pod(deployment: dict[str, Any]) -> dict[str, Any]:
    """The specification of the pod."""
    return dict(deployment["template"]["spec"])


@pytest.fixture(scope="module")
def container(pod: dict[str, Any]) -> dict[str, Any]:
    """The only container of the pod."""
    (container,) = pod["containers"]
    return dict(container)


@pytest.fixture(scope="module")
def service() -> dict[str, Any]:
    """The only service of the Compose file."""
    (service,) = yaml.safe_load((SAMPLES / "compose.yaml").read_text())["services"].values()
    return dict(service)


def bound_s(settings: dict[str, str]) -> float:
    """When jobd has ended at the latest with these settings, counted from the stop signal."""
    grace = settings.get("JOBD_GRACE_PERIOD")
    cancel = settings.get("JOBD_CANCEL_TIMEOUT")
    return (
        (DEFAULTS.grace_period if grace is None else durations.parse(grace))
        + (DEFAULTS.cancel_timeout if cancel is None else durations.parse(cancel))
        + TO_LEAVE_S
    )


def env(container: dict[str, Any]) -> dict[str, str]:
    """The environment of a container of Kubernetes."""
    return {entry["name"]: entry["value"] for entry in container["env"]}


def test_kubernetes_waits_longer_than_jobd_takes(pod: dict[str, Any], container: dict[str, Any]) -> None:
    """terminationGracePeriodSeconds covers the grace period, the cancel timeout and what comes with them."""
    assert pod["terminationGracePeriodSeconds"] >= bound_s(env(container)) + ROOM_S
    assert "lifecycle" not in container  # a preStop hook would take of the same time


def test_compose_waits_longer_than_jobd_takes(service: dict[str, Any]) -> None:
    """stop_grace_period does."""
    assert durations.parse(service["stop_grace_period"]) >= bound_s(service["environment"]) + ROOM_S


def test_the_defaults_fit_into_what_kubernetes_waits_by_default() -> None:
    """Whoever writes a manifest without a thought of any of this loses no run."""
    assert bound_s({}) + ROOM_S <= 30


def test_the_command_in_the_containerfile_gives_time_enough() -> None:
    """Its --stop-timeout is the one to copy."""
    (told,) = (word for word in CONTAINERFILE.read_text().splitlines() if "podman run" in word)
    assert float(told.partition("--stop-timeout ")[2].split()[0]) >= bound_s({}) + ROOM_S


def test_the_stop_signal_is_one_that_jobd_obeys(stage: Stage) -> None:
    """Neither the image nor the Compose file replaces it by another."""
    assert stage.one("STOPSIGNAL").text == "SIGTERM"


def test_no_shell_stands_between_the_engine_and_jobd(
    stage: Stage, container: dict[str, Any], service: dict[str, Any]
) -> None:
    """The exec form, and no manifest that replaces it."""
    assert stage.one("ENTRYPOINT").text.startswith("[")
    assert stage.one("CMD").text.startswith("[")
    assert not {"command", "args"} & container.keys()
    assert not {"command", "entrypoint"} & service.keys()


def test_the_user_is_a_number_that_is_not_root_and_the_same_everywhere(stage: Stage, pod: dict[str, Any]) -> None:
    """A name would not do for runAsNonRoot."""
    user, group = map(int, stage.one("USER").text.split(":"))
    assert 0 not in (user, group)
    context = pod["securityContext"]
    assert (context["runAsUser"], context["runAsGroup"], context["runAsNonRoot"]) == (user, group, True)


def test_a_container_of_kubernetes_has_no_privilege(pod: dict[str, Any], container: dict[str, Any]) -> None:
    """What the Pod Security Standards call restricted, and a root file system that is read-only."""
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    context = container["securityContext"]
    assert context["allowPrivilegeEscalation"] is False
    assert context["readOnlyRootFilesystem"] is True
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & pod.keys()


def test_a_container_of_compose_has_no_privilege_either(service: dict[str, Any]) -> None:
    """The same, in its words."""
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service


def test_the_home_directory_is_writable_everywhere(
    stage: Stage, pod: dict[str, Any], container: dict[str, Any], service: dict[str, Any]
) -> None:
    """It is what both samples mount, and all that they do."""
    home = stage.environment["HOME"]
    assert {mount["mountPath"] for mount in container["volumeMounts"]} == {home}
    assert [volume["name"] for volume in pod["volumes"]] == [mount["name"] for mount in container["volumeMounts"]]
    assert service["tmpfs"] == home


def test_memory_is_limited_and_cpu_is_not(container: dict[str, Any], service: dict[str, Any]) -> None:
    """A leak ends one container and no node; throttling would make runs late."""
    assert container["resources"]["limits"].keys() == {"memory"}
    assert container["resources"]["requests"].keys() == {"cpu", "memory"}
    assert "mem_limit" in service
    assert "cpus" not in service


def test_never_two_daemons_at_once(deployment: dict[str, Any]) -> None:
    """Each would run every tick."""
    assert deployment["replicas"] == 1
    assert deployment["strategy"] == {"type": "Recreate"}


def test_no_variable_is_made_that_looks_like_a_setting(pod: dict[str, Any]) -> None:
    """A Kubernetes service called jobd would make JOBD_PORT, JOBD_SERVICE_HOST and more."""
    assert pod["enableServiceLinks"] is False


def test_nothing_is_probed_that_is_not_there(container: dict[str, Any]) -> None:
    """There is no port; a probe that cannot succeed kills a daemon that is well."""
    assert not {"livenessProbe", "readinessProbe", "startupProbe", "ports"} & container.keys()


def test_the_probe_in_the_docs_tells_a_heart_that_beats_from_one_that_does_not(tmp_path: Path) -> None:
    """The command fails if the job has not touched the file for a minute, or never."""
    (text,) = re.findall("```yaml\n(livenessProbe:.*?)```", (CHECKOUT / "docs/operations.md").read_text(), re.DOTALL)
    alive = tmp_path / "alive"
    _, *arguments = yaml.safe_load(text)["livenessProbe"]["exec"]["command"]

    def succeeds() -> bool:
        command = [sys.executable, *(argument.replace("/tmp/alive", str(alive)) for argument in arguments)]
        return subprocess.run(command, capture_output=True, check=False).returncode == 0

    assert not succeeds()
    alive.touch()
    assert succeeds()
    os.utime(alive, (time.time() - 61, time.time() - 61))
    assert not succeeds()


def test_every_setting_in_the_samples_is_one(container: dict[str, Any], service: dict[str, Any]) -> None:
    """And has a value that jobd takes."""
    for name, text in (*env(container).items(), *service["environment"].items()):
        (setting,) = (setting for setting in DECLARED.values() if setting.name == name)
        setting.read(text)


def test_the_selector_finds_the_pod(deployment: dict[str, Any]) -> None:
    """Kubernetes refuses a deployment otherwise."""
    assert deployment["selector"]["matchLabels"].items() <= deployment["template"]["metadata"]["labels"].items()


def test_the_compose_file_builds_our_image(service: dict[str, Any]) -> None:
    """Its paths are relative to itself and to the context."""
    context = (SAMPLES / service["build"]["context"]).resolve()
    assert context == CHECKOUT
    assert context / service["build"]["dockerfile"] == CONTAINERFILE


def test_both_stages_have_the_same_base_and_say_which() -> None:
    """Of another Python, the environment that is copied would not work; `latest` would be another one tomorrow."""
    (base,) = {stage.base for stage in read(CONTAINERFILE)}
    assert base.rpartition(":")[2].startswith("3.")
