"""The examples at the end of each command's `--help`. tests/cli/test_examples.py parses all of them."""

EXAMPLES: dict[str, list[str]] = {  # command -> command lines
    "run": [
        "vitdfq run quickstart",
        "vitdfq run deit_s_w4a4 --dry-run",
        "vitdfq run my_recipe.yaml --set quantize.bits=w8a8 --out runs/w8a8",
    ],
    "synthesize": [
        "vitdfq synthesize quickstart",
        "vitdfq synthesize quickstart --set synthesize.method=psaq --out runs/psaq",
    ],
    "calibrate": ["vitdfq calibrate quickstart", "vitdfq calibrate my_recipe.yaml --set effort=thorough"],
    "evaluate": ["vitdfq evaluate runs/quickstart", "vitdfq evaluate runs/quickstart --set evaluate.num_images=1000"],
    "compare": [
        "vitdfq compare compare_zoo",
        "vitdfq compare quickstart --set 'compare.methods=[scenes, psaq, noise]' --set 'compare.seeds=[0, 1, 2]'",
        "vitdfq compare runs/quickstart runs/psaq --out runs/both",
    ],
    "analyze": [
        "vitdfq analyze quickstart",
        "vitdfq analyze runs/quickstart --budget average-bits=4",
        "vitdfq analyze quickstart --set evaluate.num_images=500",
    ],
    "bench": ["vitdfq bench quickstart", "vitdfq bench deit_s_w4a4 --format json", "vitdfq bench runs/quickstart --batches 1,8"],
    "export": ["vitdfq export runs/quickstart", "vitdfq export runs/quickstart --out deit.onnx"],
    "push": ["vitdfq push runs/quickstart --repo owner/name --private"],
    "convert": ["vitdfq convert model_best.pth.tar --arch vit_small_patch16_224 --out my_vit"],
    "images": ["vitdfq images runs/quickstart --out pictures"],
    "info": ["vitdfq info runs/quickstart", "vitdfq info owner/name --format json"],
    "list": ["vitdfq list", "vitdfq list methods", "vitdfq list losses --format json"],
    "schema": ["vitdfq schema > vitdfq.schema.json"],
}


def epilog(command: str) -> str:
    """Return a command's examples as the last paragraph of its help."""
    keep_lines = "\b"  # click's mark: this paragraph is not wrapped
    return "\n".join([keep_lines, "Examples:", *(f"  {line}" for line in EXAMPLES[command])])
