"""Runs what docker-compose.yml describes, without an engine: each service's command in its environment, as its user, in a root
of its own in which nothing can be written but its volumes. The sidecar's root has the program and libraries that distroless
has, and no shell. Addresses and ports are Compose's, in a network of our own. Then commands of a document are typed, and the
services stopped as Compose stops them.

argv: the repository, a folder to do it in, and as JSON what `docker-compose config` says, where here is what images hold, and
commands, each with what it shows. As root, in namespaces of its own (`unshare --net --mount`)."""

import ctypes
import fcntl
import json
import os
import pathlib
import re
import shlex
import signal
import socket
import struct
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(__file__))
import dockerfile

REPOSITORY, FOLDER = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])
COMPOSE, HERE, COMMANDS = map(json.loads, sys.argv[3:6])
STAGES = dockerfile.stages((REPOSITORY / "deploy/docker/Dockerfile").read_text())
TIME_LIMIT = 120
LIBC = ctypes.CDLL(None)
PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS = 1, 38

# Longer time limits, so that a busy machine causes no outage.
LONG_TIME_LIMITS = {"TWILIO_EDGE_DATABASE_TIMEOUT_MS": "4000", "TWILIO_EDGE_REDIS_TIMEOUT_MS": "4000"}

# Shared libraries of gcr.io/distroless/cc-debian12.
DISTROLESS = {"ld-linux-x86-64.so.2", "libc.so.6", "libdl.so.2", "libgcc_s.so.1", "libm.so.6", "libpthread.so.0", "librt.so.1"}


def mount(*words):
    subprocess.run(["mount", *map(str, words)], check=True)


def until(what, probe):
    deadline = time.monotonic() + TIME_LIMIT
    while (seen := probe()) is not True:
        if time.monotonic() > deadline:
            sys.exit(f"{what}: {seen}")
        time.sleep(0.1)


class Service:
    """One service: its configuration in Compose, and the defaults of its image."""

    def __init__(self, name, config):
        image = STAGES[config["build"]["target"]] if config.get("build") else dockerfile.Stage("", "")
        self.name, self.config, self.image = name, config, image
        self.root = FOLDER / "roots" / name
        self.uid, self.gid = map(int, (config.get("user") or image.last("USER")).split(":"))
        self.environment = {"PATH": f"/usr/local/bin:/usr/bin:/bin:{HERE['postgres']}"}
        self.environment |= image.environment() | (config.get("environment") or {}) | LONG_TIME_LIMITS
        entry = config.get("entrypoint") or image.last("ENTRYPOINT") or []
        # `config` doubles each dollar, so that Compose can read its output again.
        command = [word.replace("$$", "$") for word in config.get("command") or []]
        self.command = [*entry, *(command or image.last("CMD") or [])]
        check = (config.get("healthcheck") or {}).get("test") or ["CMD", *(image.healthcheck() or [])]
        self.check = ["sh", "-c", check[1]] if check[0] == "CMD-SHELL" else check[1:]
        self.process = None

    def inside(self, place):
        return self.root / str(place).lstrip("/")

    def bind(self, source, place, options="ro"):
        """Mounts a file or folder of this machine in the service's root."""
        target = self.inside(place)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.mkdir(exist_ok=True) if pathlib.Path(source).is_dir() else target.touch()
        mount("--bind", source, target)
        mount("--options", f"remount,bind,{options}", target)

    def tmpfs(self, place, options):
        self.inside(place).mkdir(parents=True, exist_ok=True)
        mount("-t", "tmpfs", "-o", options or "rw", "tmpfs", self.inside(place))

    def furnish(self):
        """Creates its root: the base image from this machine, the files that the image copies, volumes and secrets."""
        self.root.mkdir(parents=True)
        self.tmpfs("/", "mode=0755")
        if "distroless" in self.image.base:
            linked = subprocess.run(["ldd", HERE["sidecar"]], capture_output=True, text=True, check=True).stdout
            for library in map(pathlib.Path, re.findall(r"(/\S+) \(0x", linked)):
                if library.name not in DISTROLESS:
                    sys.exit(f"distroless has no {library.name}, which the sidecar is linked with")
                self.bind(library, library)
            self.bind("/etc/ssl/certs", "/etc/ssl/certs")
        else:
            self.bind("/usr", "/usr")
            self.tmpfs("/usr/local", "mode=0755")
            for name in ("bin", "lib", "lib64"):
                self.inside(name).symlink_to(f"usr/{name}")
        self.inside("etc").mkdir(exist_ok=True)
        self.inside("etc/passwd").write_text(f"{self.name}:x:{self.uid}:{self.gid}::/:/bin/false\n")
        self.bind(FOLDER / "hosts", "/etc/hosts")
        self.bind("/proc", "/proc", "rw")
        self.bind("/dev", "/dev", "rw")
        if "envoy" in self.image.base:
            self.bind(HERE["envoy"], "/usr/local/bin/envoy")
        for origin, sources, target, owner in self.image.copies():
            if owner:
                self.inside(target).mkdir(parents=True)
            else:
                self.bind(HERE[origin] if origin else REPOSITORY / sources[0], target)
        for volume in self.config.get("volumes") or []:
            volume_folder = FOLDER / "volumes" / volume["source"]
            volume_folder.mkdir(parents=True, exist_ok=True)
            os.chown(volume_folder, self.uid, self.gid)
            self.bind(volume_folder, volume["target"], "rw")
        for line in self.config.get("tmpfs") or []:
            place, _, options = line.partition(":")
            self.tmpfs(place, options)
        for secret in self.config.get("secrets") or []:
            self.bind(COMPOSE["secrets"][secret["source"]]["file"], f"/run/secrets/{secret['source']}")
        if self.config.get("read_only"):
            mount("-o", "remount,ro", self.root)

    def start(self, words, **outputs):
        """Starts `words` as its user, in its root."""

        def become():
            os.chroot(self.root)
            os.chdir(self.image.last("WORKDIR") or "/")
            os.setgroups([])
            os.setgid(self.gid)
            os.setuid(self.uid)
            LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
            LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

        return subprocess.Popen(words, env=self.environment, stdin=subprocess.DEVNULL, preexec_fn=become, **outputs)

    def run(self, words):
        """Returns the exit code of `words`, and their output."""
        process = self.start(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        output, _ = process.communicate(timeout=TIME_LIMIT)
        return process.returncode, output

    def done(self, words):
        code, output = self.run(words)
        if code != 0:
            sys.exit(f"{words}: {output}")

    def up(self):
        self.command = self.command or self.prepared()
        self.begin()
        until(f"{self.name} is healthy", self.healthy)
        if self.name == "postgres":
            self.done(["createdb", "--username", self.environment["POSTGRES_USER"], self.environment["POSTGRES_DB"]])

    def prepared(self):
        """Does the work of the entrypoint of PostgreSQL's image, which cannot run here."""
        data = self.config["volumes"][0]["target"]
        self.inside("tmp/password").write_text(self.environment["POSTGRES_PASSWORD"])
        self.inside("tmp/password").chmod(0o644)
        owner = ["--username", self.environment["POSTGRES_USER"], "--pwfile", "/tmp/password"]
        self.done(["initdb", "--no-sync", "-D", data, *owner, *self.environment["POSTGRES_INITDB_ARGS"].split()])
        return ["postgres", "-D", data, "-c", "fsync=off"]

    def begin(self):
        with open(FOLDER / f"{self.name}.log", "a") as log:
            self.process = self.start(self.command, stdout=log, stderr=log)

    def healthy(self):
        if self.process.poll() is not None:
            # As its restart policy; the caller limits the time.
            assert self.config["restart"] == "unless-stopped", self.config
            self.begin()
            return f"ended: {self.log()}"
        code, output = self.run(self.check)
        return code == 0 or f"{output}\n{self.log()}"

    def down(self):
        """Sends SIGTERM, and SIGKILL after the grace period of Compose."""
        self.process.send_signal(signal.SIGTERM)
        patience = int(self.config.get("stop_grace_period", "10s").removesuffix("s"))
        code = self.process.wait(patience)
        return code in (0, -signal.SIGTERM) or sys.exit(f"{self.name} ended with {code}: {self.log()}")

    def log(self):
        return (FOLDER / f"{self.name}.log").read_text()[-3000:]

    def enter(self):
        """Writes a script that replaces `docker compose exec`."""
        variables = [f"{name}={value}" for name, value in self.environment.items()]
        words = ["env", "-i", *variables, "/usr/sbin/chroot", f"--userspec={self.uid}:{self.gid}", str(self.root)]
        script = FOLDER / "bin" / self.name
        script.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n')
        script.chmod(0o755)


def in_order(services):
    """Returns the services, each after those it depends on."""
    done = []

    def visit(name):
        if name not in done:
            for other in services[name].config.get("depends_on") or {}:
                visit(other)
            done.append(name)

    for name in services:
        visit(name)
    return [services[name] for name in done]


def main():
    # All services share one loopback device, so their ports differ; each has its name.
    with socket.socket() as any_socket:
        IFF_UP, SIOCSIFFLAGS = 1, 0x8914
        fcntl.ioctl(any_socket, SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", IFF_UP))
    (FOLDER / "hosts").write_text(f"127.0.0.1 localhost {' '.join(COMPOSE['services'])}\n")
    (FOLDER / "bin").mkdir()
    docker = FOLDER / "bin/docker"
    docker.write_text(f'#!/bin/sh\n[ "$1 $2 $3" = "compose exec -T" ] || exit 64\ntool={FOLDER}/bin/$4\nshift 4\nexec "$tool" "$@"\n')
    docker.chmod(0o755)
    os.environ["PATH"] = f"{FOLDER}/bin:{os.environ['PATH']}"
    os.chdir(FOLDER)

    services = in_order({name: Service(name, config) for name, config in COMPOSE["services"].items()})
    for service in services:
        service.furnish()
        service.enter()
        service.up()
    for command, shown in COMMANDS:
        def shows():
            ran = subprocess.run(["sh", "-euc", command], capture_output=True, text=True, timeout=TIME_LIMIT)
            output = ran.stdout + ran.stderr
            missing = [word for word in shown if word not in output]
            return (ran.returncode == 0 and not missing) or f"{missing} not in {output}\n" + "\n".join(s.log() for s in services)

        # Reading commands are repeated until they show the result; other commands run once.
        if " history " in command or '"code":"suppressed"' in shown:
            until(command, shows)
        elif (seen := shows()) is not True:
            sys.exit(f"{command}: {seen}")
    for service in reversed(services):
        service.down()
    print("composed")


main()
