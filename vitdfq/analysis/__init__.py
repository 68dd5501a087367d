"""Where a quantized model loses accuracy, without labels, and which bits each layer should have.

analyze       the front door: all of the following, as plain dataclasses                    analyze.py
switches      a calibrated student whose quantizers are switched one by one                 switches.py, untrained.py
sensitivity   sites alone and all but one, weights against activations, weights by bits     sensitivity.py, passes.py
ranges        ranges and outliers of what each quantizer receives                           ranges.py
attention     maps of the student beside the teacher's                                      attention.py
allocation    bits by layer under a budget: an integer program                              allocation.py, budget.py
"""

from vitdfq.analysis.analyze import Allocation, Analysis, analyze
from vitdfq.analysis.budget import BUDGETS

__all__ = ["BUDGETS", "Allocation", "Analysis", "analyze"]
