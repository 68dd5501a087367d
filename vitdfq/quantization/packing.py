"""Integer codes of 2 to 8 bits in int32 words: `32 // bits` codes a word, low bits first, rows padded to whole words."""

import torch
from torch import Tensor


def pack(codes: Tensor, bits: int) -> Tensor:
    """(R, M) integer codes 0..2^bits - 1 -> (R, ceil(M / (32 // bits))) int32."""
    per_word = 32 // bits
    padding = -codes.shape[1] % per_word
    padded = torch.nn.functional.pad(codes.to(torch.int64), (0, padding)).unflatten(1, (-1, per_word))
    shifts = bits * torch.arange(per_word, device=codes.device)
    words = (padded << shifts).sum(-1)
    return torch.where(words >= 2**31, words - 2**32, words).to(torch.int32)  # the same 32 bits, signed


def unpack(words: Tensor, bits: int, columns: int) -> Tensor:
    """Undo `pack`: (R, W) int32 -> (R, columns) int32 codes."""
    per_word = 32 // bits
    shifts = bits * torch.arange(per_word, device=words.device)
    codes = (words.to(torch.int64)[..., None] >> shifts) & (2**bits - 1)
    return codes.flatten(1)[:, :columns].to(torch.int32)
