"""The parts of pages that are computed from the code.

Such a part stands between the lines `<!-- generated NAME: begin -->` and `<!-- generated NAME: end -->`.
"""

import re
from collections.abc import Callable, Mapping
from typing import Final

from anthro_asgi.settings.options import markdown_table
from tests.checks.faults.table import expected_of_processes, expected_outcomes, tables
from tests.docs import dialect_tables, log_events, reference_tables

PARTS: Final[Mapping[str, Callable[[], str]]] = {
    "options": markdown_table,
    "options without effect": reference_tables.options_without_effect,
    "commands": reference_tables.commands,
    "help texts": reference_tables.help_texts,
    "routes": reference_tables.routes,
    "request fields": reference_tables.request_fields,
    "errors": reference_tables.errors,
    "metrics": reference_tables.metrics,
    "metric labels": reference_tables.metric_labels,
    "repairs": reference_tables.repairs,
    "log events": log_events.log_events,
    "fields of a request line": log_events.request_fields,
    "deltas": reference_tables.deltas,
    "engine methods": reference_tables.engine_methods,
    "engine errors": reference_tables.engine_errors,
    "keywords": reference_tables.keywords,
    "engines": dialect_tables.engine_table,
    "further dialects": dialect_tables.further_dialects,
    "presets": reference_tables.presets,
    "faults": lambda: tables(expected_outcomes(), expected_of_processes()),
}


def renewed(text: str) -> str:
    """The text of a page with every generated part as the code says now. Raises KeyError for an unknown name."""
    return re.sub(
        r"(<!-- generated ([\w ]+): begin -->\n).*?(<!-- generated \2: end -->)",
        lambda found: f"{found[1]}{PARTS[found[2]]().strip()}\n{found[3]}",
        text,
        flags=re.DOTALL,
    )


def names(text: str) -> list[str]:
    """The names of the generated parts of a page."""
    return re.findall(r"<!-- generated ([\w ]+): end -->", text)
