"""Replace personal data and secrets in all that a project is about to write: the same entity, the same surrogate."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

from overproof.data import Completion, Outcome, Request, Served, Skipped, ToolCall, TrafficRecord, Turn
from overproof.errors import DataError
from overproof.privacy.checks import digits_of
from overproof.privacy.found import Found, Tier
from overproof.privacy.normal import is_odd, normal
from overproof.privacy.patterns import CATEGORIES, DETECTORS, TIER, Detector, Gate
from overproof.settings import PrivacyTable

Mode = Literal["surrogate", "mask", "off"]
Row = TypeVar("Row", bound=TrafficRecord | Skipped)

TAIL = 64
"""Characters that a row cut at its cap loses at its end: half a card number matches no pattern."""
RAW_CAP = 2_000
REMEMBERED = 50_000
"""Short texts whose redaction is kept in memory: labels, attributes and answers repeat."""
REMEMBERED_PLAIN = 2_000
REMEMBERED_PROMPTS = 64
SHORT = 80
BEFORE = 40
_QUICK = re.compile(r"[\d@=\uff20]")
_RARE = ("eyJ", "-----BEGIN", "://", "%40", "AKIA", "ASIA")
_WORDS = ("pass", "pwd", "secret", "key", "token", "contrase", "clave", "kennwort", "mdp")
_LETTERS = "abcdefghijklmnop"
_TOLD = ("endpoint", "task", "release", "slice", "key")


@dataclass(frozen=True, kw_only=True, slots=True)
class Policy:
    """What is replaced, and by what."""

    redact: tuple[str, ...] = CATEGORIES
    """Categories; "person" and "location" need the `privacy` extra."""
    mode: Mode = "surrogate"
    """"surrogate" keeps equal entities equal, "mask" doesn't, "off" changes nothing."""
    sessions: Literal["keep", "hash"] = "keep"
    """"hash" replaces every session id by a keyed one, also where no pattern knows it."""

    def __post_init__(self) -> None:
        known = (*CATEGORIES, *TIER)
        if strange := [name for name in self.redact if name not in known]:
            raise DataError(
                f"[privacy] redact names {strange[0]!r}, which is none of {', '.join(known)}",
                next_action="mend [privacy] redact",
            )

    @property
    def digest(self) -> str:
        """SHA-256 over what decides the outcome."""
        return hashlib.sha256(repr((sorted(self.redact), self.mode, self.sessions)).encode()).hexdigest()


class Redactor:
    """
    Finds and replaces.

    Args:
        policy: what and how.
        key: the project's secret, at least 16 bytes; the same key gives the same surrogates.
        keep: texts that are never changed, for example the task's labels.
        tier: finds names and places where the policy asks for them.

    Raises: DataError for a surrogate policy without a key, or one that names a person without a tier.
    """

    def __init__(self, policy: Policy, *, key: bytes = b"", keep: Iterable[str] = (), tier: Tier | None = None) -> None:
        if policy.mode == "surrogate" and len(key) < 16:
            raise DataError("surrogates need the project's key", next_action="open the project's store, which makes one")
        if set(policy.redact) & set(TIER) and tier is None and policy.mode != "off":
            raise DataError(
                f"[privacy] redact names {sorted(set(policy.redact) & set(TIER))}, which no pattern can find",
                next_action="pip install 'overproof[privacy]', or take them out of [privacy] redact",
            )
        self.policy = policy
        self.counts: Counter[str] = Counter()
        """Kind of entity to replacements so far; a text that is remembered counts each time."""
        self._key = key
        self._detectors = tuple(d for d in DETECTORS if d.category in policy.redact)
        self._tier = tier
        self._keep = frozenset(keep)
        self._known: dict[str, tuple[str, tuple[str, ...]]] = {}
        self._plain: set[str] = set()
        """Short texts in which there is nothing: names, models and endpoints come with every row."""
        self._prompts: dict[str, tuple[str, tuple[str, ...]]] = {}

    def text(self, text: str, *, escaped: bool = False) -> str:
        """
        A text without what the policy names.

        Args:
            text: the text as it came.
            escaped: it is a raw log line whose JSON escapes stand for characters.

        Returns: the text; the very same object where nothing was found.
        """
        if self.policy.mode == "off" or not text or text in self._plain:
            return text
        if self._tier is None and not escaped and _harmless(text):
            if len(text) <= SHORT:
                if len(self._plain) >= REMEMBERED_PLAIN:
                    self._plain.clear()
                self._plain.add(text)
            return text
        short = len(text) <= SHORT and not escaped
        if short and (known := self._known.get(text)) is not None:
            if known[1]:  # an update by nothing takes a microsecond
                self.counts.update(known[1])
            return known[0]
        if text in self._keep:
            return text
        found = self.find(text, escaped=escaped)
        out = self._replaced(text, found) if found else text
        names = tuple(one.name for one in found)
        if names:
            self.counts.update(names)
        if short and len(self._known) < REMEMBERED:
            self._known[text] = (out, names)
        return out

    def find(self, text: str, *, escaped: bool = False) -> tuple[Found, ...]:
        """
        The entities of a text, in the order of their places, none overlapping another.

        Args:
            text: the text as it came.
            escaped: as for `text`.

        Returns: entities with places in the original.
        """
        taken: list[Found] = []
        while more := self._pass(text, taken, escaped=escaped):
            taken += more
            # What stood beside an entity may be seen only once it is gone: "(030) 1234 5678 0033 6 12 34 56 78".
            for one in more:
                text = text[: one.start] + ">" * (one.end - one.start) + text[one.end :]
        return tuple(sorted(taken, key=lambda one: one.start))

    def _pass(self, text: str, known: Sequence[Found], *, escaped: bool) -> list[Found]:
        folded = normal(text, escaped=escaped)
        taken: list[Found] = []
        low, open_gates = folded.text.lower(), dict[Gate, bool]()

        def take(one: Found) -> None:
            if not any(one.start < other.end and other.start < one.end for other in (*known, *taken)):
                taken.append(one)

        for detector in self._detectors:
            if detector.gate not in open_gates:  # most gates are shared
                open_gates[detector.gate] = bool(detector.gate(folded.text, low))
            if open_gates[detector.gate]:
                for start, end in _matches(detector, folded.text):
                    place = folded.span(start, end)
                    canonical = _canonical(detector, folded.text[start:end])
                    take(Found(name=detector.name, start=place.start, end=place.stop, canonical=canonical))
        if self._tier is not None:
            for one in self._tier.find(text):
                take(one)
        return taken

    def surrogate(self, name: str, canonical: str) -> str:
        """
        What stands for an entity: its kind and eight letters that only the project's key can make.

        Args:
            name: the kind.
            canonical: the entity in one spelling.

        Returns: for example "<EMAIL_kfbcaoem>"; without digits, so that it is never taken for a number.
        """
        if self.policy.mode == "mask":
            return f"<{name.upper()}>"
        made = hmac.new(self._key, canonical.encode("utf-8", "surrogatepass"), hashlib.sha256).digest()
        letters = "".join(_LETTERS[b >> 4] + _LETTERS[b & 15] for b in made[:4])
        return f"<{name.upper()}_{letters}>"

    def answer(self, text: str) -> str:
        """
        As `text`, for a model's answer: JSON stays JSON, also where a number is replaced by a surrogate.

        Args:
            text: the raw answer.

        Returns: the answer without what the policy names.
        """
        out = self.text(text)
        if out is text or text.lstrip()[:1] not in ("{", "["):
            return out
        try:
            json.loads(out)
        except ValueError:
            try:
                return json.dumps(self._leaves(json.loads(text)), ensure_ascii=False)
            except (ValueError, RecursionError):
                return out
        return out

    def completion(self, completion: Completion) -> Completion:
        """A completion whose text, value, model and reason are redacted; a label of the task stays as it is."""
        text = self.answer(completion.text)
        value = None if completion.value is None else self.answer(completion.value)
        reason = None if completion.reason is None else self.text(completion.reason)
        model = self.text(completion.model)
        if text is completion.text and value is completion.value and reason is completion.reason and model is completion.model:
            return completion
        return replace(completion, text=text, value=value, reason=reason, model=model)

    def outcome(self, outcome: Outcome) -> Outcome:
        """What one call to a teacher came to, redacted before the ledger sees it."""
        if self.policy.mode == "off":
            return outcome
        done = None if outcome.completion is None else self.completion(outcome.completion)
        reason = self.text(outcome.reason)
        number = None if outcome.request_id is None else self.text(outcome.request_id)
        return replace(outcome, completion=done, reason=reason, request_id=number)

    def request(self, request: Request, *, own_id: bool = False) -> Request:
        """A request whose id (but for one of our own), fields, attributes and session are redacted."""
        session = request.session
        if session is not None:
            hashed = self.policy.sessions == "hash" and not session.startswith("<SESSION_")
            session = self.surrogate("session", session) if hashed else self.text(session)
        fields, attributes = self._mapping(request.fields), self._mapping(request.attributes)
        identity = request.id if own_id else self.text(request.id)
        if (
            identity is request.id and fields is request.fields
            and attributes is request.attributes and session is request.session
        ):  # fmt: skip
            return request
        return replace(request, id=identity, fields=fields, attributes=attributes, session=session)

    def row(self, row: Row, *, own_id: bool = False) -> Row:
        """
        One row of a log as it may be written; what could not be read is redacted too, since it is kept aside.

        Args:
            row: a record, or a row that was skipped.
            own_id: the request's id was made by us, at random, and stays.

        Returns: the row, the very same object where nothing was found.
        """
        if self.policy.mode == "off":
            return row
        if isinstance(row, Skipped):
            return replace(row, where=self.text(row.where), reason=self.text(row.reason), raw=self._raw(row.raw))
        request = self.request(row.request, own_id=own_id)
        completion = None if row.completion is None else self.completion(row.completion)
        gold = None if row.gold is None else self.answer(row.gold)
        source = self.text(row.source)
        served = None if row.served is None else self._served(row.served)
        whole = row.context or row.calls
        same = (
            request is row.request and completion is row.completion and gold is row.gold and source is row.source
            and served is row.served
        )  # fmt: skip
        if same and not whole:
            return row
        context, calls = tuple(self._turn(turn) for turn in row.context), tuple(self._call(call) for call in row.calls)
        if same and (context, calls) == (row.context, row.calls):
            return row
        return replace(
            row, request=request, completion=completion, gold=gold, source=source, context=context, calls=calls, served=served
        )

    def rows(self, rows: Iterable[TrafficRecord | Skipped]) -> Iterator[TrafficRecord | Skipped]:
        """All rows of a log, one at a time, as they may be written."""
        for row in rows:
            yield self.row(row)

    def _served(self, how: Served) -> Served:
        told: dict[str, Any] = {name: getattr(how, name) for name in _TOLD}
        done: dict[str, Any] = {name: self.text(text) for name, text in told.items()}
        guess = None if how.guess is None else self.answer(how.guess)
        return how if done == told and guess == how.guess else replace(how, guess=guess, **done)

    def _turn(self, turn: Turn) -> Turn:
        text = self._prompt(turn.text) if turn.role == "system" else self.text(turn.text)
        if text is turn.text and not turn.calls and not turn.call_id:
            return turn
        calls = tuple(self._call(call) for call in turn.calls)
        return replace(turn, text=text, calls=calls, call_id=self.text(turn.call_id))

    def _prompt(self, text: str) -> str:
        """As `text`; a system prompt comes with every row of a task."""
        if (known := self._prompts.get(text)) is None:
            before = Counter(self.counts)
            out = self.text(text)
            if len(self._prompts) >= REMEMBERED_PROMPTS:
                self._prompts.clear()
            self._prompts[text] = (out, tuple((self.counts - before).elements()))
            return out
        if known[1]:
            self.counts.update(known[1])
        return text if known[0] == text else known[0]

    def _call(self, call: ToolCall) -> ToolCall:
        arguments = self.text(call.arguments, escaped=True)
        return replace(call, name=self.text(call.name), arguments=arguments, id=self.text(call.id))

    def _raw(self, raw: str) -> str:
        out = self.text(raw, escaped=True)
        return out[:-TAIL] + "…" if len(raw) >= RAW_CAP and len(out) > TAIL else out

    def _replaced(self, text: str, found: Sequence[Found]) -> str:
        pieces, last = [], 0
        for one in found:
            pieces += [text[last : one.start], self.surrogate(one.name, one.canonical)]
            last = one.end
        return "".join([*pieces, text[last:]])

    def _mapping(self, pairs: Mapping[str, str]) -> Mapping[str, str]:
        done = {self.text(key): self.text(value) for key, value in pairs.items()}
        return pairs if len(done) == len(pairs) and all(done.get(k) is v for k, v in pairs.items()) else done

    def _leaves(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {self.text(k): self._leaves(v) for k, v in value.items()}
        if isinstance(value, list):
            return [self._leaves(v) for v in value]
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return done if (done := self.text(str(value))) != str(value) else value
        return value


def redactor_of(table: PrivacyTable, *, key: Callable[[], bytes], keep: Iterable[str] = ()) -> Redactor:
    """
    The redactor that a project file asks for.

    Args:
        table: [privacy].
        key: gives the project's secret; asked for surrogates only.
        keep: texts that are never changed: the task's labels.

    Returns: the redactor.
    Raises: MissingExtra where the file asks for people or places and Presidio is not installed.
    """
    policy = Policy(redact=tuple(table.redact), mode=table.mode, sessions=table.sessions)
    wanted = sorted(set(policy.redact) & set(TIER))
    tier: Tier | None = None
    if wanted and policy.mode != "off":
        from overproof.privacy.presidio import PresidioTier

        tier = PresidioTier(wanted, language=table.language)
    secret = key() if policy.mode == "surrogate" else b""
    return Redactor(policy, key=secret, keep=keep, tier=tier)


def policy_digest(table: PrivacyTable) -> str:
    """
    What of [privacy] decides the answers that a step keeps.

    Args:
        table: [privacy].

    Returns: a digest; empty for the usual policy, so that projects which say nothing share their steps' identity.
    """
    found = Policy(redact=tuple(table.redact), mode=table.mode, sessions=table.sessions).digest
    return "" if found == Policy().digest else found


def scrub(message: str, *, redact: tuple[str, ...] = CATEGORIES) -> str:
    """
    A message for a terminal or a log file, masked; needs no project and no key.

    Args:
        message: what is about to be shown.
        redact: categories.

    Returns: the message with each entity replaced by its kind.
    """
    return Redactor(Policy(redact=redact, mode="mask")).text(message, escaped=True)


def _harmless(text: str) -> bool:
    """Whether no detector can match, told in about a microsecond: most messages have neither a digit nor an @."""
    if _QUICK.search(text) is not None or is_odd(text):
        return False
    for word in _RARE:  # plain loops: a generator costs more than what it looks at
        if word in text:
            return False
    low = text.lower()
    for word in _WORDS:  # noqa: SIM110 - as above
        if word in low:
            return False
    return True


def _matches(detector: Detector, text: str) -> Iterator[tuple[int, int]]:
    at = 0
    while (found := detector.pattern.search(text, at)) is not None:
        start, end = found.span("v") if "v" in detector.pattern.groupindex else found.span()
        if detector.unless is not None and detector.unless.search(text[max(0, found.start() - BEFORE) : found.start()]):
            at = found.end()
            continue
        if detector.check is None or detector.check(text[start:end]):
            yield start, end
            at = found.end()
            continue
        shorter = _shorter(detector.pattern, detector.check, text, start, end) if detector.shrinks else None
        if shorter is not None:
            yield start, shorter
        at = shorter or found.start() + 1


def _shorter(pattern: re.Pattern[str], check: Callable[[str], bool], text: str, start: int, end: int) -> int | None:
    """A shorter end at the edge of a word or number, where the check holds."""
    for stop in range(end - 1, start, -1):
        if text[stop - 1].isalnum() and not text[stop].isalnum():
            found = pattern.match(text, start, stop)
            if found is not None and found.end() == stop and check(text[start:stop]):
                return stop
    return None


def _canonical(detector: Detector, text: str) -> str:
    if detector.category in ("card", "phone") or detector.name == "us_ssn":
        digits = digits_of(text)
        return digits.removeprefix("00") if detector.category == "phone" else digits
    if detector.category in ("iban", "national_id"):
        return re.sub(r"[^A-Za-z0-9]", "", text).upper()
    return text.casefold().replace("%40", "@") if detector.category in ("email", "ip") else text
