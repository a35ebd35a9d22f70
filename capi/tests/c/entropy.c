/* Entropies of rows, along an axis, and their gradient. */
#include "check.h"

enum { ROWS = 9, COLS = 37 };

/* The entropy of a row and the slope of each element. */
static long double exactly(softmax_dtype dtype, const void *x, size_t row, double scale,
                           long double *slopes) {
    long double max = -INFINITY, sum = 0.0L, mean = 0.0L;
    for (size_t j = 0; j < COLS; j++) {
        max = fmaxl(max, get(dtype, x, row * COLS + j));
    }
    for (size_t j = 0; j < COLS; j++) {
        long double d = scale * (max - get(dtype, x, row * COLS + j));
        sum += expl(-d);
        mean += expl(-d) * d;
    }
    mean /= sum;
    for (size_t j = 0; j < COLS; j++) {
        long double d = scale * (max - get(dtype, x, row * COLS + j));
        slopes[j] = scale * expl(-d) / sum * (d - mean);
    }
    return logl(sum) + mean;
}

static void values(void) {
    for (int d = 0; d < DTYPES; d++) {
        softmax_dtype dtype = dtypes[d];
        double x[ROWS * COLS], y[ROWS * COLS], h[ROWS + 1], t[ROWS * COLS], along[ROWS], up[ROWS];
        size_t width = size_of(dtype);
        fill_random(dtype, x, ROWS * COLS, 7);
        softmax_matrix in = softmax_matrix_of(x, dtype, ROWS, COLS);
        softmax_matrix out = softmax_matrix_mut(y, dtype, ROWS, COLS);
        softmax_options options = softmax_options_default();
        options.scale = 0.25;
        memset(h, 0xA5, sizeof h);
        for (size_t i = 0; i < ROWS; i++) {
            put(dtype, up, i, i % 2 == 0 ? 1.0 : -0.5);
        }
        GOOD(softmax_entropy(&in, NULL, h, &options));
        CHECK(((unsigned char *)h)[ROWS * width] == 0xA5);
        GOOD(softmax_entropy_backward(&in, NULL, up, &out, &options));
        for (size_t i = 0; i < ROWS; i++) {
            long double slopes[COLS];
            long double wanted = exactly(dtype, x, i, 0.25, slopes);
            CHECK(near(dtype, get(dtype, h, i), wanted, 5.0, 0.0));
            for (size_t j = 0; j < COLS; j++) {
                long double slope = slopes[j] * (i % 2 == 0 ? 1.0L : -0.5L);
                double slack = dtype == SOFTMAX_F64 ? 1e-15 : dtype == SOFTMAX_F32 ? 1e-7 : 1e-3;
                CHECK(near(dtype, get(dtype, y, i * COLS + j), slope, 1.0, slack));
            }
        }
        /* The lanes of the transposed matrix. */
        for (size_t i = 0; i < ROWS * COLS; i++) {
            put(dtype, t, i, get(dtype, x, i % ROWS * COLS + i / ROWS));
        }
        size_t shape[2] = {COLS, ROWS};
        GOOD(softmax_entropy_axis(t, along, dtype, shape, 2, 0, &options));
        CHECK(memcmp(along, h, ROWS * width) == 0);
        /* A mask that shows one column, and one that shows all. */
        unsigned char seen[COLS] = {0};
        softmax_mask mask = {sizeof mask, seen, SOFTMAX_BOOL, 1, 0, 0};
        seen[5] = 1;
        GOOD(softmax_entropy(&in, &mask, along, &options));
        GOOD(softmax_entropy_backward(&in, &mask, up, &out, &options));
        for (size_t i = 0; i < ROWS; i++) {
            CHECK(get(dtype, along, i) == 0.0);
            CHECK(get(dtype, y, i * COLS + 5) == 0.0 && get(dtype, y, i * COLS) == 0.0);
        }
        memset(seen, 1, sizeof seen);
        GOOD(softmax_entropy(&in, &mask, along, &options));
        CHECK(memcmp(along, h, ROWS * width) == 0);
        /* Nothing is seen. */
        memset(seen, 0, sizeof seen);
        GOOD(softmax_entropy(&in, &mask, along, &options));
        CHECK(isnan(get(dtype, along, 0)));
        options.flags = SOFTMAX_MASKED_ZERO;
        GOOD(softmax_entropy(&in, &mask, along, &options));
        GOOD(softmax_entropy_backward(&in, &mask, up, &out, &options));
        CHECK(get(dtype, along, 0) == 0.0 && get(dtype, y, 3) == 0.0);
    }
}

static void bad(void) {
    enum { R = 3, C = 4 };
    double x[R * C], y[R * C], h[R + 1], up[R] = {1.0, 1.0, 1.0};
    char message[200];
    softmax_options options = told(message, sizeof message);
    fill_random(SOFTMAX_F64, x, R * C, 3);
    memset(h, 0xA5, sizeof h);
    memset(y, 0xA5, sizeof y);
    softmax_matrix in = softmax_matrix_of(x, SOFTMAX_F64, R, C);
    softmax_matrix out = softmax_matrix_mut(y, SOFTMAX_F64, R, C);
    watch(x, sizeof x);
    watch(y, sizeof y);
    watch(h, sizeof h);
    BAD(NULL_POINTER, softmax_entropy(NULL, NULL, h, NULL));
    BAD(NULL_POINTER, softmax_entropy(&in, NULL, NULL, &options));
    SAYS(message, "entropy is null");
    BAD(ALIGNMENT, softmax_entropy(&in, NULL, (char *)h + 4, NULL));
    BAD(OVERLAP, softmax_entropy(&in, NULL, &x[C], &options));
    SAYS(message, "entropy overlaps input");
    options.temperature = 0.0;
    BAD(VALUE, softmax_entropy(&in, NULL, h, &options));
    BAD(VALUE, softmax_entropy_backward(&in, NULL, up, &out, &options));
    options.temperature = 1.0;
    softmax_matrix wrong = in;
    wrong.dtype = 77;
    BAD(DTYPE, softmax_entropy(&wrong, NULL, h, NULL));
    wrong = in;
    wrong.rows = SIZE_MAX;
    BAD(OVERFLOW, softmax_entropy(&wrong, NULL, h, NULL));
    unsigned char seen[2 * C] = {1};
    softmax_mask mask = {sizeof mask, seen, SOFTMAX_BOOL, 2, 0, 0};
    BAD(LENGTH, softmax_entropy(&in, &mask, h, NULL));
    BAD(LENGTH, softmax_entropy_backward(&in, &mask, up, &out, NULL));
    mask.rows = 1;
    mask.dtype = 77;
    BAD(DTYPE, softmax_entropy(&in, &mask, h, NULL));
    float added[C] = {0.0f, 0.5f, 0.0f, 0.0f};
    mask.data = added;
    mask.dtype = SOFTMAX_F32;
    BAD(VALUE, softmax_entropy_backward(&in, &mask, up, &out, &options));
    SAYS(message, "only hide");

    size_t shape[2] = {R, C};
    BAD(NULL_POINTER, softmax_entropy_axis(NULL, h, SOFTMAX_F64, shape, 2, 1, NULL));
    BAD(NULL_POINTER, softmax_entropy_axis(x, NULL, SOFTMAX_F64, shape, 2, 1, NULL));
    BAD(NULL_POINTER, softmax_entropy_axis(x, h, SOFTMAX_F64, NULL, 2, 1, NULL));
    BAD(AXIS, softmax_entropy_axis(x, h, SOFTMAX_F64, shape, 2, 2, NULL));
    BAD(DTYPE, softmax_entropy_axis(x, h, SOFTMAX_BOOL, shape, 2, 1, NULL));
    BAD(OVERLAP, softmax_entropy_axis(x, x + 2, SOFTMAX_F64, shape, 2, 1, NULL));

    BAD(NULL_POINTER, softmax_entropy_backward(NULL, NULL, up, &out, NULL));
    BAD(NULL_POINTER, softmax_entropy_backward(&in, NULL, NULL, &out, &options));
    SAYS(message, "upstream is null");
    BAD(NULL_POINTER, softmax_entropy_backward(&in, NULL, up, NULL, NULL));
    BAD(OVERLAP, softmax_entropy_backward(&in, NULL, up, &in, NULL));
    BAD(OVERLAP, softmax_entropy_backward(&in, NULL, y, &out, NULL));
    BAD(ALIGNMENT, softmax_entropy_backward(&in, NULL, (char *)up + 1, &out, NULL));
    wrong = out;
    wrong.dtype = SOFTMAX_F32;
    BAD(DTYPE, softmax_entropy_backward(&in, NULL, up, &wrong, NULL));
    wrong = out;
    wrong.rows = R - 1;
    BAD(SHAPE, softmax_entropy_backward(&in, NULL, up, &wrong, NULL));
    unwatch();
    STRUCT_SIZES(softmax_matrix, in, p, softmax_entropy(p, NULL, h, NULL));

    /* Rows without elements, and no rows. */
    in = softmax_matrix_of(NULL, SOFTMAX_F64, 2, 0);
    out = softmax_matrix_mut(NULL, SOFTMAX_F64, 2, 0);
    h[2] = 1.5;
    GOOD(softmax_entropy(&in, NULL, h, NULL));
    CHECK(isnan(h[0]) && isnan(h[1]) && h[2] == 1.5);
    GOOD(softmax_entropy_backward(&in, NULL, up, &out, NULL));
    in = softmax_matrix_of(NULL, SOFTMAX_F64, 0, 5);
    GOOD(softmax_entropy(&in, NULL, NULL, NULL));
}

int main(void) {
    values();
    bad();
    return checked();
}
