"""Gather what the service needs of this system into a directory, which becomes the whole file system of the image.

    python3 deploy/image/rootfs.py ENVIRONMENT ROOT

ENVIRONMENT is a virtual environment; ROOT gets it at the same path, with its interpreter, the standard library, the
shared libraries all these are linked to, the certificates to trust, and nothing that could run a command: no shell, no
package manager. The records and licences of the Debian packages that files were taken from go along, so that
scanners know what they look at.
"""

import os
import re
import shutil
import ssl
import subprocess
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from fnmatch import fnmatch
from pathlib import Path

# Of the standard library: tests, tools, and modules of terminals, window systems and databases, whose libraries are
# more than half of what there would be to keep patched.
LEFT_OUT = (
    *("__pycache__", "test", "tests", "idlelib", "tkinter", "turtledemo", "turtle.py", "lib2to3", "pydoc_data"),
    *("ensurepip", "venv", "site-packages", "dist-packages", "config-*", "sqlite3", "curses", "dbm"),
    *("_tkinter.*", "_sqlite3.*", "_curses*", "readline.*", "_dbm.*", "_gdbm.*", "nis.*", "ossaudiodev.*"),
    *("_test*", "_ctypes_test*", "xxlimited*", "_xx*"),
)
TRUSTED = Path("/etc/ssl/certs/ca-certificates.crt")
USER = 65532  # as elsewhere in images without a shell: far from the users of any host
FILES = {
    "etc/passwd": f"root:x:0:0:root:/:/nonexistent\nnonroot:x:{USER}:{USER}:nonroot:/:/nonexistent\n",
    "etc/group": f"root:x:0:\nnonroot:x:{USER}:\n",
    "etc/nsswitch.conf": "hosts: files dns\n",
}


class Root:
    """The directory that is filled. `sources` are the files of this system that went into it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sources: set[Path] = set()

    def place(self, path: Path) -> None:
        """Copy a file to where it really is, and whatever it is a link to."""
        path = path.parent.resolve() / path.name
        target = self.path / path.relative_to("/")
        if path in self.sources:
            return
        self.sources.add(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.is_symlink():
            target.symlink_to(os.readlink(path))
            if path.is_file():
                self.place(path.parent / os.readlink(path))
        else:
            shutil.copy2(path, target)

    def place_tree(self, top: Path, left_out: Iterable[str] = ()) -> None:
        for entry in sorted(top.iterdir()):
            if any(fnmatch(entry.name, pattern) for pattern in left_out):
                continue
            if entry.is_dir() and not entry.is_symlink():
                self.place_tree(entry, left_out)
            elif entry.exists():  # Debian's has links into packages that are not installed
                self.place(entry)

    def write(self, name: str, text: str) -> None:
        target = self.path / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)


def main(environment: Path, path: Path) -> None:
    root = Root(path)
    path.mkdir(parents=True)
    for link in (entry for entry in Path("/").glob("lib*") if entry.is_symlink()):
        (path / link.name).symlink_to(os.readlink(link))
    for library in {sysconfig.get_path("stdlib"), sysconfig.get_path("platstdlib")}:
        root.place_tree(Path(library), LEFT_OUT)
    root.place_tree(environment)  # the interpreter is what a link in there leads to
    place_libraries(root)
    place_trust(root)
    for name, text in FILES.items():
        root.write(name, text)
    (path / "tmp").mkdir()
    (path / "tmp").chmod(0o1777)
    place_records(root)


# --- shared libraries ---


def place_libraries(root: Root) -> None:
    """All that the binaries so far are linked to; the loader of the system says what that is."""
    binaries = [str(path) for path in sorted(root.sources) if is_elf(path)]
    shown = subprocess.run(["ldd", *binaries], capture_output=True, text=True, check=False).stdout  # noqa: S603, S607
    missing = re.findall(r"(\S+) => not found", shown)
    if missing:
        raise SystemExit(f"rootfs: no such library: {', '.join(sorted(set(missing)))}")
    for library in sorted(set(re.findall(r"(?:=> |^\t)(/\S+) \(0x", shown, re.MULTILINE))):
        root.place(Path(library))
    root.place(Path("/etc/ld.so.conf"))
    root.place_tree(Path("/etc/ld.so.conf.d"))
    subprocess.run(["ldconfig", "-r", root.path, "-X"], check=True)  # noqa: S603, S607


def is_elf(path: Path) -> bool:
    if not path.is_file() or path.is_symlink():
        return False
    with path.open("rb") as file:
        return file.read(4) == b"\x7fELF"


# --- certificates ---


def place_trust(root: Root) -> None:
    """Where OpenSSL looks when nobody tells it otherwise. The settings of the system, such as TLS >= 1.2, go along."""
    root.place(TRUSTED)
    where = ssl.get_default_verify_paths()
    bundle = root.path / where.openssl_cafile.lstrip("/")
    if not bundle.exists():
        bundle.parent.mkdir(parents=True, exist_ok=True)
        bundle.symlink_to(TRUSTED)
    settings = Path(where.openssl_cafile).with_name("openssl.cnf")
    if settings.exists():
        root.place(settings)


# --- whose files they are ---


def place_records(root: Root) -> None:
    """One record a package under `/var/lib/dpkg/status.d`, where scanners look in images without dpkg."""
    owners = dict(owned())
    packages = {owners[at] for at in map(merged, root.sources) if at in owners}
    packages |= {"ca-certificates"} & set(owners.values())  # it makes its one file when it is installed
    for record in Path("/var/lib/dpkg/status").read_text().split("\n\n") if packages else ():
        fields = dict(re.findall(r"^([\w-]+): (.*)$", record, re.MULTILINE))
        if fields.get("Package") in packages:
            root.write(f"var/lib/dpkg/status.d/{fields['Package']}", record.strip() + "\n")
            licence = Path("/usr/share/doc", fields["Package"], "copyright")
            if licence.exists():
                root.place(licence)


def owned() -> Iterator[tuple[str, str]]:
    """Each file that is of a package, and the package."""
    for listing in Path("/var/lib/dpkg/info").glob("*.list"):
        package = listing.stem.partition(":")[0]
        for path in listing.read_text().splitlines():
            yield merged(Path(path)), package


def merged(path: Path) -> str:
    """`/lib/…` and `/usr/lib/…` are one where one is a link to the other; packages call their files either."""
    return re.sub(r"^/usr(?=/lib)", "", str(path))


if __name__ == "__main__":
    os.umask(0o022)
    main(Path(sys.argv[1]).resolve(), Path(sys.argv[2]))
