"""The options, each written once.

`Settings` is the table: an attribute a row, with its type, default, bounds and help. The command line, the environment
(`ANTHRO_ASGI_…`), the TOML file and the README's table are read off it. What is given more than once is taken from

    command line  >  environment  >  TOML file  >  default

Options that exclude each other (`RIVALS`) follow the same order: the strongest place that names one of them sets the
others aside, and only two in one place are a contradiction. A name nobody knows is an error: a misspelt option would
otherwise be a default in disguise. Secrets come from the environment or a file of their own, since `ps` shows a
command line to everybody on the machine.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Final, Literal, NamedTuple

from .kinds import ALIAS, FILE, KEY, SWITCH, URL, Kind, anything, choice, duration, integer, matching, size

PREFIX: Final = "ANTHRO_ASGI_"
DIALECTS: Final = (
    *("auto", "openai", "vllm", "sglang", "llamacpp", "ollama", "sambanova", "tensorrt-llm"),
    *("transformers", "llama-cpp-python"),
)
RIVALS: Final = (("simulate", "upstream", "engine"), ("uds", "host"), ("uds", "port"))

Channel = Literal["line", "environment", "file"]
Command = Literal["serve", "check"]


class ConfigError(Exception):
    """What was asked for makes no sense; the text is one line for the operator. `status` is the exit status."""

    status: ClassVar[int] = 2


class Refused(ConfigError):
    """It makes sense, but the machine would not: a port in use, a file that cannot be read."""

    status = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """One row. `default` is written as an operator would write it; None is absent."""

    name: str
    group: str
    default: str | None
    kind: Kind
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
BOTH: Final[tuple[Command, ...]] = ("serve", "check")


# --- the table ---


def _row(
    group: str,
    default: str | None,
    kind: Kind,
    help: str,  # noqa: A002 - the row's column
    *,
    many: bool = False,
    channels: tuple[Channel, ...] = ANYWHERE,
    commands: tuple[Command, ...] = SERVE,
) -> Any:
    return field(metadata={**locals()}, repr=channels != SECRET)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What was settled. Durations are in seconds, sizes in bytes; None is neither given nor defaulted."""

    config: str | None = _row(
        "General", None, FILE, "TOML file of options", channels=("line", "environment"), commands=BOTH
    )
    log_level: str = _row("General", "info", choice("debug", "info", "warning", "error"), "what is logged, on stderr")
    log_format: str = _row("General", "json", choice("json", "text"), "one JSON object or one text a line")
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
    model: str | None = _row(
        "Engine", None, anything("NAME"), "model to try instead of the first listed", channels=("line",), commands=CHECK
    )
    late_system: str = _row(
        "Engine", "auto", choice("auto", "keep", "fold"), "system messages between turns; fold makes them user text"
    )
    think_tags: str = _row(
        "Engine", "off", choice("off", "tags", "open"), "`<think>` in text is thinking; open: the template begins it"
    )

    host: str = _row("Listening", "127.0.0.1", anything("HOST"), "address or name to listen on")
    port: int = _row("Listening", "8484", integer("0", "65535"), "port to listen on; 0 is any free one")
    uds: str | None = _row(
        "Listening", None, anything("PATH"), "Unix socket to listen on instead; the umask says who may connect"
    )
    tls_cert: str | None = _row("Listening", None, FILE, "certificate chain (PEM): serve https")
    tls_key: str | None = _row("Listening", None, FILE, "private key of the certificate (PEM)")

    api_keys: tuple[str, ...] = _row(
        "Access", None, KEY, "keys clients may use, comma separated", many=True, channels=SECRET
    )
    api_key_file: str | None = _row("Access", None, FILE, "file with those keys, one a line; `#` starts a comment line")
    no_auth: bool = _row("Access", "false", SWITCH, "let anybody in, on any address")

    upstream_key: str | None = _row("Upstream", None, KEY, "key the upstream asks for", channels=SECRET, commands=BOTH)
    upstream_key_file: str | None = _row(
        "Upstream", None, FILE, "file with the key the upstream asks for", commands=BOTH
    )
    upstream_ca: str | None = _row(
        "Upstream", None, FILE, "certificates (PEM) to trust beside the system's", commands=BOTH
    )
    upstream_connections: int = _row(
        "Upstream", "1024", integer("1", "65536"), "most connections, and so requests, at one time"
    )
    connect_deadline: float = _row(
        "Upstream", "5s", duration("10ms", "10m"), "longest wait for a connection", commands=BOTH
    )
    first_byte_deadline: float = _row(
        "Upstream", "10m", duration("10ms", "24h"), "longest wait for an answer to begin", commands=BOTH
    )
    silence_deadline: float = _row(
        "Upstream", "2m", duration("10ms", "24h"), "longest pause within an answer", commands=BOTH
    )

    ping_interval: float = _row("Messages", "10s", duration("10ms", "1h"), "a stream silent for that long gets a ping")
    max_body: int = _row("Messages", "32MiB", size("1K", "1G"), "largest request body")
    model_alias: tuple[tuple[str, str], ...] = _row(
        "Messages", None, ALIAS, "serve MODEL as NAME too; a `*` in NAME matches anything", many=True
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

    simulate_ttft: float = _row("Simulation", "20ms", duration("0s", "1h"), "time to the first token")
    simulate_itl: float = _row("Simulation", "5ms", duration("0s", "1h"), "time between tokens")
    simulate_output_tokens: int | None = _row(
        "Simulation", None, integer("1", "1000000"), "length of an answer; else 24 to 96, by the seed"
    )
    simulate_seed: int = _row("Simulation", "0", integer("0", "4294967295"), "same seed, same answers")


OPTIONS: Final = tuple(Option(name=row.name.replace("_", "-"), **row.metadata) for row in fields(Settings))
_BY_NAME: Final = {option.name: option for option in OPTIONS}


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


# --- settling ---


class _Given(NamedTuple):
    """What one place says of one option. `where` is the option as that place spells it, for complaints."""

    where: str
    value: Any


_Place = dict[str, _Given]


def load_settings(line: Mapping[str, Sequence[str]], environ: Mapping[str, str]) -> Settings:
    """Settle the options of a command line (name → its values, as written), an environment and the file they name.

    Raises ConfigError for a wrong name or value and Refused for a file that cannot be read.
    """
    places = [_from_line(line), _from_environment(environ)]
    named = places[0].get("config") or places[1].get("config")
    if named is not None:
        places.append(_from_file(named.value))
    _settle_rivals(places)
    defaults = {option.attribute: _default(option) for option in OPTIONS}
    given = {_BY_NAME[name].attribute: it.value for place in reversed(places) for name, it in place.items()}
    settings = Settings(**defaults | given)
    if (settings.tls_cert is None) != (settings.tls_key is None):
        raise ConfigError("--tls-cert and --tls-key go together: give both or neither")
    if settings.no_auth and (settings.api_keys or settings.api_key_file):
        raise ConfigError("--no-auth contradicts the API keys that are configured: drop one of them")
    return settings


def _default(option: Option) -> Any:
    if option.default is not None:
        return option.value([option.default], option.name)
    return () if option.many else None


def _from_line(line: Mapping[str, Sequence[str]]) -> _Place:
    return {name: _Given(f"--{name}", _BY_NAME[name].value(texts, f"--{name}")) for name, texts in line.items()}


# In a pod, Kubernetes describes every service named `anthro-asgi…` by variables of our prefix ("docker links").
_FROM_KUBERNETES: Final = r"(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT_\d+_\w+)=.*|(\w+_)?PORT=\w+://.*"


def _from_environment(environ: Mapping[str, str]) -> _Place:
    """An empty variable counts as unset: that is how a compose file or a shell leaves one out."""
    known = {option.variable: option for option in OPTIONS if "environment" in option.channels}
    place: _Place = {}
    for variable, text in environ.items():
        name = variable.removeprefix(PREFIX)
        if name == variable or not text or re.fullmatch(_FROM_KUBERNETES, f"{name}={text}", re.DOTALL):
            continue
        if variable not in known:
            raise ConfigError(f"{variable[:80]!r}: no such variable{did_you_mean(variable, known)}")
        option = known[variable]
        texts = [part.strip() for part in text.split(",") if part.strip()] if option.many else [text]
        if not texts:
            raise ConfigError(f"{variable}: holds only commas")
        place[option.name] = _Given(variable, option.value(texts, variable))
    return place


def _from_file(path: str) -> _Place:
    import tomllib  # most runs have no file

    try:
        with open(path, "rb") as file:
            table = tomllib.load(file)
    except OSError as exc:
        raise Refused(f"--config: cannot read {path}: {exc.strerror}") from exc
    except ValueError as exc:  # TOMLDecodeError and UnicodeDecodeError
        raise ConfigError(f"--config: {path} is no TOML: {exc}") from exc
    known = {option.name: option for option in OPTIONS if "file" in option.channels}
    place: _Place = {}
    for key, value in table.items():
        name, where = key.replace("_", "-"), f"{path}: {key[:80]}"
        if name not in known:
            raise ConfigError(f"{path}: no option {key[:80]!r}{did_you_mean(name, known)}")
        option = known[name]
        if option.name in place:
            raise ConfigError(f"{where}: given twice")
        place[option.name] = _Given(where, option.value(_toml_texts(option, value, where), where))
    return place


def _toml_texts(option: Option, value: object, where: str) -> list[str]:
    """A TOML value as it would stand on the command line."""
    if isinstance(value, bool) and option.kind is SWITCH:
        return [str(value).lower()]
    if isinstance(value, (str, int, float)) and not isinstance(value, bool) and option.kind is not SWITCH:
        return [str(value)]
    if isinstance(value, list) and option.many:
        return [text for item in value for text in _toml_texts(option, item, where)]
    if isinstance(value, dict) and option.kind is ALIAS:
        return [f"{name}={model}" for name, model in value.items()]
    raise ConfigError(f"{where}: a value of the wrong type ({type(value).__name__})")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean …?`, or nothing when nothing is like it. The prefix all have in common is no likeness."""
    import difflib  # only a mistake needs it

    stems = {one.removeprefix(PREFIX).lower(): one for one in known}
    close = difflib.get_close_matches(name.removeprefix(PREFIX).lower(), list(stems), 1)
    return f"; did you mean {stems[close[0]]}?" if close else ""


def _settle_rivals(places: Sequence[_Place]) -> None:
    for rivals in RIVALS:
        decided = False
        for place in places:
            named = [name for name in rivals if name in place and place[name].value is not False]
            if decided:
                for name in named:
                    del place[name]
            elif len(named) > 1:
                raise ConfigError(" and ".join(place[name].where for name in named) + " exclude each other")
            decided = decided or bool(named)
