"""What a model card says of a model that gives features: what its outputs are, and how they were measured."""

from dataclasses import dataclass
from typing import Any

ALIKE = (
    "The model gives features, not classes. Cosine (mean over images) and relative error, |difference| / |teacher's|, compare "
    "them with the float32 teacher's"
)
HOW = {  # what read the classes -> the text above the table
    None: f"{ALIKE}; they need no labels.",
    "knn": f"{ALIKE}. Top-1 is by weighted k-NN (DINO's protocol, arXiv 2104.14294); each model makes its own neighbors.",
    "linear_head": f"{ALIKE}. Top-1 is by a linear head on them that came as a file and is no part of this repository.",
    "text_embeddings": f"{ALIKE}. Top-1 is zero-shot, by the cosine to embeddings of texts that came as a file.",
}
TITLES = {"knn": "k-NN ", "linear_head": "Linear ", "text_embeddings": "Zero-shot "}
DISTANCE = (("cosine", "cosine", 4), ("relative error", "relative_error", 4), ("SQNR dB", "features_sqnr_db", 2))
ACCURACY = (("top-1 %", "top1", 2), ("top-5 %", "top5", 2))
AGREEMENT = (("agreement with teacher %", "agreement", 2),)


@dataclass(frozen=True)
class CardFeatures:
    """The outputs of a model that gives features.

    Attributes:
        output: "features", or "embedding" of a projection to the space of texts.
        width: of an embedding; None: not known from the config.
        global_pool: of the model's arguments; "" gives tokens.
        read_by: what read the classes, or None.
        columns: of the card's table: heading, key of metrics.json, digits.
    """

    output: str
    width: int | None
    global_pool: str | None
    read_by: str | None
    columns: tuple[tuple[str, str, int], ...]

    def describe(self) -> str:
        """A sentence on the outputs."""
        if self.output == "embedding":
            return f"The embedding (batch, {self.width}) lies in the space of the text encoder that the teacher was trained with."
        if self.global_pool == "":
            return "The features are tokens, not pooled: (batch, tokens, width)."
        return "The features are one vector for each image, (batch, width), the input of a head of your own."


def features_of(metrics: dict[str, Any], config: dict[str, Any]) -> CardFeatures | None:
    """Return what to say of the features; None for a model that gives classes.

    Args:
        metrics: content of metrics.json.
        config: content of config.json.
    """
    student = metrics["student"]
    if "cosine" not in student:
        return None
    model, read_by = config["vitdfq"]["model"], metrics.get("read_by")
    accuracy = ACCURACY if read_by and student["top1"] is not None else ()
    return CardFeatures(
        output="embedding" if model["num_classes"] else "features",
        width=model["num_classes"] or None,
        global_pool=model.get("model_args", {}).get("global_pool"),
        read_by=read_by,
        columns=DISTANCE + accuracy + (AGREEMENT if read_by else ()),
    )
