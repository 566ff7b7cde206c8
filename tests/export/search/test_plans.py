"""What a search will try can be read before anything runs."""

from itertools import pairwise

import pytest

from export.quantization import QUANTIZERS
from export.search.plans import DENSE, VOCABULARY, cuts, larger, trials
from slipway.recipe import Export

pytestmark = pytest.mark.unit


@pytest.mark.parametrize("effort", ["quick", "full"])
def test_a_chain_only_ever_gets_smaller(effort: str) -> None:
    chain = cuts(Export.model_validate({"effort": effort}))
    shares = [cut.compute for cut in chain]
    assert shares == sorted(shares, reverse=True)
    assert len({cut.name for cut in chain}) == len(chain)
    assert all(later.layers <= cut.layers for cut, later in pairwise(chain))


@pytest.mark.parametrize("effort", ["quick", "full"])
@pytest.mark.parametrize("vocabulary", ["keep", "prune"])
def test_what_is_tried_after_a_chain_is_larger_than_all_of_it(effort: str, vocabulary: str) -> None:
    section = Export.model_validate({"effort": effort, "vocabulary": vocabulary})
    cut = larger(section)
    students = [each for each in cuts(section) if each.operations]
    assert cut is not None
    assert all(cut.compute > each.compute and cut.layers >= each.layers for each in students)
    assert cut.name.endswith("v") == (vocabulary == "prune")


def test_quantizing_trains_nothing() -> None:
    assert cuts(Export(effort="quantize")) == ()
    assert larger(Export(effort="quantize")) is None


@pytest.mark.parametrize("effort", ["quantize", "quick", "full"])
def test_a_vocabulary_is_pruned_before_anything_is_trained(effort: str) -> None:
    kept = cuts(Export.model_validate({"effort": effort}))
    first, *students = cuts(Export.model_validate({"effort": effort, "vocabulary": "prune"}))
    assert first.prune_vocabulary
    assert first.operations == 0
    assert [(cut.compute, cut.operations) for cut in students] == [(cut.compute, cut.operations) for cut in kept]
    # The finished students of a search without pruning must not be taken for these.
    assert not {cut.name for cut in students} & {cut.name for cut in kept}


@pytest.mark.parametrize("effort", ["quantize", "quick", "full"])
def test_a_pruned_vocabulary_has_a_row_of_its_own(effort: str) -> None:
    assert trials(Export.model_validate({"effort": effort}), VOCABULARY, QUANTIZERS)


@pytest.mark.parametrize("effort", ["quantize", "quick", "full"])
@pytest.mark.parametrize("structure", [DENSE, VOCABULARY, "c20"])
def test_every_trial_has_a_quantizer_that_suits_its_engine(effort: str, structure: str) -> None:
    planned = trials(Export.model_validate({"effort": effort}), structure, QUANTIZERS)
    assert all(trial.precision.engine in QUANTIZERS[trial.precision.quantizer].engines for trial in planned)
    assert len({trial.name for trial in planned}) == len(planned)


def test_an_engine_that_the_recipe_leaves_out_is_not_tried() -> None:
    planned = trials(Export(engines=["onnxruntime"]), DENSE, QUANTIZERS)
    assert {trial.precision.engine for trial in planned} == {"onnxruntime"}
    assert {trial.name for trial in planned} >= {"fp32@ort", "int8-dynamic@ort"}


def test_a_gpu_gets_fp16_and_what_tensorrt_would_run() -> None:
    planned = trials(Export(target="gpu"), "c20", QUANTIZERS)
    assert [trial.name for trial in planned] == ["c20-fp32@ort", "c20-fp16@ort", "c20-int8-tensorrt@ort"]
