"""The description of the front door: valid OpenAPI, and what really is answered conforms to it."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator
from openapi_spec_validator import validate

import serving
from serving.frontdoor.door import Auth
from serving.frontdoor.openapi import openapi
from serving.protocol import inference_body
from tests.serving.frontdoor.running_door import front_door

MODEL = "/v2/models/tiny"


def check(description: dict[str, Any], path: str, answer: httpx.Response) -> None:
    """Hold an answer against the schema that the description has for it."""
    operation = description["paths"][path][answer.request.method.lower()]
    response = operation["responses"][str(answer.status_code)]
    if "$ref" in response:
        response = description["components"]["responses"][response["$ref"].rpartition("/")[2]]
    schema = response["content"][answer.headers["content-type"].partition(";")[0]]["schema"]
    Draft202012Validator({**schema, "components": description["components"]}).validate(answer.json())
    assert {"x-request-id"} <= set(response.get("headers", {"x-request-id": None}))


@pytest.mark.unit
@pytest.mark.parametrize("auth", [None, Auth(keys=Path("keys.json"))], ids=["open", "keys"])
@pytest.mark.parametrize("labels", [(), ("negative", "好")])
def test_it_is_valid(tmp_path: Path, auth: Auth | None, labels: tuple[str, ...]) -> None:
    validate(openapi(front_door(tmp_path, auth=auth, labels=labels)))


@pytest.mark.unit
def test_it_says_which_labels_there_are_and_how_to_authenticate(tmp_path: Path) -> None:
    description = openapi(front_door(tmp_path, auth=Auth(keys=Path("keys.json"))))
    label = description["components"]["schemas"]["GenerateResponse"]["properties"]["label"]["anyOf"][0]
    assert label["enum"] == ["negative", "positive"]
    assert set(description["components"]["securitySchemes"]) == {"key", "bearer"}
    assert description["security"] == [{"key": []}, {"bearer": []}]


@pytest.mark.integration
@pytest.mark.parametrize(
    ("path", "body"),
    [
        (f"{MODEL}/infer", inference_body("good")),
        (f"{MODEL}/infer", inference_body("")),
        (f"{MODEL}/infer", {"inputs": []}),
        (f"{MODEL}/infer", None),
        (f"{MODEL}/generate", {"text": "good"}),
        (f"{MODEL}/generate", {"text": ["good", "bad"]}),
        (f"{MODEL}/generate", {"text": ["good", "bad"], "top_k": 2}),
        (f"{MODEL}/generate", {"text": ""}),
        (f"{MODEL}/generate", {}),
        (MODEL, None),
        ("/healthz", None),
    ],
)
def test_what_is_answered_conforms_to_it(endpoint: serving.Endpoint, path: str, body: Any) -> None:
    with httpx.Client(base_url=endpoint.url, timeout=30) as client:
        description = client.get("/openapi.json").json()
        answer = client.get(path) if body is None else client.post(path, json=body)
    if answer.status_code == 405:
        assert list(answer.json()) == ["error"]
        return
    check(description, path, answer)
