"""The texts of several requests as tokens, under the recipe's policy for long ones."""

from collections.abc import Sequence
from itertools import islice

from serving.model.incoming import Incoming
from serving.model.refusals import RefusedError
from serving.model.settings import LongText
from slipway.encoder import Encoder, TokenRow


def token_rows(
    encoder: Encoder, requests: Sequence[Incoming], long_text: LongText
) -> list[list[TokenRow] | RefusedError]:
    """The rows of each request, tokenized together; a refusal where a text has no tokens or too many."""
    everything = iter(encoder.rows([text for request in requests for text in request.texts]))
    found: list[list[TokenRow] | RefusedError] = []
    for request in requests:
        rows = list(islice(everything, len(request.texts)))
        refusal = _nothing_to_read(rows)
        if refusal is None and long_text == "reject":
            refusal = _too_long(rows, encoder.max_tokens)
        found.append(refusal or rows)
    return found


def _nothing_to_read(rows: Sequence[TokenRow]) -> RefusedError | None:
    for number, row in enumerate(rows):
        if row.tokens == 0:
            return RefusedError("bad_text", f"row {number}: the text has nothing that the model reads; send a word")
    return None


def _too_long(rows: Sequence[TokenRow], most: int) -> RefusedError | None:
    for number, row in enumerate(rows):
        if row.truncated:
            return RefusedError(
                "too_long",
                f"row {number}: the text has at least {row.tokens} tokens; the model takes {most}. Send a shorter one.",
            )
    return None
