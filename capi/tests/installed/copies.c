/* A program with the library in it opens and closes a shared copy, given by its path: both have
 * threads, and neither knows of the other. */
#define _DEFAULT_SOURCE
#include <dlfcn.h>
#include <unistd.h>

#include "../c/check.h"

enum { ROWS = 1024, COLS = 1024, N = ROWS * COLS };

typedef softmax_status (*function)(const softmax_matrix *x, const softmax_matrix *y,
                                   const softmax_options *options);

int main(int argc, char **argv) {
    float *in = (float *)memory(N * sizeof *in);
    float *wanted = (float *)memory(N * sizeof *wanted);
    float *out = (float *)memory(N * sizeof *out);
    fill_random(SOFTMAX_F32, in, N, 1);
    softmax_matrix x = softmax_matrix_of(in, SOFTMAX_F32, ROWS, COLS);
    softmax_matrix w = softmax_matrix_mut(wanted, SOFTMAX_F32, ROWS, COLS);
    softmax_matrix y = softmax_matrix_mut(out, SOFTMAX_F32, ROWS, COLS);
    softmax_options options = softmax_options_default();
    options.threads = 2;
    options.flags = SOFTMAX_THREADS_EXACT;
    GOOD(softmax_softmax(&x, &w, &options));
    for (int round = 0; round < 3; round++) {
        void *copy = argc > 1 ? dlopen(argv[1], RTLD_NOW | RTLD_LOCAL) : NULL;
        if (copy == NULL) {
            fprintf(stderr, "%s\n", dlerror());
            return 1;
        }
        void *symbol = dlsym(copy, "softmax_softmax");
        function softmax;
        memcpy(&softmax, &symbol, sizeof softmax);
        CHECK(softmax != softmax_softmax);
        memset(out, 0, N * sizeof *out);
        GOOD(softmax(&x, &y, &options));
        CHECK(memcmp(out, wanted, N * sizeof *out) == 0);
        CHECK(dlclose(copy) == 0);
        /* The threads of the copy fall asleep in code that must still be there. */
        usleep(50000);
        GOOD(softmax_softmax(&x, &y, &options));
    }
    free(in);
    free(wanted);
    free(out);
    return checked();
}
