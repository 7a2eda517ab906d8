"""Twilio's SDK through the package: the examples of its own README, and one of each service that the sidecar offers."""

from __future__ import annotations

import asyncio
import importlib.metadata
import json
import re
import time
import urllib.request
from collections.abc import Callable

import pytest
import stack as stacks
from twilio.base.exceptions import TwilioRestException, TwilioServiceException
from twilio_edge.sdk import AsyncEdgeHttpClient, Client, EdgeHttpClient, base_url, moved

OURS, PERSON = "+14155238886", "+14155550123"
TEMPLATE = "HX00112233445566778899aabbccddeeff"
FLOW = "FW00112233445566778899aabbccddeeff"
# Whether the sidecar sends to Twilio what it does not serve itself, such as the Content API.
PASSES_THROUGH = False
# The line of an application that changes.
BEFORE, AFTER = "from twilio.rest import Client", "from twilio_edge.sdk import Client"


@pytest.fixture(params=["sidecar", "simulator"])
def client(request: pytest.FixtureRequest, stack: stacks.Stack, monkeypatch: pytest.MonkeyPatch) -> Client:
    """Twilio's client, imported from the package, for the sidecar or for the simulated Twilio alone."""
    is_sidecar = request.param == "sidecar"
    monkeypatch.setenv("TWILIO_EDGE_URL", stack.url if is_sidecar else stack.simulator_url)
    return Client(stacks.ACCOUNT, stack.app_key if is_sidecar else stacks.AUTH_TOKEN)


def until(condition: Callable[[], bool]) -> None:
    stacks.until("the message", condition, 15)


def examples() -> list[str]:
    """Examples of messages in the README of Twilio's SDK."""
    text = importlib.metadata.distribution("twilio").read_text("METADATA") or ""
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    return [block for block in blocks if "client.messages." in block and "Client(" in block]


def test_readme_of_the_sdk_has_examples() -> None:
    assert len(examples()) >= 4, "the README of the SDK has changed: adapt `examples`"


@pytest.mark.parametrize("example", examples())
def test_example_of_the_sdk_runs_with_one_changed_line(
    example: str, client: Client, stack: stacks.Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    text = re.sub(r"AC[X]{32}", client.username, example).replace("your_auth_token", client.password)
    # The asynchronous example names its HTTP client itself, and forgets an import.
    is_async = "AsyncTwilioHttpClient" in text
    if is_async:
        text = "import asyncio\n" + text.replace(
            "from twilio.http.async_http_client import AsyncTwilioHttpClient",
            "from twilio_edge.sdk import AsyncEdgeHttpClient as AsyncTwilioHttpClient",
        )
    assert is_async or text.count(BEFORE) == 1
    # Other tests send to other numbers.
    number = re.search(r'\bto="(\+\d+)"', text)
    chosen = {"to": number[1]} if number else {}
    before = len(client.messages.list(limit=200, **chosen))
    exec(compile(text.replace(BEFORE, AFTER), "README", "exec"), {"__name__": "__main__"})
    if "create" in text:
        assert len(client.messages.list(limit=200, **chosen)) == before + 1, capsys.readouterr()
    else:
        assert before > 0
        assert "+1" in capsys.readouterr().out


def test_message_is_sent_fetched_listed_redacted_and_deleted(client: Client) -> None:
    message = client.messages.create(to=PERSON, from_=OURS, body="Hi there")
    assert re.fullmatch("SM[0-9a-f]{32}", message.sid)
    until(lambda: client.messages(message.sid).fetch().status == "delivered")
    assert message.sid in [one.sid for one in client.messages.list(to=PERSON, limit=50)]
    assert client.messages(message.sid).update(body="").body == ""
    assert client.messages(message.sid).delete()
    with pytest.raises(TwilioRestException) as error:
        client.messages(message.sid).fetch()
    assert (error.value.status, error.value.code) == (404, 20404)


def test_list_follows_pages(client: Client) -> None:
    number = "+14155550188"
    for text in ("one", "two", "three"):
        client.messages.create(to=number, from_=OURS, body=text)
    found = [one.body for one in client.messages.list(to=number, page_size=2, limit=3)]
    assert found == ["three", "two", "one"]


def test_verification_is_started_and_checked(client: Client, stack: stacks.Stack) -> None:
    service = client.verify.v2.services(stacks.VERIFY_SERVICE)
    number = "+14155550171" if client.http_client.url == stack.url else "+14155550172"
    verification = service.verifications.create(to=number, channel="sms")
    assert verification.status == "pending"
    with urllib.request.urlopen(f"{stack.simulator_url}/simulator/verifications") as shown:
        code = next(one["code"] for one in json.load(shown)["verifications"] if one["to"] == number)
    check = service.verification_checks.create(to=number, code=code)
    assert (check.status, check.valid) == ("approved", True)


def test_flow_is_executed(client: Client) -> None:
    executions = client.studio.v2.flows(FLOW).executions
    execution = executions.create(to=PERSON, from_=OURS, parameters={"text": "Hello"})
    assert execution.sid.startswith("FN")
    until(lambda: executions(execution.sid).fetch().status == "ended")


def test_content_is_listed_and_fetched(client: Client, stack: stacks.Stack) -> None:
    if client.http_client.url == stack.url and not PASSES_THROUGH:
        with pytest.raises(TwilioServiceException, match="404"):
            client.content.v1.contents(TEMPLATE).fetch()
        return
    assert TEMPLATE in [one.sid for one in client.content.v1.contents.list()]
    assert client.content.v1.contents(TEMPLATE).fetch().friendly_name == "shipping_update"


def test_template_is_sent(client: Client, stack: stacks.Stack) -> None:
    address = "whatsapp:+14155550166"
    consent = {"account_sid": stacks.ACCOUNT, "number": address, "category": "utility", "source": "test", "at": "2026-11-01T10:00:00Z"}
    assert stacks.request("POST", f"{stack.url}/v1/consents", consent, stack.app_key)[0] == 200

    def templates() -> object:
        path = f"{stack.url}/v1/templates?account_sid={stacks.ACCOUNT}"
        return json.loads(stacks.request("GET", path, token=stack.app_key)[1])["templates"]

    stacks.until("templates of Twilio", templates)
    message = client.messages.create(
        to=address, from_=f"whatsapp:{OURS}", content_sid=TEMPLATE, content_variables=json.dumps({"1": "Ada", "2": "7"})
    )
    until(lambda: client.messages(message.sid).fetch().body == "Hello Ada, your order 7 is on its way.")


def test_refusal_of_a_rule_has_the_code_of_twilio(stack: stacks.Stack) -> None:
    client = Client(stacks.ACCOUNT, stack.app_key, http_client=EdgeHttpClient(stack.url))
    suppression = {"account_sid": stacks.ACCOUNT, "number": "+14155550199"}
    assert stacks.request("POST", f"{stack.url}/v1/suppressions", suppression, stack.app_key)[0] == 200
    with pytest.raises(TwilioRestException) as error:
        client.messages.create(to="+14155550199", from_=OURS, body="Hi")
    assert (error.value.code, error.value.details["code"]) == (21610, "suppressed")


def test_key_and_secret_of_the_sidecar_are_an_api_key(stack: stacks.Stack) -> None:
    secret = stack.app_key.rsplit("_", 1)[1]
    client = Client(stack.app_key_id, secret, stacks.ACCOUNT, http_client=EdgeHttpClient(stack.url))
    assert client.messages.create(to=PERSON, from_=OURS, body="Hi").status == "queued"


def test_asynchronous_client_sends(stack: stacks.Stack) -> None:
    async def send() -> str | None:
        async with AsyncEdgeHttpClient(stack.url, timeout=10) as http_client:
            client = Client(stacks.ACCOUNT, stack.app_key, http_client=http_client)
            message = await client.messages.create_async(to=PERSON, from_=OURS, body="Hi")
            return str(message.status)

    assert asyncio.run(send()) == "queued"


def test_hosts_of_twilio_move_and_others_do_not() -> None:
    url, headers = moved("http://edge:8081", "https://content.sydney.au1.twilio.com/v1/Content?PageSize=2", {"A": "1"}, {"B": "2"})
    assert url == "http://edge:8081/v1/Content?PageSize=2"
    assert headers == {"A": "1", "Twilio-Edge-Host": "content.sydney.au1.twilio.com", "B": "2"}
    for other in ("https://example.com/x", "https://twilio.com.example.com/", "https://nottwilio.com/", "http://127.0.0.1:9/page?Page=2"):
        assert moved("http://edge:8081", other, None, {"B": "2"}) == (other, {})


@pytest.mark.parametrize("url", ["", "127.0.0.1:8081", "ftp://edge", "http://", "http://edge/?a=b"])
def test_wrong_base_url_is_refused(url: str) -> None:
    with pytest.raises(ValueError, match="no base URL"):
        base_url(url)


def test_region_and_edge_of_the_sdk_are_harmless(stack: stacks.Stack) -> None:
    client = Client(stacks.ACCOUNT, stack.app_key, region="au1", edge="sydney", http_client=EdgeHttpClient(stack.url))
    began = time.monotonic()
    assert client.messages.create(to=PERSON, from_=OURS, body="Hi").sid
    assert time.monotonic() - began < 10
