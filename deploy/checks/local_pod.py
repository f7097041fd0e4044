"""`pod.yaml` as it can be run on one machine without Kubernetes: on the host's network, with an engine that needs no
accelerator, and the keys in a directory.

    python3 deploy/checks/local_pod.py YAML IMAGE ENGINE_IMAGE KEYS PORT ENGINE_PORT

Writes the pod to YAML, and to standard output what a shell needs to know of it: the arguments of the sidecar and what
its preStop hook runs. What is left out: init containers that go on, which only Kubernetes knows (the sidecar becomes
the first container); httpGet probes, which podman turns into commands that the image has no shell for; resources and
ports.
"""

import shlex
import sys
from pathlib import Path
from typing import Any

import yaml


def local(pod: dict[str, Any], image: str, engine_image: str, keys: str, port: int, engine_port: int) -> dict[str, Any]:
    spec = pod["spec"]
    (sidecar,) = spec.pop("initContainers")
    (engine,) = spec["containers"]
    for container in (sidecar, engine):
        for name in ("restartPolicy", "startupProbe", "livenessProbe", "readinessProbe", "resources", "ports"):
            container.pop(name, None)
    theirs = next(word for word in engine["args"] if word.startswith("--port=")).partition("=")[2]
    arguments = [word.replace(f":{theirs}", f":{engine_port}") for word in sidecar["args"]]
    sidecar |= {"image": image, "args": [*arguments, "--host=127.0.0.1", f"--port={port}"]}
    spec["containers"] = [
        sidecar,
        {"name": "engine", "image": engine_image, "args": [f"--port={engine_port}"]}
        | {"securityContext": engine["securityContext"]},
    ]
    spec |= {"hostNetwork": True, "restartPolicy": "Never"}
    spec["volumes"] = [{"name": "keys", "hostPath": {"path": keys, "type": "Directory"}}]
    return pod


def main(path: str, image: str, engine_image: str, keys: str, port: str, engine_port: str) -> None:
    given = yaml.safe_load(Path(__file__).parent.with_name("pod.yaml").read_text())
    pod = local(given, image, engine_image, keys, int(port), int(engine_port))
    Path(path).write_text(yaml.safe_dump(pod))
    sidecar = pod["spec"]["containers"][0]
    print(f"arguments=({shlex.join(sidecar['args'])})")
    print(f"hook=({shlex.join(sidecar['lifecycle']['preStop']['exec']['command'])})")


if __name__ == "__main__":
    main(*sys.argv[1:])
