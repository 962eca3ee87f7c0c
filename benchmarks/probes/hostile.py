"""Bundles that somebody has tampered with: single bytes changed at random, bundles rebuilt to do harm, and logs of decisions; none may pass."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import pickle
import platform
import random
import shutil
import sys
import tempfile
import time
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from overproof.data import Example, Folder, Request, TrainSet
from overproof.errors import OverproofError
from overproof.evidence import Calibrator, Certificate, Confidence, Release
from overproof.measure.intervals import cp_interval
from overproof.outputs import Classes
from overproof.serve.live import Live, Loading
from overproof.store.decided import extract
from overproof.store.decisions import Decision
from overproof.store.project_store import open_store
from overproof.students.bundle import MANIFEST, STUDENT, Bundle, load_bundle
from overproof.students.card import RELEASE, Card, Threshold, write_card
from overproof.students.files import write_json
from overproof.students.linear import LinearStudent
from overproof.students.weights import sha256_of
from overproof.task import Slice
from overproof.verify import DECISIONS, check_decisions

LABELS = ("billing", "delivery", "login")
WORDS = {
    "billing": ("charged twice", "invoice is wrong", "refund the subscription", "card was declined"),
    "delivery": ("where is my parcel", "package has not arrived", "tracking says lost", "courier never came"),
    "login": ("can't log in", "password does not work", "reset the code", "account is locked"),
}  # fmt: skip
ASKED = Request(id="", fields={"text": "where is my parcel please"})
Change = Callable[[Path, random.Random], None]


def good(folder: Path, *, seed: int = 0) -> Path:
    """A bundle as `pack` writes one."""
    rows = [(label, f"{opening} {text}") for label, texts in WORDS.items() for text in texts for opening in ("hello,", "please:", f"note {seed}:")]
    train = TrainSet(examples=tuple(Example(request=Request(id=str(i), fields={"text": t}), target=label) for i, (label, t) in enumerate(rows)), labels=LABELS)
    student = LinearStudent(labels=LABELS)
    (folder / STUDENT).mkdir(parents=True)
    student.fit(train, workdir=folder / STUDENT)
    card = Card(
        task="routing", input=("text",), output=Classes(labels=LABELS), candidate="small", use="linear.v1",
        confidence=Confidence(everywhere=Calibrator(method="temperature")), thresholds=(Threshold(slice=Slice(name="other"), threshold=0.4),),
        label_kind="gold", plan_hash="0" * 64, expires="2099-01-01", selftest=(),
    )  # fmt: skip
    write_card(folder / RELEASE, replace(card, selftest=Bundle(card, student).probe([t for _, t in rows[:12]])))
    seal(folder)
    load_bundle(folder)
    return folder


def with_graph(folder: Path) -> Path:
    """A bundle of an encoder: a real graph, of two small layers."""
    sys.path.insert(0, str(Path(__file__).parents[2]))
    from tests.serve.packing import pack

    folder.mkdir()
    pack(folder, "encoder")
    load_bundle(folder)
    return folder


def seal(folder: Path, *, more: list[dict] | None = None) -> None:
    """A manifest that fits the files, as an attacker who rewrites a bundle would make it; links are read through."""
    (folder / MANIFEST).unlink(missing_ok=True)
    files = sorted(p for p in folder.rglob("*") if p.is_file() and p.stat().st_size < 2**28)
    entries = [{"path": p.relative_to(folder).as_posix(), "size": p.stat().st_size, "sha256": sha256_of(p)} for p in files]
    write_json(folder / MANIFEST, [*entries, *(more or [])])


def edit(path: Path, **change: object) -> None:
    raw = json.loads(path.read_text())
    raw.update(change)
    write_json(path, raw)


def arrays(folder: Path, change: Callable[[dict], None]) -> None:
    path = folder / STUDENT / "weights.npz"
    found = dict(np.load(path))
    change(found)
    np.savez(path, **found)


def traversal(folder: Path, draw: random.Random) -> None:
    names = ("../outside.json", "/etc/passwd", "student/../../x.json", "..\\x.json", "student//x.json", "./x.json", "student/./x.json", "\0.json",
             "C:/x.json", "~/x.json", "%2e%2e/x.json", "student/\u2024\u2024/x.json", "../" * draw.randint(1, 9) + "etc/hosts.json")  # fmt: skip
    seal(folder, more=[{"path": draw.choice(names), "size": draw.randint(0, 99), "sha256": "0" * 64}])


def symlink(folder: Path, draw: random.Random) -> None:
    kind, victim = draw.randrange(5), folder / draw.choice(["student/weights.npz", "student/student.json", "student/vocabulary.json", "release.json"])
    outside = folder.parent / f"outside-{draw.random()}"
    if kind == 0:
        victim.rename(outside)
        victim.symlink_to(outside)
    elif kind == 1:
        (folder / STUDENT).rename(outside)
        (folder / STUDENT).symlink_to(outside)
    elif kind == 2:
        (folder / "passwd.json").symlink_to("/etc/passwd")
    elif kind == 3:
        (folder / "loop.json").symlink_to("loop.json")
    else:
        os.mkfifo(folder / "pipe.json")
    seal(folder)


def external(folder: Path, draw: random.Random) -> None:
    """The tensors of the graph are to be read from another file; in an initializer, or in a node's own attribute."""
    import onnx
    from onnx import helper

    path = folder / STUDENT / "model.onnx"
    model = onnx.load_model_from_string(path.read_bytes())
    tensor = model.graph.initializer[0]
    if draw.random() < 0.5:
        node = helper.make_node("Constant", [], [tensor.name], value=tensor)
        model.graph.node.insert(0, node)
        del model.graph.initializer[0]
        tensor = model.graph.node[0].attribute[0].t
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=draw.choice(["/etc/passwd", "../../secret", "student.json", "weights.npz", "\\\\host\\share"]))
    path.write_bytes(model.SerializeToString())
    seal(folder)


class Evil:
    def __reduce__(self):
        return os.mkdir, (str(Path(tempfile.gettempdir()) / "overproof-hostile-was-run"),)


def pickled(folder: Path, draw: random.Random) -> None:
    body, kind = pickle.dumps(Evil()), draw.randrange(5)
    if kind == 0:
        (folder / STUDENT / draw.choice(["model.pkl", "model.pt", "model.bin", "model.joblib", "model.npy"])).write_bytes(body)
    elif kind == 1:
        (folder / STUDENT / "weights.npz").write_bytes(body)
    elif kind == 2:
        arrays(folder, lambda found: found.update({draw.choice(sorted(found)): np.array([Evil()], dtype=object)}))
    elif kind == 3:
        (folder / draw.choice(["release.json", "student/student.json", "student/vocabulary.json"])).write_bytes(body)
    else:
        with zipfile.ZipFile(folder / STUDENT / "weights.npz", "a") as archive:
            archive.writestr(draw.choice(["data.pkl", "x.npy", "../x.npy"]), body)
    seal(folder)


def oversize(folder: Path, draw: random.Random) -> None:
    kind = draw.randrange(7)
    if kind == 0:
        with (folder / STUDENT / "big.npz").open("wb") as file:
            file.truncate(5 * 2**30)  # a hole: no disk is taken
    elif kind == 1:
        (folder / draw.choice(["release.json", "student/student.json"])).write_bytes(b" " * (5 * 2**20) + b"{}")
    elif kind == 2:
        for at in range(65 + draw.randrange(50)):
            (folder / f"{at}.json").write_text("{}")
    elif kind == 3:
        header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({10 ** draw.randint(6, 12)}, 1000), }}".ljust(117) + "\n"
        with zipfile.ZipFile(folder / STUDENT / "weights.npz", "w") as archive:
            for name in ("weight", "bias", "idf"):
                archive.writestr(f"{name}.npy", b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode())
    elif kind == 4:
        (folder / RELEASE).write_text("[" * 100_000 + "]" * 100_000)
    elif kind == 5:
        found = dict(np.load(folder / STUDENT / "weights.npz"))
        np.savez_compressed(folder / STUDENT / "weights.npz", **{name: np.zeros(draw.randint(10**5, 10**6)) for name in found})
    else:
        raw = json.loads((folder / RELEASE).read_text())
        edit(folder / RELEASE, selftest=raw["selftest"] * 20)
    seal(folder)


def misshapen(folder: Path, draw: random.Random) -> None:
    kind, rows = draw.randrange(9), draw.randint(1, 5)
    if kind == 0:
        arrays(folder, lambda found: found.update(weight=np.zeros((rows, 7), dtype=np.float32)))
    elif kind == 1:
        arrays(folder, lambda found: found.update(bias=np.zeros(3 + rows, dtype=np.float32)))
    elif kind == 2:
        arrays(folder, lambda found: found.update(weight=found["weight"].T.copy()))
    elif kind == 3:
        arrays(folder, lambda found: found.update({draw.choice(sorted(found)): np.full(4, draw.choice([np.nan, np.inf]))}))
    elif kind == 4:
        arrays(folder, lambda found: found.pop(draw.choice(sorted(found))))
    elif kind == 5:
        arrays(folder, lambda found: found.update(weight=found["weight"] * np.float32(draw.choice([-1, 0, 3]))))
    elif kind == 6:
        edit(folder / STUDENT / "student.json", labels=[*LABELS, "more"][: draw.choice([2, 4])])
    elif kind == 7:
        edit(folder / RELEASE, slices=[{"name": "other", "where": [], "threshold": draw.choice([2, -9, "0", True])}]) if draw.random() < 0.7 else edit(folder / RELEASE, slices=[])
    else:
        arrays(folder, lambda found: found.update(weight=found["weight"].astype(draw.choice([np.complex64, bool]))))
    seal(folder)


def code(folder: Path, draw: random.Random) -> None:
    kind = draw.randrange(3)
    if kind == 0:
        edit(folder / RELEASE, use=draw.choice(["os:system", "builtins:eval", "overproof.students.linear:LinearStudent", "nope.v1", "linear.v1\n", ""]))
    elif kind == 1:
        (folder / draw.choice(["verify.py", "student/__init__.py", "student/op.so", "student/run.sh", ".git", "student/x.json.exe"])).write_text("x")
    else:
        edit(folder / RELEASE, **{draw.choice(["on_load", "custom_ops", "__class__"]): "os:system"})
    seal(folder)


KINDS: dict[str, Change] = {
    "path traversal": traversal, "symlink or pipe": symlink, "external ONNX data": external, "pickle": pickled, "oversize": oversize,
    "wrong shape": misshapen, "code": code,
}  # fmt: skip


@dataclass
class Count:
    tried: int = 0
    refused: int = 0
    """With a message of ours."""
    broke: int = 0
    """By some other exception: no answer was given, but nobody was told why."""
    accepted: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    """First words of the messages."""


def tried(folder: Path, count: Count) -> None:
    count.tried += 1
    try:
        load_bundle(folder)
    except OverproofError as error:
        count.refused += 1
        count.reasons[error.what[:90]] += 1
    except Exception as error:
        count.broke += 1
        count.reasons[f"{type(error).__name__}: {error}"[:90]] += 1
    else:
        count.accepted += 1


def changed_bytes(place: Path, *, n: int, seed: int) -> dict[str, Count]:
    """One byte of one file at a time; half the draws choose the file first, so that small files are hit as well."""
    folder, draw = good(place / "bytes"), random.Random(seed)
    files = {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
    found = {path.relative_to(folder).as_posix(): Count() for path in files}
    for _ in range(n):
        names = list(files)
        path = draw.choice(names) if draw.random() < 0.5 else draw.choices(names, [len(files[one]) for one in names])[0]
        at, data = draw.randrange(len(files[path])), bytearray(files[path])
        data[at] ^= draw.randint(1, 255)
        path.write_bytes(bytes(data))
        tried(folder, found[path.relative_to(folder).as_posix()])
        path.write_bytes(files[path])
    load_bundle(folder)  # and the untouched one still loads
    return found


def hostile_bundles(place: Path, *, n: int, seed: int) -> dict[str, Count]:
    """Bundles rebuilt with a manifest that fits, put into a store as the next release: each is refused, and the last good one answers."""
    sound, graph, draw = good(place / "sound"), with_graph(place / "graph"), random.Random(seed)
    root = place / "project"
    root.mkdir()
    found = {name: Count() for name in KINDS}
    certificate = Certificate(plan_hash="p", sealed_digest="s", label_kind="gold", use_k=1, delta_spent=0.05, slices=(), assumptions=(), window=(None, None), expires="2099-01-01")
    with open_store(root) as store:
        def release(name: str, folder: Path) -> Release:
            bundle = store.memo().source("bundle", Folder(path=folder)).value
            return Release(id=name, task="routing", findings=(), headline="h", candidate="small", bundle=bundle, certificate=certificate, owner="Dana", review_due="2099-01-01")

        store.releases.record(release("good", sound), stage="full", by="Dana")
        live = Live("routing", store.releases, loading=Loading(linger_s=0), seal=store.signatures.check)
        live.check()
        try:
            for at in range(n):
                kind = list(KINDS)[at % len(KINDS)]
                folder = shutil.copytree(graph if kind == "external ONNX data" else sound, place / f"h{at}")
                KINDS[kind](folder, draw)
                tried(folder, found[kind])
                serves(store, live, release, f"h{at}", folder)
                shutil.rmtree(folder)
        finally:
            live.close()
    return found


def relinked(lines: list[bytes]) -> list[bytes]:
    """A chain that holds in itself, as an attacker who rewrites all of it would make it."""
    found: list[bytes] = []
    for line in lines:
        one = {**json.loads(line), "prev": hashlib.sha256(found[-1]).hexdigest() if found else ""}
        found.append(json.dumps(one, separators=(",", ":")).encode())
    return found


def edited(lines: list[bytes], draw: random.Random) -> list[bytes]:
    at = draw.randrange(len(lines))
    name, value = draw.choice([("actor", "Mallory"), ("kind", "nothing"), ("body_sha256", "0" * 64), ("subject", "another"), ("at", "2099-01-01")])
    return [*lines[:at], json.dumps({**json.loads(lines[at]), name: value}, separators=(",", ":")).encode(), *lines[at + 1 :]]


def misfit(lines: list[bytes], draw: random.Random) -> list[bytes]:
    first = json.loads(lines[0])
    other = draw.choice([b"[" * 10**5, b"\xff\xfe", b"\0", b"[]", b"null", b"3", b"", b"{}", b" " * 70 * 2**20, lines[0] + b"\r", b"\xef\xbb\xbf" + lines[0], lines[0][:-1] + b',"actor":"x"}',
                         *(json.dumps({**first, **change}).encode() for change in ({"more": 1}, {"seq": 1.0}, {"seq": True}, {"seq": "1"}, {"prev": None}, {"seq": 10**400}, {"at": 3}))])  # fmt: skip
    at = draw.choice([0, len(lines)])
    return [*lines[:at], other, *lines[at + (at == 0) :]]


def swapped(lines: list[bytes], draw: random.Random) -> list[bytes]:
    found, (a, b) = list(lines), draw.sample(range(len(lines)), 2)
    found[a], found[b] = found[b], found[a]
    return found


def dropped(lines: list[bytes], draw: random.Random) -> list[bytes]:
    at = draw.randrange(len(lines))
    return lines[:at] + lines[at + 1 :]


def flipped(lines: list[bytes], draw: random.Random) -> list[bytes]:
    raw = bytearray(b"\n".join(lines))
    raw[draw.randrange(len(raw))] ^= draw.randint(1, 255)
    return bytes(raw).split(b"\n")


CHAIN: dict[str, Callable[[list[bytes], random.Random], list[bytes]]] = {
    "a byte": flipped, "a line dropped": dropped, "lines swapped": swapped, "the end cut off": lambda lines, draw: lines[: draw.randrange(len(lines))],
    "a value": edited, "a value, chained anew": lambda lines, draw: relinked(edited(lines, draw)), "a line dropped, chained anew": lambda lines, draw: relinked(dropped(lines, draw)),
    "a line added that fits": lambda lines, draw: relinked([*lines, json.dumps({**json.loads(lines[-1]), "seq": 99 + draw.randrange(9)}).encode()]), "no decision": misfit,
}  # fmt: skip


def changed_decisions(place: Path, *, n: int, seed: int) -> dict[str, Count]:
    """`decisions.jsonl` changed, under a dossier that still names the head; the one-file verifier has to name a line."""
    draw, found = random.Random(seed), {name: Count() for name in CHAIN}
    for at in range(n):
        name = list(CHAIN)[at % len(CHAIN)]
        made = extract(
            Decision(seq=2 * i + 1, at=f"2026-01-{i + 1:02d}", kind=draw.choice(["gate", "waiver", "rollout"]), actor="Dana", subject=f"r{i}", body={"n": i}, prev="", digest="")
            for i in range(draw.randint(2, 12))
        )
        count = found[name]
        count.tried += 1
        (place / DECISIONS).write_bytes(made.text)
        assert check_decisions(str(place), {"decisions": made.named}) == len(made.lines)
        (place / DECISIONS).write_bytes(b"".join(line + b"\n" for line in CHAIN[name](list(made.lines), draw)))
        try:
            check_decisions(str(place), {"decisions": made.named})
        except ValueError as error:
            count.refused += "line" in str(error) or "too large" in str(error)
            count.broke += not ("line" in str(error) or "too large" in str(error))
            count.reasons[" ".join("N" if word.strip(",").isdigit() else word for word in str(error).split())[:90]] += 1
        except Exception as error:
            count.broke += 1
            count.reasons[f"{type(error).__name__}: {error}"[:90]] += 1
        else:
            count.accepted += 1
    return found


def serves(store, live: Live, release, name: str, folder: Path) -> None:
    """Put it up as the next release, where the store takes it at all; whatever comes, the good one answers afterwards."""
    with contextlib.suppress(OverproofError, OSError, ValueError):
        store.releases.record(release(name, folder), stage="full", by="attacker")
    live.check()
    now = live.current
    if now.position.release != "good" or now.pool is None or now.pool.bundle.answers([ASKED])[0].guess != "delivery":
        raise SystemExit(f"{name}: the last good release no longer serves ({now.position}, {live.refused})")


def table(title: str, found: dict[str, Count], *, why: bool = False) -> Count:
    total = Count(*(sum(getattr(one, key) for one in found.values()) for key in ("tried", "refused", "broke", "accepted")))
    print(f"\n| {title} | tried | refused with a reason | refused by a crash | accepted |\n|---|---|---|---|---|")
    for name, one in [*found.items(), ("all", total)]:
        print(f"| {name} | {one.tried} | {one.refused} | {one.broke} | {one.accepted} |")
    stopped = total.refused + total.broke
    low = cp_interval(stopped, total.tried, level=0.95)
    if why:
        print("\n" + "\n".join(f"- {name}: {n} times `{' '.join(reason.split())}`" for name, one in found.items() for reason, n in one.reasons.most_common(9)))
    print(f"\n{stopped / total.tried:.2%} refused, 95 % Clopper-Pearson interval {low.low:.4%} to {low.high:.4%}, n = {total.tried}.")
    return total


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bytes", type=int, default=10_000)
    parser.add_argument("--bundles", type=int, default=200)
    parser.add_argument("--chains", type=int, default=1_800)
    parser.add_argument("--seed", type=int, default=8)
    parser.add_argument("--reasons", action="store_true", help="print why bundles were refused")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    began, trap = time.perf_counter(), Path(tempfile.gettempdir()) / "overproof-hostile-was-run"
    trap.rmdir() if trap.is_dir() else None
    with tempfile.TemporaryDirectory() as scratch:
        one = table("one byte changed in", changed_bytes(Path(scratch), n=asked.bytes, seed=asked.seed))
        chain = table("decisions.jsonl changed by", changed_decisions(Path(scratch), n=asked.chains, seed=asked.seed), why=asked.reasons)
        two = table("hostile bundle", hostile_bundles(Path(scratch), n=asked.bundles, seed=asked.seed), why=asked.reasons)
    ran = trap.exists()
    print(f"\nCode of a bundle was run: {'yes' if ran else 'no'}. After each hostile bundle the last good release answered.")
    print(f"Seed {asked.seed}; {os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}, {time.perf_counter() - began:.0f} s.")
    return 1 if ran or one.accepted + two.accepted + chain.accepted + chain.broke else 0


if __name__ == "__main__":
    sys.exit(main())
