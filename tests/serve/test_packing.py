"""What the upstream is asked for: of the caller's packings those that the log can read."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from overproof.serve.packing import ACCEPT, readable


@pytest.mark.parametrize(("said", "asked"), [
    (b"gzip, deflate, br, zstd", b"gzip, deflate"), (b"br;q=1.0, gzip;q=0.8, *;q=0", b"gzip;q=0.8, deflate;q=0, identity;q=0"),
    (b"br", b"identity"), (b"*", b"gzip, deflate, identity"), (b"GZIP", b"gzip"), (b"", b"identity"), (b"identity", b"identity"),
    (b"gzip;q=0, br", b"identity, gzip;q=0"), (b"br, *;q=0.5", b"gzip;q=0.5, deflate;q=0.5, identity;q=0.5"),
    (b"br, identity;q=0", None), (b"zstd, *;q=0.0", None),
])  # fmt: skip
def test_of_what_the_caller_takes_only_what_is_read_is_asked_for(said, asked):
    """In the caller's own weights; a caller who takes nothing of it is passed on as they are."""
    headers = [(b"host", b"x"), (ACCEPT, said), (b"x-odd", b"1")]
    got = readable(headers)
    if asked is None:
        assert got is headers
    else:
        assert sorted((n, sorted(v.split(b", "))) for n, v in got) == sorted([(b"host", [b"x"]), (b"x-odd", [b"1"]), (ACCEPT, sorted(asked.split(b", ")))])


def test_who_says_nothing_is_asked_nothing():
    """No header, none made."""
    headers = [(b"host", b"x")]
    assert readable(headers) is headers


ITEMS = st.lists(st.tuples(st.sampled_from(["gzip", "deflate", "br", "zstd", "identity", "*", "x-gzip", "odd"]), st.sampled_from(["", ";q=0", ";q=0.5", "; q=1"])), max_size=6)


def taken(value):
    """(named with a weight above 0, named with 0) by an independent reading."""
    pairs = {}
    for item in filter(None, (part.strip() for part in value.split(","))):
        name, _, weight = item.partition(";")
        pairs.setdefault(name.strip(), float(weight.partition("=")[2] or 1))
    return {n for n, q in pairs.items() if q > 0}, {n for n, q in pairs.items() if q == 0}


@given(ITEMS)
def test_nothing_is_asked_for_that_the_caller_refuses_or_nobody_reads(items):
    """Whatever is asked for is one that the caller takes, by name, by `*`, or as it is."""
    said = ", ".join(name + weight for name, weight in items)
    (_, got), = readable([(ACCEPT, said.encode())])
    if got == said.encode():
        return
    yes, no = taken(said)
    asked, _ = taken(got.decode())
    assert asked
    assert asked <= {"gzip", "x-gzip", "deflate", "identity"}
    for name in asked:
        assert name not in no
        assert name in yes or "*" in yes or (name == "identity" and "*" not in no)
