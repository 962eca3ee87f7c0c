"""Steps run once; what they made is found, verified, and explained when it has to be made again."""

import hashlib
import os
import stat
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

from overproof.data import Folder
from overproof.errors import CorruptArtifact, StoreError
from overproof.store.artifacts import NotBuilt, Step
from overproof.store.project_store import open_store


@dataclass(frozen=True, kw_only=True)
class Recipe:
    times: int = 2
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Model:
    name: str
    folder: Folder


CALLS: list[str] = []


def double(text: str, recipe: Recipe) -> str:
    CALLS.append("double")
    return text * recipe.times


def length(text: str, recipe: Recipe) -> int:
    CALLS.append("length")
    return len(text)


def fit(text: str, recipe: Recipe, *, workdir: Path, threads: int = 1) -> Model:
    CALLS.append("fit")
    (workdir / "out" / "sub").mkdir(parents=True)
    (workdir / "out" / "weights.bin").write_bytes(text.encode() * 1000)
    (workdir / "out" / "sub" / "vocab.txt").write_text(text)
    (workdir / "rubbish").write_text("left over")
    return Model(name="m", folder=Folder(path=workdir / "out"))


DOUBLE = Step(name="double", version=1, fn=double)
LENGTH = Step(name="length", version=1, fn=length)
FIT = Step(name="fit", version=1, fn=fit, workdir=True)


@pytest.fixture(autouse=True)
def _no_calls():
    CALLS.clear()


@pytest.fixture
def store(tmp_path):
    with open_store(tmp_path) as opened:
        yield opened


def flow(memo, text="ab", times=2, step=DOUBLE, note=""):
    source = memo.source("text", text)
    doubled = memo.run(step, source, recipe=Recipe(times=times, note=note))
    return memo.run(LENGTH, doubled, recipe=Recipe())


def test_an_unchanged_run_makes_nothing_again(tmp_path):
    """The second run, also in a new process's store, reuses every step and gives the same value."""
    with open_store(tmp_path) as store:
        assert flow(store.memo()).value == 4
    assert CALLS == ["double", "length"]
    with open_store(tmp_path) as store:
        memo = store.memo()
        assert flow(memo).value == 4
        assert [e.action for e in memo.events] == ["reuse", "reuse"]
    assert CALLS == ["double", "length"]


def test_the_same_output_reuses_what_comes_after(store):
    """A step that is made again but gives the same bytes lets the steps after it be reused."""
    flow(store.memo())
    memo = store.memo()
    flow(memo, step=Step(name="double", version=2, fn=double))
    assert [(e.step, e.action) for e in memo.events] == [("double", "run"), ("length", "reuse")]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"times": 3}, "option times changed"),
        ({"text": "xy"}, "input text changed"),
        ({"step": Step(name="double", version=2, fn=double)}, "version 1 → 2"),
        ({"times": 3, "note": "n"}, "option note changed, option times changed"),
    ],
)
def test_a_run_says_why_it_is_needed(store, change, why):
    """What differs from the most similar earlier run is named: option, input or version."""
    memo = store.memo()
    flow(memo)
    assert memo.events[0].why == "first run"
    again = store.memo()
    flow(again, **change)
    assert again.events[0].why == why
    assert again.events[0].action == "run"


def test_runtime_arguments_are_no_part_of_the_identity(store):
    """Another number of threads finds the same result."""
    memo = store.memo()
    text = memo.source("text", "ab")
    first = memo.run(FIT, text, recipe=Recipe(), threads=1)
    second = memo.run(FIT, text, recipe=Recipe(), threads=8)
    assert first.digest == second.digest
    assert CALLS == ["fit"]


def test_a_folder_moves_into_the_store_read_only(store):
    """A step's folder is kept whole under its digest, its files read-only, and nothing else of the work folder stays."""
    memo = store.memo()
    model = memo.run(FIT, memo.source("text", "ab"), recipe=Recipe()).value
    assert model.folder.path.is_relative_to(store.home / "objects")
    assert (model.folder.path / "sub" / "vocab.txt").read_text() == "ab"
    assert stat.S_IMODE((model.folder.path / "weights.bin").stat().st_mode) == 0o444
    assert [p.name for p in store.objects.scratch().iterdir()] == []


def test_a_folder_may_be_passed_on(store):
    """A later step may return a folder of an earlier one; it is kept once, under the same digest."""
    memo = store.memo()
    model = memo.run(FIT, memo.source("text", "ab"), recipe=Recipe())
    step = Step(name="pass-on", version=1, fn=pass_on)
    onward = memo.run(step, model, recipe=Recipe())
    assert onward.value.folder.digest == model.value.folder.digest
    assert onward.value.folder.path == model.value.folder.path


def pass_on(model: Model, recipe: Recipe) -> Model:
    return Model(name="again", folder=model.folder)


def crash(text: str, recipe: Recipe, *, workdir: Path) -> str:
    (workdir / "half").write_text("half")
    raise RuntimeError("broken step")


def test_a_step_that_fails_leaves_nothing_behind(store):
    """After an exception no value, no manifest and no work folder exist, and the next run starts the step afresh."""
    memo = store.memo()
    step = Step(name="crash", version=1, fn=crash, workdir=True)
    text = memo.source("text", "ab")
    for _ in range(2):
        with pytest.raises(RuntimeError, match="broken step"):
            memo.run(step, text, recipe=Recipe())
    assert not (store.home / "steps").exists()
    assert list(store.objects.scratch().iterdir()) == []


def nan(text: str, recipe: Recipe) -> float:
    return float("nan")


def test_a_result_that_is_not_a_number_is_refused(store):
    """NaN never gets into the store."""
    memo = store.memo()
    with pytest.raises(StoreError, match="not a finite number"):
        memo.run(Step(name="nan", version=1, fn=nan), memo.source("text", "ab"), recipe=Recipe())
    assert not (store.home / "steps").exists()


def _flip(path: Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.chmod(0o644)
    path.write_bytes(data)


def test_any_flipped_byte_of_a_value_is_refused(tmp_path):
    """Whichever byte of a stored value is damaged, it is refused, the message says what to delete, and doing so heals."""
    with open_store(tmp_path) as store:
        path = flow(store.memo()).path
    size = path.stat().st_size
    for at in range(size):
        _flip(path, at)
        with open_store(tmp_path) as store, pytest.raises(CorruptArtifact, match="not used"):
            _ = flow(store.memo()).value
        _flip(path, at)
    _flip(path, 0)
    path.unlink()
    with open_store(tmp_path) as store:
        memo = store.memo()
        assert flow(memo).value == 4
        assert memo.events[1].why == "its stored result is missing"


@pytest.mark.parametrize("file", ["weights.bin", "sub/vocab.txt"])
@pytest.mark.parametrize("damage", ["flip", "cut", "add", "remove", "link"])
def test_a_damaged_folder_is_refused(tmp_path, file, damage):
    """A folder with a file that is changed, cut, added, removed or linked is refused at its first use."""
    with open_store(tmp_path) as store:
        memo = store.memo()
        place = memo.run(FIT, memo.source("text", "ab"), recipe=Recipe()).value.folder.path
    path = place / file
    if damage == "flip":
        _flip(path, 1)
    elif damage == "cut":
        path.chmod(0o644)
        os.truncate(path, 1)
    elif damage == "add":
        (path.parent / "new").write_text("x")
    elif damage == "remove":
        path.unlink()
    else:
        (tmp_path / "elsewhere").write_bytes(path.read_bytes())
        path.unlink()
        path.symlink_to(tmp_path / "elsewhere")
    with open_store(tmp_path) as store:
        memo = store.memo()
        model = memo.run(FIT, memo.source("text", "ab"), recipe=Recipe())
        assert CALLS == ["fit"]
        with pytest.raises(CorruptArtifact) as error:
            _ = model.value
    assert "rm -rf .overproof/objects/" in error.value.next_action


def test_damaged_lists_and_manifests_are_never_believed(tmp_path):
    """A flipped byte in a folder's list is refused; one in a manifest means that the step runs again, or the same value."""
    with open_store(tmp_path) as store:
        memo = store.memo()
        good = memo.run(FIT, memo.source("text", "ab"), recipe=Recipe())
        listed = good.value.folder.path.with_suffix(".tree")
        (manifest,) = (store.home / "steps" / "fit").iterdir()
    for at in range(0, listed.stat().st_size, 3):
        _flip(listed, at)
        with open_store(tmp_path) as store, pytest.raises(CorruptArtifact):
            store.objects.find(good.value.folder.digest)
        _flip(listed, at)
    whole = manifest.read_bytes()
    for at in range(len(whole)):
        _flip(manifest, at)
        with open_store(tmp_path) as store:
            memo = store.memo()
            assert memo.run(FIT, memo.source("text", "ab"), recipe=Recipe()).digest == good.digest
        manifest.chmod(0o644)
        manifest.write_bytes(whole)


def test_a_list_that_was_changed_with_its_file_is_refused(tmp_path):
    """Whoever changes a file and its entry in the list alike is found out by the folder's own digest."""
    with open_store(tmp_path) as store:
        memo = store.memo()
        folder = memo.run(FIT, memo.source("text", "ab"), recipe=Recipe()).value.folder
    listed, path = folder.path.with_suffix(".tree"), folder.path / "sub" / "vocab.txt"
    for file in (listed, path):
        file.chmod(0o644)
    before, after = (hashlib.sha256(text).hexdigest() for text in (b"ab", b"xy"))
    path.write_bytes(b"xy")
    listed.write_text(listed.read_text().replace(before, after))
    assert after in listed.read_text()
    with open_store(tmp_path) as store, pytest.raises(CorruptArtifact, match="missing or damaged"):
        store.objects.find(folder.digest)


@pytest.mark.parametrize("kind", ["missing", "link", "file"])
def test_a_folder_that_is_none_is_refused(store, kind):
    """A missing folder, a plain file, or a link inside the folder is refused when the step returns it."""
    step = Step(name=f"bad-{kind}", version=1, fn={"missing": bad_missing, "link": bad_link, "file": bad_file}[kind], workdir=True)
    with pytest.raises(StoreError):
        store.memo().run(step, recipe=Recipe())
    assert not (store.home / "steps").exists()


def bad_missing(recipe: Recipe, *, workdir: Path) -> Folder:
    return Folder(path=workdir / "nothing")


def bad_link(recipe: Recipe, *, workdir: Path) -> Folder:
    (workdir / "out").mkdir()
    (workdir / "out" / "link").symlink_to("/etc/hostname")
    return Folder(path=workdir / "out")


def bad_file(recipe: Recipe, *, workdir: Path) -> Folder:
    (workdir / "out").write_text("x")
    return Folder(path=workdir / "out")


def test_a_folder_from_outside_is_copied(store, tmp_path):
    """An input folder of the user's is copied, not moved, and the copy doesn't follow later changes."""
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "a.txt").write_text("first")
    artifact = store.memo().source("mine", Folder(path=tmp_path / "mine"))
    (tmp_path / "mine" / "a.txt").write_text("later")
    assert (artifact.value.path / "a.txt").read_text() == "first"
    assert store.memo().source("mine", Folder(path=tmp_path / "mine")).digest != artifact.digest


def test_a_dry_memo_runs_nothing_and_says_what_is_stale(tmp_path):
    """`dry` executes and writes nothing, says which steps would run and why, and which wait for them."""
    with open_store(tmp_path) as store:
        flow(store.memo())
        files = sorted(store.home.rglob("*"))
        CALLS.clear()
        dry = store.memo(dry=True)
        assert flow(dry).value == 4
        assert [e.action for e in dry.events] == ["reuse", "reuse"]
        dry = store.memo(dry=True)
        last = flow(dry, times=5, text="new")
        assert [(e.step, e.action, e.why) for e in dry.events] == [
            ("double", "stale", "option times changed, input text changed"),
            ("length", "waits", "needs double"),
        ]
        assert not last.built
        for ask in (lambda: last.value, lambda: last.digest, lambda: dry.gather([last]).value):
            with pytest.raises(NotBuilt, match="no up-to-date result"):
                ask()
        assert sorted(store.home.rglob("*")) == files
    assert CALLS == []


def test_gather_depends_on_each_part_and_their_order(store):
    """The gathered input has the parts' values, and another digest when a part or the order changes."""
    memo = store.memo()
    a, b = memo.source("a", 1), memo.source("b", 2)
    assert memo.gather([a, b]).value == (1, 2)
    assert len({memo.gather(p).digest for p in ([a, b], [b, a], [a], [a, b, b])}) == 4


def test_a_lazy_input_is_read_only_where_a_step_runs(store):
    """An input that lives elsewhere counts by its digest and is loaded only by a step that really runs."""
    loads = []
    for digest in ("a" * 64, "a" * 64, "b" * 64):
        memo = store.memo()
        log = memo.lazy("log", digest, lambda: loads.append(1) or "rows")
        assert memo.run(LENGTH, log, recipe=Recipe()).value == 4
    assert len(loads) == 2
    with pytest.raises(StoreError, match="not a SHA-256"):
        store.memo().lazy("log", "abc", lambda: 1)


def test_a_lazy_input_goes_once_a_step_has_used_it(store):
    """A whole log in memory beside what was made of it would double what a run needs."""
    log = store.memo().lazy("log", "a" * 64, lambda: ["row"])
    assert log.value == log.value
    assert log.value is not log.value


def test_thirty_unchanged_steps_take_under_50_ms(store):
    """Reuse reads manifests only: no value is loaded, and a chain of 30 steps is found in under 50 ms of processor time."""
    big = "x" * 1_000_000

    def chain(memo):
        part = memo.lazy("big", "c" * 64, lambda: big)
        for i in range(30):
            part = memo.run(DOUBLE, part, recipe=Recipe(times=1, note=str(i)))
        return part

    chain(store.memo())
    best = 9.0
    for _ in range(3):
        memo = store.memo()
        began = time.process_time()
        chain(memo)
        best = min(best, time.process_time() - began)
    assert [e.action for e in memo.events] == ["reuse"] * 30
    assert best < 0.05


def test_events_tell_the_door_what_happens(store):
    """The callback hears the start and the end of a run, with seconds and digest."""
    heard = []
    result = store.memo(on_event=heard.append).run(LENGTH, store.memo().source("t", "abc"), recipe=Recipe())
    assert [e.action for e in heard] == ["start", "run"]
    assert heard[1].digest == result.digest
    assert heard[1].seconds > 0


def test_leftovers_of_a_killed_session_are_swept_and_those_of_a_living_one_are_not(tmp_path):
    """Opening removes scratch space whose owner is gone, and leaves that of a session that is still open."""
    living = open_store(tmp_path)
    place = living.objects.scratch()
    dead = tmp_path / ".overproof" / "tmp" / "dead"
    dead.mkdir()
    (dead / "half").write_text("x")
    dead.with_name("dead.lock").write_text("")
    with open_store(tmp_path):
        assert not dead.exists()
        assert not dead.with_name("dead.lock").exists()
        assert place.exists()
    living.close()
    assert list((tmp_path / ".overproof" / "tmp").iterdir()) == []


def test_what_was_made_of_given_inputs_is_found_by_them(store):
    """The newest whole result, by exactly these inputs in this order; nothing for others, or once it is gone."""
    memo = store.memo()
    source = memo.source("text", "ab")
    for times in (2, 3):
        made = memo.run(DOUBLE, source, recipe=Recipe(times=times))
    assert memo.made_of("double", source.digest).value == "ababab"
    assert memo.made_of("double", made.digest) is None
    assert memo.made_of("double", source.digest, source.digest) is None
    assert memo.made_of("length", source.digest) is None
    made.path.unlink()
    assert memo.made_of("double", source.digest).value == "abab"
