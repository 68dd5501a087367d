"""Whether the quantizers of a student are fitted."""

from collections.abc import Iterator

from torch import nn

from vitdfq.quantization.modules import QuantSite, named_sites


def require_fitted(student: nn.Module, step: str, remedy: str | None = None) -> None:
    """Raise ValueError, naming the first quantizer that is not fitted, before `step` computes with it."""
    for name, site, attribute in quantizers(student):
        if not site.quantizers[attribute].is_fitted:
            raise ValueError(f"{step}: {name}.{attribute} is not fitted; {remedy or f'put {step} after observe'}")


def quantizers(student: nn.Module) -> Iterator[tuple[str, QuantSite, str]]:
    """(name of the site, site, attribute) of every quantizer, in the order of registration."""
    for name, site in named_sites(student).items():
        yield from ((name, site, attribute) for attribute in site.quantizer_names)
