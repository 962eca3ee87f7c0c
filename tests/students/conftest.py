import json
from pathlib import Path

import pytest

from overproof.data import Example, Request, TrainSet

LABELS = ("billing", "delivery", "login", "praise", "never_seen")


def make_train(rows, labels=LABELS):
    examples = tuple(
        Example(
            request=Request(id=str(i), fields={"text": text}, attributes={"language": language}),
            target=label,
            weight=1.0 + (i % 3) / 2,
        )
        for i, (label, language, text) in enumerate(rows)
    )
    return TrainSet(examples=examples, labels=labels)


@pytest.fixture(scope="session")
def messages():
    return json.loads((Path(__file__).parent / "messages.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="session")
def train_set(messages):
    return make_train(messages)


@pytest.fixture(scope="session")
def of_rows():
    return make_train
