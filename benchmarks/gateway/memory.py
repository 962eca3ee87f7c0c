"""
Whether the gateway's memory stays flat: resident bytes after a warm-up, and after every tenth of 200,000 captured requests.

python benchmarks/gateway/memory.py [--requests 200000] [--connections 16]

Requests differ in text, user and an attribute, so that whatever remembers one of them would grow; each tenth goes through
plain and streamed calls, and the writer is waited for before memory is read. Ends with 1 where the most is more than 1.1
times what the warm-up (the first tenth, at least 20,000 requests where there are as many) left, or a request failed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
from pathlib import Path

import rig
from rig import Claims

FLAT, PARTS, WARM = 1.10, 10, 20_000
TEXTS = 20_000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=200_000, help="after the warm-up")
    parser.add_argument("--connections", type=int, default=16)
    given = parser.parse_args()
    rig.two_cores()
    part = max(1, given.requests // PARTS)
    warm = min(WARM, given.requests)
    claims = Claims()
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        folder = Path(scratch)
        upstream = stack.enter_context(rig.held(rig.stub(folder)))
        project = rig.project(folder / "project", upstream.url)
        key, path = rig.add_key(project), different(folder / "bodies", rig.messages(TEXTS))
        server = stack.enter_context(rig.held(rig.gateway(project)))
        print(f"{rig.machine()}; c = {given.connections}.\n")
        print("| requests | in the log | memory, MB | times the warm-up's | requests/s |\n|---|---|---|---|---|")
        sent, failed, seen = 0, 0, []
        for most in [warm, *[part] * PARTS]:
            # A file of bodies is walked from its start in each part, so the parts are alike.
            run = rig.load(server, path, "--connections", str(given.connections), "--seconds", "900", "--warm", "0", "--most", str(most), "--header", key)
            sent, failed = sent + run["sent"], failed + run["failed"]
            kept = rig.settled(project, sent)
            seen.append(server.rss_bytes())
            print(f"| {sent:,} | {kept.captured:,} | {seen[-1] / 1e6:.1f} | {seen[-1] / seen[0]:.3f} | {run['per_second']:,.0f} |", flush=True)
        print()
        claims.judge(f"times the memory after {warm:,} requests, at most seen over {sent - warm:,} more", max(seen) / seen[0], most=FLAT)
        claims.judge("share of requests in the log", kept.captured / sent, least=0.99)
        claims.judge("requests that failed", failed, most=0)
        if given.requests < 10 * WARM:
            claims.absent("the claim itself", f"it is about {10 * WARM:,} requests")
    return claims.code


def different(path: Path, texts: list[str]) -> Path:
    """Calls that share nothing but the prompt; every tenth one is streamed."""
    rig.bodies(path, texts)
    lines = []
    for i, line in enumerate(path.read_text().splitlines()):
        more = {"user": f"user-{i}", "metadata": {"ticket": str(i)}, **({"stream": True} if i % 10 == 0 else {})}
        lines.append(json.dumps({**json.loads(line), **more}))
    path.write_text("\n".join(lines) + "\n")
    return path


if __name__ == "__main__":
    sys.exit(main())
