/* Kullback-Leibler divergences of rows, and their gradients. */
#include "check.h"

enum { ROWS = 9, COLS = 37 };

/* The softmax of a row, and its logarithm. */
static void probs_of(softmax_dtype dtype, const void *x, size_t row, double scale, long double *p,
                     long double *logs) {
    long double max = -INFINITY, sum = 0.0L;
    for (size_t j = 0; j < COLS; j++) {
        max = fmaxl(max, scale * (long double)get(dtype, x, row * COLS + j));
    }
    for (size_t j = 0; j < COLS; j++) {
        logs[j] = scale * (long double)get(dtype, x, row * COLS + j) - max;
        sum += expl(logs[j]);
    }
    for (size_t j = 0; j < COLS; j++) {
        logs[j] -= logl(sum);
        p[j] = expl(logs[j]);
    }
}

static void values(void) {
    for (int d = 0; d < DTYPES; d++) {
        softmax_dtype dtype = dtypes[d];
        double x[ROWS * COLS], y[ROWS * COLS], of_x[ROWS * COLS], of_y[ROWS * COLS];
        double kl[ROWS + 1], others[ROWS], up[ROWS];
        size_t width = size_of(dtype);
        fill_random(dtype, x, ROWS * COLS, 7);
        fill_random(dtype, y, ROWS * COLS, 8);
        softmax_matrix in_x = softmax_matrix_of(x, dtype, ROWS, COLS);
        softmax_matrix in_y = softmax_matrix_of(y, dtype, ROWS, COLS);
        softmax_matrix out_x = softmax_matrix_mut(of_x, dtype, ROWS, COLS);
        softmax_matrix out_y = softmax_matrix_mut(of_y, dtype, ROWS, COLS);
        softmax_options options = softmax_options_default();
        options.scale = 0.25;
        memset(kl, 0xA5, sizeof kl);
        for (size_t i = 0; i < ROWS; i++) {
            put(dtype, up, i, i % 2 == 0 ? 1.0 : -0.5);
        }
        GOOD(softmax_kl_divergence(&in_x, &in_y, NULL, kl, &options));
        CHECK(((unsigned char *)kl)[ROWS * width] == 0xA5);
        GOOD(softmax_kl_divergence_backward(&in_x, &in_y, NULL, up, &out_x, &out_y, &options));
        double slack = dtype == SOFTMAX_F64 ? 1e-15 : dtype == SOFTMAX_F32 ? 1e-7 : 1e-3;
        for (size_t i = 0; i < ROWS; i++) {
            long double p[COLS], q[COLS], log_p[COLS], log_q[COLS], wanted = 0.0L;
            probs_of(dtype, x, i, 0.25, p, log_p);
            probs_of(dtype, y, i, 0.25, q, log_q);
            for (size_t j = 0; j < COLS; j++) {
                wanted += p[j] * (log_p[j] - log_q[j]);
            }
            CHECK(near(dtype, get(dtype, kl, i), wanted, 8.0, 0.0));
            long double factor = i % 2 == 0 ? 0.25L : -0.125L;
            for (size_t j = 0; j < COLS; j++) {
                long double slope = factor * p[j] * (log_p[j] - log_q[j] - wanted);
                CHECK(near(dtype, get(dtype, of_x, i * COLS + j), slope, 2.0, slack));
                slope = factor * (q[j] - p[j]);
                CHECK(near(dtype, get(dtype, of_y, i * COLS + j), slope, 2.0, slack));
            }
        }
        /* One gradient alone. */
        double alone[ROWS * COLS];
        softmax_matrix out = softmax_matrix_mut(alone, dtype, ROWS, COLS);
        GOOD(softmax_kl_divergence_backward(&in_x, &in_y, NULL, up, &out, NULL, &options));
        CHECK(memcmp(alone, of_x, ROWS * COLS * width) == 0);
        GOOD(softmax_kl_divergence_backward(&in_x, &in_y, NULL, up, NULL, &out, &options));
        CHECK(memcmp(alone, of_y, ROWS * COLS * width) == 0);
        GOOD(softmax_kl_divergence_backward(&in_x, &in_y, NULL, up, NULL, NULL, &options));
        /* Equal rows. */
        GOOD(softmax_kl_divergence(&in_x, &in_x, NULL, others, &options));
        for (size_t i = 0; i < ROWS; i++) {
            CHECK(get(dtype, others, i) == 0.0);
        }
        /* A mask that shows one column, and one that shows all, in scratch memory. */
        unsigned char seen[COLS] = {0};
        softmax_mask mask = {sizeof mask, seen, SOFTMAX_BOOL, 1, 0, 0};
        seen[5] = 1;
        GOOD(softmax_kl_divergence(&in_x, &in_y, &mask, others, &options));
        GOOD(softmax_kl_divergence_backward(&in_x, &in_y, &mask, up, &out_x, &out_y, &options));
        for (size_t i = 0; i < ROWS; i++) {
            CHECK(get(dtype, others, i) == 0.0);
            CHECK(get(dtype, of_x, i * COLS + 5) == 0.0 && get(dtype, of_x, i * COLS) == 0.0);
            CHECK(get(dtype, of_y, i * COLS + 5) == 0.0 && get(dtype, of_y, i * COLS) == 0.0);
        }
        memset(seen, 1, sizeof seen);
        static char scratch[4096];
        options.scratch = scratch;
        options.scratch_size = sizeof scratch;
        GOOD(softmax_kl_divergence(&in_x, &in_y, &mask, others, &options));
        CHECK(memcmp(others, kl, ROWS * width) == 0);
        /* Nothing is seen. */
        memset(seen, 0, sizeof seen);
        GOOD(softmax_kl_divergence(&in_x, &in_y, &mask, others, &options));
        CHECK(isnan(get(dtype, others, 0)));
        options.flags = SOFTMAX_MASKED_ZERO;
        GOOD(softmax_kl_divergence(&in_x, &in_y, &mask, others, &options));
        GOOD(softmax_kl_divergence_backward(&in_x, &in_y, &mask, up, &out_x, &out_y, &options));
        CHECK(get(dtype, others, 0) == 0.0);
        CHECK(get(dtype, of_x, 3) == 0.0 && get(dtype, of_y, 3) == 0.0);
        /* Where p is not 0, a q of 0 has no limit. */
        put(dtype, y, 0, -INFINITY);
        GOOD(softmax_kl_divergence(&in_x, &in_y, NULL, others, NULL));
        CHECK(get(dtype, others, 0) == INFINITY && isfinite(get(dtype, others, 1)));
    }
}

static void bad(void) {
    enum { R = 3, C = 4 };
    double x[R * C], y[R * C], of_x[R * C], of_y[R * C], kl[R + 1], up[R] = {1.0, 1.0, 1.0};
    char message[200];
    softmax_options options = told(message, sizeof message);
    fill_random(SOFTMAX_F64, x, R * C, 3);
    fill_random(SOFTMAX_F64, y, R * C, 4);
    memset(kl, 0xA5, sizeof kl);
    memset(of_x, 0xA5, sizeof of_x);
    memset(of_y, 0xA5, sizeof of_y);
    softmax_matrix in_x = softmax_matrix_of(x, SOFTMAX_F64, R, C);
    softmax_matrix in_y = softmax_matrix_of(y, SOFTMAX_F64, R, C);
    softmax_matrix out_x = softmax_matrix_mut(of_x, SOFTMAX_F64, R, C);
    softmax_matrix out_y = softmax_matrix_mut(of_y, SOFTMAX_F64, R, C);
    watch(x, sizeof x);
    watch(y, sizeof y);
    watch(kl, sizeof kl);
    watch(of_x, sizeof of_x);
    watch(of_y, sizeof of_y);
    BAD(NULL_POINTER, softmax_kl_divergence(NULL, &in_y, NULL, kl, NULL));
    BAD(NULL_POINTER, softmax_kl_divergence(&in_x, NULL, NULL, kl, NULL));
    BAD(NULL_POINTER, softmax_kl_divergence(&in_x, &in_y, NULL, NULL, &options));
    SAYS(message, "kl is null");
    BAD(ALIGNMENT, softmax_kl_divergence(&in_x, &in_y, NULL, (char *)kl + 4, NULL));
    BAD(OVERLAP, softmax_kl_divergence(&in_x, &in_y, NULL, &x[C], &options));
    SAYS(message, "kl overlaps x");
    BAD(OVERLAP, softmax_kl_divergence(&in_x, &in_y, NULL, &y[1], &options));
    SAYS(message, "kl overlaps y");
    options.temperature = 0.0;
    BAD(VALUE, softmax_kl_divergence(&in_x, &in_y, NULL, kl, &options));
    BAD(VALUE, softmax_kl_divergence_backward(&in_x, &in_y, NULL, up, &out_x, NULL, &options));
    options.temperature = 1.0;
    softmax_matrix wrong = in_y;
    wrong.dtype = SOFTMAX_F32;
    BAD(DTYPE, softmax_kl_divergence(&in_x, &wrong, NULL, kl, &options));
    SAYS(message, "x and y");
    softmax_matrix strange = in_x;
    strange.dtype = 77;
    wrong.dtype = 77;
    BAD(DTYPE, softmax_kl_divergence(&strange, &wrong, NULL, kl, NULL));
    wrong = in_y;
    wrong.cols = C - 1;
    BAD(SHAPE, softmax_kl_divergence(&in_x, &wrong, NULL, kl, &options));
    SAYS(message, "logits of q must be 3 x 4, got 3 x 3");
    BAD(SHAPE, softmax_kl_divergence_backward(&in_x, &wrong, NULL, up, &out_x, &out_y, NULL));
    wrong = in_x;
    wrong.rows = SIZE_MAX;
    BAD(OVERFLOW, softmax_kl_divergence(&wrong, &in_y, NULL, kl, NULL));
    unsigned char seen[2 * C] = {1};
    softmax_mask mask = {sizeof mask, seen, SOFTMAX_BOOL, 2, 0, 0};
    BAD(LENGTH, softmax_kl_divergence(&in_x, &in_y, &mask, kl, NULL));
    BAD(LENGTH, softmax_kl_divergence_backward(&in_x, &in_y, &mask, up, &out_x, NULL, NULL));
    mask.rows = 1;
    mask.dtype = 77;
    BAD(DTYPE, softmax_kl_divergence(&in_x, &in_y, &mask, kl, NULL));
    float added[C] = {0.0f, 0.5f, 0.0f, 0.0f};
    mask.data = added;
    mask.dtype = SOFTMAX_F32;
    BAD(VALUE, softmax_kl_divergence(&in_x, &in_y, &mask, kl, &options));
    SAYS(message, "only hide");

    BAD(NULL_POINTER, softmax_kl_divergence_backward(NULL, &in_y, NULL, up, &out_x, NULL, NULL));
    BAD(NULL_POINTER, softmax_kl_divergence_backward(&in_x, NULL, NULL, up, &out_x, NULL, NULL));
    BAD(NULL_POINTER,
        softmax_kl_divergence_backward(&in_x, &in_y, NULL, NULL, &out_x, NULL, &options));
    SAYS(message, "upstream is null");
    BAD(OVERLAP, softmax_kl_divergence_backward(&in_x, &in_y, NULL, up, &in_x, NULL, NULL));
    BAD(OVERLAP, softmax_kl_divergence_backward(&in_x, &in_y, NULL, up, NULL, &in_x, NULL));
    BAD(OVERLAP, softmax_kl_divergence_backward(&in_x, &in_y, NULL, of_y, NULL, &out_y, NULL));
    BAD(OVERLAP, softmax_kl_divergence_backward(&in_x, &in_y, NULL, up, &out_x, &out_x, &options));
    SAYS(message, "x_gradient overlaps y_gradient");
    BAD(ALIGNMENT,
        softmax_kl_divergence_backward(&in_x, &in_y, NULL, (char *)up + 1, &out_x, NULL, NULL));
    wrong = out_x;
    wrong.dtype = SOFTMAX_F32;
    BAD(DTYPE, softmax_kl_divergence_backward(&in_x, &in_y, NULL, up, &wrong, &out_y, NULL));
    BAD(DTYPE, softmax_kl_divergence_backward(&in_x, &in_y, NULL, up, &out_x, &wrong, NULL));
    wrong = out_y;
    wrong.rows = R - 1;
    BAD(SHAPE, softmax_kl_divergence_backward(&in_x, &in_y, NULL, up, &out_x, &wrong, &options));
    SAYS(message, "gradient of y");
    unwatch();
    STRUCT_SIZES(softmax_matrix, in_x, p, softmax_kl_divergence(p, &in_y, NULL, kl, NULL));

    /* Rows without elements, and no rows. */
    in_x = softmax_matrix_of(NULL, SOFTMAX_F64, 2, 0);
    out_x = softmax_matrix_mut(NULL, SOFTMAX_F64, 2, 0);
    kl[2] = 1.5;
    GOOD(softmax_kl_divergence(&in_x, &in_x, NULL, kl, NULL));
    CHECK(isnan(kl[0]) && isnan(kl[1]) && kl[2] == 1.5);
    GOOD(softmax_kl_divergence_backward(&in_x, &in_x, NULL, up, &out_x, NULL, NULL));
    in_x = softmax_matrix_of(NULL, SOFTMAX_F64, 0, 5);
    GOOD(softmax_kl_divergence(&in_x, &in_x, NULL, NULL, NULL));
}

int main(void) {
    values();
    bad();
    return checked();
}
