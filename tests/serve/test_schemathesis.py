"""The document is true of a real gateway: schemathesis makes requests from it, and answers that it doesn't name are failures."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.serve.whole import Teacher, project, put_at, release, serving

from overproof.serve.routes import ENDPOINTS
from overproof.store.project_store import open_store

pytest.importorskip("schemathesis")
CONFIG = """
[checks]
# /v1/{path} stands behind each of its paths, so that Allow names methods that /v1/models/{model} alone doesn't have.
allow_header_conformance.enabled = false
# Only for chains of calls, of which the document has none.
use_after_free.enabled = false
ensure_resource_availability.enabled = false
object_level_authorization.enabled = false

# What is right below /v1 is for the upstream to say: a body that the document doesn't describe goes on as it came.
[[operations]]
include-path-regex = "^/v1/"
checks.negative_data_rejection.enabled = false
"""


@pytest.fixture(scope="module")
def teacher():
    one = Teacher()
    yield one
    one.close()


def run(folder, teacher, *options, keyed, examples, seed=1):
    """Run it; what it says, whether the gateway still answers, and the gateway's own log."""
    project(folder, teacher.url)
    release(folder, "r1")
    put_at(folder, "r1", "full")
    (folder / "schemathesis.toml").write_text(CONFIG)
    key = ""
    if keyed:
        with open_store(folder) as store:
            key = store.keys.add("all", ["admin"]).secret
    with serving(folder) as gateway:
        command = [
            str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(folder / "schemathesis.toml"), "--no-color", "run",
            f"{gateway.url}/openapi.json", "--phases", "examples,coverage,fuzzing", "-n", str(examples), "--seed", str(seed),
            "--continue-on-failure", "--generation-database", "none", "--no-shrink", *options, *(["-H", f"Authorization: Bearer {key}"] if keyed else []),
        ]  # fmt: skip
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600, check=False)
        alive = gateway.ask("GET", "/healthz").status
    return done, alive, gateway.said


def fine(done, alive, said, *, endpoints=0, least=300):
    shown = done.stdout[-8000:] + done.stderr[-2000:]
    assert done.returncode == 0, shown
    found = re.search(r"(\d+) generated", done.stdout)
    assert found, shown
    assert int(found[1]) > least, shown
    wanted = endpoints or len(ENDPOINTS) - 1  # it leaves out where it read the document from, unless that is named
    assert f"Tested: {wanted}\n" in done.stdout, shown
    assert alive == 200
    assert "failed:" not in said  # a handler that raised


def test_no_answer_is_a_failure_of_ours_and_none_is_undeclared(tmp_path, teacher):
    """Right and wrong requests for every endpoint: statuses, headers, types and bodies are the document's; without a key nothing is let in."""
    fine(*run(tmp_path, teacher, keyed=True, examples=2))


@pytest.mark.slow
def test_without_keys_the_document_asks_for_none(tmp_path, teacher):
    """The endpoints of our own, of a gateway that has no keys."""
    own = "^/(?!v1/)"
    ours = [one for one in ENDPOINTS if re.search(own, one.path)]
    fine(*run(tmp_path, teacher, "--include-path-regex", own, keyed=False, examples=5), endpoints=len(ours), least=60)


@pytest.mark.slow
@pytest.mark.parametrize("keyed", [False, True], ids=["open", "keyed"])
def test_the_same_for_longer(tmp_path, teacher, keyed):
    """Many more requests."""
    fine(*run(tmp_path, teacher, keyed=keyed, examples=100, seed=2))
