"""The table of docs/reference/log-events.md: what each event means, and its fields as the code logs them."""

import ast
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import anthro_asgi
from anthro_asgi.observability.logs import _RECORD_NAMES
from tests.docs.markdown import code, table

PACKAGE: Final = Path(anthro_asgi.__file__).parent
MEANINGS: Final[Mapping[str, str]] = {
    "started": "The service listens. At level `warning` if answers are simulated because no engine is named.",
    "simulated_by_default": "`create_app()` found no engine in the environment, so it simulates.",
    "engine_detected": "An engine that was not known at the start was reached, or another one took its place.",
    "engine_unreachable": "The engine did not answer when the service started.",
    "engine_without_models": "The upstream answered without a list of models when the service started. It may be no "
    "inference engine: then requests fail.",
    "engine_not_ready": "The engine rejected the upstream key when the service started (`reason` names the option), "
    "or one of several engines is not ready.",
    "engine_ready": "One of several engines is ready again.",
    "alias_of_unknown_model": "The engine does not list the model of a `--model-alias`.",
    "small_window": "The window of the model that clients are pointed to is too small for Claude Code.",
    "window_reduced": "The model file has a smaller window than `--model-context` demands.",
    "option_without_effect": "An option has no effect: the chosen engine does not use it, or another option takes its "
    "effect away. `reason` says which.",
    "ready": "`/readyz` reports that the engine can answer; before, it reported something else.",
    "not_ready": "`/readyz` reports that the engine cannot answer, and why.",
    "reloaded": "Keys and certificate were read again after SIGHUP.",
    "draining": "The service begins to stop. Open responses may continue for `timeout` seconds.",
    "stopped": "The service has stopped.",
    "upstream_error": "A request to the engine failed.",
    "upstream_error_message": "The engine's own error text. Only at level `debug`, because it may quote a prompt.",
    "engine_dialect_learned": "An engine accepted a request in a form that it had refused otherwise. The service uses "
    "this form for an hour.",
    "native_thread_unavailable": "The system had no thread or descriptor for the native path. Streams are relayed in "
    "the event loop. The service tries again when a stream begins and ten seconds have passed.",
    "cache_diagnosis": "A prompt was compared with the one before, see "
    "[Find out why a prefix cache misses](../how-to/prefix-cache.md). Only at level `debug`.",
    "model_not_found": "The engine does not have the model that a client requested.",
    "batch_created": "A client has created a message batch.",
    "batch_canceled": "A client has canceled a message batch.",
    "batch_deleted": "A client has deleted a message batch.",
    "batch_ended": "A message batch has ended: the counts of its outcomes, and its duration in seconds.",
    "batch_request_failed": "A request of a batch failed. `retried` says whether it will run again; at level `warning` "
    "if not. `attempts` counts those that failed; an engine that takes no requests costs none.",
    "batch_store_failed": "The store of message batches and files cannot be used; the service asks it again.",
    "batch_store_recovered": "The store of message batches and files can be used again.",
    "file_created": "A client has uploaded a file.",
    "file_deleted": "A client has deleted a file.",
    "compacted": "A summary stands for the beginning of a conversation, because of `--compact-at`.",
    "log_lines_dropped": "Lines were dropped before this one, because the reader of the log did not read.",
    "traces_disabled": "OpenTelemetry is not installed, or misconfigured.",
    "spans_lost": "Spans were not sent in time.",
}
_TEMPLATE: Final = re.compile(r"([a-z_]+)((?: [a-z_]+=%\([a-z_]+\)s)+)$")


def log_events() -> str:
    """Every event but `request` and `log`, with its fields. Raises KeyError for an event without a meaning."""
    found = logged()
    rows = [(f"`{name}`", meaning, code(sorted(found[name]))) for name, meaning in MEANINGS.items()]
    missing = found.keys() - MEANINGS.keys()
    if missing:
        raise KeyError(f"events without a meaning in {__name__}: {', '.join(sorted(missing))}")
    return table(("event", "when", "fields"), rows)


def request_fields() -> str:
    """The fields of the line `request`, in their order."""
    return code(_RECORD_NAMES)


def logged() -> dict[str, set[str]]:
    """The events that the package logs, and the fields of each."""
    events: dict[str, set[str]] = {}
    for path in PACKAGE.rglob("*.py"):
        module = ast.parse(path.read_text("utf-8"))
        functions = {node.name: node for node in ast.walk(module) if isinstance(node, ast.FunctionDef)}
        for node in ast.walk(module):
            for name, fields in _events(node, functions):
                events.setdefault(name, set()).update(fields)
    return events


def _events(node: ast.AST, functions: Mapping[str, ast.FunctionDef]) -> Iterator[tuple[str, set[str]]]:
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("log_event", "LogEvent"):
        if node.args and isinstance(node.args[0], ast.Constant):
            yield str(node.args[0].value), set(_keywords(node, functions))
    elif isinstance(node, ast.Constant) and isinstance(node.value, str):
        found = _TEMPLATE.fullmatch(node.value)
        if found is not None:
            yield found[1], set(re.findall(r"%\(([a-z_]+)\)s", found[2]))


def _keywords(call: ast.Call, functions: Mapping[str, ast.FunctionDef]) -> Iterator[str]:
    """The names of the fields. `**self.method()` stands for the keys of the dict that the method returns."""
    for argument in call.args[1:]:
        if isinstance(argument, ast.Dict):
            yield from (str(key.value) for key in argument.keys if isinstance(key, ast.Constant))
    for keyword in call.keywords:
        if keyword.arg is not None:
            yield keyword.arg
        elif isinstance(keyword.value, ast.Call) and isinstance(keyword.value.func, ast.Attribute):
            returned = ast.walk(functions[keyword.value.func.attr])
            for node in returned:
                if isinstance(node, ast.Return) and isinstance(node.value, ast.Dict):
                    yield from (str(key.value) for key in node.value.keys if isinstance(key, ast.Constant))
