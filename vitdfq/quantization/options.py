"""What can be set of a student's quantizers: the spelling of bits, the options of each role, and changes of them."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from vitdfq.common.lookup import did_you_mean
from vitdfq.common.options import LONGEST_PATH, OptionError, UnknownOptionError
from vitdfq.models.untrusted import short
from vitdfq.quantization.observers import OBSERVERS
from vitdfq.quantization.quantizers import QUANTIZERS, quantizer_class

Change = Mapping[str, Any]  # option -> value; what is not named stays as it is
ROLES = ("weight", "activation", "gelu", "softmax")
_GRID = ("bits", "quantizer", "symmetric", "observer")
OPTIONS = {  # role -> its options
    "weight": (*_GRID, "per_channel", "group_size"),
    "activation": (*_GRID, "per_head", "per_prefix_token", "per_token", "dynamic_operands"),
    "gelu": (*_GRID, "per_prefix_token", "per_token"),
    "softmax": (*_GRID, "renormalize"),
}
VALUES_OF_ROLE = {  # role -> the kinds of values in it, as `Quantizer.suits` names them
    "weight": ("weights",),
    "activation": ("inputs", "operands"),
    "gelu": ("gelu",),
    "softmax": ("softmax",),
}
FLOAT_NAMES = (16, 32)  # "a16" and "a32" mean the same: activations stay in the model's float type
ACTIVATION_NAMES = (*range(2, 9), *FLOAT_NAMES)
SPELLINGS = tuple(f"w{weight}a{activation}" for weight in range(2, 9) for activation in ACTIVATION_NAMES)


@dataclass(frozen=True)
class Grid:
    """How the values of one role are quantized.

    Attributes:
        bits: 2 to 8; None: left in float.
        quantizer: a name in `QUANTIZERS`.
        symmetric, observer, group_size: arguments of the quantizer; None: not given, so that its own default holds.
        per_channel: of weights: a scale for each output channel, where the quantizer has that; False: one for the whole weight.
        per_head: of operands of attention: a scale for each head.
        per_prefix_token: of inputs of linear layers: a scale for the class token and for each register, one for all patches;
            without effect where tokens have no fixed order (Swin).
        per_token: of inputs of linear layers: each token's own range, determined as the token arrives.
        dynamic_operands: of operands of attention: in each head the own range of each query and of each key, and one range of all
            values, determined as they arrive.
        renormalize: of softmax: divide each output row by the sum of its quantized row.

    Raises:
        ValueError: a value that its option does not take.
    """

    bits: int | None
    quantizer: str = "uniform"
    symmetric: bool | None = None
    observer: str | None = None
    group_size: int | None = None
    per_channel: bool = True
    per_head: bool = False
    per_prefix_token: bool = False
    per_token: bool = False
    dynamic_operands: bool = False
    renormalize: bool = False

    def __post_init__(self) -> None:
        for name, value in self.given().items():
            check_option(name, value)

    def given(self) -> dict[str, Any]:
        """The options that have a value; `bits` always."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if value is not None or name == "bits"}

    def changed(self, change: Change) -> "Grid":
        """Return the grid with these options changed. A quantizer or observer drops the earlier ones that it does not have."""
        return replace(self, **_dropped_by(change) | dict(change))


@dataclass(frozen=True)
class Roles:
    """The grids of a model, or of one site. `gelu` is what differs from `activation` for inputs that are GELU's output."""

    weight: Grid
    activation: Grid
    softmax: Grid
    gelu: Change = field(default_factory=dict)

    def changed(self, change: Change) -> "Roles":
        """Return the roles after a change {"bits": for all roles, role: {option: value}}."""
        bits = {"bits": change["bits"]} if "bits" in change else {}
        parts = {role: bits | dict(change.get(role) or {}) for role in ROLES} | {"gelu": bits | gelu_of(change)}
        dropped = _dropped_by(parts["gelu"])
        return Roles(
            weight=self.weight.changed(parts["weight"]),
            activation=self.activation.changed(parts["activation"]),
            softmax=self.softmax.changed(parts["softmax"]),
            gelu={name: value for name, value in self.gelu.items() if name not in dropped} | parts["gelu"],
        )

    def for_gelu(self, change: Change) -> "Roles":
        """Return the roles with a change of the role "gelu" applied to `activation`: for a site that reads GELU's output."""
        return replace(self, activation=self.activation.changed(change))


def gelu_of(change: Change) -> dict[str, Any]:
    """The options of the role "gelu" in a change of roles.

    `per_token` and `per_prefix_token` of "activation" are among them: asked for in the same change, they are refused by a
    quantizer that lacks them, not dropped in silence.
    """
    activation = change.get("activation") or {}
    asked = {name: activation[name] for name in ("per_prefix_token", "per_token") if name in activation}
    return asked | dict(change.get("gelu") or {})


def _dropped_by(change: Change) -> dict[str, Any]:
    """The options, at the values that mean "not given", that the quantizer or the observer in a change does not have."""
    guided = OBSERVERS[change["observer"]].guided if change.get("observer") is not None else False
    dropped: dict[str, Any] = {"per_head": False} if guided else {}
    if "quantizer" not in change:
        return dropped
    kind = quantizer_class(change["quantizer"])
    dropped |= dict.fromkeys({"symmetric", "observer", "group_size"} - kind.options)
    has = {
        "per_head": "head" in kind.granularities,
        "per_prefix_token": kind.by_prefix is not None,
        "per_token": kind.dynamic is not None,
        "dynamic_operands": kind.dynamic is not None,
    }
    return dropped | {name: False for name, is_there in has.items() if not is_there}


def parse_bits(bits: str) -> tuple[int, int | None]:
    """Return the bits of weights and of activations of a name like "w4a4".

    Weights have 2 to 8 bits, activations 2 to 8 or, as "a16" or "a32", None: activations, softmax included, stay in the model's
    float type. The two spellings mean the same.

    Raises:
        ValueError: not such a name.
    """
    if not isinstance(bits, str) or bits not in SPELLINGS:
        grammar = "w<2-8>a<2-8|16|32>: weights of 2 to 8 bits, activations of 2 to 8 bits or in float (a16, a32)"
        raise ValueError(f"unknown bits {short(bits)}{_hint(bits)}; choices: {grammar}, for example w4a4, w8a8 or w4a16")
    weight, activation = (int(number) for number in bits[1:].split("a"))
    return weight, None if activation in FLOAT_NAMES else activation


def bits_name(weight_bits: int | None, activation_bits: int | None) -> str:
    """Undo `parse_bits`, of what `bits_of` returns: 16 stands for float."""
    return f"w{weight_bits or 16}a{activation_bits or 16}"


def bits_title(bits: str, *, dynamic: bool, mixed: float | None = None) -> str:
    """A student's bits as tables name them: "W4A4", "W4A4 dynamic" where `is_dynamic` holds, "W3.98A4 mixed" with bits by layer.

    Args:
        bits: "w4a4".
        dynamic: what `is_dynamic` returns.
        mixed: what `mixed_weight_bits` returns.
    """
    if mixed is not None:
        bits = f"w{mixed:g}a{bits.partition('a')[2]}"
    return bits.upper() + " dynamic" * dynamic + " mixed" * (mixed is not None)


def _hint(bits: Any) -> str:
    """ ", did you mean 'w8a8'?" for "int8", and alike for "W4A4", "w4", "4bit", "4/8" and 4; empty where nothing is near."""
    if isinstance(bits, bool) or not isinstance(bits, str | int):
        return ""
    text = str(bits)[:20].lower()
    numbers = [int(number) for number in re.findall(r"\d+", text)]
    if len(numbers) == 1:
        weights_alone = re.fullmatch(r"\W*w\W*\d\W*", text)
        numbers.append(FLOAT_NAMES[0] if weights_alone else numbers[0])
    direct = "w{}a{}".format(*numbers) if len(numbers) == 2 else ""
    return did_you_mean(direct if direct in SPELLINGS else text, SPELLINGS)


def check_change(change: Change, role: str, keys: tuple[str, ...]) -> None:
    """Check the options that a mapping gives for a role; `keys` lead to the mapping.

    Raises:
        OptionError: not a mapping, an option that the role does not have, or a value that the option does not take.
    """
    if not isinstance(change, Mapping):
        raise OptionError(keys, f"{short(change)} is not a mapping of options")
    for name, value in change.items():
        if name not in OPTIONS[role]:
            raise UnknownOptionError((*keys, name), OPTIONS[role])
        try:
            check_option(name, value, role)
        except ValueError as error:
            raise OptionError((*keys, name), str(error)) from None


def check_option(name: str, value: Any, role: str | None = None) -> None:
    """Raise ValueError unless an option takes a value; the choices it names are those of the role."""
    if name == "bits":
        check_bits(value)
    elif name == "quantizer":
        if not isinstance(value, str) or value not in QUANTIZERS:  # one of another role is refused where the site is known
            check_name(value, [name for name in QUANTIZERS if role is None or suits_role(name, role)], "quantizer")
    elif name == "observer":
        check_name(value, OBSERVERS, "observer")
    elif name == "group_size":
        if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
            raise ValueError(f"group_size is {short(value)}; expected a whole number of at least 1, or null")
    elif not isinstance(value, bool):
        raise ValueError(f"{name} is {short(value)}; expected true or false")


def suits_role(quantizer: str, role: str) -> bool:
    """Whether a quantizer may stand in a role: it is made for some of its values."""
    return not quantizer_class(quantizer).suits.isdisjoint(VALUES_OF_ROLE[role])


def check_bits(bits: Any, where: str | None = None) -> None:
    """Raise ValueError, which `where` may start, unless `bits` is an integer 2..8, or None: left in float."""
    if bits is not None and (isinstance(bits, bool) or not isinstance(bits, int) or not 2 <= bits <= 8):
        start = "" if where is None else f"{where}: "
        raise ValueError(f"{start}bits is {short(bits)}; choices: 2 to 8, or null for float")


def check_name(name: Any, choices: Collection[str], what: str) -> None:
    """Raise ValueError unless a value, which may come out of a stranger's file, is one of the names."""
    if not isinstance(name, str) or name not in choices:
        near = did_you_mean(name, choices) if isinstance(name, str) and len(name) <= LONGEST_PATH else ""
        raise ValueError(f"unknown {what} {short(name)}{near}; choices: {', '.join(sorted(choices))}")
