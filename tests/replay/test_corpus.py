"""The corpus is complete, and its index finds each case."""

import pytest

from tests.replay import CORPUS, cases


def test_the_manifest_names_each_file_once() -> None:
    named = [case.file for case in cases()]
    there = {str(path.relative_to(CORPUS)) for path in CORPUS.glob("*/*")}
    assert len(named) == len(set(named)) == 525
    assert set(named) == there


def test_each_engine_is_there() -> None:
    engines = {case.engine for case in cases()}
    assert engines == {
        "llamacpp",
        "vllm",
        "vllm-noreason",
        "sglang",
        "transformers",
        "llama-cpp-python",
        "max",
        "mlx-lm",
        "fastllm",
    }


def test_a_case_knows_its_name_and_variant() -> None:
    plain, bigram, auto = cases("llamacpp", name="02_chat_stream")
    assert (plain.name, plain.variant, plain.status, plain.streamed) == ("02_chat_stream_usage", "", 200, True)
    assert (bigram.variant, auto.variant) == ("bigram", "thinkauto")
    assert str(bigram) == "llamacpp/02_chat_stream_usage@bigram.sse"
    assert plain.content.endswith(b"data: [DONE]\n\n")


def test_cases_are_chosen_by_all_properties_at_once() -> None:
    chosen = cases("vllm", request="POST /v1/chat/completions", status=400, streamed=False)
    assert "vllm/07b_ctx_exceeded_stream.json" in map(str, chosen)
    assert {(case.engine, case.request, case.status) for case in chosen} == {("vllm", "POST /v1/chat/completions", 400)}


def test_a_selection_without_cases_is_an_error() -> None:
    with pytest.raises(LookupError, match="engine='ollama'"):
        cases("ollama")


def test_the_line_ends_of_the_corpus_are_unchanged() -> None:
    assert [case.file for case in cases() if b"\r\n" in case.content] == []
    assert (CORPUS / "manifest.jsonl").read_bytes().count(b"\n") == 525
