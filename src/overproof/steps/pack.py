"""Pack the chosen student, the reading of its confidence and its certified thresholds into a folder that serves."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from overproof.data import Folder
from overproof.errors import DataError, NotYetError
from overproof.evidence import Confidence, EvalReport, Trained
from overproof.measure.slices import OTHER
from overproof.outputs import Classes, Fields, Output, Text
from overproof.store.artifacts import Step
from overproof.students.bundle import MANIFEST, STUDENT, Bundle, load_bundle, manifest_of
from overproof.students.card import RELEASE, Card, Threshold, write_card
from overproof.students.files import write_json
from overproof.students.mixture import Mixture
from overproof.students.parts import load_part
from overproof.students.seen import READ_BY
from overproof.task import Slice

SELF_TESTS = 32
WRITTEN_TESTS = 8  # writing an answer takes far longer than scoring labels, and every start of a server waits for it
# Inputs of the self-test besides the labels' names. They are ours: no customer's text leaves in a bundle.
PROBES = (
    "I was charged twice for the same order, please refund one of the payments.",
    "where is my parcel??? it said tuesday 😡",
    "How do I change the e-mail address on my account?",
    "The app crashes every time I open the settings page on my phone.",
    "Please cancel my subscription before the next billing date.",
    "thanks so much, that fixed it 👍",
    "Order 48213-B, 2 pcs, EUR 1,299.00, deliver by 03/11.",
    "It smells of burning when I plug it in, and the case is hot.",
    "ok",
    "???",
    "12345",
    "Me cobraron dos veces, ¿pueden devolverme uno de los pagos?",
    "¿Dónde está mi pedido? Ya han pasado diez días.",
    "No puedo entrar en mi cuenta, la contraseña no funciona.",
    "Quisiera cancelar la suscripción cuanto antes.",
    "Muchas gracias, todo perfecto 🎉",
    "Ich habe zwei Abbuchungen für dieselbe Bestellung.",
    "Wo bleibt mein Paket? Die Sendungsnummer ist ungültig.",
    "Ich möchte mein Abo zum Monatsende kündigen.",
    "Das Gerät wird sehr heiß und riecht verschmort!",
    "Können Sie mir bitte eine Rechnung mit Umsatzsteuer schicken?",
    "J’ai été débité deux fois pour la même commande.",
    "Où est mon colis ? Le suivi n'a pas bougé depuis une semaine.",
    "Je voudrais résilier mon abonnement, s'il vous plaît.",
    "Comment puis-je changer mon mot de passe ?",
    "请问我的订单什么时候发货？",
    "注文をキャンセルしたいのですが。",
    "أين طلبي؟",
    "Где мой заказ?",
    "WHY IS NOBODY ANSWERING MY CALLS I HAVE BEEN WAITING SINCE MONDAY",
    "hello, does the price include shipping to the islands? also, will the blue one ever come back into stock? " * 4,
    "zażółć gęślą jaźń",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class PackRecipe:
    """What the bundle has to say about the task."""

    task: str
    """Name of the task."""
    input: tuple[str, ...]
    """Names of the input fields, in order."""
    slices: tuple[Slice, ...] = ()
    """The project's slices, in file order."""
    on_expiry: Literal["refuse", "warn"] = "refuse"
    """What the bundle does when its certificate has ended."""
    output: Fields | Text | None = None
    """What an answer is where it is no label; labels come from the student."""


def pack(trained: Trained, report: EvalReport, recipe: PackRecipe, *, workdir: Path) -> Folder:
    """
    Make the release bundle and load it once as a server would.

    Args:
        trained: the candidate that the report chose.
        report: the evaluation, with the certificate.
        recipe: task, input fields and slices.
        workdir: gets the bundle.

    Returns: a folder that `students.bundle.load_bundle` takes, without pickles and without training extras.
    Raises: DataError where report, recipe and candidate don't belong together; NotYetError for a slice cut by a
        function, and for a student that is named by module.
    """
    if ":" in trained.use:
        raise NotYetError(
            f"student {trained.name!r} is named by module ({trained.use!r}); a bundle names registered parts only",
            next_action="register it as an entry point of overproof.students in a package that servers install",
        )
    student = load_part(trained.use, trained.folder.path, recipe.output)
    confidence = _confidence(trained, report)
    card = Card(
        task=recipe.task,
        input=recipe.input,
        output=recipe.output or Classes(labels=tuple(student.labels)),
        candidate=trained.name,
        use=trained.use,
        confidence=confidence,
        thresholds=_thresholds(report, recipe.slices),
        label_kind=report.certificate.label_kind,
        plan_hash=report.certificate.plan_hash,
        expires=report.certificate.expires,
        on_expiry=recipe.on_expiry,
        selftest=(),
    )
    mixture = Mixture.load(trained.folder.path) if confidence.mixed else None
    card = replace(card, selftest=Bundle(card, student, mixture).probe(_texts(card.output)))
    folder = workdir / "bundle"
    # The features of training rows leave only where the bundle can't route without them.
    used = str([rule.score for rule in (*confidence.scope, *confidence.mixed)]) + str(confidence.everywhere.inputs)
    unread = [file for file, score in READ_BY.items() if score not in used]
    shutil.copytree(trained.folder.path, folder / STUDENT, ignore=shutil.ignore_patterns(*unread))
    write_card(folder / RELEASE, card)
    write_json(folder / MANIFEST, manifest_of(folder))
    load_bundle(folder)
    return Folder(path=folder)


def _confidence(trained: Trained, report: EvalReport) -> Confidence:
    if report.chosen != trained.name:
        raise DataError(
            f"the report chose {report.chosen!r}, but {trained.name!r} is to be packed",
            next_action="pack the chosen candidate; nothing is certified for any other",
        )
    for candidate in report.candidates:
        if candidate.name == trained.name and candidate.calibration is not None:
            return candidate.calibration.confidence
    raise DataError(
        f"the report has no calibration for {trained.name!r}",
        next_action="calibrate the candidate; thresholds are thresholds of calibrated confidence",
    )


def _thresholds(report: EvalReport, slices: tuple[Slice, ...]) -> tuple[Threshold, ...]:
    """Certification slices in file order, then the rest; the same first-match rule that they were certified under."""
    certified = {one.slice: one.threshold for one in report.certificate.slices}
    routed = [one for one in slices if not one.reads_label]
    for one in routed:
        if one.function is not None:
            raise NotYetError(
                f"slice {one.name!r} is cut by the function {one.function!r}, which a bundle can't carry",
                next_action="cut the slice by attributes, or route on the server that knows the function",
            )
    # A slice that nobody certified keeps its place with no threshold: its rows must not slide into a later slice.
    unknown = sorted(set(certified) - {one.name for one in routed} - {OTHER})
    if unknown:
        raise DataError(
            f"the certificate has slices {unknown!r} that the project doesn't define",
            next_action="evaluate again with the project's slices as they are now",
        )
    rows = [Threshold(slice=Slice(name=one.name, where=one.where), threshold=certified.get(one.name)) for one in routed]
    return (*rows, Threshold(slice=Slice(name=OTHER), threshold=certified.get(OTHER)))


def _texts(output: Output) -> list[str]:
    """Label names bring the task's own words, the probes four and more languages, digits, emoji and long text."""
    texts = [label.replace("_", " ") for label in output.labels[: SELF_TESTS // 2]]
    return [*texts, *PROBES[: (SELF_TESTS if texts else WRITTEN_TESTS) - len(texts)]]


PACK = Step(name="pack", version=4, fn=pack, workdir=True)
