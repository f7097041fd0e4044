"""LiteLLM's proxy: /v1/messages in front of an OpenAI-compatible engine, with one worker and without telemetry.

It reads its price list from the package instead of the network and asks for no key. The bench configures it to use
chat completions, because it would otherwise use the Responses API, which such engines do not have.
"""

from pathlib import Path
from typing import Final

from .envs import venv
from .peer import MODEL, Launch, Peer

_REQUIREMENT: Final = "litellm[proxy]==1.106.2"
_CONFIG: Final = """\
model_list:
  - model_name: {model}
    litellm_params:
      model: openai/{model}
      api_base: http://{engine}/v1
      api_key: none
litellm_settings:
  telemetry: false
  use_chat_completions_url_for_anthropic_messages: true
"""
_ENVIRONMENT: Final = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
    "LITELLM_LOG": "ERROR",
}


class LiteLLM(Peer):
    name = "litellm"
    label = "LiteLLM proxy"
    ready = "/health/liveliness"
    share = 0.2

    def prepare(self, cache: Path, *, install: bool) -> str:
        self._folder = cache / "envs" / self.name
        return venv(self._folder, [_REQUIREMENT], install=install)["litellm"]

    def launch(self, engine: str, listen: str, folder: Path) -> Launch:
        config = folder / "config.yaml"
        config.write_text(_CONFIG.format(model=MODEL, engine=engine))
        host, _, port = listen.rpartition(":")
        address = ["--host", host, "--port", port]
        command = [str(self._folder / "bin" / "litellm"), "--config", str(config), *address, "--num_workers", "1"]
        return Launch(command, _ENVIRONMENT)
