"""The options, each written once.

`Settings` is the table: an attribute a row, with its type, default, bounds and help. The command line, the environment
(`ANTHRO_ASGI_…`), the TOML file and the README's table are read off it. `config` settles what is given in several of
them. Secrets come from the environment or a file of their own, since `ps` shows a command line to everybody on the
machine.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Final, Literal

from .values import (
    ALIAS,
    FILE,
    KEY,
    SWITCH,
    URL,
    ValueType,
    any_text,
    choice,
    duration,
    integer,
    matching,
    part,
    rated,
    size,
    spread,
)

PREFIX: Final = "ANTHRO_ASGI_"
DIALECTS: Final = (
    *("auto", "openai", "vllm", "sglang", "llamacpp", "ollama", "sambanova", "tensorrt-llm"),
    *("transformers", "llama-cpp-python"),
)
FAILURES: Final = ("429", "529", "500", "error", "stall", "cut")
EXCLUSIVE: Final = (("simulate", "upstream", "engine", "model"), ("uds", "host"), ("uds", "port"))

Channel = Literal["line", "environment", "file"]
Command = Literal["serve", "check", "health", "simulate-openai"]


class ConfigError(Exception):
    """What was asked for makes no sense; the text is one line for the operator. `status` is the exit status."""

    status: ClassVar[int] = 2


class ResourceUnavailable(ConfigError):
    """It makes sense, but the machine would not: a port in use, a file that cannot be read."""

    status = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One row. `default` is written as an operator would write it; None is absent."""

    name: str
    group: str
    default: str | None
    kind: ValueType
    help: str
    many: bool
    channels: tuple[Channel, ...]
    commands: tuple[Command, ...]

    @property
    def attribute(self) -> str:
        return self.name.replace("-", "_")

    @property
    def variable(self) -> str:
        return PREFIX + self.attribute.upper()

    @property
    def secret(self) -> bool:
        return self.channels == SECRET

    def value(self, texts: Sequence[str], where: str) -> Any:
        """What `texts` mean. Raises ConfigError, whose line begins with `where` they stood."""
        if not self.many and len(texts) != 1:
            raise ConfigError(f"{where}: takes one value, not {len(texts)}")
        values = []
        for text in texts:
            try:
                values.append(self.kind.parse(text))
            except ValueError as exc:
                shown = f"{text!r:.80} " if self.kind.shown else ""
                raise ConfigError(f"{where}: {shown}{exc}") from exc
        return tuple(values) if self.many else values[0]


ANYWHERE: Final[tuple[Channel, ...]] = ("line", "environment", "file")
SECRET: Final[tuple[Channel, ...]] = ("environment",)
SERVE: Final[tuple[Command, ...]] = ("serve",)
CHECK: Final[tuple[Command, ...]] = ("check",)
HEALTH: Final[tuple[Command, ...]] = ("health",)
BOTH: Final[tuple[Command, ...]] = ("serve", "check")
_SIMULATING: Final = ("General", "Listening", "Access", "Simulation")  # groups that `simulate-openai` has too
WHERE: Final[tuple[Command, ...]] = ("serve", "health")  # what says where the server is
ALL: Final[tuple[Command, ...]] = ("serve", "check", "health")


# --- the table ---


def _row(
    group: str,
    default: str | None,
    kind: ValueType,
    help: str,  # noqa: A002 - the row's column
    *,
    many: bool = False,
    channels: tuple[Channel, ...] = ANYWHERE,
    commands: tuple[Command, ...] = SERVE,
) -> Any:
    row = {**locals()}
    if group in _SIMULATING and "serve" in commands:
        row["commands"] = (*commands, "simulate-openai")
    return field(metadata=row, repr=channels != SECRET)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What was settled. Durations are in seconds, sizes in bytes; None is neither given nor defaulted."""

    config: str | None = _row(
        "General", None, FILE, "TOML file of options", channels=("line", "environment"), commands=ALL
    )
    log_level: str = _row("General", "info", choice("debug", "info", "warning", "error"), "what is logged, on stderr")
    log_format: str = _row("General", "json", choice("json", "text"), "one JSON object or one text a line")
    workers: int = _row("General", "1", integer("1", "256"), "processes that serve; limits are those of each")
    drain_delay: float = _row(
        "General", "0s", duration("0s", "1h"), "after SIGTERM serve on for so long, not ready, until balancers notice"
    )
    drain_timeout: float = _row(
        "General", "30s", duration("0s", "24h"), "how long open answers may run on after SIGTERM or SIGINT"
    )

    simulate: bool = _row(
        "Engine", "false", SWITCH, "seeded text on a clock, no model: so it is when no engine is named"
    )
    upstream: str | None = _row(
        "Engine",
        None,
        URL,
        "engine with an OpenAI-compatible or Messages API: http://…, https://… or unix:/path",
        commands=BOTH,
    )
    engine: str | None = _row(
        "Engine", None, matching("MODULE:ATTR", r"[\w.]+:[\w.]+", "is not module:attr"), "engine written in Python"
    )
    upstream_api: str = _row(
        "Engine", "auto", choice("auto", "chat", "messages"), "what API of the upstream is used", commands=BOTH
    )
    dialect: str = _row("Engine", "auto", choice(*DIALECTS), "what the upstream is; auto asks it", commands=BOTH)
    model: str | None = _row("Engine", None, FILE, "model file (GGUF) to serve by llama.cpp (extra llama)")
    model_context: int = _row(
        "Engine", "0", integer("0", "100000000"), "tokens for each request of a model file; 0 is all it was made for"
    )
    model_slots: int = _row("Engine", "4", integer("1", "1024"), "requests that a model file answers at one time")
    model_threads: int = _row("Engine", "0", integer("0", "1024"), "threads for a model file; 0 is by the machine")
    try_model: str | None = _row(
        "Engine", None, any_text("NAME"), "model to try instead of the first listed", channels=("line",), commands=CHECK
    )
    late_system: str = _row(
        "Engine", "auto", choice("auto", "keep", "fold"), "system messages between turns; fold makes them user text"
    )
    think_tags: str = _row(
        "Engine", "off", choice("off", "tags", "open"), "`<think>` in text is thinking; open: the template begins it"
    )

    host: str = _row("Listening", "127.0.0.1", any_text("HOST"), "address or name to listen on", commands=WHERE)
    port: int = _row("Listening", "8484", integer("0", "65535"), "port to listen on; 0 is any free one", commands=WHERE)
    uds: str | None = _row(
        "Listening",
        None,
        any_text("PATH"),
        "Unix socket to listen on instead; the umask says who may connect",
        commands=WHERE,
    )
    reuse_port: bool = _row(
        "Listening", "false", SWITCH, "share the port with servers that do so too: a restart without a gap"
    )
    max_head: int = _row("Listening", "64KiB", size("1K", "1M"), "largest head of a request")
    receive_deadline: float = _row(
        "Listening", "1m", duration("10ms", "24h"), "longest time for a request to arrive whole"
    )
    stall_deadline: float = _row(
        "Listening", "2m", duration("10ms", "24h"), "longest time for which a client may take nothing of its answer"
    )
    tls_cert: str | None = _row("Listening", None, FILE, "certificate chain (PEM): serve https", commands=WHERE)
    tls_key: str | None = _row("Listening", None, FILE, "private key of the certificate (PEM)", commands=WHERE)

    ready: bool = _row(
        "Listening",
        "false",
        SWITCH,
        "ask whether it is ready, not whether it lives",
        channels=("line",),
        commands=HEALTH,
    )

    api_keys: tuple[str, ...] = _row(
        "Access", None, KEY, "keys clients may use, comma separated", many=True, channels=SECRET
    )
    api_key_file: str | None = _row("Access", None, FILE, "file with those keys, one a line; `#` starts a comment line")
    no_auth: bool = _row("Access", "false", SWITCH, "let anybody in, on any address")

    max_concurrency: int = _row("Admission", "1024", integer("1", "65536"), "most answers at one time")
    max_queue: int = _row("Admission", "1024", integer("0", "1000000"), "most requests that wait for their turn")
    queue_timeout: float = _row("Admission", "5s", duration("0s", "24h"), "longest wait for a turn")
    max_concurrency_per_key: int | None = _row(
        "Admission", None, integer("1", "65536"), "most answers at one time, waiting ones too, for one API key"
    )

    upstream_key: str | None = _row("Upstream", None, KEY, "key the upstream asks for", channels=SECRET, commands=BOTH)
    upstream_key_file: str | None = _row(
        "Upstream", None, FILE, "file with the key the upstream asks for", commands=BOTH
    )
    upstream_ca: str | None = _row(
        "Upstream", None, FILE, "certificates (PEM) to trust beside the system's", commands=BOTH
    )
    upstream_cert: str | None = _row(
        "Upstream", None, FILE, "certificate (PEM) to show to an https upstream", commands=BOTH
    )
    upstream_cert_key: str | None = _row("Upstream", None, FILE, "private key of that certificate (PEM)", commands=BOTH)
    connect_deadline: float = _row(
        "Upstream", "5s", duration("10ms", "10m"), "longest wait for a connection", commands=BOTH
    )
    first_byte_deadline: float = _row(
        "Upstream", "10m", duration("10ms", "24h"), "longest wait for an answer to begin", commands=BOTH
    )
    silence_deadline: float = _row(
        "Upstream", "2m", duration("10ms", "24h"), "longest pause within an answer", commands=BOTH
    )

    total_deadline: float = _row(
        "Upstream", "1h", duration("10ms", "240h"), "longest time for a whole answer", commands=BOTH
    )
    max_event: int = _row("Upstream", "16MiB", size("1K", "1G"), "largest event of an answer's stream")
    max_tool_input: int = _row("Upstream", "16MiB", size("1K", "1G"), "largest input of a tool call")
    max_answer: int = _row("Upstream", "64MiB", size("1K", "1G"), "largest answer that is given whole")

    ping_interval: float = _row("Messages", "10s", duration("10ms", "1h"), "a stream silent for that long gets a ping")
    max_body: int = _row("Messages", "32MiB", size("1K", "1G"), "largest request body")
    max_decompressed: int = _row("Messages", "32MiB", size("1K", "1G"), "largest request body once it is decompressed")
    max_depth: int = _row("Messages", "100", integer("1", "1000"), "deepest JSON in schemas and tool inputs")
    max_messages: int = _row("Messages", "100000", integer("1", "1000000"), "most messages of a request")
    max_tools: int = _row("Messages", "1024", integer("1", "100000"), "most tools of a request")
    max_stop_sequences: int = _row("Messages", "256", integer("1", "10000"), "most stop sequences of a request")
    model_alias: tuple[tuple[str, str], ...] = _row(
        "Messages", None, ALIAS, "serve MODEL as NAME too; a `*` in NAME matches any_text", many=True
    )
    tokenizer: str | None = _row(
        "Messages", None, FILE, "tokenizer.json to count tokens with, where the engine does not count"
    )
    hide_thinking: bool = _row(
        "Messages", "false", SWITCH, "leave reasoning out where the client said thinking is disabled"
    )
    server_tools: str = _row("Messages", "refuse", choice("refuse", "drop"), "tools that run on Anthropic's servers")
    client_tools: str = _row(
        "Messages", "refuse", choice("refuse", "function"), "Anthropic's `bash_…`, `text_editor_…` and `memory_…` tools"
    )
    image_urls: str = _row("Messages", "refuse", choice("refuse", "pass"), "images by address, for the engine to fetch")
    keep_billing_header: bool = _row(
        "Messages", "false", SWITCH, "leave Claude Code's changing billing line in the system prompt"
    )

    simulate_profile: str | None = _row(
        "Simulation",
        None,
        any_text("FILE|PRESET"),
        "what the others of these options are where they are not given; see below",
    )
    simulate_ttft: tuple[str, float, float] = _row(
        "Simulation", "20ms", spread(duration("0s", "1h")), "time to the first token"
    )
    simulate_ttft_per_token: float = _row(
        "Simulation", "0s", duration("0s", "1h"), "and so much more for each token of the prompt that is not cached"
    )
    simulate_itl: tuple[str, float, float] = _row(
        "Simulation", "5ms", spread(duration("0s", "1h")), "time between tokens"
    )
    simulate_load_factor: float = _row(
        "Simulation", "0", part("0", "1000"), "part by which each further answer at the time makes both longer"
    )
    simulate_max_running: int | None = _row(
        "Simulation", None, integer("1", "1000000"), "most answers at one time; others wait"
    )
    simulate_max_waiting: int | None = _row(
        "Simulation", None, integer("0", "1000000"), "most that wait; others are refused"
    )
    simulate_cache_tokens: int = _row(
        "Simulation", "0", integer("0", "1000000000"), "size of the prefix cache; 0 is none"
    )
    simulate_cache_block: int = _row("Simulation", "16", integer("1", "65536"), "tokens of a block of the prefix cache")
    simulate_text: str = _row("Simulation", "seeded", choice("seeded", "echo"), "echo: the last user message again")
    simulate_output_tokens: tuple[str, float, float] = _row(
        "Simulation", "uniform(24, 96)", spread(integer("1", "1000000")), "length of a text, `max_tokens` at the most"
    )
    simulate_thinking_tokens: tuple[str, float, float] = _row(
        "Simulation", "uniform(8, 24)", spread(integer("1", "1000000")), "length of thinking"
    )
    simulate_thinking_rate: float = _row(
        "Simulation", "0", part("0", "1"), "answers that think though nobody asked for it"
    )
    simulate_tool_rate: float = _row("Simulation", "0", part("0", "1"), "answers that call a tool where they need not")
    simulate_fail: tuple[tuple[str, float], ...] = _row(
        "Simulation", None, rated(*FAILURES), f"part of the requests that fail so: {', '.join(FAILURES)}", many=True
    )
    simulate_stall: float = _row("Simulation", "1m", duration("0s", "24h"), "silence of an answer that stalls")
    simulate_trace: str | None = _row(
        "Simulation", None, FILE, "recorded answers, to be given in turn with their own timing"
    )
    simulate_seed: int = _row("Simulation", "0", integer("0", "4294967295"), "same seed, same answers")


OPTIONS: Final = tuple(Option(name=row.name.replace("_", "-"), **row.metadata) for row in fields(Settings))


def markdown_table() -> str:
    """The options as the README shows them."""
    lines = ["| option | environment | default | what it is |", "|---|---|---|---|"]
    for option in OPTIONS:
        flag = f"`--{option.name} {option.kind.metavar}`".replace(" `", "`") if "line" in option.channels else ""
        variable = f"`{option.variable}`" if "environment" in option.channels else ""
        default = f"`{option.default}`" if option.default is not None else ""
        cells = (flag, variable, default, option.help + "; repeatable" * (option.many and bool(flag)))
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"
