"""Which transformers of timm's open, in which family, how much of them is quantized, and which of timm's weights are taken.

    python benchmarks/coverage.py --out coverage                     # all names of timm: an hour on two cores
    python benchmarks/coverage.py --names names.json --out coverage  # those of a file: {"name": {"tags": {"name.tag": 1000}}}
    python benchmarks/coverage.py --out coverage --every 10          # each tenth name

A model stands on the meta device: no weights are drawn, downloaded or computed with. A name is a transformer if one pass
multiplies two activations, or takes a softmax. A name opens if `load_teacher` builds it; a tag is taken if `load_teacher` comes
as far as the download. Results are appended to OUT.jsonl; a name that is there is not done again. OUT.json and OUT.md are written
at the end.
"""

import argparse
import json
import sys
import time
import warnings
from collections import Counter, defaultdict
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import get_pretrained_cfg

from vitdfq.common.errors import one_line
from vitdfq.models import family_of, structure
from vitdfq.models.any_timm import built_for
from vitdfq.models.load import require_trained_head
from vitdfq.models.multiplications import multiplications
from vitdfq.models.storage import without_storage
from vitdfq.models.watching.attention import SOFTMAXES
from vitdfq.models.watching.counting import multiplications_of
from vitdfq.models.watching.watch import Call, watch
from vitdfq.preparation.why_not import why_not_residual

Result = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", type=Path, help="JSON: name -> tags; without it all names of timm")
    parser.add_argument("--out", type=Path, required=True, help="files to write, without suffix")
    parser.add_argument("--every", type=int, default=1)
    parser.add_argument("--processes", type=int, default=2)
    args = parser.parse_args()
    if args.names:
        tags = {name: list(entry["tags"]) for name, entry in json.loads(args.names.read_text()).items()}
    else:
        tags = {name: timm.list_pretrained(f"{name}.*") for name in timm.list_models()}
    wanted = dict(list(tags.items())[:: args.every])
    lines = args.out.with_suffix(".jsonl")
    lines.parent.mkdir(parents=True, exist_ok=True)
    results = read(lines)
    jobs = [(name, of_name, args.names is not None) for name, of_name in wanted.items() if name not in results]
    with ProcessPoolExecutor(args.processes, initializer=prepare_process) as pool, lines.open("a") as file:
        for done in as_completed([pool.submit(look_at, *job) for job in jobs]):
            result = done.result()
            results[result["name"]] = result
            file.write(json.dumps(result) + "\n")
            file.flush()
    found = [results[name] for name in wanted if results[name]["transformer"]]
    args.out.with_suffix(".json").write_text(json.dumps(found, indent=1) + "\n")
    args.out.with_suffix(".md").write_text(report(found))
    print(report(found))
    print(summary(found))


def read(lines: Path) -> dict[str, Result]:
    """The results of an earlier start, by name; the last line may be cut off."""
    results = {}
    for line in lines.read_text().splitlines() if lines.exists() else []:
        try:
            result = json.loads(line)
        except ValueError:
            continue
        results[result["name"]] = result
    return results


def prepare_process() -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")


def look_at(name: str, tags: list[str], is_listed: bool) -> Result:
    """All there is to say of one name of timm's.

    Args:
        name: of an architecture.
        tags: `name.tag` of its weights.
        is_listed: it is a transformer; else a pass has to show that.
    """
    start = time.perf_counter()
    result: Result = {"name": name, "module": timm.models.model_entrypoint(name).__module__.rpartition(".")[2], "tags": len(tags)}
    result["transformer"] = is_listed or is_transformer(name)
    if result["transformer"]:
        result |= opened(name)
        result["refused_tags"] = refused(name, tags, result.get("why"))
    return result | {"seconds": round(time.perf_counter() - start, 2)}


def is_transformer(name: str) -> bool:
    """Whether one pass multiplies two activations."""
    try:
        with torch.device("meta"):
            model: Any = timm.create_model(name)
        images = torch.zeros(2, 3, *built_for(model), device="meta", requires_grad=True)
        call = watch(without_storage(model).eval().requires_grad_(False), images)
    except Exception:  # no pass, of whatever reason: it reads no images, or not on the meta device
        return False
    return any(attends(inner) for inner in call.walk())


def attends(call: Call) -> bool:
    """Whether a function multiplies two activations, or takes a softmax outside a classifier (attention element by element)."""
    if call.name is not None:
        return False
    operands = [value for value in call.args if isinstance(value, torch.Tensor) and value.requires_grad]
    return call.target in SOFTMAXES or (len(operands) > 1 and multiplications_of(call) > 0)


def opened(name: str) -> Result:
    """Whether a name opens, or why not; its family; whether its stream is rotated, or why not; the share that is quantized."""
    try:
        with torch.device("meta"):
            model: Any = structure(name)
    except Exception as error:  # a bug in the package is a reason too
        return {"opens": False, "why": reason_of(error)}
    result: Result = {"opens": True, "family": family_of(model).name, "rotated": False}
    try:
        why = why_not_residual(model)
        result |= {"rotated": why is None, "not_rotated": why}
        found = multiplications(model)
        result |= {"share": round(found.share, 4), "in_float": [[part.kind, part.name] for part in found.in_float[:3]]}
    except Exception as error:
        result |= {"problem": reason_of(error)}
    return result


def refused(name: str, tags: list[str], why: str | None) -> dict[str, str]:
    """The tags whose weights `load_teacher` would not download, and why.

    Of tags whose models differ in the number of classes alone one is built.

    Args:
        name: of the architecture.
        tags: of its weights.
        why: the reason why it does not open as timm builds it by default.
    """
    reasons: dict[str, str | None] = {built_from(name): why}
    result = {}
    for tag in tags:
        key = built_from(tag)
        if key not in reasons:
            reasons[key] = why_not_built(tag)
        on_hub = getattr(get_pretrained_cfg(tag), "hf_hub_id", None)
        if reason := reasons[key] or ("" if on_hub else "no weights on the hub"):
            result[tag] = reason
    return result


def built_from(tag: str) -> str:
    """What timm takes from the description of the weights when it builds a model, but for how many classes there are."""
    config: Any = get_pretrained_cfg(tag)
    if config is None:
        return ""
    size = config.input_size if config.fixed_input_size else config.input_size[:1]
    return str((bool(config.num_classes), list(size), config.pool_size, getattr(config, "global_pool", None)))


def why_not_built(tag: str) -> str | None:
    """Why `load_teacher` would not come to the weights of `name.tag`; None if it would."""
    try:
        with torch.device("meta"):
            require_trained_head(structure(tag))
    except Exception as error:
        return reason_of(error)
    return None


def reason_of(error: Exception) -> str:
    """One line, without the list of the families."""
    kind = "" if isinstance(error, ValueError) else f"{type(error).__name__}: "
    return kind + one_line(error, most=None).partition("; supported:")[0]


def report(found: list[Result]) -> str:
    """Tables in markdown: the families, what does not open, and what is not rotated."""
    by_family: dict[str, list[Result]] = defaultdict(list)
    for result in found:
        by_family[result.get("family", "not opened")].append(result)
    rows = ["| family | names | tags | taken | rotated | share quantized, least | median |", "|-|-:|-:|-:|-:|-:|-:|"]
    for family, results in sorted(by_family.items()):
        shares = sorted(result["share"] for result in results if "share" in result)
        ends = f"{100 * shares[0]:.1f} % | {100 * shares[len(shares) // 2]:.1f} %" if shares else "- | -"
        counts = (len(results), sum(r["tags"] for r in results), sum(map(taken, results)), sum(map(is_rotated, results)))
        rows.append(f"| {family} | {' | '.join(map(str, counts))} | {ends} |")
    groups = {
        "Not opened": Counter((r["module"], r["why"].partition(": ")[2] or r["why"]) for r in found if not r["opens"]),
        "Not rotated": Counter((r["family"], r["not_rotated"]) for r in found if r.get("not_rotated")),
        "Tags not taken, of names that open": Counter(
            (r["module"], why.partition(": ")[2] or why) for r in found if r["opens"] for why in r["refused_tags"].values()
        ),
        "Problems": Counter((r["family"], r["problem"]) for r in found if "problem" in r),
    }
    for title, counter in groups.items():
        if counter:
            rows += ["", f"{title}:", "", "| | why | number |", "|-|-|-:|"]
            rows += [f"| {place} | {why} | {count} |" for (place, why), count in sorted(counter.items())]
    return "\n".join([*rows, ""])


def taken(result: Result) -> int:
    """The number of tags whose weights `load_teacher` takes."""
    return result["tags"] - len(result["refused_tags"]) if result["opens"] else 0


def is_rotated(result: Result) -> bool:
    """Whether the residual stream is rotated."""
    return result.get("rotated", False)


def summary(found: list[Result]) -> str:
    """The last line of the output."""
    tags = sum(result["tags"] for result in found)
    opens, takes, rotated = (sum(map(count, found)) for count in (lambda result: result["opens"], taken, is_rotated))
    return f"opens {opens} of {len(found)} names, takes {takes} of {tags} tags, rotated {rotated}"


if __name__ == "__main__":
    sys.exit(main())
