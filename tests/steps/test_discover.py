"""A mixed log falls apart into its tasks, and each is judged by what the log can show."""

import json
import random
from dataclasses import replace
from importlib.resources import files

import pytest
from click.testing import CliRunner

from overproof.cli import main
from overproof.data import Completion, Request, TrafficRecord
from overproof.project import load_project
from overproof.steps.discover import DiscoverRecipe, discover

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


@pytest.mark.parametrize("systems", [True, False])
def test_three_mixed_tasks_are_told_apart_with_and_without_system_prompts(systems: bool) -> None:
    """By the system prompt where there is one, else by the shape of the answers; kinds and volumes are right."""
    rows, truth = mixed(systems=systems)
    found = discover(rows, DiscoverRecipe())
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
    rows, _ = mixed()
    by_kind = {c.kind: c for c in discover(rows, DiscoverRecipe()).candidates}
    inbox, chat = by_kind["classes"], by_kind["text"]
    assert {name for name, _ in inbox.labels} == {m["queue"] for m in INBOX}
    assert inbox.closed.low >= 0.9
    assert 2.0 < inbox.entropy_bits < 4.0
    assert (inbox.worth, chat.worth) == ("no", "no")  # 6 USD a month pay nobody back
    assert "pays back" in inbox.reasons[0]
    assert "not bounded" in chat.reasons[0]
    dear = [replace(r, completion=replace(r.completion, cost_usd=0.2)) for r in rows]
    worth = {c.kind: c.worth for c in discover(dear, DiscoverRecipe()).candidates}
    assert worth == {"classes": "unclear", "fields": "unclear", "text": "no"}  # 2,700 rows of 3,860
    twice = [replace(r, request=replace(r.request, id=f"{r.request.id}/{k}")) for r in dear for k in range(2)]
    assert {c.kind: c.worth for c in discover(twice, DiscoverRecipe()).candidates}["classes"] == "unclear"  # repeats prove nothing
    many = [replace(r, request=replace(r.request, fields={"text": r.request.text + " and again" * (i % 2)})) for i, r in enumerate(twice)]
    assert {c.kind: c.worth for c in discover(many, DiscoverRecipe()).candidates}["classes"] == "yes"
    free = [replace(r, completion=replace(r.completion, cost_usd=None)) for r in many]
    assert {c.kind: c.worth for c in discover(free, DiscoverRecipe()).candidates}["classes"] == "unclear"
    priced = discover(free, DiscoverRecipe(usd_per_million_in=10.0, usd_per_million_out=100.0)).candidates[0]
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
            messages = [{"role": "system", "content": "Sort the message."}, {"role": "user", "content": f"maria{i}@example.com: {m['text']}"}]
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
