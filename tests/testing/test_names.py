"""The public names of the kit, and what importing it costs."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from anthro_asgi import testing

FOLDER = Path(testing.__file__).parent
STUB = ast.parse((FOLDER / "__init__.pyi").read_text())
STUBBED = {alias.name: node.module for node in STUB.body if isinstance(node, ast.ImportFrom) for alias in node.names}


def test_the_stub_has_the_same_names_from_the_same_modules() -> None:
    assert vars(testing)["_MODULES"] == STUBBED
    assert sorted(testing.__all__) == sorted(STUBBED)


@pytest.mark.parametrize("name", sorted(STUBBED))
def test_every_public_name_can_be_imported(name: str) -> None:
    assert getattr(testing, name) is not None
    assert name in dir(testing)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match=r"module 'anthro_asgi\.testing' has no attribute 'Nonsense'"):
        getattr(testing, "Nonsense")  # noqa: B009 - the attribute does not exist


@pytest.mark.slow
def test_loading_the_plugin_imports_nothing_of_the_service() -> None:
    code = (
        "import sys, pytest, anthro_asgi.testing.pytest_plugin;"
        "print(*sorted(name for name in sys.modules if name.partition('.')[0] in ('anthro_asgi', 'uvicorn', 'orjson')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=FOLDER.parents[1], capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["anthro_asgi", "anthro_asgi.testing", "anthro_asgi.testing.pytest_plugin"]
