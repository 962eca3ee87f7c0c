"""
What a server installs: a wheel of this package in fresh environments, without torch, answering from an exported folder.

python benchmarks/students/serving_install.py --data FOLDER [--rows 600] [--openvino]

Fits and exports encoder.v1 here, writes it as `overproof export` does, installs `serve.txt` beside the wheel, loads the
folder there and compares the answers with those given here. Ends with 1 where an answer differs, where torch is there, or
where the environment without openvino takes more than 400 MB.
"""

from __future__ import annotations

import argparse
import gzip
import json
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import overproof
from overproof.data import Example, Folder, Request, TrainSet
from overproof.evidence import Calibrator, Confidence, Trained
from overproof.measure.scope import softmax_rows
from overproof.outputs import Classes
from overproof.registry import resolve
from overproof.students.bundle import MANIFEST, STUDENT, load_bundle, manifest_of
from overproof.students.card import RELEASE, Card, SelfTest, Threshold, write_card
from overproof.students.files import folder_size, write_json
from overproof.students.standalone import write_standalone
from overproof.students.weigh import MESSAGE
from overproof.task import Slice

ROOT = Path(__file__).parents[2]
MOST_MB = 400
ASK = """
import importlib.util, json, sys, time
start = time.perf_counter()
from overproof.students.bundle import load_bundle
bundle = load_bundle(sys.argv[1])
took = time.perf_counter() - start
answers = [[a.guess, a.confidence] for a in map(bundle.answer, json.load(sys.stdin))]
print(json.dumps({"answers": answers, "load_s": took, "torch": importlib.util.find_spec("torch") is not None}))
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds banking77.jsonl.gz")
    parser.add_argument("--rows", type=int, default=600, help="training rows")
    parser.add_argument("--openvino", action="store_true", help="a second environment, with openvino")
    given = parser.parse_args()
    with gzip.open(given.data / "banking77.jsonl.gz", "rt", encoding="utf-8") as file:
        rows = [row for row in map(json.loads, file) if row["teacher_label"] and row["split"] == "train"]
    np.random.default_rng(0).shuffle(rows)
    faults: list[str] = []
    print(f"Machine: {platform.machine()}, Python {platform.python_version()}; n = 50 messages compared.\n")
    print("| serve.txt | installed MB | packages | largest, MB | install s | load s | answers as here |\n|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(root / "wheels"), str(ROOT)]
        subprocess.run(build, check=True)
        fitted = fit(rows, given.rows, root)
        for runtime in ("onnx-blocks8", *(["openvino-int8"] if given.openvino else [])):
            faults += serve(fitted, rows, given.rows, runtime, root)
    for line in faults:
        print(f"DOES NOT HOLD: {line}")
    return 1 if faults else 0


def examples(rows: list[dict[str, Any]]) -> tuple[Example, ...]:
    return tuple(Example(request=Request(id=str(r["id"]), fields={"text": r["text"]}), target=r["gold"]) for r in rows)


def fit(rows: list[dict[str, Any]], count: int, root: Path) -> Trained:
    labels = tuple(sorted({row["gold"] for row in rows}))
    (root / "fitted").mkdir()
    student = resolve("students", "encoder.v1")(labels=labels)
    student.fit(TrainSet(examples=examples(rows[:count]), labels=labels), workdir=root / "fitted")
    return Trained(
        name="encoder.v1", use="encoder.v1", kind="student", folder=Folder(path=root / "fitted"), size_bytes=0,
        parameters=student.parameters, rows=count, seed=0,
    )  # fmt: skip


def serve(fitted: Trained, rows: list[dict[str, Any]], count: int, runtime: str, root: Path) -> list[str]:
    """One environment: made, filled from serve.txt, asked."""
    work, folder, environment = root / f"work-{runtime}", root / f"out-{runtime}", root / f"env-{runtime}"
    form = work / "form"
    form.mkdir(parents=True)
    resolve("students", "encoder.v1").exported(fitted.folder.path, runtime, into=form)
    bundle = pack(form, work / "bundle")
    write_standalone(bundle, folder, version=overproof.__version__, figures={})
    subprocess.run([sys.executable, "-m", "venv", str(environment)], check=True)
    python = str(environment / "bin" / "python")
    before = folder_size(environment)
    (wheel,) = (root / "wheels").glob("overproof-*.whl")
    needs = (folder / "serve.txt").read_text().strip()
    extras = needs.partition("[")[2].partition("]")[0]
    start = time.perf_counter()
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--quiet", "--disable-pip-version-check", "--no-compile", f"{wheel}[{extras}]"], check=True)
    took = time.perf_counter() - start
    size = (folder_size(environment) - before) / 1e6
    asked = [{"text": row["text"]} for row in rows[count : count + 50]]
    done = subprocess.run(
        [python, "-I", "-c", ASK, str(folder / "bundle")], input=json.dumps(asked), capture_output=True, text=True, check=True
    )
    told = json.loads(done.stdout)
    bundled = load_bundle(folder / "bundle")
    here = [bundled.answer(one) for one in asked]
    same = sum(a.guess == guess and abs(a.confidence - sure) < 1e-6 for a, (guess, sure) in zip(here, told["answers"], strict=True))
    site = next((environment / "lib").glob("python*")) / "site-packages"
    sizes = sorted(((size_of(one) / 1e6, one.name.partition(".cpython")[0]) for one in site.iterdir() if one.name != "pip"), reverse=True)
    packages = len(list(site.glob("*.dist-info")))
    largest = ", ".join(f"{name} {mb:.0f}" for mb, name in sizes[:6])
    print(f"| {needs} | {size:.0f} | {packages} | {largest} | {took:.0f} | {told['load_s']:.2f} | {same} of {len(asked)} |")
    return [
        *([f"{runtime}: {len(asked) - same} answers differ"] if same < len(asked) else []),
        *([f"{runtime}: torch is importable"] if told["torch"] else []),
        *([f"{size:.0f} MB installed, at most {MOST_MB}"] if size > MOST_MB and not runtime.startswith("openvino") else []),
    ]


def size_of(path: Path) -> int:
    return folder_size(path) if path.is_dir() else path.stat().st_size


def pack(form: Path, bundle: Path) -> Path:
    """A bundle without a certificate: every request is the teacher's, and the guess is compared."""
    bundle.mkdir()
    shutil.copytree(form, bundle / STUDENT, ignore=shutil.ignore_patterns("neighbours.npz"))
    student = resolve("students", "encoder.v1").load(bundle / STUDENT)
    probe = softmax_rows(student.logits([Request(id="", fields={"text": MESSAGE})]).astype(np.float64))[0]
    write_card(
        bundle / RELEASE,
        Card(
            task="banking77", input=("text",), output=Classes(labels=tuple(student.labels)), candidate="encoder.v1", use="encoder.v1",
            confidence=Confidence(everywhere=Calibrator(method="temperature")), label_kind="gold", plan_hash="", expires="2100-01-01",
            thresholds=(Threshold(slice=Slice(name="other", where=()), threshold=None),),
            selftest=(SelfTest(fields={"text": MESSAGE}, value=student.labels[int(probe.argmax())], probability=float(probe.max())),),
        ),
    )  # fmt: skip
    write_json(bundle / MANIFEST, manifest_of(bundle))
    return bundle


if __name__ == "__main__":
    sys.exit(main())
