"""Write what an image consists of, as CycloneDX JSON: the Python packages of an environment, the Debian packages of a
root file system, the interpreter. Same image, same bytes: there is no time of day in it.

    python3 deploy/image/sbom.py SITE_PACKAGES ROOT
"""

import json
import platform
import re
import sys
import uuid
from collections.abc import Iterator
from importlib.metadata import Distribution, distributions
from pathlib import Path
from typing import Any
from urllib.parse import quote

SUBJECT = "anthro-asgi"
Component = dict[str, Any]


def main(site_packages: str, root: str) -> None:
    installed = {normal(found.name): found for found in distributions(path=[site_packages])}
    subject = python_component(installed.pop(SUBJECT), "application")
    libraries = [python_component(found, "library") for _, found in sorted(installed.items())]
    system = list(debian_components(Path(root)))
    if not any(component["name"].startswith("python3") for component in system):
        system.insert(0, interpreter())
    components = [*libraries, *system]
    everything = {normal(found.name): found for found in distributions(path=[site_packages])}
    bill = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"component": subject},
        "components": components,
        "dependencies": [
            *({"ref": python_purl(found), "dependsOn": needed(found, everything)} for found in everything.values()),
            *({"ref": component["bom-ref"]} for component in system),
        ],
    }
    content = json.dumps(bill, indent=1, sort_keys=True)
    bill["serialNumber"] = f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, content)}"
    print(json.dumps(bill, indent=1))


# --- Python's ---


def normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def python_purl(found: Distribution) -> str:
    return f"pkg:pypi/{normal(found.name)}@{found.version}"


def python_component(found: Distribution, kind: str) -> Component:
    component: Component = {
        "type": kind,
        "bom-ref": python_purl(found),
        "name": found.name,
        "version": found.version,
        "purl": python_purl(found),
        "description": found.metadata["Summary"] or "",
    }
    expression, text = found.metadata["License-Expression"], (found.metadata["License"] or "").strip()
    if expression:
        component["licenses"] = [{"expression": expression}]
    elif text:  # a name, or the whole of it: then its first line is its name
        component["licenses"] = [{"license": {"name": text.splitlines()[0]}}]
    return component


def needed(found: Distribution, everything: dict[str, Distribution]) -> list[str]:
    """What it is linked to in its metadata and is there: an extra that was not asked for is not."""
    names = {normal(re.split(r"[^\w.-]", requirement, maxsplit=1)[0]) for requirement in found.requires or ()}
    return sorted(python_purl(everything[name]) for name in names if name in everything)


# --- the system's ---


def debian_components(root: Path) -> Iterator[Component]:
    release = dict(re.findall(r'^(\w+)="?([^"\n]*)', Path("/etc/os-release").read_text(), re.MULTILINE))
    for record in sorted((root / "var/lib/dpkg/status.d").glob("*")):
        fields = dict(re.findall(r"^([\w-]+): (.*)$", record.read_text(), re.MULTILINE))
        version = quote(fields["Version"], safe="")
        where = f"arch={fields['Architecture']}&distro={release['ID']}-{release['VERSION_ID']}"
        purl = f"pkg:deb/{release['ID']}/{fields['Package']}@{version}?{where}"
        yield {
            "type": "library",
            "bom-ref": purl,
            "name": fields["Package"],
            "version": fields["Version"],
            "purl": purl,
            "description": fields.get("Description", ""),
        }


def interpreter() -> Component:
    """Where it came with no package: as in images that build their own."""
    purl = f"pkg:generic/python@{platform.python_version()}"
    return {"type": "platform", "bom-ref": purl, "name": "python", "version": platform.python_version(), "purl": purl}


if __name__ == "__main__":
    main(*sys.argv[1:])
