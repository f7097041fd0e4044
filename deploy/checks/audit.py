"""Ask for known vulnerabilities of what is pinned; status 1 if there is one, 3 if nobody can be asked.

python3 deploy/checks/audit.py REQUIREMENTS      # with pip-audit installed beside this Python
"""

import json
import subprocess
import sys
from tempfile import TemporaryDirectory

NOBODY_TO_ASK = 3


def main(requirements: str) -> int:
    command = [sys.executable, "-m", "pip_audit", "--requirement", requirements, "--require-hashes", "--disable-pip"]
    with TemporaryDirectory() as cache:
        command += ["--format=json", "--cache-dir", cache]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603
    try:
        audited = json.loads(done.stdout)["dependencies"]
    except ValueError:
        print((done.stderr.strip().splitlines() or ["it said nothing"])[-1][:200])
        return NOBODY_TO_ASK
    for package in audited:
        for fault in package.get("vulns", ()):
            print(f"{package['name']} {package['version']}: {fault['id']}, fixed in {fault['fix_versions']}")
    skipped = [package["name"] for package in audited if "skip_reason" in package]
    if any(package.get("vulns") for package in audited):
        return 1
    if skipped:
        print("nothing is known of", ", ".join(skipped))
        return NOBODY_TO_ASK
    print(len(audited), "packages, no known vulnerability")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
