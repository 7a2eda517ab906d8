"""The console and the commands of README.md, as they stand there, beside `twilio-edge demo`, on its default ports: in a
network of its own, where these ports are free. argv: the folder to do it in, the commands as JSON, each with what it shows, and
whether the network is a new one."""

import ctypes
import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import time

FOLDER, COMMANDS, IS_NEW = sys.argv[1], json.loads(sys.argv[2]), sys.argv[3] == "new"
PATIENCE = 120

if IS_NEW:
    # Its loopback device is down.
    with socket.socket() as any_socket:
        IFF_UP, SIOCSIFFLAGS = 1, 0x8914
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))

os.chdir(FOLDER)
log = open("demo.log", "w+")

PR_SET_PDEATHSIG = 1  # it ends when this process ends
libc = ctypes.CDLL(None)
demo = subprocess.Popen(
    ["target/debug/twilio-edge", "demo"], stdout=log, stderr=log,
    preexec_fn=lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM),
)


def until(what, probe):
    deadline = time.monotonic() + PATIENCE
    while True:
        seen = probe()
        if seen is True:
            return
        if time.monotonic() > deadline or demo.poll() is not None:
            log.seek(0)
            sys.exit(f"{what}: {seen}\n{log.read()}")
        time.sleep(0.1)


def text():
    with open("demo.log") as lines:
        return lines.read()


until("the demo starts", lambda: "It takes webhooks of" in text())
for command, shown in COMMANDS:
    def shows():
        ran = subprocess.run(["sh", "-euc", command], capture_output=True, text=True, timeout=PATIENCE)
        output = ran.stdout + ran.stderr
        missing = [word for word in shown if word not in output]
        return (ran.returncode == 0 and not missing) or f"{missing} not in {output}"

    # Reading commands are repeated until they show the result; other commands run once.
    if "history" in command:
        until(command, shows)
    else:
        seen = shows()
        if seen is not True:
            sys.exit(f"{command}: {seen}\n{text()}")
demo.terminate()
demo.wait(PATIENCE)
print("walked")
