"""What is looked for: one row for each kind of entity, with the cheap test that mostly spares the search."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from overproof.privacy import checks

Gate = Callable[[str, str], object]
"""Of a text and the same in small letters."""

CATEGORIES = ("secrets", "email", "phone", "card", "iban", "national_id", "ip")
"""What `[privacy] redact` may name without an extra."""
TIER = ("person", "location")
"""What the optional Presidio tier adds."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Detector:
    """One kind of entity. Quantifiers are bounded, so that no text takes more than linear time."""

    name: str
    """Shown in surrogates, in capitals: "card" becomes <CARD_…>."""
    category: str
    """One of `CATEGORIES`."""
    gate: Gate
    """A cheap test of the normalised text that is true wherever the pattern can match."""
    pattern: re.Pattern[str]
    """Group "v" is what is replaced, where there is one; else all of it."""
    check: Callable[[str], bool] | None = None
    """Checksum or shape of the part that would be replaced."""
    unless: re.Pattern[str] | None = None
    """What must not stand just before the match (searched in the 40 characters before it)."""
    shrinks: bool = False
    """Whether a match whose check fails may have swallowed what follows: shorter ones are tried too."""


def _has(*words: str) -> Gate:
    def gate(text: str, _: str) -> bool:
        for word in words:  # noqa: SIM110 - a generator costs more than what it looks at
            if word in text:
                return True
        return False

    return gate


def _says(*words: str) -> Gate:
    has = _has(*words)
    return lambda _, low: has(low, low)


def _finds(pattern: str) -> Gate:
    search = re.compile(pattern).search
    return lambda text, _: search(text)


_L, _R = r"(?<![A-Za-z0-9])", r"(?![A-Za-z0-9])"
_MANY_DIGITS = _finds(r"\d(?:[^\d\n]{0,3}\d){6}")
_NOT_PHONE = re.compile(
    r"(?:order|bestell\w*|auftrag\w*|pedido|commande|tracking|sendungs?\w*|seguimiento|suivi|colis|parcel|invoice|rechnung\w*|"
    r"factura|facture|ticket|ref(?:erence|erencia|erenz)?|serial|serien\w*|part|sku|ean|isbn|imei|case|article|artikel\w*|"
    r"kunden\w*|customer|lot|batch|model|id|uuid|hash|commit|n\.?[º°o]|nr|no)\W{0,3}(?:(?:number|nummer|num[eé]ro|no|nr|n\.?[º°o]|id|is|ist|es|est|de)\W{0,3}){0,2}$",
    re.IGNORECASE,
)
_CALL = (
    r"(?:phone|tel(?:[eé]fono|[eé]phone|efon)?|mobile?|m[oó]vil|cell|handy\w*|rufnummer|call(?: me)?(?: back)?(?: at| on)?|text me(?: at| on)?|"
    r"whatsapp|fax|ll[aá]m\w+|joindre|appele[rz]\w*|rappele[rz]\w*|r[uü]ckruf\w*|anrufen|erreich\w+|ring(?: me)?|portable|unter|al)"
)
_ASSIGN_WORDS = (
    r"(?:pass(?:word|wd|phrase|code|wort)|pwd|secret(?:[ _-]?access)?(?:[ _-]?key)?|api[ _-]?key|access[ _-]?key|auth[ _-]?token|access[ _-]?token|"
    r"refresh[ _-]?token|token|client[ _-]?secret|private[ _-]?key|contrase[ñn]a|clave|kennwort|mot de passe|mdp)"
)
_VERSION = re.compile(r"(?:v|version|versión|firmware|build|release|fw|sw|update)[\s:=]{0,3}$", re.IGNORECASE)

_KEYS = (
    ("anthropic_key", (), r"sk-ant-[A-Za-z0-9_-]{20,250}"),
    ("openai_key", ("sk-",), r"sk-(?!ant-)(?:proj-|svcacct-|admin-|or-v1-)?[A-Za-z0-9_-]{20,250}"),
    ("aws_key_id", ("AKIA", "ASIA"), r"(?:AKIA|ASIA)[A-Z0-9]{16}"),
    ("github_token", ("ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_"), r"(?:gh[pousr]_[A-Za-z0-9]{30,255}|github_pat_[A-Za-z0-9_]{22,255})"),
    ("gitlab_token", ("glpat-",), r"glpat-[A-Za-z0-9_-]{20,64}"),
    ("slack_token", ("xoxa-", "xoxb-", "xoxe-", "xoxo-", "xoxp-", "xoxr-", "xoxs-", "xapp-"), r"(?:xox[abeoprs]-|xapp-)[A-Za-z0-9-]{10,250}"),
    ("slack_webhook", ("hooks.slack.com",), r"hooks\.slack\.com/services/[A-Za-z0-9/]{20,100}"),
    ("google_key", ("AIza",), r"AIza[A-Za-z0-9_-]{35}"),
    ("stripe_key", ("k_live_", "k_test_", "whsec_"), r"(?:[srp]k_(?:live|test)_[A-Za-z0-9]{16,250}|whsec_[A-Za-z0-9+/=]{16,100})"),
    ("huggingface_token", ("hf_",), r"hf_[A-Za-z0-9]{30,100}"),
    ("npm_token", ("npm_",), r"npm_[A-Za-z0-9]{36}"),
    ("sendgrid_key", ("SG.",), r"SG\.[A-Za-z0-9_-]{16,32}\.[A-Za-z0-9_-]{32,64}"),
)

_ANY_KEY = _has(*(word for _, words, _ in _KEYS for word in words))


def _detectors() -> tuple[Detector, ...]:
    found = [
        Detector(
            name="private_key", category="secrets", gate=_has("-----BEGIN"),
            pattern=re.compile(  # a row that was cut has no end: all that follows is the key
                r"-----BEGIN [A-Z ]{0,20}PRIVATE KEY(?: BLOCK)?-----[\s\S]{0,8000}?(?:-----END [A-Z ]{0,20}PRIVATE KEY(?: BLOCK)?-----|\Z)"
            ),
        ),
        Detector(
            name="jwt", category="secrets", gate=_has("eyJ"),
            pattern=re.compile(_L + r"eyJ[\w-]{5,2000}(?:\.[\w-]{4,4000}){1,2}"),
        ),
        *(
            Detector(name=name, category="secrets", gate=_ANY_KEY, pattern=re.compile(_L + text + _R),
                     check=None if name == "aws_key_id" else checks.key_like)
            for name, _, text in _KEYS
        ),
        Detector(
            name="url_login", category="secrets", gate=_has("://"),
            pattern=re.compile(r"[A-Za-z][A-Za-z0-9+.-]{1,20}://(?P<v>[^\s/:@'\"<>]{0,100}:[^\s/@'\"<>]{1,200})@"),
        ),
        Detector(
            name="bearer", category="secrets", gate=_says("bearer", "authori"),
            pattern=re.compile(r"(?i)\b(?:bearer|authori[sz]ation:\s{0,3}(?:basic|token|apikey))\s{1,3}(?P<v>[A-Za-z0-9._~+/=-]{12,4000})"),
            check=checks.mixed,
        ),
        Detector(  # password: x1, "api_key" = "…"; a word in small letters behind a colon is prose
            name="secret", category="secrets", gate=_says("pass", "pwd", "secret", "key", "token", "contrase", "clave", "kennwort", "mdp", "mot de"),
            pattern=re.compile(
                r"(?i)(?<![A-Za-z])(?:[A-Za-z0-9]{1,30}[_-]){0,4}" + _ASSIGN_WORDS
                + r"[\"'`]{0,2}\s{0,3}(?:[:=]|=>|:=|\bis\b:?|\bist\b:?|\blautet\b:?|\bes\b:?|\best\b ?:?)\s{0,3}[\"'`«“]?(?P<v>[^\s\"'`,;<>«»“”]{4,500})"
            ),
            check=checks.assigned,
        ),
        Detector(  # password=hunter: nothing but an assignment is written without a space
            name="secret", category="secrets", gate=_has("="),
            pattern=re.compile(r"(?i)(?<![A-Za-z])(?:pass(?:word|wd)?|pwd|secret|token|api_?key)=(?P<v>[A-Za-z0-9._~!$^*+/-]{4,200})"),
        ),
        Detector(
            name="pin", category="secrets", gate=_says("pin", "cvv", "cvc"),
            pattern=re.compile(
                r"(?i)(?<![A-Za-z])(?:pin(?:[ -]?(?:code|number|nummer))?|cvv2?|cvc2?)(?:\s{1,3}(?:is|ist|es|est|lautet)|\s{0,3}[:=])?\s{0,3}(?P<v>\d{3,8})(?!\d)"
            ),
        ),
        Detector(
            name="email", category="email", gate=_has("@", "%40"),
            pattern=re.compile(r"(?<![\w.+%-])[\w.+%-]{1,64}?(?:@|%40)(?:[^\W_](?:[\w-]{0,62}[^\W_])?\.){1,5}[^\W\d_]{2,24}"),
            check=checks.email,
        ),
        Detector(
            name="iban", category="iban", gate=_finds(r"[A-Za-z]{2}\d{2}[ \-]?[A-Za-z0-9]{4}"),
            pattern=re.compile(_L + r"[A-Za-z]{2}\d{2}(?:[ -]?[A-Za-z0-9]{4}){2,7}(?:[ -]?[A-Za-z0-9]{1,3})?" + _R), check=checks.iban, shrinks=True,
        ),
        Detector(
            name="card", category="card", gate=_MANY_DIGITS,
            pattern=re.compile(r"(?<![A-Za-z0-9])(?<!\d[.-])\d(?:[ .\-/]{0,2}\d){13,18}(?![A-Za-z0-9])(?![.-]\d)"), check=checks.card, shrinks=True,
        ),
    ]  # fmt: skip
    return (*found, *_national(), *_network(), *_phones())


def _national() -> list[Detector]:
    rows = (
        ("us_ssn", r"(?<![\w-])\d{3}([- ])\d{2}\1\d{4}(?![\w-])", checks.us_ssn),
        ("es_dni", _L + r"(?:\d{2}\.?\d{3}\.?\d{3}|[XYZxyz][ -]?\d{7})[ -]?[A-HJ-NP-TV-Za-hj-np-tv-z]" + _R, checks.es_dni),
        ("fr_nir", _L + r"[12][ .]?\d{2}[ .]?(?:0[1-9]|1[0-2])[ .]?(?:\d{2}|2[AB])[ .]?\d{3}[ .]?\d{3}[ .]?\d{2}" + _R, checks.fr_nir),
        ("it_cf", _L + r"[A-Za-z]{6}\d{2}[A-EHLMPR-Ta-ehlmpr-t]\d{2}[A-Za-z]\d{3}[A-Za-z]" + _R, checks.it_codice_fiscale),
        ("br_cpf", r"(?<![\w.-])\d{3}\.\d{3}\.\d{3}-\d{2}(?![\w-])", checks.br_cpf),
        ("de_tax_id", r"(?<![\w-])\d{2} \d{3} \d{3} \d{3}(?![\w-])", checks.de_steuer_id),
        ("de_tax_id", r"(?i)steuer[\w-]{0,30}\W{1,4}(?:(?:ist|lautet)\W{1,3})?(?P<v>\d(?:[ /]?\d){10})" + _R, checks.de_steuer_id),
        ("uk_nino", _L + r"[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] \d{2} \d{2} \d{2} [A-D]" + _R, None),
        (
            "uk_nino",
            r"(?i)(?:national insurance|\bnino\b|\bni (?:number|no))[^\n\d]{0,20}?\b(?P<v>[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?\d{2} ?\d{2} ?\d{2} ?[A-D])" + _R,
            None,
        ),
    )  # fmt: skip
    gates = {
        "it_cf": _finds(r"[A-Za-z]{6}\d\d[A-Za-z]\d"),
        "uk_nino": _finds(r"[A-Za-z]{2} ?\d\d ?\d\d ?\d\d"),
    }
    return [
        Detector(name=name, category="national_id", gate=gates.get(name, _MANY_DIGITS), pattern=re.compile(text), check=check)
        for name, text, check in rows
    ]


def _network() -> list[Detector]:
    return [
        Detector(
            name="ip", category="ip", gate=_finds(r"\d\.\d{1,3}\.\d"),
            pattern=re.compile(r"(?<![\w.-])(?:\d{1,3}\.){3}\d{1,3}(?![\w-])(?!\.\d)"), check=checks.ip_address, unless=_VERSION,
        ),
        Detector(
            name="ip", category="ip", gate=_finds(r":[0-9A-Fa-f]{0,4}:"),
            pattern=re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{1,4}:{1,2}){2,7}[0-9A-Fa-f]{1,4}(?![\w:])"), check=checks.ip_address,
        ),
    ]  # fmt: skip


def _phones() -> list[Detector]:
    """International with + or 00; the national forms that people write; and any number behind a word for calling."""
    sep = r"[ ./-]"
    wide = r"[ ./()-]{0,3}"
    rows: tuple[tuple[str, re.Pattern[str] | None], ...] = (
        (r"(?<![\w+])\+\d{1,3}" + wide + r"(?:\d" + wide + r"){5,12}\d(?!\w)", None),
        (r"(?<![\w.,-])(?<!\d )00[1-9]\d{0,2}[ /-](?:\d" + wide + r"){5,11}\d(?!\w)", None),
        (r"(?<![\w.+#-])00(?:1|3[0-469]|4[0-9]|5[1-8]|6[0-6]|7|8[1246]|9[0-58])\d{8,11}(?![\w-])", _NOT_PHONE),
        (r"(?<![\w.#-])(?:1[ .-])?(?:\([2-9]\d{2}\) ?|[2-9]\d{2}[ .-])[2-9]\d{2}[ .-]\d{4}(?![\w-])", _NOT_PHONE),  # US
        (r"(?<![\w.,#-])(?<!\d )0[1-9](?P<s>[ .-])\d{2}(?:(?P=s)\d{2}){3}(?![\w-])(?! \d)", _NOT_PHONE),  # France, in pairs
        (r"(?<![\w.,#-])0[67]\d{8}(?![\w-])", _NOT_PHONE),  # France mobile, and many others
        (r"(?<![\w.,#-])0(?:15|16|17)\d[ /-]?\d{3}(?:[ -]?\d){4,6}(?![\w-])", _NOT_PHONE),  # Germany mobile
        (r"(?<![\w.,#-])(?<!\d )\(?0[2-9]\d{1,4}(?:\)[ -]?| ?[/-] ?| )\d{2,4}(?:[ -]?\d){2,6}(?![\w-])", _NOT_PHONE),  # Germany
        (r"(?<![\w.,#-])[6789]\d{2}(?P<s>[ .-])\d{3}(?P=s)\d{3}(?![\w.-])", _NOT_PHONE),  # Spain in threes
        (r"(?<![\w.,#-])[679]\d{2}(?P<s>[ .-])\d{2}(?P=s)\d{2}(?P=s)\d{2}(?![\w-])", _NOT_PHONE),  # Spain in pairs
        (r"(?<![\w.,#-])(?:\(?01\d{3}\)? ?\d{3} ?\d{3}|\(?02\d\)? ?\d{4} ?\d{4}|07\d{3} ?\d{3} ?\d{3})(?![\w-])", _NOT_PHONE),  # UK
        (r"(?i)(?<![a-zé])" + _CALL + r"(?:\W{0,3}(?:number|nummer|no|nr|is|ist|es|est|me|us|at|on|au|al|el|unter)){0,3}\W{0,3}(?P<v>(?<!\d)\(?\d(?:"
         + sep + r"?\(?\)?\d){6,13})(?![\w-])(?![.,]\d)", None),
    )  # fmt: skip
    return [
        Detector(name="phone", category="phone", gate=_MANY_DIGITS, pattern=re.compile(text), check=checks.phone_digits, unless=unless)
        for text, unless in rows
    ]


DETECTORS = _detectors()
"""In the order of their right: what an earlier one found, a later one doesn't touch."""
