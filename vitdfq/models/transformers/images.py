"""preprocessor_config.json of `transformers`: how images become a model's input, in timm's words."""

from pathlib import Path
from typing import Any

from vitdfq.common.errors import InputError
from vitdfq.common.files import read_json
from vitdfq.models.untrusted import check_pretrained_cfg, short

PREPROCESSOR = "preprocessor_config.json"
INTERPOLATIONS = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic", 4: "box", 5: "hamming"}  # Pillow's numbers
BY_SHORTEST_EDGE = ("CLIP", "Bit")  # in the name of a processor: a size of one number is that of the shortest edge


def read_images(folder: Path) -> dict[str, Any] | None:
    """Return mean, std, interpolation, crop_pct, crop_mode and input_size; None where the folder has no preprocessor_config.json.

    timm resizes to `input_size / crop_pct` and crops the center. "squash" changes the sides apart.

    Raises:
        InputError: the file is damaged, or says what no image has.
    """
    file = folder / PREPROCESSOR
    if not file.is_file():
        return None
    values = read_json(file)
    try:
        result = _images(values)
        check_pretrained_cfg(result)
    except InputError:
        raise
    except (ValueError, TypeError, KeyError, ZeroDivisionError) as error:
        raise InputError(f"{file}: {error}") from error
    return result


def _images(values: dict[str, Any]) -> dict[str, Any]:
    name = str(values.get("image_processor_type") or values.get("feature_extractor_type") or "")
    result: dict[str, Any] = {}
    if values.get("do_normalize", True) and {"image_mean", "image_std"} <= set(values):
        unit = 255 * (_number(values, "rescale_factor", 1 / 255) if values.get("do_rescale", True) else 1.0)
        for key, given in (("mean", values["image_mean"]), ("std", values["image_std"])):
            three = given if isinstance(given, list) else [given] * 3
            result[key] = three if abs(unit - 1) < 1e-6 else [part / unit for part in three]
    elif not values.get("do_normalize", True):
        result |= {"mean": [0.0] * 3, "std": [1.0] * 3}
    if "resample" in values:
        if values["resample"] not in INTERPOLATIONS:
            raise ValueError(f"resample is {short(values['resample'])}; expected a number of Pillow's, 0 to 5")
        result["interpolation"] = INTERPOLATIONS[values["resample"]]
    return result | _sizes(values, any(part in name for part in BY_SHORTEST_EDGE))


def _sizes(values: dict[str, Any], by_shortest_edge: bool) -> dict[str, Any]:
    """The size of the images, and which part of a photograph they show."""
    size, keeps_shape = _size(values.get("size"), by_shortest_edge)
    crop = _size(values.get("crop_size"), False)[0] if values.get("do_center_crop") else None
    if size is None and crop is None:
        return {}
    wanted = crop or size
    assert wanted is not None
    share = 1.0 if size is None or crop is None else crop[0] / size[0]
    return {"input_size": [3, *wanted], "crop_pct": share, "crop_mode": "center" if keeps_shape else "squash"}


def _size(value: Any, by_shortest_edge: bool) -> tuple[list[int] | None, bool]:
    """A size in any of the forms of transformers, and whether it is that of the shortest edge."""
    if isinstance(value, dict) and "shortest_edge" in value:
        return [value["shortest_edge"]] * 2, True
    if isinstance(value, dict) and {"height", "width"} <= set(value):
        return [value["height"], value["width"]], False
    if isinstance(value, list) and len(value) == 2:
        return value[::-1], False  # Pillow's order: width, height
    if isinstance(value, int):
        return [value] * 2, by_shortest_edge
    if value is not None:
        raise ValueError(f"size is {short(value)}; expected height and width, or the shortest edge")
    return None, True


def _number(values: dict[str, Any], key: str, default: float) -> float:
    value = values.get(key, default)
    if not isinstance(value, int | float) or isinstance(value, bool) or not value:
        raise ValueError(f"{key} is {short(value)}; expected a number")
    return value
