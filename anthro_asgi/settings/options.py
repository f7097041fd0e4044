"""The option table.

`Settings` is the table: one attribute per option, with its type, default, bounds and help. The command line, the
environment (`ANTHRO_ASGI_…`), the TOML file and the table of the docs are all derived from it. `loader` merges the
values that are given in several of these places. Secrets come only from the environment or from a file, because
`ps` shows a command line to every user of the machine.

To add an option, add a row here and read `settings.NAME` where it takes effect. A default that a class has too stands
in `wire.defaults`.
"""

from collections.abc import Sequence
from typing import Any, ClassVar, Final, Literal, NamedTuple, NoReturn

from ..wire import defaults
from .values import (
    ALIAS,
    FILE,
    KEY,
    ORIGIN,
    SWITCH,
    UPSTREAM,
    ValueType,
    any_text,
    choice,
    distribution,
    duration,
    integer,
    matching,
    number,
    rate,
    rates,
    size,
)

PREFIX: Final = "ANTHRO_ASGI_"
DIALECTS: Final = (
    "auto",
    "openai",
    "vllm",
    "sglang",
    "llamacpp",
    "ollama",
    "sambanova",
    "tensorrt-llm",
    "transformers",
    "llama-cpp-python",
    "max",
    "mlx-lm",
    "vllm-mlx",
    "fastllm",
    "dynamo",
    "deepseek",
    "moonshot",
    "zai",
    "minimax",
    "mistral",
    "xai",
    "gemini",
    "openrouter",
    "groq",
)
FAILURES: Final = ("429", "529", "500", "error", "stall", "cut")
EXCLUSIVE: Final = (("simulate", "upstream", "engine", "model"), ("uds", "host"), ("uds", "port"))
"""Options of which only one may be given."""

SIMULATED_BY_DEFAULT: Final = (
    "no engine is named, so every answer is simulated; name one with --upstream, --model or --engine, or say --simulate"
)
"""The warning for an operator who has named no engine."""

Channel = Literal["line", "environment", "file"]
Command = Literal["serve", "check", "health", "simulate-openai"]
EngineKind = Literal["simulate", "upstream", "engine", "model"]
"""The kinds of engine, by the option that chooses them."""


class ConfigError(Exception):
    """The options are wrong. The text is one line for the operator; `status` is the exit status of the process."""

    status: ClassVar[int] = 2


class ResourceUnavailable(ConfigError):
    """The options are right, but the system refuses a resource: a port in use, a file that cannot be read."""

    status = 1


class NamedUpstream(NamedTuple):
    """One of several engines, from a table `[[engine]]` or from `--upstream NAME=URL`.

    Args:
        values: attributes of Settings with the values of this engine; `upstream` is its URL.
        fallback: the model (None: the same one) and the engine that answer while this engine is not ready.
        window: the context length of its models in tokens.
        models: names of models that it serves in addition to those that it lists.
    """

    name: str
    values: dict[str, Any]
    fallback: tuple[str | None, str] | None = None
    window: int | None = None
    models: tuple[str, ...] = ()

    def __repr__(self) -> str:
        """Without the URL and the key."""
        return f"NamedUpstream({self.name})"


class UnusedOption(NamedTuple):
    """A given option that has no effect.

    Args:
        where: the option as it was spelled: `--NAME`, an environment variable, or a key of a file.
        reason: why, in words that follow "has no effect".
        is_refused: whether the option is an error on the command line. Otherwise it is a warning there, too.
    """

    name: str
    where: str
    reason: str
    is_refused: bool


class Option(NamedTuple):
    """One row of the table. `default` is the text that an operator would write, None when there is no default.

    `engines` are the kinds of engine with which the option has an effect. `--help` shows the `common` options.
    """

    name: str
    group: str
    default: str | None
    type: ValueType
    help: str
    repeatable: bool
    channels: tuple[Channel, ...]
    commands: tuple[Command, ...]
    engines: tuple[EngineKind, ...]
    common: bool

    @property
    def attribute(self) -> str:
        """The name of the attribute of Settings."""
        return self.name.replace("-", "_")

    @property
    def variable(self) -> str:
        """The name of the environment variable."""
        return PREFIX + self.attribute.upper()

    @property
    def secret(self) -> bool:
        return self.channels == SECRET

    @property
    def places(self) -> str:
        """How the option is written where an operator may set it, except for a file."""
        names = {"line": f"--{self.name}", "environment": f"the environment variable {self.variable}"}
        return " or ".join(name for channel, name in names.items() if channel in self.channels)

    @property
    def takes_pairs(self) -> bool:
        """Whether a value has the form `NAME=…`; in a TOML file, a table holds several."""
        return "=" in self.type.metavar

    @property
    def default_value(self) -> Any:
        """The value of the option when it is not given."""
        if self.default is not None:
            return self.value([self.default], self.name)
        return () if self.repeatable else None

    @property
    def empty(self) -> str:
        """The error text for a value that is empty or only white space."""
        engine = ", so it names no engine" if self.name in EXCLUSIVE[0] else ""
        return f"is empty{engine}; give it a value, or remove it"

    def value(self, texts: Sequence[str], where: str) -> Any:
        """The value that `texts` stand for. Raises ConfigError; its text begins with `where`, the place of `texts`."""
        if not self.repeatable and len(texts) != 1:
            raise ConfigError(f"{where}: takes one value, not {len(texts)}")
        if not texts or any(not text.strip() for text in texts):
            raise ConfigError(f"{where}: {self.empty}")
        values = []
        for text in texts:
            try:
                values.append(self.type.parse(text))
            except ValueError as exc:
                shown = f"{text!r:.80} " if self.type.shown else ""
                raise ConfigError(f"{where}: {shown}{exc}") from exc
        return tuple(values) if self.repeatable else values[0]


ANYWHERE: Final[tuple[Channel, ...]] = ("line", "environment", "file")
SECRET: Final[tuple[Channel, ...]] = ("environment",)
SERVE: Final[tuple[Command, ...]] = ("serve",)
CHECK: Final[tuple[Command, ...]] = ("check",)
HEALTH: Final[tuple[Command, ...]] = ("health",)
SERVE_CHECK: Final[tuple[Command, ...]] = ("serve", "check")
SERVE_HEALTH: Final[tuple[Command, ...]] = ("serve", "health")
SERVE_CHECK_HEALTH: Final[tuple[Command, ...]] = ("serve", "check", "health")
EVERY_ENGINE: Final[tuple[EngineKind, ...]] = ("simulate", "upstream", "engine", "model")
SIMULATOR: Final[tuple[EngineKind, ...]] = ("simulate",)
UPSTREAMS: Final[tuple[EngineKind, ...]] = ("upstream",)
MODEL_FILE: Final[tuple[EngineKind, ...]] = ("model",)
REMOTE: Final[tuple[EngineKind, ...]] = ("upstream", "model")
_SIMULATOR_GROUPS: Final = ("General", "Listening", "Access", "Simulation")  # `simulate-openai` has these too


# --- the table ---


def _row(
    group: str,
    default: str | float | None,
    type: ValueType,  # noqa: A002 - the column's name
    help: str,  # noqa: A002 - the column's name
    *,
    repeatable: bool = False,
    channels: tuple[Channel, ...] = ANYWHERE,
    commands: tuple[Command, ...] = SERVE,
    engines: tuple[EngineKind, ...] = EVERY_ENGINE,
    common: bool = False,
) -> Any:
    """One row. A numeric default is a constant of `wire.defaults`; it is shown as an operator would write it."""
    if group in _SIMULATOR_GROUPS and "serve" in commands:
        commands = (*commands, "simulate-openai")
    if group == "Simulation":
        engines = SIMULATOR
    return Option(
        name="",  # that of the attribute
        group=group,
        default=default if default is None or isinstance(default, str) else type.write(default),
        type=type,
        help=help,
        repeatable=repeatable,
        channels=channels,
        commands=commands,
        engines=engines,
        common=common,
    )


class Settings:
    """The value of each option. Durations are in seconds, sizes in bytes; None means neither given nor defaulted.

    It is no dataclass: `dataclasses` imports `inspect`, and both would be a third of the CPU time of a health check.

    `upstream` is the URL of a single engine without a name; otherwise `upstreams` holds the engines.

    The last attributes are no options. `simulated_by_default`: no option names an engine. `without_effect`: the
    options that were given and have no effect.
    """

    config: str | None = _row(
        "General",
        None,
        FILE,
        "TOML file to read options from",
        channels=("line", "environment"),
        commands=SERVE_CHECK_HEALTH,
        common=True,
    )
    log_level: str = _row(
        "General",
        "info",
        choice("debug", "info", "warning", "error"),
        "lowest level that is logged, on stderr",
        common=True,
    )
    log_format: str = _row(
        "General",
        "auto",
        choice("auto", "json", "text"),
        "format of a log line: a JSON object or key=value text; auto is text on a terminal, and JSON elsewhere",
        common=True,
    )
    debug: bool = _row(
        "General",
        "false",
        SWITCH,
        "log the traceback of an exception in an engine written in Python; it may quote prompts and answers",
        common=True,
    )
    workers: int = _row(
        "General",
        "1",
        integer("1", "256"),
        "number of server processes; each limit applies to each process",
        common=True,
    )
    worker_deadline: float = _row(
        "General",
        "30s",
        duration("1s", "24h"),
        "with several workers, replace a worker whose event loop has been blocked for this long",
    )
    native: str = _row(
        "General",
        "auto",
        choice("auto", "on", "loop", "off"),
        "relay steady streams in C: auto, if the extension module is installed; on, and fail without it; loop, the same"
        " without a thread for it; off, never",
        commands=SERVE_CHECK,
    )
    drain_delay: float = _row(
        "General",
        "0s",
        duration("0s", "1h"),
        "after SIGTERM, report not ready but accept requests for this long, until load balancers notice",
    )
    drain_timeout: float = _row(
        "General",
        "30s",
        duration("0s", "24h"),
        "after SIGTERM or SIGINT, wait this long for open responses; then end them with an error",
    )
    gc: str = _row(
        "General",
        "bounded",
        choice("bounded", "python"),
        "garbage collection: bounded runs full collections only when no request is open; python leaves it to Python",
    )
    gc_growth: int = _row(
        "General",
        defaults.GC_GROWTH,
        size("1M", "1024G"),
        "with --gc bounded, run a full collection despite open requests when memory has grown by this much",
    )

    simulate: bool = _row(
        "Engine",
        "false",
        SWITCH,
        "use the simulator, which needs no model; the default when no engine is named",
        common=True,
    )
    upstream: str | None = _row(
        "Engine",
        None,
        UPSTREAM,
        "engine with an OpenAI-compatible or Messages API: http://…, https://… or unix:/path; NAME= if several",
        repeatable=True,
        commands=SERVE_CHECK,
        common=True,
    )
    engine: str | None = _row(
        "Engine",
        None,
        matching("MODULE:ATTR", r"[\w.]+:[\w.]+", "is not of the form module:attr"),
        "engine written in Python",
        common=True,
    )
    upstream_api: str = _row(
        "Engine",
        "auto",
        choice("auto", "chat", "messages"),
        "API of the upstream to use; auto detects it",
        commands=SERVE_CHECK,
        engines=UPSTREAMS,
    )
    dialect: str = _row(
        "Engine",
        "auto",
        choice(*DIALECTS, metavar="DIALECT"),
        f"which engine the upstream is: auto (detect it), {', '.join(DIALECTS[1:])}",
        commands=SERVE_CHECK,
        engines=UPSTREAMS,
    )
    model: str | None = _row("Engine", None, FILE, "GGUF model file to serve with llama.cpp (extra llama)", common=True)
    model_context: int = _row(
        "Engine",
        "0",
        integer("0", "100000000"),
        "context length of the model file in tokens for each request; 0 is the model's own",
        engines=MODEL_FILE,
    )
    model_slots: int = _row(
        "Engine",
        "4",
        integer("1", "1024"),
        "number of requests that the model file answers in parallel",
        engines=MODEL_FILE,
    )
    model_threads: int = _row(
        "Engine",
        "0",
        integer("0", "1024"),
        "number of threads for the model file; 0 lets llama.cpp choose",
        engines=MODEL_FILE,
    )
    try_model: str | None = _row(
        "Engine",
        None,
        any_text("NAME"),
        "model to try; without it, the first model that the upstream lists",
        channels=("line",),
        commands=CHECK,
        common=True,
    )
    late_system: str = _row(
        "Engine",
        "auto",
        choice("auto", "keep", "fold"),
        "system messages between turns: keep them, or fold them into user messages; auto follows the dialect",
        engines=UPSTREAMS,
    )
    think_tags: str = _row(
        "Engine",
        "off",
        choice("off", "tags", "open"),
        "send `<think>…</think>` in the engine's text as thinking; open: also where the prompt has the first tag",
        engines=UPSTREAMS,
    )

    host: str = _row(
        "Listening",
        "127.0.0.1",
        any_text("HOST"),
        "address or host name that the server listens on",
        commands=SERVE_HEALTH,
        common=True,
    )
    port: int = _row(
        "Listening",
        "8484",
        integer("0", "65535"),
        "port that the server listens on; 0 picks a free port",
        commands=SERVE_HEALTH,
        common=True,
    )
    uds: str | None = _row(
        "Listening",
        None,
        any_text("PATH"),
        "Unix socket that the server listens on instead of a port; the umask determines who may connect",
        commands=SERVE_HEALTH,
        common=True,
    )
    reuse_port: bool = _row(
        "Listening",
        "false",
        SWITCH,
        "share the port with other servers that set this option, for restarts without a gap",
    )
    max_head: int = _row("Listening", "32KiB", size("1K", "1M"), "maximum size of a request's head (line and headers)")
    receive_deadline: float = _row(
        "Listening", "1m", duration("10ms", "24h"), "maximum time until a request has arrived completely"
    )
    stall_deadline: float = _row(
        "Listening",
        "2m",
        duration("10ms", "24h"),
        "disconnect a client that has read no response data for this long",
    )
    keep_alive: float = _row(
        "Listening",
        "75s",
        duration("10ms", "24h"),
        "close a connection that has been idle for this long; must be longer than the idle time of a load balancer",
    )
    tls_cert: str | None = _row(
        "Listening", None, FILE, "certificate chain (PEM) for serving HTTPS", commands=SERVE_HEALTH, common=True
    )
    tls_key: str | None = _row(
        "Listening",
        None,
        FILE,
        "private key (PEM) of the certificate in --tls-cert",
        commands=SERVE_HEALTH,
        common=True,
    )

    ready: bool = _row(
        "Listening",
        "false",
        SWITCH,
        "check whether the server is ready (/readyz), not only whether it is alive (/healthz)",
        channels=("line",),
        commands=HEALTH,
        common=True,
    )

    api_keys: tuple[str, ...] = _row(
        "Access",
        None,
        KEY,
        "API keys that clients may use, separated by commas",
        repeatable=True,
        channels=SECRET,
        common=True,
    )
    api_key_file: str | None = _row(
        "Access",
        None,
        FILE,
        "file with API keys that clients may use, one per line; `#` begins a comment line",
        common=True,
    )
    no_auth: bool = _row("Access", "false", SWITCH, "accept requests without an API key, on any address", common=True)

    cors_origin: tuple[str, ...] = _row(
        "Web pages",
        None,
        ORIGIN,
        "let web pages of this origin use the service; `*` is every origin",
        repeatable=True,
    )

    no_page: bool = _row("Web pages", "false", SWITCH, "do not serve the page for browsers at /")

    max_concurrency: int = _row(
        "Admission",
        defaults.MAX_CONCURRENCY,
        integer("1", "65536"),
        "maximum number of requests that the engine answers at the same time",
        common=True,
    )
    max_queue: int = _row(
        "Admission",
        defaults.MAX_QUEUE,
        integer("0", "1000000"),
        "maximum number of requests that wait for the engine; more are refused with status 529",
    )
    queue_timeout: float = _row(
        "Admission",
        defaults.QUEUE_TIMEOUT,
        duration("0s", "24h"),
        "maximum time that a request waits for the engine; after it, status 529",
    )
    max_concurrency_per_key: int | None = _row(
        "Admission",
        None,
        integer("1", "65536"),
        "maximum number of requests of one API key that run, wait or are being uploaded",
    )
    max_body_memory: int = _row(
        "Admission",
        defaults.MAX_BODY_MEMORY,
        size("1K", "64G"),
        "maximum total size of the request bodies in memory before their answers begin; more get status 529",
    )
    max_body_memory_per_key: int = _row(
        "Admission",
        defaults.MAX_BODY_MEMORY_PER_KEY,
        size("1K", "64G"),
        "the same for the request bodies of one API key",
    )

    batch_store: str | None = _row(
        "Message batches and files",
        None,
        any_text("PATH"),
        "keep message batches and uploaded files in this SQLite file, or in PostgreSQL at postgresql://…; "
        "without it, both are refused",
        common=True,
    )
    batch_concurrency: int = _row(
        "Message batches and files",
        defaults.BATCH_CONCURRENCY,
        integer("1", "65536"),
        "maximum number of batch requests that run at the same time on one engine, in slots that other requests leave",
    )
    batch_lease: float = _row(
        "Message batches and files",
        defaults.BATCH_LEASE,
        duration("1s", "1h"),
        "time after which another process may run the batch requests of a process that has died",
    )
    batch_lateness: float = _row(
        "Message batches and files",
        defaults.BATCH_LATENESS,
        duration("0", "10s"),
        "run fewer batch requests beside those of clients while the event loop is later than this; 0 is no limit",
    )
    max_file: int = _row(
        "Message batches and files",
        defaults.MAX_FILE,
        size("1K", "4G"),
        "maximum size of an uploaded file; larger ones are refused with status 413",
    )
    max_files_per_key: int = _row(
        "Message batches and files",
        defaults.MAX_FILES_PER_KEY,
        size("1K", "64G"),
        "maximum size of all files of an API key; uploads that exceed it are refused with status 400",
    )

    upstream_key: str | None = _row(
        "Upstream",
        None,
        KEY,
        "API key to send to the upstream",
        channels=SECRET,
        commands=SERVE_CHECK,
        engines=UPSTREAMS,
        common=True,
    )
    upstream_key_file: str | None = _row(
        "Upstream",
        None,
        FILE,
        "file with the API key to send to the upstream",
        commands=SERVE_CHECK,
        engines=UPSTREAMS,
        common=True,
    )
    upstream_ca: str | None = _row(
        "Upstream",
        None,
        FILE,
        "CA certificates (PEM) to trust in addition to those of the system",
        commands=SERVE_CHECK,
        engines=UPSTREAMS,
    )
    upstream_cert: str | None = _row(
        "Upstream",
        None,
        FILE,
        "client certificate (PEM) to present to an https upstream",
        commands=SERVE_CHECK,
        engines=UPSTREAMS,
    )
    upstream_cert_key: str | None = _row(
        "Upstream",
        None,
        FILE,
        "private key (PEM) of --upstream-cert, when it is not in the same file",
        commands=SERVE_CHECK,
        engines=UPSTREAMS,
    )
    upstream_reuse: str = _row(
        "Upstream",
        "always",
        choice("always", "never"),
        "use connections to the upstream again; never: for an engine that may send bytes after its response",
        commands=SERVE_CHECK,
        engines=REMOTE,
    )
    connect_deadline: float = _row(
        "Upstream",
        "5s",
        duration("10ms", "10m"),
        "maximum time to connect to the upstream",
        commands=SERVE_CHECK,
        engines=REMOTE,
    )
    first_byte_deadline: float = _row(
        "Upstream",
        "10m",
        duration("10ms", "24h"),
        "maximum time until the engine's response begins, and then until its first output",
        commands=SERVE_CHECK,
        engines=REMOTE,
    )
    silence_deadline: float = _row(
        "Upstream",
        "2m",
        duration("10ms", "24h"),
        "maximum time without data once the upstream sends output",
        commands=SERVE_CHECK,
        engines=REMOTE,
    )
    total_deadline: float = _row(
        "Upstream",
        defaults.TOTAL_DEADLINE,
        duration("10ms", "240h"),
        "maximum time for a complete response of the upstream",
        commands=SERVE_CHECK,
        engines=REMOTE,
    )
    max_event: int = _row(
        "Upstream",
        defaults.MAX_EVENT,
        size("1K", "1G"),
        "maximum size of one event of the upstream's stream",
        engines=REMOTE,
    )
    max_tool_input: int = _row(
        "Upstream",
        defaults.MAX_TOOL_INPUT,
        size("1K", "1G"),
        "maximum size of one tool call's input, where it is kept in memory",
    )
    max_answer: int = _row(
        "Upstream",
        defaults.MAX_ANSWER,
        size("1K", "1G"),
        "maximum size of a response that is kept in memory as a whole",
    )

    ping_interval: float = _row(
        "Messages",
        defaults.PING_INTERVAL,
        duration("10ms", "1h"),
        "send a ping when a stream has been silent for this long",
    )
    max_body: int = _row("Messages", defaults.MAX_BODY, size("1K", "1G"), "maximum size of a request body")
    max_decompressed: int = _row(
        "Messages", defaults.MAX_DECOMPRESSED, size("1K", "1G"), "maximum size of a request body after decompression"
    )
    max_depth: int = _row(
        "Messages", defaults.MAX_DEPTH, integer("1", "1000"), "maximum JSON nesting in tool schemas and tool inputs"
    )
    max_messages: int = _row(
        "Messages", defaults.MAX_MESSAGES, integer("1", "1000000"), "maximum number of messages in a request"
    )
    max_tools: int = _row(
        "Messages", defaults.MAX_TOOLS, integer("1", "100000"), "maximum number of tools in a request"
    )
    max_stop_sequences: int = _row(
        "Messages",
        defaults.MAX_STOP_SEQUENCES,
        integer("1", "10000"),
        "maximum number of stop sequences in a request",
    )
    model_alias: tuple[tuple[str, str], ...] = _row(
        "Messages",
        None,
        ALIAS,
        "let clients use NAME for the engine's model MODEL; `*` in NAME matches any text",
        repeatable=True,
        common=True,
    )
    tokenizer: str | None = _row(
        "Messages",
        None,
        FILE,
        "tokenizer.json to count tokens with when the engine cannot count them",
        engines=("upstream", "engine"),
    )
    hide_thinking: bool = _row(
        "Messages", "false", SWITCH, "leave thinking out of the response when the request disables thinking"
    )
    pdf: str = _row(
        "Messages",
        "text",
        choice("text", "images", "both", "refuse"),
        "PDFs: give the engine the text of each page, an image of each page, or both; or refuse them (extra pdf)",
    )
    cache_diagnostics: str = _row(
        "Messages",
        "asked",
        choice("off", "asked", "all"),
        "say why a prefix cache missed: in answers to requests that ask; all: of each request, also in metrics and log",
    )
    cache_diagnostics_answers: int = _row(
        "Messages",
        defaults.CACHE_DIAGNOSTICS_ANSWERS,
        integer("1", "1000000"),
        "number of answers whose prompt fingerprints are kept for --cache-diagnostics, at most 32 MiB of them",
    )
    web_search: str | None = _row(
        "Messages",
        None,
        matching("URL|MODULE:FUNCTION", r"https?://.+|[\w.]+:[\w.]+", "is not http://…, https://… or module:function"),
        "run web_search tools here: by the JSON of a SearXNG server at URL, or by a Python function",
    )
    compact_at: float | None = _row(
        "Messages",
        None,
        number("0.1", "1")._replace(metavar="SHARE"),
        "compact conversations that reach this share of the engine's window, for clients that do not ask for it",
    )
    server_tools: str = _row(
        "Messages",
        "refuse",
        choice("refuse", "drop", "pass"),
        "tools that run on Anthropic's servers: refuse the request, drop the tool, or pass it to a relayed upstream",
    )
    client_tools: str = _row(
        "Messages",
        "refuse",
        choice("refuse", "function"),
        "Anthropic's `bash_…`, `text_editor_…` and `memory_…` tools: refuse the request, or send them as functions",
    )
    image_urls: str = _row(
        "Messages",
        "refuse",
        choice("refuse", "pass"),
        "images given by URL: refuse the request, or pass the URL to the engine, which fetches it",
    )
    keep_billing_header: bool = _row(
        "Messages",
        "false",
        SWITCH,
        "keep Claude Code's billing line in the system prompt; it changes with each request and defeats prefix caches",
    )

    simulate_profile: str | None = _row(
        "Simulation",
        None,
        any_text("FILE|PRESET"),
        "preset or TOML file with defaults for the other --simulate-… options",
        common=True,
    )
    simulate_ttft: tuple[str, float, float] = _row(
        "Simulation", "20ms", distribution(duration("0s", "1h")), "time to the first token", common=True
    )
    simulate_ttft_per_token: float = _row(
        "Simulation",
        "0s",
        duration("0s", "1h"),
        "additional time to the first token for each prompt token that is not cached",
    )
    simulate_itl: tuple[str, float, float] = _row(
        "Simulation",
        "5ms",
        distribution(duration("0s", "1h")),
        "time between tokens (inter-token latency)",
        common=True,
    )
    simulate_load_factor: float = _row(
        "Simulation",
        "0",
        number("0", "1000"),
        "how much each other running response slows one down: at 0.1, ten others double its TTFT and ITL",
    )
    simulate_max_running: int | None = _row(
        "Simulation", None, integer("1", "1000000"), "maximum number of responses that run; more requests wait"
    )
    simulate_max_waiting: int | None = _row(
        "Simulation", None, integer("0", "1000000"), "maximum number of requests that wait; more are refused"
    )
    simulate_cache_tokens: int = _row(
        "Simulation", "0", integer("0", "1000000000"), "size of the prefix cache in tokens; 0 disables it"
    )
    simulate_cache_block: int = _row(
        "Simulation", "16", integer("1", "65536"), "size of a block of the prefix cache in tokens"
    )
    simulate_text: str = _row(
        "Simulation",
        "seeded",
        choice("seeded", "echo"),
        "text of a response: generated from the seed, or the last user message",
    )
    simulate_output_tokens: tuple[str, float, float] = _row(
        "Simulation",
        "uniform(24, 96)",
        distribution(integer("1", "1000000")),
        "length of the text in tokens; never more than `max_tokens`",
        common=True,
    )
    simulate_thinking_tokens: tuple[str, float, float] = _row(
        "Simulation", "uniform(8, 24)", distribution(integer("1", "1000000")), "length of the thinking in tokens"
    )
    simulate_thinking_rate: float = _row(
        "Simulation", "0", rate, "fraction of the responses with thinking, where the request does not ask for it"
    )
    simulate_tool_rate: float = _row(
        "Simulation", "0", rate, "fraction of the responses with a tool call, where the request does not require one"
    )
    simulate_fail: tuple[tuple[str, float], ...] = _row(
        "Simulation",
        None,
        rates(*FAILURES),
        f"fraction of the requests that fail in this way: {', '.join(FAILURES)}",
        repeatable=True,
    )
    simulate_stall: float = _row(
        "Simulation", "1m", duration("0s", "24h"), "length of the pause in a response that stalls"
    )
    simulate_trace: str | None = _row(
        "Simulation", None, FILE, "file of recorded responses to replay in order, with their own timing"
    )
    simulate_seed: int = _row(
        "Simulation", "0", integer("0", "4294967295"), "seed; the same seed gives the same responses"
    )

    simulated_by_default: bool = False
    without_effect: tuple[UnusedOption, ...] = ()
    upstreams: tuple[NamedUpstream, ...] = ()

    def __init__(self, **values: Any) -> None:
        """One value for each option, by the name of its attribute. Raises TypeError."""
        missing, unknown = _ATTRIBUTES.keys() - values.keys(), values.keys() - self.__annotations__.keys()
        if missing or unknown:
            raise TypeError(f"missing: {sorted(missing)}, unknown: {sorted(unknown)}")
        vars(self).update(values)

    def of(self, upstream: NamedUpstream) -> "Settings":
        """The settings for one of several engines."""
        return self.with_values(**upstream.values, upstreams=())

    def with_values(self, **values: Any) -> "Settings":
        """The same settings, except for these values. Raises TypeError."""
        return Settings(**vars(self) | values)

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"settings do not change: {name}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Settings) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]  # as Python does for a class with `__eq__`

    def __repr__(self) -> str:
        """Without secrets."""
        shown = (name for name in vars(self) if name not in _ATTRIBUTES or not _ATTRIBUTES[name].secret)
        return f"Settings({', '.join(f'{name}={vars(self)[name]!r}' for name in shown)})"

    @property
    def engine_kind(self) -> EngineKind:
        """The kind of engine that is chosen."""
        if self.upstream is not None or self.upstreams:
            return "upstream"
        if self.engine is not None:
            return "engine"
        return "simulate" if self.model is None else "model"


def _take_rows() -> dict[str, Option]:
    """The rows by attribute. They do not remain in the class, so that an attribute is a value or is missing."""
    rows = {name: row for name, row in vars(Settings).items() if isinstance(row, Option)}
    for name in rows:
        delattr(Settings, name)
    return {name: row._replace(name=name.replace("_", "-")) for name, row in rows.items()}


_ATTRIBUTES: Final = _take_rows()
OPTIONS: Final = tuple(_ATTRIBUTES.values())


def markdown_table() -> str:
    """The table of docs/reference/options.md."""
    lines = ["| option | environment | default | meaning |", "|---|---|---|---|"]
    for option in OPTIONS:
        flag = f"`--{option.name} {option.type.metavar}`".replace(" `", "`") if "line" in option.channels else ""
        variable = f"`{option.variable}`" if "environment" in option.channels else ""
        default = f"`{option.default}`" if option.default is not None else ""
        meaning = option.help + ("; repeatable" if option.repeatable and flag else "")
        cells = (flag, variable, default, meaning)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"
