"""The typed client against the sidecar."""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import httpx
import pytest
import stack as stacks
from twilio_edge import v1

OURS, PERSON = "+14155238886", "+14155550123"


@pytest.fixture
def edge(stack: stacks.Stack) -> Iterator[v1.Client]:
    with v1.Client(stack.url, stack.app_key, timeout_s=10) as client:
        yield client


def text(**more: str) -> v1.CreateMessageRequest:
    return v1.CreateMessageRequest.from_dict({"to": PERSON, "from": OURS, "body": "Hello", **more})


def test_message_is_sent_and_fetched(edge: v1.Client) -> None:
    message = v1.send_message(edge, body=v1.CreateMessageRequest(to=PERSON, from_=OURS, body="Hello"), wait_ms=5000)
    assert isinstance(message, v1.Message)
    assert message.id.startswith("ms_")
    fetched = v1.fetch_message(edge, message.id)
    assert (fetched.id, fetched.sid, fetched.state) == (message.id, message.sid, "sent")


def test_refusal_is_an_error_with_code_and_remedy(edge: v1.Client) -> None:
    with pytest.raises(v1.ApiError) as refused:
        v1.send_message(edge, body=text(to="+1555"))
    error = refused.value
    assert (error.status, error.code, error.actor) == (422, "invalid_recipient", "caller")
    assert error.detail.startswith("to: ")
    assert len(error.remedy) > 10
    assert str(error).startswith("422 invalid_recipient: ")
    assert error.remedy.rstrip(".") in str(error)


def test_wrong_key_is_refused(stack: stacks.Stack) -> None:
    with v1.Client(stack.url, "twilio_edge_wrong") as edge, pytest.raises(v1.ApiError, match="unauthorized"):
        v1.list_messages(edge, account_sid=stacks.ACCOUNT)


def test_key_makes_two_calls_one_message(edge: v1.Client) -> None:
    first, second = (v1.send_message(edge, body=text(), idempotency_key="py-v1-1") for _ in range(2))
    assert isinstance(first, v1.Message) and isinstance(second, v1.Message)
    assert first.id == second.id
    assert first.id != getattr(v1.send_message(edge, body=text()), "id", None), "each call has a key of its own"


def test_administrator_lists_keys(stack: stacks.Stack) -> None:
    with v1.Client(stack.admin_url, stack.admin_key) as administrator:
        assert {"packages"} == {key.name for key in v1.list_keys(administrator).keys}


def test_file_is_uploaded_as_bytes(stack: stacks.Stack) -> None:
    rows = b"number\n+14155550111\n"
    with v1.Client(stack.admin_url, stack.admin_key) as administrator:
        imported = v1.import_suppressions(administrator, body=v1.File(io.BytesIO(rows)), account_sid=stacks.ACCOUNT)
    assert imported.to_dict()["added"] == 1, imported


def test_asynchronous_calls(stack: stacks.Stack) -> None:
    async def run() -> tuple[str, str]:
        async with v1.Client(stack.url, stack.app_key) as edge:
            message = await v1.send_message_async(edge, body=text())
            assert isinstance(message, v1.Message)
            return message.id, (await v1.fetch_message_async(edge, message.id)).id

    first, second = asyncio.run(run())
    assert first == second


class Flaky(BaseHTTPRequestHandler):
    """Answers as the list says; the connection closes for 0."""

    answers: tuple[int, ...] = ()
    keys: tuple[str | None, ...] = ()

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        Flaky.keys += (self.headers["Idempotency-Key"],)
        status, *rest = Flaky.answers
        Flaky.answers = tuple(rest)
        if status:
            self.send_response(status)
            self.send_header("Retry-After", "0")
            self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def flaky() -> Iterator[v1.Client]:
    server = HTTPServer(("127.0.0.1", 0), Flaky)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Flaky.keys = ()
    with v1.Client(f"http://127.0.0.1:{server.server_port}", "key", timeout_s=5) as client:
        yield client
    server.shutdown()


def test_failed_attempts_are_repeated_with_the_same_key(flaky: v1.Client) -> None:
    Flaky.answers = (503, 0, 409)
    with pytest.raises(v1.ApiError) as refused:
        v1.send_message(flaky, body=text())
    assert (refused.value.status, refused.value.code, refused.value.retry_after_s) == (409, None, 0)
    assert len(Flaky.keys) == 3
    assert len(set(Flaky.keys)) == 1


def test_request_without_a_key_is_not_repeated_without_an_answer(flaky: v1.Client) -> None:
    Flaky.answers = (0, 200)
    with pytest.raises(httpx.TransportError):
        v1.cancel_message(flaky, "ms_1")
    assert Flaky.keys == (None,)
