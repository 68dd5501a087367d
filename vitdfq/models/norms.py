"""The norms over the channels of one token, torch's and timm's."""

from timm.layers import RmsNorm, RmsNormFp32
from torch import nn

RMS_NORMS = (nn.RMSNorm, RmsNorm, RmsNormFp32)  # they subtract no mean and add no shift
NORMS = (nn.LayerNorm, *RMS_NORMS)
