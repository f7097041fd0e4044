"""`GET /v1/models` and `/v1/models/{id}` (contract section 9), and aliases: other names for models of the engine.

An alias is `NAME=MODEL`; a `*` in NAME stands for any characters. An exact name wins over every name with a `*`, and of
these the first that matches wins. So `*=MODEL` maps every other name to MODEL.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any, Final
from urllib.parse import parse_qs

from ..engines.base import ModelInfo
from ..wire.errors import InvalidRequest, NotFound, quoted

_DEFAULT_LIMIT: Final = 20
_MAX_LIMIT: Final = 1000
_LIFECYCLES: Final = frozenset({"active", "deprecated", "retired"})


class ModelAliases:
    """Maps model names of clients to models of the engine."""

    __slots__ = ("_exact", "_patterns")

    def __init__(self, aliases: Mapping[str, str]) -> None:
        self._exact = {name: model for name, model in aliases.items() if "*" not in name}
        self._patterns = [(name, model) for name, model in aliases.items() if "*" in name]

    def __len__(self) -> int:
        return len(self._exact) + len(self._patterns)

    def targets(self) -> list[ModelInfo]:
        """The models that aliases map to, each once, without any limits."""
        names = [*self._exact.values(), *(model for _, model in self._patterns)]
        return [ModelInfo(name, name) for name in dict.fromkeys(names)]

    def resolve(self, name: str) -> str:
        """The model of the engine for the name that a client uses; the name itself when no alias matches."""
        exact = self._exact.get(name)
        if exact is not None:
            return exact
        for pattern, model in self._patterns:
            if fnmatchcase(name, pattern.replace("[", "[[]").replace("?", "[?]")):
                return model
        return name

    def with_aliases(self, models: Sequence[ModelInfo]) -> list[ModelInfo]:
        """The engine's models and, after them, the exact aliases, each with the limits of its model."""
        known = {model.id for model in models}
        return [*models, *(self.alias_entry(models, name) for name in self._exact if name not in known)]

    def alias_entry(self, models: Sequence[ModelInfo], name: str) -> ModelInfo:
        """The entry of an alias, with the limits of its model."""
        target = self.resolve(name)
        known = next((model for model in models if model.answers_to(target)), ModelInfo(target))
        return replace(known, id=name, display_name=name)


def models_page(models: Sequence[ModelInfo], query: bytes) -> dict[str, Any]:
    """One page of the list, by `limit`, `after_id`, `before_id` and `lifecycle` of the query string.

    An unknown cursor selects an empty page. Raises InvalidRequest.
    """
    parameters = parse_qs(query.decode("latin-1"), keep_blank_values=True)
    limit = page_limit(parameters)
    if not _lists_active(parameters):
        models = ()
    ids = [model.id for model in models]
    first, last = 0, len(models)
    if "after_id" in parameters:
        cursor = parameters["after_id"][-1]
        first = ids.index(cursor) + 1 if cursor in ids else len(ids)
    if "before_id" in parameters:
        cursor = parameters["before_id"][-1]
        last = ids.index(cursor) if cursor in ids else 0
    window = models[first:last]
    from_the_end = "before_id" in parameters and "after_id" not in parameters
    shown = window[-limit:] if from_the_end else window[:limit]
    return {
        "object": "list",
        "data": [model_json(model) for model in shown],
        "first_id": shown[0].id if shown else None,
        "last_id": shown[-1].id if shown else None,
        "has_more": len(window) > len(shown),
    }


def model_entry(models: Sequence[ModelInfo], identity: str, aliases: ModelAliases) -> dict[str, Any]:
    """The entry of the model `identity`, which may be a name that only a `*` alias matches. Raises NotFound."""
    for model in models:
        if model.answers_to(identity):
            return model_json(model)
    if identity and aliases.resolve(identity) != identity:
        return model_json(aliases.alias_entry(models, identity))
    raise NotFound(f"model: {quoted(identity, 200)} is not served here")


def model_json(model: ModelInfo) -> dict[str, Any]:
    """A model as the Messages API lists it, and with the keys that OpenAI's clients read."""
    return {
        "type": "model",
        "id": model.id,
        "display_name": model.display_name or model.id,
        "created_at": datetime.fromtimestamp(max(0, model.created), UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "max_input_tokens": model.max_input_tokens,
        "max_tokens": model.max_tokens,
        "lifecycle": "active",
        "object": "model",
        "created": model.created,
        "owned_by": model.owned_by,
        **({"engine": model.engine} if model.engine else {}),
    }


def page_limit(parameters: dict[str, list[str]]) -> int:
    """How many entries a page of a list has, by the query. Raises InvalidRequest."""
    text = parameters.get("limit", [str(_DEFAULT_LIMIT)])[-1]
    if not (text.isascii() and text.isdigit() and len(text) < 6 and 1 <= int(text) <= _MAX_LIMIT):
        raise InvalidRequest(f"limit: must be an integer from 1 to {_MAX_LIMIT}")
    return int(text)


def _lists_active(parameters: dict[str, list[str]]) -> bool:
    """Whether the query asks for active models, which all models here are. SDKs write `lifecycle[]=` for a list."""
    stages = [*parameters.get("lifecycle", ()), *parameters.get("lifecycle[]", ())]
    stages = [stage for value in stages for stage in value.split(",") if stage]
    unknown = next((stage for stage in stages if stage not in _LIFECYCLES), None)
    if unknown is not None:
        raise InvalidRequest(f"lifecycle: must be one of {', '.join(sorted(_LIFECYCLES))}")
    return not stages or "active" in stages
