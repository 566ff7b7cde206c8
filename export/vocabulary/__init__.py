"""Vocabulary pruning: embeddings only for the tokens that a domain uses."""

from export.vocabulary.characters import CharacterRule
from export.vocabulary.coverage import Coverage, coverage
from export.vocabulary.embeddings import select_embeddings
from export.vocabulary.plan import VocabularyPlan, prune_vocabulary

__all__ = ["CharacterRule", "Coverage", "VocabularyPlan", "coverage", "prune_vocabulary", "select_embeddings"]
