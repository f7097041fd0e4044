"""The public names of the package: each is imported when it is first used, and type checkers see the same names."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import anthro_asgi

PACKAGE = Path(anthro_asgi.__file__).parent
STUB = ast.parse((PACKAGE / "__init__.pyi").read_text())
STUBBED = {
    alias.name: node.module for node in STUB.body if isinstance(node, ast.ImportFrom) for alias in node.names
}  # name → module


def test_the_stub_has_the_same_names_from_the_same_modules() -> None:
    assert vars(anthro_asgi)["_MODULES"] == STUBBED
    assert sorted(anthro_asgi.__all__) == sorted(STUBBED)


@pytest.mark.parametrize("name", sorted(STUBBED))
def test_every_public_name_can_be_imported(name: str) -> None:
    assert getattr(anthro_asgi, name) is not None
    assert name in dir(anthro_asgi)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'anthro_asgi' has no attribute 'Nonsense'"):
        getattr(anthro_asgi, "Nonsense")  # noqa: B009 - the attribute does not exist


@pytest.mark.slow
def test_importing_the_package_imports_nothing_else() -> None:
    code = "import sys, anthro_asgi; print(*(name for name in sys.modules if name.startswith('anthro_asgi.')))"
    done = subprocess.run([sys.executable, "-c", code], cwd=PACKAGE.parent, capture_output=True, text=True, check=True)
    assert done.stdout == "\n"
