"""Batches within a budget of tokens: every row once, padding bounded."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from slipway.batching import FEW_SHAPES, TokenBudget, token_batches

pytestmark = [pytest.mark.unit]

LENGTHS = st.lists(st.integers(1, 512), max_size=200)
COUNTS = st.sampled_from([None, (), FEW_SHAPES, (1,)])
BUDGETS = st.builds(TokenBudget, st.integers(1, 8192), st.integers(1, 64), st.floats(0, 1), COUNTS)


@given(lengths=LENGTHS, budget=BUDGETS)
def test_every_row_runs_once_within_the_budget_and_next_to_rows_of_its_length(
    lengths: list[int], budget: TokenBudget
) -> None:
    batches = list(token_batches(lengths, budget))
    assert sorted(row for rows in batches for row in rows) == list(range(len(lengths)))
    for rows in batches:
        longest, shortest = max(lengths[row] for row in rows), min(lengths[row] for row in rows)
        assert len(rows) <= budget.rows
        assert not budget.row_counts or len(rows) in budget.row_counts
        assert len(rows) == 1 or len(rows) * longest <= budget.tokens
        assert shortest >= budget.least_filled * longest


@given(lengths=LENGTHS)
def test_at_most_a_fifth_is_padding(lengths: list[int]) -> None:
    places = sum(len(rows) * max(lengths[row] for row in rows) for rows in token_batches(lengths, TokenBudget()))
    assert sum(lengths) >= 0.8 * places


@given(length=st.integers(1, 64), rows=st.integers(1, 300))
def test_rows_of_one_length_run_in_as_few_batches_as_the_budget_allows(length: int, rows: int) -> None:
    budget = TokenBudget()
    assert len(list(token_batches([length] * rows, budget))) == -(-rows // min(budget.rows, budget.tokens // length))


@given(rows=st.integers(1, 300))
def test_an_engine_that_compiles_for_each_shape_sees_few_of_them(rows: int) -> None:
    sizes = [len(part) for part in token_batches([16] * rows, TokenBudget(row_counts=FEW_SHAPES))]
    assert set(sizes) <= set(FEW_SHAPES)
    assert sizes.count(8) >= rows // 8 - rows // 64 - 1
