"""The code blocks of the README run as they are, with the URL of the stack."""

from __future__ import annotations

import pathlib
import re
import typing

import pytest
import stack as stacks

README = (pathlib.Path(__file__).resolve().parents[1] / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS)
def test_block_runs(block: str, stack: stacks.Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert len(BLOCKS) == 4
    for name, value in {
        "SINK_SECRET": stacks.SINK_SECRET,
        "TWILIO_ACCOUNT_SID": stacks.ACCOUNT,
        "TWILIO_AUTH_TOKEN": stack.app_key,
        "TWILIO_EDGE_KEY": stack.app_key,
        "TWILIO_EDGE_URL": stack.url,
    }.items():
        monkeypatch.setenv(name, value)
    names: dict[str, typing.Any] = {"__name__": "__main__"}
    exec(compile(block.replace("http://127.0.0.1:8081", stack.url), "README.md", "exec"), names)
    printed = capsys.readouterr().out.strip()
    if "print(message" in block:
        assert re.fullmatch("(SM|ms_)[0-9a-f]{32}", printed), printed
