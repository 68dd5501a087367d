#include "common.h"

int group(void) { return GROUP; }
int panel(void) { return PANEL * VECTOR; }
int tile_rows(void) { return ROWS; }
int together(void) { return TOGETHER; }

/* Images one after another, a few for each thread: what a kernel leaves for the next one stays in the cache.

x, out (images * tokens, width): the residual stream before and after. Room for `at_once` images and a tile of rows more, of the widest layer:
codes, product. */
void block(const block_form *f, const float *x, float *out, code *codes, float *product, long images, long tokens, long at_once) {
    const layer *qkv = &f->qkv, *proj = &f->proj, *fc1 = &f->fc1, *fc2 = &f->fc2;
    const long width = qkv->inner;
    for (long first = 0; first < images; first += at_once) {
        const long count = images - first < at_once ? images - first : at_once;
        const token_rows rows = {count * tokens, tokens, f->prefix};
        const float *from = x + first * tokens * width;
        float *part = out + first * tokens * width;
        add_norm(from, part, NULL, NULL, codes, rows, width, &f->norm1, &qkv->from);
        linear(qkv, codes, product, rows.count);
        attention(&f->attention, &qkv->from, product, codes, &proj->from, rows);
        linear(proj, codes, product, rows.count);
        add_norm(part, part, product, proj, codes, rows, width, &f->norm2, &fc1->from);
        linear(fc1, codes, product, rows.count);
        gelu_codes(product, fc1, codes, rows, &f->transform, &fc2->from);
        linear(fc2, codes, product, rows.count);
        add_norm(part, part, product, fc2, NULL, rows, width, NULL, NULL);
    }
}
