"""The description of the HTTP front door for people and generators of clients: OpenAPI 3.1, served at `/openapi.json`.

Made for what is served: the labels are an enum, the limits are this endpoint's, and the ways to authenticate are those
that it takes. gRPC is described by its own protobuf files (KServe's `inference.GRPCInferenceService`).
"""

from typing import Any

from serving.frontdoor.door import FrontDoor
from serving.protocol import INPUT, LABEL, LOGITS, MAX_ROWS, SCORE, SCORES, TOP_K, TRUNCATED, Json

OPENAPI_PATH = "/openapi.json"

_OUTPUTS = {
    LABEL: "the most probable label of each text; with top_k, the most probable ones in order",
    SCORE: "its probability",
    SCORES: "the probability of every label, in the order of the labels",
    LOGITS: "what the model gave before the softmax, in the order of the labels",
    TRUNCATED: "whether the end of the text was cut off",
}
_REQUEST_ID = {"x-request-id": {"description": "What the access log calls this request.", "schema": {"type": "string"}}}
_RETRY_AFTER = {
    "retry-after": {"description": "Seconds to wait before it is sent again.", "schema": {"type": "integer"}}
}


def openapi(door: FrontDoor) -> Json:
    """The description of `door`."""
    security: list[Json] = []
    if door.auth is not None:
        security = [{name: []} for name in _schemes(door)]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": door.model,
            "version": "2",
            "description": "Text classification by the Open Inference Protocol (KServe v2).",
        },
        "servers": [{"url": "/"}],
        "paths": _paths(door),
        "components": {"schemas": _schemas(door), "securitySchemes": _schemes(door), "responses": _refusals(door)},
        "security": security,
    }


def _paths(door: FrontDoor) -> Json:
    model = f"/v2/models/{door.model}"
    ask = {
        "infer": ("Classify texts", "InferRequest", "InferResponse"),
        "generate": ("Classify texts, flat JSON", "GenerateRequest", "GenerateResponse"),
    }
    paths: Json = {}
    for base, version in ((model, []), (f"{model}/versions/{{version}}", [_parameter("version", "path")])):
        for name, (summary, request, response) in ask.items():
            paths[f"{base}/{name}"] = {
                "parameters": [*version, _parameter("x-slipway-timeout-ms", "header")],
                "post": {
                    "operationId": f"{name}{'Version' if version else ''}",
                    "summary": summary,
                    "requestBody": {"required": True, "content": _json(request)},
                    "responses": _responses(door, response, asked=True),
                },
            }
        paths[base] = {
            "parameters": [*version],
            "get": {
                "operationId": f"metadata{'Version' if version else ''}",
                "summary": "Names, types and shapes of the model's tensors",
                "responses": _responses(door, "ModelMetadata"),
            },
        }
    paths["/healthz"] = {
        "get": {
            "operationId": "health",
            "summary": "Whether a real inference succeeded within the last second or so",
            "security": [],
            "responses": {
                "200": {"description": "It did.", "content": _json("Health")},
                "503": {"$ref": "#/components/responses/503"},
            },
        }
    }
    return paths


def _parameter(name: str, place: str) -> Json:
    texts = {
        "version": ("A version of the model.", {"type": "string", "pattern": "^[0-9]+$"}),
        "x-slipway-timeout-ms": (
            "Milliseconds that the answer is worth waiting for; the request is given up then.",
            {"type": "integer", "minimum": 1, "maximum": 99_999_999},
        ),
    }
    description, schema = texts[name]
    return {"name": name, "in": place, "required": place == "path", "description": description, "schema": schema}


def _responses(door: FrontDoor, schema: str, *, asked: bool = False) -> Json:
    statuses = ["404", "408", "429", "431", "503", "504"]
    statuses += ["400", "405", "413", "415", "500"] if asked else []
    statuses += ["401", "403"] if door.auth is not None else []
    answer = {"description": "The answer.", "headers": _REQUEST_ID, "content": _json(schema)}
    return {"200": answer, **{status: {"$ref": f"#/components/responses/{status}"} for status in sorted(statuses)}}


def _refusals(door: FrontDoor) -> Json:
    texts = {
        "400": "The request can't be right; the reason names the row or the place.",
        "401": "No credentials, or none that are accepted.",
        "403": "The credentials lack the scope that this takes.",
        "404": "Nothing is served at this path, or this version is not there.",
        "405": "Another method is needed.",
        "408": "The request took too long to arrive.",
        "413": f"The body is larger than {door.max_body_bytes} bytes.",
        "415": "The body is compressed.",
        "429": "More requests than are allowed.",
        "431": "The headers are too large.",
        "500": "The model failed at this request.",
        "503": "The model is down, or too many requests are in flight.",
        "504": f"No answer within {door.timeout_s:g} s, or the time that was asked for.",
    }
    return {
        status: {
            "description": text,
            "headers": _REQUEST_ID | (_RETRY_AFTER if status in ("429", "503") else {}),
            "content": _json("Error"),
        }
        for status, text in texts.items()
    }


def _schemes(door: FrontDoor) -> Json:
    schemes: Json = {}
    if door.auth is not None and door.auth.keys is not None:
        schemes["key"] = {"type": "apiKey", "in": "header", "name": "x-api-key"}
    if door.auth is not None:
        schemes["bearer"] = {"type": "http", "scheme": "bearer"}
    return schemes


def _schemas(door: FrontDoor) -> Json:
    label: Json = {"type": "string", **({"enum": list(door.labels)} if door.labels else {})}
    parameters = _object(
        {TOP_K: {"type": "integer", "minimum": 1, "maximum": max(1, len(door.labels))}},
        description=f"{TOP_K}: how many labels to give for each text.",
    )
    text = {"type": "string", "minLength": 1}
    tensor_in = _object(
        {
            "name": {"const": INPUT},
            "shape": {
                "type": "array",
                "prefixItems": [{"type": "integer", "minimum": 1, "maximum": MAX_ROWS}, {"const": 1}],
                "minItems": 2,
                "maxItems": 2,
            },
            "datatype": {"const": "BYTES"},
            "data": {"type": "array", "items": {"anyOf": [text, {"type": "array"}]}, "minItems": 1},
        },
        required=["name", "shape", "datatype", "data"],
    )
    tensor_out = _object(
        {
            "name": {"enum": list(_OUTPUTS), "description": "; ".join(f"{k}: {v}" for k, v in _OUTPUTS.items())},
            "shape": {"type": "array", "items": {"type": "integer"}},
            "datatype": {"enum": ["BYTES", "FP32", "BOOL"]},
            "data": {"type": "array", "items": {"anyOf": [label, {"type": "number"}, {"type": "boolean"}]}},
        },
        required=["name", "shape", "datatype", "data"],
    )
    names = {"model_name": {"const": door.model}, "model_version": {"type": "string"}}
    tensors = {"name": {"type": "string"}, "datatype": {"type": "string"}, "shape": {"type": "array"}}
    listed = {"type": "array", "items": _object(tensors, required=list(tensors))}
    return {
        "InferRequest": _object(
            {
                "id": {"type": "string"},
                "parameters": parameters,
                "inputs": {"type": "array", "items": tensor_in, "minItems": 1, "maxItems": 1},
                "outputs": {"type": "array", "items": _object({"name": {"enum": list(_OUTPUTS)}}, required=["name"])},
            },
            required=["inputs"],
        ),
        "InferResponse": _object(
            {**names, "id": {"type": "string"}, "outputs": {"type": "array", "items": tensor_out}},
            required=["model_name", "model_version", "outputs"],
        ),
        "GenerateRequest": _object(
            {
                INPUT: {"anyOf": [text, {"type": "array", "items": text, "minItems": 1, "maxItems": MAX_ROWS}]},
                TOP_K: parameters["properties"][TOP_K],
            },
            required=[INPUT],
        ),
        "GenerateResponse": _object(
            {
                **names,
                LABEL: _one_or_more(label),
                SCORE: _one_or_more({"type": "number"}),
                SCORES: {"type": "array", "items": {"type": "number"}},
                LOGITS: {"type": "array", "items": {"type": "number"}},
                TRUNCATED: _one_or_more({"type": "boolean"}),
            },
            required=[*names, *_OUTPUTS],
            description="Of several texts, or with top_k, the lists are flat: row after row.",
        ),
        "ModelMetadata": _object(
            {
                "name": {"const": door.model},
                "versions": {"type": "array", "items": {"type": "string"}},
                "platform": {"type": "string"},
                "inputs": listed,
                "outputs": listed,
            },
            required=["name", "inputs", "outputs"],
        ),
        "Health": _object({"status": {"const": "ok"}}, required=["status"]),
        "Error": _object({"error": {"type": "string"}}, required=["error"]),
    }  # fmt: skip


def _object(properties: Json, **more: Any) -> Json:
    return {"type": "object", "properties": properties, **more}


def _one_or_more(value: Json) -> Json:
    return {"anyOf": [value, {"type": "array", "items": value}]}


def _json(schema: str) -> Json:
    return {"application/json": {"schema": {"$ref": f"#/components/schemas/{schema}"}}}
