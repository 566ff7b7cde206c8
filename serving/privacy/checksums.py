"""Which numbers are what they look like: the check digits that tell an identifier from a number of its length.

Each function takes the characters without separators, in any case, and trusts the pattern for the length.
"""

import datetime

_RESIDENT_WEIGHTS = (7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2)
_PROVINCES = frozenset(
    f"{region}{place}"
    for region, places in {
        1: "12345",
        2: "123",
        3: "1234567",
        4: "123456",
        5: "01234",
        6: "12345",
        7: "1",
        8: "123",
    }.items()
    for place in places
)
_CREDIT_CODE = "0123456789ABCDEFGHJKLMNPQRTUWXY"
_TAIWAN_LETTERS = "ABCDEFGHJKLMNPQRSTUVXYWZIO"

_IBANS = (
    "AD24 AE23 AL28 AT20 AZ28 BA20 BE16 BG22 BH22 BI27 BR29 BY28 CH21 CR22 CY28 CZ24 DE22 DJ27 DK18 DO28 EE20 "
    "EG29 ES24 FI18 FK18 FO18 FR27 GB22 GE22 GI23 GL18 GR27 GT28 HN28 HR21 HU28 IE22 IL23 IQ23 IS26 IT27 JO30 "
    "KW30 KZ20 LB28 LC32 LI21 LT20 LU20 LV21 LY25 MC27 MD24 ME22 MK19 MN20 MR27 MT31 MU30 NI28 NL18 NO15 OM23 "
    "PK24 PL28 PS29 PT25 QA29 RO24 RS22 RU33 SA24 SC31 SD18 SE24 SI19 SK24 SM27 SO23 ST25 SV28 TL23 TN24 TR26 "
    "UA29 VA22 VG24 XK20 YE30"
)
IBAN_LENGTHS = {entry[:2]: int(entry[2:]) for entry in _IBANS.split()}
"""Characters of an IBAN by country, from the SWIFT registry."""


def luhn(digits: str) -> bool:
    """Payment cards (ISO/IEC 7812)."""
    total = 0
    for place, digit in enumerate(map(int, reversed(digits))):
        doubled = digit * 2 if place % 2 else digit
        total += doubled - 9 if doubled > 9 else doubled
    return total % 10 == 0


def resident_id(number: str) -> bool:
    """The 18 characters of a Chinese resident (GB 11643-1999): province, birth date, check character."""
    total = sum(weight * int(digit) for weight, digit in zip(_RESIDENT_WEIGHTS, number, strict=False))
    return resident_shape(number) and "10X98765432"[total % 11] == number[17].upper()


def resident_shape(number: str) -> bool:
    """A province and a birth date, in 18 characters or the 15 of the time before 1999."""
    birth = number[6:14] if len(number) == 18 else "19" + number[6:12]
    return number[:2] in _PROVINCES and _is_date(birth)


def unified_social_credit_code(code: str) -> bool:
    """The 18 characters of a Chinese organization (GB 32100-2015)."""
    values = [_CREDIT_CODE.find(character) for character in code.upper()]
    if min(values) < 0:
        return False
    total = sum(value * pow(3, place, 31) for place, value in enumerate(values[:17]))
    return (31 - total % 31) % 31 == values[17]


def hong_kong_id(number: str) -> bool:
    """One or two letters, six digits, a check character."""
    letters = number[:-7].rjust(2)
    values = [36 if letter == " " else ord(letter.upper()) - 55 for letter in letters]
    values += [int(digit) for digit in number[-7:-1]]
    total = sum(value * weight for value, weight in zip(values, range(9, 1, -1), strict=True))
    last = 10 if number[-1].upper() == "A" else int(number[-1])
    return (total + last) % 11 == 0


def taiwan_id(number: str) -> bool:
    """A letter and nine digits."""
    region = _TAIWAN_LETTERS.index(number[0].upper()) + 10
    digits = [region // 10, region % 10, *map(int, number[1:])]
    weights = (1, 9, 8, 7, 6, 5, 4, 3, 2, 1, 1)
    return sum(digit * weight for digit, weight in zip(digits, weights, strict=True)) % 10 == 0


def iban(code: str) -> bool:
    """An international bank account number (ISO 13616): its length and modulo 97."""
    code = code.upper()
    if IBAN_LENGTHS.get(code[:2]) != len(code):
        return False
    return int("".join(str(int(character, 36)) for character in code[4:] + code[:4])) % 97 == 1


def _is_date(text: str) -> bool:
    try:
        return datetime.date(int(text[:4]), int(text[4:6]), int(text[6:])).year >= 1900
    except ValueError:
        return False
