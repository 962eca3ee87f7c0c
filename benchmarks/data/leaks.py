"""Planted secrets and personal data, import and run at DEBUG, then a search through every byte that was written."""

from __future__ import annotations

import argparse
import gzip
import io
import json
import os
import platform
import random
import re
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from overproof.privacy.score import read_cases
from overproof.steps.terms import read_entry

CASES = Path(__file__).parents[2] / "tests" / "privacy" / "pii_cases.jsonl"
LABELS = {
    "billing": ["invoice", "charged", "refund", "payment", "receipt", "amount"],
    "bug": ["crash", "error", "freezes", "broken", "stacktrace", "hangs"],
    "how to": ["configure", "tutorial", "steps", "guide", "setup", "enable"],
}
PROJECT = """
[task]
name = "leaks"
input = ["text"]
prompt = "prompt.md"
output = { classes = ["billing", "bug", "how to"] }
[owner]
name = "Dana Ruiz"
email = "dana@owner.example"
deputy = "Imre Sandoval"
[traffic]
columns = { gold = "truth", attributes = "tier,note" }
[promptset]
test_share = 0.3
calibration_share = 0.2
[teacher]
use = "recorded.v1"
provider = "example"
model = "recorded-teacher-2026-01-01"
revision = "2026-01-01"
terms = "terms.toml"
[[student]]
use = "linear.v1"
[bars]
fidelity = 0.9
accuracy = 0.85
"""
TERMS = """
id = "leaks-1"
registry_id = "own-answers"
registry_digest = "{digest}"
role = "teacher"
channel = "own"
contracting_party = "example"
account_or_contract = "a test"
statement = "The answers are made by the test itself from a list of words; nobody's terms apply to them."
attested_on = 2026-01-02
[model]
provider = "example"
base_url = ""
model = "recorded-teacher-2026-01-01"
revision = "2026-01-01"
[use]
student_kind = "classifier"
distribution = "internal"
purpose = "test the road"
[conditions]
written-by-a-provider-model = false
[attested_by]
name = "Dana Ruiz"
role = "tester"
email = "dana@owner.example"
[[document]]
key = "authorship"
url = ""
read_on = 2026-01-02
"""
DRIVER = """
import logging, sys
logging.basicConfig(level=logging.DEBUG, stream=sys.stderr)
from overproof.cli import main
main()
"""


def planted(count: int) -> list[str]:
    """Entities of every kind in turn, each value once, on one line."""
    kinds: dict[str, list[str]] = {}
    for case in read_cases(CASES):
        for kind, value in case.entities:
            known = kinds.setdefault(kind, [])
            if "example dot com" not in value and value not in known and len(value) >= 8:
                known.append(value)
    found: list[str] = []
    while len(found) < count and any(kinds.values()):
        found += [values.pop(0) for values in kinds.values() if values]
    return found[:count]


def words_for(value: str) -> str:
    """An entity in a sentence that says what it is, as people do; some kinds are known by their words alone."""
    for case in read_cases(CASES):
        if any(v == value for _, v in case.entities):
            return case.text
    raise KeyError(value)


def write_log(path: Path, rows: int, values: list[str], seed: int) -> None:
    """One entity a row, in turn in the text, the answer, an attribute, the id, the session, and a row that can't be read."""
    draw = random.Random(seed)
    step = max(1, rows // len(values))
    with path.open("w", encoding="utf-8") as out:
        for i in range(rows):
            label = draw.choice(list(LABELS))
            text = " ".join(draw.sample(LABELS[label], 3) + [str(draw.randrange(100)) + draw.choice("abcdef") for _ in range(5)])
            row = {"id": f"r{i}", "ts": f"2026-02-{1 + i * 27 // rows:02d}T{i % 24:02d}:{i % 60:02d}:00Z", "text": text, "truth": label,
                   "output": label, "finish_reason": "stop", "tier": draw.choice(["pro", "free"]), "note": "", "session": None}  # fmt: skip
            line = ""
            if i % step == 0 and i // step < len(values):
                said = words_for(values[i // step])
                place = i // step % 7
                if place == 0:
                    row["text"] = f"{text} {said}"
                elif place == 1:
                    row["output"] = json.dumps({"label": label, "why": said}, ensure_ascii=i % 2 == 0)
                elif place == 2:
                    row["note"] = said[:190]
                elif place == 3:
                    row["id"], row["session"] = f"{said} {i}", said
                elif place == 4:
                    row["ts"] = said  # no time: the reason quotes it
                elif place == 5:
                    line = json.dumps({**row, "text": said})[:-1] + ", broken"  # ASCII with escapes, and no JSON
                else:
                    row["truth"], row["text"] = said, f"{text} {said}"
            out.write((line or json.dumps(row, ensure_ascii=False)) + "\n")


def overproof(project: Path, *arguments: str) -> bytes:
    """One verb in a process of its own, all loggers at DEBUG; what it printed."""
    done = subprocess.run(
        [sys.executable, "-X", "dev", "-c", DRIVER, *arguments, "--project", str(project), "--debug"],
        capture_output=True, check=False, env={**os.environ, "PYTHONASYNCIODEBUG": "1", "COLUMNS": "400"},
    )  # fmt: skip
    if done.returncode not in (0, 1):
        raise SystemExit(f"{arguments[0]} ended with {done.returncode}: {done.stderr.decode()[-2000:]}")
    return done.stdout + done.stderr


def spellings(value: str) -> set[bytes]:
    """The ways in which a value may lie in a file."""
    ways = {value, json.dumps(value)[1:-1], json.dumps(value, ensure_ascii=False)[1:-1]}
    digits = re.sub(r"\D", "", value)
    if len(digits) >= 10 and len(digits) >= len(value) / 2:
        ways |= {digits, " ".join(digits[i : i + 4] for i in range(0, len(digits), 4))}
    return {way.encode("utf-8", "surrogatepass") for way in ways} | {value.encode("utf-16-le", "surrogatepass")}


def layers(name: str, data: bytes) -> Iterator[tuple[str, bytes]]:
    """A file's bytes, and what is packed in them."""
    yield name, data
    if data[:2] == b"\x1f\x8b":
        yield from layers(f"{name} (gzip)", gzip.decompress(data))
    elif data[:2] in (b"x\x01", b"x\x9c", b"x\xda"):
        try:
            yield from layers(f"{name} (zlib)", zlib.decompress(data))
        except zlib.error:
            return
    elif data[:4] == b"PK\x03\x04":
        with zipfile.ZipFile(io.BytesIO(data)) as packed:
            for inner in packed.namelist():
                yield from layers(f"{name}/{inner}", packed.read(inner))


def search(folder: Path, said: dict[str, bytes], values: list[str]) -> list[str]:
    """Every place where a value still stands."""
    pieces = dict(said)
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            pieces |= dict(layers(str(path.relative_to(folder)), path.read_bytes()))
    known = {value: spellings(value) for value in values}
    return [f"{value!r} in {name}" for name, data in pieces.items() for value, ways in known.items() if any(w in data for w in ways)]


def trial(rows: int, count: int, seed: int, *, extra: str = "") -> list[str]:
    """Import and run in a fresh folder; the log that was imported lies outside of it."""
    with tempfile.TemporaryDirectory() as made:
        folder, log = Path(made) / "project", Path(made) / "log.jsonl"
        folder.mkdir()
        values = planted(count)
        write_log(log, rows, values, seed)
        (folder / "overproof.toml").write_text(PROJECT + extra)
        (folder / "prompt.md").write_text("Answer with one label.")
        (folder / "terms.toml").write_text(TERMS.format(digest=read_entry("own-answers").digest))
        said = {verb[0]: overproof(folder, *verb) for verb in (("import", str(log)), ("run",), ("status",), ("show", "skipped"))}
        assert all(any(w in log.read_bytes() for w in spellings(value)) for value in values), "not planted"
        return search(folder, said, values)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--planted", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    print(f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}")
    found = trial(given.rows, given.planted, given.seed)
    print(f"planted {given.planted} in {given.rows} rows: {len(found)} found")
    for line in found:
        print(f"  {line}")
    off = trial(500, given.planted, given.seed, extra='[privacy]\nmode = "off"\nreason = "the control: it shows that the search finds"\n')
    print(f"with redaction off, as the control: {len({one.rpartition(' in ')[0] for one in off})} of {given.planted} found")
    return 0 if not found and len(off) >= given.planted else 1


if __name__ == "__main__":
    sys.exit(main())
