"""Strategies that turn a valid file into a malicious one, by random bytes or by changes of its structure."""

import json
import struct
from copy import deepcopy
from typing import Any

from hypothesis import strategies as st


class Content(bytes):
    """A file's content, of which only the beginning is printed when a test fails."""

    def __repr__(self) -> str:
        return f"{len(self)} bytes, {bytes(self[:300])!r}"


DEEP: Any = []
for _ in range(200):
    DEEP = [DEEP]

VALUES: list[Any] = [
    *(None, True, False, 0, -1, 1, 2, 3, 7, 9, 64, 10**6, 10**9, 10**18, 10**30, -(10**9), 0.5, -0.5, 1e-300, 1e308, -1e308),
    *("", "x", "../../../tmp/x", "/etc/passwd", "local-dir:/", "w99a1", "\x00", "os.system", "*", "é" * 50, "a" * 5000),
    *([], {}, [[]], {"": {}}, [0, 0], [10**9, 10**9], [3, 0, 0], [3, 10**6, 10**6], {"bits": -4}, {"bits": 10**9}),
    *({"quantizer": "exec"}, {"group_size": 0}, {"group_size": 10**12}, {"group_size": -1}, DEEP, float("nan"), float("inf")),
]
NEW_KEYS = [  # keys with a meaning for timm or this library
    *("checkpoint_path", "pretrained", "pretrained_cfg", "features_only", "scriptable", "cache_dir", "depth", "img_size"),
    *("embed_dim", "num_heads", "mlp_ratio", "patch_size", "norm_layer", "act_layer", "block_fn", "attn_layer", "in_chans"),
    *("dynamic_img_size", "global_pool", "class_token", "reg_tokens", "init_values", "drop_path_rate", "weight_init", "bits"),
    *("file", "state_dict", "url", "custom_load", "hf_hub_id", "steps", "overrides", "weight", "policy", "__class__", "head.*"),
]


def places(tree: Any, path: tuple = ()) -> list[tuple]:
    """The path of every value in nested mappings and lists, except the root."""
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [place for key, value in inner for place in [(*path, key), *places(value, (*path, key))]]


@st.composite
def changed(draw, tree: Any) -> Any:
    """The tree with one to three values replaced, removed, or added."""
    tree = deepcopy(tree)
    for _ in range(draw(st.integers(1, 3))):
        options = places(tree)
        if not options:
            break
        *holder, key = options[draw(st.integers(0, len(options) - 1))]
        inside = tree
        for step in holder:
            inside = inside[step]
        how = draw(st.sampled_from(["replace", "replace", "remove", "add"]))
        value = deepcopy(draw(st.sampled_from(VALUES)))
        if how == "remove":
            del inside[key]
        elif how == "replace":
            inside[key] = value
        elif isinstance(inside, dict):
            inside[draw(st.sampled_from(NEW_KEYS))] = value
        else:
            inside.append(value)
    return tree


@st.composite
def damaged(draw, content: bytes) -> bytes:
    """The bytes with parts removed, overwritten or inserted, most often near the beginning, where headers are."""
    content = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        place = draw(st.one_of(st.integers(0, min(len(content), 300)), st.integers(0, len(content))))
        how = draw(st.sampled_from(["cut", "write", "insert"]))
        if how == "cut":
            del content[place : place + draw(st.integers(1, 2000))]
        else:
            new = draw(st.one_of(st.binary(min_size=1, max_size=9), st.sampled_from([b"\xff" * 8, b"\x80\x04", b"[" * 3000])))
            content[place : place + (len(new) if how == "write" else 0)] = new
    return Content(content)


SHAPES = [[], [0], [1], [-1], [2**31], [2**62, 2**62], [0, 2**60], [1] * 100, [1.5], "x", None, [None]]
TYPES = ["F32", "F64", "F16", "BF16", "I8", "U8", "I32", "I64", "BOOL", "F8_E4M3", "C64", "F4", "U64", "", "X" * 1000, None, 3]
OFFSETS = [[0, 0], [0, 4], [4, 0], [0, 2**63], [-1, 4], [0, 2**70], [1], [], None, ["a", "b"]]


@st.composite
def lying(draw, content: bytes) -> bytes:
    """A safetensors file with a changed header and unchanged data."""
    length = struct.unpack("<Q", content[:8])[0]
    header, data = json.loads(content[8 : 8 + length]), content[8 + length :]
    for _ in range(draw(st.integers(1, 3))):
        name = draw(st.sampled_from(sorted(header)))
        entry = header[name]
        how = draw(st.sampled_from(["dtype", "shape", "data_offsets", "remove", "rename", "copy", "other"]))
        if how in ("dtype", "shape", "data_offsets") and isinstance(entry, dict) and "shape" in entry:
            entry[how] = deepcopy(draw(st.sampled_from({"dtype": TYPES, "shape": SHAPES, "data_offsets": OFFSETS}[how])))
        elif how == "remove" and len(header) > 1:
            del header[name]
        elif how == "rename":
            header[draw(st.sampled_from(["", "x", "a" * 10_000, "../x", "\x00", "__metadata__"]))] = header.pop(name)
        elif how == "copy":
            header[f"{name}.more"] = deepcopy(entry)
        elif how == "other":
            header[name] = deepcopy(draw(st.sampled_from(VALUES[:-2])))
    text = json.dumps(header).encode()
    stated = draw(st.sampled_from([len(text)] * 6 + [0, 1, len(text) - 1, len(text) + 1, 2**40, 2**63, 2**64 - 1]))
    return Content(struct.pack("<Q", stated) + text + data)


@st.composite
def filled(draw, content: bytes) -> bytes:
    """A safetensors file with extreme numbers in one tensor."""
    length = struct.unpack("<Q", content[:8])[0]
    header = json.loads(content[8 : 8 + length])
    name = draw(st.sampled_from(sorted(name for name in header if name != "__metadata__")))
    start, end = (8 + length + offset for offset in header[name]["data_offsets"])
    words = st.sampled_from(["0000c07f", "0000807f", "000080ff", "00000000", "000080bf", "ffff7f7f", "ffffffff", "01000000"])
    word = bytes.fromhex(draw(words))  # NaN, infinities, 0, -1, the largest, -1 as an integer, a denormal
    where = draw(st.integers(0, max(0, (end - start) // 4 - 1))) * 4
    everywhere = draw(st.booleans())
    new = (
        (word * (end - start))[: end - start]
        if everywhere
        else content[start : start + where] + word + content[start + where + 4 : end]
    )
    return Content(content[:start] + new[: end - start] + content[end:])
