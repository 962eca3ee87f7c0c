"""Students that a shadow process has to survive, or not: named by module path, loaded in the child."""

import os
import signal
import time
from types import SimpleNamespace

from overproof.students.bundle import Answer

LABELS = ("billing", "delivery")
CARD = SimpleNamespace(labels=LABELS)


def answer(text):
    return Answer(value=None, confidence=0.25, route="teacher", cause="unsure", reason=text, slice="other", guess="billing")


def _bundle(on):
    """Plain, but for what it does to a request whose text is "now"."""

    def answers(requests):
        for one in requests:
            if one.fields["text"] == "now":
                on()
        return [answer(one.fields["text"]) for one in requests]

    return SimpleNamespace(card=CARD, answers=answers)


def sane(folder, *, manifest_sha256):
    return _bundle(lambda: None)


def raises(folder, *, manifest_sha256):
    return _bundle(lambda: 1 / 0)


def hangs(folder, *, manifest_sha256):
    return _bundle(lambda: time.sleep(600))


def spins(folder, *, manifest_sha256):
    def spin():
        while True:
            pass

    return _bundle(spin)


def crashes(folder, *, manifest_sha256):
    return _bundle(lambda: os.kill(os.getpid(), signal.SIGSEGV))


def eats(folder, *, manifest_sha256):
    def eat():
        eaten = []
        while True:
            eaten.append(bytearray(b"x" * 2**24))

    return _bundle(eat)


def foreign(folder, *, manifest_sha256):
    bundle = _bundle(lambda: None)
    good = bundle.answers
    bundle.answers = lambda requests: [Answer(value="sales", confidence=2.0, route="student", cause="confident", reason="", slice="other", guess="sales") if one.fields["text"] == "now" else good([one])[0] for one in requests]
    return bundle


def peeks(folder, *, manifest_sha256):
    """Says what of its environment it sees."""
    bundle = _bundle(lambda: None)
    bundle.answers = lambda requests: [answer(repr(sorted(key for key in os.environ if "KEY" in key)) + str(os.nice(0))) for _ in requests]
    return bundle


def slow_to_load(folder, *, manifest_sha256):
    time.sleep(600)


def never(folder, *, manifest_sha256):
    raise ValueError("this one does not load")
