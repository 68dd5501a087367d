"""`vitdfq bench`, on a small recipe."""

from vitdfq.cost.benchmark import benchmark, benchmark_table
from vitdfq.recipe import load_recipe


def test_every_form_is_measured_against_float32():
    changes = ["synthesize.method=psaq", "synthesize.mix={sardfq: 0.3, dead_leaves: 0.3}", "synthesize.steps=5"]
    results = benchmark(load_recipe("quickstart", changes))
    assert results["forward"]["float32 teacher"]["speedup"] == 1
    assert all(speed["images_per_second"] > 0 for speed in results["forward"].values())
    assert set(results["synthesis"]) == {"psaq", "sardfq"}  # procedural images take no step
    assert results["bits"] == "W4A4" and results["training"]["gptq_seconds"] > 0
    assert benchmark_table(results).row_count == len(results["forward"]) + len(results["synthesis"]) + 3
