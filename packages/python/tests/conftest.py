"""Fixtures: the running stack that packages/test.py started, or one of our own."""

from __future__ import annotations

import json
import os
import pathlib
import sys
from collections.abc import Iterator

import pytest

sys.path.insert(0, os.environ.get("PACKAGES") or str(pathlib.Path(__file__).resolve().parents[2]))
import stack as stacks


@pytest.fixture(scope="session")
def stack() -> Iterator[stacks.Stack]:
    """A running sidecar and simulator."""
    if given := os.environ.get("TWILIO_EDGE_STACK"):
        fields = json.loads(given)
        yield stacks.Stack(**{**fields, "folder": pathlib.Path(fields["folder"])})
    else:
        with stacks.running() as started:
            yield started
