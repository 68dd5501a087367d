"""evaluate() and predict(): a model on real images, beside its teacher."""

from typing import Any

from torch import nn

from vitdfq.common.options import build_options, takes_options
from vitdfq.evaluation.collect import predict_all
from vitdfq.evaluation.options import EvaluationOptions
from vitdfq.evaluation.score import summarize
from vitdfq.runtime.run import Run


@takes_options(EvaluationOptions)
def evaluate(
    model: nn.Module,
    *,
    teacher: nn.Module | None = None,
    options: EvaluationOptions | None = None,
    run: Run | None = None,
    **keywords: Any,
) -> dict[str, Any]:
    """Return top1, top5 and num_images of `model`; with a teacher also agreement, kl and logits_sqnr_db (see `score`).

    A model that gives features is compared with its teacher: cosine, relative_error and features_sqnr_db (see `summarize`). Its
    top1 is None, unless one of the options `knn`, `linear_head` and `text_embeddings` reads classes; `read_by` says which.

    Args:
        model: a timm model or a student, in eval mode; it stays on its device.
        teacher: evaluated on the same images in the same pass, with the transform of `model`.
        options: all options as one object, instead of keywords.
        run: receives the progress; shares the images over processes.
        keywords: the fields of `EvaluationOptions`, where they are documented.

    Raises:
        ValueError: a wrong argument; a model that is not in eval mode or not in float32; outputs that are not finite.
        UnlabeledError: nothing to compare the outputs with: no teacher, and no labels or nothing that reads classes.
        RecipeError, InputError, AccessError: the data; see `vitdfq.data.load_labeled`. InputError: the head's or texts' file.
    """
    options = options or build_options(EvaluationOptions, keywords, where="evaluate")
    models = [model] if teacher is None else [model, teacher]
    predictions = predict_all(models, options, run or Run(), alone=teacher is None)
    return summarize(predictions[0], None if teacher is None else predictions[1])


@takes_options(EvaluationOptions)
def predict(
    model: nn.Module,
    *,
    teacher: nn.Module | None = None,
    options: EvaluationOptions | None = None,
    run: Run | None = None,
    **keywords: Any,
) -> Any:
    """Return what `model` gives on every image, `Predictions` or `FeaturePredictions`; arguments and errors as `evaluate`.

    Shards of the images are shared over the processes; `run` keeps finished ones. A teacher is needed only for tokens, which are
    too large to keep: they are compared with its tokens in the same pass.
    """
    options = options or build_options(EvaluationOptions, keywords, where="evaluate")
    return predict_all([model] if teacher is None else [model, teacher], options, run or Run())[0]
