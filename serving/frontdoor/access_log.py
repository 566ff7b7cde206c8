"""The access log: one line of JSON for each request, refused ones included.

It says who, what, how long and how it ended, and never what was asked or answered: no body, text, query or credentials.
`caller` is the id of the key or the subject of the token. `version` is that of the backend that answered.
"""

from serving.frontdoor.door import FrontDoor
from serving.frontdoor.xds import extension
from serving.protocol import Json


def access_log(door: FrontDoor) -> Json:
    """The logger that writes to `door.access_log`; a value that is not known is null."""
    return extension(
        "envoy.access_loggers.file",
        "extensions.access_loggers.file.v3.FileAccessLog",
        path=str(door.access_log),
        log_format={
            "json_format": {
                "time": "%START_TIME%",
                "request_id": "%REQ(X-REQUEST-ID)%",
                "caller": "%DYNAMIC_METADATA(slipway:caller)%",
                "peer": "%DOWNSTREAM_REMOTE_ADDRESS_WITHOUT_PORT%",
                "model": door.model,
                "version": "%CLUSTER_METADATA(slipway:version)%",
                "backend": "%CLUSTER_METADATA(slipway:backend)%",
                "route": "%ROUTE_NAME%",
                "method": "%REQ(:METHOD)%",
                "path": "%PATH(NQ)%",
                "protocol": "%PROTOCOL%",
                "status": "%RESPONSE_CODE%",
                "grpc_status": "%GRPC_STATUS%",
                "flags": "%RESPONSE_FLAGS%",
                "details": "%RESPONSE_CODE_DETAILS%",
                "received_bytes": "%BYTES_RECEIVED%",
                "sent_bytes": "%BYTES_SENT%",
                "duration_ms": "%DURATION%",
                "upstream_ms": "%COMMON_DURATION(US_TX_BEG:US_RX_END:ms)%",
            }
        },
    )
