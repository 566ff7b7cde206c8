"""Values that the chart is tested with: each hardware, each source, each way to scale, to be reached, to be trusted."""

from typing import Any

Values = dict[str, Any]

MINIMAL: Values = {
    "model": {"source": {"type": "claim", "claim": {"name": "models"}}, "path": "reviews/bundle"},
    "auth": {"apiKeys": {"existingSecret": "reviews-keys"}},
}
DIGEST = "sha256:" + "0123456789abcdef" * 4

HARDWARE = [
    "cpu", "nvidia-t4", "nvidia-a10", "nvidia-l4", "nvidia-a100", "nvidia-h100", "mig-1g.10gb", "mig-1g.5gb.me",
]  # fmt: skip
SOURCES: dict[str, Values] = {
    "image": {"type": "image", "image": {"reference": f"registry.example/reviews@{DIGEST}"}},
    "s3": {
        "type": "objectStore",
        "objectStore": {
            "url": "s3://models/reviews/bundle",
            "existingSecret": "store",
            "env": {"AWS_ENDPOINT": "http://minio.storage:9000", "AWS_REGION": "eu-west-1"},
        },
    },
    "claim": {"type": "claim", "claim": {"name": "models"}},
    "baked": {"type": "baked"},
}
PATHS = {"image": "", "s3": "", "claim": "a/b", "baked": "/opt/bundle"}
SCALING: dict[str, Values] = {
    "none": {"type": "none"},
    "hpa": {"type": "hpa"},
    "keda": {"type": "keda", "keda": {"prometheus": "http://prometheus.monitoring:9090"}},
    "keda-zero": {
        "type": "keda",
        "minReplicas": 0,
        "keda": {
            "prometheus": "http://prometheus.monitoring:9090",
            "authenticationRef": "prometheus",
            "activationQuery": 'rate(gateway_requests_total{host="reviews.example.com"}[1m])',
        },
    },
}
TLS: dict[str, Values] = {
    "none": {},
    "secret": {"type": "secret", "secretName": "tls"},
    "mutual": {"type": "secret", "secretName": "tls", "clientCaSecret": "callers"},
    "certManager": {
        "type": "certManager",
        "certManager": {"issuerName": "internal", "dnsNames": ["other.example.com"]},
    },
}
EXPOSED: dict[str, Values] = {
    "none": {},
    "gateway": {
        "expose": "gateway",
        "hostnames": ["reviews.example.com"],
        "gateway": {"name": "outer", "namespace": "gateways", "sectionName": "https"},
    },
    "canary": {
        "expose": "gateway",
        "hostnames": ["reviews.example.com", "*.reviews.example.com"],
        "gateway": {
            "name": "outer",
            "grpcHostnames": ["grpc.example.com"],
            "canary": {"service": "reviews-next", "port": 9000, "weight": 10},
        },
    },
    "ingress": {
        "expose": "ingress",
        "hostnames": ["reviews.example.com"],
        "ingress": {"className": "nginx", "annotations": {"x.example.com/y": "z"}, "tlsSecret": "outer"},
    },
}


def source(name: str) -> Values:
    """Values with the model from `name`."""
    return {"model": {"source": SOURCES[name], "path": PATHS[name], "digest": DIGEST}}


EVERYTHING: Values = {
    **source("image"),
    "hardware": "nvidia-l4",
    "instances": 3,
    "serve": {"layout": "ensemble", "long_text": "window", "grace_s": 30, "limits": {"key_rate": 50}},
    "image": {"repository": "registry.example/serve", "digest": DIGEST, "pullSecrets": ["registry"]},
    "autoscaling": {
        "type": "hpa",
        "minReplicas": 3,
        "maxReplicas": 40,
        "targets": {"inFlight": 7, "queueMs": 12.5, "gpuDuty": 0.6},
    },
    "affinity": {"podAntiAffinity": {}},
    "priorityClassName": "inference",
    "spread": "hard",
    "podLabels": {"team": "nlp"},
    "podAnnotations": {"example.com/note": "yes"},
    "engineCache": {"type": "claim", "claimName": "engines"},
    "maxUnavailable": "25%",
    "auth": {
        "apiKeys": {"existingSecret": "reviews-keys"},
        "jwt": {
            "existingConfigMap": "issuer",
            "issuer": "https://issuer.example.com",
            "audiences": ["reviews", "slipway"],
        },
        "externalSecret": {"enabled": True, "storeName": "vault", "remoteKey": "reviews/keys"},
    },
    "tls": TLS["certManager"] | {"clientCaSecret": "callers"},
    "service": {"type": "LoadBalancer", "port": 443, "annotations": {"example.com/internal": "true"}},
    **EXPOSED["canary"],
    "networkPolicy": {
        "from": [{"namespaceSelector": {"matchLabels": {"team": "apps"}}}],
        "egress": [{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}]}],
    },
    "serviceAccountAnnotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/models"},
    "observability": {
        "podMonitor": True,
        "labels": {"release": "prometheus"},
        "otlp": "http://otel.monitoring:4318",
        "traceSample": 0.1,
        "dashboard": True,
    },
    "slo": {"latencyMs": 50, "latencyPercent": 99.5, "availabilityPercent": 99.95},
    "alerts": {"enabled": True, "labels": {"team": "nlp"}},
    "capture": {"rate": 0.01, "claimName": "captured"},
    "loadtest": {
        "enabled": True,
        "existingSecret": "loadtest-key",
        "tls": {"clientSecret": "loadtest-certificate"},
        "resultsClaim": "verdicts",
        "capacity": {"enabled": True},
    },
}

MATRIX: dict[str, Values] = {
    "minimal": {},
    "everything": EVERYTHING,
    **{f"hardware {name}": {"hardware": name} for name in HARDWARE},
    "hardware own": {
        "hardware": "own",
        "instances": 4,
        "resources": {"requests": {"cpu": 6, "memory": "4Gi"}, "limits": {"memory": "4Gi"}},
        "nodeSelector": {"pool": "inference"},
    },
    **{f"source {name}": source(name) for name in SOURCES},
    **{f"scaling {name}": {"autoscaling": values} for name, values in SCALING.items()},
    **{f"tls {name}": {"tls": values} for name, values in TLS.items()},
    **{f"exposed {name}": values for name, values in EXPOSED.items()},
    **{f"{scale} on {name}": {"hardware": name, "autoscaling": SCALING[scale]} for scale in ("hpa", "keda")
       for name in ("cpu", "nvidia-a10", "mig-1g.10gb")},
    "jwt alone": {
        "auth": {
            "apiKeys": {"existingSecret": ""},
            "jwt": {"existingSecret": "jwks", "issuer": "https://issuer.example.com", "audiences": ["reviews"]},
        }
    },
    "no network policy": {"networkPolicy": {"enabled": False}},
    "own service account": {"serviceAccountName": "inference"},
    "one replica": {"replicas": 1},
    "load tests": {
        "loadtest": {
            "enabled": True, "existingSecret": "key", "capacity": {"enabled": True}, "resultsClaim": "verdicts",
        }
    },
    "load tests over tls": {
        "loadtest": {"enabled": True, "existingSecret": "key"}, "tls": {"type": "secret", "secretName": "tls"},
    },
    "watched": {"observability": {"podMonitor": True, "dashboard": True}, "alerts": {"enabled": True}},
}  # fmt: skip

REFUSED: dict[str, tuple[Values, str]] = {
    "no source": ({"model": {"source": {"type": ""}}}, "model.source.type is needed"),
    "image without a reference": ({"model": {"source": {"type": "image"}}}, "model.source.image.reference is needed"),
    "store without a digest": (
        {"model": {"source": SOURCES["s3"], "path": "", "digest": ""}},
        "model.source.objectStore.url and model.digest are needed",
    ),
    "store with a path": (
        {"model": {"source": SOURCES["s3"], "path": "x", "digest": DIGEST}},
        "model.path is not used with model.source.type objectStore",
    ),
    "claim without a name": ({"model": {"source": {"claim": {"name": ""}}}}, "model.source.claim.name is needed"),
    "baked without a path": (
        {"model": {"source": SOURCES["baked"], "path": "relative"}},
        "model.path must be the artifact's absolute path",
    ),
    "own hardware without resources": ({"hardware": "own"}, "hardware own needs resources and instances"),
    "nobody may call": ({"auth": {"apiKeys": {"existingSecret": ""}}}, "never without credentials"),
    "tokens of anybody": ({"auth": {"jwt": {"existingSecret": "jwks"}}}, "auth.jwt needs issuer and audiences"),
    "two key sets": (
        {"auth": {"jwt": {"existingSecret": "a", "existingConfigMap": "b", "issuer": "i", "audiences": ["x"]}}},
        "give one",
    ),
    "external secret from nowhere": (
        {"auth": {"externalSecret": {"enabled": True}}},
        "auth.externalSecret needs storeName and remoteKey",
    ),
    "tls without a secret": ({"tls": {"type": "secret"}}, "tls.secretName is needed"),
    "tls without an issuer": ({"tls": {"type": "certManager"}}, "tls.certManager.issuerName is needed"),
    "callers' certificates without tls": ({"tls": {"clientCaSecret": "ca"}}, "tls.clientCaSecret needs tls.type"),
    "more at least than at most": (
        {"autoscaling": {"type": "hpa", "minReplicas": 9, "maxReplicas": 3}},
        "autoscaling.minReplicas 9 is more than maxReplicas 3",
    ),
    "an hpa to zero": ({"autoscaling": {"type": "hpa", "minReplicas": 0}}, "minReplicas 0 needs autoscaling.type keda"),
    "keda to zero that never wakes": (
        {"autoscaling": SCALING["keda"] | {"minReplicas": 0}},
        "minReplicas 0 needs autoscaling.type keda and keda.activationQuery",
    ),
    "keda without prometheus": ({"autoscaling": {"type": "keda"}}, "autoscaling.keda.prometheus is needed"),
    "busy instances of an ensemble": (
        {"autoscaling": {"type": "hpa", "targets": {"busyInstances": 1}}, "serve": {"layout": "ensemble"}},
        "busyInstances needs serve.layout fused",
    ),
    "a GPU's duty on a CPU": (
        {"autoscaling": {"type": "hpa", "targets": {"gpuDuty": 0.5}}},
        "autoscaling.targets.gpuDuty needs a GPU",
    ),
    "exposed without a name": ({"expose": "ingress"}, "hostnames is needed for expose ingress"),
    "gateway without a gateway": ({"expose": "gateway", "hostnames": ["a.example"]}, "gateway.name is needed"),
    "a name for both kinds of routes": (
        {
            "expose": "gateway",
            "hostnames": ["*.example.com"],
            "gateway": {"name": "outer", "grpcHostnames": ["grpc.example.com"]},
        },
        "gateway.grpcHostnames: grpc.example.com is among hostnames (*.example.com)",
    ),
    "canary without a gateway": (
        {"gateway": {"canary": {"weight": 5, "service": "next"}}},
        "gateway.canary.weight needs expose gateway",
    ),
    "engines kept nowhere": (
        {"hardware": "nvidia-t4", "engineCache": {"type": "claim"}},
        "engineCache.claimName is needed",
    ),
    "texts kept nowhere": ({"capture": {"rate": 0.5}}, "capture.claimName is needed"),
    "an unknown key": ({"hardwear": "cpu"}, "additional properties 'hardwear' not allowed"),
    "an unknown key deep down": ({"tls": {"certManager": {"isuer": "x"}}}, "additional properties 'isuer' not allowed"),
    "unknown hardware": ({"hardware": "nvidia-t5"}, "'nvidia-t5' does not match"),
    "a digest that is none": ({"model": {"digest": "latest"}}, "at '/model/digest'"),
    "no replicas": ({"replicas": 0}, "at '/replicas'"),
    "a wrong type": ({"autoscaling": {"maxReplicas": "many"}}, "at '/autoscaling/maxReplicas'"),
    "a recipe's typo": ({"serve": {"long_txt": "window"}}, "additional properties 'long_txt' not allowed"),
    "a recipe's wrong word": ({"serve": {"long_text": "drop"}}, "at '/serve/long_text'"),
    "an address of one's own": ({"serve": {"host": "::"}}, "additional properties 'host' not allowed"),
    "a load test without a key": ({"loadtest": {"enabled": True}}, "loadtest.existingSecret is needed"),
    "a capacity that nobody can read": (
        {"loadtest": {"existingSecret": "key", "capacity": {"enabled": True}}},
        "loadtest.resultsClaim is needed",
    ),
    "a slice's duty": (
        {"hardware": "mig-1g.10gb", "autoscaling": {"type": "hpa", "targets": {"gpuDuty": 0.5}}},
        "the duty of a slice is not measured",
    ),
    "a load test's typo": ({"loadtest": {"recipe": {"rps": 5}}}, "additional properties 'rps' not allowed"),
    "more busy instances than there are": (
        {"autoscaling": {"type": "hpa", "targets": {"busyInstances": 3}}},
        "busyInstances 3 is more than the 2 instances of a replica",
    ),
    "a duty in percent": ({"autoscaling": {"targets": {"gpuDuty": 70}}}, "at '/autoscaling/targets/gpuDuty'"),
    "a schedule that cron can't read": (
        {"loadtest": {"capacity": {"schedule": "every night"}}},
        "at '/loadtest/capacity/schedule'",
    ),
    "a schedule at no time": (
        {"loadtest": {"capacity": {"schedule": "61 25 * * *"}}},
        "at '/loadtest/capacity/schedule'",
    ),
    "a schedule with a time zone": (
        {"loadtest": {"capacity": {"schedule": "TZ=UTC 0 3 * * *"}}},
        "at '/loadtest/capacity/schedule'",
    ),
    "a name that no host has": ({"hostnames": ["a..example.com"]}, "at '/hostnames/0'"),
    "a key that no secret has": ({"auth": {"apiKeys": {"key": "keys/a.json"}}}, "at '/auth/apiKeys/key'"),
    "a target of zero": ({"autoscaling": {"targets": {"inFlight": 0}}}, "at '/autoscaling/targets/inFlight'"),
}
