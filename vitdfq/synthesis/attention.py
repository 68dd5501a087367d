"""Where the model looks: one row of attention a head, by the class token or on average."""

from collections.abc import Mapping

from torch import Tensor

from vitdfq.models.family import AttentionSite


def rows_name(site: AttentionSite) -> str:
    """The submodule to listen to for `attention_rows`: where a class token reads the image, its row is enough."""
    return f"{site.name}.class_row" if site.class_row else f"{site.name}.softmax"


def attention_rows(recorded: Mapping[str, Tensor], site: AttentionSite) -> Tensor:
    """Return (B, num_windows, H, N): the class token's row, or the mean over query rows where none reads the image."""
    attention = recorded[rows_name(site)]
    rows = attention if site.class_row else attention.mean(-2)
    return rows.unflatten(0, (-1, site.num_windows))
