"""Hold a bill of materials against its schema, and against the versions that were pinned.

python3 deploy/checks/bill.py SBOM REQUIREMENTS
"""

import json
import re
import sys
from pathlib import Path

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator


def main(bill: str, requirements: str) -> None:
    text = Path(bill).read_text()
    error = JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)
    if error is not None:
        raise SystemExit(f"{bill} is no CycloneDX 1.6: {error!r:.500}")
    components = {component["purl"] for component in json.loads(text)["components"]}
    pins = re.findall(r"^([\w.-]+)==([^ ;\\]+)", Path(requirements).read_text(), re.MULTILINE)
    absent = {f"pkg:pypi/{name}@{version}" for name, version in pins} - components
    if absent or not pins:
        raise SystemExit(f"{bill} does not have {', '.join(sorted(absent)) or 'anything to compare with'}")
    print(len(components), "components")


if __name__ == "__main__":
    main(*sys.argv[1:])
