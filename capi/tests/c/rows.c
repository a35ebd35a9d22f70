/* Maps of rows and their log-sum-exp. */
#include "check.h"

typedef softmax_status (*map)(const softmax_matrix *x, const softmax_matrix *y,
                              const softmax_options *options);

static softmax_status hardmax_share(const softmax_matrix *x, const softmax_matrix *y,
                                    const softmax_options *options) {
    return softmax_hardmax(x, y, SOFTMAX_TIES_SHARE, options);
}

static const map maps[] = {softmax_softmax, softmax_log_softmax, softmax_sigmoid,
                           softmax_log_sigmoid, hardmax_share};
enum { MAPS = 5 };

/* The plain definitions, row by row. */
static void reference(int which, const long double *x, long double *y, size_t cols) {
    long double max = -INFINITY;
    long double sum = 0.0L;
    size_t equals = 0;
    for (size_t j = 0; j < cols; j++) {
        max = x[j] > max ? x[j] : max;
    }
    for (size_t j = 0; j < cols; j++) {
        sum += expl(x[j] - max);
        equals += x[j] == max;
    }
    for (size_t j = 0; j < cols; j++) {
        switch (which) {
        case 0:
            y[j] = expl(x[j] - max) / sum;
            break;
        case 1:
            y[j] = x[j] - max - logl(sum);
            break;
        case 2:
            y[j] = 1.0L / (1.0L + expl(-x[j]));
            break;
        case 3:
            y[j] = x[j] < 0.0L ? x[j] - log1pl(expl(x[j])) : -log1pl(expl(-x[j]));
            break;
        default:
            y[j] = x[j] == max ? 1.0L / (long double)equals : 0.0L;
        }
    }
}

/* The bounds that the header gives; those of f16 and bf16 are rounded once. */
static int is_near(int which, softmax_dtype dtype, double got, long double wanted) {
    int half = dtype == SOFTMAX_F16 || dtype == SOFTMAX_BF16;
    int log = which == 1 || which == 3;
    double slack = !log || half ? 0.0 : dtype == SOFTMAX_F32 ? 1e-7 : 3e-16;
    return near(dtype, got, wanted, dtype == SOFTMAX_F16 ? 0.53 : half ? 0.51 : 3.0, slack);
}

/* All maps, dtypes and some shapes, with gaps between the rows, in place and not. */
static void values(void) {
    static const size_t shapes[][2] = {{1, 1}, {3, 5}, {40, 10}, {7, 33}, {2, 5000}, {1, 20000}};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        size_t rows = shapes[s][0];
        size_t cols = shapes[s][1];
        size_t stride = cols + 3;
        long double *wide = (long double *)memory(cols * sizeof *wide);
        long double *wanted = (long double *)memory(cols * sizeof *wanted);
        for (int d = 0; d < DTYPES; d++) {
            softmax_dtype dtype = dtypes[d];
            /* Behind the last row there is nothing. */
            size_t bytes = ((rows - 1) * stride + cols) * size_of(dtype);
            void *input = memory(bytes);
            void *before = memory(bytes);
            void *output = memory(bytes);
            void *lse = memory(rows * size_of(dtype));
            fill_random(dtype, input, bytes / size_of(dtype), 17);
            memcpy(before, input, bytes);
            softmax_matrix x = softmax_matrix_of(input, dtype, rows, cols);
            softmax_matrix y = softmax_matrix_mut(output, dtype, rows, cols);
            x.stride = stride;
            y.stride = stride;
            for (int which = 0; which < MAPS; which++) {
                memset(output, 0xA5, bytes);
                GOOD(maps[which](&x, &y, NULL));
                CHECK(memcmp(input, before, bytes) == 0);
                for (size_t i = 0; i < rows; i++) {
                    size_t start = i * stride;
                    for (size_t j = 0; j < cols; j++) {
                        wide[j] = get(dtype, input, start + j);
                    }
                    reference(which, wide, wanted, cols);
                    for (size_t j = 0; j < cols; j++) {
                        if (!is_near(which, dtype, get(dtype, output, start + j), wanted[j])) {
                            fail(__FILE__, __LINE__, "a wrong value");
                            fprintf(stderr,
                                    "    map %d, dtype %d, %d columns, row %d, column %d: %.17g, not %.17Lg\n",
                                    which, (int)dtype, (int)cols, (int)i, (int)j,
                                    get(dtype, output, start + j), wanted[j]);
                        }
                    }
                    const unsigned char *gap =
                        (const unsigned char *)output + (start + cols) * size_of(dtype);
                    for (size_t k = 0; i + 1 < rows && k < 3 * size_of(dtype); k++) {
                        CHECK(gap[k] == 0xA5);
                    }
                }
                /* In place: the same bits, and the gaps are those of the input. */
                GOOD(maps[which](&x, &x, NULL));
                for (size_t i = 0; i < rows; i++) {
                    unsigned char *row = (unsigned char *)output + i * stride * size_of(dtype);
                    size_t at = i * stride * size_of(dtype);
                    CHECK(memcmp((unsigned char *)input + at, row, cols * size_of(dtype)) == 0);
                    if (i + 1 < rows) {
                        size_t gap = at + cols * size_of(dtype);
                        CHECK(memcmp((unsigned char *)input + gap, (unsigned char *)before + gap,
                                     3 * size_of(dtype)) == 0);
                    }
                }
                memcpy(input, before, bytes);
            }
            GOOD(softmax_logsumexp(&x, lse, NULL));
            for (size_t i = 0; i < rows; i++) {
                long double sum = 0.0L;
                for (size_t j = 0; j < cols; j++) {
                    sum += expl(get(dtype, input, i * stride + j));
                }
                CHECK(is_near(1, dtype, get(dtype, lse, i), logl(sum)));
            }
            free(input);
            free(before);
            free(output);
            free(lse);
        }
        free(wide);
        free(wanted);
    }
}

/* What is exact. */
static void facts(void) {
    for (int d = 0; d < DTYPES; d++) {
        softmax_dtype dtype = dtypes[d];
        for (size_t n = 1; n <= 8192; n *= 2) {
            void *x = memory(n * size_of(dtype));
            void *y = memory(n * size_of(dtype));
            for (size_t i = 0; i < n; i++) {
                put(dtype, x, i, 2.5);
            }
            softmax_matrix in = softmax_matrix_of(x, dtype, 1, n);
            softmax_matrix out = softmax_matrix_mut(y, dtype, 1, n);
            GOOD(softmax_softmax(&in, &out, NULL));
            for (size_t i = 0; i < n; i++) {
                CHECK(get(dtype, y, i) == 1.0 / (double)n);
            }
            free(x);
            free(y);
        }
    }
    /* Masked entries, a masked row, infinity and NaN. */
    float x[4][3] = {{0.0f, -INFINITY, 0.0f},
                     {-INFINITY, -INFINITY, -INFINITY},
                     {0.0f, INFINITY, 1.0f},
                     {0.0f, NAN, 1.0f}};
    float y[4][3];
    float lse[4];
    softmax_matrix in = softmax_matrix_of(x, SOFTMAX_F32, 4, 3);
    softmax_matrix out = softmax_matrix_mut(y, SOFTMAX_F32, 4, 3);
    GOOD(softmax_softmax(&in, &out, NULL));
    CHECK(y[0][0] == 0.5f && y[0][1] == 0.0f && y[0][2] == 0.5f);
    for (int i = 1; i < 4; i++) {
        CHECK(y[i][0] != y[i][0]);
    }
    GOOD(softmax_log_softmax(&in, &out, NULL));
    CHECK(y[0][1] == -INFINITY);
    GOOD(softmax_logsumexp(&in, lse, NULL));
    CHECK(lse[1] == -INFINITY);
    GOOD(softmax_sigmoid(&in, &out, NULL));
    CHECK(y[0][0] == 0.5f && y[1][0] == 0.0f && y[2][1] == 1.0f && y[3][1] != y[3][1]);
    GOOD(softmax_log_sigmoid(&in, &out, NULL));
    CHECK(y[1][0] == -INFINITY && y[2][1] == 0.0f);
    softmax_options options = softmax_options_default();
    options.flags = SOFTMAX_MASKED_ZERO;
    GOOD(softmax_softmax(&in, &out, &options));
    CHECK(y[1][0] == 0.0f && y[1][1] == 0.0f && y[1][2] == 0.0f);
}

static void hardmax(void) {
    double x[2][4] = {{1.0, 3.0, 3.0, 2.0}, {0.0, 0.0, 0.0, 0.0}};
    double y[2][4];
    softmax_matrix in = softmax_matrix_of(x, SOFTMAX_F64, 2, 4);
    softmax_matrix out = softmax_matrix_mut(y, SOFTMAX_F64, 2, 4);
    GOOD(softmax_hardmax(&in, &out, SOFTMAX_TIES_SHARE, NULL));
    CHECK(y[0][0] == 0.0 && y[0][1] == 0.5 && y[0][2] == 0.5 && y[0][3] == 0.0 && y[1][3] == 0.25);
    GOOD(softmax_hardmax(&in, &out, SOFTMAX_TIES_FIRST, NULL));
    CHECK(y[0][1] == 1.0 && y[0][2] == 0.0 && y[1][0] == 1.0 && y[1][3] == 0.0);

    char message[200];
    softmax_options options = told(message, sizeof message);
    watch(y, sizeof y);
    BAD(VALUE, softmax_hardmax(&in, &out, 2, &options));
    SAYS(message, "2");
    BAD(VALUE, softmax_hardmax(&in, &out, UINT32_MAX, NULL));
    BAD(NULL_POINTER, softmax_hardmax(NULL, &out, SOFTMAX_TIES_FIRST, NULL));
    BAD(NULL_POINTER, softmax_hardmax(&in, NULL, SOFTMAX_TIES_FIRST, NULL));
    unwatch();
}

/* All that is wrong with matrices, for each map. */
static void bad_matrices(map f) {
    enum { ROWS = 4, COLS = 6, STRIDE = 8 };
    float input[ROWS][STRIDE];
    float output[ROWS][STRIDE];
    char message[300];
    softmax_options options = told(message, sizeof message);
    fill_random(SOFTMAX_F32, input, ROWS * STRIDE, 5);
    memset(output, 0xA5, sizeof output);
    softmax_matrix x = softmax_matrix_of(input, SOFTMAX_F32, ROWS, COLS);
    softmax_matrix y = softmax_matrix_mut(output, SOFTMAX_F32, ROWS, COLS);
    x.stride = STRIDE;
    y.stride = STRIDE;
    watch(input, sizeof input);
    watch(output, sizeof output);

    BAD(NULL_POINTER, f(NULL, &y, NULL));
    BAD(NULL_POINTER, f(&x, NULL, NULL));
    BAD(NULL_POINTER, f(NULL, NULL, &options));
    SAYS(message, "softmax_matrix is null");

    softmax_matrix bad = x;
    bad.data = NULL;
    BAD(NULL_POINTER, f(&bad, &y, &options));
    SAYS(message, "input is null");
    BAD(NULL_POINTER, f(&x, &bad, &options));
    SAYS(message, "output is null");
    BAD(NULL_POINTER, f(&bad, &bad, NULL));

    STRUCT_SIZES(softmax_matrix, x, p, f(p, &y, NULL));
    STRUCT_SIZES(softmax_matrix, y, p, f(&x, p, NULL));
    bad = x;
    bad.size = 4097;
    BAD(STRUCT_SIZE, f(&bad, &y, &options));
    SAYS(message, "4097");

    static const softmax_dtype none[] = {SOFTMAX_BOOL, 5, UINT32_MAX};
    for (size_t i = 0; i < 3; i++) {
        softmax_matrix a = x;
        softmax_matrix b = y;
        a.dtype = none[i];
        b.dtype = none[i];
        BAD(DTYPE, f(&a, &b, &options));
        BAD(DTYPE, f(&a, &a, NULL));
        BAD(DTYPE, f(&a, &y, NULL));
        BAD(DTYPE, f(&x, &b, NULL));
    }
    SAYS(message, "4294967295");
    bad = y;
    bad.dtype = SOFTMAX_F64;
    BAD(DTYPE, f(&x, &bad, &options));
    SAYS(message, "0 and 1");

    static const size_t off[] = {1, 2, 3};
    for (size_t i = 0; i < 3; i++) {
        bad = x;
        bad.data = (char *)x.data + off[i];
        BAD(ALIGNMENT, f(&bad, &y, NULL));
        bad = y;
        bad.data = (char *)y.data + off[i];
        BAD(ALIGNMENT, f(&x, &bad, &options));
        SAYS(message, "output");
    }

    bad = y;
    bad.cols = COLS - 1;
    BAD(SHAPE, f(&x, &bad, &options));
    SAYS(message, "4 x 6");
    SAYS(message, "4 x 5");
    bad = x;
    bad.rows = ROWS - 1;
    BAD(SHAPE, f(&bad, &y, NULL));

    bad = x;
    bad.stride = COLS - 1;
    BAD(STRIDE, f(&bad, &y, &options));
    SAYS(message, "5");
    bad = y;
    bad.stride = 0;
    BAD(STRIDE, f(&x, &bad, NULL));
    bad.stride = 1;
    BAD(STRIDE, f(&bad, &bad, NULL));

    /* The first and the last columns of the same rows, which share some; the rows one further down;
     * the same start with another stride. */
    bad = x;
    bad.data = &input[0][2];
    BAD(OVERLAP, f(&x, &bad, &options));
    SAYS(message, "output overlaps input");
    BAD(OVERLAP, f(&bad, &x, NULL));
    x.rows = ROWS - 1;
    bad = x;
    bad.data = input[1];
    BAD(OVERLAP, f(&x, &bad, NULL));
    BAD(OVERLAP, f(&bad, &x, NULL));
    bad = x;
    bad.stride = COLS;
    BAD(OVERLAP, f(&x, &bad, NULL));
    x.rows = ROWS;

    /* Sizes that no memory has, of one matrix, of both, and in place. */
    static const size_t huge[] = {SIZE_MAX, SIZE_MAX / 2, SIZE_MAX / 4, (size_t)1 << 62};
    for (size_t i = 0; i < sizeof huge / sizeof *huge; i++) {
        for (int field = 0; field < 3; field++) {
            softmax_matrix a = x;
            softmax_matrix b = y;
            size_t *const fields[2][3] = {{&a.rows, &a.cols, &a.stride}, {&b.rows, &b.cols, &b.stride}};
            *fields[0][field] = huge[i];
            a.stride = a.stride < a.cols ? a.cols : a.stride;
            BAD(OVERFLOW, f(&a, &y, NULL));
            BAD(OVERFLOW, f(&a, &a, NULL));
            *fields[1][field] = huge[i];
            b.stride = b.stride < b.cols ? b.cols : b.stride;
            BAD(OVERFLOW, f(&x, &b, &options));
            SAYS(message, "output");
            BAD(OVERFLOW, f(&a, &b, NULL));
            BAD(OVERFLOW, f(&b, &a, NULL));
        }
    }
    unwatch();
}

/* Columns of one buffer beside each other; nothing at all. */
static void good_matrices(map f) {
    enum { ROWS = 5, COLS = 3 };
    float both[ROWS][2 * COLS];
    float apart[ROWS][COLS];
    float wanted[ROWS][COLS];
    fill_random(SOFTMAX_F32, apart, ROWS * COLS, 9);
    softmax_matrix a = softmax_matrix_of(apart, SOFTMAX_F32, ROWS, COLS);
    softmax_matrix b = softmax_matrix_mut(wanted, SOFTMAX_F32, ROWS, COLS);
    GOOD(f(&a, &b, NULL));
    for (size_t i = 0; i < ROWS; i++) {
        memcpy(both[i], apart[i], sizeof apart[i]);
    }
    softmax_matrix x = softmax_matrix_of(both, SOFTMAX_F32, ROWS, COLS);
    softmax_matrix y = softmax_matrix_mut(&both[0][COLS], SOFTMAX_F32, ROWS, COLS);
    x.stride = 2 * COLS;
    y.stride = 2 * COLS;
    GOOD(f(&x, &y, NULL));
    for (size_t i = 0; i < ROWS; i++) {
        CHECK(memcmp(both[i], apart[i], sizeof apart[i]) == 0);
        CHECK(memcmp(&both[i][COLS], wanted[i], sizeof wanted[i]) == 0);
    }
    /* One row's stride does not count. */
    x = softmax_matrix_of(apart, SOFTMAX_F32, 1, COLS);
    y = x;
    y.stride = 1000;
    GOOD(f(&x, &y, NULL));
    CHECK(memcmp(apart[0], wanted[0], sizeof wanted[0]) == 0);

    for (int d = 0; d < DTYPES; d++) {
        static const size_t empty[][2] = {{0, 0}, {0, 5}, {5, 0}, {0, SIZE_MAX}};
        for (size_t i = 0; i < sizeof empty / sizeof *empty; i++) {
            softmax_matrix none = softmax_matrix_of(NULL, dtypes[d], empty[i][0], empty[i][1]);
            softmax_matrix other = softmax_matrix_mut(both, dtypes[d], empty[i][0], empty[i][1]);
            GOOD(f(&none, &none, NULL));
            GOOD(f(&none, &other, NULL));
            GOOD(f(&other, &none, NULL));
        }
    }
}

static void named(void) {
    float x[2] = {0.0f, 0.0f};
    float y[2];
    softmax_matrix in = softmax_matrix_of(x, SOFTMAX_F32, 1, 2);
    softmax_matrix out = softmax_matrix_mut(y, SOFTMAX_F32, 1, 2);
    GOOD(softmax_softmax(&in, &out, NULL));
    CHECK(y[0] == 0.5f && y[1] == 0.5f);
    GOOD(softmax_log_softmax(&in, &out, NULL));
    CHECK(near(SOFTMAX_F32, y[0], -logl(2.0L), 1.0, 0.0));
    BAD(NULL_POINTER, softmax_softmax(NULL, &out, NULL));
    BAD(NULL_POINTER, softmax_log_softmax(NULL, &out, NULL));
    BAD(NULL_POINTER, softmax_sigmoid(NULL, &out, NULL));
    BAD(NULL_POINTER, softmax_log_sigmoid(NULL, &out, NULL));
}

static void logsumexp(void) {
    enum { ROWS = 3, COLS = 4 };
    double x[ROWS * COLS];
    double lse[ROWS + 1];
    char message[200];
    softmax_options options = told(message, sizeof message);
    fill_random(SOFTMAX_F64, x, ROWS * COLS, 3);
    memset(lse, 0xA5, sizeof lse);
    softmax_matrix in = softmax_matrix_of(x, SOFTMAX_F64, ROWS, COLS);
    watch(x, sizeof x);
    watch(lse, sizeof lse);
    BAD(NULL_POINTER, softmax_logsumexp(NULL, lse, NULL));
    BAD(NULL_POINTER, softmax_logsumexp(&in, NULL, &options));
    SAYS(message, "logsumexp is null");
    BAD(ALIGNMENT, softmax_logsumexp(&in, (char *)lse + 4, NULL));
    BAD(OVERLAP, softmax_logsumexp(&in, &x[COLS], &options));
    SAYS(message, "logsumexp overlaps input");
    softmax_matrix bad = in;
    bad.data = (char *)x + 1;
    BAD(ALIGNMENT, softmax_logsumexp(&bad, lse, NULL));
    bad = in;
    bad.dtype = 77;
    BAD(DTYPE, softmax_logsumexp(&bad, lse, NULL));
    bad = in;
    bad.stride = COLS - 1;
    BAD(STRIDE, softmax_logsumexp(&bad, lse, NULL));
    bad = in;
    bad.rows = SIZE_MAX;
    BAD(OVERFLOW, softmax_logsumexp(&bad, lse, NULL));
    /* Rows without elements need no data, but a result. */
    bad = softmax_matrix_of(NULL, SOFTMAX_F64, SIZE_MAX, 0);
    BAD(OVERFLOW, softmax_logsumexp(&bad, lse, NULL));
    unwatch();
    STRUCT_SIZES(softmax_matrix, in, p, softmax_logsumexp(p, lse, NULL));

    in = softmax_matrix_of(NULL, SOFTMAX_F64, 2, 0);
    lse[2] = 1.5;
    GOOD(softmax_logsumexp(&in, lse, NULL));
    CHECK(lse[0] == -INFINITY && lse[1] == -INFINITY && lse[2] == 1.5);
    in = softmax_matrix_of(NULL, SOFTMAX_F64, 0, 5);
    GOOD(softmax_logsumexp(&in, NULL, NULL));
    /* In the gaps between the rows. */
    double both[2][3] = {{0.0, 0.0, 7.0}, {1.0, 1.0, 7.0}};
    in = softmax_matrix_of(both, SOFTMAX_F64, 1, 2);
    GOOD(softmax_logsumexp(&in, &both[0][2], NULL));
    CHECK(near(SOFTMAX_F64, both[0][2], logl(2.0L), 1.0, 0.0) && both[1][2] == 7.0);
}

int main(void) {
    values();
    facts();
    hardmax();
    for (int i = 0; i < MAPS; i++) {
        bad_matrices(maps[i]);
        good_matrices(maps[i]);
    }
    named();
    logsumexp();
    return checked();
}
