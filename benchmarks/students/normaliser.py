"""What the normaliser is worth: students on attacked spellings, read raw, with NFKC alone, and as released."""

from __future__ import annotations

import argparse
import gzip
import json
import os
import platform
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np

from overproof.data import Example, Request, TrainSet
from overproof.measure.intervals import cp_interval
from overproof.students.encoder import EncoderStudent
from overproof.students.linear import LinearStudent
from overproof.students.normalise import NORMALISER, NORMALISERS

# The attacker's table is not the normaliser's: it is the usual one of published homoglyph attacks (DeepWordBug, BadCharacters).
HOMOGLYPHS = dict(zip("aceopxyijshdlqwnugvbkmtACEHIKMOPTXB", "асеорхуіјѕһԁӏԛԝոսɡνЬкмтАСЕНІКМОРТХВ", strict=True))
ZERO_WIDTH = ["\u200b", "\u200c", "\u200d", "\u2060", "\ufeff"]
MARKS = [chr(code) for code in range(0x300, 0x36F)]


def homoglyphs(text: str, _: random.Random) -> str:
    """Every letter that has a double."""
    return "".join(HOMOGLYPHS.get(c, c) for c in text)


def some(text: str, draw: random.Random) -> str:
    """A third of these letters."""
    return "".join(HOMOGLYPHS.get(c, c) if draw.random() < 1 / 3 else c for c in text)


def invisible(text: str, draw: random.Random) -> str:
    """An invisible character after every letter."""
    return "".join(c + draw.choice(ZERO_WIDTH) for c in text)


def wide(text: str, _: random.Random) -> str:
    """Full-width forms."""
    return "".join(chr(ord(c) + 0xFEE0) if "!" <= c <= "~" else c for c in text)


def zalgo(text: str, draw: random.Random) -> str:
    """Three marks on every letter."""
    return "".join(c + "".join(draw.choices(MARKS, k=3)) if c.isalpha() else c for c in text)


def struck(text: str, _: random.Random) -> str:
    """Every character struck through."""
    return "".join(c + "\u0336" for c in text)


ATTACKS: dict[str, Callable[[str, random.Random], str]] = {
    "clean": lambda text, _: text, "homoglyphs, all": homoglyphs, "homoglyphs, a third": some, "zero-width": invisible,
    "full width": wide, "three marks a letter": zalgo, "struck through": struck,
}  # fmt: skip


def main() -> int:
    """Print the table; 1 where an attack costs more than half a point with the normaliser on."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder that holds banking77/")
    given = parser.parse_args()
    rows = [json.loads(line) for line in gzip.decompress((given.data / "banking77" / "banking77.jsonl.gz").read_bytes()).splitlines()]
    labels = tuple(sorted({row["gold"] for row in rows}))
    train = TrainSet(examples=tuple(Example(request=Request(id=r["id"], fields={"text": r["text"]}), target=r["gold"]) for r in rows if r["split"] == "train"), labels=labels)
    test = [row for row in rows if row["split"] == "test"]
    gold = np.array([labels.index(row["gold"]) for row in test])
    NORMALISERS["raw"] = lambda text: " ".join(text.split())
    print(f"Banking77, gold labels, {len(train.examples):,} training and {len(test):,} test rows; accuracy in percent with exact 95 % interval.")
    print(f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}\n")
    print(f"| student | attack | raw | nfkc.v1 | {NORMALISER} |\n|---|---|---|---|---|")
    worst = 0.0
    for student in (LinearStudent(labels=labels), EncoderStudent(labels=labels)):
        with tempfile.TemporaryDirectory() as folder:
            student.fit(train, workdir=Path(folder))
        clean = 0.0
        for name, attack in ATTACKS.items():
            draw = random.Random(0)
            asked = [Request(id=row["id"], fields={"text": attack(row["text"], draw)}) for row in test]
            cells = []
            for normaliser in ("raw", "nfkc.v1", NORMALISER):
                student.normaliser = normaliser
                good = int((student.logits(asked).argmax(axis=1) == gold).sum())
                found = cp_interval(good, len(test), level=0.95)
                cells.append(f"{good / len(test):.1%} ({found.low:.1%} to {found.high:.1%})")
            clean = good / len(test) if name == "clean" else clean
            worst = max(worst, clean - good / len(test))
            print(f"| {student.kind} | {name} | {' | '.join(cells)} |", flush=True)
    print(f"\nMost that an attack costs with {NORMALISER}: {worst * 100:.1f} points (goal at most .5)")
    return 0 if worst <= 0.005 else 1


if __name__ == "__main__":
    sys.exit(main())
