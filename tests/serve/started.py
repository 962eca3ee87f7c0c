"""A project with a gateway's table and a release for it, and `overproof serve` as people start it."""

import os
import subprocess
import sys

from tests.serve.packing import gated, pack

PROMPTS = {
    "routing": "You read mails of customers and name the desk that answers them. Say one label.",
    "triage": "You read notes of the night shift and name the desk that answers them. Say one label.",
}
FILE = """
[task]
name = "{name}"
input = ["text"]
output = {{ classes = ["billing", "delivery", "login"] }}
prompt = "task.md"
[owner]
name = "Dana Ruiz"
email = "dana@shop.example"
[teacher]
use = "recorded.v1"
model = "big"
path = "r.jsonl"
terms = "terms.toml"
[traffic]
source = "log"
[bars]
fidelity = 0.9
[[student]]
use = "linear.v1"
[serve]
stages = ["shadow 1h", "full"]
compare = 1e-9  # this teacher never agrees, and the gateway would take the student back for it
[gateway]
upstream = "{upstream}"
allow_private = true
deadline_s = 20
workers = 1
{more}
"""


def write_project(folder, name, *, upstream, more=""):
    """A project of one of `PROMPTS`."""
    folder.mkdir()
    (folder / "task.md").write_text(PROMPTS[name])
    (folder / "overproof.toml").write_text(FILE.format(name=name, upstream=upstream, more=more))
    (folder / "r.jsonl").write_text("")
    (folder / "terms.toml").write_text("")
    return folder


def put_release(store, scratch):
    """A linear student's release r1 of the task routing, recorded as a candidate."""
    pack(scratch / "bundle")
    gated(store, scratch / "bundle", {"paying": 0.4, "other": 0.4})


class Started:
    """`overproof serve` as people start it."""

    def __init__(self, *folders, env=None, more=()):
        also = [part for folder in folders[1:] for part in ("--also", str(folder))]
        command = [sys.executable, "-m", "overproof.cli", "serve", "--project", str(folders[0]), "--port", "0", *also, *more]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | (env or {}))
        line = self.process.stdout.readline()
        if "listening on " not in line:
            raise RuntimeError(line + self.process.communicate(timeout=30)[1])
        self.root = line.split("listening on ")[1].strip()

    @property
    def url(self):
        return f"{self.root}/v1"

    def stop(self):
        self.process.terminate()
        said = self.process.communicate(timeout=30)[1]
        return self.process.returncode, said
