"""Traffic of made-up words, with repeats and sessions, for tests of the prompt set."""

import random
from datetime import UTC, datetime, timedelta

from overproof.data import Request, Traffic, TrafficRecord

START = datetime(2025, 3, 1, tzinfo=UTC)
VOCABULARY = [a + b + c for a in "bdfgk" for b in "aeiou" for c in ("lmo", "nto", "rsa", "pti", "zzu")]


def text(rng, n=16):
    return " ".join(rng.choice(VOCABULARY) for _ in range(n))


def record(i, body, *, minutes=0, session=None, **attributes):
    at = (START + timedelta(minutes=minutes)).isoformat()
    return TrafficRecord(request=Request(id=f"r{i}", fields={"text": body}, at=at, session=session, attributes=attributes))


def traffic_of(records):
    return Traffic(records=tuple(records), window=(None, None), left_out={})


def world(n, seed, *, duplicates=0.1, sessions=0.4):
    rng, bodies, records = random.Random(seed), [], []
    for i in range(n):
        bodies.append(rng.choice(bodies) if bodies and rng.random() < duplicates else text(rng))
        session = f"s{rng.randrange(n // 4)}" if rng.random() < sessions else None
        records.append(record(i, bodies[-1], minutes=i, session=session))
    return traffic_of(records)
