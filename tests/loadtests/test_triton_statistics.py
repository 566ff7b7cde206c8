"""Triton's counters, as its metrics page prints them."""

import pytest

from loadtests.triton_statistics import Counters, read_counters
from slipway.errors import LoadTestError

pytestmark = pytest.mark.unit


def page(requests: int, queue_us: int, infer_us: int, executions: int, extra: str = "") -> str:
    labels = '{model="reviews",version="1"}'
    return f"""\
# HELP nv_inference_request_success Number of successful inference requests, all batch sizes
# TYPE nv_inference_request_success counter
nv_inference_request_success{labels} {requests}
nv_inference_request_failure{{model="reviews",reason="OTHER",version="1"}} 3
nv_inference_exec_count{labels} {executions}
nv_inference_queue_duration_us{labels} {queue_us}
nv_inference_compute_input_duration_us{labels} 100
nv_inference_compute_infer_duration_us{labels} {infer_us}
nv_inference_compute_output_duration_us{labels} 50
nv_cpu_utilization 0.5
{extra}"""


def test_two_readings_give_the_means_between_them() -> None:
    before = Counters.parse(page(100, 50_000, 200_000, 100), "reviews")
    after = Counters.parse(page(300, 450_000, 1_200_000, 150), "reviews")
    work = after.since(before)
    assert work is not None
    assert (work.requests, work.executions) == (200, 50)
    assert work.queue_ms == pytest.approx(2)
    assert work.compute_ms == pytest.approx(5)
    assert work.batch == 4


def test_the_steps_of_an_ensemble_count_for_the_model_that_is_asked() -> None:
    steps = """\
nv_inference_request_success{model="reviews-encoder",version="1"} 300
nv_inference_queue_duration_us{model="reviews-encoder",version="1"} 600000
nv_inference_compute_infer_duration_us{model="reviews-encoder",version="1"} 900000
"""
    before = Counters.parse(page(0, 0, 0, 0), "reviews")
    work = Counters.parse(page(300, 0, 0, 0, steps), "reviews").since(before)
    assert work is not None
    assert work.requests == 300
    assert work.queue_ms == pytest.approx(2)
    assert work.compute_ms == pytest.approx(3)


def test_a_server_that_began_anew_says_nothing_about_the_time_before() -> None:
    before = Counters.parse(page(100, 50_000, 200_000, 100), "reviews")
    assert Counters.parse(page(20, 100, 200, 20), "reviews").since(before) is None


def test_a_page_of_something_else_is_refused_with_what_it_lacks() -> None:
    with pytest.raises(LoadTestError, match="no nv_inference_request_success of model 'other'"):
        Counters.parse(page(1, 1, 1, 1), "other")


@pytest.mark.parametrize("url", ["file:///etc/passwd", "127.0.0.1:8002", "http://127.0.0.1:1/metrics"])
def test_an_address_that_is_no_page_is_one_clear_line(url: str) -> None:
    with pytest.raises(LoadTestError) as raised:
        read_counters(url, "reviews")
    assert url in str(raised.value)
    assert "\n" not in str(raised.value)
