"""Golden transcripts: the exact bytes that a client receives for forty recorded answers, read one event at a time.

`python -m tests.replay.golden` writes them into `tests/golden`; review the difference before you commit it. A file is
named after its recording, `vllm.03b_stop_stream.sse`. Random ids are replaced by `msg_ID`, `req_ID`, and `toolu_ID` for
a call without an id from the engine. An answer that is not a stream is stored as its status and its JSON.
"""

import asyncio
import re
from pathlib import Path

from tests.replay import Case, cases
from tests.replay.serving import CHAT, event_ends, replaying

GOLDEN = Path(__file__).parents[1] / "golden"
_IDS = re.compile(rb"\b(msg|req|toolu)_[A-Za-z0-9_-]{24}(?![A-Za-z0-9_-])")

CHOSEN = """
    llamacpp/01_chat_nonstream.json llamacpp/02_chat_stream_usage.sse llamacpp/02b_chat_stream_nousage.sse
    llamacpp/03b_stop_stream.sse llamacpp/04b_maxtok_stream.sse llamacpp/05_tools_required_stream@bigram.sse
    llamacpp/05g_tools_required_cut.sse llamacpp/06_think_on_stream.sse llamacpp/06d_think_tools_stream@bigram.sse
    llamacpp/07b_ctx_exceeded_stream.json
    vllm/02_chat_stream_usage.sse vllm/02d_chat_stream_contusage.sse vllm/03_stop_nonstream.json
    vllm/03b_stop_stream.sse vllm/03d_stop_in_think_or_first.sse vllm/04b_maxtok_stream.sse
    vllm/05_tools_named_stream.sse vllm/05_tools_auto_stream@v2.sse vllm/05g_tools_required_cut.sse
    vllm/06_think_on_stream.sse vllm/06c_think_cut_stream.sse vllm/12_midstream_kill_v1_chat_completions.sse
    vllm-noreason/06_think_on_stream.sse vllm-noreason/06f_thinking_budget.sse
    sglang/02d_chat_stream_contusage.sse sglang/03b_stop_stream.sse sglang/05_tools_required_stream.sse
    sglang/06_think_on_stream.sse sglang/09_n2_stream.sse sglang/12_midstream_abort_v1_chat_completions.sse
    sglang/12_midstream_kill_v1_chat_completions.sse
    transformers/02_chat_stream_usage.sse transformers/03b_stop_stream.sse transformers/03c_stop_midword_stream.sse
    transformers/05_tools_auto_stream.sse
    llama-cpp-python/02_chat_stream_usage.sse llama-cpp-python/05_tools_named_stream.sse
    llama-cpp-python/05_tools_required_nonstream.json llama-cpp-python/06_think_on_stream.sse
    llama-cpp-python/07b_ctx_exceeded_stream.json
"""


def chosen() -> list[Case]:
    """The cases, in the order of CHOSEN."""
    by_file = {case.file: case for case in cases(request=CHAT)}
    return [by_file[file] for file in CHOSEN.split()]


def path(case: Case) -> Path:
    return GOLDEN / Path(case.file.replace("/", ".")).with_suffix(".sse")


async def transcript(case: Case) -> bytes:
    """What the client gets, its ids replaced."""
    async with replaying(case, event_ends(case)) as replay:
        response = await replay.ask(case, stream=True)
    head = b"" if response.status == 200 else b"%d\n" % response.status
    return head + masked(response.body)


def masked(body: bytes) -> bytes:
    """The body with its random ids replaced."""
    return _IDS.sub(rb"\1_ID", body)


async def _write() -> None:
    GOLDEN.mkdir(exist_ok=True)
    for old in GOLDEN.glob("*.sse"):
        old.unlink()
    for case in chosen():
        path(case).write_bytes(await transcript(case))


if __name__ == "__main__":
    asyncio.run(_write())
