#include "common.h"

int group(void) { return GROUP; }
int panel(void) { return PANEL * VECTOR; }

/* codes (rows, inner) times packed weights -> out (rows, outputs) = scale * (product - correction) */
void linear(const code *a, const weight *w, float *out, long rows, long inner, long outputs, const float *scale,
            const int32_t *correction) {
    const long width = PANEL * VECTOR, panels = ROUND_UP(outputs, width) / width, groups = inner / GROUP;
    const long chunk = 8 * ROWS, chunks = ROUND_UP(rows, chunk) / chunk;
#pragma omp parallel for collapse(2)
    for (long c = 0; c < chunks; c++)
        for (long p = 0; p < panels; p++) {
            const weight *panel = w + p * groups * width * GROUP;
            const long first = p * width, used = outputs - first < width ? outputs - first : width;
            const long end = (c + 1) * chunk < rows ? (c + 1) * chunk : rows;
            for (long row = c * chunk; row < end; row += ROWS) {
                ints sums[ROWS][PANEL];
                const int count = end - row < ROWS ? end - row : ROWS;
#define CALL(n) tile(n, PANEL, a + row * inner, inner, panel, width, groups, sums)
                FOR_ROWS(CALL, count)
#undef CALL
                for (int r = 0; r < count; r++) {
                    const int32_t *s = (const int32_t *)sums[r];
                    float *to = out + (row + r) * outputs + first;
#pragma omp simd
                    for (long i = 0; i < used; i++) to[i] = scale[first + i] * (float)(s[i] - correction[first + i]);
                }
            }
        }
}
