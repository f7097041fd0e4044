"""The files in `deploy/` agree with the service. `deploy/verify` runs them, which takes minutes."""

import fnmatch
import json
import os
import re
import shlex
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from anthro_asgi import MessagesApp
from anthro_asgi.cli.main import parse_command_line
from anthro_asgi.http.messages_app import _ROUTES
from anthro_asgi.settings.loader import load_settings
from anthro_asgi.settings.options import Settings
from anthro_asgi.simulator import SimulatedEngine
from anthro_asgi.testing.driver import Driver
from tests.support.llama.model import write_model

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
DOCKERFILE = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PATIENCE = 60  # seconds until a process that hangs fails its test
GRACE = 5  # seconds for those that are cut off to be told, after the drain timeout


def settled(words: Sequence[str]) -> tuple[str, Settings]:
    """What a command line says, read as the command reads it."""
    command, line = parse_command_line(words)
    return command, load_settings(line, {})


# --- the image ---


def instructions(name: str) -> list[str]:
    return re.findall(rf"^{name}\s+(.*)$", DOCKERFILE, re.MULTILINE)


def ignored(path: Path) -> bool:
    """Whether `.dockerignore` keeps it from the builder: the last pattern that fits it, or what it is in, decides."""
    name, verdict = path.relative_to(ROOT).as_posix(), False
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!")
        fits = [pattern, f"{pattern}/*", *([pattern[3:], f"*/{pattern[3:]}"] if pattern.startswith("**/") else [])]
        if line and not line.startswith("#") and any(fnmatch.fnmatch(name, one) for one in fits):
            verdict = not line.startswith("!")
    return verdict


def test_every_copied_file_exists_and_is_in_the_build_context() -> None:
    copied = [words for line in instructions("COPY") if not (words := line.split())[0].startswith("--from")]
    sources = [ROOT / source for words in copied for source in words[:-1]]
    assert len(sources) > 5
    for source in sources:
        assert source.exists(), source
        assert not ignored(source), source
    assert not ignored(ROOT / "anthro_asgi" / "wire" / "request.py")


@pytest.mark.parametrize("name", [".git", "tests", "deploy/verify", "anthro_asgi/__pycache__", "bench/report.md"])
def test_other_files_are_not_in_the_build_context(name: str) -> None:
    assert ignored(ROOT / name)


def test_the_image_runs_as_an_unprivileged_user_without_a_shell() -> None:
    (user,) = instructions("USER")
    assert re.fullmatch(r"[1-9]\d+:[1-9]\d+", user), "by number, or Kubernetes could not tell that it is not root"
    (health,) = instructions("HEALTHCHECK")
    commands = [*instructions("ENTRYPOINT"), *instructions("CMD"), health.partition("CMD ")[2]]
    assert len(commands) == 3
    for command in commands:
        assert isinstance(json.loads(command), list), command
    assert settled(json.loads(commands[1]))[0] == "serve"
    assert settled(json.loads(commands[2])[1:])[0] == "health"


def test_the_base_image_is_a_build_argument() -> None:
    assert DOCKERFILE.index("ARG BASE=") < DOCKERFILE.index("FROM ${BASE}")
    assert instructions("FROM")[-1] == "scratch"


# --- what is pinned ---


def pins(name: str) -> dict[str, str]:
    """The versions of a file of requirements, each of which has a hash."""
    text = (DEPLOY / name).read_text()
    found: dict[str, str] = {}
    for block in re.split(r"\n(?=\S)", text):
        if block.startswith("#"):
            continue
        pinned = re.match(r"([\w.-]+)==(\S+)", block)
        assert pinned, block
        assert "--hash=sha256:" in block, pinned[1]
        found[canonicalize_name(pinned[1])] = pinned[2]
    return found


def wanted(name: str) -> Iterator[str]:
    """The requirements that the command in the file's head was given."""
    command = re.search(r"uv pip compile (.*)", (DEPLOY / name).read_text())
    assert command is not None
    yield from PROJECT["project"]["dependencies"]
    for extra in re.findall(r"--extra (\S+)", command[1]):
        yield from PROJECT["project"]["optional-dependencies"][extra]


def test_the_pinned_versions_satisfy_the_projects_dependencies() -> None:
    pinned = pins("requirements.txt")
    needed = [Requirement(text) for text in wanted("requirements.txt")]
    assert {"uvicorn", "uvloop", "httptools", "prometheus-client"} <= {one.name for one in needed}
    for requirement in needed:
        assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), requirement


def test_the_pinned_build_tools_satisfy_the_build_requirements() -> None:
    pinned = pins("requirements-build.txt")
    for requirement in map(Requirement, PROJECT["build-system"]["requires"]):
        assert requirement.specifier.contains(pinned[canonicalize_name(requirement.name)]), requirement


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-build.txt"])
def test_the_requirements_name_no_package_index(name: str) -> None:
    text = (DEPLOY / name).read_text()
    assert "://" not in text
    assert "--index" not in text


def test_the_bill_of_materials_is_complete_and_reproducible(tmp_path: Path) -> None:
    records = tmp_path / "var" / "lib" / "dpkg" / "status.d"
    records.mkdir(parents=True)
    (records / "libc6").write_text("Package: libc6\nArchitecture: amd64\nVersion: 2.36-9+deb12u1\nDescription: C\n")
    site_packages = next(path for path in map(Path, sys.path) if list(path.glob("uvicorn-*.dist-info")))
    command = [sys.executable, str(DEPLOY / "image" / "sbom.py"), str(site_packages), str(tmp_path)]
    first, second = (
        subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True).stdout for _ in range(2)
    )
    assert first == second
    bill = json.loads(first)
    assert bill["metadata"]["component"]["name"] == "anthro-asgi"
    purls = [component["purl"] for component in bill["components"]]
    assert any(purl.startswith("pkg:pypi/uvicorn@") for purl in purls)
    assert any(re.fullmatch(r"pkg:deb/\w+/libc6@2\.36-9%2Bdeb12u1\?arch=amd64&distro=\S+", purl) for purl in purls)
    refs = {*purls, bill["metadata"]["component"]["bom-ref"]}
    assert {ref for one in bill["dependencies"] for ref in (one["ref"], *one.get("dependsOn", ()))} <= refs
    ours = next(one for one in bill["dependencies"] if one["ref"].startswith("pkg:pypi/anthro-asgi@"))
    assert any(ref.startswith("pkg:pypi/orjson@") for ref in ours["dependsOn"])


# --- the pod ---

POD = yaml.safe_load((DEPLOY / "pod.yaml").read_text())
(SIDECAR,) = POD["spec"]["initContainers"]
(ENGINE,) = POD["spec"]["containers"]
ASKED = {name: SIDECAR[f"{name}Probe"]["httpGet"]["path"] for name in ("startup", "liveness", "readiness")}


def served() -> Settings:
    command, settings = settled(SIDECAR["args"])
    assert command == "serve"
    return settings


def engine_option(name: str) -> str:
    return str(next(word for word in ENGINE["args"] if word.startswith(f"--{name}="))).partition("=")[2]


def test_the_service_is_a_native_sidecar() -> None:
    assert SIDECAR["restartPolicy"] == "Always"


def test_the_sidecars_startup_probe_does_not_wait_for_the_engine() -> None:
    assert ASKED == {"startup": "/healthz", "liveness": "/healthz", "readiness": "/readyz"}
    assert set(ASKED.values()) <= _ROUTES.keys()


def test_the_probes_use_the_port_the_sidecar_listens_on() -> None:
    (port,) = SIDECAR["ports"]
    assert port["containerPort"] == served().port
    assert {SIDECAR[f"{name}Probe"]["httpGet"]["port"] for name in ASKED} == {port["name"]}
    notes = POD["metadata"]["annotations"]
    assert notes["prometheus.io/port"] == str(served().port)
    assert notes["prometheus.io/path"] in _ROUTES


def test_the_engine_listens_on_loopback_at_the_sidecars_upstream_address() -> None:
    assert engine_option("host") == "127.0.0.1"
    assert served().upstream == f"http://127.0.0.1:{engine_option('port')}/v1"
    assert ("*", engine_option("served-model-name")) in served().model_alias


def test_the_keys_are_mounted_where_they_are_read() -> None:
    (mount,) = SIDECAR["volumeMounts"]
    keys = Path(served().api_key_file or "")
    assert keys.parent == Path(mount["mountPath"])
    volume = next(one for one in POD["spec"]["volumes"] if one["name"] == mount["name"])
    assert f"create secret generic {volume['secret']['secretName']} --from-literal={keys.name}=" in (
        (DEPLOY / "pod.yaml").read_text()
    )


def test_the_sidecar_has_time_to_drain_before_the_engine_stops() -> None:
    settings = served()
    drained = settings.drain_delay + settings.drain_timeout + GRACE
    waited = re.search(r"^sleep (\d+)$", ENGINE["lifecycle"]["preStop"]["exec"]["command"][-1], re.MULTILINE)
    assert waited is not None
    # what the sidecar let in last has waited for its turn, at most, and is with the engine
    assert int(waited[1]) >= settings.drain_delay + settings.queue_timeout
    assert POD["spec"]["terminationGracePeriodSeconds"] >= drained + 10
    assert "signal.SIGTERM" in SIDECAR["lifecycle"]["preStop"]["exec"]["command"][-1]


@pytest.mark.parametrize("container", [SIDECAR, ENGINE], ids=lambda container: container["name"])
def test_containers_have_no_privileges(container: dict[str, Any]) -> None:
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    pod = POD["spec"]["securityContext"]
    assert pod["runAsNonRoot"] is True
    assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert f"USER {pod['runAsUser']}:{pod['runAsGroup']}" in DOCKERFILE


def test_the_pod_can_be_run_locally_without_kubernetes(tmp_path: Path) -> None:
    path = tmp_path / "pod.yaml"
    script = str(DEPLOY / "checks" / "local_pod.py")
    command = [sys.executable, script, str(path), "ours", "theirs", str(tmp_path), "18484", "18000"]
    shell = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE, check=True).stdout
    pod = yaml.safe_load(path.read_text())["spec"]
    sidecar, engine = pod["containers"]
    assert (sidecar["image"], engine["image"]) == ("ours", "theirs")
    assert (settled(sidecar["args"])[1].port, settled(sidecar["args"])[1].upstream) == (
        18484,
        "http://127.0.0.1:18000/v1",
    )
    assert sidecar["securityContext"] == SIDECAR["securityContext"]
    assert not [name for name in pod if name.startswith("init")]
    assert f"hook=({shlex.join(SIDECAR['lifecycle']['preStop']['exec']['command'])})" in shell.splitlines()


def test_the_local_pods_engine_serves_until_it_is_stopped(tmp_path: Path) -> None:
    write_model(tmp_path / "model.gguf")
    command = [sys.executable, "-m", "tests.support.llama.contained", str(tmp_path / "model.gguf")]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as engine:
        try:
            assert engine.stdout is not None
            assert engine.stdout.readline().startswith("http://127.0.0.1:")
            assert engine.poll() is None
            engine.send_signal(signal.SIGTERM)
            assert engine.wait(PATIENCE) == 0
        finally:
            engine.kill()


# --- the unit ---


def unit(name: str) -> str:
    """The one value of a setting."""
    (value,) = re.findall(rf"^{name}=(.*)$", (DEPLOY / "anthro-asgi.service").read_text(), re.MULTILINE)
    return str(value)


def test_the_units_command_line_is_valid(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('upstream = "http://127.0.0.1:8000/v1"\n')
    program, *words = shlex.split(unit("ExecStart"))
    assert program == "/opt/anthro-asgi/bin/anthro-asgi"
    command, settings = settled([word.replace("/etc/anthro-asgi/config.toml", str(config)) for word in words])
    assert command == "serve"
    assert settings.upstream is not None
    credential, _, source = unit("LoadCredential").partition(":")
    assert settings.api_key_file == f"%d/{credential}"
    assert f"> {source})" in (DEPLOY / "anthro-asgi.service").read_text()


def test_the_unit_leaves_time_to_drain() -> None:
    settings = load_settings({}, {})
    assert float(unit("TimeoutStopSec")) >= settings.drain_delay + settings.drain_timeout + GRACE
    assert unit("KillSignal") == "SIGTERM"
    assert "-HUP" in unit("ExecReload")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DynamicUser", "yes"),
        ("NoNewPrivileges", "yes"),
        ("CapabilityBoundingSet", ""),
        ("ProtectSystem", "strict"),
        ("MemoryDenyWriteExecute", "yes"),
        ("RestrictAddressFamilies", "AF_INET AF_INET6 AF_UNIX"),
    ],
)
def test_the_unit_has_no_privileges(name: str, value: str) -> None:
    assert unit(name) == value


# --- that it runs ---


def test_the_verify_script_parses_and_its_files_exist() -> None:
    path = DEPLOY / "verify"
    assert os.access(path, os.X_OK)
    read = subprocess.run(["/bin/bash", "-n", str(path)], capture_output=True, text=True, check=False)
    assert (read.returncode, read.stderr) == (0, "")
    named = set(re.findall(r"\b((?:deploy|tests)/[\w./-]+)", path.read_text()))
    assert len(named) > 4
    assert [name for name in named if not (ROOT / name).exists()] == []
    assert re.search(r'"(xllamacpp==[\w.]+)"', (ROOT / "pyproject.toml").read_text()), "which the engine is made of"


# --- a shared front

FRONT = {part["kind"]: part for part in yaml.safe_load_all((DEPLOY / "front.yaml").read_text())}


def test_the_shared_fronts_variables_are_valid_options() -> None:
    (container,) = FRONT["Deployment"]["spec"]["template"]["spec"]["containers"]
    environ = {entry["name"]: entry["value"] for entry in container["env"]}
    settings = load_settings({}, environ)
    assert settings.upstream == environ["ANTHRO_ASGI_UPSTREAM"]
    assert container["args"] == ["serve"]


def test_the_shared_front_has_time_to_drain() -> None:
    pod = FRONT["Deployment"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    settings = load_settings({}, {entry["name"]: entry["value"] for entry in container["env"]})
    assert pod["terminationGracePeriodSeconds"] > settings.drain_delay + settings.drain_timeout
    probe = container["readinessProbe"]
    assert settings.drain_delay >= probe["periodSeconds"]
    assert (probe["httpGet"]["path"], container["livenessProbe"]["httpGet"]["path"]) == ("/readyz", "/healthz")


async def test_the_shared_front_scales_by_an_existing_metric() -> None:
    (metric,) = FRONT["HorizontalPodAutoscaler"]["spec"]["metrics"]
    name = metric["pods"]["metric"]["name"]
    exposed = (await Driver(MessagesApp(SimulatedEngine())).request("GET", "/metrics")).body.decode()
    assert f"\n{name} " in exposed
    assert name in FRONT["ConfigMap"]["data"]["rule.yaml"]
