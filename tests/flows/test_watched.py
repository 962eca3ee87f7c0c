from overproof.project import load_project
from overproof.runs import runs_of
from overproof.store.project_store import open_store
from overproof.watch.reference import reference_of


def test_what_a_release_was_trained_on_is_found_by_its_run(ran):
    """After a real run: the prompt set of that run, its labels, and the bundle that serves."""
    with open_store(ran) as store:
        release = store.releases.latest()
        found = reference_of(store, release)
        assert found.run.id == runs_of(store)[-1].id
        assert {row.request.id for row in found.prompts.train} == {e.request.id for e in found.artifact("labels").value.train.examples}
        assert found.bundle.card.task == load_project(ran).task.name
