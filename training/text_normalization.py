"""When two texts are the same text: the key under which duplicates are found.

Two rows whose texts differ only in what a copy, an export or a keyboard changes must not sit on both sides of
a split: the model would be tested on what it learned by heart. So the key ignores, in this order:

1. compatibility forms (Unicode NFKC): full-width letters and punctuation, ligatures, composed or decomposed
accents; 2. characters that nobody sees: soft hyphens, zero-width spaces and joiners, byte-order marks,
variation selectors; 3. case (`str.casefold`: ß is ss); 4. how much white space there is, and of which kind;
5. sentence punctuation and quotes at both ends: . , ; ! ? 。 、 · … and " ' “ ” ‘ ’ « » ‹ › „ ‚ 「 」 『 』 `

It keeps punctuation inside, and keeps : ( ) at the ends, so that "great :)" and "great :(" stay two texts. A
text that has nothing but ignored characters keeps them: "!!!" and "???" are two texts, and neither is empty.
Chinese needs nothing special: spaces between characters count, and simplified and traditional forms differ.

The price: "good?" and "good!" are one text. Fuzzier duplicates (a word changed) are not found.
"""

import re
import unicodedata

_UNSEEN = re.compile("[\u00ad\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufe00-\ufe0f\ufeff]")
_EDGE = " .,;!?。、·…\"'“”‘’«»‹›„‚「」『』`"


def duplicate_key(text: str) -> str:
    """The key of `text`: equal for texts that count as the same. Never empty unless `text` is blank."""
    if not text.isascii():
        # Case folding can undo the normal form (İ becomes i and a dot), hence the second pass.
        text = _UNSEEN.sub("", unicodedata.normalize("NFKC", text)) or text
        text = unicodedata.normalize("NFKC", text.casefold())
    else:
        text = text.lower()
    text = " ".join(text.split())
    return text.strip(_EDGE) or text


def visible(text: str) -> str:
    """`text` as it looks: accents composed, without characters that nobody sees. Never empty unless `text` is."""
    return unicodedata.normalize("NFC", _UNSEEN.sub("", text)) or text
