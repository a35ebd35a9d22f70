/* Rows with factors, and samplers with settings, of their own. */
#include "check.h"

enum { ROWS = 5, COLS = 33 };

/* Softmax, log-softmax, log-sum-exp and entropy of rows with factors, or of one row. */
static softmax_status run(int op, softmax_dtype dtype, void *x, void *y, size_t rows,
                          const softmax_mask *mask, uint32_t kind, const double *factors) {
    softmax_matrix in = softmax_matrix_of(x, dtype, rows, COLS);
    softmax_matrix out = softmax_matrix_mut(y, dtype, rows, COLS);
    switch (op) {
    case 0: return softmax_softmax_per_row(&in, &out, mask, kind, factors, NULL);
    case 1: return softmax_log_softmax_per_row(&in, &out, mask, kind, factors, NULL);
    case 2: return softmax_logsumexp_per_row(&in, y, mask, kind, factors, NULL);
    default: return softmax_entropy_per_row(&in, y, mask, kind, factors, NULL);
    }
}

static softmax_status run_one(int op, softmax_dtype dtype, void *x, void *y, uint32_t kind,
                              double factor) {
    softmax_options options = softmax_options_default();
    *(kind == SOFTMAX_FACTORS_SCALES ? &options.scale : &options.temperature) = factor;
    softmax_matrix in = softmax_matrix_of(x, dtype, 1, COLS);
    softmax_matrix out = softmax_matrix_mut(y, dtype, 1, COLS);
    switch (op) {
    case 0: return softmax_softmax(&in, &out, &options);
    case 1: return softmax_log_softmax(&in, &out, &options);
    case 2: return softmax_logsumexp(&in, y, &options);
    default: return softmax_entropy(&in, NULL, y, &options);
    }
}

static void values(void) {
    static const double factors[ROWS] = {1.0, 0.5, 0.5, 3.0, 0.125};
    for (int d = 0; d < DTYPES; d++) {
        softmax_dtype dtype = dtypes[d];
        size_t width = size_of(dtype);
        for (int op = 0; op < 4; op++) {
            for (uint32_t kind = 0; kind < 2; kind++) {
                double x[ROWS * COLS], y[ROWS * COLS], one[COLS];
                fill_random(dtype, x, ROWS * COLS, 7);
                size_t n = op < 2 ? COLS : 1;
                GOOD(run(op, dtype, x, y, ROWS, NULL, kind, factors));
                for (size_t i = 0; i < ROWS; i++) {
                    char *row = (char *)x + i * COLS * width;
                    GOOD(run_one(op, dtype, row, one, kind, factors[i]));
                    CHECK(memcmp((char *)y + i * n * width, one, n * width) == 0);
                }
                /* A mask that shows all; in place. */
                unsigned char seen[COLS];
                memset(seen, 1, sizeof seen);
                softmax_mask mask = {sizeof mask, seen, SOFTMAX_BOOL, 1, 0, 0};
                double masked[ROWS * COLS];
                GOOD(run(op, dtype, x, masked, ROWS, &mask, kind, factors));
                CHECK(memcmp(masked, y, ROWS * n * width) == 0);
                if (op < 2) {
                    GOOD(run(op, dtype, x, x, ROWS, NULL, kind, factors));
                    CHECK(memcmp(x, y, ROWS * n * width) == 0);
                }
            }
        }
    }
}

/* A good call, and bad ones, of a function from a matrix to a matrix or to values. */
#define GOOD_AND_BAD(f, y, out, bad_out)                                                         \
    BAD(NULL_POINTER, f(NULL, out, NULL, scales, factors, NULL));                                \
    BAD(NULL_POINTER, f(&in, NULL, NULL, scales, factors, NULL));                                \
    BAD(NULL_POINTER, f(&in, out, NULL, scales, NULL, &options));                                \
    SAYS(message, "factors is null");                                                            \
    BAD(VALUE, f(&in, out, NULL, 2, factors, &options));                                         \
    SAYS(message, "kind of factors");                                                            \
    BAD(ALIGNMENT, f(&in, out, NULL, scales, (double *)((char *)factors + 1), NULL));            \
    BAD(OVERLAP, f(&in, out, NULL, scales, y, NULL));                                            \
    BAD(OVERLAP, f(&in, bad_out, NULL, scales, factors, NULL));                                  \
    BAD(DTYPE, f(&of_no_type, out, NULL, scales, factors, NULL));                                \
    BAD(LENGTH, f(&in, out, &mask, scales, factors, NULL));                                      \
    factors[3] = -1.0;                                                                           \
    BAD(VALUE, f(&in, out, NULL, temperatures, factors, &options));                              \
    SAYS(message, "temperature 3");                                                              \
    factors[3] = 0.0;                                                                            \
    BAD(VALUE, f(&in, out, NULL, scales, factors, NULL));                                        \
    BAD(VALUE, f(&in, out, &good_mask, temperatures, factors, NULL));                            \
    factors[3] = 1.0

static void bad(void) {
    double x[ROWS * COLS], y[ROWS * COLS];
    double factors[ROWS] = {1.0, 1.0, 1.0, 1.0, 1.0};
    const uint32_t scales = SOFTMAX_FACTORS_SCALES, temperatures = SOFTMAX_FACTORS_TEMPERATURES;
    char message[200];
    softmax_options options = told(message, sizeof message);
    fill_random(SOFTMAX_F64, x, ROWS * COLS, 3);
    memset(y, 0xA5, sizeof y);
    softmax_matrix in = softmax_matrix_of(x, SOFTMAX_F64, ROWS, COLS);
    softmax_matrix out = softmax_matrix_mut(y, SOFTMAX_F64, ROWS, COLS);
    softmax_matrix over = softmax_matrix_mut(x + 1, SOFTMAX_F64, ROWS, COLS);
    softmax_matrix of_no_type = in;
    of_no_type.dtype = 77;
    unsigned char seen[2 * COLS] = {1};
    softmax_mask mask = {sizeof mask, seen, SOFTMAX_BOOL, 2, 0, 0};
    softmax_mask good_mask = {sizeof mask, seen, SOFTMAX_BOOL, 1, 0, 0};
    watch(x, sizeof x);
    watch(y, sizeof y);
    GOOD_AND_BAD(softmax_softmax_per_row, y, &out, &over);
    GOOD_AND_BAD(softmax_log_softmax_per_row, y, &out, &over);
    GOOD_AND_BAD(softmax_logsumexp_per_row, y, y, x + 1);
    GOOD_AND_BAD(softmax_entropy_per_row, y, y, x + 1);
    factors[2] = NAN;
    BAD(VALUE, softmax_softmax_per_row(&in, &in, NULL, temperatures, factors, NULL));
    BAD(VALUE, softmax_log_softmax_per_row(&in, &in, NULL, temperatures, factors, NULL));
    factors[2] = 1.0;
    /* Temperature 0 has no log-sum-exp and no entropy. */
    factors[0] = 0.0;
    BAD(VALUE, softmax_logsumexp_per_row(&in, y, NULL, temperatures, factors, NULL));
    BAD(VALUE, softmax_entropy_per_row(&in, y, NULL, temperatures, factors, NULL));
    unwatch();
    GOOD(softmax_softmax_per_row(&in, &out, NULL, temperatures, factors, NULL));
    factors[0] = 1.0;
    GOOD(softmax_log_softmax_per_row(&in, &out, NULL, scales, factors, NULL));
    GOOD(softmax_logsumexp_per_row(&in, y, NULL, scales, factors, NULL));
    GOOD(softmax_entropy_per_row(&in, y, NULL, scales, factors, NULL));
    in = softmax_matrix_of(NULL, SOFTMAX_F64, 0, COLS);
    out = softmax_matrix_mut(NULL, SOFTMAX_F64, 0, COLS);
    GOOD(softmax_softmax_per_row(&in, &out, NULL, scales, NULL, NULL));
}

static void samplers(void) {
    float x[ROWS * COLS];
    fill_random(SOFTMAX_F32, x, ROWS * COLS, 5);
    static const double temperatures[ROWS] = {1.0, 0.0, 0.5, 2.0, 2.0};
    static const size_t top_ks[ROWS] = {0, 3, 2, 5, 0};
    static const double top_ps[ROWS] = {1.0, 0.9, 0.5, 0.8, 0.99};
    static const double min_ps[ROWS] = {0.0, 0.0, 0.1, 0.0, 0.01};
    static const double typical_ps[ROWS] = {1.0, 0.9, 1.0, 1.0, 0.9};
    static const uint64_t seeds[ROWS] = {1, 2, 3, 4, 4};
    static const uint64_t steps[ROWS] = {0, 9, 8, 7, 6};
    softmax_matrix in = softmax_matrix_of(x, SOFTMAX_F32, ROWS, COLS);
    softmax_sampler all = softmax_sampler_default(99);
    all.temperatures = temperatures;
    all.top_ks = top_ks;
    all.top_ps = top_ps;
    all.min_ps = min_ps;
    all.typical_ps = typical_ps;
    all.seeds = seeds;
    all.steps = steps;
    size_t draws[ROWS * 4];
    GOOD(softmax_sample(&in, draws, 4, &all, NULL));
    for (size_t i = 0; i < ROWS; i++) {
        softmax_sampler own = softmax_sampler_default(seeds[i]);
        own.temperature = temperatures[i];
        own.top_k = top_ks[i];
        own.top_p = top_ps[i];
        own.min_p = min_ps[i];
        own.typical_p = typical_ps[i];
        own.step = steps[i];
        softmax_matrix row = softmax_matrix_of(x + i * COLS, SOFTMAX_F32, 1, COLS);
        size_t want[4];
        GOOD(softmax_sample(&row, want, 4, &own, NULL));
        CHECK(memcmp(draws + 4 * i, want, sizeof want) == 0);
    }
    char message[200];
    softmax_options options = told(message, sizeof message);
    watch(draws, sizeof draws);
    double wrong[ROWS] = {1.0, 1.0, 2.0, 1.0, 1.0};
    all.top_ps = wrong;
    BAD(VALUE, softmax_sample(&in, draws, 4, &all, &options));
    SAYS(message, "top-p 2");
    all.top_ps = (const double *)((const char *)wrong + 1);
    BAD(ALIGNMENT, softmax_sample(&in, draws, 4, &all, &options));
    all.top_ps = NULL;
    all.seeds = (const uint64_t *)draws;
    BAD(OVERLAP, softmax_sample(&in, draws, 4, &all, &options));
    unwatch();
    softmax_sampler sizes = softmax_sampler_default(1);
    sizes.temperatures = temperatures;
    STRUCT_SIZES(softmax_sampler, sizes, p, softmax_sample(&in, draws, 4, p, NULL));
}

int main(void) {
    values();
    bad();
    samplers();
    return checked();
}
