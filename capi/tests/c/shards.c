/* One row in shards. */
#include "check.h"

enum { BLOCKS = 5, N = 4 * SOFTMAX_BLOCK + 1000 };

/* Cut in two at each block, the shards have the bits of the whole row. */
static void same_bits(softmax_dtype dtype, double shift, double scale, int again_wanted) {
    size_t size = size_of(dtype);
    char *x = (char *)memory(N * size);
    char *y = (char *)memory(N * size);
    char *log = (char *)memory(N * size);
    char *wanted = (char *)memory(N * size);
    char *wanted_log = (char *)memory(N * size);
    char lse[8];
    char wanted_lse[8];
    fill_random(dtype, x, N, 31);
    for (size_t i = 0; i < N && shift != 0.0; i++) {
        put(dtype, x, i, get(dtype, x, i) + shift);
    }
    softmax_options options = softmax_options_default();
    options.scale = scale;
    softmax_matrix in = softmax_matrix_of(x, dtype, 1, N);
    softmax_matrix out = softmax_matrix_mut(wanted, dtype, 1, N);
    softmax_matrix out_log = softmax_matrix_mut(wanted_log, dtype, 1, N);
    GOOD(softmax_softmax(&in, &out, &options));
    GOOD(softmax_log_softmax(&in, &out_log, &options));
    GOOD(softmax_logsumexp(&in, wanted_lse, &options));
    for (size_t cut = 0; cut <= 4; cut++) {
        size_t lens[2] = {cut * SOFTMAX_BLOCK, N - cut * SOFTMAX_BLOCK};
        softmax_partial partials[BLOCKS];
        softmax_partial row;
        double max = 0.0;
        const double *row_max = NULL;
        softmax_status status = SOFTMAX_STATUS_OK;
        for (int round = 0; round < 2; round++) {
            size_t first = 0;
            size_t start = 0;
            for (int shard = 0; shard < 2; shard++) {
                size_t count = 99;
                GOOD(softmax_partial_count(lens[shard], &count));
                GOOD(softmax_partials(x + start * size, dtype, lens[shard], row_max, partials + first,
                                      count, &options));
                first += count;
                start += lens[shard];
            }
            CHECK(first == BLOCKS);
            memset(&row, 0xA5, sizeof row);
            status = softmax_merge(partials, BLOCKS, &row, &max, dtype, &options);
            if (status != SOFTMAX_STATUS_AGAIN) {
                break;
            }
            CHECK(round == 0);
            CHECK(((unsigned char *)&row)[0] == 0xA5);
            row_max = &max;
        }
        CHECK(status == SOFTMAX_STATUS_OK);
        CHECK((row_max != NULL) == again_wanted);
        size_t start = 0;
        for (int shard = 0; shard < 2; shard++) {
            size_t at = start * size;
            GOOD(softmax_shard_softmax(&row, x + at, y + at, dtype, lens[shard], &options));
            GOOD(softmax_shard_log_softmax(&row, x + at, log + at, dtype, lens[shard], &options));
            start += lens[shard];
        }
        CHECK(memcmp(y, wanted, N * size) == 0);
        CHECK(memcmp(log, wanted_log, N * size) == 0);
        GOOD(softmax_shard_logsumexp(&row, lse, dtype, &options));
        CHECK(memcmp(lse, wanted_lse, size) == 0);
        memcpy(y, x, N * size);
        memcpy(log, x, N * size);
        GOOD(softmax_shard_softmax(&row, y, y, dtype, N, &options));
        GOOD(softmax_shard_log_softmax(&row, log, log, dtype, N, &options));
        CHECK(memcmp(y, wanted, N * size) == 0);
        CHECK(memcmp(log, wanted_log, N * size) == 0);
    }
    free(x);
    free(y);
    free(log);
    free(wanted);
    free(wanted_log);
}

static void counts(void) {
    static const size_t lens[][2] = {{0, 0}, {1, 1}, {4096, 1}, {4097, 2}, {8192, 2},
                                     {SIZE_MAX, SIZE_MAX / SOFTMAX_BLOCK + 1}};
    size_t count = 0;
    for (size_t i = 0; i < sizeof lens / sizeof *lens; i++) {
        GOOD(softmax_partial_count(lens[i][0], &count));
        CHECK(count == lens[i][1]);
    }
    char place[16] = {0};
    watch(place, sizeof place);
    BAD(NULL_POINTER, softmax_partial_count(1, NULL));
    BAD(ALIGNMENT, softmax_partial_count(1, (size_t *)(void *)(place + 1)));
    unwatch();
}

static void nothing(void) {
    softmax_partial row;
    double max = 0.0;
    double lse = 0.0;
    GOOD(softmax_partials(NULL, SOFTMAX_F64, 0, NULL, NULL, 0, NULL));
    GOOD(softmax_merge(NULL, 0, &row, &max, SOFTMAX_F64, NULL));
    GOOD(softmax_shard_logsumexp(&row, &lse, SOFTMAX_F64, NULL));
    CHECK(lse == -INFINITY);
    GOOD(softmax_shard_softmax(&row, NULL, NULL, SOFTMAX_F64, 0, NULL));
    GOOD(softmax_shard_log_softmax(&row, NULL, NULL, SOFTMAX_F64, 0, NULL));
}

static void bad(void) {
    double x[9];
    double y[9];
    char message[200];
    softmax_options options = told(message, sizeof message);
    fill_random(SOFTMAX_F64, x, 9, 8);
    memset(y, 0xA5, sizeof y);
    softmax_partial partials[2];
    memset(partials, 0xA5, sizeof partials);
    double max = 0.0;
    watch(x, sizeof x);
    watch(y, sizeof y);
    watch(partials, sizeof partials);
    watch(&max, sizeof max);
    BAD(NULL_POINTER, softmax_partials(NULL, SOFTMAX_F64, 8, NULL, partials, 1, &options));
    SAYS(message, "input is null");
    BAD(NULL_POINTER, softmax_partials(x, SOFTMAX_F64, 8, NULL, NULL, 1, &options));
    SAYS(message, "partials is null");
    BAD(LENGTH, softmax_partials(x, SOFTMAX_F64, 8, NULL, partials, 0, NULL));
    BAD(LENGTH, softmax_partials(x, SOFTMAX_F64, 8, NULL, partials, 2, &options));
    SAYS(message, "must be 1, got 2");
    BAD(DTYPE, softmax_partials(x, SOFTMAX_BOOL, 8, NULL, partials, 1, NULL));
    BAD(ALIGNMENT, softmax_partials((char *)x + 1, SOFTMAX_F64, 8, NULL, partials, 1, NULL));
    BAD(ALIGNMENT, softmax_partials(x, SOFTMAX_F64, 8, NULL,
                                    (softmax_partial *)(void *)((char *)partials + 4), 1, NULL));
    BAD(ALIGNMENT, softmax_partials(x, SOFTMAX_F64, 8, (double *)(void *)((char *)y + 1), partials, 1, NULL));
    BAD(OVERLAP, softmax_partials(x, SOFTMAX_F64, 8, NULL, (softmax_partial *)(void *)&x[4], 1, &options));
    SAYS(message, "partials overlaps input");
    BAD(OVERLAP, softmax_partials(x, SOFTMAX_F64, 8, &partials[0].sum, partials, 1, NULL));
    BAD(OVERFLOW, softmax_partials(x, SOFTMAX_F64, SIZE_MAX, NULL, partials, 1, NULL));
    BAD(OVERFLOW, softmax_partials(x, SOFTMAX_F64, 8, NULL, partials, SIZE_MAX, NULL));
    static const double maxima[] = {NAN, INFINITY, -INFINITY};
    for (size_t i = 0; i < 3; i++) {
        BAD(VALUE, softmax_partials(x, SOFTMAX_F64, 8, &maxima[i], partials, 1, &options));
        SAYS(message, "largest element");
    }
    unwatch();

    GOOD(softmax_partials(x, SOFTMAX_F64, 8, NULL, partials, 1, NULL));
    softmax_partial row;
    memset(&row, 0xA5, sizeof row);
    watch(&row, sizeof row);
    watch(&max, sizeof max);
    watch(partials, sizeof partials);
    BAD(NULL_POINTER, softmax_merge(NULL, 1, &row, &max, SOFTMAX_F64, &options));
    SAYS(message, "partials is null");
    BAD(NULL_POINTER, softmax_merge(partials, 1, NULL, &max, SOFTMAX_F64, &options));
    SAYS(message, "row is null");
    BAD(NULL_POINTER, softmax_merge(partials, 1, &row, NULL, SOFTMAX_F64, &options));
    SAYS(message, "row_max is null");
    BAD(DTYPE, softmax_merge(partials, 1, &row, &max, 4, NULL));
    BAD(ALIGNMENT, softmax_merge((softmax_partial *)(void *)((char *)partials + 1), 1, &row, &max, SOFTMAX_F64, NULL));
    BAD(ALIGNMENT, softmax_merge(partials, 1, (softmax_partial *)(void *)((char *)y + 1), &max, SOFTMAX_F64, NULL));
    BAD(ALIGNMENT, softmax_merge(partials, 1, &row, (double *)(void *)((char *)y + 1), SOFTMAX_F64, NULL));
    BAD(OVERLAP, softmax_merge(partials, 1, partials, &max, SOFTMAX_F64, NULL));
    BAD(OVERLAP, softmax_merge(partials, 1, &row, &row.sum, SOFTMAX_F64, NULL));
    BAD(OVERLAP, softmax_merge(partials, 1, &row, &partials[0].max, SOFTMAX_F64, NULL));
    BAD(OVERFLOW, softmax_merge(partials, SIZE_MAX, &row, &max, SOFTMAX_F64, NULL));
    options.temperature = 0.0;
    BAD(VALUE, softmax_merge(partials, 1, &row, &max, SOFTMAX_F64, &options));
    options.temperature = 1.0;
    unwatch();

    /* The partials of a row beyond what its blocks are summed by at first. */
    double far[2] = {1e6, 1e6};
    softmax_partial far_partial;
    GOOD(softmax_partials(far, SOFTMAX_F64, 2, NULL, &far_partial, 1, NULL));
    memset(&row, 0xA5, sizeof row);
    watch(&row, sizeof row);
    BAD(AGAIN, softmax_merge(&far_partial, 1, &row, &max, SOFTMAX_F64, &options));
    CHECK(max == 1e6);
    SAYS(message, "1000000");
    BAD(NULL_POINTER, softmax_merge(&far_partial, 1, &row, NULL, SOFTMAX_F64, NULL));
    unwatch();

    GOOD(softmax_merge(partials, 1, &row, &max, SOFTMAX_F64, NULL));
    typedef softmax_status (*finish)(const softmax_partial *row, const void *x, void *y,
                                     softmax_dtype dtype, size_t len,
                                     const softmax_options *options);
    static const finish ways[2] = {softmax_shard_softmax, softmax_shard_log_softmax};
    watch(x, sizeof x);
    watch(y, sizeof y);
    watch(&row, sizeof row);
    for (int i = 0; i < 2; i++) {
        finish f = ways[i];
        BAD(NULL_POINTER, f(&row, NULL, y, SOFTMAX_F64, 8, &options));
        SAYS(message, "input is null");
        BAD(NULL_POINTER, f(&row, x, NULL, SOFTMAX_F64, 8, &options));
        SAYS(message, "output is null");
        BAD(NULL_POINTER, f(&row, NULL, NULL, SOFTMAX_F64, 8, NULL));
        BAD(NULL_POINTER, f(NULL, x, y, SOFTMAX_F64, 8, &options));
        SAYS(message, "row is null");
        BAD(DTYPE, f(&row, x, y, 17, 8, NULL));
        BAD(ALIGNMENT, f(&row, (char *)x + 1, y, SOFTMAX_F64, 8, NULL));
        BAD(ALIGNMENT, f(&row, x, (char *)y + 4, SOFTMAX_F64, 8, NULL));
        BAD(ALIGNMENT, f((softmax_partial *)(void *)((char *)x + 4), x, y, SOFTMAX_F64, 8, NULL));
        BAD(OVERLAP, f(&row, x, x + 1, SOFTMAX_F64, 8, NULL));
        BAD(OVERLAP, f(&row, x, &row, SOFTMAX_F64, 4, NULL));
        BAD(OVERFLOW, f(&row, x, y, SOFTMAX_F64, SIZE_MAX, NULL));
        BAD(OVERFLOW, f(&row, x, x, SOFTMAX_F64, SIZE_MAX / 8, NULL));
    }
    BAD(NULL_POINTER, softmax_shard_softmax(NULL, x, y, SOFTMAX_F64, 8, NULL));
    BAD(NULL_POINTER, softmax_shard_log_softmax(NULL, x, y, SOFTMAX_F64, 8, NULL));
    BAD(NULL_POINTER, softmax_shard_logsumexp(NULL, y, SOFTMAX_F64, NULL));
    BAD(NULL_POINTER, softmax_shard_logsumexp(&row, NULL, SOFTMAX_F64, &options));
    SAYS(message, "logsumexp is null");
    BAD(DTYPE, softmax_shard_logsumexp(&row, y, SOFTMAX_BOOL, NULL));
    BAD(ALIGNMENT, softmax_shard_logsumexp(&row, (char *)y + 4, SOFTMAX_F64, NULL));
    /* What is no row that was merged. */
    BAD(AGAIN, softmax_shard_softmax(&far_partial, x, y, SOFTMAX_F64, 8, NULL));
    BAD(AGAIN, softmax_shard_logsumexp(&far_partial, y, SOFTMAX_F64, NULL));
    unwatch();
    STRUCT_SIZES(softmax_options, options, p, softmax_merge(partials, 1, &row, &max, SOFTMAX_F64, p));
}

int main(void) {
    for (int d = 0; d < DTYPES; d++) {
        same_bits(dtypes[d], 0.0, 1.0, 0);
        same_bits(dtypes[d], 0.0, 0.375, 0);
    }
    same_bits(SOFTMAX_F32, 65536.0, 1.0, 1);
    same_bits(SOFTMAX_F64, -65536.0, 1.0, 1);
    same_bits(SOFTMAX_BF16, 0.0, 1048576.0, 1);
    counts();
    nothing();
    bad();
    return checked();
}
