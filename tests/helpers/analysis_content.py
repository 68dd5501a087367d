"""The content of an analysis.json."""

SCORES = {"kl": 0.01234567, "sqnr_db": 20.04, "agreement": 98.0}
CONTENT = {
    **{"vitdfq": "0.1.0", "device": "cpu"},
    **{"model": "toy", "bits": "w4a4", "seed": 3, "num_images": 24, "num_held_out": 8, "student": SCORES, "measured": {}},
    "sites": [
        {
            **{"site": name, "unit": "blocks.0", "bits": {"weight": 4, "input": 8}, "alone": SCORES | {"kl": kl}},
            **{"all_but": SCORES, "alone_measured": {}, "all_but_measured": {}},
        }
        for name, kl in (("blocks.0.mlp.fc1", 0.5), ("head", 0.0))
    ],
    "units": [{"unit": "blocks.0", "weights": 20.0, "activations": None, "both": 20.0}],
    "ranges": [
        {
            **{"site": f"site{index}", "part": "weight", "bits": 4, "least": -1.0, "largest": 1.0},
            **{"peak_to_rms": 4.0 + index, "channel_ratio": 1.0, "sqnr_db": None},
        }
        for index in range(12)
    ],
    "attention": [{"site": "blocks.0.attn", "kl": 0.1, "kl_by_head": [0.05, 0.15], "entropy": 2.0}],
    "allocation": {
        **{"budget": "average-bits", "amount": 4.0, "bits": {"blocks.0.mlp.fc1": 4, "head": 3}, "cost": 3.99},
        **{"scores": SCORES, "uniform": {"bits": 3, "cost": 3.0, "scores": SCORES | {"kl": 0.02}}, "errors": {}},
    },
}
