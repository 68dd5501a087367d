#include "common.h"

/* product (rows, outputs) = scale * (codes (rows, inner) times weights - correction); codes has room for whole tiles */
void linear(const layer *f, const code *codes, float *product, long rows) {
    const long inner = f->inner, outputs = f->outputs;
    const long width = PANEL * VECTOR, panels = ROUND_UP(outputs, width) / width, groups = inner / GROUP;
    const long chunk = 8 * ROWS, chunks = ROUND_UP(rows, chunk) / chunk;
#pragma omp parallel for collapse(2)
    for (long p = 0; p < panels; p++) /* a panel of weights stays in the cache */
        for (long c = 0; c < chunks; c++) {
            const weight *panel = f->numbers + p * groups * width * GROUP;
            const long first = p * width, used = outputs - first < width ? outputs - first : width;
            const float *scale = f->scale + first;
            const int32_t *correction = f->correction + first;
            const long end = (c + 1) * chunk < rows ? (c + 1) * chunk : rows;
            for (long row = c * chunk; row < end; row += ROWS) {
                ints sums[ROWS][PANEL];
                tile(0, codes + row * inner, inner * sizeof(code), panel, width, groups, sums);
                for (int r = 0; r < ROWS && row + r < end; r++) {
                    const int32_t *s = (const int32_t *)sums[r];
                    float *to = product + (row + r) * outputs + first;
#pragma omp simd
                    for (long i = 0; i < used; i++) to[i] = scale[i] * (float)(s[i] - correction[i]);
                }
            }
        }
}
