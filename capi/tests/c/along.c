/* Along any axis of a tensor by rows; masks on rows; weights. */
#include "check.h"

enum { A = 3, L = 5, B = 4, LANES = A * B, N = A * L * B };
static const size_t shape[3] = {A, L, B};

/* The tensor with its axis at the end. */
static void moved(size_t size, const unsigned char *x, unsigned char *y, size_t len) {
    for (size_t a = 0; a < A; a++) {
        for (size_t b = 0; b < B; b++) {
            for (size_t k = 0; k < len; k++) {
                memcpy(y + ((a * B + b) * len + k) * size, x + ((a * len + k) * B + b) * size, size);
            }
        }
    }
}

static void values(softmax_dtype dtype) {
    size_t size = size_of(dtype);
    size_t results = size_of(computed(dtype));
    unsigned char x[N * 8], y[N * 8], rows[N * 8], got[N * 8], want[N * 8];
    unsigned char logs[2 * LANES * 8], probs[2 * LANES * 8];
    size_t indices[2 * LANES], top[2 * LANES];
    fill_random(dtype, x, N, 3);
    moved(size, x, rows, L);
    softmax_matrix m = softmax_matrix_of(rows, dtype, LANES, L);
    softmax_matrix to = softmax_matrix_mut(want, dtype, LANES, L);
    GOOD(softmax_logsumexp_axis(x, y, dtype, shape, 3, 1, NULL));
    GOOD(softmax_logsumexp(&m, want, NULL));
    CHECK(memcmp(y, want, LANES * size) == 0);
    GOOD(softmax_hardmax_axis(x, y, dtype, shape, 3, -2, SOFTMAX_TIES_FIRST, NULL));
    GOOD(softmax_hardmax(&m, &to, SOFTMAX_TIES_FIRST, NULL));
    moved(size, y, got, L);
    CHECK(memcmp(got, want, N * size) == 0);
    memcpy(y, x, N * size);
    GOOD(softmax_hardmax_axis(y, y, dtype, shape, 3, 1, SOFTMAX_TIES_FIRST, NULL));
    moved(size, y, got, L);
    CHECK(memcmp(got, want, N * size) == 0);
    GOOD(softmax_argmax_axis(x, indices, dtype, shape, 3, 1, NULL));
    GOOD(softmax_argmax(&m, top, NULL));
    CHECK(memcmp(indices, top, LANES * sizeof *top) == 0);
    GOOD(softmax_top_k_axis(x, dtype, shape, 3, 1, 2, logs, probs, indices, NULL));
    GOOD(softmax_top_k(&m, 2, want, got, top, NULL));
    moved(results, logs, y, 2);
    CHECK(memcmp(y, want, 2 * LANES * results) == 0);
    moved(results, probs, y, 2);
    CHECK(memcmp(y, got, 2 * LANES * results) == 0);
    moved(sizeof *indices, (unsigned char *)indices, y, 2);
    CHECK(memcmp(y, top, sizeof top) == 0);
    GOOD(softmax_top_k_axis(x, dtype, shape, 3, 1, 2, NULL, NULL, indices, NULL));
    GOOD(softmax_top_k_axis(x, dtype, shape, 3, 1, 2, logs, NULL, indices, NULL));
    GOOD(softmax_top_k_axis(x, dtype, shape, 3, 1, 2, NULL, probs, indices, NULL));

    int64_t labels[LANES];
    double losses[LANES], others[LANES], loss = 0.0, other = 0.0;
    for (size_t i = 0; i < LANES; i++) {
        labels[i] = i == 4 ? -100 : (int64_t)(i % L);
    }
    GOOD(softmax_cross_entropy_labels_axis(x, dtype, shape, 3, 1, labels, losses, &loss, y, NULL, NULL));
    GOOD(softmax_cross_entropy_labels(&m, labels, others, &other, &to, NULL, NULL));
    moved(size, y, got, L);
    CHECK(memcmp(got, want, N * size) == 0);
    CHECK(memcmp(losses, others, sizeof losses) == 0 && loss == other);
    memset(losses, 0, sizeof losses);
    GOOD(softmax_cross_entropy_labels_axis(x, dtype, shape, 3, 1, labels, losses, NULL, NULL, NULL, NULL));
    CHECK(memcmp(losses, others, sizeof losses) == 0);

    GOOD(softmax_cross_entropy_labels_axis(x, dtype, shape, 3, 1, labels, NULL, &other, NULL, NULL, NULL));
    CHECK(loss == other);
    memcpy(y, x, N * size);
    GOOD(softmax_cross_entropy_labels_axis(y, dtype, shape, 3, 1, labels, NULL, &other, y, NULL, NULL));
    moved(size, y, got, L);
    CHECK(memcmp(got, want, N * size) == 0 && loss == other);
    GOOD(softmax_cross_entropy_labels_axis(x, dtype, shape, 3, 1, labels, NULL, NULL, y, NULL, NULL));
    moved(size, y, got, L);
    CHECK(memcmp(got, want, N * size) == 0);
    unsigned char probs_in[N * 8], probs_rows[N * 8];
    for (size_t i = 0; i < N; i++) {
        put(dtype, probs_in, i, (double)(i % 4) / 8.0);
    }
    moved(size, probs_in, probs_rows, L);
    softmax_matrix q = softmax_matrix_of(probs_rows, dtype, LANES, L);
    GOOD(softmax_cross_entropy_probs(&m, &q, others, &other, &to, NULL, NULL));
    GOOD(softmax_cross_entropy_probs_axis(x, dtype, shape, 3, 1, probs_in, losses, &loss, y, NULL, NULL));
    moved(size, y, got, L);
    CHECK(memcmp(got, want, N * size) == 0);
    CHECK(memcmp(losses, others, sizeof losses) == 0 && loss == other);
    memcpy(y, x, N * size);
    memset(losses, 0, sizeof losses);
    GOOD(softmax_cross_entropy_probs_axis(y, dtype, shape, 3, 1, probs_in, losses, NULL, y, NULL, NULL));
    moved(size, y, got, L);
    CHECK(memcmp(got, want, N * size) == 0 && memcmp(losses, others, sizeof losses) == 0);
    softmax_cross_entropy sum = softmax_cross_entropy_default();
    sum.reduction = SOFTMAX_REDUCTION_SUM;
    GOOD(softmax_cross_entropy_probs(&m, &q, NULL, &other, NULL, &sum, NULL));
    GOOD(softmax_cross_entropy_probs_axis(x, dtype, shape, 3, 1, probs_in, losses, &loss, NULL, &sum, NULL));
    CHECK(loss == other);

    size_t tokens[2 * LANES], of_rows[2 * LANES];
    for (size_t i = 0; i < 2 * LANES; i++) {
        tokens[i] = i * 3 % L;
    }
    moved(sizeof *tokens, (unsigned char *)tokens, (unsigned char *)of_rows, 2);
    GOOD(softmax_log_probs(&m, of_rows, 2, want, got, NULL));
    GOOD(softmax_log_probs_axis(x, dtype, shape, 3, 1, tokens, 2, logs, y, NULL));
    CHECK(memcmp(y, got, LANES * results) == 0);
    moved(results, logs, y, 2);
    CHECK(memcmp(y, want, 2 * LANES * results) == 0);
    memset(logs, 0, sizeof logs);
    GOOD(softmax_log_probs_axis(x, dtype, shape, 3, 1, tokens, 2, logs, NULL, NULL));
    moved(results, logs, y, 2);
    CHECK(memcmp(y, want, 2 * LANES * results) == 0);

    /* A mask hides; scales below 0 negate. */
    unsigned char seen[N];
    for (size_t i = 0; i < N; i++) {
        seen[i] = i % 3 != 1;
        if (!seen[i]) {
            put(dtype, rows, i, -INFINITY);
        }
    }
    unsigned char noisy[N * 8];
    moved(size, x, noisy, L);
    for (size_t i = 0; i < N; i++) {
        if (!seen[i]) {
            put(dtype, noisy, i, NAN);
        }
    }
    softmax_matrix n = softmax_matrix_of(noisy, dtype, LANES, L);
    softmax_matrix z = softmax_matrix_mut(got, dtype, LANES, L);
    softmax_mask mask = {sizeof mask, seen, SOFTMAX_BOOL, LANES, 0, 0};
    GOOD(softmax_softmax(&m, &to, NULL));
    GOOD(softmax_softmax_masked(&n, &z, &mask, NULL));
    CHECK(memcmp(got, want, N * size) == 0);
    GOOD(softmax_log_softmax(&m, &to, NULL));
    GOOD(softmax_log_softmax_masked(&n, &z, &mask, NULL));
    CHECK(memcmp(got, want, N * size) == 0);
    memcpy(got, noisy, N * size);
    GOOD(softmax_log_softmax_masked(&z, &z, &mask, NULL));
    CHECK(memcmp(got, want, N * size) == 0);
    GOOD(softmax_logsumexp(&m, want, NULL));
    GOOD(softmax_logsumexp_of(&n, &mask, NULL, 0, 0, got, NULL));
    CHECK(memcmp(got, want, LANES * size) == 0);
    float added[L] = {0.0f, -1.0f, 2.0f, -INFINITY, 0.5f};
    softmax_mask one = {sizeof one, added, SOFTMAX_F32, 1, 0, 0};
    GOOD(softmax_softmax_masked(&m, &z, &one, NULL));
    CHECK(get(dtype, got, 3) == 0.0);
    float weights[L] = {1.0f, 1.0f, 1.0f, 1.0f, 1.0f};
    double wide[L] = {1.0, 1.0, 1.0, 1.0, 1.0};
    GOOD(softmax_logsumexp_of(&n, &mask, weights, SOFTMAX_F32, 1, y, NULL));
    for (size_t i = 0; i < LANES; i++) {
        CHECK(near(dtype, get(dtype, y, i), get(dtype, want, i), 4.0, 1e-6));
    }
    GOOD(softmax_logsumexp_of(&n, &mask, wide, SOFTMAX_F64, 1, got, NULL));
    CHECK(memcmp(got, y, LANES * size) == 0);
    softmax_options options = softmax_options_default();
    options.scale = -1.0;
    moved(size, x, rows, L);
    GOOD(softmax_softmax(&m, &z, &options));
    for (size_t i = 0; i < N; i++) {
        put(dtype, rows, i, -get(dtype, rows, i));
    }
    GOOD(softmax_softmax(&m, &to, NULL));
    CHECK(memcmp(got, want, N * size) == 0);
    /* Class weights of either type. */
    softmax_cross_entropy e = softmax_cross_entropy_default();
    weights[1] = 0.25f;
    wide[1] = 0.25;
    e.weights = weights;
    GOOD(softmax_cross_entropy_labels(&m, labels, losses, NULL, NULL, &e, NULL));
    e.weights = NULL;
    e.weights_f64 = wide;
    GOOD(softmax_cross_entropy_labels(&m, labels, others, NULL, NULL, &e, NULL));
    CHECK(memcmp(losses, others, sizeof losses) == 0);
    e.weights = weights;
    BAD(VALUE, softmax_cross_entropy_labels(&m, labels, others, NULL, NULL, &e, NULL));
}

/* In memory that is lent, as much as is asked for, and less. */
static void scratch(softmax_dtype dtype) {
    unsigned char x[N * 8], y[N * 8], want[N * 8], logs[2 * LANES * 8];
    size_t indices[2 * LANES], sizes[2] = {LANES, L};
    int64_t labels[LANES] = {0};
    double losses[LANES];
    char message[200];
    fill_random(dtype, x, N, 4);
    softmax_matrix m = softmax_matrix_of(x, dtype, LANES, L);
    for (int way = 0; way < 6; way++) {
        softmax_options o = told(message, sizeof message);
        o.scale = way % 2 == 1 ? -0.5 : 1.0;
        size_t needed = 0;
        if (way < 2) {
            GOOD(softmax_top_k_scratch_size(dtype, sizes, 2, 1, 2, &needed, &o));
        } else if (way < 4) {
            GOOD(softmax_top_k_scratch_size(dtype, shape, 3, -2, 2, &needed, &o));
        } else {
            GOOD(softmax_cross_entropy_axis_scratch_size(dtype, shape, 3, 1, &needed, &o));
        }
        unsigned char *lent = (unsigned char *)memory(needed + 67);
        for (int less = 0; less < 2; less++) {
            memset(y, 0xA5, sizeof y);
            memset(logs, 0xA5, sizeof logs);
            o.scratch = less ? NULL : lent + 3;
            o.scratch_size = less ? 0 : needed;
            if (way < 2) {
                GOOD(softmax_top_k(&m, 2, logs, NULL, indices, &o));
                GOOD(softmax_top_k(&m, 2, NULL, NULL, indices, &o));
            } else if (way < 4) {
                GOOD(softmax_top_k_axis(x, dtype, shape, 3, 1, 2, NULL, logs, indices, &o));
            } else {
                GOOD(softmax_cross_entropy_labels_axis(x, dtype, shape, 3, 1, labels, losses, NULL, y, NULL, &o));
            }
            memcpy(less ? y : want, way < 4 ? logs : y, sizeof logs);
        }
        CHECK(memcmp(y, want, sizeof logs) == 0);
        for (size_t i = 0; i < 3; i++) {
            CHECK(lent[i] == 0xA5);
        }
        for (size_t i = needed + 3; i < needed + 67; i++) {
            CHECK(lent[i] == 0xA5);
        }
        o.scratch = lent;
        o.scratch_size = needed - 1;
        if (way < 2) {
            BAD(SCRATCH, softmax_top_k(&m, 2, logs, NULL, indices, &o));
        } else if (way < 4) {
            BAD(SCRATCH, softmax_top_k_axis(x, dtype, shape, 3, 1, 2, logs, NULL, indices, &o));
        } else {
            BAD(SCRATCH, softmax_cross_entropy_labels_axis(x, dtype, shape, 3, 1, labels, losses, NULL, y, NULL, &o));
        }
        SAYS(message, "bytes of scratch are needed, got");
        free(lent);
    }
    /* What copies rows, without a size of its own. */
    softmax_options o = softmax_options_default();
    o.scale = -0.5;
    size_t tokens[LANES] = {0};
    GOOD(softmax_log_probs(&m, tokens, 1, want, NULL, &o));
    unsigned char little[100];
    o.scratch = little;
    o.scratch_size = sizeof little;
    GOOD(softmax_log_probs(&m, tokens, 1, y, NULL, &o));
    CHECK(memcmp(y, want, LANES * size_of(computed(dtype))) == 0);
}

static void bad(void) {
    double x[N], y[N], losses[LANES];
    size_t indices[N];
    int64_t labels[LANES] = {0};
    size_t sizes[3] = {A, L, B};
    char message[200];
    softmax_options o = told(message, sizeof message);
    const softmax_dtype D = SOFTMAX_F64;
    fill_random(D, x, N, 2);
    memset(y, 0xA5, sizeof y);
    memset(losses, 0xA5, sizeof losses);
    memset(indices, 0xA5, sizeof indices);
    watch(x, sizeof x);
    watch(y, sizeof y);
    watch(losses, sizeof losses);
    watch(indices, sizeof indices);
    BAD(NULL_POINTER, softmax_logsumexp_axis(NULL, y, D, sizes, 3, 1, &o));
    SAYS(message, "input is null");
    BAD(NULL_POINTER, softmax_logsumexp_axis(x, NULL, D, sizes, 3, 1, NULL));
    BAD(NULL_POINTER, softmax_logsumexp_axis(x, y, D, NULL, 3, 1, NULL));
    BAD(AXIS, softmax_logsumexp_axis(x, y, D, sizes, 3, 3, NULL));
    BAD(AXIS, softmax_logsumexp_axis(x, y, D, sizes, 3, PTRDIFF_MIN, NULL));
    BAD(AXIS, softmax_logsumexp_axis(x, y, D, NULL, 0, 0, NULL));
    BAD(DTYPE, softmax_logsumexp_axis(x, y, SOFTMAX_BOOL, sizes, 3, 1, NULL));
    BAD(OVERLAP, softmax_logsumexp_axis(x, x + 2, D, sizes, 3, 1, NULL));
    BAD(ALIGNMENT, softmax_logsumexp_axis(x, (char *)y + 1, D, sizes, 3, 1, NULL));
    BAD(NULL_POINTER, softmax_hardmax_axis(x, NULL, D, sizes, 3, 1, SOFTMAX_TIES_SHARE, NULL));
    BAD(VALUE, softmax_hardmax_axis(x, y, D, sizes, 3, 1, 7, &o));
    BAD(OVERLAP, softmax_hardmax_axis(x, x + 1, D, sizes, 3, 1, SOFTMAX_TIES_SHARE, NULL));
    BAD(AXIS, softmax_hardmax_axis(x, y, D, sizes, 3, -4, SOFTMAX_TIES_SHARE, NULL));
    BAD(NULL_POINTER, softmax_argmax_axis(x, NULL, D, sizes, 3, 1, NULL));
    BAD(AXIS, softmax_argmax_axis(x, indices, D, sizes, 3, 4, NULL));
    BAD(NULL_POINTER, softmax_top_k_axis(x, D, sizes, 3, 1, 2, NULL, NULL, NULL, NULL));
    BAD(VALUE, softmax_top_k_axis(x, D, sizes, 3, 2, L, NULL, NULL, indices, &o));
    BAD(OVERFLOW, softmax_top_k_axis(x, D, sizes, 3, 1, SIZE_MAX, NULL, NULL, indices, NULL));
    BAD(OVERLAP, softmax_top_k_axis(x, D, sizes, 3, 1, 2, y, y + 1, indices, NULL));
    size_t tokens[LANES] = {0};
    BAD(NULL_POINTER, softmax_log_probs_axis(x, D, sizes, 3, 1, NULL, 1, y, NULL, NULL));
    BAD(NULL_POINTER, softmax_log_probs_axis(x, D, sizes, 3, 1, tokens, 1, NULL, NULL, NULL));
    BAD(AXIS, softmax_log_probs_axis(x, D, sizes, 3, 3, tokens, 1, y, NULL, NULL));
    BAD(OVERFLOW, softmax_log_probs_axis(x, D, sizes, 3, 1, tokens, SIZE_MAX, y, NULL, NULL));
    BAD(OVERLAP, softmax_log_probs_axis(x, D, sizes, 3, 1, tokens, 1, y, y + 1, NULL));
    BAD(OVERLAP, softmax_log_probs_axis(x, D, sizes, 3, 1, tokens, 1, x, NULL, NULL));
    tokens[5] = L;
    BAD(COLUMN, softmax_log_probs_axis(x, D, sizes, 3, 1, tokens, 1, y, NULL, &o));
    SAYS(message, "row 5");
    double probs[N] = {0.0};
    BAD(NULL_POINTER, softmax_cross_entropy_probs_axis(x, D, sizes, 3, 1, NULL, losses, NULL, NULL, NULL, NULL));
    BAD(OVERLAP, softmax_cross_entropy_probs_axis(x, D, sizes, 3, 1, y, losses, NULL, y, NULL, NULL));
    BAD(OVERLAP, softmax_cross_entropy_probs_axis(x, D, sizes, 3, 1, probs, losses, NULL, x + 1, NULL, NULL));
    BAD(AXIS, softmax_cross_entropy_probs_axis(x, D, sizes, 3, 3, probs, losses, NULL, NULL, NULL, NULL));
    size_t bytes = 7;
    watch(&bytes, sizeof bytes);
    BAD(NULL_POINTER, softmax_top_k_scratch_size(D, NULL, 3, 1, 2, &bytes, NULL));
    BAD(NULL_POINTER, softmax_top_k_scratch_size(D, sizes, 3, 1, 2, NULL, NULL));
    BAD(AXIS, softmax_top_k_scratch_size(D, sizes, 3, 3, 2, &bytes, NULL));
    BAD(DTYPE, softmax_top_k_scratch_size(SOFTMAX_BOOL, sizes, 3, 1, 2, &bytes, NULL));
    BAD(NULL_POINTER, softmax_cross_entropy_axis_scratch_size(D, NULL, 3, 1, &bytes, NULL));
    BAD(NULL_POINTER, softmax_cross_entropy_axis_scratch_size(D, sizes, 3, 1, NULL, NULL));
    BAD(AXIS, softmax_cross_entropy_axis_scratch_size(D, sizes, 3, -4, &bytes, NULL));
    BAD(DTYPE, softmax_cross_entropy_axis_scratch_size(SOFTMAX_BOOL, sizes, 3, 1, &bytes, NULL));
    BAD(NULL_POINTER, softmax_cross_entropy_labels_axis(x, D, sizes, 3, 1, NULL, losses, NULL, NULL, NULL, NULL));
    BAD(OVERLAP, softmax_cross_entropy_labels_axis(x, D, sizes, 3, 1, labels, losses, NULL, x + 1, NULL, NULL));
    labels[7] = L;
    BAD(COLUMN, softmax_cross_entropy_labels_axis(x, D, sizes, 3, 1, labels, losses, NULL, y, NULL, &o));
    SAYS(message, "row 7");
    sizes[0] = SIZE_MAX;
    BAD(OVERFLOW, softmax_logsumexp_axis(x, y, D, sizes, 3, 1, NULL));
    BAD(OVERFLOW, softmax_argmax_axis(x, indices, D, sizes, 3, 1, NULL));

    softmax_matrix m = softmax_matrix_of(x, D, LANES, L);
    softmax_matrix z = softmax_matrix_mut(y, D, LANES, L);
    unsigned char seen[N];
    memset(seen, 1, sizeof seen);
    softmax_mask mask = {sizeof mask, seen, SOFTMAX_BOOL, LANES, 0, 0};
    BAD(NULL_POINTER, softmax_softmax_masked(&m, &z, NULL, NULL));
    BAD(NULL_POINTER, softmax_softmax_masked(NULL, &z, &mask, NULL));
    BAD(NULL_POINTER, softmax_log_softmax_masked(&m, NULL, &mask, NULL));
    mask.rows = LANES - 1;
    BAD(LENGTH, softmax_softmax_masked(&m, &z, &mask, &o));
    SAYS(message, "rows of the mask");
    BAD(LENGTH, softmax_logsumexp_of(&m, &mask, NULL, 0, 0, y, NULL));
    mask.rows = LANES;
    mask.dtype = 9;
    BAD(DTYPE, softmax_log_softmax_masked(&m, &z, &mask, NULL));
    mask.dtype = SOFTMAX_BOOL;
    mask.data = NULL;
    BAD(NULL_POINTER, softmax_softmax_masked(&m, &z, &mask, NULL));
    mask.data = y;
    BAD(OVERLAP, softmax_softmax_masked(&m, &z, &mask, NULL));
    mask.data = seen;
    double weights[L] = {1.0, 1.0, 1.0, -1.0, 1.0};
    BAD(VALUE, softmax_logsumexp_of(&m, NULL, weights, D, 1, y, &o));
    SAYS(message, "weight 3");
    BAD(LENGTH, softmax_logsumexp_of(&m, NULL, weights, D, 2, y, NULL));
    BAD(DTYPE, softmax_logsumexp_of(&m, NULL, weights, SOFTMAX_F16, 1, y, NULL));
    BAD(OVERLAP, softmax_logsumexp_of(&m, NULL, y, D, 1, y, NULL));
    BAD(NULL_POINTER, softmax_logsumexp_of(&m, NULL, NULL, 0, 0, NULL, NULL));
    unwatch();
    STRUCT_SIZES(softmax_mask, mask, p, softmax_softmax_masked(&m, &z, p, NULL));
    float f[2] = {0.0f, 0.0f};
    softmax_matrix narrow = softmax_matrix_mut(f, SOFTMAX_F32, 1, 2);
    softmax_mask of_f64 = {sizeof of_f64, weights, D, 1, 0, 0};
    BAD(VALUE, softmax_softmax_masked(&narrow, &narrow, &of_f64, NULL));
}

enum { WIDE = 70, WORDS = 3, GAP = 5, ROWS_OF_BITS = 3 };

/* Bits give the bits of bools. */
static void bits(softmax_dtype dtype) {
    size_t size = size_of(dtype);
    size_t results = size_of(computed(dtype));
    static char x[ROWS_OF_BITS * WIDE * 8];
    static char want[ROWS_OF_BITS * WIDE * 8];
    static char got[ROWS_OF_BITS * WIDE * 8];
    unsigned char seen[ROWS_OF_BITS * WIDE];
    /* The gap behind the last row may be missing. */
    uint32_t words[(ROWS_OF_BITS - 1) * GAP + WORDS];
    memset(words, 0xff, sizeof words);
    fill_random(dtype, x, (size_t)ROWS_OF_BITS * WIDE, 8);
    for (size_t row = 0; row < ROWS_OF_BITS; row++) {
        for (size_t i = 0; i < WIDE; i++) {
            seen[row * WIDE + i] = (row * 5 + i * i) % 4 != 1;
            if (!seen[row * WIDE + i]) {
                words[row * GAP + i / 32] &= ~(UINT32_C(1) << i % 32);
            }
        }
    }
    softmax_matrix m = softmax_matrix_of(x, dtype, ROWS_OF_BITS, WIDE);
    softmax_matrix y = softmax_matrix_mut(want, dtype, ROWS_OF_BITS, WIDE);
    softmax_matrix z = softmax_matrix_mut(got, dtype, ROWS_OF_BITS, WIDE);
    softmax_mask bools = {sizeof bools, seen, SOFTMAX_BOOL, ROWS_OF_BITS, 0, 0};
    softmax_mask of_bits = {sizeof of_bits, words, SOFTMAX_BITS, ROWS_OF_BITS, GAP, 0};
    for (int part = 0; part < 2; part++) {
        if (part == 1) {
            /* Only the first 40 columns have bits. */
            for (size_t i = 0; i < ROWS_OF_BITS * WIDE; i++) {
                seen[i] = i % WIDE < 40 && seen[i];
            }
            of_bits.hidden_from = 40;
        }
        GOOD(softmax_softmax_masked(&m, &y, &bools, NULL));
        GOOD(softmax_softmax_masked(&m, &z, &of_bits, NULL));
        CHECK(memcmp(got, want, ROWS_OF_BITS * WIDE * size) == 0);
        GOOD(softmax_log_softmax_masked(&m, &y, &bools, NULL));
        GOOD(softmax_log_softmax_masked(&m, &z, &of_bits, NULL));
        CHECK(memcmp(got, want, ROWS_OF_BITS * WIDE * size) == 0);
        GOOD(softmax_logsumexp_of(&m, &bools, NULL, 0, 0, want, NULL));
        GOOD(softmax_logsumexp_of(&m, &of_bits, NULL, 0, 0, got, NULL));
        CHECK(memcmp(got, want, ROWS_OF_BITS * size) == 0);
        size_t tokens[2 * ROWS_OF_BITS];
        size_t again[2 * ROWS_OF_BITS];
        GOOD(softmax_top_k_masked(&m, 2, want, NULL, tokens, &bools, NULL));
        GOOD(softmax_top_k_masked(&m, 2, got, NULL, again, &of_bits, NULL));
        CHECK(memcmp(tokens, again, sizeof tokens) == 0);
        CHECK(memcmp(got, want, 2 * ROWS_OF_BITS * results) == 0);
        for (size_t i = 0; i < 2 * ROWS_OF_BITS; i++) {
            CHECK(seen[i / 2 * WIDE + tokens[i]]);
        }
        GOOD(softmax_log_probs_masked(&m, tokens, 2, got, NULL, &of_bits, NULL));
        CHECK(memcmp(got, want, 2 * ROWS_OF_BITS * results) == 0);
        softmax_sampler s = softmax_sampler_default(3);
        s.mask = &bools;
        GOOD(softmax_sample(&m, tokens, 2, &s, NULL));
        s.mask = &of_bits;
        GOOD(softmax_sample(&m, again, 2, &s, NULL));
        CHECK(memcmp(tokens, again, sizeof tokens) == 0);
        for (size_t i = 0; i < 2 * ROWS_OF_BITS; i++) {
            CHECK(seen[i / 2 * WIDE + tokens[i]]);
        }
    }
}

static void bad_bits(void) {
    float x[2 * WIDE] = {0.0f};
    float y[2 * WIDE];
    size_t indices[2];
    uint32_t words[2 * WORDS] = {1, 1, 1, 1, 1, 1};
    char message[300];
    softmax_options o = told(message, sizeof message);
    memset(y, 0xA5, sizeof y);
    memset(indices, 0xA5, sizeof indices);
    softmax_matrix m = softmax_matrix_of(x, SOFTMAX_F32, 2, WIDE);
    softmax_matrix z = softmax_matrix_mut(y, SOFTMAX_F32, 2, WIDE);
    softmax_mask mask = {sizeof mask, words, SOFTMAX_BITS, 2, 0, 0};
    softmax_sampler s = softmax_sampler_default(3);
    s.mask = &mask;
    watch(y, sizeof y);
    watch(indices, sizeof indices);
    mask.stride = 2;
    BAD(LENGTH, softmax_softmax_masked(&m, &z, &mask, &o));
    SAYS(message, "must be at least 3, got 2");
    BAD(LENGTH, softmax_sample(&m, indices, 1, &s, NULL));
    BAD(LENGTH, softmax_top_k_masked(&m, 1, y, NULL, indices, &mask, NULL));
    BAD(LENGTH, softmax_log_probs_masked(&m, indices, 0, y, NULL, &mask, NULL));
    mask.stride = SIZE_MAX;
    BAD(OVERFLOW, softmax_sample(&m, indices, 1, &s, NULL));
    mask.stride = 0;
    mask.hidden_from = WIDE + 1;
    BAD(VALUE, softmax_softmax_masked(&m, &z, &mask, &o));
    SAYS(message, "columns of the mask");
    mask.hidden_from = 0;
    mask.rows = 3;
    BAD(LENGTH, softmax_sample(&m, indices, 1, &s, NULL));
    mask.rows = 2;
    mask.data = (char *)words + 1;
    BAD(ALIGNMENT, softmax_sample(&m, indices, 1, &s, NULL));
    mask.data = NULL;
    BAD(NULL_POINTER, softmax_top_k_masked(&m, 1, y, NULL, indices, &mask, NULL));
    BAD(NULL_POINTER, softmax_top_k_masked(&m, 1, y, NULL, indices, NULL, NULL));
    BAD(NULL_POINTER, softmax_log_probs_masked(&m, indices, 0, y, NULL, NULL, NULL));
    mask.data = indices;
    mask.rows = 1;
    BAD(OVERLAP, softmax_sample(&m, indices, 1, &s, NULL));
    /* These only hide. */
    float added[WIDE] = {0.0f, 0.5f};
    softmax_mask of_f32 = {sizeof of_f32, added, SOFTMAX_F32, 1, 0, 0};
    s.mask = &of_f32;
    BAD(VALUE, softmax_sample(&m, indices, 1, &s, &o));
    SAYS(message, "0 or -inf");
    of_f32.stride = 1;
    BAD(VALUE, softmax_softmax_masked(&m, &z, &of_f32, &o));
    SAYS(message, "stride of a mask that is not of bits");
    unwatch();
    mask.data = words;
    STRUCT_SIZES(softmax_mask, mask, p, softmax_top_k_masked(&m, 1, y, NULL, indices, p, NULL));
}

int main(void) {
    for (int d = 0; d < DTYPES; d++) {
        values(dtypes[d]);
        scratch(dtypes[d]);
        bits(dtypes[d]);
    }
    bad();
    bad_bits();
    return checked();
}
