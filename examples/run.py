#!/usr/bin/env python3
"""Runs an example behind Envoy with the filter, the sidecar and a simulated Twilio, or tests examples there.

    run.py flask            prints addresses and commands to try; Ctrl-C stops everything
    run.py flask --test     sends webhooks, copies, forged requests and events, and checks what the application received
    run.py --test           tests all examples behind one Envoy

The packages must be built (`make packages`). `make example NAME=flask` does both.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import json
import os
import pathlib
import shutil
import sys
import time
import urllib.parse
from collections.abc import Iterator

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "packages"))
import stack as stacks

EXAMPLES = ["flask", "fastapi", "django", "express", "fastify", "migration"]
# Packages as a user has them after the installation.
SITE, MODULES = ROOT / "target/packages/site", ROOT / "target/packages/modules"
PYTHON = stacks.TOOLS / ".tools/packages/bin/python"
OURS, PERSON = "+14155238886", "+14155550123"


def command(name: str) -> list[str]:
    """Returns the command that starts an example."""
    if (ROOT / "examples" / name / "app.py").exists():
        return [str(PYTHON if PYTHON.exists() else sys.executable), str(ROOT / "examples" / name / "app.py")]
    # Node finds packages in the folders above a file.
    folder = MODULES / name
    folder.mkdir(exist_ok=True)
    return ["node", str(shutil.copy(ROOT / "examples" / name / "app.mjs", folder))]


@contextlib.contextmanager
def started(stack: stacks.Stack, applications: list[stacks.Application]) -> Iterator[None]:
    """Runs the applications until the end of the block."""
    with contextlib.ExitStack() as processes:
        for application in applications:
            environment = {
                "PATH": os.environ["PATH"],
                "PORT": str(application.port),
                "OLD_AUTH_TOKEN": stacks.AUTH_TOKEN,
                "PUBLIC_URL": f"{stack.edge_url}/{application.name}",
                "PYTHONPATH": str(SITE),
                "PYTHONDONTWRITEBYTECODE": "1",
                "SINK_SECRET": stacks.SINK_SECRET,
                "TWILIO_ACCOUNT_SID": stacks.ACCOUNT,
                "TWILIO_AUTH_TOKEN": stack.app_key,
                "TWILIO_EDGE_URL": stack.url,
            }
            processes.enter_context(stacks.process(application.name, command(application.name), stack.folder, environment))
        for application in applications:
            try:
                stacks.until(application.name, functools.partial(received, application))
            except TimeoutError as error:
                raise TimeoutError(f"{error}\n{stack.log(application.name)}") from error
        yield


def received(application: stacks.Application) -> dict[str, list[str]]:
    """Returns what an application has received."""
    status, body = stacks.request("GET", f"http://127.0.0.1:{application.port}/received")
    assert status == 200, body
    found: dict[str, list[str]] = json.loads(body)
    return found


def check(stack: stacks.Stack, application: stacks.Application, number: int) -> None:
    """Tests one application behind the edge. SIDs begin at `number`."""
    if application.mode == "shadow":
        check_migration(stack, application)
        return
    name, direct = application.name, f"http://127.0.0.1:{application.port}"
    inbound = {"AccountSid": stacks.ACCOUNT, "From": PERSON, "To": OURS, "NumMedia": "0", "NumSegments": "1", "ApiVersion": "2010-04-01"}

    def message(sid: int, text: str) -> tuple[int, bytes]:
        sids = {"MessageSid": stacks.sid(sid), "SmsSid": stacks.sid(sid), "SmsMessageSid": stacks.sid(sid)}
        return stacks.signed(stack, f"/{name}/twilio/inbound", {**inbound, **sids, "Body": text, "SmsStatus": "received"})

    # A signed message gets the answer of the application, and its copy gets the same answer without reaching the application.
    first, copy = message(number, "Hi"), message(number, "Hi")
    assert first[0] == 200 and f"<Message>Hello {PERSON}</Message>".encode() in first[1], (name, first, stack.log(name))
    assert copy == first, (name, copy)
    # A forged message reaches neither the application through Envoy nor the handler directly.
    form = urllib.parse.urlencode({**inbound, "MessageSid": stacks.sid(number + 1), "Body": "forged"})
    headers = {"Content-Type": "application/x-www-form-urlencoded", "X-Twilio-Signature": "AAAA", "X-Twilio-Edge-Verified": "AC1"}
    assert stacks.request("POST", f"{stack.edge_url}/{name}/twilio/inbound", form, headers=headers)[0] == 403
    del headers["X-Twilio-Edge-Verified"]
    status, body = stacks.request("POST", f"{direct}/twilio/inbound", form, headers=headers)
    assert status == 403 and b"x-twilio-edge-verified" in body, (name, status, body)
    # The application sends a message with Twilio's SDK.
    status, body = message(number + 2, "remind me")
    assert status == 200 and b"<Message>" not in body, (name, status, body, stack.log(name))
    assert received(application)["messages"] == ["Hi", "remind me"], received(application)
    sent = json.loads(stacks.request("GET", f"{stack.simulator_url}/simulator/messages")[1])["messages"]
    assert f"{name} reminds you" in [one["body"].lower() for one in sent], (name, sent)
    # A status callback.
    reported = {
        "AccountSid": stacks.ACCOUNT,
        "MessageSid": stacks.sid(number + 3),
        "MessageStatus": "delivered",
        "From": OURS,
        "To": PERSON,
    }
    assert stacks.signed(stack, f"/{name}/twilio/status", reported)[0] == 204, name
    assert received(application)["statuses"] == [f"{stacks.sid(number + 3)} delivered"]
    # Events without a valid signature.
    for signature in ({}, {"webhook-id": "1", "webhook-timestamp": str(int(time.time())), "webhook-signature": "v1,AAAA"}):
        refused = stacks.request(
            "POST", f"{direct}/events", {"event_type": "test"}, headers={"Content-Type": "application/json", **signature}
        )
        assert refused[0] == 401, (name, refused)


def check_migration(stack: stacks.Stack, application: stacks.Application) -> None:
    """In shadow mode the old validator decides about every request, and the filter comes to the same decision about the first two."""
    inbound = {"AccountSid": stacks.ACCOUNT, "MessageSid": stacks.sid(0xA), "From": PERSON, "To": OURS, "Body": "Hi", "NumMedia": "0"}
    path = f"/{application.name}/twilio/inbound"
    for _ in range(2):
        status, body = stacks.signed(stack, path, inbound)
        assert status == 200 and b"From the old code" in body, (status, body, stack.log(application.name))
    headers = {"Content-Type": "application/x-www-form-urlencoded", "X-Twilio-Signature": "AAAA"}
    assert stacks.request("POST", stack.edge_url + path, urllib.parse.urlencode(inbound), headers=headers)[0] == 403
    assert received(application)["decisions"] == [
        "validator: accepted, filter: first",
        "validator: accepted, filter: duplicate",
        "validator: refused, filter: refused",
    ]


def check_events(stack: stacks.Stack, applications: list[stacks.Application]) -> None:
    """An accepted webhook and a message that was sent arrive as signed events, in every application."""
    sid = stacks.sid(0xE)
    accepted = {"AccountSid": stacks.ACCOUNT, "MessageSid": sid, "From": PERSON, "To": OURS, "Body": "Hi", "NumMedia": "0"}
    assert stacks.signed(stack, "/accepted", accepted)[0] == 200
    message = {"to": PERSON, "from": OURS, "body": "Hi"}
    status, body = stacks.request("POST", f"{stack.url}/v1/messages", message, stack.app_key)
    assert status == 202, body
    sent = f"message.sent:{json.loads(body)['id']}:"
    for application in applications:
        name = application.name
        if application.mode == "shadow":
            continue

        def arrived(application: stacks.Application = application) -> bool:
            events = received(application)["events"]
            is_sent = any(event.startswith(sent) for event in events)
            return is_sent and f"inbound:{stacks.ACCOUNT}:{sid}" in events

        try:
            stacks.until(f"events at {name}", arrived, 15)
        except TimeoutError as error:
            raise TimeoutError(f"{error}: {received(application)}\n{stack.log(name)}\n{stack.log('sidecar')[-2000:]}") from error
        events = received(application)["events"]
        assert len(events) == len(set(events)), events


def chosen(names: list[str]) -> list[stacks.Application]:
    """Returns examples on free ports. The routes of the migration are in shadow mode."""
    return [stacks.Application(name, stacks.free_port(), "shadow" if name == "migration" else "enforce") for name in names]


def run(application: stacks.Application) -> None:
    """Runs an example until Ctrl-C."""
    with stacks.running([application], with_envoy=True) as stack, started(stack, [application]):
        inbound = json.dumps({"from": PERSON, "to": OURS, "body": "Hi"})
        print(f"{application.name}: http://127.0.0.1:{application.port}/received shows what it received")
        print(f"sidecar: {stack.url}/docs/; Envoy: {stack.edge_url}/{application.name}/twilio/inbound")
        print(f"A person writes:\n  curl -sS {stack.simulator_url}/simulator/inbound -d '{inbound}'", flush=True)
        with contextlib.suppress(KeyboardInterrupt):
            while True:
                time.sleep(3600)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", choices=EXAMPLES)
    parser.add_argument("--test", action="store_true")
    arguments = parser.parse_args()
    applications = chosen([arguments.name] if arguments.name else EXAMPLES)
    if not arguments.test:
        if not arguments.name:
            parser.error("name an example")
        run(applications[0])
        return
    with stacks.running(applications, with_envoy=True) as stack, started(stack, applications):
        for number, application in enumerate(applications, 1):
            check(stack, application, number * 0x100)
            print(f"{application.name}: passed", flush=True)
        if arguments.name != "migration":
            check_events(stack, applications)
            print("events: passed")


if __name__ == "__main__":
    main()
