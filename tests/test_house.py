"""The architecture of docs/explanation/architecture.md, held against the code: rooms and imports."""

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

PACKAGE = Path(__file__).parent.parent / "anthro_asgi"
FILES = {path.relative_to(PACKAGE).as_posix(): path for path in sorted(PACKAGE.rglob("*.py"))}
ROOMS = (
    "_native",
    "batches",
    "bench",
    "cli",
    "conformance",
    "engines",
    "http",
    "observability",
    "server",
    "settings",
    "simulator",
    "testing",
    "upstream",
    "wire",
)
PURE = [
    "bench/counting.py",
    "bench/load/samples.py",
    *(name for name in FILES if name.startswith("wire/")),
    "conformance/check.py",
    "conformance/grammar.py",
    "conformance/report.py",
    "conformance/server_checks.py",
    "conformance/stream_rules.py",
    "engines/openai/call_ids.py",
    "engines/openai/chat_request.py",
    "engines/openai/sent_messages.py",
    "engines/openai/chunk_reader.py",
    "engines/openai/chunk_template.py",
    "engines/openai/dialects.py",
    "upstream/chunked.py",
    "engines/openai/fast_path.py",
    "engines/shared/event_pieces.py",
    "engines/messages/event_stream.py",
    "engines/openai/finish_reasons.py",
    "engines/openai/history.py",
    "engines/openai/learned.py",
    "engines/openai/read_coalescer.py",
    "engines/openai/refusals.py",
    "engines/openai/think_tags.py",
    "engines/openai/tool_names.py",
    "engines/openai/usage.py",
    "engines/shared/answer_length.py",
    "engines/shared/context_overflow.py",
    "engines/shared/call_repair.py",
    "engines/shared/tool_arguments.py",
    "engines/shared/tool_calls.py",
    "engines/shared/upstream_errors.py",
    "upstream/sse.py",
    "server/collection_policy.py",
    "server/request_framing.py",
    "simulator/chat_encoder.py",
    "simulator/chat_request.py",
    "simulator/distributions.py",
    "simulator/failures.py",
    "simulator/prefix_cache.py",
    "simulator/profile.py",
    "simulator/prompt.py",
    "simulator/recordings.py",
    "simulator/seeds.py",
    "testing/replies.py",
]
IMPURE = {"asyncio", "time", "random", "secrets", "socket", "ssl", "select", "threading", "os"}
# What each room may import, beside itself. `factory` puts the rooms together; `cli` starts it, and opens the server.
LAW = {
    "wire": (),
    "_native": (),
    "upstream": (),
    "conformance": ("wire",),
    "observability": ("wire",),
    "batches": ("wire", "observability"),
    "settings": ("wire",),
    "engines": ("_native", "wire", "upstream"),
    "http": ("_native", "wire", "observability", "engines", "batches"),
    "simulator": ("wire", "observability", "engines", "http"),
    "testing": ("wire", "engines", "http", "simulator"),
    "server": ("_native", "wire", "observability", "settings"),
    "bench": ("upstream", "settings", "simulator"),
    "cli": ("_native", "bench", "conformance", "wire", "observability", "settings", "http", "server", "engines", ""),
}
# The only files of a room that another room may import.
FACE = {"engines": {"anthro_asgi.engines.base", "anthro_asgi.engines.functions"}}


@cache
def tree(name: str) -> ast.Module:
    return ast.parse(FILES[name].read_text())


@cache
def imports(name: str) -> frozenset[str]:
    return frozenset(_imports(name))


def _imports(name: str) -> Iterator[str]:
    """The modules a file imports, anywhere in it, by their full names."""
    package = ["anthro_asgi", *Path(name).parent.parts]
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            for alias in node.names:
                inner = f"{module}.{alias.name}"
                yield inner if is_module(inner) else module


def is_module(name: str) -> bool:
    path = "/".join(name.split(".")[1:])
    return name.startswith("anthro_asgi.") and (f"{path}.py" in FILES or f"{path}/__init__.py" in FILES)


def ours(name: str) -> set[str]:
    return {module for module in imports(name) if module.split(".")[0] == "anthro_asgi"}


def room_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 and parts[1] in ROOMS else ""


def module_of(name: str) -> str:
    return ".".join(["anthro_asgi", *Path(name).with_suffix("").parts]).removesuffix(".__init__")


def test_each_file_imports_only_the_rooms_that_its_room_may_import() -> None:
    assert [breach for name in FILES for breach in breaches(name)] == []


def breaches(name: str) -> Iterator[str]:
    """The imports of a file that its room may not have."""
    here = room_of(module_of(name))
    for module in sorted(ours(name)):
        room = room_of(module)
        if room == "cli" and here != "cli" and name != "__main__.py":
            yield f"{name} imports {module}: nothing may import cli"
        if name == "factory.py":
            if room == "server":
                yield f"{name} imports {module}: only cli opens the server"
        elif here and room != here:  # a file without a room holds the package's own names, or is `python -m`
            if room not in LAW[here]:
                yield f"{name} imports {module}: {here} may not import {room or 'factory'}"
            elif room in FACE and here != "cli" and module not in FACE[room]:
                yield f"{name} imports {module}: of {room}, other rooms may import {FACE[room]} only"


def test_pure_files_import_no_socket_clock_or_randomness() -> None:
    assert set(PURE) <= set(FILES)
    found = {name: IMPURE & {module.split(".")[0] for module in imports(name)} for name in PURE}
    assert {name: modules for name, modules in found.items() if modules} == {}


def test_only_the_three_dependencies_are_imported_unguarded() -> None:
    optional = {"httptools", "uvloop", "prometheus_client", "opentelemetry", "pytest", "xllamacpp"}
    for name in FILES:
        outside = {module.split(".")[0] for module in imports(name)} - set(sys.stdlib_module_names) - {"anthro_asgi"}
        assert outside - optional <= {"uvicorn", "orjson", "h11"}, name
        for module in outside & optional:
            assert_guarded(name, module)


def assert_guarded(name: str, module: str) -> None:
    """The import stands in a `try` that catches ImportError."""
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Try) and any("ImportError" in ast.dump(handler) for handler in node.handlers):
            inside = {alias.name for inner in ast.walk(node) if isinstance(inner, ast.Import) for alias in inner.names}
            inside |= {inner.module or "" for inner in ast.walk(node) if isinstance(inner, ast.ImportFrom)}
            if module in inside:
                return
    raise AssertionError(f"{name} imports {module} unguarded")


def test_the_imports_have_no_cycle() -> None:
    graph = {module_of(name): ours(name) - {module_of(name)} for name in FILES if name != "__init__.py"}
    done: set[str] = set()

    def walk(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " → ".join([*path, module])
        if module in done:
            return
        for target in graph.get(module, ()):
            # a package is imported before what is in it, without needing it
            if not module.startswith(f"{target}."):
                walk(target, (*path, module))
        done.add(module)

    for module in graph:
        walk(module, ())


def test_each_file_has_a_docstring() -> None:
    assert [name for name in FILES if not ast.get_docstring(tree(name))] == []


def test_no_import_is_only_for_type_checkers() -> None:
    assert [name for name in FILES if "TYPE_CHECKING" in FILES[name].read_text()] == []
