#!/usr/bin/env python3
"""Runs all test programs of the workspace, several at the same time, and prints a table of their times.

    tests.py [NAME]    all tests, or those with NAME in their name

Cargo builds the programs and names them, so that no test is left out. Most tests wait for a server or a deadline: two
programs at the same time keep two cores busy. The tests that measure time run alone, after all others.
The output of a program is printed when it has ended; until then it is in target/tests/.

A few tests that failed beside others run once more, alone. One that passes then is listed as unstable: a busy machine was
too slow for it. It must be corrected, but does not stop a change of something else.
"""

import concurrent.futures
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
CARGO = ROOT / "setup/cargo.sh"
LOGS = ROOT / "target/tests"
# Characters of a program's output that are printed.
MOST_PRINTED = 2_000_000
# Bytes that the files of all tests need at most.
ROOM = 4 << 30
# Programs that take long start first.
LONGEST = ["it", "e2e", "packages", "e2e, native", "cli", "deploy", "scenarios"]
# Programs that run alone, since they measure time or kill what others would need.
ALONE = ["chaos"]
# Programs that also run on the native module: by a variable. `make e2e NATIVE=1` runs all of their tests on it.
NATIVE = {"e2e": {"TWILIO_EDGE_NATIVE": "brief"}}
# Programs that can run their tests that measure time apart: by a variable that selects or excludes them.
DIVIDED = {"e2e": "TWILIO_EDGE_E2E_ALONE"}
# Programs whose databases are kept in memory. Envoy refuses files in /dev/shm.
IN_MEMORY = ["it"]
# Failed tests that may run once more. If more of them fail, the machine is not the cause.
MOST_REPEATED = 4
FAILED = re.compile(r"^test (\S+)\s+\.\.\. FAILED", re.MULTILINE)
RESULT = re.compile(r"^test result: .*?(\d+) passed; (\d+) failed", re.MULTILINE)


class Job:
    """One test program, or a part of it."""

    def __init__(self, name, command, folder, variables):
        self.name, self.command, self.folder, self.variables = name, command, folder, variables
        self.seconds, self.passed, self.failed, self.is_good = 0.0, 0, 0, False
        self.failures, self.unstable = [], []

    def run(self, environment):
        """Runs it to its end, and returns what it printed."""
        log = LOGS / (re.sub(r"\W+", "-", self.name).strip("-") + ".log")
        began = time.monotonic()
        with log.open("wb") as output:
            ended = subprocess.run(self.command, cwd=self.folder, env=environment | self.variables,
                                   stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
        self.seconds = time.monotonic() - began
        self.is_good = ended.returncode == 0
        text = log.read_text(errors="replace")
        for passed, failed in RESULT.findall(text):
            self.passed += int(passed)
            self.failed += int(failed)
        self.failures = FAILED.findall(text)
        if len(text) > MOST_PRINTED:
            text = f"{text[:MOST_PRINTED // 2]}\n[..] all of it is in {log}\n{text[-MOST_PRINTED // 2:]}"
        return text

    def repeat(self, environment):
        """Runs each failed test alone, and prints what it printed."""
        for name in self.failures:
            command = [self.command[0], name, "--exact"]
            ended = subprocess.run(command, cwd=self.folder, env=environment | self.variables, text=True, errors="replace",
                                   stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            passes = ended.returncode == 0 and "1 passed" in ended.stdout
            print(f"\n=== {self.name}: {name} alone: {'passed' if passes else 'failed'}\n{ended.stdout[-MOST_PRINTED:]}", flush=True)
            if passes:
                self.unstable.append(name)
        self.passed += len(self.unstable)
        self.failed -= len(self.unstable)
        # A program that ended early has not run all of its tests.
        self.is_good = self.failed == 0 and len(self.unstable) == len(self.failures)


def built(words):
    """Builds all test programs, and returns those that run beside each other and those that run alone."""
    command = [CARGO, "test", "--workspace", "--no-run", "--message-format=json-render-diagnostics"]
    ended = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if ended.returncode != 0:
        sys.exit(ended.returncode)
    beside, alone = [], []
    for line in ended.stdout.splitlines():
        message = json.loads(line)
        if message["reason"] != "compiler-artifact" or not message["profile"]["test"] or not message["executable"]:
            continue
        folder = str(pathlib.Path(message["manifest_path"]).parent)
        name = message["target"]["name"]
        if message["target"]["kind"] != ["test"]:
            name += ", unit tests"

        def job(title, **variables):
            return Job(title, [message["executable"], *words], folder, {"CARGO_MANIFEST_DIR": folder} | variables)

        if name in ALONE:
            alone.append(job(name))
        elif name in DIVIDED:
            beside.append(job(name, **{DIVIDED[name]: "none"}))
            alone.append(job(f"{name}, alone", **{DIVIDED[name]: "only"}))
            if name in NATIVE:
                beside.append(job(f"{name}, native", **NATIVE[name]))
        else:
            beside.append(job(name))
    # The packages for Python and Node, and the examples; the program has the output of Rust's test programs.
    beside.append(Job("packages", [str(ROOT / "packages/test.py"), *words], str(ROOT), {}))
    beside.sort(key=lambda it: (LONGEST.index(it.name) if it.name in LONGEST else len(LONGEST), it.name))
    documents = [str(CARGO), "test", "--quiet", "--workspace", "--doc", *(["--", *words] if words else [])]
    beside.append(Job("examples in docstrings", documents, str(ROOT), {}))
    return beside, alone


def main():
    words = sys.argv[1:]
    if any(word.startswith("-") for word in words):
        print(__doc__)
        sys.exit(2)
    began = time.monotonic()
    beside, alone = built(words)
    compiled = time.monotonic() - began
    cores = os.cpu_count() or 1
    # Most tests wait. More of them at the same time would wait for the processor.
    environment = {"RUST_TEST_THREADS": str(cores * 5 // 2)} | os.environ
    LOGS.mkdir(parents=True, exist_ok=True)
    printing = threading.Lock()

    def run(job):
        text = job.run(environment | (in_memory if job.name in IN_MEMORY else {}))
        # A run of one test prints that test.
        if not words or job.passed or not job.is_good:
            with printing:
                print(f"\n=== {job.name}: {job.seconds:.0f} s\n{text}", flush=True)

    with tempfile.TemporaryDirectory(dir=memory(), ignore_cleanup_errors=True) as folder:
        # Other users, such as that of PostgreSQL, pass through it.
        os.chmod(folder, 0o711)
        in_memory = {"TMPDIR": environment.get("TMPDIR", folder)}
        with concurrent.futures.ThreadPoolExecutor(max(2, cores)) as lanes:
            list(lanes.map(run, beside))
        for job in alone:
            run(job)
        failing = [job for job in beside + alone if not job.is_good]
        if all(job.failed == len(job.failures) > 0 for job in failing) \
                and sum(job.failed for job in failing) <= MOST_REPEATED:
            for job in failing:
                job.repeat(environment | (in_memory if job.name in IN_MEMORY else {}))
    stage("compile tests", compiled)
    stage("run tests", time.monotonic() - began - compiled)
    print(f"\n=== tests\n{compiled:6.0f} s  compile")
    for job in sorted(beside + alone, key=lambda it: -it.seconds):
        if job.passed or not job.is_good:
            verdict = "" if job.is_good else "  FAILED"
            print(f"{job.seconds:6.0f} s  {job.name}: {job.passed} passed, {job.failed} failed{verdict}")
    for job in beside + alone:
        for name in job.unstable:
            print(f"unstable: {job.name}: {name} failed beside others and passed alone")
    print(f"{time.monotonic() - began:6.0f} s  in all: {sum(it.passed for it in beside + alone)} passed, "
          f"{sum(it.failed for it in beside + alone)} failed")
    if not any(job.passed or not job.is_good for job in beside + alone):
        sys.exit(f"no test has {words[0]} in its name")
    sys.exit(0 if all(job.is_good for job in beside + alone) else 1)


def stage(name, seconds):
    """Adds a line to the table of stages (see stage.sh)."""
    if table := os.environ.get("STAGES"):
        with open(table, "a") as lines:
            lines.write(f"{seconds:6.0f} s  {name}\n")


def memory():
    """Returns the folder of a file system in memory, which needs no time to write to disk, if there is one with room."""
    folder = pathlib.Path("/dev/shm")
    has_room = os.access(folder, os.W_OK) and shutil.disk_usage(folder).free > ROOM
    return folder if has_room else None


main()
