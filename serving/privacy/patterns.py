"""Identifiers of any country, and secrets; and what a pattern is.

A pattern is a regular expression on folded text (`folding`) and, where the identifier has check digits, a function that
tells it from an ordinary number of its length. A run of digits that fails its check is still masked where a word before
it says what it is (`AFTER_WORD`): people mistype, and a wrong digit does not make a card number public.

Masking one number too many costs a token of a training text; one too few costs a person. So the patterns prefer to
mask, but dates, prices, quantities and codes of securities stay: without them a financial text says nothing.

Every quantifier is bounded and every pattern begins at a boundary, so that the time is linear in the length of a text.
"""

import contextlib
import ipaddress
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from serving.privacy.checksums import IBAN_LENGTHS, iban, luhn

SEPARATOR = r"[ \-.]?"
"""What people put between the digits of a number."""
MONEY_OR_AMOUNT = r"(?!\d|[ ]?(?:元|万|亿|股|吨|％|%|美元|港元|人民币|bytes?\b|rows?\b|shares?\b))"
"""A number is not followed by what makes it a quantity."""

_SEPARATORS = re.compile(r"[^0-9A-Za-z]")


@dataclass(frozen=True)
class Pattern:
    """One kind of identifier.

    `accepts` sees the characters without separators; the group `value`, if there is one, is what is masked.
    """

    tag: str
    expression: re.Pattern[str]
    accepts: Callable[[str], bool] | None = None
    group: str | int = field(default=0)

    def find(self, text: str) -> Iterator[tuple[int, int]]:
        """Spans in `text`; what is rejected is looked at again from its next character on."""
        place = 0
        while match := self.expression.search(text, place):
            start, end = match.span(self.group)
            if self.accepts is None or self.accepts(_SEPARATORS.sub("", text[start:end])):
                yield start, end
                place = max(end, place + 1)
            else:
                place = match.start() + 1


def pattern(tag: str, expression: str, accepts: Callable[[str], bool] | None = None) -> Pattern:
    """A pattern of `expression`, without regard to case."""
    # By ASCII a Chinese character is no letter, so a word begins after one.
    compiled = re.compile(expression, re.IGNORECASE | re.ASCII)
    return Pattern(tag, compiled, accepts, "value" if "value" in compiled.groupindex else 0)


def spaced(*parts: str, separator: str = SEPARATOR) -> str:
    """An expression for characters that may have a separator between any two; a part is one character's class."""
    return separator.join(parts)


def digits(count: int, first: str = "") -> str:
    """An expression for `count` digits that may have separators, after the class of the first character, if any."""
    return spaced(*([first] if first else []), *[r"\d"] * count)


def _is_ip(text: str) -> bool:
    with contextlib.suppress(ValueError):
        address = ipaddress.ip_address(text)
        # "This machine" is nobody in particular, and is in every second line of a log.
        return not (address.is_loopback or address.is_unspecified)
    return False


@dataclass(frozen=True)
class _AddressPattern(Pattern):
    """An IP address: the standard library knows what is one, with its separators."""

    def find(self, text: str) -> Iterator[tuple[int, int]]:
        for match in self.expression.finditer(text):
            # A colon at the end may be the sentence's.
            for address in (match.group(), match.group().removesuffix(":")):
                if _is_ip(address):
                    yield match.start(), match.start() + len(address)
                    break


@dataclass(frozen=True)
class _IbanPattern(Pattern):
    """An IBAN: its country says where it ends, or a following word would be taken for a part of it."""

    def find(self, text: str) -> Iterator[tuple[int, int]]:
        for match in self.expression.finditer(text):
            length = IBAN_LENGTHS.get(_SEPARATORS.sub("", match.group())[:2].upper(), 0)
            rest = re.compile(rf"(?:[ \-]?[0-9A-Za-z]){{{max(0, length - 4)}}}(?![0-9A-Za-z])")
            found = rest.match(text, match.end()) if length else None
            if found and iban(_SEPARATORS.sub("", text[match.start() : found.end()])):
                yield match.start(), found.end()


_CARD_BEGINS = r"(?<![\d.,])(?=[3-6]|2[ \-]{0,2}[2-7]|9[ \-]{0,2}5[ \-]{0,2}5[ \-]{0,2}[89])"
_CARD_ENDS = r"(?![ \-]?\d)" + MONEY_OR_AMOUNT
_CARD_FORMS = (
    r"\d{13,19}",
    r"\d{4}(?:[ \-]{1,2}\d{4}){3}",
    r"\d{4}(?:[ \-]{1,2}\d{4}){3}[ \-]{1,2}\d{1,3}",
    r"\d{4}[ \-]{1,2}\d{6}[ \-]{1,2}\d{4,5}",
    r"\d{6}[ \-]{1,2}\d{7,13}",
    r"\d(?:[ \-]\d){12,18}",
)
"""How a card's number is written; any run of numbers with spaces between them would be too much."""

# Country codes of ITU-T E.164.
_COUNTRY = (
    r"(?:1|7|2[07]|3[0-469]|4[013-9]|5[1-8]|6[0-6]|8[1246]|9[0-58]"
    r"|2[1-689]\d|3[578]\d|42\d|5[09]\d|6[7-9]\d|8[0578]\d|9[679]\d)"
)

_URL = r"[^\s<>\"'\u3000-\u303f\u4e00-\u9fff\uff00-\uffef]"

_NAMED = (
    r"身份证|证件|护照|通行证|银行卡|卡号|账号|帐号|账户|电话|手机|座机|联系方式|热线|传真|社保|医保|病历号|住院号"
    r"|passport|identity|\bid\b|\bssn\b|social security|tax id|account|\bacct\b|\bcard\b|phone|mobile|\btel\b|\bcell\b"
    r"|\bfax\b|\bmrn\b|medical record|licen[cs]e"
)

GENERAL: tuple[Pattern, ...] = (
    pattern("SECRET", r"\beyJ[\w-]{8,4096}\.[\w-]{8,4096}(?:\.[\w-]{0,4096})?"),
    pattern("SECRET", r"\b(?:bearer|basic)\s{1,4}(?P<value>[\w.~+/=\-]{8,4096})"),
    pattern(
        "SECRET",
        r"(?:api[_\- ]?key|access[_\- ]?key|token|secret|password|passwd|pwd|密码|口令|密钥)"
        # Written as a setting it is one; in a sentence ("the password is wrong") only if there is a digit in it.
        r"[\"']?\s{0,3}(?:=\s{0,3}|:\s{0,3}[\"']|(?::|是|为|is\b)\s{0,3}(?=\S{0,128}?\d))[\"']?"
        r"(?P<value>[^\s\"',;，。；]{4,512})",
    ),
    pattern("SECRET", r"(?<![A-Za-z0-9])(?:sk|pk|ghp|gho|xox[bap]|AKIA)[-_]?[A-Za-z0-9_\-]{16,255}"),
    pattern("URL", rf"(?<![A-Za-z])(?:https?|ftp)://{_URL}{{0,4096}}(?![.,;:!?)\]}}]){_URL}"),
    pattern("URL", r"(?<![A-Za-z0-9.])www\.[A-Za-z0-9\-]{1,63}(?:\.[A-Za-z0-9\-]{1,63}){1,8}(?:/[!-~]{0,2048})?"),
    pattern(
        "EMAIL",
        r"(?<![A-Za-z0-9._%+\-])[A-Za-z0-9_][A-Za-z0-9.!#$%&*+^_`{}~\-]{0,63} ?(?:@|\[at\]|\(at\)) ?"
        r"[A-Za-z0-9\-]{1,63}(?:\.[A-Za-z0-9\-]{1,63}){1,8}",
    ),
    _IbanPattern("IBAN", re.compile(r"(?<![0-9A-Za-z])[A-Z][ \-]?[A-Z][ \-]?\d[ \-]?\d", re.IGNORECASE)),
    *(pattern("CARD", _CARD_BEGINS + form + _CARD_ENDS, luhn) for form in _CARD_FORMS),
    pattern("SSN", r"(?<![\d\-])(?!000|666)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\d\-])"),
    pattern("SSN", rf"(?:ssn|social security)\D{{0,20}}(?P<value>{digits(9)})(?!\d)"),
    _AddressPattern("IP", re.compile(r"(?<![\d.v])\d{1,3}(?:\.\d{1,3}){3}(?!\.?\d)", re.IGNORECASE)),
    _AddressPattern(
        "IP", re.compile(r"(?<![0-9A-Za-z.])(?=[0-9A-Fa-f]{0,4}:[^ ]{0,40}:)[0-9A-Fa-f:]{3,39}(?:\.\d{1,3}){0,3}")
    ),
    pattern("MAC", r"(?<![0-9A-Za-z])(?:[0-9A-F]{2}([:\-]))(?:[0-9A-F]{2}\1){4}[0-9A-F]{2}(?![0-9A-Fa-f])"),
    # With a country code: ITU-T E.164 allows fifteen digits.
    pattern("PHONE", r"(?<![\d+])\+ ?\(?[1-9](?:[ \-.()/]{0,2}\d){6,14}(?!\d)"),
    pattern("PHONE", rf"(?<![\d.])00 ?{_COUNTRY}[ \-./]?(?:\(0\) ?)?[1-9](?:[ \-./]?\d){{6,11}}" + MONEY_OR_AMOUNT),
    # North America, written with its separators; ten bare digits could be anything.
    pattern("PHONE", r"(?<!\d)(?:1[ \-.]?)?(?:\([2-9]\d\d\) ?|[2-9]\d\d[ \-.])[2-9]\d\d[ \-.]\d{4}(?!\d)"),
)

AFTER_WORD: tuple[Pattern, ...] = (
    pattern(
        "NUMBER",
        rf"(?:{_NAMED})[^\d\n。！？!?]{{0,12}}?(?P<value>(?<![0-9A-Za-z])[A-Z]{{0,3}}\d(?:[ \-]?[0-9X]){{5,24}})"
        r"(?![0-9A-Za-z])" + MONEY_OR_AMOUNT,
        lambda value: sum(character.isdigit() for character in value) >= 6,
    ),
    pattern(
        "ACCOUNT",
        r"(?:微信号?|wechat(?: id)?|weixin|\bwx|\bqq号?)\s{0,2}(?:[::是为]|is)?\s{0,2}(?P<value>[A-Z0-9][\w\-]{4,30})",
    ),
)
"""What no check digit vouches for, but a word before it does."""
