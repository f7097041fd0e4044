"""The extension module of the native path; with the variable PUMP, the one in that file.

`build` compiles one with AddressSanitizer and UndefinedBehaviorSanitizer, and `sanitized_environment` has the variables
with which a Python process can load it. A report of either sanitizer ends the process.
"""

import os
import subprocess
import sys
import sysconfig
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Final

PUMP: Final = "ANTHRO_ASGI_TEST_PUMP"  # the name of the variable
_NAME: Final = "anthro_asgi._native._pump"
_SOURCE: Final = Path(__file__).parents[3] / "anthro_asgi" / "_native" / "pump.c"
_FLAGS: Final = (
    *("-std=c11", "-g", "-O1", "-fno-omit-frame-pointer", "-Wall", "-Wextra", "-Werror", "-pthread"),
    "-fno-sanitize-recover=all",
)


def compile_sanitized(source: Path, file: Path, *flags: str, sanitizers: str = "address,undefined") -> None:
    """Compile with these sanitizers. Raises subprocess.CalledProcessError."""
    command = ["gcc", *_FLAGS, f"-fsanitize={sanitizers}", *flags, str(source), "-o", str(file)]
    subprocess.run(command, check=True)


def build(folder: Path) -> Path:
    """The module with both sanitizers, in `folder`. Raises subprocess.CalledProcessError."""
    file = folder / "_pump.so"
    compile_sanitized(_SOURCE, file, "-shared", "-fPIC", f"-I{sysconfig.get_path('include')}")
    return file


def sanitized_environment(module: Path) -> dict[str, str]:
    """The environment of a process that loads `module`. Python takes its memory from malloc, which is checked."""
    libraries = [_library(name) for name in ("libasan.so", "libubsan.so")]
    return {
        **os.environ,
        PUMP: str(module),
        "LD_PRELOAD": " ".join(libraries),
        "PYTHONMALLOC": "malloc",
        "ASAN_OPTIONS": "detect_leaks=0:abort_on_error=1:detect_stack_use_after_return=1",
        "UBSAN_OPTIONS": "print_stacktrace=1:halt_on_error=1",
    }


def _library(name: str) -> str:
    done = subprocess.run(["gcc", f"-print-file-name={name}"], check=True, capture_output=True, text=True)  # noqa: S607
    return str(Path(done.stdout.strip()).resolve())


def _load(path: str) -> None:
    """Load the extension module from `path`, before the package looks for it."""
    spec = spec_from_file_location(_NAME, path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[_NAME] = module_from_spec(spec)
    spec.loader.exec_module(module)


if PUMP in os.environ:
    if _NAME in sys.modules:  # then trials would pass without sanitizers
        raise RuntimeError("the package has loaded its own extension module already")
    _load(os.environ[PUMP])

from anthro_asgi._native import new_pump, new_thread  # noqa: E402 - after the module that it looks for

__all__ = ["PUMP", "build", "compile_sanitized", "new_pump", "new_thread", "sanitized_environment"]
