"""The simulator's presets, written as in a TOML file. `source` says where the figures of each are from.

A figure that the source does not give keeps its default, or is marked as our assumption.
"""

from collections.abc import Mapping
from typing import Any, Final

_NIM: Final = "https://docs.nvidia.com/nim/benchmarking/llm/1.0.0/performance"
_LLM_D: Final = "llm-d-inference-sim, docs/latency-profiles.md, which calls its figures order-of-magnitude estimates"

PRESETS: Final[Mapping[str, Mapping[str, Any]]] = {
    "llama-3.3-70b-2xh100": {
        "source": f"""Fitted to NVIDIA's figures for Llama-3.3-70b-instruct, NIM 1.8.0, fp8, 2 x H100 80G ({_NIM}). The
        first token of a single request comes after 47.77 ms for a prompt of 500 tokens, and after 406.77 ms for 5,000.
        Tokens are 18.58 ms apart for a single request, 38.75 ms for 25 and 59.73 ms for 50, which is a straight line.
        From 100 requests on they are 92.9 ms apart; on that line 90 requests run and the others wait. Under load the
        first token is later than measured: 1.3 s for 50 requests, not 0.83 s. The jitter is our assumption.""",
        "ttft": "7.9ms",
        "ttft-per-token": "79.8us",
        "itl": "gamma(18.58ms, 1ms)",
        "load-factor": 0.045,
        "max-running": 90,
    },
    "llama-3.1-8b-nim": {
        "source": f"""Fitted to NVIDIA's figures for Llama-3.1-8b-instruct, NIM 1.8.0 ({_NIM}). The first token of a
        single request comes after 10.26 ms. Tokens are 4.63 ms apart for a single request, 5.91 ms for 50 and 7.57 ms
        for 100. The time per prompt token and the jitter are our assumptions.""",
        "ttft": "8ms",
        "ttft-per-token": "10us",
        "itl": "gamma(4.63ms, 0.3ms)",
        "load-factor": 0.006,
    },
    "8b-h100": {
        "source": f"8B-class model on H100, balanced load, from {_LLM_D}; the cache size is our assumption.",
        "ttft": "normal(30ms, 5ms)",
        "ttft-per-token": "250us",
        "itl": "normal(12ms, 2ms)",
        "load-factor": 0.0667,
        "max-running": 16,
        "cache-tokens": 400_000,
    },
    "70b-8xh100": {
        "source": f"70B model on 8 x H100, throughput-optimised, from {_LLM_D}; the cache size is our assumption.",
        "ttft": "normal(80ms, 15ms)",
        "ttft-per-token": "500us",
        "itl": "normal(25ms, 4ms)",
        "load-factor": 0.0317,
        "max-running": 64,
        "cache-tokens": 1_000_000,
    },
    "laptop": {
        "source": "Illustrative: a small model on a CPU, one response at a time.",
        "ttft": "150ms",
        "ttft-per-token": "5ms",
        "itl": "log-normal(80ms, 20ms)",
        "max-running": 1,
        "cache-tokens": 8_192,
    },
    "reasoning": {
        "source": "Illustrative: a model that thinks for a long time before it answers.",
        "ttft": "log-normal(400ms, 200ms)",
        "ttft-per-token": "50us",
        "itl": "gamma(15ms, 4ms)",
        "thinking-rate": 1,
        "thinking-tokens": "log-normal(600, 500)",
        "output-tokens": "log-normal(250, 200)",
    },
    "flaky": {
        "source": "Illustrative: every failure that a client must handle.",
        "itl": "gamma(10ms, 10ms)",
        "fail": {"429": 0.05, "529": 0.03, "500": 0.02, "error": 0.02, "stall": 0.01, "cut": 0.02},
        "stall": "30s",
    },
}
