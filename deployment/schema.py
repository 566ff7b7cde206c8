"""The schema of the chart's values: `python -m deployment.schema > helm/slipway/values.schema.json`.

Helm checks values against it before it renders; a key that nobody knows is refused. The sections `serve` and
`loadtest.recipe` are the recipe's, so their schemas are taken from its models, less what the chart sets itself, and a
test holds that the file is what comes out here. Written out rather than inferred from `values.yaml`: defaults don't
tell what else is allowed. Combinations are refused by the chart's `_validate.tpl`, which can say in a sentence why; a
schema can only say that some `not` failed.
"""

import json
import re
from typing import Any

import jsonschema

from autoscaling.settings import AutoscalingValues
from slipway.recipe import LoadTest, Serve

Schema = dict[str, Any]

OWNED = ("host", "port", "instances", "target", "auth", "tls", "observe", "gpu")
"""Of the recipe's section `serve`: what other values set."""
_LOADTEST_OWNED = ("workers",)
_DIGEST = "^(sha256:[0-9a-f]{64})?$"
_SUBDOMAIN = "[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*"
_CRON = (
    "[0-5]?[0-9]",
    "([01]?[0-9]|2[0-3])",
    "(0?[1-9]|[12][0-9]|3[01])",
    "(0?[1-9]|1[0-2]|(?i:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec))",
    "([0-6]|(?i:sun|mon|tue|wed|thu|fri|sat))",
)
"""Values of the five fields: minute, hour, day, month, day of the week, of which 7 is none here."""
_WORD = "[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
"""Value of a label, or its key without a prefix."""


def values_schema() -> Schema:
    """JSON schema (2020-12) of `values.yaml`."""
    definitions: Schema = {}
    top = _object(
        {
            "hardware": _text(
                pattern="^(cpu|nvidia-(t4|a10|l4|a100|h100)|mig-[1-9][0-9]*g\\.[1-9][0-9]*gb(\\.me)?|own)$"
            ),
            "instances": _or_null(_integer(1, 256)),
            "model": _object(
                {
                    "source": _object(
                        {
                            "type": _one_of("", "image", "objectStore", "claim", "baked"),
                            "image": _object({"reference": _text(), "pullPolicy": _pull_policy()}),
                            "objectStore": _object(
                                {
                                    "url": _text(pattern="^((s3|gs|az|https?)://.+)?$"),
                                    "existingSecret": _name(),
                                    "env": _map(
                                        {"type": ["string", "number", "boolean"]}, keys="^[-._a-zA-Z][-._a-zA-Z0-9]*$"
                                    ),
                                }
                            ),
                            "claim": _object({"name": _name()}),
                        }
                    ),
                    "path": _text(),
                    "digest": _text(pattern=_DIGEST),
                }
            ),
            "serve": _section(Serve, OWNED, definitions),
            "image": _object(
                {
                    "repository": _or_null(_text(minLength=1)),
                    "tag": _text(),
                    "digest": _text(pattern=_DIGEST),
                    "pullPolicy": _pull_policy(),
                    "pullSecrets": _list(_text(minLength=1)),
                }
            ),
            "replicas": _integer(1),
            "autoscaling": _object(
                {
                    "type": _one_of("none", "hpa", "keda"),
                    "minReplicas": _integer(0),
                    "maxReplicas": _integer(1),
                    "targets": _object(
                        {
                            **{
                                name: _or_null({"type": "number", "exclusiveMinimum": 0})
                                for name in ("busyInstances", "inFlight", "queueMs")
                            },
                            "gpuDuty": _or_null({"type": "number", "exclusiveMinimum": 0, "maximum": 1}),
                        }
                    ),
                    "behavior": _behavior(definitions),
                    "keda": _object(
                        {
                            "prometheus": _text(pattern="^(https?://.+)?$"),
                            "authenticationRef": _name(),
                            "pollingInterval": _integer(1),
                            "cooldownPeriod": _integer(0),
                            "activationQuery": _text(),
                        }
                    ),
                }
            ),
            "resources": _or_null(
                _object({key: _map({"type": ["string", "number"]}) for key in ("requests", "limits")})
            ),
            "nodeSelector": _or_null(_labels()),
            "tolerations": _or_null(_list({"type": "object"})),
            "runtimeClassName": _or_null(_text()),
            "modelConfig": _or_null(_one_of("cpu", "gpu")),
            "affinity": _or_null({"type": "object"}),
            "priorityClassName": _name(),
            "spread": _one_of("soft", "hard", "none"),
            "podLabels": _labels(),
            "podAnnotations": _annotations(),
            "startupSeconds": _integer(10, 7200),
            "drainSeconds": _integer(0, 300),
            "sharedMemoryMiB": _integer(64),
            "scratchMiB": _integer(64),
            "engineCache": _object({"type": _one_of("emptyDir", "claim"), "claimName": _name()}),
            "maxUnavailable": {
                "anyOf": [_integer(1), _text(pattern="^([1-9][0-9]?|100)%$")],
            },
            "auth": _object(
                {
                    "apiKeys": _object({"existingSecret": _name(), "key": _key()}),
                    "jwt": _object(
                        {
                            "existingSecret": _name(),
                            "existingConfigMap": _name(),
                            "key": _key(),
                            "issuer": _text(),
                            "audiences": _list(_text(minLength=1)),
                        }
                    ),
                    "externalSecret": _object(
                        {
                            "enabled": _boolean(),
                            "storeName": _name(),
                            "storeKind": _one_of("SecretStore", "ClusterSecretStore"),
                            "remoteKey": _text(),
                            "refreshInterval": _duration(),
                        }
                    ),
                }
            ),
            "tls": _object(
                {
                    "type": _one_of("none", "secret", "certManager"),
                    "secretName": _name(),
                    "clientCaSecret": _name(),
                    "certManager": _object(
                        {
                            "issuerKind": _one_of("Issuer", "ClusterIssuer"),
                            "issuerName": _name(),
                            "dnsNames": _list(_text(minLength=1)),
                        }
                    ),
                }
            ),
            "service": _object(
                {
                    "type": _one_of("ClusterIP", "NodePort", "LoadBalancer"),
                    "port": _port(),
                    "annotations": _annotations(),
                }
            ),
            "expose": _one_of("none", "gateway", "ingress"),
            "hostnames": _hostnames(),
            "gateway": _object(
                {
                    "name": _name(),
                    "namespace": _name(),
                    "sectionName": _name(),
                    "grpc": _boolean(),
                    "grpcHostnames": _hostnames(),
                    "canary": _object({"service": _name(), "port": _port(), "weight": _integer(0, 100)}),
                }
            ),
            "ingress": _object({"className": _name(), "annotations": _annotations(), "tlsSecret": _name()}),
            "networkPolicy": _object(
                {
                    "enabled": _boolean(),
                    "from": _list({"type": "object"}),
                    "metricsFrom": _list({"type": "object"}),
                    "egress": _list({"type": "object"}),
                }
            ),
            "serviceAccountName": _name(),
            "serviceAccountAnnotations": _annotations(),
            "observability": _object(
                {
                    "podMonitor": _boolean(),
                    "labels": _labels(),
                    "scrapeInterval": _duration(),
                    "otlp": _text(pattern="^(https?://[^/]+)?$"),
                    "traceSample": _share(),
                    "dashboard": _boolean(),
                    "dashboardLabels": _labels(),
                }
            ),
            "slo": _object(
                {
                    "latencyMs": {"type": "number", "exclusiveMinimum": 0},
                    "latencyPercent": _percent(),
                    "availabilityPercent": _percent(),
                }
            ),
            "alerts": _object(
                {
                    "enabled": _boolean(),
                    "labels": _map(_text(), keys="^[a-zA-Z_][a-zA-Z0-9_]*$"),
                    "runbookUrl": _text(minLength=1),
                    "disabled": _list(_text(minLength=1)),
                    "minBadRequests": _integer(0),
                    "certificateDays": _integer(0),
                    "drift": _object(
                        {
                            "minTexts": _integer(0),
                            "sharePoints": {"type": "number", "exclusiveMinimum": 0},
                            "confidencePoints": {"type": "number", "exclusiveMinimum": 0},
                        }
                    ),
                }
            ),
            "capture": _object(
                {
                    "rate": _share(),
                    "claimName": _name(),
                    "maxMb": {"type": "number", "exclusiveMinimum": 0},
                }
            ),
            "loadtest": _object(
                {
                    "enabled": _boolean(),
                    "image": _object(
                        {"repository": _text(minLength=1), "tag": _text(), "digest": _text(pattern=_DIGEST)}
                    ),
                    "workers": _integer(1, 256),
                    "recipe": _section(LoadTest, _LOADTEST_OWNED, definitions),
                    "existingSecret": _name(),
                    "key": _key(),
                    "tls": _object({"caSecret": _or_null(_name()), "clientSecret": _name()}),
                    "resources": {"type": "object", "minProperties": 1},
                    "resultsClaim": _name(),
                    "test": _object(
                        {
                            "enabled": _boolean(),
                            "rate": {"type": "number", "exclusiveMinimum": 0},
                            "durationSeconds": {"type": "number", "exclusiveMinimum": 0},
                        }
                    ),
                    "capacity": _object({"enabled": _boolean(), "schedule": _schedule()}),
                }
            ),
        }
    )
    # A chart around this one: what it shares with all of its parts, and whether it has this one (`condition`).
    top["properties"] |= {"global": {"type": "object"}, "enabled": _boolean()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Values of the chart slipway",
        **top,
        "$defs": _used(top, definitions),
    }


def _used(schema: Any, definitions: Schema) -> Schema:
    """Those of `definitions` that `schema` comes to by its references, sorted by name."""
    found: Schema = {}
    waiting = [schema]
    while waiting:
        names = set(re.findall(r"#/\$defs/(\w+)", json.dumps(waiting.pop()))) - set(found)
        found.update({name: definitions[name] for name in names})
        waiting += [definitions[name] for name in names]
    return dict(sorted(found.items()))


def _section(model: Any, owned: tuple[str, ...], definitions: Schema) -> Schema:
    """The schema of a recipe's section without the fields `owned`; what it refers to goes to `definitions`."""
    found = model.model_json_schema()
    used = found.pop("$defs", {})
    definitions.update(used)
    found["properties"] = {name: field for name, field in found["properties"].items() if name not in owned}
    found.pop("title", None)
    return dict(found)


def _behavior(definitions: Schema) -> Schema:
    found = AutoscalingValues.model_json_schema()
    definitions.update(found["$defs"])
    return {"$ref": "#/$defs/BehaviorValues"}


def _object(properties: Schema) -> Schema:
    """Of which all is there, as `values.yaml` has it: what is missing was taken away, by a null."""
    needed = [name for name, schema in properties.items() if not _may_be_empty(schema)]
    required = {"required": needed} if needed else {}
    return {"type": "object", "additionalProperties": False, "properties": properties, **required}


def _may_be_empty(schema: Schema) -> bool:
    """Whether null says what an empty value says; a section of the chart's has no such value."""
    if "$ref" in schema:
        return False
    empty: list[Any] = [None] if "properties" in schema else [None, "", [], {}]
    validator = jsonschema.Draft202012Validator(schema)
    return any(validator.is_valid(value) for value in empty)


def _map(value: Schema, keys: str | None = None) -> Schema:
    if keys is None:
        return {"type": "object", "additionalProperties": value}
    return {"type": "object", "additionalProperties": False, "patternProperties": {keys: value}}


def _labels() -> Schema:
    return _map(_text(pattern=f"^({_WORD})?$"), keys=f"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?{_WORD}$")


def _annotations() -> Schema:
    return _map(_text(), keys=f"^([A-Za-z0-9]([-A-Za-z0-9.]*[A-Za-z0-9])?/)?{_WORD}$")


def _list(item: Schema) -> Schema:
    return {"type": "array", "items": item}


def _text(**more: Any) -> Schema:
    return {"type": "string", **more}


def _name() -> Schema:
    """Of an object of Kubernetes; empty: none."""
    return _text(pattern=f"^({_SUBDOMAIN})?$", maxLength=253)


def _hostnames() -> Schema:
    return _list(_text(pattern=f"^(\\*\\.)?{_SUBDOMAIN}$", maxLength=253))


def _key() -> Schema:
    """Of a Secret or ConfigMap."""
    return _text(pattern="^[-._a-zA-Z0-9]+$", maxLength=253)


def _schedule() -> Schema:
    """Of a CronJob, which refuses a time zone in it."""
    names = "yearly|annually|monthly|weekly|daily|midnight|hourly"
    parts = [f"([*?]|{value}(-{value})?)(/[1-9][0-9]*)?" for value in _CRON]
    fields = " +".join(f"{part}(,{part})*" for part in parts)
    return _text(pattern=f"^(@({names})|@every [0-9hms]+|{fields})$")


def _one_of(*words: str) -> Schema:
    return {"enum": list(words)}


def _or_null(schema: Schema) -> Schema:
    if isinstance(schema.get("type"), str):
        return {**schema, "type": [schema["type"], "null"]}
    return {"anyOf": [schema, {"type": "null"}]}


def _integer(least: int, most: int | None = None) -> Schema:
    return {"type": "integer", "minimum": least, **({} if most is None else {"maximum": most})}


def _boolean() -> Schema:
    return {"type": "boolean"}


def _share() -> Schema:
    return {"type": "number", "minimum": 0, "maximum": 1}


def _percent() -> Schema:
    return {"type": "number", "exclusiveMinimum": 0, "exclusiveMaximum": 100}


def _port() -> Schema:
    return _integer(1, 65535)


def _pull_policy() -> Schema:
    return _one_of("Always", "IfNotPresent", "Never")


def _duration() -> Schema:
    return _text(pattern="^([0-9]+h)?([0-9]+m)?([0-9]+s)?$", minLength=2)


if __name__ == "__main__":
    print(json.dumps(values_schema(), indent=2, ensure_ascii=False))
