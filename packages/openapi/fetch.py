#!/usr/bin/env python3
"""Writes the OpenAPI documents that the sidecar serves into docs/openapi: app.json and admin.json.

fetch.py             writes both documents
fetch.py --baseline  also writes them to packages/openapi/baseline, with which compatibility.py compares later ones
"""

import json
import pathlib
import sys

sys.path.append(str(pathlib.Path(__file__).resolve().parent.parent))
import compatibility
import stack

FOLDER = stack.ROOT / "docs/openapi"
BASELINE = stack.ROOT / "packages/openapi/baseline"


def main() -> None:
    with stack.running() as started:
        for name, url in (("app", started.url), ("admin", started.admin_url)):
            status, body = stack.request("GET", f"{url}/openapi.json")
            assert status == 200, body
            document = json.loads(body)
            write(FOLDER / f"{name}.json", json.dumps(document, indent=1, ensure_ascii=False))
            if "--baseline" in sys.argv:
                # Without prose, and with a line for each path and each schema.
                lines = json.dumps(compatibility.essence(document), separators=(",", ":"))
                write(BASELINE / f"{name}.json", lines.replace('},"/', '},\n"/').replace('},"', '},\n"'))


def write(path: pathlib.Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text + "\n")
    print(f"{path.relative_to(stack.ROOT)}: {len(text) + 1} bytes")


if __name__ == "__main__":
    main()
