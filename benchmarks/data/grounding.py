"""How often a recorded teacher says what the input doesn't: python benchmarks/data/grounding.py --data FOLDER."""

from __future__ import annotations

import argparse
import gzip
import json
import sys
from collections import Counter
from pathlib import Path

from overproof.measure.intervals import figure
from overproof.verifiers.grounding import supports


def main() -> int:
    """Print unsupported values of teacher and gold per field, with intervals, and what a planted lie comes to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="folder with invoices.jsonl.gz")
    parser.add_argument("--show", type=int, default=0, help="unsupported values to print")
    args = parser.parse_args()
    with gzip.open(args.data / "invoices.jsonl.gz", "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    for who, key in (("teacher", "teacher_output"), ("gold", "gold")):
        bad, all_, shown, lies, missed = Counter(), Counter(), 0, 0, 0
        for row in rows:
            try:
                answer = json.loads(row[key]) if isinstance(row[key], str) else row[key]
            except ValueError:
                continue
            for one in supports(answer, row["text"]):
                if one.how != "absent":
                    all_[one.field] += 1
                    bad[one.field] += one.how == "unsupported"
                if one.how == "unsupported" and shown < args.show:
                    shown += 1
                    print(row["id"], one)
            if isinstance(answer.get("total_amount"), int | float):  # one wrong digit must be seen
                lie = {"total_amount": round(answer["total_amount"] + 1000.01, 2)}
                lies += 1
                missed += supports(lie, row["text"])[0].how != "unsupported"
        print(f"\n{who}: values that the input doesn't hold, n = {len(rows):,} documents")
        for field in all_:
            one = figure(bad[field], all_[field], metric="unsupported")
            print(f"  {field:16} {one.value:6.2%} ({one.low:.2%} to {one.high:.2%}, n = {one.n:,})")
        seen = figure(lies - missed, lies, metric="seen")
        print(f"  planted: total_amount + 1000.01 is seen in {seen.value:.2%} ({seen.low:.2%} to {seen.high:.2%}, n = {lies:,})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
