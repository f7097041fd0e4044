"""What each OpenAI-compatible engine can do, and how to ask it, as data (contract section 8).

An option that an engine would refuse is never sent to it, so the plain dialect asks for little. An engine that tells
which stop string matched is given them and stops by itself; for the others the stop sequences are matched here and the
generation is cut off.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

Extras = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Dialect:
    """One engine's way of speaking. `title` is for people. Extras are merged into the body of a chat request."""

    name: str
    title: str
    top_k: bool = False
    stops: bool = False
    """The engine is given the stop strings, and says which one matched."""
    always: Extras = field(default_factory=dict)
    """Sent with every request: what makes an engine tell more."""
    early_usage: Extras = field(default_factory=dict)
    """Merged into `stream_options`, so that the prompt's length comes with the first chunk."""
    stop_extras: Extras = field(default_factory=dict)
    """Sent with stop strings, so that the match is told."""
    thinking_switch: bool = False
    """`chat_template_kwargs.enable_thinking` turns reasoning on and off."""
    effort: bool = False
    """`reasoning_effort` is known, as low, medium or high."""
    reasoning_key: str | None = None
    """Where an assistant message of the history carries its reasoning."""
    named_choice: bool = True
    """A named tool choice is honoured; else that tool alone is sent, as required."""
    late_system: bool = False
    """A system message may stand between turns."""
    prefill: Extras = field(default_factory=dict)
    """Sent when the last message is the assistant's, so that the reply continues it."""


PLAIN: Final = Dialect("openai", "an OpenAI-compatible server")

LLAMACPP: Final = Dialect(
    "llamacpp",
    "llama.cpp",
    top_k=True,
    stops=True,
    always={"return_progress": True},
    stop_extras={"verbose": True},
    thinking_switch=True,
    reasoning_key="reasoning_content",
    named_choice=False,
)
VLLM: Final = Dialect(
    "vllm",
    "vLLM",
    top_k=True,
    stops=True,
    early_usage={"continuous_usage_stats": True},
    thinking_switch=True,
    effort=True,
    reasoning_key="reasoning",
    prefill={"add_generation_prompt": False, "continue_final_message": True},
)
SGLANG: Final = Dialect(
    "sglang",
    "SGLang",
    top_k=True,
    stops=True,
    early_usage={"continuous_usage_stats": True},
    thinking_switch=True,
    effort=True,
    reasoning_key="reasoning_content",
    prefill={"continue_final_message": True},
)
OLLAMA: Final = Dialect("ollama", "Ollama", effort=True, named_choice=False)
SAMBANOVA: Final = Dialect("sambanova", "SambaNova", top_k=True, thinking_switch=True)
TENSORRT: Final = Dialect("tensorrt-llm", "TensorRT-LLM", top_k=True, stops=True, thinking_switch=True)

DIALECTS: Final = {dialect.name: dialect for dialect in (PLAIN, LLAMACPP, VLLM, SGLANG, OLLAMA, SAMBANOVA, TENSORRT)}

_BY_OWNER: Final = {
    "llamacpp": LLAMACPP,
    "vllm": VLLM,
    "sglang": SGLANG,
    "library": OLLAMA,
    "sambanova": SAMBANOVA,
    "no-reply@sambanova.ai": SAMBANOVA,
    "tensorrt_llm": TENSORRT,
}


def recognise(models: Any, server: str) -> Dialect:
    """The dialect of an engine, by its answer to `GET /v1/models` and that answer's `server` header."""
    if server.lower().startswith("llama.cpp"):
        return LLAMACPP
    entries = models.get("data") if isinstance(models, dict) else None
    for entry in entries if isinstance(entries, list) else ():
        owner = entry.get("owned_by") if isinstance(entry, dict) else None
        known = _BY_OWNER.get(owner.lower()) if isinstance(owner, str) else None
        if known is not None:
            return known
    return PLAIN
