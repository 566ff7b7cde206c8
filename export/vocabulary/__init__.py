"""Vocabulary pruning: embeddings only for the tokens that a domain's training texts use.

A small encoder is mostly its token embedding (MiniLM: 11.7 of 22.7 million weights, more once its layers are pruned),
and a domain uses a part of it. The tokens that training texts use stay, and what spells all others: single characters
or bytes, and the pieces on the way of a merge. So training texts are tokenized as before, and an unseen word gets
shorter pieces of itself, never a wrong token. The alternative, to map a dropped token to a similar one, saves as much
and says what the text doesn't.

The price, on all-MiniLM-L6-v2 (30,522 tokens) fine-tuned on the example's 18,820 short texts, measured on its 2,352 dev
texts of 23.1 tokens with no fine-tuning afterwards (loss of macro-F1, 95 % interval; int8 megabytes of embedding,
11.7 before):

| kept | characters | tokens | MB | dev texts changed | tokens more | points lost |
| --- | --- | --- | --- | --- | --- | --- |
| used once | all | 19,590 (64 %) | 7.5 | 18 % | 0.28 | 0.5 (0.0 to 1.1) |
| used twice | seen scripts | 14,193 (47 %) | 5.5 | 35 % | 0.63 | 0.8 (0.1 to 1.5) |
| used 3 times | seen scripts | 11,628 (38 %) | 4.5 | 46 % | 1.03 | 1.0 (0.1 to 1.9) |
| used 5 times | seen scripts | 8,471 (28 %) | 3.3 | 62 % | 1.84 | 1.9 (0.6 to 3.0) |

No dev token became unknown in any of them. So it is an option with a row of its own, and recovery comes after it.
Dropping letters of unseen scripts saves 1,170 rows here (0.45 MB), dropping all unseen characters outside ASCII 1,546.

characters.py       which single characters stay
wordpiece.py, …     one tokenizer model each; piece_models.py lists them
numbering.py        new numbers wherever a tokenizer.json has old ones
plan.py             texts → which tokens stay, and the new tokenizer
embeddings.py       the model with those rows
coverage.py         what changed on other texts
"""

from export.vocabulary.characters import CharacterRule
from export.vocabulary.coverage import Coverage, coverage
from export.vocabulary.embeddings import select_embeddings
from export.vocabulary.plan import VocabularyPlan, prune_vocabulary

__all__ = ["CharacterRule", "Coverage", "VocabularyPlan", "coverage", "prune_vocabulary", "select_embeddings"]
