"""What docs/gateway.md says of `overproof serve` is done, in the page's order, against a real gateway."""

import os
import re
import shlex
import subprocess
import sys
import tomllib
from dataclasses import fields
from pathlib import Path

import pytest
from click.testing import CliRunner
from tests.serve.openai_stub import KEY, SAID, Stub
from tests.serve.started import Started, put_release, write_project

from overproof.cli import main
from overproof.data import REASONS
from overproof.settings import GatewayTable
from overproof.store.keys import SCOPES
from overproof.store.project_store import open_store

PAGE = (Path(__file__).parents[2] / "docs" / "gateway.md").read_text(encoding="utf-8")
HERE = "127.0.0.1:4000"


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, flags=re.DOTALL)


@pytest.fixture
def stub():
    running = Stub()
    yield running
    running.close()


def test_the_pages_commands_run_in_their_order_and_its_python_too(stub, tmp_path):
    """Each command ends with 0, a restart included: the new gateway listens at the same port before the old one ends."""
    folder = write_project(tmp_path / "project", "routing", upstream=stub.url)
    with open_store(folder) as store:
        put_release(store, tmp_path)
    served = [line for block in blocks("bash") for line in block.splitlines() if line.startswith("overproof serve")]
    assert served == ["overproof serve", "overproof serve --reuse-port"]
    old = Started(folder, more=["--reuse-port"])
    new = None
    try:
        env = os.environ | {"OPENAI_API_KEY": KEY}
        here = old.root.removeprefix("http://")
        said = subprocess.run([sys.executable, "-c", blocks("python")[0].replace(HERE, here)], env=env, capture_output=True, text=True, check=False)
        assert (said.returncode, said.stdout.split()[0]) == (0, SAID), said.stderr
        for block in (one for one in blocks("bash") if not one.startswith("overproof serve")):
            if block.startswith("overproof "):
                for line in block.splitlines():
                    ran = CliRunner().invoke(main, [*shlex.split(line)[1:], "--project", str(folder)])
                    assert ran.exit_code == 0, (line, ran.output)
            else:
                done = subprocess.run(["bash", "-euo", "pipefail", "-c", block.replace(HERE, here)], env=env, capture_output=True, text=True, check=False)
                assert done.returncode == 0, (block, done.stdout, done.stderr)
        new = Started(folder, more=["--reuse-port", "--port", here.rpartition(":")[2]])
        assert (new.root, old.stop()[0]) == (old.root, 0)
    finally:
        for one in (old, new):
            if one is not None and one.process.poll() is None:
                one.stop()
    with open_store(folder) as store:
        health, words = store.captured.health(), store.captured.feedback()
    assert (health.served, health.captured, [method for method, _, _ in stub.seen]) == (3, 3, ["POST"] * 3)
    assert [(word.kind, word.value) for word in words] == [("label", "billing"), ("comment", "went to the wrong desk")]


def test_the_page_has_every_reason_and_scope_and_no_unknown_key():
    """Both tables are whole, and the settings that it shows are there."""
    first = re.findall(r"^\| `(\w+)` \|", PAGE, flags=re.MULTILINE)
    assert sorted(first) == sorted([*REASONS, *SCOPES])
    known = {field.name for field in fields(GatewayTable)}
    for block in blocks("toml"):
        assert set(tomllib.loads(block)["gateway"]) <= known
