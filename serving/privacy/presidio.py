"""The recognizers of presidio-analyzer, without its language models.

A recognizer of presidio's that works by pattern, check digit or word list needs no model: it is asked directly, with no
artifacts of an NLP engine. `AnalyzerEngine` with its no-op engine would do the same and also load every recognizer that
there is; here are those that a check digit or a strict form vouches for. The others (a passport of nine digits, a bank
account of eight to seventeen) score 0.05 until a model finds a word beside them, and would mask every amount.

The price: presidio imports spaCy whether it is used or not, which is why it has an extra of its own,
`slipway[privacy]`, and is loaded only in a model that captures.

Its patterns end at the boundary of a word, and between a Chinese character and a digit there is none to a regular
expression: they are shown a text with spaces in place of what is not written in an alphabet.
"""

import importlib.util
import re
from collections.abc import Iterator, Sequence
from typing import Any

from serving.privacy.masking import PATTERNS, Found, Masker
from slipway.errors import ServingError

# Without its recognizer of email addresses, which fetches a list of domains from the internet; ours needs none.
_RECOGNIZERS = (
    "CreditCardRecognizer", "CryptoRecognizer", "IbanRecognizer", "IpRecognizer",
    "MacAddressRecognizer", "UsSsnRecognizer", "UsItinRecognizer", "UkNinoRecognizer", "EsNifRecognizer",
    "ItFiscalCodeRecognizer", "PlPeselRecognizer", "FiPersonalIdentityCodeRecognizer", "InAadhaarRecognizer",
    "InPanRecognizer", "SgFinRecognizer",
)  # fmt: skip
# Not where eight bare digits are a telephone number (Hong Kong, Singapore): a date would be one.
_PHONE_REGIONS = ("US", "GB", "FR", "AU")
_LEAST_SCORE = 0.4
_TAGS = {
    "CREDIT_CARD": "CARD", "IBAN_CODE": "IBAN", "IP_ADDRESS": "IP", "MAC_ADDRESS": "MAC",
    "PHONE_NUMBER": "PHONE", "US_SSN": "SSN", "CRYPTO": "WALLET",
}  # fmt: skip


_IDEOGRAPHS = re.compile(r"[\u2e80-\ud7ff\uf900-\ufaff\U00020000-\U0003ffff]")


class PresidioDetector:
    """Finds what `recognizers` of presidio's find with a score of at least 0.4."""

    def __init__(self, recognizers: Sequence[Any]) -> None:
        self._recognizers = recognizers

    def find(self, text: str) -> Iterator[Found]:
        """Recognizer by recognizer."""
        alphabetic = _IDEOGRAPHS.sub(" ", text)
        for recognizer in self._recognizers:
            for result in recognizer.analyze(alphabetic, recognizer.supported_entities, None):
                if result.score >= _LEAST_SCORE and not _is_part_of_a_number(text, result.start, result.end):
                    yield Found(result.start, result.end, _TAGS.get(result.entity_type, "ID"))


def _is_part_of_a_number(text: str, start: int, end: int) -> bool:
    """Whether digits go on where a span ends or begins: some recognizers take eleven digits out of nineteen."""
    before, after = text[start - 1 : start + 1] if start else "", text[end - 1 : end + 1]
    return any(len(pair) == 2 and pair.isdigit() for pair in (before, after))


def require_presidio() -> None:
    """Raise `ServingError` that names the extra, if it is not installed."""
    if importlib.util.find_spec("presidio_analyzer") is None:
        raise ServingError(
            "serve.observe.capture writes masked texts, which needs presidio-analyzer, which is not installed; "
            "try: pip install 'slipway[privacy]', or set capture.rate to 0."
        )


def capture_masker() -> Masker:
    """Our patterns, and presidio's for the rest of the world; raises `ServingError` if the extra is not installed."""
    require_presidio()
    from presidio_analyzer import predefined_recognizers

    recognizers = [getattr(predefined_recognizers, name)() for name in _RECOGNIZERS]
    recognizers.append(predefined_recognizers.PhoneRecognizer(supported_regions=_PHONE_REGIONS))
    return Masker((PATTERNS, PresidioDetector(recognizers)))
