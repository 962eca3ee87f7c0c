"""A task's release follows the store: swapped without a lost answer, refused where a byte is wrong."""

import asyncio
import json
import shutil

import pytest
from tests.serve.packing import ROWS, pack

from overproof.data import Folder
from overproof.evidence import Certificate, Release
from overproof.serve.live import Live, Loading, Position
from overproof.store.project_store import open_store
from overproof.students.bundle import MANIFEST, load_bundle, manifest_of
from overproof.students.card import RELEASE

CERTIFICATE = Certificate(
    plan_hash="p", sealed_digest="s", label_kind="gold", use_k=1, delta_spent=0.05, slices=(), assumptions=(),
    window=(None, None), expires="2099-01-01",
)  # fmt: skip
QUICK = Loading(linger_s=0.3)


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """Three releases of different students."""
    root = tmp_path_factory.mktemp("packed")
    for seed in range(3):
        pack(root / f"r{seed}", seed=6 * seed)
    return root


@pytest.fixture
def store(tmp_path):
    with open_store(tmp_path) as opened:
        yield opened


@pytest.fixture
def live(store):
    made = []

    def make(**options):
        made.append(Live("routing", store.releases, loading=QUICK, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def put(store, packed, name, change=None):
    """A release in the store; `change` edits the bundle's files before they are stored."""
    folder = store.root / f"made-{name}"
    shutil.copytree(packed / name, folder)
    if change:
        change(folder)
    bundle = store.memo().source("bundle", Folder(path=folder)).value
    return Release(id=name, task="routing", findings=(), headline="ships", candidate="small", bundle=bundle, certificate=CERTIFICATE, owner="Dana", review_due="2099-01-01")


def what(live):
    return [(event.what, event.release) for event in live.events]


def test_without_a_release_the_teacher_answers_everything(live, store, packed):
    """No release, a candidate, and one that was rolled back: teacher only, no student in the process."""
    one = live()
    one.check()
    assert (one.current.position.release, one.current.position.stage, one.current.pool) == (None, "teacher-only", None)
    release = put(store, packed, "r0")
    store.releases.record(release, stage="candidate", by="gate")
    one.check()
    assert one.current.pool is None
    store.releases.record(release, stage="full", by="Dana")
    one.check()
    assert one.current.pool.healthy
    store.releases.record(release, stage="rolled-back", by="guard")
    one.check()
    assert one.current.position.stage == "teacher-only"
    assert what(one) == [("serving", "r0"), ("withdrawn", "r0")]


def test_a_stage_says_where_the_student_runs(live, store, packed):
    """Shadow: in its own process alone. Canary: in both. Full: here alone. The same pool goes on from canary to full."""
    at = [Position(release="r0", stage="shadow", share=0.0)]
    store.releases.record(put(store, packed, "r0"), by="gate")
    one = live(position=lambda: at[0])
    one.check()
    first = one.current
    assert (first.pool, first.shadow is None, first.card.task) == (None, False, "routing")
    at[0] = Position(release="r0", stage="canary", share=0.05)
    one.check()
    second = one.current
    assert second.pool is not None
    assert second.shadow is first.shadow
    at[0] = Position(release="r0", stage="canary", share=0.2, suspended=frozenset({"paying"}))
    one.check()
    assert (one.current.pool, one.current.position) == (second.pool, at[0])
    at[0] = Position(release="r0", stage="full")
    one.check()
    assert (one.current.pool, one.current.shadow) == (second.pool, None)


def test_releases_are_swapped_under_load_without_a_lost_answer(live, store, packed):
    """Three swaps under 24 callers who never stop: each answer is some release's own, none is missing, and the last one serves."""
    releases = [put(store, packed, f"r{seed}") for seed in range(3)]
    bundles = {f"r{seed}": load_bundle(packed / f"r{seed}") for seed in range(3)}
    texts = [text for _, text in ROWS]
    said = {(name, text): bundle.answer({"text": text}) for name, bundle in bundles.items() for text in texts}
    store.releases.record(releases[0], stage="full", by="Dana")
    one = live(poll_s=0.02)
    one.start()
    lost, served, stop = [], [], False

    async def caller(at):
        while not stop:
            current, text = one.current, texts[at % len(texts)]
            current.pool.service_s = max(current.pool.service_s, 0.0004) if at % 2 else 1e-6  # by workers, and in line
            await asyncio.sleep(0)  # whoever has read the pointer may still be a while
            look = await current.pool.look({"text": text}, {}, deadline_s=30)
            served.append(current.position.release)
            if look.answer != said[current.position.release, text]:
                lost.append((current.position.release, look))
            at += 7
            await asyncio.sleep(0)

    async def work():
        nonlocal stop
        callers = [asyncio.ensure_future(caller(at)) for at in range(24)]
        for at in (1, 2, 0):
            store.releases.record(releases[at], stage="full", by="Dana")
            while one.current.position.release != f"r{at}":  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        seen = len(served)
        while len(served) < seen + 200:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        stop = True
        await asyncio.gather(*callers)

    asyncio.run(asyncio.wait_for(work(), 120))
    assert lost == []
    assert set(served) == {"r0", "r1", "r2"}
    assert what(one) == [("serving", "r0"), ("serving", "r1"), ("serving", "r2"), ("serving", "r0")]


def flip(path, at):
    data = bytearray(path.read_bytes())
    data[at % len(data)] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)


def resealed(folder, change):
    """What somebody who may write bundles could do: edit and write a manifest that fits."""
    raw = json.loads((folder / RELEASE).read_text())
    change(raw)
    (folder / RELEASE).write_text(json.dumps(raw))
    (folder / MANIFEST).unlink()
    (folder / MANIFEST).write_text(json.dumps(manifest_of(folder)))


BROKEN = {
    "a flipped byte in the weights": lambda folder: flip(folder / "student" / "weights.npz", 700),
    "a cut manifest": lambda folder: (folder / MANIFEST).write_bytes((folder / MANIFEST).read_bytes()[:-9]),
    "a missing student": lambda folder: shutil.rmtree(folder / "student"),
    "another task's labels": lambda folder: resealed(folder, lambda raw: dict(raw["output"])["classes"].append("sales")),
    "a self-test that fails": lambda folder: resealed(folder, lambda raw: raw["selftest"][0].update(probability=0.123)),
    "another task": lambda folder: resealed(folder, lambda raw: raw.update(task="billing")),
    "code by module": lambda folder: resealed(folder, lambda raw: raw.update(use="os:system")),
}


@pytest.mark.parametrize("stage", ["full", "canary"])
@pytest.mark.parametrize("how", BROKEN)
def test_a_release_that_fails_verification_never_serves_and_the_last_good_one_stays(live, store, packed, how, stage):
    """Whatever is wrong with the next bundle, the one before goes on answering, and the reason is kept."""
    store.releases.record(put(store, packed, "r0"), stage="full", by="Dana")
    one = live()
    one.check()
    before = one.current
    store.releases.record(put(store, packed, "r1", BROKEN[how]), stage=stage, by="Dana")
    one.check()
    one.check()
    assert one.current is before
    assert before.pool.healthy
    assert what(one) == [("serving", "r0"), ("refused", "r1")]
    assert one.refused == one.events[-1].why != ""
    look = asyncio.run(before.pool.look({"text": "where is my parcel"}, {}, deadline_s=5))
    assert look.answer.guess == "delivery"
    store.releases.record(put(store, packed, "r2"), stage="full", by="Dana")
    one.check()
    assert (one.current.position.release, one.refused) == ("r2", "")


def test_a_byte_that_flips_in_the_store_is_found(live, store, packed):
    """A release whose files were changed after they were stored is refused; without one before it the teacher answers all."""
    release = put(store, packed, "r0")
    store.releases.record(release, stage="full", by="Dana")
    flip(release.bundle.path / "student" / "weights.npz", 900)
    one = live()
    one.check()
    assert one.current.pool is None
    assert what(one) == [("refused", "r0")]


def test_a_release_that_was_rolled_back_does_not_stand_in_for_a_broken_one(live, store, packed):
    """The last good one is not good any more once it was rolled back."""
    first = put(store, packed, "r0")
    store.releases.record(first, stage="full", by="Dana")
    one = live()
    one.check()
    store.releases.record(first, stage="rolled-back", by="guard")
    store.releases.record(put(store, packed, "r1", BROKEN["a missing student"]), stage="full", by="Dana")
    one.check()
    assert one.current.position.stage == "teacher-only"
    assert what(one) == [("serving", "r0"), ("refused", "r1"), ("withdrawn", "r0")]


def test_a_store_that_cannot_be_read_changes_nothing(live, store, packed):
    """While the store fails the release goes on; the event is kept once and the time of the last good look stays."""
    from overproof.errors import StoreError

    store.releases.record(put(store, packed, "r0"), stage="full", by="Dana")
    good = [True]

    def position():
        if good[0]:
            return Position(release="r0", stage="full")
        raise StoreError("the disk is gone", next_action="mend it")

    one = live(position=position)
    one.check()
    before, at = one.current, one.polled_at
    good[0] = False
    one.check()
    one.check()
    assert one.current is before
    assert one.polled_at == at
    assert what(one) == [("serving", "r0"), ("store", "")]
