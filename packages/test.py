#!/usr/bin/env python3
"""Builds the packages as a release does, and runs their tests and the examples against the real sidecar and Envoy.

    test.py                  all tests
    test.py NAME             those with NAME in their name
    test.py NAME --exact     the one with this name
    test.py --lint           format, lints and types instead of tests
    test.py --install        builds and unpacks the packages, and runs no tests

The tests use the built packages, not the sources: the wheel and the tarball are unpacked into target/packages as an installation would do.
Everything runs against one sidecar, one simulated Twilio and one Envoy. The output is that of Rust's test programs, for setup/tests.py.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tarfile
import time
import traceback
import zipfile
from collections.abc import Callable

ROOT = pathlib.Path(__file__).resolve().parent.parent
# Runs with the tools that setup/setup.sh installs.
PYTHON = pathlib.Path(os.environ.get("TWILIO_EDGE_TOOLS") or ROOT) / ".tools/packages/bin/python"
if PYTHON.exists() and not PYTHON.parent.parent.samefile(sys.prefix):
    os.execv(PYTHON, [str(PYTHON), *sys.argv])
sys.path[:0] = [str(ROOT / "packages"), str(ROOT / "packages/openapi"), str(ROOT / "examples")]
import build
import compatibility
import run as examples
import stack as stacks

WORK = build.WORK
DIST, SITE, MODULES = WORK / "dist", WORK / "site", WORK / "modules"


def command(*words: object, cwd: pathlib.Path = ROOT, **variables: str) -> None:
    """Runs a command, and fails with its output."""
    ended = subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env={**os.environ, "PYTHONDONTWRITEBYTECODE": "1", **variables},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
    )
    assert ended.returncode == 0, f"{ended.stdout}{ended.stderr}"


def install() -> None:
    """Builds both packages, and unpacks them where the tests and the examples find them."""
    for folder in (DIST, SITE, MODULES):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    with concurrent.futures.ThreadPoolExecutor() as lanes:
        list(lanes.map(lambda package: package(DIST), (build.python, build.node)))
    [wheel], [tarball] = DIST.glob("*.whl"), DIST.glob("*.tgz")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(SITE)
    modules = MODULES / "node_modules"
    modules.mkdir()
    for module in (ROOT / "packages/node/node_modules").iterdir():
        (modules / module.name).symlink_to(module)
    with tarfile.open(tarball) as archive:
        archive.extractall(MODULES, filter="data")
    (MODULES / "package").rename(modules / "twilio-edge")
    shutil.copytree(ROOT / "packages/node/test", MODULES / "test")
    (MODULES / "package.json").write_text('{ "type": "module" }\n')


def python_style() -> None:
    """Format, lints and types of all Python code here, and of the generated client."""
    settings, sources = ROOT / "packages/python/pyproject.toml", [ROOT / "packages", ROOT / "examples"]
    command(sys.executable, "-m", "ruff", "check", "--quiet", "--no-cache", "--config", settings, *sources)
    command(sys.executable, "-m", "ruff", "format", "--check", "--quiet", "--no-cache", "--config", settings, *sources)
    checked = [
        SITE / "twilio_edge",
        ROOT / "packages/python/tests",
        *(ROOT / "packages").glob("*.py"),
        *(ROOT / "packages/openapi").glob("*.py"),
    ]
    paths = f"{ROOT / 'packages'}:{ROOT / 'packages/openapi'}:{ROOT / 'examples'}:{SITE}"
    command(sys.executable, "-m", "mypy", "--config-file", settings, "--cache-dir", WORK / "mypy", *checked, MYPYPATH=paths)
    for name in examples.EXAMPLES:
        if (file := ROOT / "examples" / name / "app.py").exists():
            command(sys.executable, "-m", "mypy", "--config-file", settings, "--cache-dir", WORK / "mypy", file, MYPYPATH=str(SITE))


def python_tests(stack: stacks.Stack) -> None:
    command(sys.executable, "-m", "pytest", cwd=ROOT / "packages/python", PYTHONPATH=str(SITE), **described(stack))


def node_types() -> None:
    """Types of the sources, and of the tests and the examples, as an ES module and as CommonJS use them."""
    sources = WORK / "node"
    (sources / "node_modules").symlink_to(ROOT / "packages/node/node_modules")
    command("node", MODULES / "node_modules/typescript/bin/tsc", "--noEmit", "-p", sources)
    for name in ("express", "fastify"):
        examples.command(name)
    settings = json.loads((MODULES / "test/tsconfig.json").read_text()) | {"include": ["*/*.mjs", "test/types/*"]}
    (MODULES / "tsconfig.json").write_text(json.dumps(settings))
    command("node", MODULES / "node_modules/typescript/bin/tsc", "-p", MODULES)


def node_tests(stack: stacks.Stack) -> None:
    files = sorted((MODULES / "test").glob("*.test.mjs"))
    command("node", "--test", *files, cwd=MODULES / "test", **described(stack))


def openapi_is_compatible(_: stacks.Stack) -> None:
    known = compatibility.announced((ROOT / "CHANGELOG.md").read_text())
    breaking = [change for change in compatibility.changes() if change[1] not in known]
    assert not breaking, f"run packages/openapi/compatibility.py: {breaking}"


def openapi_is_the_served_one(stack: stacks.Stack) -> None:
    for name, url in (("app", stack.url), ("admin", stack.admin_url)):
        served = json.loads(stacks.request("GET", f"{url}/openapi.json")[1])
        assert served == json.loads((ROOT / f"docs/openapi/{name}.json").read_text()), f"docs/openapi/{name}.json: run `make openapi`"


def breaking_changes_are_found(_: stacks.Stack) -> None:
    command(sys.executable, ROOT / "packages/openapi/test_compatibility.py")


def described(stack: stacks.Stack) -> dict[str, str]:
    """Variables of the environment with the stack."""
    return {"TWILIO_EDGE_STACK": json.dumps(dataclasses.asdict(stack), default=str), "TWILIO_EDGE_ROOT": str(ROOT)}


def example(application: stacks.Application, number: int) -> Callable[[stacks.Stack], None]:
    return lambda stack: examples.check(stack, application, number * 0x100)


def lint() -> int:
    """Runs both linters, and prints what they refuse."""
    install()
    with concurrent.futures.ThreadPoolExecutor() as lanes:
        running = [lanes.submit(part) for part in (python_style, node_types)]
    problems = [str(one.exception()) for one in running if one.exception()]
    print("\n".join(problems))
    return 1 if problems else 0


def main() -> int:
    if "--lint" in sys.argv:
        return lint()
    if "--install" in sys.argv:
        install()
        return 0
    words = [word for word in sys.argv[1:] if word != "--exact"]
    applications = examples.chosen(examples.EXAMPLES)
    tests: dict[str, Callable[[stacks.Stack], None]] = {
        "packages::openapi::documents_are_the_served_ones": openapi_is_the_served_one,
        "packages::openapi::breaking_changes_are_found": breaking_changes_are_found,
        "packages::openapi::breaking_changes_are_announced": openapi_is_compatible,
        "packages::python::tests": python_tests,
        "packages::node::tests": node_tests,
        **{f"packages::examples::{one.name}": example(one, number) for number, one in enumerate(applications, 1)},
        "packages::examples::events": lambda stack: examples.check_events(stack, applications),
    }
    is_exact = "--exact" in sys.argv
    chosen = {name: test for name, test in tests.items() if all((word == name) if is_exact else (word in name) for word in words)}
    print(f"\nrunning {len(chosen)} tests", flush=True)
    if not chosen:
        print("\ntest result: ok. 0 passed; 0 failed")
        return 0
    began, failed = time.monotonic(), 0
    if any("::openapi::" not in name for name in chosen):
        install()
    with contextlib.ExitStack() as parts:
        needs_edge = any("::examples::" in name for name in chosen)
        stack = parts.enter_context(stacks.running(applications if needs_edge else [], with_envoy=needs_edge))
        if needs_edge:
            parts.enter_context(examples.started(stack, applications))

        def outcome(name: str) -> str | None:
            try:
                chosen[name](stack)
            except Exception:
                return traceback.format_exc()
            return None

        with concurrent.futures.ThreadPoolExecutor(3) as lanes:
            # The longest first.
            names = sorted(chosen, key=lambda name: not name.endswith("::tests"))
            results = dict(zip(names, lanes.map(outcome, names), strict=True))
    for name in chosen:
        problem = results[name]
        print(f"test {name} ... {'FAILED' if problem else 'ok'}")
        if problem:
            failed += 1
            print(problem)
    verdict = "FAILED" if failed else "ok"
    print(f"\ntest result: {verdict}. {len(chosen) - failed} passed; {failed} failed; finished in {time.monotonic() - began:.2f}s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
