"""Random encoders as fp32 ONNX files, and batches of random texts for them: what quantization is tested on."""

from pathlib import Path

import numpy as np
import numpy.typing as npt

from slipway.bundle import EngineName, Target
from slipway.engines import open_session

FloatArray = npt.NDArray[np.float32]
Batch = dict[str, npt.NDArray[np.int64]]

VOCABULARY = 3000
LABELS = 3


def write_encoder(out: Path, *, outlier: float = 1.0, seed: int = 0) -> Path:
    """A 2-layer × 64 BERT classifier whose logits differ from text to text.

    `outlier` multiplies the gain of four channels of each layer norm.
    """
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    from export.graph import export_onnx

    torch.manual_seed(seed)
    model = BertForSequenceClassification(
        BertConfig(
            vocab_size=VOCABULARY,
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=128,
            max_position_embeddings=64,
            num_labels=LABELS,
            initializer_range=0.1,
            attn_implementation="eager",
        )
    ).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("LayerNorm.weight"):
                parameter[:4] *= outlier
            if name.endswith("bias"):
                parameter.normal_(0, 0.1)
    return export_onnx(model, "sequence-classification", out)


def texts(lengths: list[int], seed: int = 0) -> Batch:
    """One batch of texts of random tokens, padded to the longest."""
    generator = np.random.default_rng(seed)
    shape = (len(lengths), max(lengths))
    mask = (np.arange(shape[1]) < np.array(lengths)[:, None]).astype(np.int64)
    return {
        "input_ids": generator.integers(5, VOCABULARY, shape) * mask,
        "attention_mask": mask,
        "token_type_ids": np.zeros(shape, dtype=np.int64),
    }


def logits(model: Path, batch: Batch, engine: EngineName = "onnxruntime") -> FloatArray:
    """What `engine` makes of `batch`."""
    return open_session(model, Target(model=model.name, precision="fp32", engine=engine), threads=1).run(batch)


def distance(model: Path, exact: Path, engine: EngineName = "onnxruntime") -> float:
    """Root mean square difference of the logits, as a share of the exact ones' spread between texts."""
    batch = texts([3, 9, 17, 30, 30, 12, 5, 21] * 4, seed=99)
    reference = logits(exact, batch)
    return float(np.sqrt(np.square(logits(model, batch, engine) - reference).mean()) / reference.std(0).mean())
