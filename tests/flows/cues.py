"""A small honest generator, installed by the tests as a package of its own: it learns after which word a field's value stands."""

import itertools
import json
import math
import re
from collections import Counter

from overproof.errors import DataError
from overproof.outputs import Fields, kind_of, output_of
from overproof.students import Generated

NOTHING = "-"


class CueStudent:
    """
    "cue.v1": per field the words that its value followed; of a text the words between two learned ones.

    Args:
        cues: how many cues it keeps; with fewer it answers less.
    """

    kind = "cue.v1"

    def __init__(self, *, output, seed=0, cues=3):
        self.output, self.cues, self.parameters, self.learned = output, cues, 0, {}

    def fit(self, train, *, workdir):
        for name in self._names():
            seen = Counter()
            for e in train.examples:
                words, value = e.request.text.split(), self._values(e.target).get(name)
                seen.update(a for a, b in itertools.pairwise(words) if value is not None and b.casefold() == value.casefold())
            self.learned[name] = [[cue, count / (seen.total() + 1)] for cue, count in seen.most_common(self.cues)]
        self.parameters = sum(map(len, self.learned.values()))
        told = {"output": json.dumps(kind_of(self.output)), "cues": self.cues, "learned": self.learned}
        (workdir / "cues.json").write_text(json.dumps(told))

    def generate(self, requests):
        return [self._one(request.text.split()) for request in requests]

    def _one(self, words):
        found, sure = {}, {}
        for name, cues in self.learned.items():
            value, share = next(((b, s) for cue, s in cues for a, b in itertools.pairwise(words) if a == cue), (None, 0.3))
            found[name], sure[name] = value, share
        odds = {name: math.log(s / (1 - s)) for name, s in sure.items()}
        return Generated(value=self._write(found), score=sum(odds.values()), columns={"given": float(sum(v is not None for v in found.values()))}, fields=odds if isinstance(self.output, Fields) else {})

    def _names(self):
        return [f.name for f in self.output.fields] if isinstance(self.output, Fields) else ["thing"]

    def _values(self, target):
        if isinstance(self.output, Fields):
            return {name: None if v is None else str(v) for name, v in self.output.values(target).items()}
        return {"thing": re.sub(r"^The customer wants a |\.$", "", target)}

    def _write(self, found):
        try:
            return self.output.parse(json.dumps(found) if isinstance(self.output, Fields) else f"The customer wants a {found['thing'] or NOTHING}.")
        except DataError:
            return None

    @classmethod
    def load(cls, folder):
        raw = json.loads((folder / "cues.json").read_text())
        made = cls(output=output_of(json.loads(raw["output"])), cues=raw["cues"])
        made.learned = raw["learned"]
        made.parameters = sum(map(len, made.learned.values()))
        return made
