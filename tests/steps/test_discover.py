"""A mixed log falls apart into its tasks, and each is judged by what the log can show."""

import json
import random
from dataclasses import replace
from functools import cache
from importlib.resources import files

import numpy as np
import pytest
from click.testing import CliRunner

from overproof.cli import main
from overproof.cli.discover import _lean
from overproof.data import Completion, Request, Served, TrafficRecord, Turn
from overproof.measure import contents
from overproof.project import load_project
from overproof.serve.rows import Row, record_of
from overproof.steps.discover import DiscoverRecipe, Discovery, discover

INBOX = [json.loads(line) for line in (files("overproof") / "inbox" / "messages.jsonl").read_text(encoding="utf-8").splitlines()]
ANSWERS = {
    row["id"]: row["output"]
    for row in map(json.loads, (files("overproof") / "inbox" / "answers.jsonl").read_text(encoding="utf-8").splitlines())
    if row["sample"] == 2
}
VERBS = ["write", "explain", "compare", "draft", "imagine", "summarise"]
NOUNS = ["a poem", "the tides", "two phones", "a speech", "a city on Mars", "the plot", "a lawn", "my week", "an opera"]


def row(i: int, text: str, said: str, *, system: str | None, cost: float | None = 0.002) -> TrafficRecord:
    return TrafficRecord(
        request=Request(
            id=f"r{i}", fields={"text": text}, at=f"2026-03-{1 + i % 28:02d}T{i % 24:02d}:00:00Z",
            attributes={"system_prompt": system} if system else {},
        ),
        completion=Completion(text=said, value=None, model="m", cost_usd=cost, tokens_in=400, tokens_out=10),
    )  # fmt: skip


def mixed(*, systems: bool = True) -> tuple[list[TrafficRecord], dict[str, str]]:
    """The inbox, an extraction and a chat, shuffled; with the task that each row belongs to."""
    draw = random.Random(4)
    rows, truth = [], {}
    plans = [("inbox", m["text"], ANSWERS[m["id"]]) for m in INBOX]
    for n in range(900):
        order, amount = draw.randrange(10**6), draw.randrange(1000)
        fields = {"order": str(order), "amount": amount, "carrier": draw.choice(["ParcelFox", "Nord"])}
        plans.append(("extraction", f"Invoice {n}: order {order}, total {amount} EUR, sent on time", json.dumps(fields)))
    for n in range(700):
        words = " ".join(draw.choices(NOUNS + VERBS, k=14))
        plans.append(("chat", f"{draw.choice(VERBS)} {draw.choice(NOUNS)} no {n}, {words[:40]}", f"Of course, here it is, number {n}: {words}."))
    draw.shuffle(plans)
    for i, (task, text, said) in enumerate(plans):
        rows.append(row(i, text, said, system=f"prompt-{task}" if systems else None))
        truth[f"r{i}"] = task
    return rows, truth


@cache
def found_in_mixed(*, systems: bool) -> Discovery:
    return discover(mixed(systems=systems)[0], DiscoverRecipe())


@pytest.mark.parametrize("systems", [True, False])
def test_three_mixed_tasks_are_told_apart_with_and_without_system_prompts(systems: bool) -> None:
    """By the system prompt where there is one, else by the shape of the answers; kinds and volumes are right."""
    rows, truth = mixed(systems=systems)
    found = found_in_mixed(systems=systems)
    assert sum(c.rows for c in found.candidates) + found.left_over == found.rows == len(rows)
    kinds = {}
    for c in found.candidates:
        tasks = [truth[i] for i in c.row_ids]
        main_task = max(set(tasks), key=tasks.count)
        assert tasks.count(main_task) >= 0.98 * len(tasks)
        kinds.setdefault(main_task, set()).add(c.kind)
        assert c.per_month == pytest.approx(c.rows / 27.96 * 30.44, rel=0.02)
        assert c.usd_per_month == pytest.approx(c.per_month * 0.002)
    assert kinds == {"inbox": {"classes"}, "extraction": {"fields"}, "chat": {"text"}}


def test_the_closed_task_is_worth_it_only_where_rows_and_money_suffice() -> None:
    """15 labels are found; the chat is a no; too few rows or no price make the closed task unclear, a low volume a no."""
    rows, truth = mixed()
    by_kind = {c.kind: c for c in found_in_mixed(systems=True).candidates}
    inbox, chat = by_kind["classes"], by_kind["text"]
    assert {name for name, _ in inbox.labels} == {m["queue"] for m in INBOX}
    assert inbox.closed.low >= 0.9
    assert 2.0 < inbox.entropy_bits < 4.0
    assert (inbox.worth, chat.worth) == ("no", "no")  # 6 USD a month pay nobody back
    assert "pays back" in inbox.reasons[0]
    assert "not bounded" in chat.reasons[0]
    easy = DiscoverRecipe(alpha=0.2)  # proven with 940 rows
    dear = [replace(r, completion=replace(r.completion, cost_usd=0.2)) for r in rows[::3]]
    worth = {c.kind: c.worth for c in discover(dear, easy).candidates}
    assert worth == {"classes": "unclear", "fields": "unclear", "text": "no"}  # 900 rows of 940
    closed = [r for r in dear if truth[r.request.id] == "inbox"]
    twice = [replace(r, request=replace(r.request, id=f"{r.request.id}/{k}")) for r in closed for k in range(2)]
    assert discover(twice, easy).candidates[0].worth == "unclear"  # repeats prove nothing
    once = [replace(r, request=replace(r.request, fields={"text": r.request.text + " and again" * (i % 2)})) for i, r in enumerate(twice)]
    (unmeasured,) = discover(once, easy).candidates
    assert (unmeasured.worth, unmeasured.agreement.n) == ("unclear", 0)  # nothing but the repeats is missing
    assert "isn't measured" in unmeasured.reasons[0]
    many = [*once, *(replace(r, request=replace(r.request, id=f"{r.request.id}/r")) for r in once[:300])]
    (judged,) = discover(many, easy).candidates
    assert judged.worth == "yes"
    sum_ = judged.payback
    assert sum_.once_usd == pytest.approx(sum_.labels * sum_.label_usd + sum_.reviews * sum_.review_usd + sum_.training_usd)
    assert sum_.months == pytest.approx(sum_.once_usd / (sum_.monthly_usd * 0.7))
    assert any(f"{sum_.reviews} reviews x 0.25" in r for r in judged.reasons)
    free = [replace(r, completion=replace(r.completion, cost_usd=None)) for r in many]
    (unpriced,) = discover(free, easy).candidates
    assert unpriced.worth == "unclear"
    (priced,) = discover(free, replace(easy, usd_per_million_in=10.0, usd_per_million_out=100.0)).candidates
    assert priced.usd_per_month == pytest.approx(priced.per_month * 0.005)


def test_a_teacher_that_contradicts_itself_on_repeats_is_a_no() -> None:
    """Its own agreement on exactly repeated requests is the ceiling of any student."""
    draw = random.Random(1)
    rows = [row(i, f"message {i % 400}", draw.choice(["a", "b", "c"]), system="s", cost=1.0) for i in range(4000)]
    (one,) = discover(rows, DiscoverRecipe()).candidates
    assert one.agreement.n == 3600
    assert one.agreement.high < 0.5
    assert one.worth == "no"
    assert "disagrees with itself" in one.reasons[0]


def test_small_groups_are_counted_and_not_judged() -> None:
    """Not enough data is no verdict."""
    found = discover([row(i, f"m {i}", "a", system="s") for i in range(10)], DiscoverRecipe())
    assert (found.candidates, found.left_over) == ((), 10)


def test_the_verb_reads_files_masks_what_it_shows_and_writes_a_project_that_loads(tmp_path) -> None:
    """From a chat log to a starter project with the labels in it; nothing personal is printed or written."""
    log = tmp_path / "calls.jsonl"
    with log.open("w", encoding="utf-8") as out:
        for i, m in enumerate(INBOX[:600]):
            messages = [{"role": "system", "content": "Sort the message. Ask tom@example.com if unsure."}, {"role": "user", "content": f"maria{i}@example.com: {m['text']}"}]
            answer = {"created": 1_760_000_000 + 3600 * i, "model": "m-2025-01-01", "usage": {"prompt_tokens": 300, "completion_tokens": 4},
                      "choices": [{"message": {"role": "assistant", "content": m["queue"]}, "finish_reason": "stop"}]}  # fmt: skip
            out.write(json.dumps({"request": {"messages": messages}, "response": answer}) + "\n")
    target = tmp_path / "starter"
    arguments = ["discover", str(log), "--price-in", "2", "--price-out", "8", "--write", str(target)]
    done = CliRunner().invoke(main, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    body = json.loads(done.stdout)
    assert body["candidates"][0]["kind"] == "classes"
    assert body["candidates"][0]["usd_per_month"] > 0
    assert "maria" not in done.output
    assert (target / "prompts" / "task.md").read_text() == "Sort the message. Ask <EMAIL> if unsure.\n"
    written = (target / "overproof.toml").read_text()
    assert all(json.dumps(m["queue"]) in written for m in INBOX[:600])
    with pytest.raises(Exception, match="mistake") as told:
        load_project(target)
    assert "classes" not in str(told.value)  # the owner and the model's name are for a person to fill in
    again = CliRunner().invoke(main, arguments)
    assert again.exit_code == 2
    assert "nothing was written" in again.output


def test_answers_that_keep_being_new_are_no_closed_set() -> None:
    """What counts is whether later answers had been given before, not how often the first ones were."""
    rows = [row(i, f"m {i}", "a" if i < 30 else f"new {i}", system="s") for i in range(60)]
    untimed = [replace(r, request=replace(r.request, at=None)) for r in rows]
    (one,) = discover(untimed, DiscoverRecipe()).candidates
    assert (one.closed.good, one.closed.n, one.kind, one.worth) == (0, 30, "text", "no")


def reviews(count: int) -> list[tuple[str, str]]:
    draw = random.Random(3)
    words = {"positive": ["wonderful", "moving and clever", "a delight"], "negative": ["dull", "a waste of time", "badly written"]}
    rows = []
    for i in range(count):
        side = draw.choice(list(words))
        text = (
            f"{draw.choice(['This', 'The new', 'Their second'])} {draw.choice(['film', 'novel', 'album', 'play'])} was {draw.choice(words[side])}, "
            f"{draw.choice(['the plot', 'the music', 'the cast'])} {draw.choice(words[side])}, seen {i} times"
        )
        rows.append((text, side))
    return rows


def test_two_tasks_that_share_all_but_their_content_are_told_apart() -> None:
    """No prompt, no opening, short answers both; what content finds is in the report with its n."""
    plans = [("inbox", m["text"], ANSWERS[m["id"]]) for m in INBOX] + [("reviews", *one) for one in reviews(900)]
    random.Random(5).shuffle(plans)
    rows = [row(i, text, said, system=None) for i, (_, text, said) in enumerate(plans)]
    found = discover(rows, DiscoverRecipe()).candidates
    assert len(found) == 2
    for c, task in zip(found, ("inbox", "reviews"), strict=True):
        tasks = [plans[int(i[1:])][0] for i in c.row_ids]
        assert tasks.count(task) >= 0.99 * len(tasks)
        assert "told apart by content" in c.division
        assert f"n = {len(rows)}" in c.division
    assert {name for name, _ in found[1].labels} == {"positive", "negative"}


def test_the_topics_and_languages_of_one_task_stay_one_candidate() -> None:
    """The inbox has three languages and 15 queues, reviews have two labels: neither falls apart, and the report says why not."""
    for pairs in ([(m["text"], ANSWERS[m["id"]]) for m in INBOX], reviews(600)):
        (one,) = discover([row(i, text, said, system=None) for i, (text, said) in enumerate(pairs)], DiscoverRecipe()).candidates
        assert "stays one: no clear division" in one.division
    (few,) = discover([row(i, f"m {i}", "ab"[i % 2], system=None) for i in range(80)], DiscoverRecipe()).candidates
    assert "too few" in few.division


def test_fields_are_a_yes_only_where_values_are_bounded_and_propose_their_types() -> None:
    """Values copied from the request count, invented ones don't; other keys are another task, an absent key isn't."""

    def log(note: str) -> list[TrafficRecord]:
        rows = []
        for n in range(2200):
            i = n % 2000
            fields = {"order": f"{i}", "carrier": "Nord", **({"gift": "no"} if i % 2 else {}), **({"note": f"{note} {i * 7919}"} if note else {})}
            rows.append(row(n, f"order {i} came with Nord", json.dumps(fields), system="s", cost=0.2))
        return rows

    easy = DiscoverRecipe(alpha=0.2)
    (good,) = discover(log(""), easy).candidates
    assert (good.kind, good.worth) == ("fields", "yes")
    assert good.output == {"fields": {"order": "text", "carrier": "text", "gift": "text?"}}
    (free,) = discover(log("I thought of"), easy).candidates
    assert (free.kind, free.worth) == ("fields", "unclear")
    other = [row(i, f"weather {i}", json.dumps({"city": "Oslo", "degrees": i}), system="s") for i in range(700)]
    assert len(discover([*log(""), *other], easy).candidates) == 2


def test_a_frame_that_all_requests_share_becomes_the_prompt() -> None:
    """Cut at white space: letters that what varies happens to share stay in it."""
    texts = [f"Which queue is this for?\n\nMessage: {word} {i}\n\nOne word only." for i, word in enumerate(["apple", "apricot"] * 40)]
    (one,) = discover([row(i, t, "ab"[i % 2], system=None) for i, t in enumerate(texts)], DiscoverRecipe()).candidates
    assert one.frame == "Which queue is this for?\n\nMessage: {text}\n\nOne word only."
    (bare,) = discover([row(i, f"m {i}", "ab"[i % 2], system=None) for i in range(80)], DiscoverRecipe()).candidates
    assert bare.frame is None


def call(i: int, text: str, said: str, *, task: str = "", student: bool = False) -> TrafficRecord:
    """A row as the gateway leaves it."""
    body = {"model": "m", "messages": [{"role": "system", "content": f"You do {task or 'something new'}."}, {"role": "user", "content": text}]}
    answer = {"model": "m-1", "choices": [{"message": {"role": "assistant", "content": said}, "finish_reason": "stop"}],
              "usage": {"prompt_tokens": 400, "completion_tokens": 10}}  # fmt: skip
    how = Served(route="student" if student else "teacher", reason="confident" if student else "stage" if task else "unmatched",
                 stage="canary" if task else "teacher-only", endpoint="/v1/chat/completions", status=200, latency_s=0.1, overhead_s=0.001, task=task)  # fmt: skip
    mine = Completion(text=said, value=said, model="student", cost_usd=0.0, tokens_in=400, tokens_out=10) if student else None
    return record_of(Row(id=f"r{i}", at=1.77e9 + 3_600 * i, served=how, request=json.dumps(body).encode(), response=json.dumps(answer).encode(),
                         fields={"text": text} if task else None, answer=mine))  # fmt: skip


def test_what_the_student_answered_counts_as_asked_and_says_nothing_of_the_teacher() -> None:
    """Half of the rows are the student's, wrong and free of charge: volume is that of all, other figures that of the teacher's."""
    prices = DiscoverRecipe(usd_per_million_in=5.0, usd_per_million_out=0.0)
    said = [("spam", "ham", "eggs")[i % 3] for i in range(400)]
    plans = [(f"message {i % 150}", said[i % 150]) for i in range(400)]
    (plain,) = discover([call(i, *plan, task="breakfast") for i, plan in enumerate(plans)], prices).candidates
    (half,) = discover(
        [call(i, text, answer if i % 2 else f"never {i}", task="breakfast", student=not i % 2) for i, (text, answer) in enumerate(plans)], prices
    ).candidates
    assert (half.rows, half.per_month, half.repeated) == (plain.rows, plain.per_month, plain.repeated)
    assert (half.answered, half.priced_rows, plain.answered, plain.priced_rows) == (200, 200, 400, 400)
    assert half.usd_per_month == pytest.approx(plain.usd_per_month)
    assert (half.distinct, half.kind) == (3, "classes")
    assert set(half.output["classes"]) == {name for name, _ in half.labels} == {"spam", "ham", "eggs"}
    assert (half.closed.value, half.agreement.value, half.agreement.n) == (1.0, 1.0, 125)
    assert not any("never" in text for text in half.reasons)


def test_calls_that_the_gateway_knew_no_task_for_become_the_next_candidate() -> None:
    """Beside a task that is served already, by their own system prompt, with the whole message as text."""
    known = [call(i, f"message {i}", "ab"[i % 2], task="breakfast") for i in range(60)]
    new = [call(i, f"weather in town {i}?", ("sun", "rain")[i % 2]) for i in range(60, 150)]
    found = discover([*known, *new], DiscoverRecipe())
    first, second = found.candidates
    assert (first.rows, second.rows, found.left_over) == (90, 60, 0)
    assert set(first.row_ids) == {f"r{i}" for i in range(60, 150)}
    assert first.kind == "classes"
    assert {name for name, _ in first.labels} == {"sun", "rain"}
    assert first.frame == "weather in town {text}"
    assert first.system_prompt != second.system_prompt


def test_one_row_of_each_prompt_is_kept_with_what_was_sent_beside_the_request():
    """It is where the prompt is read from; a million copies of it would fill the memory."""
    beside = (Turn(role="system", text="Sort."),)
    rows = [replace(row(i, f"text {i}", "yes", system=system), context=beside) for i, system in enumerate(("a", "a", None, "b", "a"))]
    lean = list(_lean([replace(rows[0], context=()), *rows]))
    assert [one.request.id for one in lean if one.context] == ["r0", "r3"]
    assert [replace(one, context=()) for one in lean[1:]] == [replace(one, context=()) for one in rows]


def test_a_request_lies_at_the_same_point_however_many_are_looked_at_together(monkeypatch):
    """Each of length 1, in the order of the requests."""
    texts = [f"{verb} {noun} and {other}" for verb in VERBS for noun in NOUNS for other in NOUNS]
    space = contents._Space(texts)
    whole = space.points(texts)
    monkeypatch.setattr(contents, "PIECE", 7)
    assert np.allclose(space.points(texts), whole, atol=1e-6)
    assert np.allclose(np.linalg.norm(whole, axis=1), 1, atol=1e-5)
    assert np.unique(whole.round(4), axis=0).shape[0] > len(texts) / 3
