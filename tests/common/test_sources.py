"""Identifiers are found in texts, and every work that a docstring cites is known by name."""

import pytest

from vitdfq.calibration import STEPS
from vitdfq.common.sources import SOURCES, cited, link, reference
from vitdfq.preparation import TRANSFORMS
from vitdfq.quantization import POLICIES, QUANTIZERS
from vitdfq.synthesis import LOSSES, METHODS
from vitdfq.synthesis.inversion.parametrization import PARAMETRIZATIONS
from vitdfq.synthesis.procedural import PROCEDURAL


def test_identifiers_in_the_order_of_the_text():
    text = "FDD (10.1007/978-981-99-8543-2_17), after PSAQ-ViT (arXiv 2203.02250): 0.2210 and 12345.67890 are numbers."
    assert cited(text) == {"10.1007/978-981-99-8543-2_17": "FDD", "2203.02250": "PSAQ-ViT"}
    assert cited("nothing") == {}


def test_a_work_as_markdown():
    assert reference("2203.02250") == "PSAQ-ViT, [arXiv 2203.02250](https://arxiv.org/abs/2203.02250)"
    assert link("10.1109/TCSVT.2024.3399311") == "https://doi.org/10.1109/TCSVT.2024.3399311"


@pytest.mark.parametrize(
    "texts",
    [
        [method.summary for method in METHODS.values()],
        [policy.summary for policy in POLICIES.values()],
        [loss.function for loss in LOSSES.values()],
        [step.apply for step in STEPS.values()],
        [*TRANSFORMS.values(), *QUANTIZERS.values(), *PARAMETRIZATIONS.values(), *PROCEDURAL.values()],
    ],
    ids=["methods", "policies", "losses", "steps", "others"],
)
def test_every_cited_work_has_a_name(texts):
    works = cited(*texts)  # KeyError: add the work to SOURCES
    assert works and set(works) <= set(SOURCES)
