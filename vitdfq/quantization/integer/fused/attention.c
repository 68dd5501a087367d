#include "common.h"

typedef struct { /* of one head; padded tokens are zeros */
    code *queries, *soft;
    int16_t *levels, *value_pairs; /* of softmax and values, for `has_levels` */
    weight *keys, *values, *rows;
    float *real_values, *scores, *shifts;
    int32_t *key_sums, *value_sums;
} buffers;

INLINE float exponential(float x) { /* of x <= 0, relative error 2e-7 */
    x = x < -87.0f ? -87.0f : x;
    float n = __builtin_rintf(x * 1.44269504f), r = x - n * 0.693145752f;
    r = (r - n * 1.42860677e-6f) * 1.44269504f;
    float p = 0.00015345798f;
    p = p * r + 0.001339993217f, p = p * r + 0.009618489018f, p = p * r + 0.05550328775f;
    p = p * r + 0.2402264689f, p = p * r + 0.6931472057f, p = p * r + 1.0f;
    int32_t bits = ((int32_t)n + 127) << 23;
    float power;
    memcpy(&power, &bits, 4);
    return p * power;
}

/* `tile` of real numbers */
INLINE void real_tile(const float *a, long stride, const float *w, long width, long inner, floats sums[ROWS][PANEL]) {
    for (int r = 0; r < ROWS; r++)
        for (int v = 0; v < PANEL; v++) sums[r][v] = (floats){0};
    for (long k = 0; k < inner; k++) {
        floats b[PANEL];
        for (int v = 0; v < PANEL; v++) b[v] = *(const floats *)(w + k * width + v * VECTOR);
        for (int r = 0; r < ROWS; r++)
            for (int v = 0; v < PANEL; v++) sums[r][v] += a[r * stride + k] * b[v];
    }
}

/* The code of x / scale on a logarithmic grid, from the bits of the float: its exponent is the floor of its logarithm. */
INLINE int32_t octaves(float x, long steps) {
    float power = (steps == 2 ? x * x : x) * 1.41421356f; /* half a step more: floor is nearest */
    int32_t bits;
    memcpy(&bits, &power, 4);
    const int32_t found = 127 - (bits >> 23);
    return found < 0 ? 0 : found;
}

/* The level of a code: a power of 2, or of its root; the last one is zero. */
INLINE float level(int32_t octave, long steps, long last) {
    const int32_t bits = octave >= last ? 0 : (127 - (steps == 2 ? octave >> 1 : octave)) << 23;
    float power;
    memcpy(&power, &bits, 4);
    return steps == 2 && (octave & 1) ? power * 0.707106781f : power;
}

/* The level nearest to x on a twin grid, both in fine steps; halfway, the lower one. */
INLINE int32_t twin_level(float x, float split, float last_fine, float coarse_step) {
    const float up = __builtin_ceilf(x - 0.5f), fine = up < last_fine ? up : last_fine;
    const float coarse = __builtin_ceilf(x * (1.0f / coarse_step) - 0.5f) * coarse_step;
    return (int32_t)(x <= split ? fine : coarse);
}

/* Whether all levels are whole numbers of 16 bits: fine steps, or the smallest of 15 octaves. Others are multiplied as floats. */
#define LARGEST_OCTAVE 16384
INLINE int is_twin(const attention_form *f) { return f->coarse_step > 0; }
INLINE int has_levels(const attention_form *f) { return is_twin(f) || (f->octave_steps == 1 && f->last <= 15); }

/* Codes of one head's queries, keys and values, keys and values packed for `tile`. */
static void read_head(const attention_form *f, const grid *from, const float *product, token_rows rows, long head, long padded,
                      long wide, buffers b) {
    const long dim = f->dim, row = 3 * f->heads * dim;
    memset(b.key_sums, 0, padded * sizeof(int32_t));
    memset(b.value_sums, 0, wide * sizeof(int32_t));
    for (long token = 0; token < rows.tokens; token++) {
        const float factor = from->scale[kind(token, rows)];
        for (int part = 0; part < 3; part++) {
            const long first = (part * f->heads + head) * dim;
            const float *p = product + token * row + first, *multiply = f->multiply + first, *add = f->add + first;
            const float *low = f->low + first, *high = f->high + first, *zero = f->zero + first;
            if (part == 0) {
                code *to = b.queries + token * dim;
#pragma omp simd
                for (long c = 0; c < dim; c++) to[c] = to_code(p[c] * factor * multiply[c] + add[c], low[c], high[c], zero[c]);
                continue;
            }
            weight *to = b.rows;
#pragma omp simd
            for (long c = 0; c < dim; c++)
                to[c] = (weight)to_code(p[c] * factor * multiply[c] + add[c], low[c], high[c], zero[c]);
            if (part == 1) {
                int32_t sum = 0;
#pragma omp simd reduction(+ : sum)
                for (long c = 0; c < dim; c++) sum += to[c];
                b.key_sums[token] = sum;
                for (long g = 0; g < dim / GROUP; g++) memcpy(b.keys + (g * padded + token) * GROUP, to + g * GROUP, 4);
                if (f->shift) {
                    float shift = 0;
                    const float *s = f->shift + head * dim;
#pragma omp simd reduction(+ : shift)
                    for (long c = 0; c < dim; c++) shift += s[c] * to[c];
                    b.shifts[token] = shift;
                }
            } else if (has_levels(f)) {
                int16_t *packed = b.value_pairs + token / 2 * wide * 2 + token % 2;
                for (long c = 0; c < dim; c++) packed[c * 2] = to[c];
            } else if (f->octave_steps) {
                const float value_zero = f->value_zero[head];
#pragma omp simd
                for (long c = 0; c < dim; c++) b.real_values[token * wide + c] = to[c] - value_zero;
            } else {
                weight *packed = b.values + token / GROUP * wide * GROUP + token % GROUP;
                for (long c = 0; c < dim; c++) packed[c * GROUP] = to[c], b.value_sums[c] += to[c];
            }
        }
    }
}

/* Scores of up to ROWS queries -> softmax: codes in b.soft; other grids: levels in b.levels or b.scores. And sums of the rows. */
static void soft_rows(const attention_form *f, int count, long tokens, long padded, buffers b, float *sums) {
    for (int r = 0; r < count; r++) {
        float *s = b.scores + r * padded, largest = -3.4e38f, total = 0, sum = 0;
#pragma omp simd reduction(max : largest)
        for (long j = 0; j < tokens; j++) largest = s[j] > largest ? s[j] : largest;
#pragma omp simd reduction(+ : total)
        for (long j = 0; j < tokens; j++) total += s[j] = exponential(s[j] - largest);
        const float scale = f->inverse / total;
        if (has_levels(f)) {
            int16_t *to = b.levels + r * padded;
            int32_t whole = 0;
            if (is_twin(f)) {
                const float split = f->split, last_fine = f->soft_high, coarse_step = f->coarse_step;
#pragma omp simd reduction(+ : whole)
                for (long j = 0; j < tokens; j++) whole += to[j] = twin_level(s[j] * scale, split, last_fine, coarse_step);
            } else {
                const int32_t last = f->last;
#pragma omp simd reduction(+ : whole)
                for (long j = 0; j < tokens; j++) {
                    const int32_t octave = octaves(s[j] * scale, 1);
                    whole += to[j] = octave >= last ? 0 : LARGEST_OCTAVE >> octave;
                }
            }
            sums[r] = whole;
            continue;
        }
        if (f->octave_steps) {
            const long last = f->last;
            if (f->octave_steps == 2) {
#pragma omp simd reduction(+ : sum)
                for (long j = 0; j < tokens; j++) sum += s[j] = level(octaves(s[j] * scale, 2), 2, last);
            } else {
#pragma omp simd reduction(+ : sum)
                for (long j = 0; j < tokens; j++) sum += s[j] = level(octaves(s[j] * scale, 1), 1, last);
            }
            sums[r] = sum;
            continue;
        }
        code *c = b.soft + r * padded;
        int32_t codes = 0;
        const float low = f->soft_low, high = f->soft_high, zero = f->soft_zero;
#pragma omp simd reduction(+ : codes)
        for (long j = 0; j < tokens; j++) codes += c[j] = to_code(s[j] * scale, low, high, zero);
        sums[r] = codes - zero * tokens;
    }
}

static void score_rows(const attention_form *f, long head, long row, long padded, buffers b) {
    const int32_t zero = f->query_zero[head];
    const float scale = f->score_scale[head];
    for (long first = 0; first < padded; first += PANEL * VECTOR) {
        ints sums[ROWS][PANEL];
        tile(0, b.queries + row * f->dim, f->dim * sizeof(code), b.keys + first * GROUP, padded, f->dim / GROUP, sums);
        for (int r = 0; r < ROWS; r++)
            for (int v = 0; v < PANEL; v++) {
                const long j = first + v * VECTOR;
                ints whole = sums[r][v] - zero * *(const ints *)(b.key_sums + j);
                floats score = __builtin_convertvector(whole, floats) * scale;
                *(floats *)(b.scores + r * padded + j) = score + *(const floats *)(b.shifts + j);
            }
    }
}

/* Softmax times values for up to ROWS queries -> codes of the result */
static void value_rows(const attention_form *f, int count, token_rows rows, long head, long row, long padded, long wide,
                       buffers b, const float *soft_sums, code *out, const grid *to) {
    const long dim = f->dim, width = f->heads * dim;
    const int in_floats = f->octave_steps && !has_levels(f);
    const float unit = has_levels(f) && !is_twin(f) ? f->soft_scale / LARGEST_OCTAVE : f->soft_scale;
    const float scale = unit * f->value_scale[head];
    const int32_t soft_zero = f->soft_zero, value_zero = f->value_zero[head];
    for (long first = 0; first < wide; first += PANEL * VECTOR) {
        union { ints whole[ROWS][PANEL]; floats real[ROWS][PANEL]; } sums;
        if (in_floats) {
            real_tile(b.scores, padded, b.real_values + first, wide, rows.tokens, sums.real);
        } else if (has_levels(f)) {
            tile(1, b.levels, padded * sizeof(int16_t), b.value_pairs + first * 2, wide, ROUND_UP(rows.tokens, 2) / 2, sums.whole);
        } else {
            tile(0, b.soft, padded * sizeof(code), b.values + first * GROUP, wide, ROUND_UP(rows.tokens, GROUP) / GROUP, sums.whole);
        }
        const long used = dim - first < PANEL * VECTOR ? dim - first : PANEL * VECTOR;
        for (int r = 0; r < count; r++) {
            const long token = row + r, k = kind(token, rows);
            float sum = soft_sums[r] * unit, factor = scale;
            if (f->renormalize) factor /= sum < 0.1f ? 0.1f : sum;
            const float *offset = f->offset + head * dim + first, *real = (const float *)sums.real[r];
            const int32_t *whole = (const int32_t *)sums.whole[r], *value_sums = b.value_sums + first;
            const float inverse = to->inverse[k], low = to->low[k], high = to->high[k], zero = to->zero;
            code *c = out + token * width + head * dim + first;
            if (in_floats) {
#pragma omp simd
                for (long i = 0; i < used; i++) c[i] = to_code((real[i] * factor + offset[i]) * inverse, low, high, zero);
            } else {
                const int32_t constant = value_zero * soft_sums[r];
#pragma omp simd
                for (long i = 0; i < used; i++) {
                    const float y = (float)(whole[i] - soft_zero * value_sums[i] - constant);
                    c[i] = to_code((y * factor + offset[i]) * inverse, low, high, zero);
                }
            }
        }
    }
}

/* Codes of attention's result, from the product (tokens, 3 * heads * dim) of the layer that gives queries, keys and values. */
void attention(const attention_form *f, const grid *from, const float *product, code *codes, const grid *to, token_rows rows) {
    const long tokens = rows.tokens, images = rows.count / tokens, dim = f->dim, step = PANEL * VECTOR;
    const long padded = ROUND_UP(tokens, step), wide = ROUND_UP(dim, step);
#pragma omp parallel
    {
        buffers b = {
            calloc(ROUND_UP(tokens, ROWS) * dim, sizeof(code)), calloc(ROWS * padded, sizeof(code)),
            calloc(ROWS * padded, sizeof(int16_t)), calloc(padded * wide, sizeof(int16_t)),
            calloc(padded * dim, sizeof(weight)), calloc(padded * wide, sizeof(weight)), calloc(dim, sizeof(weight)),
            calloc(padded * wide, sizeof(float)), calloc(ROWS * padded, sizeof(float)), calloc(padded, sizeof(float)),
            calloc(padded, sizeof(int32_t)), calloc(wide, sizeof(int32_t)),
        };
#pragma omp for collapse(2)
        for (long image = 0; image < images; image++)
            for (long head = 0; head < f->heads; head++) {
                read_head(f, from, product + image * tokens * 3 * f->heads * dim, rows, head, padded, wide, b);
                code *out = codes + image * tokens * f->heads * dim;
                for (long row = 0; row < tokens; row += ROWS) {
                    const int count = tokens - row < ROWS ? tokens - row : ROWS;
                    float sums[ROWS];
                    score_rows(f, head, row, padded, b);
                    soft_rows(f, count, tokens, padded, b, sums);
                    value_rows(f, count, rows, head, row, padded, wide, b, sums, out, to);
                }
            }
        free(b.queries), free(b.soft), free(b.levels), free(b.value_pairs), free(b.keys), free(b.values), free(b.rows);
        free(b.real_values), free(b.scores), free(b.shifts), free(b.key_sums), free(b.value_sums);
    }
}
