"""Sidecar, simulated Twilio and Envoy with the filter, started for tests and commands of packages/ and examples/.

    stack.py    starts them for applications on their default ports, prints their addresses, and stops after Ctrl-C

Everything listens on free ports of 127.0.0.1, and ends with the process that started it. `TWILIO_EDGE_BINARY` and
`TWILIO_EDGE_WASM` name other builds than those of `make build` and `make wasm`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence

ROOT = pathlib.Path(__file__).resolve().parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")
BINARY = pathlib.Path(os.environ.get("TWILIO_EDGE_BINARY") or TARGET / "debug/twilio-edge")
WASM = pathlib.Path(os.environ.get("TWILIO_EDGE_WASM") or ROOT / "target/wasm/twilio_edge_filter.wasm")
# The tools of another checkout, if this one has none.
TOOLS = pathlib.Path(os.environ.get("TWILIO_EDGE_TOOLS") or ROOT)

ACCOUNT = "AC00112233445566778899aabbccddeeff"
OTHER_ACCOUNT = "AC" + "f" * 32
AUTH_TOKEN = "0123456789abcdef0123456789abcdef"
VERIFY_SERVICE = "VA00112233445566778899aabbccddeeff"
EDGE_TOKEN = "local-edge-token-of-the-packages"
# A secret of Standard Webhooks has 24 to 64 bytes.
SINK_SECRET = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
_ports = itertools.count()
# Seconds until everything is ready. It takes about two.
PATIENCE = 30


@dataclasses.dataclass(frozen=True)
class Application:
    """An application behind the edge: Envoy forwards `/NAME/twilio/..` to its `/twilio/..`, and a sink posts to its `/events`."""

    name: str
    port: int


@dataclasses.dataclass
class Stack:
    """Addresses and keys of a running stack."""

    url: str
    admin_url: str
    simulator_url: str
    edge_url: str
    admin_key: str
    app_key: str
    app_key_id: str
    folder: pathlib.Path

    def log(self, part: str) -> str:
        """Returns the output of a part, for the message of a failed test."""
        return (self.folder / f"{part}.log").read_text(errors="replace")


def free_port() -> int:
    """Returns an unused port of 127.0.0.1. It is below the ephemeral range, so no outgoing connection can occupy it."""
    # Programs that run at the same time start far apart.
    first, count, begin = 12_000, 18_000, os.getpid() * 7919
    for _ in range(count):
        port = first + (begin + next(_ports)) % count
        with socket.socket() as listener, contextlib.suppress(OSError):
            listener.bind(("127.0.0.1", port))
            return port
    raise OSError("no free port on 127.0.0.1")


def until(what: str, condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Waits until the condition is true. Connection errors count as false."""
    deadline = time.monotonic() + seconds
    while True:
        with contextlib.suppress(OSError):
            if condition():
                return
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {seconds} s")
        time.sleep(0.03)


def request(
    method: str, url: str, body: object = None, token: str | None = None, headers: Mapping[str, str] | None = None
) -> tuple[int, bytes]:
    """Sends one request, a body that is no text as JSON, and returns status and body of the answer."""
    data = None if body is None else body.encode() if isinstance(body, str) else json.dumps(body).encode()
    asked = urllib.request.Request(url, data, dict(headers or {}), method=method)
    if token is not None:
        asked.add_header("Authorization", f"Bearer {token}")
    # No proxy of the environment: everything is on this machine.
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(asked, timeout=20) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


@contextlib.contextmanager
def process(
    name: str, command: Sequence[object], folder: pathlib.Path, environment: Mapping[str, str], cwd: pathlib.Path = ROOT
) -> Iterator[subprocess.Popen[bytes]]:
    """Runs a program with its output in FOLDER/NAME.log, and stops it and its children at the end."""
    with (folder / f"{name}.log").open("ab") as log:
        words = [str(word) for word in command]
        ran = subprocess.Popen(
            words, cwd=cwd, env=dict(environment), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield ran
    finally:
        for sent in (signal.SIGTERM, signal.SIGKILL):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(ran.pid, sent)
            try:
                ran.wait(timeout=10)
                break
            except subprocess.TimeoutExpired:
                continue


def _private(path: pathlib.Path, text: str) -> pathlib.Path:
    path.write_text(text)
    path.chmod(0o600)
    return path


def _envoy(folder: pathlib.Path, edge: int, sidecar: int, applications: Sequence[Application]) -> pathlib.Path:
    """Writes the shipped configuration of Envoy with other addresses, and one folder of paths for each application."""
    import yaml  # type: ignore[import-untyped, unused-ignore]

    config = yaml.safe_load((ROOT / "envoy/envoy.yaml").read_text())
    config["admin"]["address"]["socket_address"]["port_value"] = 0
    [listener] = config["static_resources"]["listeners"]
    listener["address"]["socket_address"]["port_value"] = edge
    manager = listener["filter_chains"][0]["filters"][0]["typed_config"]
    wasm = manager["http_filters"][0]["typed_config"]["config"]
    wasm["vm_config"]["code"]["local"]["filename"] = str(WASM)
    settings = json.loads(wasm["configuration"]["value"])
    classes = {"inbound": "inbound", "status": "status", "json": "inbound"}
    settings["routes"] = [
        {"path": f"/{application.name}/twilio/{path}", "class": kind, **({"body": "json"} if path == "json" else {})}
        for application in applications
        for path, kind in classes.items()
    ]
    # Webhooks of this route are stored, and delivered to the sinks.
    settings["routes"].append({"path": "/accepted", "class": "inbound", "delivery": "accept"})
    wasm["configuration"]["value"] = json.dumps(settings)
    [host] = manager["route_config"]["virtual_hosts"]
    refused = host["routes"][-1]
    host["routes"] = [
        {
            "match": {"prefix": f"/{application.name}/"},
            "route": {"cluster": application.name, "prefix_rewrite": "/", "timeout": "14s"},
        }
        for application in applications
    ] + [{"match": {"path": "/accepted"}, "direct_response": {"status": 503}}, refused]
    clusters = config["static_resources"]["clusters"]
    own = next(cluster for cluster in clusters if cluster["name"] == "twilio_edge_sidecar")

    def cluster(name: str, port: int, template: Mapping[str, object]) -> dict[str, object]:
        made: dict[str, object] = json.loads(json.dumps(dict(template))) | {"name": name}
        address = {"socket_address": {"address": "127.0.0.1", "port_value": port}}
        endpoints = [{"lb_endpoints": [{"endpoint": {"address": address}}]}]
        return made | {"load_assignment": {"cluster_name": name, "endpoints": endpoints}}

    plain = {"type": "STATIC", "connect_timeout": "1s"}
    config["static_resources"]["clusters"] = [
        cluster("twilio_edge_sidecar", sidecar, own),
        *(cluster(application.name, application.port, plain) for application in applications),
    ]
    path = folder / "envoy.yaml"
    path.write_text(yaml.safe_dump(config))
    return path


@contextlib.contextmanager
def running(applications: Sequence[Application] = (), *, with_envoy: bool = False) -> Iterator[Stack]:
    """Starts the simulator, the sidecar and, if wanted, Envoy, and waits until they are ready."""
    missing = [path for path in (BINARY, *([WASM] if with_envoy else [])) if not path.exists()]
    if missing:
        raise FileNotFoundError(f"no {', '.join(map(str, missing))}: run `make build wasm`")
    with contextlib.ExitStack() as parts:
        folder = pathlib.Path(parts.enter_context(tempfile.TemporaryDirectory(prefix="twilio-edge-", ignore_cleanup_errors=True)))
        # A database in memory does not wait for a disk that other tests use. Envoy refuses files in /dev/shm.
        memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        data = parts.enter_context(tempfile.TemporaryDirectory(prefix="twilio-edge-", dir=memory, ignore_cleanup_errors=True))
        simulator, sidecar, admin, edge = free_port(), free_port(), free_port(), free_port()
        origin = f"http://127.0.0.1:{edge}"
        account = f'[[account]]\nsid = "{ACCOUNT}"\n'
        sending = _private(folder / "sending.toml", f'{account}auth_token = "{AUTH_TOKEN}"\nverify_service_sid = "{VERIFY_SERVICE}"\n')
        accounts = _private(folder / "accounts.toml", f'{account}auth_tokens = ["{AUTH_TOKEN}"]\n')
        sinks = _private(
            folder / "sinks.toml",
            "".join(
                f'[[sink]]\nname = "{application.name}"\ntype = "http"\nurl = "http://127.0.0.1:{application.port}/events"\n'
                f'secrets = ["{SINK_SECRET}"]\nevents = ["*"]\nlongest_pause_ms = 200\n'
                for application in applications
            ),
        )
        settings = {
            "TWILIO_EDGE_TOKEN": EDGE_TOKEN,
            "TWILIO_EDGE_LISTEN": f"127.0.0.1:{sidecar}",
            "TWILIO_EDGE_ADMIN_LISTEN": f"127.0.0.1:{admin}",
            "DATABASE_URL": f"sqlite://{data}/data/twilio-edge.db",
            "TWILIO_EDGE_ACCOUNTS_FILE": str(accounts),
            "TWILIO_EDGE_SENDING_FILE": str(sending),
            "TWILIO_EDGE_SENDING_BASE_URL": f"http://127.0.0.1:{simulator}",
            "TWILIO_EDGE_SENDING_ANSWER_WITHIN_MS": "2000",
        }
        if applications:
            settings["TWILIO_EDGE_SINKS_FILE"] = str(sinks)
        inbound = f"{origin}/{applications[0].name}/twilio/inbound" if applications else f"{origin}/accepted"
        simulate = [BINARY, "simulator", "--listen", f"127.0.0.1:{simulator}", "--step-ms", "20", "--inbound-url", inbound]
        parts.enter_context(process("simulator", simulate, folder, {}))
        parts.enter_context(process("sidecar", [BINARY, "serve"], folder, settings, pathlib.Path(data)))
        base, administrators = f"http://127.0.0.1:{sidecar}", f"http://127.0.0.1:{admin}"
        if with_envoy:
            config = _envoy(folder, edge, sidecar, applications)
            environment = {
                "TWILIO_ACCOUNT_SID": ACCOUNT,
                "TWILIO_AUTH_TOKEN": AUTH_TOKEN,
                "TWILIO_EDGE_TOKEN": EDGE_TOKEN,
                "PUBLIC_ORIGIN": origin,
            }
            command = [TOOLS / ".venv/bin/envoy", "--disable-hot-restart", "--log-level", "warning", "--concurrency", "1", "-c", config]
            parts.enter_context(process("envoy", command, folder, environment))
        try:
            until("the sidecar", lambda: request("GET", f"{base}/readyz")[0] == 200)
            until("the simulator", lambda: request("GET", f"http://127.0.0.1:{simulator}/simulator/healthz")[0] == 200)
            if with_envoy:
                until("Envoy", lambda: request("GET", f"{origin}/none")[0] == 404)
        except TimeoutError as error:
            logs = [f"{log.name}:\n{log.read_text(errors='replace')[-3000:]}" for log in folder.glob("*.log")]
            raise TimeoutError("\n".join([str(error), *logs])) from error

        def key(creator: str, **wanted: object) -> tuple[str, str]:
            status, body = request("POST", f"{administrators}/v1/keys", wanted, creator)
            assert status == 201, body
            made = json.loads(body)
            return made["key"]["id"], made["token"]

        _, administrator = key(EDGE_TOKEN, scope="admin", name="packages")
        app_key_id, token = key(administrator, scope="app", name="packages", account_sid=ACCOUNT)
        yield Stack(base, administrators, f"http://127.0.0.1:{simulator}", origin, administrator, token, app_key_id, folder)


def signed(stack: Stack, path: str, parameters: Mapping[str, str]) -> tuple[int, bytes]:
    """Posts a webhook to Envoy, signed as Twilio signs it, and returns status and body of the answer."""
    import base64
    import hashlib
    import hmac
    import urllib.parse

    url = stack.edge_url + path
    text = url + "".join(name + parameters[name] for name in sorted(parameters))
    signature = base64.b64encode(hmac.new(AUTH_TOKEN.encode(), text.encode(), hashlib.sha1).digest()).decode()
    headers = {"X-Twilio-Signature": signature, "Content-Type": "application/x-www-form-urlencoded"}
    return request("POST", url, urllib.parse.urlencode(parameters), headers=headers)


def sid(number: int, kind: str = "SM") -> str:
    """Returns the SID of a message of a test."""
    return f"{kind}{number:032x}"


def version() -> str:
    """Returns the version of the product, from Cargo.toml."""
    text = (ROOT / "Cargo.toml").read_text()
    found = re.search(r'^\[workspace\.package\]$.*?^version = "([^"]+)"$', text, re.MULTILINE | re.DOTALL)
    assert found, "Cargo.toml has no version of the workspace"
    return found[1]


if __name__ == "__main__":
    del shutil, sys
