/* Environment variables that make no sense are an error of the calls that need them. */
#include "check.h"

int main(void) {
    CHECK(setenv("SOFTMAX_KERNEL", "nonsense", 1) == 0);
    CHECK(setenv("SOFTMAX_CACHES", "nonsense", 1) == 0);
    enum { ROWS = 16, COLS = 4096 };
    float *in = (float *)memory(ROWS * COLS * sizeof *in);
    float *out = (float *)memory(ROWS * COLS * sizeof *out);
    char message[300];
    fill_random(SOFTMAX_F32, in, ROWS * COLS, 1);
    softmax_matrix x = softmax_matrix_of(in, SOFTMAX_F32, ROWS, COLS);
    softmax_matrix y = softmax_matrix_mut(out, SOFTMAX_F32, ROWS, COLS);
    softmax_options options = told(message, sizeof message);
    watch(out, ROWS * COLS * sizeof *out);
    const char *name = NULL;
    for (int i = 0; i < 2; i++) {
        BAD(KERNEL, softmax_kernel_in_use(&name, NULL));
        BAD(KERNEL, softmax_softmax(&x, &y, &options));
        SAYS(message, "nonsense");
    }
    options.kernel = "portable";
    for (int i = 0; i < 2; i++) {
        BAD(CACHES, softmax_softmax(&x, &y, &options));
        SAYS(message, "SOFTMAX_CACHES must be two sizes");
        SAYS(message, "nonsense");
    }
    unwatch();
    /* Neither is needed. */
    options.flags = SOFTMAX_CACHES;
    GOOD(softmax_softmax(&x, &y, &options));
    options.flags = 0;
    x = softmax_matrix_of(in, SOFTMAX_F32, 2, 10);
    GOOD(softmax_softmax(&x, &x, &options));
    free(in);
    free(out);
    return checked();
}
