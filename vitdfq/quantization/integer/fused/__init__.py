"""Blocks of a ViT in integers, a few passes over memory each, on processors of the x86 kind that have AVX2.

common.h       vectors, grids, and the tile that multiplies codes
linear.c       codes times packed weights
tokens.c       residual sum, norm and quantization in one pass; GELU, Hadamard transform and quantization in one pass
attention.c    from the product of the layer `qkv` to the codes that `proj` reads, head by head in the cache
compiled.py    these as a shared library in the user's cache
library.py     it is loaded for the processor at hand, at the first pass; without a compiler blocks run site by site
form.py        what a block computes, as arrays of numbers
packed.py      the same in the order and the types that the kernels read
block.py       the block that runs either way

Between kernels stand codes of one byte and the products of layers in float32; the residual stream is float32. Without VNNI codes
have two bytes, unless all products of a block are small (common.h).
"""

from vitdfq.quantization.integer.fused.block import FusedBlock, fuse_blocks

__all__ = ["FusedBlock", "fuse_blocks"]
