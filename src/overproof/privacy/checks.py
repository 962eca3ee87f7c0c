"""Checksums and shapes that tell a number of a person from a number of an order."""

from __future__ import annotations

import ipaddress
import re

_CARD_STARTS = re.compile(
    r"4\d{15}(?:\d{3})?$|5[1-5]\d{14}$|2(?:2[2-9]|[3-6]\d|7[01])\d{13}$|2720\d{12}$|3[47]\d{13}$"
    r"|6(?:011|4[4-9]\d|5\d\d)\d{12}$|35(?:2[89]|[3-8]\d)\d{12}$|3(?:0[0-5]|[689]\d)\d{11}$"
)
"""Issuer ranges with their lengths: Visa, Mastercard, American Express, Discover, JCB, Diners Club."""
_IBAN_LENGTHS = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BR": 29, "BY": 28,
    "CH": 21, "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DK": 18, "DO": 28, "EE": 20, "EG": 29, "ES": 24, "FI": 18,
    "FO": 18, "FR": 27, "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28, "HR": 21, "HU": 28, "IE": 22,
    "IL": 23, "IQ": 23, "IS": 26, "IT": 27, "JO": 30, "KW": 30, "KZ": 20, "LB": 28, "LC": 32, "LI": 21, "LT": 20,
    "LU": 20, "LV": 21, "MC": 27, "MD": 24, "ME": 22, "MK": 19, "MR": 27, "MT": 31, "MU": 30, "NL": 18, "NO": 15,
    "PK": 24, "PL": 28, "PS": 29, "PT": 25, "QA": 29, "RO": 24, "RS": 22, "SA": 24, "SC": 31, "SE": 24, "SI": 19,
    "SK": 24, "SM": 27, "TN": 24, "TR": 26, "UA": 29, "VA": 22, "VG": 24, "XK": 20,
}  # fmt: skip
_DNI_LETTERS = "TRWAGMYFPDXBNJZSQVHLCKE"
_CF_ODD = (1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23)


def digits_of(text: str) -> str:
    """The decimal digits of a text, nothing else."""
    return "".join(c for c in text if c.isdecimal())


def luhn(digits: str) -> bool:
    """
    Whether a number passes the check that every payment card has.

    Args:
        digits: decimal digits only.

    Returns: True iff the sum is right; a tenth of all numbers pass by chance.
    """
    doubled = (0, 2, 4, 6, 8, 1, 3, 5, 7, 9)
    return sum(int(c) if i % 2 == 0 else doubled[int(c)] for i, c in enumerate(reversed(digits))) % 10 == 0


def card(text: str) -> bool:
    """Issuer range, length and Luhn; all the same digit is a placeholder."""
    digits = digits_of(text)
    return _CARD_STARTS.match(digits) is not None and len(set(digits)) > 1 and luhn(digits)


def iban(text: str) -> bool:
    """Country length and ISO 7064 mod 97."""
    packed = re.sub(r"[^A-Za-z0-9]", "", text).upper()
    if _IBAN_LENGTHS.get(packed[:2]) != len(packed):
        return False
    return int("".join(str(int(c, 36)) for c in packed[4:] + packed[:4])) % 97 == 1


def us_ssn(text: str) -> bool:
    """Areas 000, 666 and 9xx, group 00 and serial 0000 were never given out."""
    area, group, serial = re.split(r"\D", text)
    return area not in ("000", "666") and area[0] != "9" and group != "00" and serial != "0000"


def es_dni(text: str) -> bool:
    """Spanish DNI and NIE: the letter is the number mod 23."""
    packed = re.sub(r"[^A-Za-z0-9]", "", text).upper()
    number = packed[:-1].translate(str.maketrans("XYZ", "012"))
    return number.isdecimal() and _DNI_LETTERS[int(number) % 23] == packed[-1]


def fr_nir(text: str) -> bool:
    """French social security number: key is 97 minus the number mod 97; Corsica's letters stand for 19 and 18."""
    packed = re.sub(r"[^A-Za-z0-9]", "", text).upper().replace("2A", "19").replace("2B", "18")
    return packed.isdecimal() and len(packed) == 15 and 97 - int(packed[:13]) % 97 == int(packed[13:])


def de_steuer_id(text: str) -> bool:
    """German tax id: ISO 7064 mod 11, 10, and exactly one digit repeated among the first ten."""
    digits = digits_of(text)
    first = digits[:10]
    repeats = sorted(first.count(d) for d in set(first) if first.count(d) > 1)
    if len(digits) != 11 or digits[0] == "0" or repeats not in ([2], [3]):
        return False
    product = 10
    for c in first:
        total = (int(c) + product) % 10 or 10
        product = 2 * total % 11
    return (11 - product) % 10 == int(digits[10])


def it_codice_fiscale(text: str) -> bool:
    """Italian tax code: the last letter is a checksum over odd and even places."""
    packed = text.upper()
    values = [int(c, 36) - 10 if c.isalpha() else int(c) for c in packed[:15]]
    total = sum(_CF_ODD[v] if i % 2 == 0 else v for i, v in enumerate(values))
    return chr(ord("A") + total % 26) == packed[15]


def br_cpf(text: str) -> bool:
    """Brazilian CPF: two check digits mod 11."""
    d = [int(c) for c in digits_of(text)]
    if len(set(d)) == 1:
        return False
    one, two = (sum(v * (n + 1 - i) for i, v in enumerate(d[:n])) * 10 % 11 % 10 for n in (9, 10))
    return (one, two) == (d[9], d[10])


def ip_address(text: str) -> bool:
    """A valid address that isn't this machine, nobody or a mask."""
    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        return False
    return not (found.is_loopback or found.is_unspecified or text.startswith("255."))


def email(text: str) -> bool:
    """Not an image for a sharper screen (logo@2x.png) and not a package with its version."""
    host = re.split(r"@|%40", text)[-1]
    return not (host[0].isdigit() and host.rpartition(".")[2].lower() in ("png", "jpg", "jpeg", "gif", "svg", "webp", "tgz"))


def mixed(text: str) -> bool:
    """Letters and digits both: the least that a made key has and a hyphenated word has not."""
    return any(c.isdecimal() for c in text) and any(c.isalpha() for c in text)


def key_like(text: str) -> bool:
    """Made of enough different characters, with letters and digits."""
    return mixed(text) and len(set(text)) >= 6


def assigned(text: str) -> bool:
    """What stands behind `password:`: not a word, not a placeholder, not a surrogate."""
    value = text.strip("\"'").rstrip(".)")
    if value.startswith(("<", "${", "{{", "[", "*", "...", "xxx", "XXX", "$(")):
        return False
    return any(c.isdecimal() for c in value) or any(c in "!#$%&*+^~|@" for c in value.rstrip("!?"))


def phone_digits(text: str) -> bool:
    """Seven to fifteen digits, as E.164 has it, not all alike."""
    digits = digits_of(text)
    return 7 <= len(digits) <= 15 and len(set(digits)) > 2
