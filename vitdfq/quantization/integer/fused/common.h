#pragma once

/* The arithmetic of a fused ViT block on a processor: see __init__.py beside it. Compiled at run time for the processor at hand.

Layout: activations are rows of tokens, image after image; row r is token r % tokens of its image. The first `prefix` tokens of an
image and all others have a grid of their own: grids are arrays of prefix + 1 entries, see `kind`. Codes are what `code` says.

A product multiplies groups of GROUP neighboring codes at once: `dot` adds the products of VECTOR such groups to VECTOR sums. */

#include <immintrin.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#if defined(__AVX512VNNI__) && defined(__AVX512BW__)
#define VECTOR 16
#define PANEL 4 /* vectors of sums in a row of a tile; all sums of a tile stay in registers */
#define GROUP 4
typedef uint8_t code;
typedef int8_t weight;
#define dot(sum, a, w) ((ints)_mm512_dpbusd_epi32((__m512i)(sum), (__m512i)(a), (__m512i)(w)))
#elif defined(__AVX512BW__)
#define VECTOR 16
#define PANEL 4
#define GROUP 2 /* in 16 bits: products of bytes saturate without VNNI */
typedef int16_t code;
typedef int16_t weight;
#define dot(sum, a, w) ((sum) + (ints)_mm512_madd_epi16((__m512i)(a), (__m512i)(w)))
#elif defined(__AVX2__)
#define VECTOR 8
#define PANEL 2
#define GROUP 2
typedef int16_t code;
typedef int16_t weight;
#define dot(sum, a, w) ((sum) + (ints)_mm256_madd_epi16((__m256i)(a), (__m256i)(w)))
#else
#error "no vectors of integers"
#endif

#define ROWS 6 /* of a tile */
#define MIDDLE (GROUP == 4 ? 128 : 0) /* int8 holds codes less 128 */
#define ROUND_UP(n, to) (((n) + (to) - 1) / (to) * (to))
#define INLINE static inline __attribute__((always_inline))

typedef int32_t ints __attribute__((vector_size(4 * VECTOR), aligned(4), may_alias));
typedef float floats __attribute__((vector_size(4 * VECTOR), aligned(4), may_alias));

typedef struct { /* of rows: real value = (code - zero) * scale */
    const float *inverse, *low, *high; /* one over the scale; the range of code - zero; each for each kind of token */
    float zero;
} grid;

INLINE long kind(long row, long tokens, long prefix) {
    long token = row % tokens;
    return token < prefix ? token : prefix;
}

INLINE code to_code(float steps, float low, float high, float zero) {
    float n = __builtin_rintf(steps);
    n = n < low ? low : n;
    n = n > high ? high : n;
    return (code)(int)(n + zero);
}

/* sums[r][v] = the products of row r of `a`, `stride` codes apart, with `columns` vectors of packed groups, `width` columns apart */
INLINE void tile(const int rows, const int columns, const code *a, long stride, const weight *w, long width, long groups,
                 ints sums[ROWS][PANEL]) {
    for (int r = 0; r < rows; r++)
        for (int v = 0; v < columns; v++) sums[r][v] = (ints){0};
    for (long g = 0; g < groups; g++) {
        ints b[PANEL];
        for (int v = 0; v < columns; v++) b[v] = *(const ints *)(w + (g * width + v * VECTOR) * GROUP);
        for (int r = 0; r < rows; r++) {
            int32_t word;
            memcpy(&word, a + r * stride + g * GROUP, 4);
            ints broadcast = (ints){0} + word;
            for (int v = 0; v < columns; v++) sums[r][v] = dot(sums[r][v], broadcast, b[v]);
        }
    }
}

/* Tiles with their numbers of rows as constants, so that sums are registers. */
#define FOR_ROWS(call, rows) \
    switch (rows) { \
    case 1: call(1); break; \
    case 2: call(2); break; \
    case 3: call(3); break; \
    case 4: call(4); break; \
    case 5: call(5); break; \
    default: call(6); \
    }
