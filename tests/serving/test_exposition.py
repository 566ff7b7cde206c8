"""Pages of several sources become one that Prometheus reads, and nothing is lost or counted twice."""

import contextlib
import http.server
import json
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from serving.observability.exporter import Exporter, collect, is_healthy, sources, write_sources
from serving.observability.exposition import Page
from serving.server.triton import free_ports
from tests.serving.conftest import eventually

pytestmark = [pytest.mark.unit]

TRITON = """# HELP nv_inference_count Number of inferences
# TYPE nv_inference_count counter
nv_inference_count{model="tiny",version="1"} 5
# TYPE nv_cpu_utilization gauge
nv_cpu_utilization 0.5
# HELP slipway_wait_seconds_bucket Waiting.
# TYPE slipway_wait_seconds_bucket counter
slipway_wait_seconds_bucket{le="+Inf",model="tiny"} 3
slipway_wait_seconds_bucket{le="0.5",model="tiny"} 2
# HELP slipway_wait_seconds_count Waiting.
# TYPE slipway_wait_seconds_count counter
slipway_wait_seconds_count{model="tiny"} 3
# HELP slipway_wait_seconds_sum Waiting.
# TYPE slipway_wait_seconds_sum counter
slipway_wait_seconds_sum{model="tiny"} 1.25
"""
ENVOY = """# TYPE envoy_http_downstream_rq counter
envoy_http_downstream_rq{envoy_response_code="200"} 7

# TYPE envoy_http_time histogram
envoy_http_time_bucket{le="0.5"} 1
envoy_http_time_bucket{le="+Inf"} 2
envoy_http_time_sum{} 3
envoy_http_time_count{} 2
"""


def read(page: Page) -> dict[str, dict[str, float]]:
    """Samples by family, each under its name and labels as one string."""
    return {
        family.name: {
            f"{sample.name}{json.dumps(sample.labels, sort_keys=True)}": sample.value for sample in family.samples
        }
        for family in text_string_to_metric_families(page.text())
    }


def test_series_of_two_tritons_are_one_family_and_told_apart() -> None:
    page = Page()
    page.add(TRITON, {"backend": "stable"})
    page.add(TRITON, {"backend": "candidate"})
    assert page.text().count("# TYPE nv_inference_count counter") == 1
    found = read(page)["nv_inference_count"]
    assert set(found.values()) == {5.0}
    assert len(found) == 2
    assert 'nv_cpu_utilization{"backend": "stable"}' in read(page)["nv_cpu_utilization"]


def test_counters_that_are_a_histograms_parts_are_a_histogram_again() -> None:
    page = Page()
    page.add(TRITON)
    [family] = [one for one in text_string_to_metric_families(page.text()) if one.name == "slipway_wait_seconds"]
    assert family.type == "histogram"
    assert family.documentation == "Waiting."
    assert [sample.labels["le"] for sample in family.samples if sample.name.endswith("_bucket")] == ["0.5", "+Inf"]
    assert {sample.value for sample in family.samples} == {2.0, 3.0, 1.25}


def test_a_page_of_another_kind_keeps_its_families() -> None:
    page = Page()
    page.add(TRITON, {"backend": "stable"})
    page.add(ENVOY)
    found = read(page)
    assert found["envoy_http_time"]['envoy_http_time_bucket{"le": "+Inf"}'] == 2
    assert found["envoy_http_time"]["envoy_http_time_count{}"] == 2
    assert page.conflicts == set()


def test_a_name_with_two_types_is_left_out_and_named() -> None:
    page = Page()
    page.add("# TYPE slipway_x counter\nslipway_x 1\n")
    page.add("# TYPE slipway_x gauge\nslipway_x 2\n")
    assert "slipway_x 1" in page.text()
    assert "slipway_x 2" not in page.text()
    assert page.conflicts == {"slipway_x"}


def test_labels_with_quotes_braces_and_chinese_survive() -> None:
    page = Page()
    page.add('# TYPE slipway_x counter\nslipway_x{label="好 \\"a\\" {b},\\\\"} 1\n', {"backend": 'a"b'})
    [family] = text_string_to_metric_families(page.text())
    assert family.samples[0].labels == {"backend": 'a"b', "label": '好 "a" {b},\\'}


@pytest.fixture
def triton_page() -> Iterator[int]:
    """A port where Triton's page is served."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(TRITON.encode())

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_address[1]
        server.shutdown()


def test_a_dead_part_costs_its_series_only_and_is_told(triton_page: int, tmp_path: Path) -> None:
    [nobody] = free_ports(1)
    tritons = {"stable": triton_page, "candidate": nobody}
    write_sources(tmp_path, tritons, tmp_path / "envoy.sock", tmp_path / "health.sock")
    with ThreadPoolExecutor(4) as pool:
        text = collect(sources(tmp_path), pool)
    assert 'nv_inference_count{backend="stable",model="tiny",version="1"} 5' in text
    assert 'slipway_up{component="triton",backend="stable"} 1' in text
    assert 'slipway_up{component="triton",backend="candidate"} 0' in text
    assert 'slipway_up{component="envoy"} 0' in text


@pytest.mark.parametrize("written", [None, "", "[1]", "{}", '{"health": "health.sock"}'])
def test_an_endpoint_whose_front_door_is_silent_is_not_healthy(written: str | None, tmp_path: Path) -> None:
    if written is not None:
        (tmp_path / "scrape.json").write_text(written, encoding="utf-8")
    assert not is_healthy(tmp_path)


@pytest.mark.parametrize("written", [None, "", "[1]", '{"tritons": [{}]}'])
def test_there_is_a_page_before_anybody_can_be_asked(written: str | None, tmp_path: Path) -> None:
    if written is not None:
        (tmp_path / "scrape.json").write_text(written, encoding="utf-8")
    with ThreadPoolExecutor(1) as pool:
        assert "slipway_build_info" in collect(sources(tmp_path), pool)


def test_more_connections_than_there_is_room_for_do_not_keep_a_scraper_out_for_good(tmp_path: Path) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    with Exporter(tmp_path, listener) as exporter:
        threading.Thread(target=exporter.serve_forever, daemon=True).start()
        address = listener.getsockname()
        idle = [socket.create_connection(address) for _ in range(100)]
        for one in idle:
            one.close()
        assert eventually(lambda: scraped(f"http://127.0.0.1:{address[1]}/metrics"))
        assert httpx.get(f"http://127.0.0.1:{address[1]}/").status_code == 404
        exporter.shutdown()


def scraped(url: str) -> bool:
    with contextlib.suppress(httpx.HTTPError):
        return "slipway_build_info" in httpx.get(url).text
    return False
