"""A walk down the whole road, every artifact read back, and what it left in the ledger."""

from overproof.pipeline import distil
from overproof.project import load_project
from overproof.store.project_store import open_store


def run(root, *overrides):
    with open_store(root) as store:
        result = distil(store, load_project(root, overrides=overrides))
        for artifact in result.artifacts.values():
            assert artifact.value is not None
        return result


def report_of(result):
    return result.artifacts["report"].value


def uses(root):
    with open_store(root) as store:
        return store.releases._db.rows("SELECT label_kind, k FROM unsealing ORDER BY label_kind, k")
