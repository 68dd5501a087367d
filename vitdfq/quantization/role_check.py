"""Combinations of options that a site cannot have: refused when a student is built, not when it is calibrated hours later."""

from collections.abc import Callable, Collection

from vitdfq.quantization.observers import OBSERVERS
from vitdfq.quantization.options import Grid, Roles
from vitdfq.quantization.quantizers import QUANTIZERS, quantizer_class
from vitdfq.quantization.quantizers.base import VALUES, Quantizer


def check_layer(roles: Roles, *, reads_gelu: bool) -> None:
    """Check the roles of a Linear or Conv2d, `weight` and `activation`.

    Raises:
        ValueError: a quantizer that does not suit the values, an option that the quantizer does not have, an observer whose
            measure the scale cannot take.
    """
    _check_grid("weight", roles.weight, "weights")
    if _is_guided(roles.weight) and not roles.weight.per_channel:
        raise ValueError(f"weight.observer {roles.weight.observer!r} does not go with per_channel: false")
    inputs = roles.activation
    _check_dynamic("per_token", inputs)
    if inputs.per_prefix_token and inputs.bits is not None and quantizer_class(inputs.quantizer).by_prefix is None:
        raise ValueError(_only("activation.per_prefix_token", inputs, lambda kind: kind.by_prefix is not None))
    _check_grid("activation", inputs, "gelu" if reads_gelu else "inputs", given_for_gelu=roles.gelu if reads_gelu else ())


def check_product(roles: Roles, *, reads_softmax: bool) -> None:
    """Check the roles of a product of attention: `activation`, and of the product that reads softmax `softmax`.

    Raises:
        ValueError: as `check_layer`.
    """
    operand = roles.activation
    _check_grid("activation", operand, "operands")
    if operand.per_head and operand.bits is not None and "head" not in quantizer_class(operand.quantizer).granularities:
        raise ValueError(_only("activation.per_head", operand, lambda kind: "head" in kind.granularities))
    if _is_guided(operand) and operand.per_head:
        raise ValueError(f"activation.observer {operand.observer!r} does not go with per_head: true")
    _check_dynamic("dynamic_operands", operand)
    if reads_softmax:
        _check_grid("softmax", roles.softmax, "softmax")


def _check_dynamic(option: str, grid: Grid) -> None:
    """Check that the quantizer of activations has ranges that follow the values, where an option asks for them."""
    if getattr(grid, option) and grid.bits is not None and quantizer_class(grid.quantizer).dynamic is None:
        raise ValueError(_only(f"activation.{option}", grid, lambda kind: kind.dynamic is not None))


def _check_grid(role: str, grid: Grid, values: str, given_for_gelu: Collection[str] = ()) -> None:
    """Check a grid against the kind of values, and its options against its quantizer."""
    if grid.bits is None:
        return
    kind = quantizer_class(grid.quantizer)
    if values not in kind.suits:
        choices = ", ".join(name for name in QUANTIZERS if values in quantizer_class(name).suits)
        raise ValueError(f"{role}.quantizer {grid.quantizer!r} does not go with {VALUES[values]}; choices: {choices}")
    for option in sorted({"observer", "symmetric", "group_size"} & set(grid.given()) - kind.options):
        place = "gelu" if option in given_for_gelu else role
        what = f"{place}.{option} {getattr(grid, option)!r}"
        raise ValueError(_only(what, grid, lambda kind, option=option: option in kind.options))


def _only(what: str, grid: Grid, fits: Callable[[type[Quantizer]], bool]) -> str:
    """The message about an option that other quantizers have."""
    names = " or ".join(repr(name) for name in QUANTIZERS if fits(quantizer_class(name)))
    return f"{what} goes with quantizer {names} only, not {grid.quantizer!r}"


def _is_guided(grid: Grid) -> bool:
    return grid.bits is not None and grid.observer is not None and OBSERVERS[grid.observer].guided
