#pragma once

/* The arithmetic of a fused ViT block on a processor: see __init__.py beside it. Compiled at run time for the processor at hand.

Activations are rows of tokens, image after image.

A product multiplies groups of GROUP neighboring codes at once: `dot` adds the products of VECTOR such groups to VECTOR sums.
`dot_pairs` does so for groups of two values of 16 bits.

Without VNNI the sum of two products of bytes saturates in 16 bits, so codes and weights have 16 bits too. Unless SMALL_PRODUCTS is
defined: then 2 * TOGETHER products fit into 16 bits (`largest_small` of library.py), and `add_bytes` adds products of bytes, two by
two, to 2 * VECTOR sums of 16 bits. */

#include <immintrin.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define TOGETHER 4

#if defined(__AVX512BW__)
#define VECTOR 16
#define PANEL 4 /* vectors of sums in a row of a tile; all sums of a tile stay in registers */
#define add_pairs(sum, a, w) ((ints)((sum) + (ints)_mm512_madd_epi16((__m512i)(a), (__m512i)(w))))
#define add_bytes(sum, a, w) ((ints)_mm512_add_epi16((__m512i)(sum), _mm512_maddubs_epi16((__m512i)(a), (__m512i)(w))))
#define ONES _mm512_set1_epi16(1)
#elif defined(__AVX2__)
#define VECTOR 8
#define PANEL 2
#define add_pairs(sum, a, w) ((ints)((sum) + (ints)_mm256_madd_epi16((__m256i)(a), (__m256i)(w))))
#define add_bytes(sum, a, w) ((ints)_mm256_add_epi16((__m256i)(sum), _mm256_maddubs_epi16((__m256i)(a), (__m256i)(w))))
#define ONES _mm256_set1_epi16(1)
#else
#error "no vectors of integers"
#endif

#if defined(__AVX512VNNI__) && defined(__AVX512BW__)
#define GROUP 4
#define dot(sum, a, w) ((ints)_mm512_dpbusd_epi32((__m512i)(sum), (__m512i)(a), (__m512i)(w)))
#define dot_pairs(sum, a, w) ((ints)_mm512_dpwssd_epi32((__m512i)(sum), (__m512i)(a), (__m512i)(w)))
#undef SMALL_PRODUCTS
#elif defined(SMALL_PRODUCTS)
#define GROUP 4
#define dot add_bytes
#define dot_pairs add_pairs
#else
#define GROUP 2
#define dot add_pairs
#define dot_pairs add_pairs
#endif

#if GROUP == 4
typedef uint8_t code;
typedef int8_t weight;
#else
typedef int16_t code;
typedef int16_t weight;
#endif

#define ROWS 6 /* of a tile */
#define ROUND_UP(n, to) (((n) + (to) - 1) / (to) * (to))
#define INLINE static inline __attribute__((always_inline))

typedef int32_t ints __attribute__((vector_size(4 * VECTOR), aligned(4), may_alias));
typedef float floats __attribute__((vector_size(4 * VECTOR), aligned(4), may_alias));

typedef struct { /* of tokens, an entry for each kind: real value = (code - zero) * scale */
    const float *scale, *inverse, *low, *high; /* scale and one over it; the range of code - zero */
    float zero;
} grid;

typedef struct { /* rows of tokens; the first `prefix` tokens of an image and all others have an entry each in a grid */
    long count, tokens, prefix;
} token_rows;

typedef struct { /* weights packed in panels of outputs and groups of inputs */
    grid from;
    const weight *numbers;
    const float *scale, *bias;
    const int32_t *correction; /* the zero of the codes times the sum of an output's weights */
    long inner, outputs;
} layer;

typedef struct { /* gain * normalized + offset */
    const float *gain, *offset;
    long center; /* whether the mean is subtracted */
    float epsilon;
} norm;

typedef struct { /* core (cores, cores) x Hadamard matrix, of signs * x; no signs: no transform. Then + offset. */
    const float *signs, *core, *offset;
    long cores;
} transform;

typedef struct { /* arrays of 3 * heads * dim: queries, keys and values, channel by channel */
    long heads, dim;
    const float *multiply, *add, *low, *high, *zero; /* code = round(multiply * x + add), clamped, + zero */
    const int32_t *query_zero, *value_zero;          /* of codes, for each head */
    const float *score_scale, *value_scale;          /* for each head */
    const float *shift;                              /* (heads, dim): times a key's code is added to its scores; or NULL */
    long octave_steps, last;                         /* of a logarithmic softmax: steps in an octave, the code of zero; 0: another grid */
    float inverse, soft_scale, soft_low, soft_high, soft_zero; /* of softmax's grid */
    float coarse_step, split; /* of a twin softmax, in fine steps: the middle of its last fine and first coarse level; 0: another grid */
    long renormalize;
    const float *offset; /* (heads * dim): is added to the result */
} attention_form;

typedef struct {
    norm norm1, norm2;
    layer qkv, proj, fc1, fc2;
    attention_form attention;
    transform transform;
    long prefix;
} block_form;

/* Each kernel reads `product`, of the layer given, or codes, and writes the other one; codes of a layer have its grid `from`. */
void add_norm(const float *from, float *x, const float *product, const layer *added, code *codes, token_rows rows, long width,
              const norm *f, const grid *to);
void linear(const layer *f, const code *codes, float *product, long rows);
void attention(const attention_form *f, const grid *from, const float *product, code *codes, const grid *to, token_rows rows);
void gelu_codes(const float *product, const layer *from, code *codes, token_rows rows, const transform *f, const grid *to);

INLINE long kind(long row, token_rows rows) {
    long token = row % rows.tokens;
    return token < rows.prefix ? token : rows.prefix;
}

INLINE code to_code(float steps, float low, float high, float zero) {
    float n = __builtin_rintf(steps);
    n = n < low ? low : n;
    n = n > high ? high : n;
    return (code)(int)(n + zero);
}

/* Add the products of groups `first` to `end` to the sums of a tile: see `tile`. */
INLINE void add_products(const int pairs, const void *a, long stride, const void *w, long width, long first, long end,
                         ints sums[ROWS][PANEL]) {
    for (long g = first; g < end; g++) {
        ints b[PANEL];
        for (int v = 0; v < PANEL; v++) b[v] = *((const ints *)((const char *)w + 4 * g * width) + v);
        for (int r = 0; r < ROWS; r++) {
            int32_t word;
            memcpy(&word, (const char *)a + r * stride + 4 * g, 4);
            ints group = (ints){0} + word;
            for (int v = 0; v < PANEL; v++) sums[r][v] = pairs ? dot_pairs(sums[r][v], group, b[v]) : dot(sums[r][v], group, b[v]);
        }
    }
}

/* sums = the products of ROWS rows of `a`, `stride` bytes apart, with PANEL vectors of columns of packed groups `w`, `width` columns in
   all. A group is 4 bytes: GROUP codes, or two values of 16 bits if `pairs`. The numbers of rows and columns are constants, so that
   sums are registers: there is always memory for whole tiles. */
INLINE void tile(const int pairs, const void *a, long stride, const void *w, long width, long groups, ints sums[ROWS][PANEL]) {
    for (int r = 0; r < ROWS; r++)
        for (int v = 0; v < PANEL; v++) sums[r][v] = (ints){0};
#ifdef SMALL_PRODUCTS
    for (long first = 0; !pairs && first < groups; first += TOGETHER) {
        ints short_sums[ROWS][PANEL] = {0};
        add_products(0, a, stride, w, width, first, first + TOGETHER < groups ? first + TOGETHER : groups, short_sums);
        for (int r = 0; r < ROWS; r++)
            for (int v = 0; v < PANEL; v++) sums[r][v] = add_pairs(sums[r][v], short_sums[r][v], ONES);
    }
    if (!pairs) return;
#endif
    add_products(pairs, a, stride, w, width, 0, groups, sums);
}
