#include "common.h"

INLINE float gelu(float x) { /* x / 2 (1 + erf(x / sqrt 2)); erf as a rational function fitted by least squares, error 4e-7 */
    float y = x * 0.707106781f;
    y = y > 3.92f ? 3.92f : y;
    y = y < -3.92f ? -3.92f : y;
    float u = y * y, p = -1.333754623e-08f, q = 6.34219271e-05f;
    p = p * u + 4.718110821e-06f, p = p * u + 3.803821934e-04f, p = p * u + 3.832390061e-03f;
    p = p * u + 0.05427853039f, p = p * u + 0.1847006286f, p = p * u + 1.128379181f;
    q = q * u + 1.305046021e-03f, q = q * u + 0.01543100697f, q = q * u + 0.1137755881f;
    q = q * u + 0.4970201987f, q = q * u + 1.0f;
    return 0.5f * x * (1.0f + y * p / q);
}

/* x = from + the output of a layer, if there is one; then, if there are codes, those of the normalized rows. */
void add_norm(const float *from, float *x, const float *product, const layer *added, code *codes, token_rows rows, long width,
              const norm *f, const grid *to) {
#pragma omp parallel for
    for (long row = 0; row < rows.count; row++) {
        const long k = kind(row, rows);
        const float *u = from + row * width;
        float *v = x + row * width, sum = 0, squares = 0;
        if (product) {
            const float factor = added->from.scale[k], *p = product + row * width, *bias = added->bias;
#pragma omp simd
            for (long i = 0; i < width; i++) v[i] = u[i] + (factor * p[i] + bias[i]);
        } else {
            memcpy(v, u, width * sizeof(float));
        }
        if (!codes) continue;
        if (f->center) {
#pragma omp simd reduction(+ : sum)
            for (long i = 0; i < width; i++) sum += v[i];
        }
        const float mean = sum / width;
#pragma omp simd reduction(+ : squares)
        for (long i = 0; i < width; i++) squares += (v[i] - mean) * (v[i] - mean);
        const float root = 1.0f / __builtin_sqrtf(squares / width + f->epsilon);
        const float inverse = to->inverse[k], low = to->low[k], high = to->high[k], zero = to->zero;
        const float *gain = f->gain, *offset = f->offset;
        code *c = codes + row * width;
#pragma omp simd
        for (long i = 0; i < width; i++)
            c[i] = to_code(((v[i] - mean) * root * gain[i] + offset[i]) * inverse, low, high, zero);
    }
}

/* The Hadamard transform of VECTOR neighbors: each stage adds a vector, its signs changed, to itself with neighbors exchanged. */
INLINE floats within(floats v) {
    static const float one[] = {1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1, 1, -1};
    static const float two[] = {1, 1, -1, -1, 1, 1, -1, -1, 1, 1, -1, -1, 1, 1, -1, -1};
    static const float four[] = {1, 1, 1, 1, -1, -1, -1, -1, 1, 1, 1, 1, -1, -1, -1, -1};
#if VECTOR == 16
    static const float eight[] = {1, 1, 1, 1, 1, 1, 1, 1, -1, -1, -1, -1, -1, -1, -1, -1};
    v = v * *(const floats *)one + (floats)_mm512_permute_ps((__m512)v, 0xB1);
    v = v * *(const floats *)two + (floats)_mm512_permute_ps((__m512)v, 0x4E);
    v = v * *(const floats *)four + (floats)_mm512_shuffle_f32x4((__m512)v, (__m512)v, 0xB1);
    return v * *(const floats *)eight + (floats)_mm512_shuffle_f32x4((__m512)v, (__m512)v, 0x4E);
#else
    v = v * *(const floats *)one + (floats)_mm256_permute_ps((__m256)v, 0xB1);
    v = v * *(const floats *)two + (floats)_mm256_permute_ps((__m256)v, 0x4E);
    return v * *(const floats *)four + (floats)_mm256_permute2f128_ps((__m256)v, (__m256)v, 1);
#endif
}

/* v (cores, size) -> (core (cores, cores) x Hadamard (size, size)) v, unscaled; size is a power of two, VECTOR at least */
INLINE void mix(float *v, float *scratch, const float *core, long cores, long size) {
    const long width = cores * size;
    for (long half = size / 2; half >= VECTOR; half /= 2)
        for (long start = 0; start < width; start += 2 * half)
            for (long i = start; i < start + half; i += VECTOR) {
                floats *low = (floats *)(v + i), *high = (floats *)(v + i + half), a = *low, b = *high;
                *low = a + b, *high = a - b;
            }
    for (long i = 0; i < width; i += VECTOR) *(floats *)(v + i) = within(*(floats *)(v + i));
    if (cores == 1) return;
    memcpy(scratch, v, width * sizeof(float));
    for (long i = 0; i < size; i += VECTOR)
        for (long row = 0; row < cores; row++) {
            floats sum = {0};
            for (long j = 0; j < cores; j++) sum += core[row * cores + j] * *(const floats *)(scratch + j * size + i);
            *(floats *)(v + row * size + i) = sum;
        }
}

/* codes of transform(gelu(the output of a layer)) */
void gelu_codes(const float *product, const layer *from, code *codes, token_rows rows, const transform *f, const grid *to) {
    const long width = from->outputs;
    const float *bias = from->bias, *signs = f->signs, *offset = f->offset;
#pragma omp parallel
    {
        float *v = aligned_alloc(64, ROUND_UP(2 * width * sizeof(float), 64)), *scratch = v + width;
#pragma omp for
        for (long row = 0; row < rows.count; row++) {
            const long k = kind(row, rows);
            const float factor = from->from.scale[k], *p = product + row * width;
            const float inverse = to->inverse[k], low = to->low[k], high = to->high[k], zero = to->zero;
            if (signs) {
#pragma omp simd
                for (long i = 0; i < width; i++) v[i] = signs[i] * gelu(factor * p[i] + bias[i]);
                mix(v, scratch, f->core, f->cores, width / f->cores);
            } else {
#pragma omp simd
                for (long i = 0; i < width; i++) v[i] = gelu(factor * p[i] + bias[i]);
            }
            code *c = codes + row * width;
#pragma omp simd
            for (long i = 0; i < width; i++) c[i] = to_code((v[i] + offset[i]) * inverse, low, high, zero);
        }
        free(v);
    }
}
