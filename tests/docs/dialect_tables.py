"""The tables of docs/engines.md, from the dialects."""

from collections.abc import Callable
from typing import Final

from anthro_asgi.engines.openai.dialects import (
    DIALECTS,
    LLAMA_CPP_PYTHON,
    LLAMACPP,
    OLLAMA,
    PLAIN,
    SAMBANOVA,
    SGLANG,
    TENSORRT,
    TRANSFORMERS,
    VLLM,
    Dialect,
)
from tests.docs.markdown import table

COLUMNS: Final = (LLAMACPP, VLLM, SGLANG, TRANSFORMERS, LLAMA_CPP_PYTHON, OLLAMA, SAMBANOVA, TENSORRT, PLAIN)
"""The dialects of the first table."""
_SCHEMAS: Final = {"json_schema": "`json_schema`", "json_object": "`json_object` with `schema`", "no": "–"}


def _until_refused(dialect: Dialect, *, sent: bool) -> str:
    """A field that an unknown engine may refuse is sent to it until then."""
    if not sent:
        return "–"
    return "until refused" if dialect is PLAIN else "yes"


def _named_choice(dialect: Dialect) -> str:
    if dialect.named_choice:
        return "by name"
    return "that tool alone" if "tool_choice" in dialect.never else "that tool, required"


def _thinking_switch(dialect: Dialect) -> str:
    if dialect.thinking_on:
        return "yes"
    return "off only" if dialect.thinking_off else "–"


def _no_content(dialect: Dialect) -> str:
    if dialect.no_content == "":
        return "empty"
    return "null, until refused" if dialect is PLAIN else "null"


def _longest_answer(dialect: Dialect) -> str:
    """What becomes of `max_tokens` beyond the window. The last four dialects were seen to ignore it."""
    if dialect.bounds_answers:
        return "cut to the window"
    ignores = dialect in (LLAMACPP, TRANSFORMERS, LLAMA_CPP_PYTHON, OLLAMA)
    return "sent as requested" if ignores else "shortened after a refusal"


def _early_usage(dialect: Dialect) -> str:
    return "exact" if dialect.early_usage or "return_progress" in dialect.always else "estimate"


Cell = Callable[[Dialect], str]
# Each row: what it describes, its cells, and the test that shows it. Tuples hold what no field of a dialect says.
_ROWS: Final[tuple[tuple[str, Cell | tuple[str, ...], str], ...]] = (
    (
        "detected by",
        ("list, header, `/props`", "list", "list", "schema", "list", "list, `/api/version`", "list", "list", "–"),
        "test_an_engine_is_known_by_its_own_answers_at_the_start",
    ),
    (
        "matched stop sequence reported by",
        lambda it: "engine" if it.stops else "this service",
        "test_only_an_engine_that_receives_stop_strings_is_asked_to_report_the_match",
    ),
    (
        "usage in `message_start`",
        _early_usage,
        "test_early_counts_are_requested_from_engines_that_can_report_them",
    ),
    (
        "named `tool_choice`",
        _named_choice,
        "test_a_named_tool_choice_is_sent_by_name_or_narrowed_to_that_tool",
    ),
    (
        "`tool_choice: none`",
        lambda it: "sent" if it.none_choice else "tools left out",
        "test_tool_choice_none_is_sent_in_a_way_that_the_engine_honours",
    ),
    (
        "output schema",
        lambda it: _SCHEMAS[it.output_schema],
        "test_an_output_schema_has_the_form_that_the_engine_reads",
    ),
    (
        "`content` of a message with calls",
        _no_content,
        "test_the_content_beside_calls_is_null_or_empty_as_the_engine_accepts_it",
    ),
    (
        "`strict` on tools",
        lambda it: _until_refused(it, sent=it.strict_tools),
        "test_strict_is_sent_to_engines_that_know_it",
    ),
    (
        "prefill (a last message of the assistant)",
        (
            "supported",
            "with switches",
            "with switches",
            "starts a new turn",
            "starts a new turn",
            "–",
            "–",
            "–",
            "–",
        ),
        "test_a_trailing_assistant_turn_sends_the_prefill_switches_of_the_dialect",
    ),
    (
        "thinking switch",
        _thinking_switch,
        "test_thinking_is_switched_only_if_the_dialect_has_a_switch_and_the_client_asks",
    ),
    (
        "effort",
        lambda it: "yes" if it.effort else "–",
        "test_effort_is_sent_as_a_word_that_the_engine_knows",
    ),
    (
        "thinking history",
        lambda it: f"`{it.reasoning_key}`" if it.reasoning_key else "as it was seen",
        "test_thinking_in_the_history_is_sent_in_the_engines_reasoning_field",
    ),
    (
        "`top_k` (0 is never sent)",
        lambda it: _until_refused(it, sent=it.top_k),
        "test_no_engine_receives_a_field_that_it_would_refuse",
    ),
    (
        "`max_tokens` larger than the window",
        _longest_answer,
        "test_max_tokens_is_cut_to_the_known_context_length_in_advance",
    ),
    (
        "error `prompt is too long`",
        (
            "with numbers",
            "with numbers",
            "with numbers",
            "never refuses",
            "with numbers",
            "without numbers",
            "with numbers",
            "with numbers",
            "with numbers",
        ),
        "test_every_recorded_overflow_has_the_words_that_clients_act_on",
    ),
    (
        "`count_tokens`",
        lambda it: "exact" if it.counting != "no" else "tokenizer file or estimate",
        "test_the_count_equals_the_usage",
    ),
    (
        "window in `/v1/models`",
        ("yes", "yes", "yes", "–", "–", "–", "yes", "–", "if listed"),
        "test_the_limits_of_a_recorded_engine_are_listed",
    ),
)


def engine_table() -> str:
    """One column for each dialect of an engine that people run."""
    titles = {TRANSFORMERS.name: "transformers", PLAIN.name: "plain"}
    head = ["", *(titles.get(dialect.name, dialect.title) for dialect in COLUMNS), "shown by"]
    rows = []
    for name, cells, test in _ROWS:
        if not isinstance(cells, tuple):
            cells = tuple(cells(dialect) for dialect in COLUMNS)
        rows.append([name, *cells, f"`{test}`"])
    return table(head, rows)


def further_dialects() -> str:
    """One row for each other dialect."""
    head = [
        "",
        "thinking switch",
        "effort",
        "thinking history",
        "forced call",
        "`tool_choice: none`",
        "output schema",
        "`top_k`",
    ]
    return table(head, [_further(dialect) for dialect in DIALECTS.values() if dialect not in COLUMNS])


def _further(dialect: Dialect) -> list[str]:
    switch = next(iter(dialect.thinking_on), "")
    history = "think tags in the text" if dialect.thinking_tags else f"`{dialect.reasoning_key}`"
    needed = ", required beside calls" if dialect.needs_reasoning else ""
    forced = "yes" if dialect.forced_choice_while_thinking else "thinking off"
    return [
        f"`{dialect.name}`",
        f"`{switch}`" if switch else "–",
        "yes" if dialect.effort else "–",
        history + needed if dialect.thinking_tags or dialect.reasoning_key else "as it was seen",
        forced if dialect.forced_choice and "tool_choice" not in dialect.never else "–",
        "sent" if dialect.none_choice else "tools left out",
        "–" if dialect.output_schema == "no" else "yes",
        "yes" if dialect.top_k else "–",
    ]
