#!/usr/bin/env python3
"""Builds the packages for PyPI and npm from packages/ and docs/openapi.

    build.py python|node [--into FOLDER]    generates the typed client and packs it; FOLDER is target/packages/dist

The sources and the generated code are assembled in target/packages, so that the checkout contains no generated code. The tools are
those that setup/setup.sh installs: .tools/packages for Python, packages/node/node_modules for Node.
"""

from __future__ import annotations

import argparse
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

sys.path[:0] = [str(pathlib.Path(__file__).resolve().parent), str(pathlib.Path(__file__).resolve().parent / "openapi")]
import stack
import v1

SOURCES = stack.ROOT / "packages"
WORK = stack.ROOT / "target/packages"
# Settings of the generator of the Python client.
GENERATOR = {
    "literal_enums": True,
    # Responses and requests with text.
    "content_type_overrides": {"text/csv": "application/octet-stream", "text/event-stream": "text/plain"},
    # The formatter runs in order; its unused imports are those of the templates.
    "post_hooks": ["ruff check . --fix-only --quiet --isolated --select F401,I", "ruff format . --quiet --isolated"],
}


def run(*command: object, cwd: pathlib.Path) -> None:
    """Runs a command quietly, and ends with its output if it fails."""
    tools = f"{pathlib.Path(sys.executable).parent}:{os.environ['PATH']}"
    words = [str(word) for word in command]
    ended = subprocess.run(words, cwd=cwd, env={**os.environ, "PATH": tools}, capture_output=True, text=True)
    if ended.returncode:
        sys.exit(f"{' '.join(words)}:\n{ended.stdout}{ended.stderr}")


def fresh(name: str, ignored: tuple[str, ...]) -> pathlib.Path:
    """Copies the sources of a package into an empty folder."""
    folder = WORK / name
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(SOURCES / name, folder, ignore=shutil.ignore_patterns("__pycache__", *ignored), symlinks=False)
    shutil.copy(stack.ROOT / "LICENSE", folder)
    return folder


def python(into: pathlib.Path) -> None:
    """Generates `twilio_edge.v1`, and builds wheel and source distribution."""
    folder = fresh("python", ("tests",))
    check_version(folder / "pyproject.toml", r'^version = "(.*)"$')
    document = WORK / "v1.python.json"
    document.write_text(json.dumps(v1.for_functions(v1.document())))
    settings = WORK / "generator.json"
    settings.write_text(json.dumps(GENERATOR))
    generated = folder / "src/twilio_edge/v1"
    command = [sys.executable, "-m", "openapi_python_client", "generate", "--path", document, "--config", settings]
    run(
        *command,
        "--meta",
        "none",
        "--output-path",
        generated,
        "--custom-template-path",
        folder / "templates",
        "--fail-on-warning",
        cwd=WORK,
    )
    exports(generated)
    codes = v1.problem_codes(v1.document())
    table = "".join(f"    {json.dumps(code)}: {json.dumps(text)},\n" for code, text in codes.items())
    (generated.parent / "problems.py").write_text(
        '"""Codes of problems, generated from docs/openapi."""\n\nfrom typing import Final, Literal, TypeAlias\n\n'
        f"ProblemCode: TypeAlias = Literal[{', '.join(map(json.dumps, codes))}]\n"
        f"#: Status, actor, title and remedy of each code.\nDESCRIPTIONS: Final[dict[str, str]] = {{\n{table}}}\n"
    )
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-t", "sdist", "-d", into, cwd=folder)


def exports(generated: pathlib.Path) -> None:
    """Exports the connection, the errors, all operations and all models from `twilio_edge.v1`."""
    lines = ['"""The API `/v1` of the sidecar: one function for each operation, and one class for each model."""', ""]
    names = ["ApiError", "Client", "File", "UNSET", "Unset"]
    lines += [
        "from .client import Client",
        "from .errors import ApiError",
        "from .models import *",
        "from .models import __all__ as _models",
    ]
    lines.append("from .types import UNSET, File, Unset")
    for module in sorted(generated.glob("api/*/*.py")):
        if module.stem != "__init__":
            lines.append(f"from .api.{module.parent.name}.{module.stem} import {module.stem}, {module.stem}_async")
            names += [module.stem, f"{module.stem}_async"]
    listed = "".join(f'    "{name}",\n' for name in sorted(names))
    lines += ["", f"__all__ = [\n{listed}]", "__all__ += _models", ""]
    (generated / "__init__.py").write_text("\n".join(lines))


def node(into: pathlib.Path) -> None:
    """Generates the types of the API, and compiles ES modules, CommonJS and declarations."""
    folder = fresh("node", ("test", "node_modules", "dist"))
    (folder / "node_modules").symlink_to(SOURCES / "node/node_modules")
    check_version(folder / "package.json", r'^  "version": "(.*)",$')
    document = WORK / "v1.node.json"
    document.write_text(json.dumps(v1.document()))
    run("node", "build.mjs", document, cwd=folder)
    (folder / "node_modules").unlink()
    run("npm", "pack", "--ignore-scripts", "--pack-destination", into, cwd=folder)


def check_version(file: pathlib.Path, pattern: str) -> None:
    """Checks that the package has the version of the product."""
    found = re.search(pattern, file.read_text(), re.MULTILINE)
    if not found or found[1] != stack.version():
        sys.exit(f"packages/{file.parent.name}/{file.name}: the version is {found and found[1]}, not {stack.version()} as in Cargo.toml")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("package", choices=["python", "node"])
    parser.add_argument("--into", type=pathlib.Path, default=WORK / "dist")
    arguments = parser.parse_args()
    into = arguments.into.resolve()
    into.mkdir(parents=True, exist_ok=True)
    {"python": python, "node": node}[arguments.package](into)


if __name__ == "__main__":
    main()
