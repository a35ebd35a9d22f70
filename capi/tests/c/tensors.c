/* Along any axis of a tensor. */
#include "check.h"

/* Every axis of a tensor has the bits of the same lanes as rows. */
static void values(softmax_dtype dtype) {
    static const size_t shape[3] = {4, 70, 6};
    enum { N = 4 * 70 * 6 };
    static const size_t steps[3] = {70 * 6, 6, 1};
    size_t bytes = N * size_of(dtype);
    size_t size = size_of(dtype);
    unsigned char *x = (unsigned char *)memory(bytes);
    unsigned char *y = (unsigned char *)memory(bytes);
    unsigned char *lane = (unsigned char *)memory(70 * size);
    fill_random(dtype, x, N, 12);
    for (int log = 0; log < 2; log++) {
        for (ptrdiff_t axis = -3; axis < 3; axis++) {
            size_t a = (size_t)(axis < 0 ? axis + 3 : axis);
            size_t needed = 0;
            softmax_options options = softmax_options_default();
            GOOD(softmax_axis_scratch_size(dtype, shape, 3, axis, &needed, &options));
            char *lent = (char *)memory(needed + 1);
            options.scratch = lent + 1;
            options.scratch_size = needed;
            const softmax_options *ways[2] = {NULL, &options};
            for (int way = 0; way < 2; way++) {
                memset(y, 0xA5, bytes);
                if (log) {
                    GOOD(softmax_log_softmax_axis(x, y, dtype, shape, 3, axis, ways[way]));
                } else {
                    GOOD(softmax_softmax_axis(x, y, dtype, shape, 3, axis, ways[way]));
                }
                for (size_t first = 0; first < N; first++) {
                    if (first / steps[a] % shape[a] != 0) {
                        continue;
                    }
                    for (size_t j = 0; j < shape[a]; j++) {
                        memcpy(lane + j * size, x + (first + j * steps[a]) * size, size);
                    }
                    softmax_matrix row = softmax_matrix_mut(lane, dtype, 1, shape[a]);
                    if (log) {
                        GOOD(softmax_log_softmax(&row, &row, NULL));
                    } else {
                        GOOD(softmax_softmax(&row, &row, NULL));
                    }
                    for (size_t j = 0; j < shape[a]; j++) {
                        CHECK(memcmp(lane + j * size, y + (first + j * steps[a]) * size, size) == 0);
                    }
                }
                unsigned char *in_place = (unsigned char *)memory(bytes);
                memcpy(in_place, x, bytes);
                if (log) {
                    GOOD(softmax_log_softmax_axis(in_place, in_place, dtype, shape, 3, axis, ways[way]));
                } else {
                    GOOD(softmax_softmax_axis(in_place, in_place, dtype, shape, 3, axis, ways[way]));
                }
                CHECK(memcmp(in_place, y, bytes) == 0);
                free(in_place);
            }
            free(lent);
        }
    }
    free(x);
    free(y);
    free(lane);
}

typedef softmax_status (*along)(const void *x, void *y, softmax_dtype dtype, const size_t *shape,
                                size_t dims, ptrdiff_t axis, const softmax_options *options);

static void bad(along f) {
    enum { N = 24 };
    size_t shape[3] = {2, 3, 4};
    double x[N + 1];
    double y[N + 1];
    char message[200];
    softmax_options options = told(message, sizeof message);
    fill_random(SOFTMAX_F64, x, N + 1, 2);
    memset(y, 0xA5, sizeof y);
    watch(x, sizeof x);
    watch(y, sizeof y);
    watch(shape, sizeof shape);
    BAD(NULL_POINTER, f(NULL, y, SOFTMAX_F64, shape, 3, 0, &options));
    SAYS(message, "input is null");
    BAD(NULL_POINTER, f(x, NULL, SOFTMAX_F64, shape, 3, 0, &options));
    SAYS(message, "output is null");
    BAD(NULL_POINTER, f(NULL, NULL, SOFTMAX_F64, shape, 3, 0, NULL));
    BAD(NULL_POINTER, f(x, y, SOFTMAX_F64, NULL, 3, 0, &options));
    SAYS(message, "shape is null");
    BAD(DTYPE, f(x, y, SOFTMAX_BOOL, shape, 3, 0, NULL));
    BAD(DTYPE, f(x, y, 100, shape, 3, 0, &options));
    SAYS(message, "100");
    BAD(AXIS, f(x, y, SOFTMAX_F64, shape, 3, 3, &options));
    SAYS(message, "axis 3");
    BAD(AXIS, f(x, y, SOFTMAX_F64, shape, 3, -4, NULL));
    BAD(AXIS, f(x, y, SOFTMAX_F64, shape, 3, PTRDIFF_MAX, NULL));
    BAD(AXIS, f(x, y, SOFTMAX_F64, shape, 3, PTRDIFF_MIN, NULL));
    BAD(AXIS, f(x, y, SOFTMAX_F64, NULL, 0, 0, NULL));
    BAD(AXIS, f(x, x, SOFTMAX_F64, shape, 0, -1, NULL));
    BAD(ALIGNMENT, f((char *)x + 4, y, SOFTMAX_F64, shape, 3, 0, NULL));
    BAD(ALIGNMENT, f(x, (char *)y + 1, SOFTMAX_F64, shape, 3, 0, NULL));
    BAD(ALIGNMENT, f(x, y, SOFTMAX_F64, (const size_t *)(const void *)((char *)shape + 1), 2, 0, NULL));
    BAD(OVERLAP, f(x, x + 1, SOFTMAX_F64, shape, 3, 1, &options));
    SAYS(message, "output overlaps input");
    BAD(OVERLAP, f(y + 1, y, SOFTMAX_F64, shape, 3, 1, NULL));
    BAD(OVERLAP, f(x, shape, SOFTMAX_F64, shape, 3, 1, NULL));
    options.scratch = y;
    options.scratch_size = sizeof y;
    BAD(OVERLAP, f(x, y, SOFTMAX_F64, shape, 3, 1, &options));
    options.scratch_size = 1;
    options.scratch = message;
    options.message = NULL;
    BAD(SCRATCH, f(x, y, SOFTMAX_F64, shape, 3, 1, &options));
    options = told(message, sizeof message);
    BAD(OVERFLOW, f(x, y, SOFTMAX_F64, shape, SIZE_MAX, 1, NULL));
    shape[1] = SIZE_MAX;
    BAD(OVERFLOW, f(x, y, SOFTMAX_F64, shape, 3, 1, &options));
    SAYS(message, "shape");
    BAD(OVERFLOW, f(x, x, SOFTMAX_F64, shape, 3, 0, NULL));
    shape[1] = (size_t)1 << 57;
    BAD(OVERFLOW, f(x, y, SOFTMAX_F64, shape, 3, 1, NULL));
    BAD(OVERFLOW, f(x, x, SOFTMAX_F64, shape, 3, 1, NULL));
    /* An empty tensor may have any other sizes, but needs an axis. */
    shape[0] = SIZE_MAX;
    shape[1] = 0;
    shape[2] = SIZE_MAX;
    GOOD(f(NULL, NULL, SOFTMAX_F64, shape, 3, 1, NULL));
    GOOD(f(x, y, SOFTMAX_F64, shape, 3, -1, NULL));
    BAD(AXIS, f(x, y, SOFTMAX_F64, shape, 3, 5, NULL));
    unwatch();
    /* One element. */
    size_t one[1] = {1};
    GOOD(f(x, y, SOFTMAX_F64, one, 1, 0, NULL));
    CHECK(y[0] == 1.0 || y[0] == 0.0);
    STRUCT_SIZES(softmax_options, options, p, f(x, y, SOFTMAX_F64, one, 1, 0, p));
}

static void bad_scratch_size(void) {
    size_t shape[2] = {3, 5};
    size_t bytes = 77;
    watch(&bytes, sizeof bytes);
    BAD(NULL_POINTER, softmax_axis_scratch_size(SOFTMAX_F32, NULL, 2, 0, &bytes, NULL));
    BAD(NULL_POINTER, softmax_axis_scratch_size(SOFTMAX_F32, shape, 2, 0, NULL, NULL));
    BAD(ALIGNMENT, softmax_axis_scratch_size(SOFTMAX_F32, shape, 2, 0,
                                             (size_t *)(void *)((char *)&bytes + 2), NULL));
    BAD(DTYPE, softmax_axis_scratch_size(SOFTMAX_BOOL, shape, 2, 0, &bytes, NULL));
    BAD(AXIS, softmax_axis_scratch_size(SOFTMAX_F32, shape, 2, 2, &bytes, NULL));
    BAD(AXIS, softmax_axis_scratch_size(SOFTMAX_F32, NULL, 0, 0, &bytes, NULL));
    shape[0] = SIZE_MAX;
    shape[1] = SIZE_MAX;
    size_t four[4] = {SIZE_MAX, SIZE_MAX, 2, 2};
    BAD(OVERFLOW, softmax_axis_scratch_size(SOFTMAX_F32, four, 4, 2, &bytes, NULL));
    unwatch();
    GOOD(softmax_axis_scratch_size(SOFTMAX_F32, shape, 2, 1, &bytes, NULL));
    GOOD(softmax_axis_scratch_size(SOFTMAX_F32, shape, 2, 0, &bytes, NULL));
}

int main(void) {
    for (int d = 0; d < DTYPES; d++) {
        values(dtypes[d]);
    }
    bad(softmax_softmax_axis);
    bad(softmax_log_softmax_axis);
    bad_scratch_size();
    float x[2] = {0.0f, 0.0f};
    size_t shape[1] = {2};
    BAD(AXIS, softmax_softmax_axis(x, x, SOFTMAX_F32, shape, 1, 1, NULL));
    BAD(AXIS, softmax_log_softmax_axis(x, x, SOFTMAX_F32, shape, 1, 1, NULL));
    return checked();
}
