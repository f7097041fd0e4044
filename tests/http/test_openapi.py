"""The OpenAPI document: it follows from the tables, and covers every route, field and block."""

from typing import Any

import orjson
import pytest

from anthro_asgi import MessagesApp
from anthro_asgi.http import messages_app
from anthro_asgi.http.openapi import openapi_document
from anthro_asgi.simulator import SimulatedEngine
from anthro_asgi.testing import Driver
from anthro_asgi.wire import request_schema
from anthro_asgi.wire.errors import ApiError
from anthro_asgi.wire.request import REQUEST_FIELDS, Nature

DOCUMENT = openapi_document()
SCHEMAS: dict[str, Any] = DOCUMENT["components"]["schemas"]


@pytest.mark.clause("1.5")
@pytest.mark.parametrize("method", ["GET", "HEAD"])
async def test_the_document_is_served_without_a_key(method: str) -> None:
    app = MessagesApp(SimulatedEngine(), keys=["sk-right"])
    response = await Driver(app).request(method, "/openapi.json")
    assert (response.status, response.header("content-type")) == (200, "application/json")
    assert method == "HEAD" or response.json() == DOCUMENT


def test_every_route_is_described_and_no_other() -> None:
    served = {path.removeprefix("/v1/v1") for path in messages_app._ROUTES if not path.startswith("/v1/v1/")}
    one = "/v1/messages/batches/{message_batch_id}"
    of_one = {
        f"{route}/{rest}".removesuffix("/"): methods
        for route, table in ((one, messages_app._ONE_BATCH), ("/v1/files/{file_id}", messages_app._ONE_FILE))
        for rest, methods in table.items()
    }
    described = set(DOCUMENT["paths"]) - {"/v1/models/{model_id}"} - of_one.keys()
    aliases = {"/", "/api/hello", "/messages", "/messages/batches", "/messages/count_tokens", "/models", "/files"}
    assert described == served - aliases
    for path, operations in DOCUMENT["paths"].items():
        methods = of_one.get(path) or messages_app._ROUTES.get(path) or messages_app._ONE_MODEL
        assert set(operations) == {method.lower() for method in methods if method != "HEAD"}


def properties(schema: dict[str, Any]) -> dict[str, Any]:
    """The properties of an object, also if it has alternatives."""
    found: dict[str, Any] = next(
        option["properties"] for option in [schema, *schema.get("anyOf", [])] if "properties" in option
    )
    return found


@pytest.mark.parametrize("row", REQUEST_FIELDS, ids=lambda row: row.path)
def test_every_field_of_the_table_has_a_place_in_the_body(row: Any) -> None:
    create, count = SCHEMAS["CreateMessage"], SCHEMAS["CountTokens"]
    key, _, inner = row.path.partition(".")
    assert not inner or inner in properties(create["properties"][key])
    assert (key in create["required"]) == row.is_required
    assert (key in count["properties"]) == (row.nature is not Nature.GENERATION)
    described = create["properties"][key].get("description", "")
    assert ("without effect" in described) == (row.nature is Nature.IGNORED)
    assert ("Refused" in described) == (row.nature is Nature.REFUSED)


def test_the_table_of_fields_and_the_table_of_their_schemas_have_the_same_paths() -> None:
    assert {row.path for row in REQUEST_FIELDS} == set(request_schema._FIELDS)


def test_the_checks_of_blocks_and_the_table_of_their_schemas_have_the_same_types() -> None:
    assert set(request_schema.block_types()) == set(request_schema._BLOCKS)


def test_every_reference_has_its_schema() -> None:
    text = orjson.dumps(DOCUMENT).decode()
    named = {part.partition('"')[0] for part in text.split('"#/components/schemas/')[1:]}
    assert named <= set(SCHEMAS)
    assert set(SCHEMAS) - named <= {"TokenCount"}


def test_every_status_of_an_error_is_described() -> None:
    def classes(base: type[ApiError]) -> list[type[ApiError]]:
        return [found for error in base.__subclasses__() for found in (error, *classes(error))]

    statuses = {str(error.status) for error in classes(ApiError) if error.__module__ == ApiError.__module__}
    assert set(DOCUMENT["paths"]["/v1/messages"]["post"]["responses"]) == {"200", *statuses}
