"""NVIDIA Dynamo's frontend: Messages before workers that register with it; here one worker, in front of the engine.

The frontend alone is measured. The worker passes on the engine's chunks. It is not a child process of the frontend, so
its CPU time is not counted. Discovery is a folder, and requests go over TCP, so neither etcd nor NATS is needed. The
start of the frontend includes the registration of the worker.

The package's dependency `aisimulate` comes from NVIDIA's own index only, and the frontend does not need it. So the
packages are installed without their dependencies, and what the frontend imports is installed beside them.
"""

import shlex
from pathlib import Path
from typing import Any, Final

import orjson

from .envs import venv
from .peer import MODEL, Launch, Peer

_VERSION: Final = "1.6.1"
_NEEDED: Final = (
    "aiohttp",
    "msgspec",
    "packaging",
    "prometheus-client",
    "pydantic",
    "pyyaml",
    "pyzmq",
    "uvloop",
)
_WORKER: Final = Path(__file__).with_name("dynamo_worker.py")
_ENVIRONMENT: Final = {
    "DYN_DISCOVERY_BACKEND": "file",
    "DYN_REQUEST_PLANE": "tcp",
    "DYN_EVENT_PLANE": "zmq",
    "DYN_LOG": "error",
}
_DIMENSIONS: Final = ("hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers")
_FILES: Final[dict[str, Any]] = {  # the least that describes a model; no text is tokenized
    "config.json": {
        "model_type": "llama",
        "architectures": ["LlamaForCausalLM"],
        "max_position_embeddings": 32_768,
        "vocab_size": 2,
        "bos_token_id": 0,
        "eos_token_id": 1,
        **dict.fromkeys(_DIMENSIONS, 1),
    },
    "tokenizer.json": {
        "version": "1.0",
        "added_tokens": [],
        "pre_tokenizer": {"type": "Whitespace"},
        "model": {"type": "WordLevel", "vocab": {"a": 0, "</s>": 1}, "unk_token": "a"},
    },
    "tokenizer_config.json": {
        "chat_template": "{% for message in messages %}{{ message.content }}{% endfor %}",
        "bos_token": "a",
        "eos_token": "</s>",
    },
}


class Dynamo(Peer):
    name = "dynamo"
    label = "NVIDIA Dynamo's frontend"
    holds = MODEL.encode()

    def prepare(self, cache: Path, *, install: bool) -> str:
        self._folder = cache / "envs" / self.name
        bare = [f"ai-dynamo=={_VERSION}", f"ai-dynamo-runtime=={_VERSION}"]
        return venv(self._folder, _NEEDED, bare=bare, install=install)["ai-dynamo"]

    def launch(self, engine: str, listen: str, folder: Path) -> Launch:
        model = folder / "model"
        model.mkdir(exist_ok=True)
        for name, content in _FILES.items():
            (model / name).write_bytes(orjson.dumps(content))
        # -P: the folder of the worker holds a dynamo.py of ours
        python = str(self._folder / "bin" / "python")
        host, _, port = listen.rpartition(":")
        worker = [python, "-P", str(_WORKER), engine, MODEL, str(model)]
        frontend = [python, "-m", "dynamo.frontend", "--http-host", host, "--http-port", port, "--enable-anthropic-api"]
        shell = f"({shlex.join(worker)} &); exec {shlex.join(frontend)}"
        return Launch(["sh", "-c", shell], {**_ENVIRONMENT, "DYN_FILE_KV": str(folder / port)})
