"""`python -m bench crosscheck`: do the load generators report what the simulator was set to?

    python -m bench crosscheck                      our own load generator, on both APIs
    python -m bench crosscheck --folder FOLDER      AIPerf and guidellm too; installs those that FOLDER lacks

Each sends 64 requests, 8 at once, to `serve --simulate` or `simulate-openai` with a TTFT of 100 ms, an ITL of 20 ms and
answers of 100 tokens. It prints a Markdown table. The exit status is 1 if a median differs from what was set by more
than the tolerance.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

TTFT, ITL, TOKENS = 100.0, 20.0, 100  # ms, ms, tokens of an answer
CONCURRENCY, REQUESTS, PROMPT = 8, 64, 200
APIS: Final = ("messages", "chat")
EXPECTED_RATE: Final = CONCURRENCY * TOKENS / (TTFT + ITL * (TOKENS - 1)) * 1000  # tokens/s, if nothing takes time
PACKAGES: Final = {"aiperf": ("aiperf", "tokenizers"), "guidellm": ("guidellm",)}
_TIMEOUT: Final = 600  # seconds for a tool
_INSTALL: Final = 3600
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
class Medians:
    """What a tool reports: p50 of TTFT and ITL in ms, and output tokens/s."""

    tool: str
    api: str
    ttft: float
    itl: float
    rate: float

    def close(self, tolerance: Mapping[str, float]) -> bool:
        """Whether each is within its tolerance of what was set: in ms for `ttft` and `itl`, as a share for `rate`."""
        rate = abs(self.rate - EXPECTED_RATE) / EXPECTED_RATE
        differences = {"ttft": abs(self.ttft - TTFT), "itl": abs(self.itl - ITL), "rate": rate}
        return all(differences[name] <= most for name, most in tolerance.items())

    def row(self) -> str:
        return f"| {self.tool} | {self.api} | {self.ttft:.1f} ms | {self.itl:.2f} ms | {self.rate:.0f} |"


Tool = Callable[[str, str, Path], Medians]


def table(found: list[Medians]) -> str:
    head = ["| tool | API | TTFT, p50 | ITL, p50 | output tokens/s |", "|---|---|---:|---:|---:|"]
    made = f"| what the simulator was set to | | {TTFT:.1f} ms | {ITL:.2f} ms | {EXPECTED_RATE:.0f} |"
    return "\n".join([*head, made, *(one.row() for one in found)])


@contextmanager
def simulated(command: tuple[str, ...]) -> Iterator[str]:
    """The address of a simulator on a free port."""
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
            yield process.stdout.readline().removeprefix("listening on ").strip()
        finally:
            process.terminate()


def ours(url: str, api: str, folder: Path) -> Medians:
    """`anthro-asgi bench load`."""
    out = folder / "ours.jsonl"
    words = ["--api", api, "--concurrency", str(CONCURRENCY), "--requests", str(REQUESTS), "--json", str(out)]
    words += ["--prompt-tokens", str(PROMPT), "--output-tokens", str(TOKENS)]
    _run([sys.executable, "-m", "anthro_asgi", "bench", "load", url, *words], folder, {})
    result = json.loads(out.read_bytes().splitlines()[-1])
    ttft, itl = (result[name]["p50"] * 1e3 for name in ("ttft", "itl"))
    return Medians("anthro-asgi bench load", api, ttft, itl, result["tokens_per_s"])


def aiperf(url: str, api: str, folder: Path) -> Medians:
    """NVIDIA's AIPerf."""
    kind = "messages" if api == "messages" else "chat"
    words = [str(folder / "aiperf/bin/aiperf"), "profile", "--model", "simulated", "--url", url, "--streaming"]
    words += ["--endpoint-type", kind, "--tokenizer", "local/tok", "--use-server-token-count", "--ui-type", "none"]
    words += ["--concurrency", str(CONCURRENCY), "--request-count", str(REQUESTS), "--output-tokens-mean", str(TOKENS)]
    words += ["--synthetic-input-tokens-mean", str(PROMPT), "--artifact-dir", str(folder / f"artifacts-{api}")]
    _run(words, folder, _hub(folder, "aiperf"))
    return read_aiperf(json.loads((folder / f"artifacts-{api}/profile_export_aiperf.json").read_bytes()), api)


def read_aiperf(result: Any, api: str) -> Medians:
    """The medians in AIPerf's `profile_export_aiperf.json`."""
    ttft, itl = (result[name]["p50"] for name in ("time_to_first_token", "inter_token_latency"))
    return Medians("AIPerf", api, ttft, itl, result["output_token_throughput"]["avg"])


def guidellm(url: str, api: str, folder: Path) -> Medians:
    """The vLLM project's guidellm, which speaks chat completions."""
    out = folder / "guidellm.json"
    lengths = f"prompt_tokens={PROMPT},output_tokens={TOKENS}"
    words = [str(folder / "guidellm/bin/guidellm"), "run", "--disable-console", "--output", f"kind=json,path={out}"]
    words += ["--backend", f"kind=openai_http,target={url},model=simulated"]
    words += [
        "--profile",
        f"kind=concurrent,streams={CONCURRENCY}",
        "--constraint",
        f"kind=max_requests,count={REQUESTS}",
    ]
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


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of `main`."""
    parser.add_argument("--folder", type=Path, help="where AIPerf and guidellm are, or are to be installed")
    parser.add_argument("--api", choices=APIS, action="append", help="only this API; repeatable")
    parser.add_argument("--ttft", type=float, default=25.0, metavar="MS", help="tolerance of TTFT (default 25)")
    parser.add_argument("--itl", type=float, default=0.5, metavar="MS", help="tolerance of ITL (default 0.5)")
    parser.add_argument("--rate", type=float, default=0.1, metavar="SHARE", help="of tokens/s (default 0.1)")


def main(options: argparse.Namespace) -> int:
    """The exit status: 1 if a tool reports something else."""
    found: list[Medians] = []
    print(table([]), flush=True)
    with (
        TemporaryDirectory() as temporary,
        simulated(("serve", "--simulate")) as messages,
        simulated(("simulate-openai",)) as chat,
    ):
        for tool, api, folder in _planned(options.folder, Path(temporary), options.api or APIS):
            found.append(tool({"messages": messages, "chat": chat}[api], api, folder))
            print(found[-1].row(), flush=True)
    far = [
        one.tool for one in found if not one.close({name: getattr(options, name) for name in ("ttft", "itl", "rate")})
    ]
    if far:
        print(f"outside the tolerance: {', '.join(far)}", file=sys.stderr)
    return 1 if far else 0
