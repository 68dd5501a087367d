from vitdfq.bench import bench, table
from vitdfq.recipe import load_recipe


def test_every_form_is_measured_against_float32():
    found = bench(load_recipe("quickstart", ["synthesize.method=vitdfq", "synthesize.steps=5"]))
    assert found["forward"]["float32 teacher"]["speedup"] == 1
    assert all(own["images_per_second"] > 0 for own in found["forward"].values())
    assert set(found["synthesis"]) == {"vitdfq", "sardfq"}  # what is painted takes no step
    assert found["bits"] == "W4A4" and found["training"]["gptq_seconds"] > 0
    assert table(found).row_count == len(found["forward"]) + len(found["synthesis"]) + 3
