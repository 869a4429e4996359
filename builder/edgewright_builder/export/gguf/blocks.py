"""Q4_0 and Q8_0 blocks: 32 weights of one row that share a scale in float16.

    Q4_0   w = d · (q − 8)   q 0 to 15; byte j of a block holds weight j in its low half, weight j + 16 in its high one
    Q8_0   w = d · q         q −128 to 127

A symmetric GPTQ group is w = s · (code − 8) with s in float16: group 32 is one Q4_0 block, a larger group repeats its
scale. So the codes go over as they are and nothing is rounded. Layout: github.com/ggml-org/ggml, `ggml-common.h`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from edgewright.errors import InputError

BLOCK_WEIGHTS = 32
ZERO_CODE = 8
CODES_PER_WORD = 8  # of 4 bits in an int32
SYMMETRIC_ZEROS = 0x77777777  # GPTQ v1 stores each zero point less one


def gptq_codes(qweight: NDArray[np.int32]) -> NDArray[np.uint8]:
    """Returns the codes (out, in), 0 to 15, of GPTQ's packed (in / 8, out): eight consecutive inputs a word."""
    words = np.ascontiguousarray(qweight.T).view(np.uint32)
    shifts = np.arange(0, 32, 4, dtype=np.uint32)
    codes = (words[:, :, None] >> shifts) & np.uint32(15)
    return codes.astype(np.uint8).reshape(words.shape[0], -1)


def q4_0_exact(codes: NDArray[np.uint8], scales: NDArray[np.float16]) -> NDArray[np.uint8]:
    """Returns rows of Q4_0 blocks, (out, in / 32 · 18) bytes, that hold `codes` (out, in) and `scales` (out, groups).

    Raises InputError where a group is no multiple of a block.
    """
    outputs, inputs = codes.shape
    groups = scales.shape[1]
    if inputs % BLOCK_WEIGHTS or inputs % groups or (inputs // groups) % BLOCK_WEIGHTS:
        raise InputError(
            f"Q4_0 holds blocks of {BLOCK_WEIGHTS} weights; {inputs} inputs in {groups} groups do not divide into them."
        )
    blocks = inputs // BLOCK_WEIGHTS
    block_scales = np.repeat(scales, blocks // groups, axis=1)
    halves = codes.reshape(outputs, blocks, 2, BLOCK_WEIGHTS // 2)
    packed = np.empty((outputs, blocks, 2 + BLOCK_WEIGHTS // 2), np.uint8)
    packed[:, :, :2] = np.ascontiguousarray(block_scales, "<f2").view(np.uint8).reshape(outputs, blocks, 2)
    packed[:, :, 2:] = halves[:, :, 0] | (halves[:, :, 1] << np.uint8(4))
    return packed.reshape(outputs, -1)


def neighbours_order(rows: int, heads: int) -> NDArray[np.intp]:
    """Returns the order of a projection's rows in which positions turn neighbours instead of the halves of a head."""
    order: NDArray[np.intp] = np.arange(rows).reshape(heads, 2, -1).swapaxes(1, 2).reshape(rows)
    return order
