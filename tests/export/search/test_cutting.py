"""Cutting a model down ranks its parts by what the model itself takes."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from export.search.plans import Cut
from export.search.students import cut_down
from tests.tiny_families import tiny_model

pytestmark = [pytest.mark.unit]

TEXTS = ["good", "a bad one", "很好看", "neither good nor bad"] * 4


def byte_tokenizer(model: Any) -> Any:
    """Bytes as tokens; gives token types, as a BERT's tokenizer does, whatever the model takes."""

    class Encoded(dict[str, Any]):
        pass

    def encode(texts: list[str], **_: Any) -> Encoded:
        import torch

        rows = [[2, *(4 + byte for byte in text.encode()), 3] for text in texts]
        longest = max(map(len, rows))
        ids = torch.tensor([row + [model.config.pad_token_id] * (longest - len(row)) for row in rows])
        mask = torch.tensor([[1] * len(row) + [0] * (longest - len(row)) for row in rows])
        return Encoded(input_ids=ids, attention_mask=mask, token_type_ids=torch.zeros_like(ids))

    return encode


@pytest.mark.parametrize("family", ["bert", "distilbert", "roberta"])
def test_a_tokenizer_may_give_more_than_the_model_takes(family: str) -> None:
    model = tiny_model(family)
    targets = np.arange(len(TEXTS)) % model.config.num_labels
    source: Any = SimpleNamespace(train=SimpleNamespace(texts=TEXTS, targets=targets), max_tokens=64)
    pruned, how = cut_down(source, model, byte_tokenizer(model), Cut("c50", 0.5, 0.5, 0.0), seed=0)
    assert how["importance"] == "taylor"
    assert len(how["layers"]) == 1
    assert sum(weight.numel() for weight in pruned.parameters()) < sum(weight.numel() for weight in model.parameters())
