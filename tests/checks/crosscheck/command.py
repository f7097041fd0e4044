"""`python -m bench crosscheck`: do the load generators report what the simulator was set to?

    python -m bench crosscheck                      our own load generator, on both APIs
    python -m bench crosscheck --folder FOLDER      AIPerf and guidellm too; installs those that FOLDER lacks

Each tool sends 8 requests one after the other, then 64 requests, 8 at once, to `serve --simulate` or `simulate-openai`
with a TTFT of 100 ms, an ITL of 20 ms and answers of 100 tokens. The command prints a Markdown table with a row for
each run. A run that differs by more than the tolerance runs again, at most twice, if other programs used the processors
meanwhile. The row of the disturbed run stays in the table and says so. The exit status is 1 if the last run of a tool
differs by more than the tolerance.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

TTFT, ITL, TOKENS = 100.0, 20.0, 100  # ms, ms, tokens of an answer
PROMPT: Final = 200  # tokens
APIS: Final = ("messages", "chat")
RUNS: Final = 3  # of the same load, at most, while other programs disturb it
DISTURBED: Final = 0.1  # share of one processor that other programs used
PACKAGES: Final = {"aiperf": ("aiperf", "tokenizers"), "guidellm": ("guidellm",)}
_TIMEOUT: Final = 600  # seconds for a tool
_INSTALL: Final = 3600
_REST: Final = 3.0  # seconds before each run, so that the processes of the tool before it have ended
_REVISION: Final = "0" * 40

_TOKENIZER: Final = """
import sys, transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
made = Tokenizer(models.BPE())
made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
made.decoder = decoders.ByteLevel()
alphabet = pre_tokenizers.ByteLevel.alphabet()
trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=["<|endoftext|>"], initial_alphabet=alphabet)
made.train_from_iterator(["the quick brown fox jumps over the lazy dog " * 50], trainer)
transformers.PreTrainedTokenizerFast(
    tokenizer_object=made, eos_token="<|endoftext|>", pad_token="<|endoftext|>"
).save_pretrained(sys.argv[1])
"""
"""A byte-level tokenizer: the tools want one from a hub, which is not reachable here."""


@dataclass(frozen=True, slots=True)
class Load:
    """`requests` of one run, of which `concurrency` are open at once.

    `ttft` is the tolerance of TTFT in ms. It grows with the concurrency: the answers of the simulator have the same
    length, so all open requests end and start together, and each waits until the tool has prepared those before it.
    """

    concurrency: int
    requests: int
    ttft: float

    @property
    def rate(self) -> float:
        """The tokens/s that the profile gives, if nothing else takes time."""
        return self.concurrency * TOKENS / (TTFT + ITL * (TOKENS - 1)) * 1000


LOADS: Final = (Load(1, 8, 10.0), Load(8, 64, 25.0))


@dataclass(frozen=True, slots=True)
class Medians:
    """What a tool reports: p50 of TTFT and ITL in ms, and output tokens/s."""

    tool: str
    api: str
    ttft: float
    itl: float
    rate: float

    def close(self, load: Load, itl: float, rate: float) -> bool:
        """Whether each differs from what was set by no more than its tolerance: `itl` in ms, `rate` as a share."""
        return (
            abs(self.ttft - TTFT) <= load.ttft
            and abs(self.itl - ITL) <= itl
            and abs(self.rate - load.rate) <= rate * load.rate
        )

    def row(self, load: Load, note: str = "") -> str:
        figures = f"{self.ttft:.1f} ms | {self.itl:.2f} ms | {self.rate:.0f}"
        return f"| {self.tool} | {self.api} | {load.concurrency} | {figures} | {note} |"


Tool = Callable[[str, str, Load, Path], Medians]


def heading() -> str:
    """The first rows of the table: its head, and what the simulator was set to."""
    head = ["| tool | API | at once | TTFT, p50 | ITL, p50 | output tokens/s | |", "|---|---|---:|---:|---:|---:|---|"]
    made = [Medians("what the simulator was set to", "", TTFT, ITL, load.rate).row(load) for load in LOADS]
    return "\n".join([*head, *made])


@contextmanager
def simulated(command: tuple[str, ...]) -> Iterator[tuple[str, int]]:
    """The address of a simulator on a free port, and its process id."""
    profile = (
        "--simulate-ttft",
        f"{TTFT:g}ms",
        "--simulate-itl",
        f"{ITL:g}ms",
        "--simulate-output-tokens",
        str(TOKENS),
    )
    words = [sys.executable, "-m", "anthro_asgi", *command, "--port", "0", *profile, "--log-level", "warning"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().removeprefix("listening on ").strip(), process.pid
        finally:
            process.terminate()


def ours(url: str, api: str, load: Load, folder: Path) -> Medians:
    """`anthro-asgi bench load`."""
    out = folder / "ours.jsonl"
    words = ["--api", api, "--concurrency", str(load.concurrency), "--requests", str(load.requests), "--json", str(out)]
    words += ["--prompt-tokens", str(PROMPT), "--output-tokens", str(TOKENS)]
    _run([sys.executable, "-m", "anthro_asgi", "bench", "load", url, *words], folder, {})
    result = json.loads(out.read_bytes().splitlines()[-1])
    ttft, itl = (result[name]["p50"] * 1e3 for name in ("ttft", "itl"))
    return Medians("anthro-asgi bench load", api, ttft, itl, result["tokens_per_s"])


def aiperf(url: str, api: str, load: Load, folder: Path) -> Medians:
    """NVIDIA's AIPerf."""
    kind = "messages" if api == "messages" else "chat"
    words = [str(folder / "aiperf/bin/aiperf"), "profile", "--model", "simulated", "--url", url, "--streaming"]
    words += ["--endpoint-type", kind, "--tokenizer", "local/tok", "--use-server-token-count", "--ui-type", "none"]
    words += ["--concurrency", str(load.concurrency), "--request-count", str(load.requests)]
    words += ["--output-tokens-mean", str(TOKENS), "--synthetic-input-tokens-mean", str(PROMPT)]
    words += ["--artifact-dir", str(folder / f"artifacts-{api}")]
    _run(words, folder, _hub(folder, "aiperf"))
    return read_aiperf(json.loads((folder / f"artifacts-{api}/profile_export_aiperf.json").read_bytes()), api)


def read_aiperf(result: Any, api: str) -> Medians:
    """The medians in AIPerf's `profile_export_aiperf.json`."""
    ttft, itl = (result[name]["p50"] for name in ("time_to_first_token", "inter_token_latency"))
    return Medians("AIPerf", api, ttft, itl, result["output_token_throughput"]["avg"])


def guidellm(url: str, api: str, load: Load, folder: Path) -> Medians:
    """The vLLM project's guidellm, which speaks chat completions."""
    out = folder / "guidellm.json"
    lengths = f"prompt_tokens={PROMPT},output_tokens={TOKENS}"
    words = [str(folder / "guidellm/bin/guidellm"), "run", "--disable-console", "--output", f"kind=json,path={out}"]
    words += ["--backend", f"kind=openai_http,target={url},model=simulated"]
    words += ["--profile", f"kind=concurrent,streams={load.concurrency}"]
    words += ["--constraint", f"kind=max_requests,count={load.requests}"]
    words += ["--tokenizer", "kind=huggingface_auto,model=local/tok", "--data", f"kind=synthetic_text,{lengths}"]
    _run(words, folder, _hub(folder, "guidellm"))
    return read_guidellm(json.loads(out.read_bytes()), api)


def read_guidellm(result: Any, api: str) -> Medians:
    """The medians in guidellm's report."""
    (benchmark,) = result["benchmarks"]
    metrics = benchmark["metrics"]
    names = ("time_to_first_token_ms", "inter_token_latency_ms")
    ttft, itl = (metrics[name]["successful"]["percentiles"]["p50"] for name in names)
    return Medians("guidellm", api, ttft, itl, metrics["output_tokens_per_second"]["successful"]["mean"])


TOOLS: Final[Mapping[str, tuple[tuple[str, ...], Tool]]] = {
    "aiperf": (("messages", "chat"), aiperf),
    "guidellm": (("chat",), guidellm),
}


def _hub(folder: Path, tool: str) -> dict[str, str]:
    """The environment of a tool whose hub is a folder. Makes the tokenizer there if it is missing."""
    hub = folder / "hub" / "hub" / "models--local--tok"
    snapshot = hub / "snapshots" / _REVISION
    if not snapshot.exists():
        _run([str(folder / tool / "bin/python"), "-c", _TOKENIZER, str(snapshot)], folder, {})
        (snapshot / "config.json").write_text('{"model_type": "gpt2"}')
        (hub / "refs").mkdir()
        (hub / "refs/main").write_text(_REVISION)
    return {"HF_HOME": str(folder / "hub"), "HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HOME": str(folder)}


def install(folder: Path) -> None:
    """Each tool in an environment of its own, if it is not there."""
    for tool, packages in PACKAGES.items():
        if not (folder / tool / "bin" / tool).exists():
            print(f"installing {tool} into {folder / tool}", flush=True)
            subprocess.run([sys.executable, "-m", "venv", str(folder / tool)], check=True)
            pip = [str(folder / tool / "bin/python"), "-m", "pip", "install", "--quiet", *packages]
            subprocess.run(pip, check=True, timeout=_INSTALL)


def _run(words: list[str], folder: Path, variables: Mapping[str, str]) -> None:
    """Raises SystemExit with the end of the output if the program fails."""
    done = subprocess.run(
        words, env={**os.environ, **variables}, capture_output=True, text=True, timeout=_TIMEOUT, check=False
    )
    if done.returncode != 0:
        raise SystemExit(f"{words[0]} failed:\n{done.stdout[-2000:]}{done.stderr[-2000:]}")


def _planned(folder: Path | None, temporary: Path, spoken: Sequence[str]) -> Iterator[tuple[Tool, str, Path]]:
    """Each tool with an API that it speaks, and its folder. Installs those that are missing."""
    yield from ((ours, api, temporary) for api in spoken)
    if folder is not None:
        install(folder.resolve())
        yield from ((tool, api, folder.resolve()) for apis, tool in TOOLS.values() for api in apis if api in spoken)


def _busy() -> float | None:
    """The seconds for which this machine's processors have worked since it started; None without `/proc/stat`."""
    try:
        fields = Path("/proc/stat").read_text().splitlines()[0].split()[1:9]
    except OSError:
        return None
    user, nice, system, _idle, _iowait, irq, softirq, steal = (int(ticks) for ticks in fields)
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")


def _own(simulators: Sequence[int]) -> float:
    """The processor seconds of this process, of its programs that have ended, and of the simulators."""
    fields = (Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in simulators)
    ticks = sum(int(user) + int(system) for user, system in (one[11:13] for one in fields))
    return sum(os.times()[:4]) + ticks / os.sysconf("SC_CLK_TCK")


def _watched(run: Callable[[], Medians], simulators: Sequence[int]) -> tuple[Medians, float]:
    """The result of a run, and how many processors other programs used meanwhile (0 without `/proc/stat`)."""
    if (before := _busy()) is None:
        return run(), 0.0
    began, own = time.monotonic(), _own(simulators)
    result = run()
    others = ((_busy() or 0.0) - before) - (_own(simulators) - own)
    return result, max(others, 0.0) / (time.monotonic() - began)


def checked(run: Callable[[], tuple[Medians, float]], load: Load, itl: float, rate: float) -> bool:
    """Whether a tool reports what was set. Prints a row for each run. `run` also returns the processors others used."""
    for left in reversed(range(RUNS)):
        found, others = run()
        if found.close(load, itl, rate):
            print(found.row(load), flush=True)
            return True
        again = others > DISTURBED and left > 0
        busy = f"other programs used {others:.1f} processors" if others > DISTURBED else ""
        note = "; ".join(filter(None, ["outside the tolerance", busy, "runs again" if again else ""]))
        print(found.row(load, note), flush=True)
        if not again:
            break
    return False


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `main`."""
    parser.add_argument("--folder", type=Path, help="where AIPerf and guidellm are, or are to be installed")
    parser.add_argument("--api", choices=APIS, action="append", help="only this API; repeatable")
    parser.add_argument("--itl", type=float, default=0.5, metavar="MS", help="tolerance of ITL (default 0.5)")
    parser.add_argument("--rate", type=float, default=0.1, metavar="SHARE", help="of tokens/s (default 0.1)")


def main(options: argparse.Namespace) -> int:
    """The exit status: 1 if a tool reports something else."""
    far: list[str] = []
    with (
        TemporaryDirectory() as temporary,
        simulated(("serve", "--simulate")) as (messages, first),
        simulated(("simulate-openai",)) as (chat, second),
    ):
        urls, simulators = {"messages": messages, "chat": chat}, (first, second)
        planned = list(_planned(options.folder, Path(temporary), options.api or APIS))
        print(heading(), flush=True)
        for load in LOADS:
            for tool, api, folder in planned:

                def run(
                    tool: Tool = tool, api: str = api, load: Load = load, folder: Path = folder
                ) -> tuple[Medians, float]:
                    time.sleep(_REST)
                    return _watched(lambda: tool(urls[api], api, load, folder), simulators)

                if not checked(run, load, options.itl, options.rate):
                    far.append(f"{tool.__name__} ({api}, {load.concurrency} at once)")
    if far:
        print(f"outside the tolerance: {', '.join(far)}", file=sys.stderr)
    return 1 if far else 0
