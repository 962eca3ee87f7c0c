"""The rows that flow through the house: requests, completions, sets. Frozen, keyword-only, no I/O."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

Completeness = Literal["stop", "length", "filtered", "error", "unknown"]
GOLD_SOURCES = ("log", "review-audit", "review-fix")
"""Who chose the rows that have a true label: see `Example.gold_from`."""


def digest_of(value: Any) -> str:
    """
    SHA-256 of a JSON value in one canonical spelling (sorted keys, UTF-8, no spaces).

    Args:
        value: strings, finite numbers, booleans, None, lists, tuples, string-keyed mappings.

    Returns: 64 hexadecimal digits.
    Raises: ValueError for NaN or infinity, TypeError for anything else that JSON can't say.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True, kw_only=True, slots=True)
class Folder:
    """A folder of files inside an artifact: weights, a tokenizer, a report."""

    path: Path = field(compare=False)
    """Where the files are now; absolute once the store has them."""
    digest: str = ""
    """SHA-256 over (relative path, size, SHA-256) of every file; empty until the store has them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One production input."""

    id: str
    """Unique within the traffic log."""
    fields: Mapping[str, str]
    """Input field name to text."""
    at: str | None = None
    """When it arrived, ISO 8601 in UTC; None where the log doesn't say."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    """What slices are cut by: tier, language, channel, …"""
    session: str | None = None
    """Session, thread or user that the request belongs to; rows of one session are not independent."""

    @property
    def text(self) -> str:
        """All fields, joined by a blank line in their own order."""
        return "\n\n".join(self.fields.values())

    @property
    def digest(self) -> str:
        """SHA-256 of the fields alone: two requests with the same content have the same digest."""
        return digest_of(dict(self.fields))


@dataclass(frozen=True, kw_only=True, slots=True)
class Completion:
    """One answer of a model."""

    text: str
    """Raw answer."""
    value: str | None
    """Parsed answer; None where `text` doesn't parse."""
    model: str
    """The model id that the answer came with; empty where nobody wrote it down."""
    finish: Completeness = "stop"
    """Only "stop" may become a label; a log that doesn't say is "unknown" and is treated as the log's owner says."""
    tokens_in: int | None = None
    """Prompt tokens."""
    tokens_out: int | None = None
    """Answer tokens."""
    latency_s: float | None = None
    """Seconds from request to complete answer."""
    cost_usd: float | None = None
    """What this one answer cost."""
    reason: str | None = None
    """Why the answer can't be a label; None where it can."""
    tokens_cached: int | None = None
    """How many of the prompt tokens the provider read from its cache."""
    probability: float | None = None
    """The chance that the model itself gave this answer, from its token probabilities, in [0, 1]."""
    fingerprint: str | None = None
    """The provider's fingerprint of the system that answered."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ToolCall:
    """A model's wish to run a tool instead of, or before, answering."""

    name: str
    arguments: str
    """JSON text, as the model wrote it."""
    id: str = ""
    """What the tool's result refers to; empty where the log has none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Turn:
    """One message of a conversation."""

    role: str
    """"system", "user", "assistant" or "tool"."""
    text: str
    """Its text; parts that aren't text stand as their kind in brackets."""
    calls: tuple[ToolCall, ...] = ()
    """Tools that the message asks for."""
    call_id: str = ""
    """For a tool's result: the call that it answers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrafficRecord:
    """One row of the traffic log: the request and what was served for it."""

    request: Request
    completion: Completion | None = None
    """What the caller got; None where the log holds inputs only."""
    gold: str | None = None
    """The true answer where somebody knows it; never shown to a teacher or a student."""
    source: str = ""
    """Where the row came from: file and format."""
    gold_from: str = "log"
    """See `Example.gold_from`."""
    context: tuple[Turn, ...] = ()
    """What the model saw beside the fields, in order: system prompt, other turns, tool results. Kept in the log for
    people; runs read without it, since a student sees the fields only."""
    calls: tuple[ToolCall, ...] = ()
    """Tools that the answer called."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Skipped:
    """One input row that could not be read; it is counted and kept aside, never dropped silently."""

    where: str
    """File and line, for example "logs/may.jsonl:12"."""
    reason: str
    """What was wrong with it."""
    raw: str
    """The row as found, at most 2,000 characters."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Traffic:
    """An immutable snapshot of the log window that a run works on, oldest first."""

    records: tuple[TrafficRecord, ...]
    window: tuple[str | None, str | None]
    """First and last time in the snapshot, ISO 8601; None where the log has no times."""
    left_out: Mapping[str, int]
    """Reason to count: rows of the log that are not in the snapshot."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptRow:
    """One chosen request with its weight and its place in the near-duplicate grouping."""

    request: Request
    weight: float
    """How many requests of the live traffic the row stands for, relative to the others; mean 1."""
    group: str
    """Near-duplicate group and session: rows of one group are in one split."""
    recorded: Completion | None = None
    """What the log holds as the served answer, for teachers that replay a log."""
    gold: str | None = None
    """The true answer, where known."""
    near_train: float | None = None
    """For calibration and test rows: similarity in [0, 1] to the nearest training row."""
    gold_from: str = "log"
    """See `Example.gold_from`."""
    origin: Literal["traffic", "supplement"] = "traffic"
    """"supplement": written by hand or by a machine, for training alone."""
    boost: tuple[str, ...] = ()
    """Critical slices that a test row was drawn for beyond the fair draw; it counts in these alone."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MixDistance:
    """How far the set's mix is from the live one by one view, for a plain draw and for the set as matched."""

    view: str
    """For example "tier × language" or "groups of like messages"."""
    segments: int
    before: float
    """Total variation distance of a plain draw of the same size without weights, in [0, 1]."""
    before_low: float
    before_high: float
    after: float
    """The same for the set as drawn and weighted."""
    after_low: float
    after_high: float
    """Ends of intervals at `level`."""
    n_live: int
    n_set: int
    level: float = 0.95
    method: str = "Weissman radius, effective rows"


@dataclass(frozen=True, kw_only=True, slots=True)
class SliceShare:
    """A critical slice's share of the training rows over its share of the live traffic."""

    slice: str
    ratio: float | None
    """None where the slice has no live row."""
    low: float
    high: float | None
    """Ends of the interval at `level`; None: no upper end."""
    verdict: Literal["pass", "fail", "undecided"]
    """Passes where all of the interval lies in [0.8, 1.25]."""
    n_set: int
    """Training rows in the slice, each once."""
    n_live: int
    level: float = 0.95
    method: str = "clopper-pearson, effective rows"


@dataclass(frozen=True, kw_only=True, slots=True)
class Gap:
    """Live messages that are like each other and unlike all of training: the next ones to ask the teacher about."""

    share: float
    """Of the compared live rows, in [0, 1]."""
    low: float
    high: float
    """Clopper-Pearson interval at 95 %, for a group that was found on the same rows: a hint, no test."""
    rows: int
    examples: tuple[str, ...]
    """Up to five messages, the middle one first; none of them is sealed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SliceMatch:
    """How one segment's share in the prompt set compares with its share in the live traffic."""

    attribute: str
    value: str
    live_share: float
    """Fraction of the live rows, in [0, 1]."""
    set_share: float
    """Weighted fraction of the prompt set, in [0, 1]."""
    n_live: int
    n_set: int


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptSet:
    """Requests sampled to match the live traffic, already split by group and time."""

    train: tuple[PromptRow, ...]
    calibration: tuple[PromptRow, ...]
    test: tuple[PromptRow, ...]
    funnel: Mapping[str, int]
    """Ordered: rows read, exact duplicates, near-duplicates, …, rows in each split. Every row is in one of them."""
    match: tuple[SliceMatch, ...]
    """Per attribute value, live against set."""
    distance: float
    """Total variation distance between live and set over all segments, in [0, 1]."""
    leaks: Mapping[str, int]
    """Check name to the number of rows that straddle two splits; all zero in a sound set."""
    notes: tuple[str, ...] = ()
    """What a reader of the report should know, one sentence each."""
    distances: tuple[MixDistance, ...] = ()
    """Per view, before and after matching."""
    shares: tuple[SliceShare, ...] = ()
    """Per critical slice."""
    gaps: tuple[Gap, ...] = ()
    """By falling share of traffic."""
    gap_rows: int = 0
    """Live rows that gaps were looked for among."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherPin:
    """The exact teacher: changing any of it is another teacher."""

    use: str
    """Part name, for example "openai.v1"."""
    provider: str
    model: str
    """Exact id, dated or with a revision; never an alias that moves."""
    revision: str
    """Revision, fingerprint, or the digest of the recording that is replayed."""
    base_url: str = ""
    parameters: Mapping[str, float | int | str] = field(default_factory=dict)
    """Sampling parameters, all of them."""
    prompt_digest: str = ""
    """SHA-256 of the prompt."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Clearance:
    """The permission to use a teacher's answers. Only `steps.clear` makes one."""

    id: str
    """Digest of everything below."""
    pin: TeacherPin
    registry_id: str
    """The terms entry, for example "openai-api"."""
    registry_digest: str
    posture: str
    """What the text was found to say: one of governance's closed set of words."""
    cited: tuple[str, ...]
    """Clauses relied on: document, reference, quote."""
    obligations: tuple[str, ...]
    attested_by: str
    attested_on: str
    expires: str | None
    """ISO date; None for weights bound to a revision."""
    statement: str
    """The attestor's own words."""
    student_kind: str
    distribution: str
    record: str = ""
    """The attestation's own name."""
    supersedes: tuple[str, ...] = ()
    """Earlier attestations whose labels this one takes over; labels of any other are set aside."""
    layers: tuple[str, ...] = ()
    """One line for each text that binds the use: whose model, which entry, what the entry was found to say."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RateLimits:
    """What a response said about the account's rate limits; None where it said nothing."""

    requests_per_minute: float | None = None
    tokens_per_minute: float | None = None
    requests_left: float | None = None
    """Requests that may still be made before the reset."""
    tokens_left: float | None = None
    """Tokens that may still be used before the reset."""
    requests_reset_s: float | None = None
    """Seconds until the requests are full again."""
    tokens_reset_s: float | None = None
    """Seconds until the tokens are full again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Outcome:
    """What one wire request to a teacher came to; only "ok" may become a label."""

    kind: Literal["ok", "bad", "transient", "permanent", "fatal"]
    """bad: answered, not acceptable; transient: worth a retry; permanent: never for this row; fatal: stop the run."""
    completion: Completion | None
    """The answer, also where it is bad and cost money; None where there was none."""
    reason: str
    """Why it is not ok; empty where it is."""
    http_status: int | None
    """Status of the response; None where none came or the teacher uses no HTTP."""
    retry_after_s: float | None
    """What the provider asked us to wait, in seconds."""
    fingerprint: str | None
    """The provider's fingerprint of the system that answered."""
    request_id: str | None
    """The provider's id of the request, for disputes about a bill."""
    sent: bool = True
    """False where the request certainly never reached the provider, so that nothing can be billed."""
    limits: RateLimits | None = None
    """What the response said about rate limits."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchState:
    """How a provider's batch stands."""

    id: str
    """The provider's id of the batch."""
    status: Literal["running", "ended", "failed"]
    """ended: results can be read, also where some rows expired; failed: the provider refused the whole batch."""
    reason: str = ""
    """Why it failed; empty where it didn't."""
    results: tuple[str, ...] = ()
    """Where its results are: file ids or an address, as the provider names them."""
    retry_after_s: float | None = None
    """What the provider asked us to wait before the next look."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BatchResult:
    """What became of one row of a batch."""

    custom_id: str
    """The name that the row was sent under; rows come in any order."""
    outcome: Outcome


@dataclass(frozen=True, kw_only=True, slots=True)
class Answered:
    """One prompt row with all that the teacher said."""

    row: PromptRow
    completions: tuple[Completion, ...]
    """Samples in order; empty where every try failed."""
    reason: str = ""
    """Why there is none; empty where there is."""
    decided: str | None = None
    """The label that a committee came to; None where the samples' majority decides."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """One teacher of a committee, with what it did."""

    name: str
    pin: TeacherPin
    clearance: Clearance
    """The permission for this member's answers."""
    arbiter: bool
    """True for the one that was asked only where the others disagreed."""
    answered: int
    """Rows that it gave a label for."""
    agreed: int
    """How many of these labels are the committee's."""
    spent_usd: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Committee:
    """How several teachers came to one label each row."""

    rule: str
    """"majority" or "dawid-skene"."""
    members: tuple[Member, ...]
    rows: int
    """Rows on which anybody gave a label."""
    unanimous: int
    """Rows on which all that answered agree."""
    tied: int
    """Rows on which the votes tie; without an arbiter's word the first member's label stands there."""
    arbitrated: int
    """Rows that the arbiter decided."""
    overruled: int
    """Rows on which the label is not that of most voters, since the rule weighs them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Repeat:
    """A row that the teacher was asked twice, to see how often it agrees with itself."""

    request_id: str
    first: str
    """The label of the first sample."""
    second: str
    """The label of an independent second one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CanaryRound:
    """Fixed prompts asked again, compared with what the same teacher answered before."""

    round: int
    """Counted from 0; the first ones only set the reference."""
    n: int
    """Prompts compared; 0 while there is no reference yet."""
    differ: int
    """Prompts whose answer is not the reference's."""
    alarm_at: int
    """From so many different answers on it is more than noise."""
    noise: float
    """Upper bound of the share that differs when nothing has changed, from earlier rounds."""
    p: float
    """Chance of so many different answers if nothing had changed; 1 while there is no reference."""

    @property
    def alarm(self) -> bool:
        """True iff more answers differ than noise explains."""
        return self.n > 0 and self.differ >= self.alarm_at


@dataclass(frozen=True, kw_only=True, slots=True)
class Asking:
    """How the answers came about, beyond the answers themselves."""

    repeats: tuple[Repeat, ...] = ()
    """A random subset of the rows, asked twice."""
    extra_bought: int = 0
    """Samples beyond the first ones, taken where the row looked hard."""
    extra_rows: int = 0
    """Rows that they were taken on."""
    extra_changed: int = 0
    """Rows whose label is another one because of them."""
    extra_reasons: Mapping[str, int] = field(default_factory=dict)
    """Why the row looked hard, to rows."""
    fingerprints: Mapping[str, int] = field(default_factory=dict)
    """Fingerprint of the system that answered, to labels; "" where the provider names none."""
    canaries: CanaryRound | None = None
    """The round at the start; None where the project names no canary prompts."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Answers:
    """Everything that the teacher said, by split."""

    train: tuple[Answered, ...]
    calibration: tuple[Answered, ...]
    test: tuple[Answered, ...]
    pin: TeacherPin
    clearance_id: str
    spent_usd: float
    """Cost of all answers in here, cached ones included."""
    asking: Asking = field(default_factory=Asking)
    """How they came about."""
    committee: Committee | None = None
    """Who decided; None where one teacher did."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Judgement:
    """A verifier's word on one answer."""

    keep: bool
    reason: str = ""
    """Why not; empty where kept."""
    score: float | None = None
    """In [0, 1] where the verifier has one, for example the agreement of samples."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Example:
    """A request and the label to learn or to compare with."""

    request: Request
    target: str
    """The teacher's label."""
    weight: float = 1.0
    agreement: float = 1.0
    """Share of the teacher's samples that gave `target`, in (0, 1]."""
    samples: int = 1
    gold: str | None = None
    near_train: float | None = None
    """See `PromptRow.near_train`."""
    boost: tuple[str, ...] = ()
    """See `PromptRow.boost`."""
    latency_s: float | None = None
    """The teacher's own latency on this request."""
    cost_usd: float | None = None
    """The teacher's own cost for one answer to this request."""
    label_from: str = "teacher"
    """Who the label that stands over the teacher's comes from: "teacher" where there is none, "review-audit" (a row that
    chance has chosen), "review-fix" (one picked), or "mended" (training rows only: learned from reviewed rows)."""
    gold_from: str = "log"
    """Where `gold` is from: "log", "review-audit" or "review-fix"; rows marked "review-fix" train and prove nothing."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Dropped:
    """A row that will not be learned from, with the reason and who dropped it."""

    request: Request
    split: str
    by: str
    """The verifier or step, for example "label_set.v1"."""
    reason: str
    text: str
    """The answer that was rejected, at most 500 characters."""
    target: str = ""
    """The label that the row would have had; empty where no answer was one."""
    gold: str | None = None
    """The true answer, where known: it shows whether the rule that dropped the row was right."""
    weight: float = 1.0
    """Of the row, see `PromptRow.weight`."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainSet:
    """What students are fitted on, and nothing else."""

    examples: tuple[Example, ...]
    labels: tuple[str, ...]
    """The task's labels, in its order."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CalibrationSet:
    """Development rows: temperature, choice between students, plan of the thresholds."""

    examples: tuple[Example, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class TestSet:
    """Sealed rows: read for certificates and verdicts only, each use counted."""

    __test__ = False  # not a test case, whatever pytest thinks of the name

    examples: tuple[Example, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Labelled:
    """The filter's result: three sets that can't be mixed up, and what was left out."""

    train: TrainSet
    calibration: CalibrationSet
    test: TestSet
    dropped: tuple[Dropped, ...]
    counts: Mapping[str, int]
    """"SPLIT: REASON" to rows, kept ones included."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Prediction:
    """What a candidate answers to one request."""

    value: str
    confidence: float
    """In [0, 1]."""
    calibrated: bool = False
    """True where the confidence went through a map fitted on calibration rows."""
