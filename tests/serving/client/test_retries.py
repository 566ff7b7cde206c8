"""What is sent again, when, and until when."""

import math
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from serving import (
    DeadlineExceededError,
    EndpointFailedError,
    EndpointUnavailableError,
    ForbiddenError,
    RateLimitedError,
    RequestRefusedError,
    Retries,
    UnauthenticatedError,
)
from slipway.errors import ServingError
from tests.serving.client.scripted_endpoint import Refusal, ScriptedEndpoint, Stall, Step

pytestmark = [pytest.mark.integration]

QUICK = Retries(first_wait_s=0.01)


@pytest.mark.parametrize(
    "step", [Refusal(503), Refusal(429, retry_after="0"), Refusal(500), Refusal(504), "drop", "nonsense"], ids=str
)
def test_what_may_be_answered_a_moment_later_is_sent_again(make_client: Any, protocol: Any, step: Step) -> None:
    with (
        ScriptedEndpoint(protocol, [step, step]) as endpoint,
        make_client(endpoint.address, "tiny", protocol, retries=QUICK) as client,
    ):
        assert [answer.label for answer in client.classify(["abc"])] == ["cba"]
        assert len(endpoint.received) == 3


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, RequestRefusedError), (401, UnauthenticatedError), (403, ForbiddenError), (404, RequestRefusedError),
     (413, RequestRefusedError)],
)  # fmt: skip
def test_what_the_caller_has_to_mend_is_sent_once(make_client: Any, protocol: Any, status: int, kind: Any) -> None:
    with (
        ScriptedEndpoint(protocol, [Refusal(status, reason="mend it")]) as endpoint,
        make_client(endpoint.address, "tiny", protocol, retries=QUICK) as client,
    ):
        with pytest.raises(RequestRefusedError, match="mend it") as caught:
            client.classify(["abc"])
        assert type(caught.value) is kind
        assert len(endpoint.received) == 1


@pytest.mark.parametrize(
    ("step", "kind"),
    [(Refusal(503), EndpointUnavailableError), (Refusal(429, retry_after="0"), RateLimitedError),
     (Refusal(500), EndpointFailedError), (Refusal(504), DeadlineExceededError)],
    ids=str,
)  # fmt: skip
def test_the_last_failure_is_what_the_caller_gets(make_client: Any, protocol: Any, step: Step, kind: Any) -> None:
    with (
        ScriptedEndpoint(protocol, [step] * 9) as endpoint,
        make_client(endpoint.address, "tiny", protocol, retries=Retries(attempts=3, first_wait_s=0.01)) as client,
    ):
        with pytest.raises(EndpointUnavailableError) as caught:
            client.classify(["abc"])
        assert type(caught.value) is kind
        assert len(endpoint.received) == 3


def test_retry_after_is_the_least_wait(make_client: Any, protocol: Any) -> None:
    with (
        ScriptedEndpoint(protocol, [Refusal(429, retry_after="1"), Refusal(503, retry_after="1")]) as endpoint,
        make_client(endpoint.address, "tiny", protocol, retries=QUICK) as client,
    ):
        client.classify(["abc"])
        first, second, third = (received.at for received in endpoint.received)
        assert second - first >= 1
        assert third - second >= 1


def test_a_wait_beyond_the_deadline_is_not_begun(make_client: Any, protocol: Any) -> None:
    with (
        ScriptedEndpoint(protocol, [Refusal(429, retry_after="60")]) as endpoint,
        make_client(endpoint.address, "tiny", protocol) as client,
    ):
        started = time.monotonic()
        with pytest.raises(RateLimitedError) as caught:
            client.classify(["abc"], timeout_s=30)
        assert caught.value.retry_after_s == 60
        assert time.monotonic() - started < 30
        assert len(endpoint.received) == 1


def test_a_call_ends_with_its_deadline(make_client: Any, protocol: Any) -> None:
    with (
        ScriptedEndpoint(protocol, [Stall(60)]) as endpoint,
        make_client(endpoint.address, "tiny", protocol, timeout_s=0.5) as client,
    ):
        started = time.monotonic()
        with pytest.raises(DeadlineExceededError):
            client.classify(["abc"])
        assert 0.4 < time.monotonic() - started < 20
        assert len(endpoint.received) == 1


def test_an_attempt_that_hangs_leaves_time_for_another(make_client: Any, protocol: Any) -> None:
    patient = Retries(first_wait_s=0.01, attempt_timeout_s=0.3)
    with (
        ScriptedEndpoint(protocol, [Stall(60)]) as endpoint,
        make_client(endpoint.address, "tiny", protocol, retries=patient) as client,
    ):
        assert client.classify(["abc"])[0].label == "cba"
        assert len(endpoint.received) == 2


def test_the_endpoint_is_told_what_is_left_of_the_deadline(make_client: Any, protocol: Any) -> None:
    with (
        ScriptedEndpoint(protocol, [Refusal(503, retry_after="0.5")]) as endpoint,
        make_client(endpoint.address, "tiny", protocol, retries=QUICK) as client,
    ):
        client.classify(["abc"], timeout_s=20)
        first, second = (int(received.headers["x-slipway-timeout-ms"]) for received in endpoint.received)
        assert second + 500 <= first <= 20_000


@pytest.mark.parametrize("timeout_s", [1e6, 1e12, math.inf])
def test_a_caller_may_have_more_time_than_an_endpoint_can_be_told(
    endpoint: Any, make_client: Any, protocol: Any, timeout_s: float
) -> None:
    with make_client(endpoint.address, endpoint.model, protocol) as client:
        assert client.classify(["good"], timeout_s=timeout_s)[0].label == "positive"


def test_a_time_that_is_no_number_is_refused(make_client: Any, protocol: Any) -> None:
    with (
        ScriptedEndpoint(protocol) as endpoint,
        make_client(endpoint.address, "tiny", protocol) as client,
        pytest.raises(ServingError, match="not a number"),
    ):
        client.classify(["abc"], timeout_s=math.nan)


def test_attempts_of_a_request_share_its_id(make_client: Any, protocol: Any) -> None:
    with (
        ScriptedEndpoint(protocol, [Refusal(503), Refusal(503), "answer", Refusal(400)]) as endpoint,
        make_client(endpoint.address, "tiny", protocol, retries=QUICK) as client,
    ):
        client.classify(["abc"])
        with pytest.raises(RequestRefusedError) as caught:
            client.classify(["abc"])
        first, second, third, other = (received.headers["x-request-id"] for received in endpoint.received)
        assert first == second == third
        assert other != first
        assert caught.value.request_id == other
        assert other in str(caught.value)


def test_the_endpoints_own_request_id_counts(make_client: Any, protocol: Any) -> None:
    with (
        ScriptedEndpoint(protocol, [Refusal(400, request_id="theirs")]) as endpoint,
        make_client(endpoint.address, "tiny", protocol) as client,
    ):
        with pytest.raises(RequestRefusedError, match="theirs") as caught:
            client.classify(["abc"])
        assert caught.value.request_id == "theirs"


def test_an_endpoint_that_comes_back_is_found(make_client: Any, protocol: Any) -> None:
    """Its connections are gone, and so is what was in flight on them."""
    with ScriptedEndpoint(protocol) as endpoint, make_client(endpoint.address, "tiny", protocol) as client:
        client.classify(["abc"])
        endpoint.hang_up()
        assert client.classify(["abc"])[0].label == "cba"


def test_nobody_at_the_address(make_client: Any, protocol: Any) -> None:
    with make_client("127.0.0.1:1", "tiny", protocol, retries=Retries(attempts=2, first_wait_s=0.01)) as client:
        with pytest.raises(EndpointUnavailableError, match=r"127\.0\.0\.1:1") as caught:
            client.classify(["a secret"])
        assert type(caught.value) is EndpointUnavailableError
        assert "secret" not in str(caught.value)


@given(st.integers(1, 50), st.floats(0.001, 10), st.floats(0.001, 100), st.none() | st.floats(0, 1000))
def test_waits_are_spread_and_bounded(attempt: int, first: float, longest: float, retry_after: float | None) -> None:
    wait = Retries(first_wait_s=first, longest_wait_s=longest).wait_s(attempt, retry_after)
    ceiling = min(longest, first * 2 ** (attempt - 1))
    least = retry_after or 0
    assert least + ceiling / 2 <= wait + 1e-9
    assert wait <= least + ceiling + 1e-9
