"""Near-duplicates looked for over shards: the same prompt set, byte for byte, with a worker killed in the middle."""

import os
import signal
from pathlib import Path

import pytest

from overproof.data import Request, Traffic, TrafficRecord
from overproof.engines import cut, engine_of
from overproof.engines.local import LocalEngine
from overproof.measure.leakage import clusters, sketched_here
from overproof.steps import promptset
from overproof.store.codec import encode

WORDS = ["where", "is", "my", "parcel", "order", "card", "refund", "the", "login", "page", "code", "invoice", "wrong", "amount", "twice", "charged", "late", "again", "today", "please"]


def text(i):
    """Short and long ones, some of them twice and some nearly."""
    kind, at = i % 7, i // 2 if i % 5 == 0 else i
    said = " ".join(WORDS[(at * k + k * k) % len(WORDS)] for k in range(1, 6 + 12 * (at % 3)))
    return f"{said} {at}" + ("?" if kind == 3 else "")


def traffic(n):
    rows = [TrafficRecord(request=Request(id=f"r{i}", fields={"text": text(i)}, at=f"2026-01-{1 + i * 27 // n:02d}T00:00:00Z"), completion=None) for i in range(n)]
    return Traffic(records=tuple(rows), window=(None, None), left_out={})


class Apart(LocalEngine):
    """Shards without processes."""

    apart, shards = True, 5


def die_once(shared, shard):
    """Kills its own process on the way to one of the shards."""
    mark = Path(shared) / "been"
    if shard[0] == text_of_second(shared) and not mark.exists():
        mark.write_text("here")
        os.kill(os.getpid(), signal.SIGKILL)
    return sketched_here(shard)


def text_of_second(shared):
    return (Path(shared) / "second").read_text()


@pytest.mark.parametrize("n", [60, 600])
def test_a_prompt_set_is_the_same_over_shards(monkeypatch, n):
    """Groups, splits and weights: the whole value."""
    monkeypatch.setattr(promptset, "SPREAD_FROM", 0)
    window, recipe = traffic(n), promptset.PromptSetRecipe()
    here = encode(promptset.promptset(window, recipe)).digest
    assert encode(promptset.promptset(window, recipe, engine=Apart())).digest == here


@pytest.mark.slow
def test_a_worker_killed_mid_shard_changes_no_group(tmp_path):
    """On Ray, with two processes."""
    pytest.importorskip("ray", reason="needs the extra ray")
    from overproof.measure.minhash import joined

    texts, engine = [text(i) for i in range(2_000)], engine_of("ray", workers=2, address="")
    seen = []

    def apart(distinct):
        shards = cut(distinct, engine.shards)
        (tmp_path / "second").write_text(shards[1][0])
        seen.append(len(shards))
        return joined(engine.each(die_once, shards, shared=str(tmp_path), what="near-duplicates"), [len(one) for one in shards])

    try:
        found = clusters(texts, sketched=apart)
    finally:
        engine.close()
    assert seen == [8]
    assert (tmp_path / "been").exists()
    assert found.near.tolist() == clusters(texts).near.tolist()
    assert len(set(found.near.tolist())) < len(set(found.exact.tolist())) < len(texts)
