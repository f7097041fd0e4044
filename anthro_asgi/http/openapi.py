"""`GET /openapi.json`: an OpenAPI 3.1 document of the service, built once from the tables of `wire`."""

from collections.abc import Iterator
from functools import cache
from typing import Any, Final

import orjson

from ..observability.version import VERSION
from ..wire.batch_body import MAX_REQUESTS
from ..wire.errors import ApiError
from ..wire.file_metadata import LONGEST_LIFETIME, SHORTEST_LIFETIME
from ..wire.message_batch import OUTCOMES
from ..wire.request_schema import component_schemas

Json = dict[str, Any]
_TEXT: Final[Json] = {"type": "string"}
_TIME: Final[Json] = {"type": "string", "format": "date-time"}
_COUNT: Final[Json] = {"type": "integer", "minimum": 0}
_KEYS: Final[list[dict[str, list[str]]]] = [{"x-api-key": []}, {"bearer": []}, {}]
_STOP_REASONS: Final = ["end_turn", "max_tokens", "stop_sequence", "tool_use", "refusal", "pause_turn"]
_ANSWERS: Final[dict[str, Json]] = {
    "Message": {
        "type": "object",
        "required": ["id", "type", "role", "model", "content", "stop_reason", "stop_sequence", "usage"],
        "properties": {
            "id": _TEXT,
            "type": {"const": "message"},
            "role": {"const": "assistant"},
            "model": _TEXT,
            "content": {"type": "array", "items": {"$ref": "#/components/schemas/AnswerBlock"}},
            "stop_reason": {"enum": _STOP_REASONS},
            "stop_sequence": {"type": ["string", "null"]},
            "usage": {
                "type": "object",
                "required": ["input_tokens", "output_tokens"],
                "properties": {"input_tokens": _COUNT, "output_tokens": _COUNT},
            },
        },
    },
    "AnswerBlock": {"type": "object", "required": ["type"], "properties": {"type": _TEXT}},
    "TokenCount": {"type": "object", "required": ["input_tokens"], "properties": {"input_tokens": _COUNT}},
    "Model": {
        "type": "object",
        "required": ["type", "id", "display_name", "created_at"],
        "properties": {
            "type": {"const": "model"},
            "id": _TEXT,
            "display_name": _TEXT,
            "created_at": {"type": "string", "format": "date-time"},
        },
    },
    "ModelPage": {
        "type": "object",
        "required": ["data", "first_id", "last_id", "has_more"],
        "properties": {
            "data": {"type": "array", "items": {"$ref": "#/components/schemas/Model"}},
            "first_id": {"type": ["string", "null"]},
            "last_id": {"type": ["string", "null"]},
            "has_more": {"type": "boolean"},
        },
    },
    "MessageBatch": {
        "type": "object",
        "required": [
            "id",
            "type",
            "processing_status",
            "request_counts",
            "created_at",
            "expires_at",
            "ended_at",
            "cancel_initiated_at",
            "archived_at",
            "results_url",
        ],
        "properties": {
            "id": _TEXT,
            "type": {"const": "message_batch"},
            "processing_status": {"enum": ["in_progress", "canceling", "ended"]},
            "request_counts": {
                "type": "object",
                "required": ["processing", *OUTCOMES],
                "properties": dict.fromkeys(("processing", *OUTCOMES), _COUNT),
            },
            "created_at": _TIME,
            "expires_at": _TIME,
            **{name: _TIME | {"type": ["string", "null"]} for name in ("ended_at", "cancel_initiated_at")},
            "archived_at": _TIME | {"type": ["string", "null"]},
            "results_url": {"type": ["string", "null"]},
        },
    },
    "MessageBatchPage": {
        "type": "object",
        "required": ["data", "first_id", "last_id", "has_more"],
        "properties": {
            "data": {"type": "array", "items": {"$ref": "#/components/schemas/MessageBatch"}},
            "first_id": {"type": ["string", "null"]},
            "last_id": {"type": ["string", "null"]},
            "has_more": {"type": "boolean"},
        },
    },
    "DeletedMessageBatch": {
        "type": "object",
        "required": ["id", "type"],
        "properties": {"id": _TEXT, "type": {"const": "message_batch_deleted"}},
    },
    "File": {
        "type": "object",
        "required": ["id", "type", "filename", "mime_type", "size_bytes", "created_at"],
        "properties": {
            "id": _TEXT,
            "type": {"const": "file"},
            "filename": _TEXT,
            "mime_type": _TEXT,
            "size_bytes": _COUNT,
            "created_at": _TIME,
            "expires_at": _TIME | {"type": ["string", "null"]},
            "downloadable": {"type": "boolean"},
            "scope": {"type": ["object", "null"]},
        },
    },
    "FilePage": {
        "type": "object",
        "required": ["data", "first_id", "last_id", "has_more", "next_page"],
        "properties": {
            "data": {"type": "array", "items": {"$ref": "#/components/schemas/File"}},
            "first_id": {"type": ["string", "null"]},
            "last_id": {"type": ["string", "null"]},
            "has_more": {"type": "boolean"},
            "next_page": {"type": ["string", "null"]},
        },
    },
    "DeletedFile": {
        "type": "object",
        "required": ["id", "type"],
        "properties": {"id": _TEXT, "type": {"const": "file_deleted"}},
    },
    "Status": {"type": "object", "required": ["status"], "properties": {"status": _TEXT, "notice": _TEXT}},
    "Error": {
        "type": "object",
        "required": ["type", "error", "request_id"],
        "properties": {
            "type": {"const": "error"},
            "error": {
                "type": "object",
                "required": ["type", "message"],
                "properties": {"type": _TEXT, "message": _TEXT, "details": {"type": "object"}},
            },
            "request_id": _TEXT,
        },
    },
}


@cache
def openapi_body() -> bytes:
    """The document as JSON."""
    return orjson.dumps(openapi_document())


def openapi_document() -> Json:
    """The document, as JSON values."""
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "anthro_asgi",
            "version": VERSION,
            "description": "The Anthropic Messages API. Unknown fields of a request are accepted and ignored.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": {
            "/v1/messages": {"post": _create_message()},
            "/v1/messages/count_tokens": {"post": _count_tokens()},
            "/v1/messages/batches": {"get": _list_batches(), "post": _create_batch()},
            "/v1/messages/batches/{message_batch_id}": {
                "get": _one_batch("One message batch", "get_batch", _json("MessageBatch", "The batch.")),
                "delete": _one_batch(
                    "Delete a message batch", "delete_batch", _json("DeletedMessageBatch", "Deleted.")
                ),
            },
            "/v1/messages/batches/{message_batch_id}/cancel": {
                "post": _one_batch("Cancel a message batch", "cancel_batch", _json("MessageBatch", "The batch.")),
            },
            "/v1/messages/batches/{message_batch_id}/results": {
                "get": _one_batch(
                    "The results of a message batch", "batch_results", _response("application/x-jsonl", _TEXT, "JSONL.")
                ),
            },
            "/v1/files": {"get": _list_files(), "post": _create_file()},
            "/v1/files/{file_id}": {
                "get": _one_file("One file", "get_file", _json("File", "The file.")),
                "delete": _one_file("Delete a file", "delete_file", _json("DeletedFile", "Deleted.")),
            },
            "/v1/files/{file_id}/content": {
                "get": _one_file(
                    "The content of a file that a tool has made",
                    "file_content",
                    _response("application/octet-stream", _TEXT, "The content. Uploads are refused with status 400."),
                ),
            },
            "/v1/models": {"get": _list_models()},
            "/v1/models/{model_id}": {"get": _get_model()},
            "/healthz": {"get": _open("Whether the process runs", "health", {200: _json("Status", "It runs.")})},
            "/readyz": {
                "get": _open(
                    "Whether requests can be answered",
                    "readiness",
                    {200: _json("Status", "Ready."), 503: _json("Status", "Not ready; `status` says why.")},
                )
            },
            "/metrics": {
                "get": _open("Prometheus metrics", "metrics", {200: _response("text/plain", _TEXT, "Metrics.")})
            },
            "/openapi.json": {
                "get": _open(
                    "This document",
                    "openapi",
                    {200: _response("application/json", {"type": "object"}, "The document.")},
                )
            },
        },
        "components": {
            "schemas": {**component_schemas(), **_ANSWERS},
            "securitySchemes": {
                "x-api-key": {"type": "apiKey", "in": "header", "name": "x-api-key"},
                "bearer": {"type": "http", "scheme": "bearer"},
            },
        },
    }


# operations


def _create_message() -> Json:
    answer = _json("Message", "The Message; with `stream: true`, its events.")
    answer["content"]["text/event-stream"] = {"schema": _TEXT}
    return _keyed("Create a Message", "create_message", answer, body="CreateMessage")


def _count_tokens() -> Json:
    return _keyed("Count the tokens of a prompt", "count_tokens", _json("TokenCount", "The count."), body="CountTokens")


def _list_models() -> Json:
    limit = {"type": "integer", "minimum": 1, "maximum": 1000, "default": 20}
    lifecycle = {"type": "array", "items": {"enum": ["active", "deprecated", "retired"]}}
    return _keyed("List the models", "list_models", _json("ModelPage", "A page.")) | {
        "parameters": [
            _parameter("limit", limit),
            _parameter("after_id", _TEXT),
            _parameter("before_id", _TEXT),
            _parameter("lifecycle", lifecycle),
        ]
    }


def _get_model() -> Json:
    identity = {"name": "model_id", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    return _keyed("One model", "get_model", _json("Model", "The model.")) | {"parameters": [identity]}


def _create_batch() -> Json:
    operation = _keyed("Create a message batch", "create_batch", _json("MessageBatch", "The batch."))
    params = {"$ref": "#/components/schemas/CreateMessage"}
    entry: Json = {
        "type": "object",
        "required": ["custom_id", "params"],
        "properties": {"custom_id": {"type": "string", "pattern": "^[a-zA-Z0-9_-]{1,64}$"}, "params": params},
    }
    requests = {"type": "array", "minItems": 1, "maxItems": MAX_REQUESTS, "items": entry}
    schema = {"type": "object", "required": ["requests"], "properties": {"requests": requests}}
    operation["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return operation


def _list_batches() -> Json:
    limit = {"type": "integer", "minimum": 1, "maximum": 1000, "default": 20}
    return _keyed("List the message batches", "list_batches", _json("MessageBatchPage", "A page.")) | {
        "parameters": [_parameter("limit", limit), _parameter("after_id", _TEXT), _parameter("before_id", _TEXT)]
    }


def _one_batch(summary: str, identity: str, answer: Json) -> Json:
    name = {"name": "message_batch_id", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    return _keyed(summary, identity, answer) | {"parameters": [name]}


def _create_file() -> Json:
    operation = _keyed("Upload a file", "create_file", _json("File", "The file."))
    lifetime = {"type": "integer", "minimum": SHORTEST_LIFETIME, "maximum": LONGEST_LIFETIME}
    schema = {
        "type": "object",
        "required": ["file"],
        "properties": {"file": {"contentMediaType": "application/octet-stream"}, "expires_in_seconds": lifetime},
    }
    operation["requestBody"] = {"required": True, "content": {"multipart/form-data": {"schema": schema}}}
    return operation


def _list_files() -> Json:
    limit = {"type": "integer", "minimum": 1, "maximum": 1000, "default": 20}
    ids = {"type": "array", "maxItems": 100, "items": _TEXT}
    return _keyed("List the files", "list_files", _json("FilePage", "A page.")) | {
        "parameters": [
            _parameter("limit", limit),
            _parameter("page", _TEXT),
            _parameter("after_id", _TEXT),
            _parameter("before_id", _TEXT),
            _parameter("ids[]", ids),
        ]
    }


def _one_file(summary: str, identity: str, answer: Json) -> Json:
    name = {"name": "file_id", "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
    return _keyed(summary, identity, answer) | {"parameters": [name]}


def _parameter(name: str, schema: Json) -> Json:
    return {"name": name, "in": "query", "schema": schema}


def _keyed(summary: str, identity: str, answer: Json, *, body: str | None = None) -> Json:
    """An operation that needs a key where keys are configured."""
    operation: Json = {
        "summary": summary,
        "operationId": identity,
        "security": _KEYS,
        "responses": {"200": answer, **_error_responses()},
    }
    if body is not None:
        content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{body}"}}}
        operation["requestBody"] = {"required": True, "content": content}
    return operation


def _open(summary: str, identity: str, responses: dict[int, Json]) -> Json:
    """An operation without a key."""
    return {
        "summary": summary,
        "operationId": identity,
        "security": [],
        "responses": {str(status): response for status, response in responses.items()},
    }


def _error_responses() -> dict[str, Json]:
    """The errors of the API by status, from the classes of `wire.errors`."""
    types: dict[int, set[str]] = {}
    for error in sorted(_error_classes(ApiError), key=lambda error: error.status):
        types.setdefault(error.status, set()).add(error.type)
    return {str(status): _json("Error", ", ".join(sorted(kinds))) for status, kinds in types.items()}


def _error_classes(base: type[ApiError]) -> Iterator[type[ApiError]]:
    for error in base.__subclasses__():
        if error.__module__ == ApiError.__module__:
            yield error
            yield from _error_classes(error)


def _json(schema: str, description: str) -> Json:
    return _response("application/json", {"$ref": f"#/components/schemas/{schema}"}, description)


def _response(content_type: str, schema: Json, description: str) -> Json:
    headers = {"request-id": {"schema": _TEXT, "description": "The id of the request, as in the log."}}
    return {"description": description, "headers": headers, "content": {content_type: {"schema": schema}}}
