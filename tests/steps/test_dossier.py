"""The dossier: one page that opens anywhere, shows everything with n and interval, and runs nothing."""

import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise

import pytest

from overproof.evidence import Refusal, ScopeFigure
from overproof.measure.intervals import figure
from overproof.steps.collect import Evidence
from overproof.steps.dossier import (
    DossierRecipe,
    amount,
    dollars,
    facts,
    in_words,
    page,
    percent,
    plot_view,
    seconds,
    sentence,
    size_words,
    write_dossier,
    write_reviewed_dossier,
)
from overproof.steps.gate import GateRecipe, gate, run_checks
from overproof.steps.mend import Buy, Suspect
from overproof.steps.teacher_errors import Confusion, LabelErrors, TeacherErrors
from overproof.task import Slice

RECIPE = DossierRecipe(today="2026-02-10", version="0.1.0")
GATE = GateRecipe(task="ticket-routing", owner="Dana Ruiz", deputy="Sam Ito", review_every_days=90, today="2026-02-10")
HOSTILE = "<script>alert(1)</script>\"><img src=x onerror=alert(2)>'{{ 7 * 7 }}"
SECTIONS = ["findings", "teacher", "slices", "fourfold", "certificate", "candidates", "calibration", "data",
            "disagreements", "terms", "pins"]
VOID = {"meta", "br", "img", "link", "input", "hr"}


class Page(HTMLParser):
    """Tags, texts and structure of a page; counts what is left open."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []
        self.open: list[str] = []
        self.problems: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.problems.append(f"</{tag}> at {self.getpos()}")

    def handle_data(self, data):
        if "style" not in self.open:
            self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


@pytest.fixture(scope="module")
def made(tmp_path_factory, make_world):
    """A run with a teacher that misses one label, and a slice that never occurs."""
    world = make_world(tmp_path_factory.mktemp("dossier"))
    slices = (
        Slice(name="business", where=(("tier", ("business",)),), critical=True),
        Slice(name="nobody", where=(("tier", ("gold",)),)),
    )
    evidence = world.evidence(world.report(slices=slices, teacher={"safety": 0.2}))
    return evidence, gate(evidence, GATE)


@pytest.fixture(scope="module")
def html(made) -> str:
    return page(*made, RECIPE)


def test_the_page_is_well_formed_and_has_every_section_in_order(html) -> None:
    """Tags close, ids are unique, links go to places that exist, sections stand in the order of the argument."""
    found = Page(html)
    assert found.problems == []
    assert found.open == []
    ids = [a["id"] for _, a in found.tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert [i for i in ids if i in SECTIONS] == SECTIONS
    links = [a["href"] for tag, a in found.tags if tag == "a"]
    assert links
    assert all(link.startswith("#") and link[1:] in ids for link in links)


def test_the_page_has_no_script_and_asks_nothing_of_another_machine(html) -> None:
    """No script, no event handler, no source or link outside the page, and a policy that would block them."""
    found = Page(html)
    assert not {tag for tag, _ in found.tags} & {"script", "iframe", "object", "embed", "link", "img", "base", "form"}
    for tag, attributes in found.tags:
        assert not [name for name in attributes if name.startswith("on")], tag
        assert not {"src", "srcset", "action", "xlink:href"} & set(attributes)
    assert "url(" not in html
    assert "@import" not in html
    assert "http://" not in html
    assert "https://" not in html
    assert "default-src 'none'" in html


def test_hostile_text_stays_text_wherever_it_comes_from(made) -> None:
    """Requests, labels, names, statements, clauses, digests: all are shown as they are and none becomes a tag."""
    evidence, verdict = made
    report, data = evidence.report, evidence.data
    candidates = tuple(
        replace(c, slices=tuple(replace(s, slice=HOSTILE) if s.kind != "all" else s for s in c.slices))
        for c in report.candidates
    )
    evil = replace(
        evidence,
        report=replace(
            report, candidates=candidates, reason=HOSTILE, cheaper=HOSTILE,
            weak_labels=tuple(replace(s, slice=HOSTILE) for s in report.weak_labels),
            disagreements=(
                replace(report.disagreements[0], text=HOSTILE, teacher=HOSTILE, student=HOSTILE, gold=HOSTILE,
                        request_id=HOSTILE),
            ),
            certificate=replace(
                report.certificate, assumptions=(HOSTILE,), window=(HOSTILE, None), label_kind=HOSTILE,
                slices=tuple(replace(s, slice=HOSTILE) for s in report.certificate.slices),
            ),
        ),
        data=replace(
            data, notes=(HOSTILE,), funnel={HOSTILE: 1}, counts={HOSTILE: 1}, models={HOSTILE: 1}, leaks={HOSTILE: 0},
            match=(replace(data.match[0], attribute=HOSTILE, value=HOSTILE),),
            pin=replace(data.pin, model=HOSTILE, base_url=HOSTILE, revision=HOSTILE, parameters={HOSTILE: HOSTILE}),
            clearance=replace(data.clearance, statement=HOSTILE, cited=(HOSTILE,), attested_by=HOSTILE,
                              obligations=(HOSTILE,)),
        ),
        digests={HOSTILE: HOSTILE},
    )
    findings = tuple(replace(f, reason=HOSTILE, next_action=HOSTILE, slice=HOSTILE) for f in verdict.findings)
    text = page(evil, replace(verdict, task=HOSTILE, headline=HOSTILE, findings=findings), RECIPE)
    found = Page(text)
    assert found.problems == []
    assert not {tag for tag, _ in found.tags} & {"script", "img"}
    assert not [name for _, attributes in found.tags for name in attributes if name.startswith("on")]
    assert "<script" not in text
    assert found.words.count(HOSTILE) > 30
    assert "49" not in re.findall(r"alert\(2\)>'(\S+)", found.words)


def test_what_stops_the_release_stands_first_with_its_next_action(made, html) -> None:
    """The reader meets verdict, headline, then the findings that stop it, each with what to do."""
    _, verdict = made
    words = Page(html).words
    assert isinstance(verdict, Refusal)
    stops = [f for f in verdict.findings if f.outcome != "pass"]
    assert stops
    places = [words.index(verdict.headline), *(words.index(sentence(f.reason)) for f in stops)]
    assert places == sorted(places)
    for f in stops:
        assert f"Next: {f.next_action}" in words or f.next_action in words


def test_labels_where_the_teacher_is_wrong_come_first_among_the_evidence(made, html) -> None:
    """The blind spot is named before any slice, with its interval, and is called shown only if the interval is."""
    words = Page(html).words
    start, end = words.index("Labels where the teacher itself is wrong"), words.index("Slices against their bars")
    section = words[start:end]
    assert "safety" in section
    assert "shown" in section
    assert "On 1 of 6 labels" in section


def test_without_gold_the_page_says_that_nothing_is_known_about_right_and_wrong(world) -> None:
    """No gold: no accuracy is claimed anywhere, and the page says why."""
    evidence = world.evidence(world.report(n=300, gold=0.0))
    words = Page(page(evidence, gate(evidence, GATE), RECIPE)).words
    assert "can’t tell where the teacher is right" in words
    assert "right and wrong can’t be told apart" in words


def test_a_slice_without_rows_is_not_enough_data_in_words(html) -> None:
    """Status is never colour alone, and no row is never a pass."""
    row = re.search(r"<tr><th scope=\"row\">nobody.*?</tr>", html, re.DOTALL).group(0)
    assert "not enough data" in row
    assert "no rows (n = 0)" in row


def test_every_table_has_a_caption_and_headed_columns_and_every_drawing_a_name(html) -> None:
    """What a screen reader needs: captions, scopes, names of drawings, a language."""
    found = Page(html)
    tables = re.findall(r"<table.*?</table>", html, re.DOTALL)
    assert len(tables) > 8
    for table in tables:
        assert "<caption>" in table
        assert 'scope="col"' in table
    for tag, attributes in found.tags:
        if tag == "svg":
            assert attributes.get("aria-hidden") == "true" or attributes.get("role") == "img"
            assert attributes.get("aria-hidden") or "aria-label" in attributes or "aria-labelledby" in attributes
        if tag == "th":
            assert attributes.get("scope") in ("col", "row")
    assert dict(found.tags[0][1]) == {"lang": "en"} or ("html", {"lang": "en"}) in found.tags


def test_light_dark_phone_and_paper_are_provided_for(html) -> None:
    """One page for all four."""
    for needed in ("prefers-color-scheme: dark", "max-width: 40rem", "@media print", "width=device-width"):
        assert needed in html


def test_terms_are_cited_and_no_word_judges_them(html) -> None:
    """Clauses stand as quotes; no word of ours says what the law says."""
    words = Page(html).words
    assert "This is not legal advice." in words
    assert "answers belong to who wrote them" in words
    ours = words.replace("This is not legal advice.", "").replace("this is not legal advice", "").casefold()
    for word in ("allowed", "legal", "illegal", "lawful", "compliant", "complies", "permitted", "prohibited", "safe to"):
        assert not re.search(rf"\b{word}\b", ours), word


def test_every_figure_on_the_page_has_its_n(html) -> None:
    """Each interval is followed by how many rows it rests on."""
    cells = re.findall(r'<span class="iv">([^<]*–[^<]*%[^<]*)</span>', html)
    assert len(cells) > 30
    assert all(re.search(r"n = [\d,]+$", cell) for cell in cells)


def test_an_empty_run_still_makes_a_page() -> None:
    """Nothing measured is a page that says so, not a traceback."""
    evidence = Evidence()
    found = Page(page(evidence, gate(evidence, GATE), RECIPE))
    assert found.problems == []
    assert "There is no certificate." in found.words


def test_a_release_looks_like_one(made) -> None:
    """Verdict, owner and review date of a release are on its first screen."""
    evidence, refusal = made
    findings = tuple(replace(f, outcome="pass") for f in run_checks(evidence, GATE))
    from overproof.data import Folder
    from overproof.evidence import Release

    release = Release(
        id="0123456789abcdef", task="ticket-routing", findings=findings, headline="It holds.", candidate="large",
        bundle=Folder(path=evidence.trained[0].folder.path, digest="b" * 64), certificate=evidence.report.certificate,
        owner="Dana Ruiz", review_due="2026-05-11",
    )
    words = Page(page(evidence, release, RECIPE)).words
    assert "✓ Released" in words
    assert "Not released" not in words
    assert "Dana Ruiz, 2026-05-11" in words
    assert refusal.headline not in words


def test_the_json_holds_the_same_facts_without_anybodys_words_or_paths(made, world) -> None:
    """Figures, findings, digests; no request text, no path of a machine; it parses and repeats byte for byte."""
    evidence, verdict = made
    folder = write_dossier(evidence, verdict, RECIPE, workdir=world.root).path
    assert sorted(p.name for p in folder.iterdir()) == ["dossier.json", "index.html"]
    text = (folder / "dossier.json").read_text()
    value = json.loads(text)
    assert value["verdict"] == "refusal"
    assert len(value["decision"]["findings"]) == len(verdict.findings)
    assert value["evidence"]["report"]["n_test"] == 2_000
    assert value["evidence"]["report"]["certificate"]["slices"][0]["counts"]
    assert "disagreements" not in value["evidence"]["report"]
    assert "message " not in text
    assert str(evidence.trained[0].folder.path) not in text
    assert facts(evidence, verdict, RECIPE) == value
    assert page(evidence, verdict, RECIPE) == (folder / "index.html").read_text()


@pytest.fixture(scope="module")
def reviewed():
    """A report of the teacher's mistakes in which every text is hostile, more labels and pairs than the page shows."""
    labels = tuple(
        LabelErrors(label=f"{HOSTILE} {i}", missed=figure(5, 9, metric="error"), wrong_when_said=figure(1, 9, metric="error")) for i in range(25)
    )
    pairs = tuple(
        Confusion(said=HOSTILE, true=f"pair {i}", rows=4, of_said=9, low=0.1, systematic=i == 0, examples=(HOSTILE, "somebody's words"))
        for i in range(18)
    )
    return TeacherErrors(
        overall=figure(31, 200, metric="error"), labels=labels, segments={f"tier={HOSTILE}": figure(3, 20, metric="error")},
        confusions=pairs, suspects=(Suspect(label=HOSTILE, share_right=0.31, rows=140),), check=None,
        buys=(Buy(reviews=500, corrected=77.4),), notes=(HOSTILE,),
    )  # fmt: skip


def test_what_reviews_found_of_the_teacher_is_on_the_page_as_text(made, reviewed) -> None:
    """Figures with interval and n, what is shown of how many, estimates called so; hostile labels and texts stay text."""
    text = page(*made, RECIPE, teacher=reviewed)
    found = Page(text)
    assert found.problems == []
    assert found.open == []
    assert not {tag for tag, _ in found.tags} & {"script", "img"}
    assert f"wrong on {in_words(reviewed.overall)}" in found.words
    assert "n = 200" in in_words(reviewed.overall)
    for words in ("The first 20 of 25.", "The first 15 of 18.", "4 / 9", "✕ systematic", "? may be chance",
                  "right on about 31% of 140 rows", "an estimate that proves nothing", "500 reviews about 77", "somebody's words"):
        assert words in found.words, words
    assert "{{ 7 * 7 }} 19" in found.words
    assert "{{ 7 * 7 }} 20" not in found.words
    assert HOSTILE.split("'")[1] in text  # a template in a label is not run
    assert "What reviews found" not in page(*made, RECIPE)


def test_the_json_of_a_reviewed_run_has_the_counts_and_nobodys_words(made, reviewed, tmp_path) -> None:
    """The JSON travels with the bundle; a run without reviews has no such entry."""
    folder = write_reviewed_dossier(*made, reviewed, RECIPE, workdir=tmp_path)
    text = (folder.path / "dossier.json").read_text(encoding="utf-8")
    found = json.loads(text)["teacher_errors"]
    assert found["overall"]["n"] == 200
    assert found["confusions"][0]["rows"] == 4
    assert "somebody's words" not in text
    assert "What reviews found" in (folder.path / "index.html").read_text(encoding="utf-8")
    assert "teacher_errors" not in facts(*made, RECIPE)


def test_labels_of_the_plot_never_cover_each_other(made) -> None:
    """Marks lie inside the frame, and labels on one side keep a line's distance."""
    plot = plot_view(made[0].report)
    for side in ("start", "end"):
        heights = sorted(p["label_y"] for p in plot["points"] if p["anchor"] == side)
        assert all(b - a >= 17 for a, b in pairwise(heights))
    assert all(0 <= p["x"] <= 100 and 0 <= p["y"] <= plot["height"] for p in plot["points"])


def test_numbers_are_written_with_their_units() -> None:
    """Percent, money, time and size, from tiny to large, and what is not known."""
    assert (percent(0.94212), percent(None), percent(1.0, 0)) == ("94.2%", "–", "100%")
    assert (amount(0.0052), amount(1234.5), amount(0), amount(None)) == ("0.0052", "1,234.50", "0.00", "not known")
    assert (dollars(0.0052), dollars(None)) == ("0.0052 USD", "not known")
    assert (seconds(0.0042), seconds(1.234), seconds(0)) == ("4.2 ms", "1.23 s", "not measured")
    assert (size_words(91_000_000), size_words(2_300), size_words(0)) == ("91.0 MB", "2.3 kB", "–")
    assert in_words(None) == "no rows (n = 0)"
    assert (sentence("on 5 rows"), sentence("encoder.v1 may")) == ("On 5 rows.", "encoder.v1 may.")


def test_confidence_is_shown_in_figures_with_bands_and_the_score_that_watches_for_foreign_requests(world) -> None:
    """Brier, adaptive error with band and n before and after, per slice, and every compared score with its interval."""
    report = world.report(n=600)
    chosen = next(c for c in report.candidates if c.name == report.chosen)
    score = ScopeFigure(name="energy", auroc=0.91, low=0.87, high=0.94, level=0.95, method="newcombe-5", fpr=0.3)
    scope = replace(chosen.calibration.scope, table=(score,), inside=540, outside=60)
    chosen = replace(chosen, calibration=replace(chosen.calibration, scope=scope))
    report = replace(report, candidates=tuple(chosen if c.name == chosen.name else c for c in report.candidates))
    evidence = world.evidence(report)
    html = page(evidence, gate(evidence, GATE), RECIPE)
    section = html.partition('id="calibration"')[2].partition("</section>")[0]
    for words in ("Brier", "chance alone", "sealed rows, business", "n = 600", "max_logit", "0.910", "0.870–0.940", "of the sealed rows"):
        assert words in section, words
    assert f"{chosen.reliability[0].brier:.4f}" in section

