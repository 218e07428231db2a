"""One integer per stage: raise it when a change of the library changes what that stage writes.

Snakemake does not watch `src/`; every rule carries its stage's number in `params`, so raising one
reruns that stage and what depends on it, and nothing else.
"""

TEXTS = 1
DATASET = 1
CARD = 1
EXTRACT = 1
JOIN = 1
PROBE = 4
SPARSIFY = 1
AGGREGATE = 4
CLASSIFIER = 6
SENTENCE_EMBEDDING = 7
FINETUNE = 2
LABEL_TOKENS = 4
LABEL_ATTENTION = 1
LABEL_TOKENS_TABLE = 2
SEARCH = 1
TFIDF = 2
ZERO_SHOT = 2
ICL = 2
GIVEN = 1
CROSSFIT = 1
TRIPLETS = 2
TUNE = 1
RERANK = 3
ABLATIONS = 3
LRSL_TABLES = 2
LAYERS = 3
PATH_PREDICTIONS = 2
SUMMARY = 3
COMPARISONS = 2
FIGURES = 1

SHARD_FORMAT = 2
CLASSIFIER_FORMAT = 1
RERANKER_FORMAT = 2
