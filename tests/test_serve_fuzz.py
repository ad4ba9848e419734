"""Requests made up from the server's own OpenAPI document: no fault, and nothing but what the document says."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from schemathesis import GenerationMode
from schemathesis.checks import load_all_checks
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from serve_support import OPTIONS, call, native, running

from kringle.serve.settings import Settings

EXAMPLES = 12  # of each endpoint; `make evidence load` sends many more requests, of a few kinds
load_all_checks()
CHECKS = [
    schemathesis.checks.not_a_server_error,
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
]


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    model = native(tmp_path_factory.mktemp("model"), options=OPTIONS)
    with running([model], Settings(most_new_tokens=4, most_samples=4, most_body=100_000)) as address:
        yield address


@pytest.fixture(scope="module")
def api(address: str) -> Any:
    return schemathesis.openapi.from_dict(call(address, "/openapi.json").json)


def test_the_document_tells_every_refusal_in_its_real_shape(address: str) -> None:
    document = call(address, "/openapi.json").json
    assert "HTTPValidationError" not in json.dumps(document)  # the framework's own shape, which is never sent
    assert len(document["paths"]) >= 15
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            assert {"200", "403", "500"} <= operation["responses"].keys(), path
            if method == "post":
                for status in ("400", "401", "404", "408", "413", "415", "422", "429", "503", "504"):
                    shape = operation["responses"][status]["content"]["application/json"]["schema"]["$ref"]
                    assert shape.endswith("/ErrorBody"), (path, status)


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: mode.value)
def test_made_up_requests_find_no_fault(api: Any, address: str, mode: GenerationMode) -> None:
    """What the document allows, and what it does not."""
    statuses: Counter[int] = Counter()
    for found in api.get_all_operations():
        operation = found.ok()
        if mode is GenerationMode.NEGATIVE and not operation.body:
            continue  # without fields, nothing can be wrong with them

        @settings(
            max_examples=EXAMPLES,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.explicit, Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=operation.as_strategy(generation_mode=mode))
        def check(case: Any) -> None:
            answer = case.call(base_url=address, timeout=60)
            statuses[answer.status_code] += 1
            case.validate_response(answer, checks=CHECKS)

        check()
    assert statuses[200 if mode is GenerationMode.POSITIVE else 422] > EXAMPLES
