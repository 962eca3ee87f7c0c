"""The tables of overproof.toml as frozen records, each key with its type, range and default."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from overproof.settings_retention import RetentionTable
from overproof.task import Bar, Slice

KEPT_RIGHT = 0.97
STAGE_PATTERN = r"^(shadow( \d+[dhm])?|canary \d+(\.\d+)?%( \d+[dhm])?|full)$"
STRICT = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)

Fraction = Annotated[float, Field(ge=0, le=1)]
OpenFraction = Annotated[float, Field(gt=0, lt=1)]
Money = Annotated[float, Field(ge=0)]
Count = Annotated[int, Field(ge=1)]
Days = Annotated[str, Field(pattern=r"^\d+d$")]
Name = Annotated[str, Field(min_length=1)]


@dataclass(frozen=True, kw_only=True, slots=True)
class TaskTable:
    """[task]: the bounded job."""

    __pydantic_config__ = STRICT
    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]
    """Lower-case letters, digits and dashes."""
    input: Annotated[tuple[Name, ...], Field(min_length=1)]
    """Names of the input fields, in the order in which they are joined."""
    output: Mapping[str, Any]
    """What an answer is, one of: { classes = ["label one", "label two"] }, { fields = { order_id = "text?", amount = "number" } }, { text = { same_at = 0.8 } }. See [outputs](outputs.md)."""
    prompt: str
    """File with the teacher's instructions; identified by its bytes."""
    out_of_scope: str = ""
    """The class for requests that are not the task's; by it the score that spots such requests is chosen."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Owner:
    """[owner]: the person who answers for the student; the gate refuses without one."""

    __pydantic_config__ = STRICT
    name: Name
    """A person, not a team."""
    email: Name
    """The person's own address."""
    deputy: str = ""
    """Somebody else, who takes over."""
    review_every: Days = "90d"
    """From 7d to 180d."""

    @property
    def review_days(self) -> int:
        """Days between two reviews."""
        return int(self.review_every[:-1])


@dataclass(frozen=True, kw_only=True, slots=True)
class TrafficTable:
    """[traffic]: which rows of the log a run works on."""

    __pydantic_config__ = STRICT
    source: str = "log"
    """"log" is what `overproof import` filled; "jsonl:logs/*.jsonl" reads files, with any importer's name."""
    window: Days | None = None
    """The last so many days of the log, counted from its newest row; absent for all."""
    columns: Mapping[str, str] = field(default_factory=dict)
    """Role or input field to column of the log, where they differ: { gold = "queue" }."""
    template: str = ""
    """The frame of the logged prompts, with {field} for every input field; absent where the task's prompt or the last
    user message says it."""

    @property
    def window_days(self) -> int | None:
        """Days, or None for all."""
        return int(self.window[:-1]) if self.window else None


@dataclass(frozen=True, kw_only=True, slots=True)
class PrivacyTable:
    """[privacy]: what is replaced before a row, an answer or a message is written anywhere."""

    __pydantic_config__ = STRICT
    redact: tuple[Literal["secrets", "email", "phone", "card", "iban", "national_id", "ip", "person", "location"], ...] = (
        "secrets", "email", "phone", "card", "iban", "national_id", "ip",
    )  # fmt: skip
    """Kinds of entities; "person" and "location" need the extra `privacy`."""
    mode: Literal["surrogate", "mask", "off"] = "surrogate"
    """"surrogate" keeps equal entities equal, "mask" tells only their kind, "off" writes all as it came and needs `reason`."""
    reason: str = ""
    """Why nothing is replaced; goes into the decisions log."""
    sessions: Literal["keep", "hash"] = "keep"
    """"hash" replaces every session id, also where it looks like nobody's; "keep" only those in which something is found."""
    language: Annotated[str, Field(pattern=r"^[a-z]{2}$")] = "en"
    """Language that person and location are read in."""
    retention: RetentionTable = field(default_factory=RetentionTable)
    """Table [privacy.retention]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptSetTable:
    """[promptset]: how rows are chosen and split."""

    __pydantic_config__ = STRICT
    requests: Annotated[int, Field(ge=50)] | None = None
    """The most rows to work on; absent for all."""
    seed: int = 0
    """Seed of every draw."""
    test_share: OpenFraction = 0.2
    """Share of rows that is sealed."""
    calibration_share: OpenFraction = 0.2
    """Share of rows for temperature, choice and plan."""
    split: Annotated[str, Field(pattern=r"^(time|attribute:.+)$")] = "time"
    """"time" seals the newest rows; "attribute:NAME" reads train, calibration or test from the rows."""
    match: tuple[Name, ...] = ()
    """Attributes whose shares have to match the live traffic."""
    mend: bool = True
    """Let reviewed rows relabel unreviewed training rows, where a held-out check shows that it helps."""
    near_duplicates: bool | Literal["minhash"] = True
    """Find near-duplicates, not only exact ones; "minhash" is the same as true."""
    clusters: Annotated[int, Field(ge=0, le=200)] = 20
    """Groups of like messages whose shares have to match the live traffic as well; 0 for none."""
    boost: bool = True
    """Draw critical slices that lack rows beyond their share; in the test set the extra rows count in their slice alone."""
    supplement: str = ""
    """File of written rows that training gets beside the traffic; never calibration or test."""
    supplement_cap: Annotated[float, Field(gt=0, le=0.5)] = 0.1
    """Largest part of the training rows that may be written rows."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TeacherTable:
    """[teacher]: the exact model that answers today, and under which terms its answers are used."""

    __pydantic_config__ = STRICT
    use: Name
    """Part name: "openai.v1", "anthropic.v1", "recorded.v1" or "local.v1"."""
    model: str = ""
    """Exact id with a date or version; an alias that moves is refused."""
    revision: str = ""
    """Revision or fingerprint; for recorded answers the digest of the recording, taken by itself."""
    provider: str = ""
    """Shown name; from the address where absent."""
    base_url: str = ""
    """Address of the API, up to and including /v1."""
    api_key_env: str = ""
    """Name of the environment variable that holds the key; never the key."""
    terms: str = ""
    """File of the attestation: who read which clause, when."""
    distribution: Literal["internal", "hosted", "distributed"] = "internal"
    """Who gets the student: own use, callers of a service, or whoever gets the weights."""
    path: str = ""
    """local.v1: the GGUF file, or "package:PACKAGE/FILE". recorded.v1: file of the recording, in its own form or in any that `overproof import` reads, or several by a pattern; absent where the traffic log holds the answers."""
    samples: Count = 1
    """Answers per request."""
    hard_samples: Count | None = None
    """Answers per request where the first ones disagree or `extra_on` names it."""
    extra_on: tuple[Name, ...] = ()
    """Labels and slices that always get `hard_samples`."""
    budget_usd: Money | None = None
    """Cap over all runs; the next call is not made where it could cost more than is left."""
    price_in_usd_per_million: Money | None = None
    """USD per million prompt tokens."""
    price_out_usd_per_million: Money | None = None
    """USD per million answer tokens."""
    price_cached_usd_per_million: Money | None = None
    """USD per million prompt tokens that the provider reads from its cache; as any other where absent."""
    price_cache_write_usd_per_million: Money | None = None
    """anthropic.v1: USD per million prompt tokens written to the cache; 1.25 times prompt tokens where absent."""
    mode: Literal["live", "batch"] = "live"
    """"batch" asks through the provider's batch API: cheaper, hours later, and a killed run finds its batch again."""
    price_batch_factor: Annotated[float, Field(gt=0, le=1)] = 0.5
    """What a batch costs, relative to the prices above."""
    requests_per_minute: Count | None = None
    """What the account allows; from the provider's headers where absent."""
    tokens_per_minute: Count | None = None
    """What the account allows; from the provider's headers where absent."""
    extra_below: OpenFraction | None = None
    """Rows whose first answer the teacher itself gives less than this chance get `hard_samples`; needs logprobs."""
    samples_by: Mapping[str, Count] = field(default_factory=dict)
    """Slice to first samples there: { enterprise = 3 }."""
    repeat: Annotated[int, Field(ge=0)] = 100
    """Random rows that are asked twice, to measure how often the teacher agrees with itself; 0 for none."""
    canaries: str = ""
    """JSON lines of fixed prompts, re-asked at the start of each labelling run."""
    on_canary: Literal["stop", "report"] = "stop"
    """What to do where canary answers changed by more than noise."""
    on_fingerprint: Literal["stop", "report"] = "report"
    """What to do where the provider's fingerprint changes between labels."""
    agreement: Literal["majority", "dawid-skene"] = "majority"
    """How a [[committee]] comes to one label."""
    temperature: Annotated[float, Field(ge=0, le=2)] = 0.0
    """Sampling temperature."""
    max_tokens: Count = 64
    """Most answer tokens; a longer answer is cut and never becomes a label."""
    concurrency: Annotated[int, Field(ge=1, le=512)] = 8
    """Calls in flight."""
    timeout_s: Annotated[float, Field(gt=0)] = 60.0
    """Seconds for one whole call."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further options of the part, as the table [teacher.options]."""


@dataclass(frozen=True, kw_only=True, slots=True)
class MemberTable(TeacherTable):
    """[[committee]]: another teacher beside [teacher], with keys of the same names; the cap is that of [teacher]."""

    __pydantic_config__ = STRICT
    name: str = ""
    """Shown name, unique; the model where absent."""
    arbiter: bool = False
    """Asked only where the others disagree."""


@dataclass(frozen=True, kw_only=True, slots=True)
class JudgeTable(TeacherTable):
    """[judge]: a model that says whether labels, or a student's texts, are right, with keys named as in [teacher]; off where `use` is empty."""

    __pydantic_config__ = STRICT
    use: str = ""
    """Part name; empty asks nobody."""
    prompt: str = ""
    """File with the judge's instructions; a built-in one that quotes the task's prompt where absent."""
    may: Literal["mark", "drop"] = "mark"
    """"drop" lets it drop training rows, and only where reviewed rows show that most of what it objects to is wrong."""
    share: Annotated[float, Field(gt=0, le=1)] = 0.2
    """The most of the training rows that it is asked about."""
    most: Count = 1000
    """The most training rows that it is asked about, whatever their share; of texts the most served answers."""
    max_tokens: Count = 16
    """Most answer tokens; its answer is one word."""


RUNTIMES = ("auto", "onnx-fp32", "onnx-blocks8", "onnx-int8", "openvino-fp32", "openvino-bf16", "openvino-int8")
"""What `runtime` of a [[student]] may say, where its part has runtimes to choose from."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Part:
    """One [[student]], [[baseline]] or [[verify]]: a part and its options."""

    use: str
    name: str
    """Shown name, unique among candidates."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Whatever else the table says; the part's own options."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OptimiseTable:
    """[[baseline]] optimise: a search over instructions and examples, on training rows alone."""

    __pydantic_config__ = STRICT
    calls: Annotated[int, Field(ge=8)] = 400
    """The most questions that the search may ask; answers that an earlier run has bought count, and cost nothing again."""
    seed: int = 0
    """Seed of the rows and examples that are drawn."""


@dataclass(frozen=True, kw_only=True, slots=True)
class AskedTable:
    """What a [[baseline]] that is asked like a teacher says to the run; all other keys are options of its part."""

    __pydantic_config__ = STRICT
    shots: Annotated[int, Field(ge=0)] = 0
    """Examples in the prompt, spread over the labels; with `optimise` the number that candidates show, 8 where absent."""
    of_teacher: Literal["", "quantised", "cheaper"] = ""
    """What it is to the teacher: its own weights "quantised", or a "cheaper" model of its family; the verdict names it so."""
    optimise: OptimiseTable | None = None
    """Search for a better prompt first: { calls = 400, seed = 0 }."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CostsTable:
    """[costs]: what distilling costs once, besides labels and training time, which are measured."""

    __pydantic_config__ = STRICT
    review_hours: Annotated[float, Field(ge=0)] = 0.0
    """Hours that people spend on reviews."""
    review_usd_per_hour: Money = 0.0
    """Price of such an hour."""
    other_usd: Money = 0.0
    """Anything else that is paid once, for example somebody's time to set it up."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SuspicionTable:
    """[[verify]] use = "suspicion.v1": a rule that reads all training rows at once."""

    __pydantic_config__ = STRICT
    drop: bool = False
    """Leave marked rows out; otherwise they are only marked."""
    folds: Annotated[int, Field(ge=2, le=20)] = 5
    """Parts that the rows are cut into; each is judged by a model of the others."""
    at_most: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Largest share of the training rows that is marked, the most suspicious first: a model that doubts more of them
    knows less than the teacher."""


@dataclass(frozen=True, kw_only=True, slots=True)
class BarsTable:
    """[bars]: the least that each metric may be."""

    __pydantic_config__ = STRICT
    accuracy: Fraction | None = None
    """Against gold."""
    fidelity: Fraction | None = None
    """Agreement with the teacher."""
    ece: Fraction | None = None
    """The most that stated confidence may be off, on average."""
    field_f1: Fraction | None = None
    """For records: micro F1 over all fields as served, against gold."""
    fields: Mapping[str, Fraction] = field(default_factory=dict)
    """For records: the same for one field, as [bars.fields] total = 0.99."""
    similarity: Fraction | None = None
    """For texts: mean similarity to gold as served."""
    judged: Fraction | None = None
    """For texts: share of the student's served answers that do what the instructions ask, as [judge] says, corrected by people's words."""
    min_n: Annotated[int, Field(ge=0)] = 0
    """Below so many rows a bar is undecided."""

    @property
    def bars(self) -> tuple[Bar, ...]:
        """Accuracy and fidelity as bars."""
        return _bars(self.accuracy, self.fidelity, self.min_n)

    @property
    def by_judge(self) -> Bar | None:
        """The bar on what the judge of texts says; None where there is none."""
        return None if self.judged is None else Bar(metric="judged", at_least=self.judged, min_n=self.min_n)

    @property
    def written(self) -> tuple[Bar, ...]:
        """Bars within written answers: "field_f1" over all, "f1 FIELD" for one, "similarity" of texts."""
        pairs = {"field_f1": self.field_f1, "similarity": self.similarity} | {f"f1 {name}": bar for name, bar in self.fields.items()}
        return tuple(Bar(metric=name, at_least=bar, min_n=self.min_n) for name, bar in pairs.items() if bar is not None)


@dataclass(frozen=True, kw_only=True, slots=True)
class SliceTable:
    """[[slice]]: a segment with bars of its own."""

    __pydantic_config__ = STRICT
    name: str = ""
    """Unique."""
    where: Mapping[str, str | tuple[str, ...]] | str | None = None
    """{ attribute = "value" } or a list of values, all must hold; or "module:function"."""
    by: str | None = None
    """An attribute: one slice per value that the data has."""
    critical: bool = False
    """A critical slice can't be waived."""
    min_n: Annotated[int, Field(ge=0)] = 0
    """Below so many rows its bars are undecided."""
    accuracy: Fraction | None = None
    """Overrides [bars] accuracy here."""
    fidelity: Fraction | None = None
    """Overrides [bars] fidelity here."""

    def slice_of(self, name: str, where: Mapping[str, str | tuple[str, ...]] | str) -> Slice:
        """The slice of this table under a name and a rule."""
        bars, function = _bars(self.accuracy, self.fidelity, self.min_n), where if isinstance(where, str) else None
        pairs = {} if isinstance(where, str) else where
        rule = tuple((key, (value,) if isinstance(value, str) else value) for key, value in pairs.items())
        return Slice(name=name, where=rule, function=function, critical=self.critical, bars=bars)


@dataclass(frozen=True, kw_only=True, slots=True)
class ServeTable:
    """[serve]: when the student answers, and what answering costs."""

    __pydantic_config__ = STRICT
    accuracy_when_confident: OpenFraction | None = None
    """Share of kept answers that have to be right; sets the fallback thresholds. 0.97 where neither dial is set."""
    wrong_when_served: OpenFraction | None = None
    """The other dial: the most of all requests that may be kept and wrong; one threshold for all traffic."""
    cpu_usd_per_hour: Money = 0.05
    """Price of one CPU core; about what large clouds ask."""
    out_of_scope_share: Annotated[float, Field(ge=0, le=0.5)] = 0.01
    """The most of the task's own requests that may go to the teacher for looking foreign; 0 turns that route off."""
    mixed_share: Annotated[float, Field(ge=0, le=0.5)] = 0.03
    """The most of the task's own requests that may go to the teacher for looking put together; 0 turns that route off."""
    requests_per_month: Count | None = None
    """For money per month; measured from the log where absent."""
    stages: Annotated[tuple[Annotated[str, Field(pattern=STAGE_PATTERN)], ...], Field(min_length=1)] = ("shadow 7d", "canary 5% 3d", "full")
    """The way to full, in order: "shadow 7d", "canary 5% 3d" (any number of these, rising), "full". The time is the least one (d, h or m)."""
    promote: Literal["by-hand", "by-evidence"] = "by-hand"
    """"by-evidence" moves on by itself once time and evidence are there; a rollback always comes by itself."""
    fidelity_below: OpenFraction | None = None
    """Roll back once kept answers surely agree with the teacher less often than this; 0.01 below the kept-right dial where absent."""
    errors_above: OpenFraction = 0.01
    """Roll back once the student surely fails (no answer, too late, not the asked form) on more of its requests than this."""
    hold_deadline: Annotated[str, Field(pattern=r"^\d+[dhm]$")] = "30d"
    """A stage that is held for want of evidence longer than this goes back to the teacher."""
    compare: Annotated[float, Field(gt=0, le=1)] = 0.1
    """Share of the student's own answers in canary and full for which the teacher is asked as well, after the answer, so that errors are seen; every request of a critical slice is compared in canary."""
    on_outage: Literal["teacher", "student"] = "teacher"
    """Whether a certified student stands in while the teacher can't be reached, with a header that says so."""

    @property
    def kept_right(self) -> float | None:
        """The first dial as it holds; None where the other one is set."""
        return self.accuracy_when_confident or (KEPT_RIGHT if self.wrong_when_served is None else None)

    @property
    def overall_bar(self) -> float:
        """The most of the kept answers that may disagree with the teacher, over all traffic."""
        return 1.0 - (self.fidelity_below or (self.kept_right or KEPT_RIGHT) - 0.01)


@dataclass(frozen=True, kw_only=True, slots=True)
class GatewayTable:
    """[gateway]: how `overproof serve` listens, what it forwards to, and what it keeps. Nothing in here changes a result."""

    __pydantic_config__ = STRICT
    host: Name = "127.0.0.1"
    """Address to listen at; any but this machine's own needs keys."""
    port: Annotated[int, Field(ge=0, le=65535)] = 4000
    """0 takes a free one and says which."""
    upstream: str = ""
    """Base URL that requests go on to, with its `/v1`; [teacher] base_url where empty. Never anything that a caller names."""
    api_key_env: str = ""
    """Environment variable with the key that goes upstream; where empty, the caller's own Authorization header goes on, unless keys of ours are asked for."""
    allow_private: bool = False
    """Admit plain http and addresses of this machine or the local network as upstream."""
    allowed_hosts: tuple[Name, ...] = ()
    """Host names that callers may use, beside the address that is listened at and this machine's own names."""
    allowed_origins: tuple[Name, ...] = ()
    """Origins of web pages that may call, as https://app.example.org."""
    aliases: tuple[Name, ...] = ()
    """Further model names that mean this task, beside overproof/TASK."""
    session: Name = "user"
    """Where the key comes from that keeps one caller in one arm: "user", "metadata.NAME" or "header.NAME"."""
    timeout_s: Annotated[float, Field(gt=0, le=3600)] = 600.0
    """The longest that the upstream may take for a whole answer."""
    deadline_s: Annotated[float, Field(gt=0, le=60)] = 0.05
    """The longest that the student may take before the teacher is asked."""
    workers: Annotated[int, Field(ge=1, le=64)] = 2
    """Threads that run the student, one core each."""
    max_body_bytes: Annotated[int, Field(ge=1024, le=67_108_864)] = 1_048_576
    """Longest request."""
    max_concurrent: Annotated[int, Field(ge=1, le=100_000)] = 256
    """Requests in flight of one key, or of all callers without keys."""
    capture: Literal["group", "before_ack", "off"] = "group"
    """"group" answers first and commits within 30 ms; "before_ack" answers once the row is durable; "off" keeps nothing."""
    queue_records: Annotated[int, Field(ge=100)] = 10_000
    """Rows that may wait for the disk; further ones are drawn, then dropped, and counted."""
    shadow_mb: Annotated[int, Field(ge=64)] = 1024
    """Memory that the process of a shadow student may take."""
    stale_s: Annotated[float, Field(ge=1, le=86400)] = 300.0
    """So long the last state that was read goes on to serve while the store can't be read; then the teacher answers everything."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ProofTable:
    """[proof]: how sure the certificate has to be."""

    __pydantic_config__ = STRICT
    delta: Annotated[float, Field(gt=0, le=0.5)] = 0.05
    """Probability that a certificate is wrong."""
    certify_share: OpenFraction = 0.5
    """Share of sealed rows that choose thresholds; the others judge the bars."""
    label: Literal["teacher", "gold"] = "teacher"
    """What the certificate that ships speaks of: agreement with the teacher, or truth; the other one stands beside it."""
    margin: OpenFraction | None = None
    """How much more often than the teacher the served system may be wrong; from the calibration rows where absent."""
    novelty: bool = True
    """Whether the rows least like the training rows are a critical slice with the overall bars."""
    ship: Literal["partial", "all"] = "partial"
    """"partial": slices that can't be certified stay with the teacher; "all": every certification slice or none."""
    looks: Annotated[int, Field(ge=1, le=12)] = 1
    """Looks planned at the same plan while labels of sealed rows still arrive; they share the error budget of one use."""
    by_cost: bool = False
    """With [serve] wrong_when_served: a threshold for each slice, moved in the order of money saved per error."""
    expires: Days = "90d"
    """How long a certificate holds after the sealed rows were opened, from 1d to 365d."""
    on_expiry: Literal["refuse", "warn"] = "refuse"
    """After that: "refuse" sends everything to the teacher, "warn" goes on and says so."""

    @property
    def expires_days(self) -> int:
        """Days that a certificate holds."""
        return int(self.expires[:-1])


@dataclass(frozen=True, kw_only=True, slots=True)
class FairnessTable:
    """[fairness]: groups that are compared as served, and terms that must not change an answer; off where empty."""

    __pydantic_config__ = STRICT
    groups: tuple[Name, ...] = ()
    """Attributes whose values are compared: errors, share sent to the teacher."""
    tolerance: OpenFraction | None = None
    """How much more often one group may be served a wrong answer than another; absent: gaps are shown and refuse nothing."""
    selected: tuple[Name, ...] = ()
    """Labels whose share in each group is shown."""
    swaps: str = ""
    """"built-in", or a JSON file of swap lists; the gate then asks that swapping their terms changes few answers."""
    flips_at_most: OpenFraction = 0.01
    """Share of pairs whose served answer may change with the term."""
    selection_ratio: OpenFraction | None = None
    """Least ratio of any group's share of a `selected` label to another's, 0.8 by the rule of four fifths; absent: shown only."""
    error_ratio: OpenFraction | None = None
    """The same of shares of wrong answers."""
    amplified: OpenFraction | None = None
    """How much larger than the teacher's a gap may be, or the share of answers that a swapped term changes; absent: shown only."""
    teacher_pairs: Annotated[int, Field(ge=0, le=20_000)] = 0
    """Pairs of each swap list on which the teacher is asked both versions; their cap is [teacher] budget_usd."""

    @property
    def fixed(self) -> list[object]:
        """What is fixed before a sealed label is read."""
        return [self.groups, self.tolerance, self.selected, *(x for x in [(self.selection_ratio, self.error_ratio, self.amplified)] if any(x))]


@dataclass(frozen=True, kw_only=True, slots=True)
class GateTable:
    """[gate]: what the gate asks beside its table; nothing in here takes a check away."""

    __pydantic_config__ = STRICT
    checks: tuple[Name, ...] = ()
    """Further checks: registered names, or "module:function" of the project's own; each takes the evidence and gives an `Answer`."""
    weaknesses_right: Annotated[float, Field(ge=0.5, lt=1)] = 0.5
    """Least share of the teacher's known mistakes, as reviews found them, on which the student must say what is true."""
    breaks_from: Annotated[float, Field(gt=0, lt=1)] = 0.15
    """Share of wrong answers in a critical slice that the planned audits must see before the next review; twice the bar where that is more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RunTable:
    """[run]: where the heavy steps run; nothing in here changes a result."""

    __pydantic_config__ = STRICT
    engine: Literal["local", "ray"] = "local"
    """"ray" cuts the work into shards for other processes or machines; needs the extra of that name."""
    workers: Annotated[int, Field(ge=1, le=1024)] = 2
    """Processes that this machine starts, and shards that are cut."""
    address: str = ""
    """Of a running Ray cluster; empty to start one here for the run."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SizingTable:
    """[sizing]: further fits that say what seeds change, what more rows would buy, and what limits each student."""

    __pydantic_config__ = STRICT
    seeds: Annotated[int, Field(ge=1, le=20)] = 3
    """Seeds that the two leading students are fitted with; the first one ships, the others only measure. 1 tries none."""
    budgets: tuple[Annotated[float, Field(gt=0, le=1)], ...] = (0.25, 0.5, 1.0)
    """Shares of the training rows that each student is fitted on, ascending to 1; empty turns sizing off."""
    rows: Annotated[int, Field(ge=100)] = 1000
    """The most calibration rows that each of these fits answers, and half as many training rows."""


def expand_slices(tables: Sequence[SliceTable], values: Mapping[str, Sequence[str]]) -> tuple[Slice, ...]:
    """
    Slices in file order, with one slice for each value where the file says `by`.

    Args:
        tables: `Project.slices`.
        values: attribute to the values that the data has.

    Returns: slices with unique names; a `by` slice is called "attribute=value".
    """
    found: list[Slice] = []
    for table in tables:
        by, one = table.by or "", {table.name: table.where or {}}
        rules: Mapping[str, Any] = {f"{by}={v}": {by: v} for v in sorted(values.get(by, ()))} if by else one
        found += [table.slice_of(name, rule) for name, rule in rules.items()]
    return tuple({s.name: s for s in reversed(found)}.values())[::-1]


def critical_slices(tables: Iterable[SliceTable], names: Iterable[str]) -> frozenset[str]:
    """
    Which certification slices are critical.

    Args:
        tables: [[slice]] of the project.
        names: of certification slices.

    Returns: those that a critical table names, or of which it makes one for each value.
    """
    marked = [one for one in tables if one.critical]
    return frozenset(n for n in names if any(n == t.name or (t.by and n.startswith(f"{t.by}=")) for t in marked))


def _bars(accuracy: float | None, fidelity: float | None, min_n: int) -> tuple[Bar, ...]:
    pairs = (("accuracy", accuracy), ("fidelity", fidelity))
    return tuple(Bar(metric=name, at_least=value, min_n=min_n) for name, value in pairs if value is not None)
