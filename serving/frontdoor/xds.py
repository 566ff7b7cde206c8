"""The shapes that Envoy's configuration is made of, and the files that it watches while it runs.

Envoy reads a file again when another is moved onto its name, so whatever may change while requests run is a file of its
own (`path_config_source`), replaced by a rename: clusters (CDS), routes (RDS), filters (ECDS), secrets (SDS). Envoy
swaps what changed for the requests that come next and lets those that run finish; a file that it can't accept it logs
and ignores. The listener is none of them: to change one, Envoy drains its connections.
"""

from pathlib import Path

from serving.protocol import Json

TYPE = "type.googleapis.com/envoy."


def typed(kind: str, **fields: object) -> Json:
    """A message that says its own type; `kind` without the common prefix."""
    return {"@type": TYPE + kind, **fields}


def extension(name: str, kind: str, **fields: object) -> Json:
    """A filter, logger or monitor with its settings."""
    return {"name": name, "typed_config": typed(kind, **fields)}


def watched(file: Path) -> Json:
    """A configuration source: `file`, read again when something is moved into its directory."""
    watch = {"path": str(file), "watched_directory": {"path": str(file.parent)}}
    return {"path_config_source": watch, "resource_api_version": "V3"}


def watched_filter(name: str, kind: str, file: Path) -> Json:
    """An HTTP filter whose settings are in `file`; the listener waits for the first of them."""
    return {"name": name, "config_discovery": {"config_source": watched(file), "type_urls": [TYPE + kind]}}


def filter_resource(name: str, kind: str, **fields: object) -> Json:
    """What the file of a `watched_filter` holds."""
    return typed("config.core.v3.TypedExtensionConfig", **extension(name, kind, **fields))


def seconds(value: float) -> str:
    """A duration as protobuf writes it in JSON."""
    return f"{value:.3f}s"
