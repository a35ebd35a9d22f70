/* Decisions and log-probabilities: argmax, top-k, the log-probabilities of tokens, perplexity. */
#include "check.h"

enum { ROWS = 3, COLS = 7 };

/* Rows with ties, in every dtype. */
static const double rows_of[ROWS][COLS] = {{1.0, 4.0, 4.0, -2.0, 0.5, 4.0, 3.0},
                                           {-1.0, -1.0, -1.0, -1.0, -1.0, -1.0, -1.0},
                                           {0.0, 0.25, 0.5, 0.75, 1.0, 1.25, 1.5}};

static softmax_matrix matrix_in(softmax_dtype dtype, void *place) {
    memset(place, 0, ROWS * COLS * 8);
    for (size_t i = 0; i < ROWS * COLS; i++) {
        put(dtype, place, i, rows_of[i / COLS][i % COLS]);
    }
    return softmax_matrix_of(place, dtype, ROWS, COLS);
}

static long double lse_of(size_t row) {
    long double sum = 0.0L;
    for (size_t j = 0; j < COLS; j++) {
        sum += expl(rows_of[row][j]);
    }
    return logl(sum);
}

static void values(void) {
    for (int d = 0; d < DTYPES; d++) {
        softmax_dtype dtype = dtypes[d];
        softmax_dtype wide = computed(dtype);
        double slack = wide == SOFTMAX_F64 ? 3e-16 : 1e-7;
        char place[ROWS * COLS * 8];
        softmax_matrix x = matrix_in(dtype, place);

        size_t largest[ROWS];
        GOOD(softmax_argmax(&x, largest, NULL));
        CHECK(largest[0] == 1 && largest[1] == 0 && largest[2] == 6);

        size_t best[ROWS * 4];
        double best_log_probs[ROWS * 4 + 1];
        static const size_t wanted[ROWS * 4] = {1, 2, 5, 6, 0, 1, 2, 3, 6, 5, 4, 3};
        memset(best_log_probs, 0xA5, sizeof best_log_probs);
        GOOD(softmax_top_k(&x, 4, best_log_probs, NULL, best, NULL));
        for (size_t i = 0; i < ROWS * 4; i++) {
            CHECK(best[i] == wanted[i]);
            CHECK(near(wide, get(wide, best_log_probs, i),
                       rows_of[i / 4][wanted[i]] - lse_of(i / 4), 3.0, slack));
        }
        CHECK(((unsigned char *)best_log_probs)[ROWS * 4 * size_of(wide)] == 0xA5);

        /* Each output alone, and both: the same. */
        double logs[ROWS * 4], best_probs[ROWS * 4], probs[ROWS * 4 + 1];
        size_t again[ROWS * 4];
        memset(probs, 0xA5, sizeof probs);
        memset(again, 0xA5, sizeof again);
        GOOD(softmax_top_k(&x, 4, logs, best_probs, again, NULL));
        CHECK(memcmp(again, best, sizeof best) == 0);
        CHECK(memcmp(logs, best_log_probs, ROWS * 4 * size_of(wide)) == 0);
        memset(again, 0xA5, sizeof again);
        GOOD(softmax_top_k(&x, 4, NULL, probs, again, NULL));
        CHECK(memcmp(again, best, sizeof best) == 0);
        CHECK(memcmp(probs, best_probs, ROWS * 4 * size_of(wide)) == 0);
        CHECK(((unsigned char *)probs)[ROWS * 4 * size_of(wide)] == 0xA5);
        for (size_t i = 0; i < ROWS * 4; i++)
            CHECK(near(wide, get(wide, probs, i), expl(rows_of[i / 4][wanted[i]] - lse_of(i / 4)), 3.0, 0.0));
        memset(again, 0xA5, sizeof again);
        GOOD(softmax_top_k(&x, 4, NULL, NULL, again, NULL));
        CHECK(memcmp(again, best, sizeof best) == 0);

        static const size_t tokens[ROWS * 2] = {3, 1, 6, 6, 0, 5};
        double log_probs[ROWS * 2 + 1];
        double lse[ROWS + 1];
        memset(log_probs, 0xA5, sizeof log_probs);
        memset(lse, 0xA5, sizeof lse);
        GOOD(softmax_log_probs(&x, tokens, 2, log_probs, lse, NULL));
        for (size_t i = 0; i < ROWS * 2; i++) {
            CHECK(near(wide, get(wide, log_probs, i), rows_of[i / 2][tokens[i]] - lse_of(i / 2),
                       3.0, slack));
            CHECK(near(wide, get(wide, lse, i / 2), lse_of(i / 2), 3.0, slack));
        }
        CHECK(((unsigned char *)log_probs)[ROWS * 2 * size_of(wide)] == 0xA5);
        CHECK(((unsigned char *)lse)[ROWS * size_of(wide)] == 0xA5);
        double without[ROWS * 2];
        GOOD(softmax_log_probs(&x, tokens, 2, without, NULL, NULL));
        CHECK(memcmp(without, log_probs, ROWS * 2 * size_of(wide)) == 0);

        double perplexity = 0.0;
        char numbers[4 * 8];
        for (size_t i = 0; i < 4; i++) {
            put(dtype, numbers, i, -1.0 - (double)i / 2.0);
        }
        GOOD(softmax_perplexity(numbers, dtype, 4, &perplexity));
        CHECK(near(SOFTMAX_F64, perplexity, expl(1.75L), 4.0, 0.0));
    }

    double perplexity = 0.0;
    GOOD(softmax_perplexity(NULL, SOFTMAX_F32, 0, &perplexity));
    CHECK(perplexity != perplexity);

    /* The first NaN is the largest. */
    float odd[4] = {1.0f, NAN, 9.0f, NAN};
    softmax_matrix x = softmax_matrix_of(odd, SOFTMAX_F32, 1, 4);
    size_t index = 99;
    GOOD(softmax_argmax(&x, &index, NULL));
    CHECK(index == 1);

    /* None of nothing. */
    softmax_matrix none = softmax_matrix_of(NULL, SOFTMAX_F32, 0, 4);
    GOOD(softmax_argmax(&none, NULL, NULL));
    GOOD(softmax_top_k(&none, 2, NULL, NULL, NULL, NULL));
    GOOD(softmax_log_probs(&none, NULL, 2, NULL, NULL, NULL));
    GOOD(softmax_top_k(&x, 0, NULL, NULL, NULL, NULL));
    GOOD(softmax_log_probs(&x, NULL, 0, NULL, NULL, NULL));
}

static void bad_argmax(void) {
    char place[ROWS * COLS * 8];
    char message[200];
    softmax_options options = told(message, sizeof message);
    softmax_matrix x = matrix_in(SOFTMAX_F64, place);
    size_t indices[ROWS + 1];
    memset(indices, 0xA5, sizeof indices);
    watch(indices, sizeof indices);
    watch(place, sizeof place);
    BAD(NULL_POINTER, softmax_argmax(NULL, indices, NULL));
    BAD(NULL_POINTER, softmax_argmax(&x, NULL, &options));
    SAYS(message, "indices is null");
    BAD(ALIGNMENT, softmax_argmax(&x, (size_t *)(void *)((char *)indices + 1), NULL));
    BAD(OVERLAP, softmax_argmax(&x, (size_t *)(void *)place, NULL));
    softmax_matrix bad = x;
    bad.dtype = SOFTMAX_BOOL;
    BAD(DTYPE, softmax_argmax(&bad, indices, NULL));
    bad = x;
    bad.data = NULL;
    BAD(NULL_POINTER, softmax_argmax(&bad, indices, NULL));
    bad = x;
    bad.stride = 1;
    BAD(STRIDE, softmax_argmax(&bad, indices, NULL));
    bad = x;
    bad.rows = SIZE_MAX;
    BAD(OVERFLOW, softmax_argmax(&bad, indices, NULL));
    /* A row of nothing has no largest element. */
    bad = softmax_matrix_of(NULL, SOFTMAX_F32, 2, 0);
    BAD(VALUE, softmax_argmax(&bad, indices, &options));
    SAYS(message, "columns");
    unwatch();
    STRUCT_SIZES(softmax_matrix, x, p, softmax_argmax(p, indices, NULL));
}

static void bad_top_k(void) {
    char place[ROWS * COLS * 8];
    char message[200];
    softmax_options options = told(message, sizeof message);
    softmax_matrix x = matrix_in(SOFTMAX_F32, place);
    size_t indices[ROWS * COLS];
    float log_probs[ROWS * COLS];
    memset(indices, 0xA5, sizeof indices);
    memset(log_probs, 0xA5, sizeof log_probs);
    watch(indices, sizeof indices);
    watch(log_probs, sizeof log_probs);
    watch(place, sizeof place);
    BAD(NULL_POINTER, softmax_top_k(NULL, 2, log_probs, NULL, indices, NULL));
    BAD(NULL_POINTER, softmax_top_k(&x, 2, log_probs, NULL, NULL, &options));
    SAYS(message, "indices is null");
    BAD(ALIGNMENT, softmax_top_k(&x, 2, log_probs, NULL, (size_t *)(void *)((char *)indices + 4), NULL));
    BAD(ALIGNMENT, softmax_top_k(&x, 2, (char *)log_probs + 2, NULL, indices, NULL));
    BAD(OVERLAP, softmax_top_k(&x, 2, indices, NULL, indices, &options));
    SAYS(message, "log_probs overlaps indices");
    BAD(OVERLAP, softmax_top_k(&x, 2, place, NULL, indices, NULL));
    BAD(OVERFLOW, softmax_top_k(&x, SIZE_MAX, log_probs, NULL, indices, NULL));
    BAD(OVERFLOW, softmax_top_k(&x, SIZE_MAX / ROWS, log_probs, NULL, indices, &options));
    SAYS(message, "overflows");
    softmax_matrix bad = x;
    bad.dtype = 9;
    BAD(DTYPE, softmax_top_k(&bad, 2, log_probs, NULL, indices, NULL));
    bad = x;
    bad.stride = COLS - 1;
    BAD(STRIDE, softmax_top_k(&bad, 2, log_probs, NULL, indices, NULL));
    bad = x;
    bad.data = NULL;
    BAD(NULL_POINTER, softmax_top_k(&bad, 2, log_probs, NULL, indices, NULL));
    unwatch();
    STRUCT_SIZES(softmax_matrix, x, p, softmax_top_k(p, 2, log_probs, NULL, indices, NULL));
    /* More than there are is an error, of which nothing is written. */
    watch(indices, sizeof indices);
    watch(log_probs, sizeof log_probs);
    BAD(VALUE, softmax_top_k(&x, COLS + 1, log_probs, NULL, indices, &options));
    SAYS(message, "got 8");
    unwatch();
}

static void bad_log_probs(void) {
    char place[ROWS * COLS * 8];
    char message[200];
    softmax_options options = told(message, sizeof message);
    softmax_matrix x = matrix_in(SOFTMAX_F16, place);
    size_t tokens[ROWS] = {0, 1, 2};
    float log_probs[ROWS + 1];
    float lse[ROWS + 1];
    memset(log_probs, 0xA5, sizeof log_probs);
    memset(lse, 0xA5, sizeof lse);
    watch(log_probs, sizeof log_probs);
    watch(lse, sizeof lse);
    watch(place, sizeof place);
    watch(tokens, sizeof tokens);
    BAD(NULL_POINTER, softmax_log_probs(NULL, tokens, 1, log_probs, lse, NULL));
    BAD(NULL_POINTER, softmax_log_probs(&x, NULL, 1, log_probs, lse, &options));
    SAYS(message, "tokens is null");
    BAD(NULL_POINTER, softmax_log_probs(&x, tokens, 1, NULL, lse, NULL));
    BAD(NULL_POINTER, softmax_log_probs(&x, tokens, 1, NULL, NULL, NULL));
    BAD(ALIGNMENT, softmax_log_probs(&x, (size_t *)(void *)((char *)tokens + 4), 1, log_probs, lse, NULL));
    BAD(ALIGNMENT, softmax_log_probs(&x, tokens, 1, (char *)log_probs + 1, lse, NULL));
    BAD(ALIGNMENT, softmax_log_probs(&x, tokens, 1, log_probs, (char *)lse + 2, NULL));
    BAD(OVERLAP, softmax_log_probs(&x, tokens, 1, log_probs, log_probs, NULL));
    BAD(OVERLAP, softmax_log_probs(&x, tokens, 1, place, lse, NULL));
    BAD(OVERLAP, softmax_log_probs(&x, tokens, 1, tokens, lse, &options));
    SAYS(message, "log_probs overlaps tokens");
    BAD(OVERLAP, softmax_log_probs(&x, tokens, 1, log_probs, &tokens[1], NULL));
    BAD(OVERFLOW, softmax_log_probs(&x, tokens, SIZE_MAX, log_probs, lse, NULL));
    BAD(OVERFLOW, softmax_log_probs(&x, tokens, SIZE_MAX / ROWS, log_probs, lse, NULL));
    tokens[1] = COLS;
    BAD(COLUMN, softmax_log_probs(&x, tokens, 1, log_probs, lse, &options));
    SAYS(message, "row 1: 7 is not one of its 7 columns");
    tokens[1] = SIZE_MAX;
    BAD(COLUMN, softmax_log_probs(&x, tokens, 1, log_probs, NULL, NULL));
    tokens[1] = 1;
    softmax_matrix bad = x;
    bad.dtype = SOFTMAX_BOOL;
    BAD(DTYPE, softmax_log_probs(&bad, tokens, 1, log_probs, lse, NULL));
    bad = x;
    bad.data = place + 1;
    BAD(ALIGNMENT, softmax_log_probs(&bad, tokens, 1, log_probs, lse, NULL));
    unwatch();
    STRUCT_SIZES(softmax_matrix, x, p, softmax_log_probs(p, tokens, 1, log_probs, lse, NULL));
}

static void bad_perplexity(void) {
    double log_probs[2] = {-1.0, -2.0};
    double perplexity = 7.0;
    watch(&perplexity, sizeof perplexity);
    BAD(NULL_POINTER, softmax_perplexity(NULL, SOFTMAX_F64, 2, &perplexity));
    BAD(NULL_POINTER, softmax_perplexity(log_probs, SOFTMAX_F64, 2, NULL));
    BAD(DTYPE, softmax_perplexity(log_probs, SOFTMAX_BOOL, 2, &perplexity));
    BAD(DTYPE, softmax_perplexity(log_probs, 1234, 2, &perplexity));
    BAD(ALIGNMENT, softmax_perplexity((char *)log_probs + 4, SOFTMAX_F64, 1, &perplexity));
    BAD(ALIGNMENT, softmax_perplexity(log_probs, SOFTMAX_F64, 2,
                                      (double *)(void *)((char *)&perplexity + 1)));
    BAD(OVERFLOW, softmax_perplexity(log_probs, SOFTMAX_F64, SIZE_MAX, &perplexity));
    BAD(OVERFLOW, softmax_perplexity(log_probs, SOFTMAX_F64, SIZE_MAX / 8, &perplexity));
    unwatch();
}

int main(void) {
    values();
    bad_argmax();
    bad_top_k();
    bad_log_probs();
    bad_perplexity();
    return checked();
}
