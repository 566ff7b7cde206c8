"""Identifiers and phone numbers of China: with their check digits where they have any."""

from serving.privacy.checksums import (
    hong_kong_id,
    resident_id,
    resident_shape,
    taiwan_id,
    unified_social_credit_code,
)
from serving.privacy.patterns import MONEY_OR_AMOUNT, SEPARATOR, Pattern, digits, pattern

_CODE = "[0-9A-HJ-NPQRTUWXY]"
_COUNTRY = rf"(?:(?:\+|00)?86{SEPARATOR})?"
_AREA = r"(?:10|2\d|[3-9]\d\d)"
_PLATES = "京津沪渝冀豫云辽黑湘皖鲁新苏浙赣鄂桂甘晋蒙陕吉闽贵粤青藏川宁琼使领"

CHINESE: tuple[Pattern, ...] = (
    pattern("ID", r"(?<!\d)[1-8](?:[ \-]{0,2}\d){16}[ \-]{0,2}[\dX](?!\d)", resident_id),
    pattern("ID", rf"(?<![\d.])[1-8]\d{{14}}{MONEY_OR_AMOUNT}", resident_shape),
    # Passport, and the passes to and from Hong Kong, Macau and Taiwan.
    pattern("PASSPORT", rf"(?<![0-9A-Za-z])[DEGHMPSC]{SEPARATOR}\d{{4}}{SEPARATOR}\d{{4}}(?![0-9A-Za-z])"),
    pattern("PASSPORT", rf"(?<![0-9A-Za-z])E[A-HJ-NP-Z]{SEPARATOR}{digits(7)}(?![0-9A-Za-z])"),
    pattern("ID", r"(?<![0-9A-Za-z])[A-Z]{1,2}(?:\d{6}[0-9A]| ?\d{6} ?\([0-9A]\))(?![0-9A-Za-z])", hong_kong_id),
    pattern("ID", r"(?<![0-9A-Za-z])[A-Z][ \-]?[1289](?:[ \-]?\d){8}(?![0-9A-Za-z])", taiwan_id),
    pattern(
        "CREDIT_CODE",
        rf"(?<![0-9A-Za-z])[0-9A-HJ-NPQRTUWXY](?:[ \-]?{_CODE})(?:[ \-]?\d){{6}}(?:[ \-]?{_CODE}){{10}}(?![0-9A-Za-z])",
        unified_social_credit_code,
    ),
    pattern("PHONE", rf"(?<!\d){_COUNTRY}1{SEPARATOR}{digits(9, first='[3-9]')}{MONEY_OR_AMOUNT}"),
    pattern(
        "PHONE",
        rf"(?<![\d.]){_COUNTRY}(?:0{_AREA}|\(0{_AREA}\))[ \-]{{0,2}}"
        rf"{digits(6, first='[2-9]')}(?:{SEPARATOR}\d)?(?:[ \-]?(?:转|分机|ext\.?|x)[ ]?\d{{1,6}})?{MONEY_OR_AMOUNT}",
    ),
    pattern("PHONE", r"(?<!\d)[48]00[ \-]\d{3,4}[ \-]?\d{3,4}(?!\d)"),
    pattern(
        "PLATE",
        rf"[{_PLATES}][A-HJ-NP-Z][·. ]?(?:[A-HJ-NP-Z0-9]{{5,6}}|[A-HJ-NP-Z0-9]{{4}}[学警港澳领])(?![0-9A-Za-z])",
    ),
)
