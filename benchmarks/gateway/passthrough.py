"""
What standing in front of the teacher costs: the gateway beside LiteLLM's proxy and a bare pass-through, in one run.

python benchmarks/gateway/passthrough.py [--litellm PYTHON] [--blocks 5] [--seconds 3] [--connections 1 16 64] [--rate 1000]

All pass the same requests on to the same stub, each server on one core to itself, the load and the stub on another; they
take turns block by block, after one that isn't counted. The gateway is `overproof serve` as it comes: keys asked for, the
task recognised, every request captured, redacted and committed to disk. It has two processes, one that answers and one that
writes the log: measured once with the writer on the other core, beside load and stub, and once with both on the one core.
What a request costs is the sum of both. The bare pass-through is the same
stack and client with nothing of that. LiteLLM runs without database, without keys, one worker; PYTHON is an interpreter of
an environment that has `litellm[proxy]`, by default this one.

Ends with 1 where a goal is missed or a side could not be measured: at least 50 times LiteLLM's throughput and at most 1/30
of its p50 at 1 and 16 connections; at most 1.5 times the bare p50.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import rig
from load import cpu_s
from rig import Claims, NotMeasured, Running

OURS, SAME, BARE, PEER, DIRECT = "overproof", "overproof, writer on the same core", "bare pass-through", "LiteLLM proxy", "(the stub itself)"
JUDGED = (1, 16)
FASTER, PEER_P50, BARE_P50 = 50.0, 1 / 30, 1.5
LOGGED = 0.99  # a gateway that drops its rows would be fast, too
CONFIG = """model_list:
  - model_name: {model}
    litellm_params: {{model: openai/{model}, api_base: "{upstream}/v1", api_key: none}}
litellm_settings: {{num_retries: 0}}
"""
PEER_ENV = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_MODE": "PRODUCTION", "LITELLM_LOG": "ERROR", "PYTHONPATH": "",
    "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",  # or it doesn't start without a key; checking one would cost it more
}  # fmt: skip
Block = dict[str, Any]
Key = tuple[str, str]


def litellm(folder: Path, upstream: str, python: str) -> Running:
    """LiteLLM's proxy, once it answers."""
    script = Path(python).parent / "litellm"
    if not script.exists():
        raise NotMeasured(f"there is no {script.name} beside {Path(python).name}; name an environment with litellm[proxy]")
    config, port = folder / "litellm.yaml", rig.free_port()
    config.write_text(CONFIG.format(model=rig.MODEL, upstream=upstream))
    log = folder / "litellm.log"
    argv = [script, "--config", config, "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1", "--telemetry", "False"]
    process = rig.spawn(argv, log, cores=(rig.SERVER_CORE,), env=PEER_ENV, silent=True)
    return rig.answering(process, f"http://127.0.0.1:{port}", "/health/liveliness", log)


def version_of(python: str) -> str:
    """LiteLLM's, where it runs."""
    ask = "import importlib.metadata as m; print(m.version('litellm'))"
    found = subprocess.run([python, "-c", ask], capture_output=True, text=True, check=False)
    return found.stdout.strip() or "?"


def measure(servers: Mapping[str, Running], asked: Callable[[str, list[str]], Block], given: argparse.Namespace) -> dict[Key, list[Block]]:
    """All in turn, block by block; the first block warms up."""
    found: dict[Key, list[Block]] = {}
    for block in range(-1, given.blocks):
        for c in given.connections:
            for name in servers:
                run = asked(name, ["--connections", str(c), "--seconds", str(given.seconds)])
                if block >= 0:
                    found.setdefault((name, f"c = {c}"), []).append(run)
        if given.rate:
            for name in servers:
                run = asked(name, ["--connections", "256", "--rate", str(given.rate), "--seconds", str(given.seconds)])
                if block >= 0:
                    found.setdefault((name, f"{given.rate:g}/s"), []).append(run)
        print(f"block {block + 1} of {given.blocks}" if block >= 0 else "warm-up", file=sys.stderr, flush=True)
    return found


def table(found: Mapping[Key, Sequence[Block]], names: Sequence[str], loads: Sequence[str]) -> None:
    """Medians, and the range of throughput over blocks."""
    print("| load | | requests/s (least to most) | p50 ms | added p50 ms | p99 ms | CPU µs a request | in the log | failed |\n|---|---|---|---|---|---|---|---|---|")
    for how in loads:
        for name in names:
            runs = found.get((name, how))
            if not runs:
                continue
            failed = sum(run["failed"] for run in runs)
            if any(run["unsent"] or run["p50_ms"] is None for run in runs):
                print(f"| {how} | {name} | {'no answer in some block' if how.startswith('c') else 'cannot hold it'} | | | | {rig.middle(runs, 'cpu_us'):,.0f} | | {failed} |")
                continue
            rates = [run["per_second"] for run in runs]
            p50, p99 = rig.middle(runs, "p50_ms"), rig.middle(runs, "p99_ms")
            added = f"{p50 - rig.middle(found[DIRECT, how], 'p50_ms'):.3f}" if name != DIRECT else "–"
            rows = f"{min(run['captured'] for run in runs):.1%}" if name in (OURS, SAME) else "–"
            print(f"| {how} | {name} | {rig.middle(runs, 'per_second'):,.0f} ({min(rates):,.0f} to {max(rates):,.0f}) | {p50:.3f} | {added} | {p99:.3f} | {rig.middle(runs, 'cpu_us'):,.0f} | {rows} | {failed} |")
    print()


def judge(found: Mapping[Key, Sequence[Block]], connections: Sequence[int], missing: Mapping[str, str], claims: Claims) -> None:
    """Ratios within this run."""
    for c in JUDGED:
        how = f"c = {c}"
        for ours, (words, name, other, least, most) in product((OURS, SAME), (
            (f"times LiteLLM's requests/s, {how}", "per_second", PEER, FASTER, None),
            (f"of LiteLLM's p50, {how}", "p50_ms", PEER, None, PEER_P50),
            (f"times the bare p50, {how}", "p50_ms", BARE, None, BARE_P50),
        )):  # fmt: skip
            if c not in connections or ours in missing or other in missing:
                claims.absent(f"{ours}: {words}", missing.get(ours) or missing.get(other) or "this number of connections was not asked for")
                continue
            try:
                claims.judge(f"{ours}: {words}", rig.middle(found[ours, how], name) / rig.middle(found[other, how], name), least=least, most=most)
            except (KeyError, NotMeasured) as why:
                claims.absent(f"{ours}: {words}", str(why))
        for ours in (OURS, SAME):
            if ours not in missing and (ours, how) in found:
                claims.judge(f"{ours}: share of requests in the log, {how}, worst block", min(run["captured"] for run in found[ours, how]), least=LOGGED)
    for name in (OURS, SAME, BARE):
        failed = rig.failures([run for (who, _), runs in found.items() if who == name for run in runs])
        if failed:
            claims.say("DOES NOT HOLD", f"{name}: {failed}", good=False)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--litellm", default=sys.executable, metavar="PYTHON", help="interpreter of an environment with litellm[proxy]")
    parser.add_argument("--blocks", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="of each block and load")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 16, 64])
    parser.add_argument("--rate", type=float, default=1000.0, help="requests a second of the open loop; 0 for none")
    parser.add_argument("--stream", action="store_true", help="ask for server-sent events")
    given = parser.parse_args()
    rig.two_cores()
    missing: dict[str, str] = {}
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as stack:
        folder = Path(scratch)
        upstream = stack.enter_context(rig.held(rig.stub(folder)))
        more = {"gateway": "max_concurrent = 1024"}
        projects = {name: rig.project(folder / f"project{n}", upstream.url, more=more) for n, name in enumerate((OURS, SAME))}
        keys = {name: rig.add_key(project) for name, project in projects.items()}
        path = rig.bodies(folder / "bodies.jsonl", rig.messages(), stream=given.stream)
        servers = {DIRECT: upstream}
        makers: dict[str, Callable[[], Running]] = {
            OURS: lambda: rig.writers_apart(rig.gateway(projects[OURS])),
            SAME: lambda: rig.gateway(projects[SAME]),
            BARE: lambda: rig.bare(folder, "--upstream", f"{upstream.url}/v1"),
            PEER: lambda: litellm(folder, upstream.url, given.litellm),
        }
        for name, make in makers.items():
            try:
                servers[name] = stack.enter_context(rig.held(make()))
            except NotMeasured as why:
                missing[name] = " ".join(str(why).split())

        sent = dict.fromkeys(projects, 0)

        def asked(name: str, how: list[str]) -> Block:
            """Every side gets the same bytes. What ours leaves for its writer is waited for, counted, and part of its CPU."""
            project, server = projects.get(name), servers[name]
            before, cpu = rig.kept(project) if project else None, cpu_s(server.pid) + server.writers_cpu_s()
            run = rig.load(server, path, "--header", keys.get(name, keys[OURS]), *how)
            if project and before:
                sent[name] += run["sent"]
                run["captured"] = (rig.settled(project, sent[name]).captured - before.captured) / run["sent"]
            rig.quiet(server)
            run["cpu_us"] = 1e6 * (cpu_s(server.pid) + server.writers_cpu_s() - cpu) / run["sent"]
            return run

        found = measure(servers, asked, given)
    loads = [f"c = {c}" for c in given.connections] + ([f"{given.rate:g}/s"] if given.rate else [])
    print(f"{rig.machine()}; LiteLLM {version_of(given.litellm)}. {given.blocks} blocks of {given.seconds:g} s each in turn, medians; {'streamed' if given.stream else 'plain'} completions.\n")
    table(found, list(servers), loads)
    claims = Claims()
    judge(found, given.connections, missing, claims)
    return claims.code


if __name__ == "__main__":
    sys.exit(main())
