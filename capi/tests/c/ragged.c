/* Rows of different lengths. */
#include "check.h"

enum { ROWS = 61, MARGIN = 3 };

/* Rows of 0 to 30 elements, one of 70 and one of 200, with elements before and behind them. */
static size_t lengths(int32_t offsets[ROWS + 1], int64_t wide[ROWS + 1]) {
    uint32_t state = 5;
    offsets[0] = MARGIN;
    for (size_t i = 0; i < ROWS; i++) {
        int32_t n = (int32_t)(next_random(&state) % 31);
        n = i == 20 ? 70 : i == 40 ? 200 : i == 3 || i == ROWS - 1 ? 0 : n;
        offsets[i + 1] = offsets[i] + n;
    }
    for (size_t i = 0; i <= ROWS; i++) {
        wide[i] = offsets[i];
    }
    return (size_t)offsets[ROWS] + MARGIN;
}

/* The bytes of a row. */
static void *at(softmax_dtype dtype, void *data, size_t i) {
    return (char *)data + i * size_of(dtype);
}

typedef softmax_status (*map)(const softmax_matrix *x, const softmax_matrix *y,
                              const softmax_options *options);
typedef softmax_status (*ragged_map)(const softmax_ragged *x, void *y,
                                     const softmax_options *options);

static softmax_status hardmax(const softmax_matrix *x, const softmax_matrix *y,
                              const softmax_options *options) {
    return softmax_hardmax(x, y, SOFTMAX_TIES_FIRST, options);
}

static softmax_status hardmax_ragged(const softmax_ragged *x, void *y,
                                     const softmax_options *options) {
    return softmax_hardmax_ragged(x, y, SOFTMAX_TIES_FIRST, options);
}

/* Every row as it is alone, in place and not, with both types of offsets. */
static void values(void) {
    static const map maps[] = {softmax_softmax, softmax_log_softmax, hardmax};
    static const ragged_map ragged_maps[] = {softmax_softmax_ragged, softmax_log_softmax_ragged,
                                             hardmax_ragged};
    int32_t offsets[ROWS + 1];
    int64_t wide[ROWS + 1];
    size_t n = lengths(offsets, wide);
    for (int d = 0; d < DTYPES; d++) {
        softmax_dtype dtype = dtypes[d];
        size_t bytes = n * size_of(dtype);
        void *in = memory(bytes);
        void *out = memory(bytes);
        void *wanted = memory(bytes);
        void *lse = memory(ROWS * size_of(dtype));
        void *one = memory(size_of(dtype));
        size_t indices[ROWS];
        fill_random(dtype, in, n, 7);
        softmax_ragged x = softmax_ragged_of(in, n, dtype, offsets, ROWS);
        for (int which = 0; which < 3; which++) {
            memset(wanted, 0xA5, bytes);
            for (size_t i = 0; i < ROWS; i++) {
                size_t start = (size_t)offsets[i];
                size_t cols = (size_t)(offsets[i + 1] - offsets[i]);
                softmax_matrix from = softmax_matrix_of(at(dtype, in, start), dtype, 1, cols);
                softmax_matrix to = softmax_matrix_mut(at(dtype, wanted, start), dtype, 1, cols);
                GOOD(maps[which](&from, &to, NULL));
            }
            for (int type = 0; type < 2; type++) {
                x.index_type = type == 0 ? SOFTMAX_I32 : SOFTMAX_I64;
                x.offsets = type == 0 ? (const void *)offsets : (const void *)wide;
                memset(out, 0xA5, bytes);
                GOOD(ragged_maps[which](&x, out, NULL));
                CHECK(memcmp(out, wanted, bytes) == 0);
            }
            memcpy(out, in, bytes);
            softmax_ragged y = softmax_ragged_mut(out, n, dtype, offsets, ROWS);
            GOOD(ragged_maps[which](&y, out, NULL));
            size_t start = MARGIN * size_of(dtype);
            size_t end = bytes - start;
            CHECK(memcmp((char *)out + start, (char *)wanted + start, end - start) == 0);
            CHECK(memcmp(out, in, start) == 0);
            CHECK(memcmp((char *)out + end, (char *)in + end, start) == 0);
        }
        GOOD(softmax_softmax_ragged(&x, out, NULL));
        GOOD(softmax_log_softmax_ragged(&x, out, NULL));
        GOOD(softmax_hardmax_ragged(&x, out, SOFTMAX_TIES_SHARE, NULL));
        GOOD(softmax_logsumexp_ragged(&x, lse, NULL));
        GOOD(softmax_argmax_ragged(&x, indices, NULL));
        for (size_t i = 0; i < ROWS; i++) {
            size_t cols = (size_t)(offsets[i + 1] - offsets[i]);
            softmax_matrix row =
                softmax_matrix_of(at(dtype, in, (size_t)offsets[i]), dtype, 1, cols);
            size_t index = SIZE_MAX;
            GOOD(softmax_logsumexp(&row, one, NULL));
            CHECK(memcmp(one, at(dtype, lse, i), size_of(dtype)) == 0);
            if (cols > 0) {
                GOOD(softmax_argmax(&row, &index, NULL));
            }
            CHECK(indices[i] == index);
        }
        free(in);
        free(out);
        free(wanted);
        free(lse);
        free(one);
    }
}

/* Losses and gradients of every row as they are alone. */
static void gradients(void) {
    int32_t offsets[ROWS + 1];
    int64_t wide[ROWS + 1];
    size_t n = lengths(offsets, wide);
    int64_t labels[ROWS];
    double factors[ROWS];
    float weights[200];
    for (size_t i = 0; i < 200; i++) {
        weights[i] = (float)(i % 3) + 0.5f;
    }
    size_t counted = 0;
    for (size_t i = 0; i < ROWS; i++) {
        int32_t cols = offsets[i + 1] - offsets[i];
        labels[i] = cols == 0 || i % 7 == 6 ? -100 : (int64_t)(i % (size_t)cols);
        factors[i] = (double)i / 8.0 - 2.0;
        counted += labels[i] != -100;
    }
    for (int d = 0; d < DTYPES; d++) {
        softmax_dtype dtype = dtypes[d];
        size_t bytes = n * size_of(dtype);
        void *in = memory(bytes);
        void *probs = memory(bytes);
        void *out = memory(bytes);
        void *wanted = memory(bytes);
        double each[ROWS];
        double each_wanted[ROWS];
        double loss = 0.0;
        double again = 0.0;
        fill_random(dtype, in, n, 8);
        for (size_t i = 0; i < n; i++) {
            put(dtype, probs, i, 0.125);
        }
        softmax_ragged x = softmax_ragged_of(in, n, dtype, offsets, ROWS);
        softmax_ragged q = softmax_ragged_of(probs, n, dtype, offsets, ROWS);
        softmax_cross_entropy ce = softmax_cross_entropy_default();
        ce.weights = weights;
        ce.reduction = SOFTMAX_REDUCTION_SUM;
        for (int soft = 0; soft < 2; soft++) {
            memset(wanted, 0xA5, bytes);
            for (size_t i = 0; i < ROWS; i++) {
                size_t start = (size_t)offsets[i];
                size_t cols = (size_t)(offsets[i + 1] - offsets[i]);
                softmax_matrix row = softmax_matrix_of(at(dtype, in, start), dtype, 1, cols);
                softmax_matrix p = softmax_matrix_of(at(dtype, probs, start), dtype, 1, cols);
                softmax_matrix g = softmax_matrix_mut(at(dtype, wanted, start), dtype, 1, cols);
                ce.row_factors = factors + i;
                if (soft) {
                    GOOD(softmax_cross_entropy_probs(&row, &p, each_wanted + i, NULL, &g, &ce, NULL));
                } else {
                    GOOD(softmax_cross_entropy_labels(&row, labels + i, each_wanted + i, NULL, &g, &ce, NULL));
                }
            }
            ce.row_factors = factors;
            memset(out, 0xA5, bytes);
            if (soft) {
                GOOD(softmax_cross_entropy_probs_ragged(&x, probs, each, &loss, out, &ce, NULL));
                GOOD(softmax_cross_entropy_probs_ragged(&x, probs, NULL, &again, NULL, &ce, NULL));
            } else {
                GOOD(softmax_cross_entropy_labels_ragged(&x, labels, each, &loss, out, &ce, NULL));
                GOOD(softmax_cross_entropy_labels_ragged(&x, labels, NULL, &again, NULL, &ce, NULL));
            }
            CHECK(memcmp(out, wanted, bytes) == 0);
            CHECK(memcmp(each, each_wanted, sizeof each) == 0);
            CHECK(loss == again);
            GOOD(softmax_cross_entropy_reduce(each, ROWS, 1.0, &again));
            CHECK(loss == again);
        }
        /* The mean of rows that count, and the gradient in place. */
        softmax_cross_entropy mean = softmax_cross_entropy_default();
        GOOD(softmax_cross_entropy_labels_ragged(&x, labels, each, &loss, out, &mean, NULL));
        GOOD(softmax_cross_entropy_reduce(each, ROWS, (double)counted, &again));
        CHECK(loss == again);
        memcpy(wanted, in, bytes);
        softmax_ragged y = softmax_ragged_mut(wanted, n, dtype, offsets, ROWS);
        GOOD(softmax_cross_entropy_labels_ragged(&y, labels, NULL, &loss, wanted, NULL, NULL));
        CHECK(loss == again);
        size_t start = MARGIN * size_of(dtype);
        CHECK(memcmp((char *)out + start, (char *)wanted + start, bytes - 2 * start) == 0);

        for (int log = 0; log < 2; log++) {
            memset(wanted, 0xA5, bytes);
            memset(out, 0xA5, bytes);
            for (size_t i = 0; i < ROWS; i++) {
                size_t from = (size_t)offsets[i];
                size_t cols = (size_t)(offsets[i + 1] - offsets[i]);
                softmax_matrix p = softmax_matrix_of(at(dtype, probs, from), dtype, 1, cols);
                softmax_matrix u = softmax_matrix_of(at(dtype, in, from), dtype, 1, cols);
                softmax_matrix g = softmax_matrix_mut(at(dtype, wanted, from), dtype, 1, cols);
                GOOD((log ? softmax_log_softmax_backward : softmax_softmax_backward)(&p, &u, &g, NULL));
            }
            if (log) {
                GOOD(softmax_log_softmax_backward_ragged(&q, in, out, NULL));
            } else {
                GOOD(softmax_softmax_backward_ragged(&q, in, out, NULL));
            }
            CHECK(memcmp(out, wanted, bytes) == 0);
        }
        free(in);
        free(probs);
        free(out);
        free(wanted);
    }
}

static void bad(void) {
    int32_t offsets[4] = {1, 3, 3, 8};
    int64_t wide[4] = {1, 3, 3, 8};
    float x[8] = {0};
    float y[8];
    double losses[3];
    double loss[2];
    size_t indices[3];
    int64_t labels[3] = {0, -100, 2};
    char message[300];
    memset(y, 0xA5, sizeof y);
    memset(losses, 0xA5, sizeof losses);
    memset(loss, 0xA5, sizeof loss);
    memset(indices, 0xA5, sizeof indices);
    softmax_options options = told(message, sizeof message);
    const softmax_ragged good = softmax_ragged_of(x, 8, SOFTMAX_F32, offsets, 3);
    softmax_ragged r = good;
    watch(x, sizeof x);
    watch(y, sizeof y);
    watch(losses, sizeof losses);
    watch(loss, sizeof loss);
    watch(indices, sizeof indices);
#define ALL(status)                                                                                \
    do {                                                                                           \
        BAD(status, softmax_log_softmax_ragged(&r, y, NULL));                                      \
        BAD(status, softmax_hardmax_ragged(&r, y, SOFTMAX_TIES_SHARE, NULL));                      \
        BAD(status, softmax_logsumexp_ragged(&r, y, NULL));                                        \
        BAD(status, softmax_argmax_ragged(&r, indices, NULL));                                     \
        BAD(status, softmax_cross_entropy_labels_ragged(&r, labels, losses, loss, y, NULL, NULL)); \
        BAD(status, softmax_cross_entropy_probs_ragged(&r, x, losses, loss, y, NULL, NULL));       \
        BAD(status, softmax_softmax_backward_ragged(&r, x, y, NULL));                              \
        BAD(status, softmax_log_softmax_backward_ragged(&r, x, y, NULL));                          \
        BAD(status, softmax_softmax_ragged(&r, r.data, NULL));                                     \
        BAD(status, softmax_softmax_ragged(&r, y, &options));                                      \
    } while (0)
    offsets[2] = 2;
    ALL(VALUE);
    SAYS(message, "the offset 2 must be at least the one before, got 2");
    offsets[2] = 3;
    offsets[0] = -1;
    ALL(VALUE);
    SAYS(message, "the offset 0 must be 0 or above, got -1");
    offsets[0] = 1;
    offsets[3] = 9;
    ALL(LENGTH);
    SAYS(message, "the number of elements must be at least 9, got 8");
    offsets[3] = 8;
    r.index_type = SOFTMAX_I64;
    r.offsets = wide;
    wide[1] = INT64_MIN;
    ALL(VALUE);
    wide[1] = INT64_MAX;
    ALL(VALUE);
    wide[1] = 3;
    wide[3] = INT64_MAX;
    ALL(LENGTH);
    r.offsets = (const char *)wide + 1;
    ALL(ALIGNMENT);
    r = good;
    r.index_type = 2;
    ALL(VALUE);
    SAYS(message, "the type of offsets 2 does not exist");
    r = good;
    r.dtype = SOFTMAX_BOOL;
    ALL(DTYPE);
    r = good;
    r.offsets = NULL;
    ALL(NULL_POINTER);
    r = good;
    r.data = NULL;
    BAD(NULL_POINTER, softmax_softmax_ragged(&r, y, NULL));
    BAD(NULL_POINTER, softmax_argmax_ragged(&r, indices, NULL));
    r = good;
    r.rows = SIZE_MAX;
    ALL(OVERFLOW);
    r.rows = SIZE_MAX / 4;
    ALL(OVERFLOW);
    r = good;
    r.elements = SIZE_MAX / 2;
    ALL(OVERFLOW);
    r = good;
    BAD(NULL_POINTER, softmax_softmax_ragged(&r, NULL, NULL));
    BAD(NULL_POINTER, softmax_logsumexp_ragged(&r, NULL, NULL));
    BAD(NULL_POINTER, softmax_argmax_ragged(&r, NULL, NULL));
    BAD(NULL_POINTER, softmax_softmax_backward_ragged(&r, NULL, y, NULL));
    BAD(NULL_POINTER, softmax_softmax_backward_ragged(&r, x, NULL, NULL));
    BAD(NULL_POINTER, softmax_cross_entropy_labels_ragged(&r, NULL, losses, loss, y, NULL, NULL));
    BAD(NULL_POINTER, softmax_cross_entropy_probs_ragged(&r, NULL, losses, loss, y, NULL, NULL));
    BAD(ALIGNMENT, softmax_softmax_ragged(&r, (char *)y + 1, NULL));
    BAD(OVERLAP, softmax_softmax_ragged(&r, x + 1, &options));
    SAYS(message, "output overlaps input");
    BAD(OVERLAP, softmax_softmax_ragged(&r, offsets, NULL));
    BAD(OVERLAP, softmax_softmax_backward_ragged(&r, x, x, NULL));
    BAD(OVERLAP, softmax_log_softmax_backward_ragged(&r, y, y, NULL));
    BAD(VALUE, softmax_hardmax_ragged(&r, y, 2, NULL));
    labels[1] = 0;
    BAD(COLUMN, softmax_cross_entropy_labels_ragged(&r, labels, losses, loss, y, NULL, &options));
    SAYS(message, "row 1: 0 is not one of its 0 columns");
    labels[1] = -100;
    labels[2] = 5;
    BAD(COLUMN, softmax_cross_entropy_labels_ragged(&r, labels, losses, loss, y, NULL, NULL));
    options.temperature = -1.0;
    BAD(VALUE, softmax_softmax_ragged(&r, y, &options));
    unwatch();
    STRUCT_SIZES(softmax_ragged, good, p, softmax_softmax_ragged(p, y, NULL));
}

int main(void) {
    values();
    gradients();
    bad();
    return checked();
}
