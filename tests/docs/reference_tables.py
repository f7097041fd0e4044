"""The tables of docs/reference and of docs/simulator.md, from the code's own tables and docstrings."""

import inspect
import os
import re
from collections.abc import Iterator
from contextlib import redirect_stdout, suppress
from io import StringIO
from typing import Any, Final

import anthro_asgi
from anthro_asgi.cli.main import _SUMMARIES, main
from anthro_asgi.engines.base import BaseEngine
from anthro_asgi.http.base_app import BaseApp
from anthro_asgi.http.messages_app import _ONE_BATCH, _ONE_FILE, _ROUTES, MessagesApp
from anthro_asgi.observability.metrics import Metrics, _canonical
from anthro_asgi.settings.presets import PRESETS
from anthro_asgi.settings.unused import DEPENDENCIES
from anthro_asgi.wire.deltas import DELTA_TYPES
from anthro_asgi.wire.errors import ApiError
from anthro_asgi.wire.repairs import REPAIRS
from anthro_asgi.wire.request import REQUEST_FIELDS
from tests.docs.markdown import code, paragraph, summary, table

# --- options ---


def options_without_effect() -> str:
    rows = [
        (code(f"--{name}" for name in row.options), row.otherwise, "error" if row.is_refused else "warning")
        for row in DEPENDENCIES
    ]
    return table(("option", "has no effect", "on the command line"), rows) + "\n"


# --- errors ---


def error_classes(base: type[ApiError] = ApiError) -> Iterator[type[ApiError]]:
    """The classes of errors that the package defines, in the order of their definition."""
    for error in base.__subclasses__():
        if error.__module__ == ApiError.__module__:
            yield error
            yield from error_classes(error)


def errors() -> str:
    rows = [
        (str(error.status), f"`{error.type}`", summary(error), f"`{error.__name__}`")
        for error in sorted(error_classes(), key=lambda error: error.status)
    ]
    return table(("status", "type", "when", "class in the log"), rows)


def engine_errors() -> str:
    """The errors that an engine written in Python raises: those that the package exports."""
    exported = [getattr(anthro_asgi, name) for name in anthro_asgi.__all__]
    ours = [
        thing for thing in exported if inspect.isclass(thing) and issubclass(thing, ApiError) and thing is not ApiError
    ]
    rows = [(f"`{it.__name__}`", str(it.status), summary(it)) for it in sorted(ours, key=lambda it: it.status)]
    return table(("exception", "status", "when"), [*rows, ("any other", "500", "The client gets `internal error`.")])


# --- metrics ---


def metrics() -> str:
    counted = Metrics(["/"], ("engine",))
    rows = [
        (
            f"`{family.name.removeprefix('anthro_asgi_')}`",
            family.kind,
            family.help,
            code(["worker"] if family.by_worker else family.labels),
        )
        for family in sorted(counted.families, key=lambda family: family.name)
    ]
    rows += [
        (f"`{constant.name.removeprefix('anthro_asgi_')}`", "gauge", constant.help, code(constant.labels))
        for constant in counted.constants()
    ]
    return table(("metric", "type", "what it says", "labels"), rows)


def metric_labels() -> str:
    """The values of each label whose values are few, and belong to one metric."""
    rows = [
        (
            f"`{family.name.removeprefix('anthro_asgi_')}`",
            f"`{family.labels[0]}`",
            code(value for (value,) in family.places),
        )
        for family in Metrics(["/"], ("engine",)).families
        if len(family.labels) == 1 and family.labels[0] not in ("route", "engine")
    ]
    return table(("metric", "label", "values"), rows)


def repairs() -> str:
    return table(("kind", "meaning"), [(f"`{kind}`", meaning) for kind, meaning in REPAIRS.items()])


# --- HTTP ---

_ROUTE_TEXTS: Final = {
    "/v1/messages": ("yes", "Create a Message, streamed or whole."),
    "/v1/messages/count_tokens": ("yes", "The length of a prompt in tokens."),
    "/v1/messages/batches": ("yes", "Create a message batch; list the batches (`--batch-store`)."),
    "/v1/messages/batches/{id}": ("yes", "One message batch; delete it."),
    "/v1/messages/batches/{id}/cancel": ("yes", "Cancel a message batch."),
    "/v1/messages/batches/{id}/results": ("yes", "The results of a message batch, as JSON lines."),
    "/v1/files": ("yes", "Upload a file; list the files (`--batch-store`)."),
    "/v1/files/{id}": ("yes", "One uploaded file; delete it."),
    "/v1/files/{id}/content": ("yes", "Refused for uploads: only files that a tool has made can be downloaded."),
    "/v1/models": ("yes", "The models of the engine and the aliases."),
    "/v1/models/{id}": ("yes", "One model."),
    "/healthz": ("no", "Whether the process runs."),
    "/readyz": ("no", "Whether the engine can answer."),
    "/metrics": ("no", "Metrics for Prometheus (extra `metrics`)."),
    "/openapi.json": ("no", "An OpenAPI 3.1 document of this API."),
    "/": ("no", "A page in a browser; otherwise as `/healthz`."),
    "/api/hello": ("no", "As `/healthz`. Claude Code requests it."),
}


def routes() -> str:
    """A path without `/v1`, or with `/v1/v1`, stands for the path with `/v1`."""
    methods = {path: ", ".join(handlers) for path, handlers in _ROUTES.items()}
    canonical = [path for path in methods if _canonical(path, methods) == path]
    canonical.insert(canonical.index("/v1/models") + 1, "/v1/models/{id}")
    methods["/v1/models/{id}"] = methods["/v1/models"]
    for route, of_one in (("/v1/messages/batches", _ONE_BATCH), ("/v1/files", _ONE_FILE)):
        for rest, handlers in reversed(of_one.items()):
            path = f"{route}/{{id}}/{rest}".removesuffix("/")
            methods[path] = ", ".join(handlers)
            canonical.insert(canonical.index(route) + 1, path)
    assert set(canonical) == set(_ROUTE_TEXTS)
    rows = [(methods[path], f"`{path}`", *_ROUTE_TEXTS[path]) for path in canonical]
    return table(("method", "path", "needs a key", "what"), rows)


def request_fields() -> str:
    rows = [(f"`{field.path}`", field.nature.value, "yes" if field.is_required else "") for field in REQUEST_FIELDS]
    return table(("field", "nature", "required"), rows)


# --- the engine protocol ---


def deltas() -> str:
    """Each delta, what it means, and the module that exports it."""
    rows = [("`str`", "A piece of text.", "")]
    for delta in DELTA_TYPES:
        if delta is not str:
            signature = str(inspect.signature(delta)).removesuffix(" -> None")
            module = "anthro_asgi" if delta.__name__ in anthro_asgi.__all__ else delta.__module__
            rows.append((f"`{delta.__name__}{_without_modules(signature)}`", summary(delta), f"`{module}`"))
    return table(("delta", "meaning", "import it from"), rows)


def _without_modules(signature: str) -> str:
    return signature.replace("typing.", "").replace("collections.abc.", "")


def engine_methods() -> str:
    rows = []
    for name, member in vars(BaseEngine).items():
        if inspect.isfunction(member) and not name.startswith("_"):
            kind = "async " if inspect.iscoroutinefunction(member) else ""
            parameters = ", ".join(list(inspect.signature(member).parameters)[1:])
            rows.append((f"`{kind}{name}({parameters})`", summary(member)))
    return table(("method", "what it does"), rows)


def keywords() -> str:
    """The keywords of MessagesApp, from its docstring and that of its base class."""
    defaults = {name: parameter.default for name, parameter in inspect.signature(MessagesApp).parameters.items()}
    rows = []
    for names, text in [*_arguments(MessagesApp), *_arguments(BaseApp)]:
        each = [name for name in names if name in defaults and name != "engine"]
        if each:
            rows.append((code(each), paragraph(text), ", ".join(_default(defaults[name]) for name in each)))
    return table(("keyword", "meaning", "default"), rows)


def _arguments(owner: type) -> Iterator[tuple[list[str], str]]:
    """The names and texts under `Args:` in the docstring of a class. A text that only refers to another is omitted."""
    described = (inspect.getdoc(owner) or "").partition("Args:")[2].partition("Attributes:")[0]
    for names, text in re.findall(r"^    ([\w, ]+): ((?:.|\n {8})+)", described, re.MULTILINE):
        if not text.startswith("see "):
            yield names.split(", "), text


def _default(value: Any) -> str:
    plain = isinstance(value, bool | int | float | str | tuple) or value is None
    return f"`{value!r}`" if plain else f"`{type(value).__name__}()`"


# --- the command line ---


def commands() -> str:
    return table(("command", "what it does"), [(f"`anthro-asgi {name}`", text) for name, text in _SUMMARIES.items()])


def help_texts() -> str:
    """The help of each command, with the common options, and of each action of a command."""
    names = [name for command in _SUMMARIES for name in (command, *(f"{command} {one}" for one in _actions(command)))]
    return "\n\n".join(f"### {name}\n\n```text\n{_help(name)}```" for name in names)


def _actions(command: str) -> list[str]:
    """Those in the help of the command: `load`, `report` and `record` of `bench`."""
    found = re.search(r"^positional arguments:\n  ([a-z|]+)\n    [a-z]+ ", _help(command), re.MULTILINE)
    return found[1].split("|") if found else []


def _help(command: str) -> str:
    shown = StringIO()
    columns = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "100"  # the width of the help
    try:
        with redirect_stdout(shown), suppress(SystemExit):
            main([*command.split(), "--help"])
    finally:
        if columns is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = columns
    return shown.getvalue()


# --- the simulator ---


def presets() -> str:
    rows = []
    for name, preset in PRESETS.items():
        figures = code(f"{key} = {_figure(value)}" for key, value in preset.items() if key != "source")
        rows.append((f"`{name}`", figures, paragraph(str(preset["source"]))))
    return table(("preset", "options", "source of the figures"), rows)


def _figure(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{kind}={rate:g}" for kind, rate in value.items())
    return str(value)
