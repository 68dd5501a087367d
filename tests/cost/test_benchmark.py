from vitdfq.cost.benchmark import bench, table
from vitdfq.recipe import load_recipe


def test_every_form_is_measured_against_float32():
    found = bench(
        load_recipe(
            "quickstart", ["synthesize.method=psaq", "synthesize.mix={sardfq: 0.3, dead_leaves: 0.3}", "synthesize.steps=5"]
        )
    )
    assert found["forward"]["float32 teacher"]["speedup"] == 1
    assert all(own["images_per_second"] > 0 for own in found["forward"].values())
    assert set(found["synthesis"]) == {"psaq", "sardfq"}  # what is painted takes no step
    assert found["bits"] == "W4A4" and found["training"]["gptq_seconds"] > 0
    assert table(found).row_count == len(found["forward"]) + len(found["synthesis"]) + 3
