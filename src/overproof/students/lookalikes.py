"""
Letters of other scripts that a reader takes for Latin ones.

Source: a selection by hand from the pairs that Unicode calls confusable (UTS #39, `confusables.txt`), of letters that occur
in running text. Width and style variants are not in here, since NFKC folds them.
"""

from __future__ import annotations

# Latin letter: letters with the same shape at text size.
SAME = {
    "a": "аα", "c": "сϲ", "d": "ԁժ", "e": "еҽ", "f": "ϝ", "g": "ցɡ", "h": "һհ", "i": "іιıɩ", "j": "јϳ", "l": "ӏ", "n": "ոռ",
    "o": "оοօ", "p": "рρ", "q": "ԛգ", "s": "ѕ", "u": "սυʋ", "v": "ѵν", "w": "ԝաѡ", "x": "хχ", "y": "уүγ", "z": "ᴢ",
    "A": "АΑ", "B": "ВΒ", "C": "СϹ", "D": "Ꭰ", "E": "ЕΕ", "F": "Ϝ", "G": "Ԍ", "H": "НΗ", "I": "ІΙӀ", "J": "ЈͿ", "K": "КΚ",
    "L": "Լ", "M": "МΜ", "N": "Ν", "O": "ОΟՕ", "P": "РΡ", "Q": "Ԛ", "S": "ЅՏ", "T": "ТΤ", "U": "Ս", "V": "Ѵ", "W": "Ԝ",
    "X": "ХΧ", "Y": "ҮΥ", "Z": "Ζ",
}  # fmt: skip
# Letters that pass for a Latin one only beside others, for example as small capitals.
NEAR = {
    "b": "Ьвƅь", "f": "ք", "k": "кκ", "m": "м", "n": "пη", "r": "гᴦ", "t": "тτ", "h": "н", "l": "ι", "d": "ɗ", "e": "є", "u": "ц",
    "w": "ωш", "q": "զ", "R": "Я", "N": "И",
}  # fmt: skip


def _table(*pairs: dict[str, str]) -> dict[str, str]:
    found: dict[str, str] = {}
    for one in pairs:
        for latin, others in one.items():
            for other in others:
                found.setdefault(other, latin)
    return found


STRICT = _table(SAME)
"""Look-alike to Latin letter, of the same shape."""
LOOSE = _table(SAME, NEAR)
"""The same and those that are merely near."""
