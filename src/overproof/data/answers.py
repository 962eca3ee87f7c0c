"""The exact teacher, the permission to use it, and all that it said."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from overproof.data.prompts import PromptRow
from overproof.data.traffic import Completion


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
