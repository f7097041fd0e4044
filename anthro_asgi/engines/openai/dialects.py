"""The dialects of OpenAI-compatible engines, as data: which fields each engine accepts (contract section 8).

A field that an engine would refuse is not sent to it. The plain dialect is for an engine of which nothing is known: it
sends what most engines accept, and `refusals` says what to leave out when one does not. An engine that reports which
stop string matched receives the stop strings and stops by itself. For other engines this service matches the stop
sequences and cancels the generation.

An engine is recognised by what it has, never by what it lacks: the host name of its URL if it is a hosted API, its
model list, the `server` header of that response, and if these do not identify it, a path that only one engine has
(`PROBES`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

Extras = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Dialect:
    """How to ask one engine. `title` is for users to read. Extras are merged into the body of a chat request."""

    name: str
    title: str
    top_k: bool = False
    stops: bool = False
    """The engine receives the stop strings, and reports which one matched."""
    max_stops: int | None = None
    """The engine refuses more stop strings than this. The others are matched by this service alone."""
    always: Extras = field(default_factory=dict)
    """Sent with every request, so that the engine reports more."""
    never: frozenset[str] = frozenset()
    """Fields of a chat request that this engine refuses, or ignores now and may refuse in another version."""
    max_tokens_field: str = "max_tokens"
    """The field that limits the answer's tokens."""
    early_usage: Extras = field(default_factory=dict)
    """Merged into `stream_options`, so that the first chunk reports the length of the prompt."""
    stop_extras: Extras = field(default_factory=dict)
    """Sent with stop strings, so that the engine reports which one matched."""
    thinking_on: Extras = field(default_factory=dict)
    """Sent when the client asks for thinking. Empty for an engine without a switch."""
    thinking_off: Extras = field(default_factory=dict)
    """Sent when the client disables thinking. Empty for an engine without a switch."""
    thinks: bool = False
    """The model may think in any answer, unless the request switches thinking off."""
    thinks_when_off: bool = False
    """The model may think although the request switches thinking off."""
    thinking_budget: str | None = None
    """The field that limits the tokens of the reasoning."""
    effort: bool = False
    """The engine accepts `reasoning_effort` with the values low, medium and high."""
    reasoning_key: str | None = None
    """The field of an assistant message in the history that holds its reasoning."""
    no_content: str | None = None
    """The `content` of an assistant message that has only calls: null, or "" where null breaks the engine."""
    needs_reasoning: bool = False
    """The engine refuses an assistant message with calls and without reasoning, so an empty text is sent for it."""
    thinking_tags: bool = False
    """The engine writes its reasoning into the text between think tags, and expects it there in the history."""
    call_id_length: int | None = None
    """The engine accepts only call ids of this many letters and digits, so other ids are replaced."""
    thought_signatures: bool = False
    """The engine signs its calls, and expects the signature in the history (see `call_ids`)."""
    strict_tools: bool = False
    """The engine knows `strict` on a tool."""
    strict_schema: bool = True
    """The engine accepts `strict` on an output schema."""
    output_schema: Literal["no", "json_schema", "json_object"] = "json_schema"
    """The type of `response_format` that takes the client's schema; "no" for an engine that ignores the schema."""
    text_in_tool_result: bool = False
    """Only an assistant turn may follow a tool message, so text for that place goes into the last tool message."""
    named_choice: bool = True
    """The engine honours a named tool choice. If not, only that tool is sent, with the choice `required`."""
    forced_choice: bool = True
    """The engine accepts a tool choice that forces a call. If not, `auto` is sent, and only the named tool."""
    forced_choice_while_thinking: bool = True
    """The engine accepts such a choice while it thinks. If not, thinking is switched off for the request."""
    none_choice: bool = True
    """The engine honours the tool choice `none`. If not, the tools are left out."""
    longest_tool_name: int | None = None
    """In characters. Longer names are refused, so they are shortened (see `tool_names`)."""
    late_system: bool = False
    """The engine accepts a system message between turns."""
    prefill: Extras = field(default_factory=dict)
    """Sent if the last message is the assistant's, so that the answer continues it."""
    prefill_mark: Extras = field(default_factory=dict)
    """Merged into that last message, for an engine that marks the message itself."""
    counting: Literal["no", "tokenize", "input_tokens"] = "no"
    """The endpoint that counts the tokens of a chat request (see `count_tokens`)."""
    empty_stream_is_refusal: bool = False
    """The engine answers a streaming request that it refuses with an empty 200; without a stream it says why."""
    one_at_a_time: bool = False
    """The engine breaks off an answer when another request arrives, so requests wait for each other."""
    counts_tool_choice: bool = False
    """The endpoint that counts takes the tool choice, which changes the prompt."""
    bounds_answers: bool = False
    """The engine refuses a `max_tokens` above the model's context window, whatever the length of the prompt."""
    longest_answer: int | None = None
    """The largest `max_tokens` that the engine accepts, as its refusal has told; None: unknown."""
    reserved_window: int | None = None
    """The context window of an engine that refuses `max_tokens` for which the prompt leaves no room; None: unknown."""
    prompt_scale: float = 1.0
    """By how much a prompt is longer than its estimate, on an engine with a `reserved_window`."""


PLAIN: Final = Dialect("openai", "an OpenAI-compatible server", top_k=True, strict_tools=True, longest_tool_name=64)

_SWITCH_ON: Final = {"chat_template_kwargs": {"enable_thinking": True}}
_SWITCH_OFF: Final = {"chat_template_kwargs": {"enable_thinking": False}}
# Qwen and GLM templates know one name, DeepSeek and Kimi templates the other. Each ignores the name it does not know.
_BOTH_ON: Final = {"chat_template_kwargs": {"enable_thinking": True, "thinking": True}}
_BOTH_OFF: Final = {"chat_template_kwargs": {"enable_thinking": False, "thinking": False}}

LLAMACPP: Final = Dialect(
    "llamacpp",
    "llama.cpp",
    top_k=True,
    stops=True,
    # costs one or two more chunks per answer; `timings_per_token` would repeat the counts with every token
    always={"return_progress": True},
    stop_extras={"verbose": True},
    thinking_on=_SWITCH_ON,
    thinking_off=_SWITCH_OFF,
    thinking_budget="thinking_budget_tokens",
    effort=True,
    reasoning_key="reasoning_content",
    named_choice=False,
    counting="input_tokens",
)
VLLM: Final = Dialect(
    "vllm",
    "vLLM",
    top_k=True,
    stops=True,
    max_stops=4,  # VLLM_MAX_STOP_STRINGS
    early_usage={"continuous_usage_stats": True},
    thinking_on=_BOTH_ON,
    thinking_off=_BOTH_OFF,
    thinking_budget="thinking_token_budget",
    effort=True,
    reasoning_key="reasoning",
    strict_tools=True,
    prefill={"add_generation_prompt": False, "continue_final_message": True},
    counting="tokenize",
    bounds_answers=True,
)
SGLANG: Final = Dialect(
    "sglang",
    "SGLang",
    top_k=True,
    stops=True,
    early_usage={"continuous_usage_stats": True},
    thinking_on=_BOTH_ON,
    thinking_off=_BOTH_OFF,
    effort=True,
    reasoning_key="reasoning_content",
    strict_tools=True,
    prefill={"continue_final_message": True},
    counting="tokenize",
    counts_tool_choice=True,
    bounds_answers=True,
)
# It refuses unknown fields, reports usage without being asked, and ignores the tool choice and the output schema.
TRANSFORMERS: Final = Dialect(
    "transformers",
    "transformers serve",
    never=frozenset({"stream_options", "tool_choice", "parallel_tool_calls", "user"}),
    thinking_on=_SWITCH_ON,
    thinking_off=_SWITCH_OFF,
    no_content="",
    output_schema="no",
    named_choice=False,
    none_choice=False,
)
# It answers 500 to a null content. It reads a schema only in its own form of `response_format`.
LLAMA_CPP_PYTHON: Final = Dialect(
    "llama-cpp-python",
    "llama-cpp-python",
    top_k=True,
    no_content="",
    output_schema="json_object",
    empty_stream_is_refusal=True,
    one_at_a_time=True,
)
# There is no switch to turn thinking on, because Ollama refuses it for a model that cannot think.
OLLAMA: Final = Dialect(
    "ollama",
    "Ollama",
    never=frozenset({"tool_choice"}),
    thinking_off={"reasoning_effort": "none"},
    effort=True,
    reasoning_key="reasoning",
    named_choice=False,
    none_choice=False,
)
SAMBANOVA: Final = Dialect(
    "sambanova",
    "SambaNova",
    top_k=True,
    longest_tool_name=64,
    never=frozenset({"user"}),
    thinking_on=_SWITCH_ON,
    thinking_off=_SWITCH_OFF,
    effort=True,
    reasoning_key="reasoning",
)
# Older versions refuse `parallel_tool_calls`, newer versions ignore it.
TENSORRT: Final = Dialect(
    "tensorrt-llm",
    "TensorRT-LLM",
    top_k=True,
    stops=True,
    never=frozenset({"parallel_tool_calls"}),
    early_usage={"continuous_usage_stats": True},
    thinking_on=_SWITCH_ON,
    thinking_off=_SWITCH_OFF,
    effort=True,
)

# It refuses unknown fields, and names the tool choice without obeying it unless it was started with a tool parser.
MAX: Final = Dialect(
    "max",
    "MAX serve",
    top_k=True,
    thinking_on=_SWITCH_ON,
    thinking_off=_SWITCH_OFF,
    effort=True,
    no_content="",
)
# It ignores the tool choice and the output schema.
MLX_LM: Final = Dialect(
    "mlx-lm",
    "mlx_lm.server",
    top_k=True,
    never=frozenset({"tool_choice", "parallel_tool_calls"}),
    thinking_on=_SWITCH_ON,
    thinking_off=_SWITCH_OFF,
    reasoning_key="reasoning",
    no_content="",
    output_schema="no",
    named_choice=False,
    none_choice=False,
)
VLLM_MLX: Final = Dialect(
    "vllm-mlx",
    "vllm-mlx",
    top_k=True,
    thinking_on=_SWITCH_ON,
    thinking_off=_SWITCH_OFF,
    reasoning_key="reasoning_content",
    no_content="",
)
FASTLLM: Final = Dialect(
    "fastllm",
    "fastllm",
    top_k=True,
    thinking_on=_SWITCH_ON,
    thinking_off=_SWITCH_OFF,
    reasoning_key="reasoning_content",
    no_content="",
)
# Its frontend refuses unknown fields, whatever the engine behind it accepts.
DYNAMO: Final = Dialect(
    "dynamo",
    "NVIDIA Dynamo",
    top_k=True,
    thinking_on=_BOTH_ON,
    thinking_off=_BOTH_OFF,
    effort=True,
    reasoning_key="reasoning_content",
)

# Hosted APIs, from their published references.

_OBJECT_ON: Final = {"thinking": {"type": "enabled"}}
_OBJECT_OFF: Final = {"thinking": {"type": "disabled"}}

# JSON without a schema is all that its `response_format` can ask for.
DEEPSEEK: Final = Dialect(
    "deepseek",
    "DeepSeek",
    longest_tool_name=64,
    thinking_on=_OBJECT_ON,
    thinking_off=_OBJECT_OFF,
    effort=True,
    reasoning_key="reasoning_content",
    needs_reasoning=True,
    output_schema="no",
    forced_choice_while_thinking=False,
)
MOONSHOT: Final = Dialect(
    "moonshot",
    "Moonshot (Kimi)",
    longest_tool_name=64,
    thinking_on=_OBJECT_ON,
    thinking_off=_OBJECT_OFF,
    reasoning_key="reasoning_content",
    needs_reasoning=True,
    prefill_mark={"partial": True},
    forced_choice_while_thinking=False,
)
# The tool choice `auto` is the only one. JSON without a schema is all that its `response_format` can ask for.
ZAI: Final = Dialect(
    "zai",
    "Z.AI (GLM)",
    longest_tool_name=64,
    thinking_on=_OBJECT_ON,
    thinking_off=_OBJECT_OFF,
    reasoning_key="reasoning_content",
    output_schema="no",
    named_choice=False,
    none_choice=False,
    forced_choice=False,
)
# The tool choices are `auto` and `none`.
MINIMAX: Final = Dialect(
    "minimax",
    "MiniMax",
    longest_tool_name=64,
    thinking_tags=True,
    output_schema="no",
    named_choice=False,
    forced_choice=False,
)
# It refuses unknown fields. Its reasoning is a part of the content, which it accepts back as text only.
MISTRAL: Final = Dialect(
    "mistral",
    "Mistral",
    longest_tool_name=64,
    never=frozenset({"user", "stream_options"}),
    strict_tools=True,
    call_id_length=9,
    prefill_mark={"prefix": True},
    text_in_tool_result=True,
)
XAI: Final = Dialect("xai", "xAI", longest_tool_name=64)
GEMINI: Final = Dialect(
    "gemini",
    "Gemini (OpenAI endpoint)",
    longest_tool_name=64,
    effort=True,
    thought_signatures=True,
)
OPENROUTER: Final = Dialect(
    "openrouter",
    "OpenRouter",
    top_k=True,
    longest_tool_name=64,
    thinking_on={"reasoning": {"enabled": True}},
    thinking_off={"reasoning": {"enabled": False}},
    reasoning_key="reasoning",
    strict_tools=True,
)
GROQ: Final = Dialect("groq", "Groq", longest_tool_name=64, strict_tools=True)

DIALECTS: Final = {
    dialect.name: dialect
    for dialect in (
        PLAIN,
        LLAMACPP,
        VLLM,
        SGLANG,
        OLLAMA,
        SAMBANOVA,
        TENSORRT,
        TRANSFORMERS,
        LLAMA_CPP_PYTHON,
        MAX,
        MLX_LM,
        VLLM_MLX,
        FASTLLM,
        DYNAMO,
        DEEPSEEK,
        MOONSHOT,
        ZAI,
        MINIMAX,
        MISTRAL,
        XAI,
        GEMINI,
        OPENROUTER,
        GROQ,
    )
}

# recognising an engine

_BY_HOST: Final = {
    "api.deepseek.com": DEEPSEEK,
    "api.moonshot.ai": MOONSHOT,
    "api.moonshot.cn": MOONSHOT,
    "api.z.ai": ZAI,
    "open.bigmodel.cn": ZAI,
    "api.minimax.io": MINIMAX,
    "api.minimaxi.com": MINIMAX,
    "api.mistral.ai": MISTRAL,
    "api.x.ai": XAI,
    "generativelanguage.googleapis.com": GEMINI,
    "openrouter.ai": OPENROUTER,
    "api.groq.com": GROQ,
    "api.sambanova.ai": SAMBANOVA,
}
# Engines that put their own name into the list. One entry is enough: a server may list adapters of other owners.
_BY_OWNER: Final = {
    "llamacpp": LLAMACPP,
    "vllm": VLLM,
    "sglang": SGLANG,
    "library": OLLAMA,
    "sambanova": SAMBANOVA,
    "no-reply@sambanova.ai": SAMBANOVA,
    "tensorrt_llm": TENSORRT,
    "me": LLAMA_CPP_PYTHON,
    "fastllm": FASTLLM,
    "vllm-mlx": VLLM_MLX,
}
# Makers of models. A gateway lists models of several makers, so all entries must have the same owner.
_BY_MAKER: Final = {
    "deepseek": DEEPSEEK,
    "moonshot": MOONSHOT,
    "z-ai": ZAI,
    "minimax": MINIMAX,
    "mistralai": MISTRAL,
    "xai": XAI,
    "google": GEMINI,
}


def by_host(host: str) -> Dialect | None:
    """The dialect of a hosted API with this host name; None if the host is not known."""
    return _BY_HOST.get(host.lower())


def recognise(models: Any, server: str) -> Dialect | None:
    """The dialect of an engine from its answer to `GET /v1/models`; None if that does not identify it.

    `models` is the parsed body, None if there is none. `server` is the answer's `server` header.
    """
    if server.lower().startswith("llama.cpp"):
        return LLAMACPP
    listed = models.get("data") if isinstance(models, dict) else None
    entries = [entry for entry in listed if isinstance(entry, dict)] if isinstance(listed, list) else []
    owners = [owner.lower() for entry in entries if isinstance(owner := entry.get("owned_by"), str)]
    for owner in owners:
        if owner in _BY_OWNER:
            return _BY_OWNER[owner]
    if not entries:
        return None
    if len(owners) == len(entries) and len(set(owners)) == 1:
        if owners[0] == "nvidia" and _all_have(entries, "context_window"):
            return DYNAMO
        return MAX if owners[0] == "" and _all_have(entries, "shutdown_date") else _BY_MAKER.get(owners[0])
    # mlx_lm is one of few servers that stand on the standard library
    return MLX_LM if server.startswith("BaseHTTP/") and not owners and _all_have(entries, "created") else None


def _all_have(entries: list[dict[str, Any]], key: str) -> bool:
    return all(key in entry for entry in entries)


def _by_version(answer: Any) -> Dialect | None:
    return OLLAMA if isinstance(answer, dict) and set(answer) == {"version"} else None


def _by_properties(answer: Any) -> Dialect | None:
    return LLAMACPP if isinstance(answer, dict) and "default_generation_settings" in answer else None


# Paths that `transformers serve` has together, by version. Its title is FastAPI's own.
_TRANSFORMERS_PATHS: Final = (
    {"/v1/chat/completions", "/load_model", "/reset"},
    {"/v1/chat/completions", "/v1/responses", "/v1/audio/transcriptions", "/health"},
)


def _by_schema(answer: Any) -> Dialect | None:
    """The dialect from FastAPI's description of the server: its title and its paths."""
    info, paths = (answer.get("info"), answer.get("paths")) if isinstance(answer, dict) else (None, None)
    if not isinstance(info, dict) or not isinstance(paths, dict):
        return None
    if "llama.cpp" in str(info.get("title")):
        return LLAMA_CPP_PYTHON
    if "/flush_cache" in paths:
        return SGLANG
    if "/tokenize" in paths and "/version" in paths:
        return VLLM
    own = any(paths.keys() >= together for together in _TRANSFORMERS_PATHS)
    return TRANSFORMERS if own and info.get("title") == "FastAPI" else None


PROBES: Final[tuple[tuple[str, Callable[[Any], Dialect | None]], ...]] = (
    ("/api/version", _by_version),
    ("/props", _by_properties),
    ("/openapi.json", _by_schema),
)
"""Paths (beside `/v1`) that identify an engine whose model list does not, and how to read the JSON each returns."""
