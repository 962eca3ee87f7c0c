"""The sums of what was served are the sums of the log's rows, however the rows came."""

from collections import defaultdict

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from overproof.data import Completion, Request, Served, TrafficRecord
from overproof.store.local import Db
from overproof.store.logs import TrafficLog
from overproof.store.project_store import open_store
from overproof.store.schema import TRAFFIC_SCHEMA
from overproof.store.served import ServedDays


def row(n, *, at="2026-03-31T23:59:59+00:00", route="teacher", reason="stage", usd=None, weight=1.0, piece="a", text="x"):
    """One row of the gateway."""
    served = Served(route=route, reason=reason, stage="canary", endpoint="/v1", status=200, latency_s=0.1, overhead_s=0.0, task="t", release="r", slice=piece, weight=weight)
    return TrafficRecord(request=Request(id=f"q{n}", fields={"text": text}, at=at), completion=Completion(text="y", value="y", model="m", cost_usd=usd), served=served)


ROWS = st.lists(
    st.tuples(
        st.sampled_from(["2026-02-28T10:00:00+00:00", "2026-03-31T23:59:59+00:00", "2026-04-01T00:00:00+00:00"]), st.sampled_from(["student", "teacher"]),
        st.sampled_from(["confident", "outage"]), st.none() | st.floats(0, 1), st.sampled_from([1.0, 2.5]), st.sampled_from(["a", "b"]),
    ), max_size=25,
)  # fmt: skip


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=ROWS)
def test_sums_are_those_of_the_rows(rows, tmp_path_factory) -> None:
    """Every row counts once, by its month, slice and route; imported rows, which nobody served, and repeated ones count nothing."""
    with open_store(tmp_path_factory.mktemp("s")) as store:
        made = [row(i, at=at, route=route, reason=why, usd=usd, weight=w, piece=s) for i, (at, route, why, usd, w, s) in enumerate(rows)]
        plain = TrafficRecord(request=Request(id="p", fields={"text": "x"}, at="2026-03-01T00:00:00+00:00"), completion=Completion(text="y", value="y", model="m", cost_usd=9.0))
        store.traffic.append([*made, plain], "test")
        store.traffic.append(made, "test")
        wanted = defaultdict(lambda: [0, 0.0, 0, 0.0, 0.0, 0.0])
        for at, route, why, usd, w, s in rows:
            one = wanted[at[:7], s, "outage" if why == "outage" else route]
            part = (1, w, usd is not None, w if usd is not None else 0.0, w * (usd or 0.0), w * (usd or 0.0) ** 2)
            one[:] = [a + b for a, b in zip(one, part, strict=True)]
        found = {(o.month, o.slice, o.route): [o.rows, o.requests, o.priced, o.weight, o.usd, o.usd2] for o in store.served.months("t")}
        assert found.keys() == wanted.keys()
        for key, sums in found.items():
            assert sums == pytest.approx(wanted[key])


def test_a_row_that_is_replaced_leaves_the_sums(tmp_path) -> None:
    """An import that takes a row's place takes its cost away as well."""
    with open_store(tmp_path) as store:
        store.traffic.append([row(1, usd=1.0), row(2, usd=2.0)], "test")
        store.traffic.append([row(1, usd=5.0, piece="b", text="other")], "test", replace=True)
        assert [(o.slice, o.rows, o.usd) for o in store.served.months("t")] == [("a", 1, 2.0), ("b", 1, 5.0)]


def test_an_older_log_is_summed_when_it_is_opened(tmp_path) -> None:
    """A store from before the sums were kept has them after its first opening, the same as if it had kept them."""
    path = tmp_path / "traffic.db"
    old = Db(path, TRAFFIC_SCHEMA[:2])
    TrafficLog(old).append([row(i, usd=0.5, route="student" if i % 3 else "teacher") for i in range(30)], "test")
    old.close()
    db = Db(path, TRAFFIC_SCHEMA)
    assert [(o.route, o.rows, o.usd) for o in ServedDays(db).months("t")] == [("student", 20, 10.0), ("teacher", 10, 5.0)]
    with db.write() as connection:
        connection.execute("DELETE FROM record WHERE id='q0'")
    assert [o.rows for o in ServedDays(db).months("t")] == [20, 9]
    db.close()


