"""Integer codes of 2 to 8 bits in int32 words, densely: the codes of a row follow each other bit by bit, low bits first.

32 codes fill `bits` words for any number of bits; a code may begin in one word and end in the next. compressed-tensors packs
in this order since version 0.19.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

WORD, MASK = 32, 2**32 - 1


def pack(codes: Tensor, bits: int) -> Tensor:
    """(R, M) integer codes 0..2^bits - 1 -> (R, ceil(M · bits / 32)) int32."""
    columns = codes.shape[1]
    if codes.is_meta:  # only the shape matters
        return torch.empty(len(codes), packed_columns(columns, bits), dtype=torch.int32, device="meta")
    groups = F.pad(codes.to(torch.int64), (0, -columns % WORD)).unflatten(1, (-1, WORD))
    words = groups.new_zeros(*groups.shape[:2], bits)
    for index in range(WORD):
        word, place = divmod(index * bits, WORD)
        shifted = groups[..., index] << place
        words[..., word] |= shifted & MASK
        if place + bits > WORD:
            words[..., word + 1] |= shifted >> WORD
    words = words.flatten(1)[:, : packed_columns(columns, bits)]
    return torch.where(words >= 2**31, words - 2**32, words).to(torch.int32)  # the same 32 bits, signed


def unpack(words: Tensor, bits: int, columns: int) -> Tensor:
    """Undo `pack`: (R, W) int32 -> (R, columns) int32 codes."""
    groups = F.pad(words.to(torch.int64) & MASK, (0, -words.shape[1] % bits)).unflatten(1, (-1, bits))
    codes = groups.new_empty(*groups.shape[:2], WORD)
    for index in range(WORD):
        word, place = divmod(index * bits, WORD)
        value = groups[..., word] >> place
        if place + bits > WORD:
            value = value | (groups[..., word + 1] << (WORD - place))
        codes[..., index] = value & (2**bits - 1)
    return codes.flatten(1)[:, :columns].to(torch.int32)


def packed_columns(columns: int, bits: int) -> int:
    """The number of words that hold a row of `columns` codes."""
    return -(-columns * bits // WORD)
