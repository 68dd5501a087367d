"""What a model is worth on real images: top-1 of classes, or how near features are to the teacher's.

evaluate, predict    the front door                                                             evaluate.py
EvaluationOptions    the section `evaluate` of a recipe                                         options.py
collect              what models give on images: logits, or features and classes read from them  collect.py
passes               one pass over the images for all models, in shards                         passes.py
Predictions          outputs on a set of images; FeaturePredictions: those that are no classes  predictions.py
score, summarize     numbers from predictions                                                   score.py
expectation          what to expect on real images, from outputs on synthetic ones              expectation.py
features             tokens and pooled vectors, compared with the teacher's                     features.py
readers              classes from features: a linear head, text embeddings, k-NN                readers.py, files.py, knn.py
"""

from vitdfq.data import NO_LABEL
from vitdfq.evaluation.collect import UnlabeledError
from vitdfq.evaluation.evaluate import evaluate, predict
from vitdfq.evaluation.expectation import expectation
from vitdfq.evaluation.options import AUTO, HEAD, NONE, EvaluationOptions, KnnOptions
from vitdfq.evaluation.predictions import AnyPredictions, FeaturePredictions, Predictions, predictions_of
from vitdfq.evaluation.readers import check_reading
from vitdfq.evaluation.score import feature_distance, no_score, score, summarize

__all__ = [
    "AUTO",
    "HEAD",
    "NONE",
    "NO_LABEL",
    "AnyPredictions",
    "EvaluationOptions",
    "FeaturePredictions",
    "KnnOptions",
    "Predictions",
    "UnlabeledError",
    "check_reading",
    "evaluate",
    "expectation",
    "feature_distance",
    "no_score",
    "predict",
    "predictions_of",
    "score",
    "summarize",
]
