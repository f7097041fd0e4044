"""The OpenAPI document against a validator of OpenAPI, and the service against the document."""

import subprocess
import sys
from pathlib import Path

import openapi_spec_validator

from anthro_asgi import MessagesApp
from anthro_asgi.http.openapi import openapi_document
from anthro_asgi.simulator import SimulatedEngine
from anthro_asgi.testing import LoopbackServer

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "unsupported_method",
    "allow_header_conformance",
)


def test_the_document_is_valid_openapi() -> None:
    openapi_spec_validator.validate(openapi_document())


def test_the_service_keeps_to_the_document(tmp_path: Path) -> None:
    """Bodies that fit and bodies that do not: no 5xx, no undocumented answer, and what does not fit is refused.

    `positive_data_acceptance` is not checked: rules between values, such as that of tool results, are not in a schema.
    Token counts have the same body as messages, apart from fields that they ignore.
    """
    with LoopbackServer(MessagesApp(SimulatedEngine(ttft=0, itl=0))) as server:
        command = [
            *(sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json"),
            *("--checks", ",".join(CHECKS), "--phases", "coverage,fuzzing"),
            *("--exclude-operation-id", "count_tokens", "--max-examples", "4", "--seed", "1", "--no-color"),
            "--suppress-health-check=too_slow",  # it depends on what else the machine does
        ]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert "No failures" in done.stdout or " passed" in done.stdout
