"""Profiles of the simulator by name, written as in a TOML file; each says where its figures are from.

What a source does not tell is left as it is by default, or said to be ours.
"""

from collections.abc import Mapping
from typing import Any, Final

_NIM: Final = "https://docs.nvidia.com/nim/benchmarking/llm/1.0.0/performance"
_LLM_D: Final = "llm-d-inference-sim, docs/latency-profiles.md, which calls its figures order-of-magnitude estimates"

PRESETS: Final[Mapping[str, Mapping[str, Any]]] = {
    "llama-3.3-70b-2xh100": {
        "source": f"""NVIDIA's figures for Llama-3.3-70b-instruct, NIM 1.8.0, fp8, 2 x H100 80G ({_NIM}), fitted: one
        request has its first token after 47.77 ms with a prompt of 500 tokens and after 406.77 ms with one of 5,000;
        tokens are 18.58 ms apart alone, 38.75 ms with 25 at once and 59.73 ms with 50, which is a straight line, and
        92.9 ms from 100 on, where the line has 90 running and the others wait. Under load the first token comes later
        than it should: with 50 at once after 1.3 s, where they measured 0.83 s. Jitter is ours.""",
        "ttft": "7.9ms",
        "ttft-per-token": "79.8us",
        "itl": "gamma(18.58ms, 1ms)",
        "load-factor": 0.045,
        "max-running": 90,
    },
    "llama-3.1-8b-nim": {
        "source": f"""NVIDIA's figures for Llama-3.1-8b-instruct, NIM 1.8.0 ({_NIM}), fitted: one request has its first
        token after 10.26 ms; tokens are 4.63 ms apart alone, 5.91 ms with 50 at once and 7.57 ms with 100. The time
        for each token of the prompt and the jitter are ours.""",
        "ttft": "8ms",
        "ttft-per-token": "10us",
        "itl": "gamma(4.63ms, 0.3ms)",
        "load-factor": 0.006,
    },
    "8b-h100": {
        "source": f"8B-class model on H100, balanced load, of {_LLM_D}; the cache's size is ours.",
        "ttft": "normal(30ms, 5ms)",
        "ttft-per-token": "250us",
        "itl": "normal(12ms, 2ms)",
        "load-factor": 0.0667,
        "max-running": 16,
        "cache-tokens": 400_000,
    },
    "70b-8xh100": {
        "source": f"70B model on 8 x H100, throughput-optimised, of {_LLM_D}; the cache's size is ours.",
        "ttft": "normal(80ms, 15ms)",
        "ttft-per-token": "500us",
        "itl": "normal(25ms, 4ms)",
        "load-factor": 0.0317,
        "max-running": 64,
        "cache-tokens": 1_000_000,
    },
    "laptop": {
        "source": "Nobody's: an illustration of a small model on a processor, one answer at a time.",
        "ttft": "150ms",
        "ttft-per-token": "5ms",
        "itl": "log-normal(80ms, 20ms)",
        "max-running": 1,
        "cache-tokens": 8_192,
    },
    "reasoning": {
        "source": "Nobody's: an illustration of a model that thinks long before it answers.",
        "ttft": "log-normal(400ms, 200ms)",
        "ttft-per-token": "50us",
        "itl": "gamma(15ms, 4ms)",
        "thinking-rate": 1,
        "thinking-tokens": "log-normal(600, 500)",
        "output-tokens": "log-normal(250, 200)",
    },
    "flaky": {
        "source": "Nobody's: an illustration of all that a client must bear.",
        "itl": "gamma(10ms, 10ms)",
        "fail": {"429": 0.05, "529": 0.03, "500": 0.02, "error": 0.02, "stall": 0.01, "cut": 0.02},
        "stall": "30s",
    },
}
