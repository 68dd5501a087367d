import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from vitdfq.checkpoint.bit_packing import pack, unpack


@given(st.integers(2, 8), st.integers(1, 7), st.integers(1, 70), st.integers(0, 2**31))
@settings(deadline=None, max_examples=60)
def test_round_trip_and_size(bits, rows, columns, seed):
    codes = torch.randint(0, 2**bits, (rows, columns), generator=torch.Generator().manual_seed(seed))
    words = pack(codes, bits)
    assert words.dtype == torch.int32
    assert words.shape == (rows, -(-columns * bits // 32))
    assert torch.equal(unpack(words, bits, columns).long(), codes)


def test_low_bits_first():
    assert pack(torch.tensor([[1, 2, 3, 0, 0, 0, 0, 15]]), 4).item() == 0x321 - 2**28  # the top nibble is the sign


def test_a_code_crosses_the_end_of_a_word():
    codes = torch.zeros(1, 11, dtype=torch.int32)
    codes[0, 10] = 7  # bits 30, 31 and 32 of the row
    assert pack(codes, 3).tolist() == [[-(2**30), 1]]
