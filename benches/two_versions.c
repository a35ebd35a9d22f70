/* Two versions of the library in one process: each case by one and by the other in turns.
 *
 *   cargo build --release -p softmax-capi            in a checkout of each version
 *   cc -O2 -Icapi/include benches/two_versions.c -o two_versions -lm
 *   ./two_versions OLD/libsoftmax_capi.so NEW/libsoftmax_capi.so [KERNEL [OPERATION [DTYPE]]]
 *
 * A case that is not computed, or whose results differ in a bit, ends it with 1; where bits were to
 * change, compile it with -DANY_BITS. Each is timed in 21 rounds of half a millisecond or more, on
 * one thread; its ratio is that of the lower quartiles, old by new: above 1 the new version is
 * faster. Three runs tell what is noise; outputs larger than the caches are 0.92 to 1.06 even of
 * one version beside itself. */
#define _GNU_SOURCE
#include "softmax.h"

#include <dlfcn.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MOST = 16384 * 1024, ROUNDS = 21 };

/* The functions of a version, which are called by these types. */
#define FUNCTIONS(F) \
    F(softmax) F(log_softmax) F(sigmoid) F(log_sigmoid) F(hardmax) F(logsumexp) F(argmax) \
    F(attention_softmax) F(cross_entropy_labels) F(softmax_backward) F(log_softmax_backward) \
    F(softmax_axis) F(route) F(softmax_ragged)
#define MEMBER(name) __typeof__(&softmax_##name) name;
typedef struct version {
    FUNCTIONS(MEMBER)
} version;

static version load(const char *path) {
    version version;
    void *library = dlmopen(LM_ID_NEWLM, path, RTLD_NOW | RTLD_LOCAL);
    if (library == NULL) {
        fprintf(stderr, "%s\n", dlerror());
        exit(1);
    }
#define SYMBOL(name)                                                    \
    *(void **)&version.name = dlsym(library, "softmax_" #name);         \
    if (version.name == NULL) {                                         \
        fprintf(stderr, "%s has no softmax_" #name "\n", path);         \
        exit(1);                                                        \
    }
    FUNCTIONS(SYMBOL)
    return version;
}

static const char *const DTYPES[] = {"f32", "f64", "f16", "bf16"};
static const size_t SIZES[] = {4, 8, 2, 2};
static const char *const OPERATIONS[] = {
    "softmax", "log-softmax", "log-sum-exp", "sigmoid", "log-sigmoid", "hardmax", "argmax",
    "causal attention", "masked attention", "ALiBi", "ALiBi, log-sum-exp", "loss of labels",
    "gradient", "backward", "log backward", "columns", "softmax, 1e6",
    "soft cap", "experts", "ragged rows",
};
enum { OPERATION_COUNT = sizeof OPERATIONS / sizeof *OPERATIONS };
static const size_t SHAPES[][2] = {
    {1, 10}, {1, 16}, {1, 64}, {1, 128}, {1, 1024}, {64, 10}, {1000, 10}, {500, 64}, {64, 128},
    {64, 1024}, {1024, 1024}, {8, 32000}, {64, 32000}, {4, 128256}, {32, 128256}, {16384, 1024},
};
enum { SHAPE_COUNT = sizeof SHAPES / sizeof *SHAPES };
static const char *const PLACES[] = {"one row", "in cache", "L3", "memory"};

static const char *kernel;
static softmax_dtype dtype;
static size_t rows, cols;
static void *x, *y[2];
static float *mask;
static double *per_row;
static int64_t *labels;
static int32_t *offsets;

/* Experts of each token. */
static size_t experts(void) {
    return cols < 16 ? 2 : 8;
}

/* Calls the operation of a version; returns its status. */
static int run(const version *v, int operation, void *out) {
    softmax_options o;
    memset(&o, 0, sizeof o);
    o.size = sizeof o;
    o.scale = operation == 16 ? 1e6 : 1.0;
    o.temperature = 1.0;
    o.threads = 1;
    o.kernel = kernel;
    softmax_matrix a = {sizeof a, x, dtype, rows, cols, cols};
    softmax_matrix b = {sizeof b, out, dtype, rows, cols, cols};
    softmax_attention t;
    memset(&t, 0, sizeof t);
    t.size = sizeof t;
    t.heads = 1;
    t.queries = rows;
    softmax_cross_entropy c;
    memset(&c, 0, sizeof c);
    c.size = sizeof c;
    c.ignore_index = -100;
    c.gradient_factor = 1.0;
    static const float slope = 0.05f;
    double loss;
    size_t shape[2] = {rows, cols};
    switch (operation) {
    case 0: case 16: return v->softmax(&a, &b, &o);
    case 1: return v->log_softmax(&a, &b, &o);
    case 2: return v->logsumexp(&a, out, &o);
    case 3: return v->sigmoid(&a, &b, &o);
    case 4: return v->log_sigmoid(&a, &b, &o);
    case 5: return v->hardmax(&a, &b, SOFTMAX_TIES_SHARE, &o);
    case 6: return v->argmax(&a, out, &o);
    case 8:
        t.mask = mask;
        t.mask_dtype = SOFTMAX_F32;
        t.mask_shape[0] = t.mask_shape[1] = 1;
        t.mask_shape[2] = rows;
        return v->attention_softmax(&a, &b, NULL, &t, &o);
    case 9: case 10: case 17:
        if (operation == 17) {
            t.soft_cap = 30.0;
        } else {
            t.alibi = &slope;
        }
        /* fall through */
    case 7:
        t.flags = SOFTMAX_ATTENTION_CAUSAL;
        return v->attention_softmax(&a, &b, operation == 10 ? per_row : NULL, &t, &o);
    case 11: return v->cross_entropy_labels(&a, labels, per_row, &loss, NULL, &c, &o);
    case 12: return v->cross_entropy_labels(&a, labels, per_row, &loss, &b, &c, &o);
    case 13: return v->softmax_backward(&a, &a, &b, &o);
    case 14: return v->log_softmax_backward(&a, &a, &b, &o);
    case 18: {
        softmax_router router = softmax_router_default(experts());
        router.flags = SOFTMAX_ROUTER_RENORMALIZE;
        char *weights = out;
        size_t bytes = rows * experts() * (dtype == SOFTMAX_F64 ? 8 : 4);
        return v->route(&a, weights, (uint32_t *)(weights + bytes), &router, &o);
    }
    case 19: {
        softmax_ragged ragged = {sizeof ragged, x, rows * cols, dtype, SOFTMAX_I32, rows, offsets};
        return v->softmax_ragged(&ragged, out, &o);
    }
    default: return v->softmax_axis(x, out, dtype, shape, 2, 0, &o);
    }
}

/* Bytes that an operation writes to `y`. */
static size_t written(int operation) {
    switch (operation) {
    case 2: return rows * SIZES[dtype];
    case 6: return rows * sizeof(size_t);
    case 11: return 0;
    case 18: return rows * experts() * (dtype == SOFTMAX_F64 ? 12 : 8);
    default: return rows * cols * SIZES[dtype];
    }
}

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int compare(const void *a, const void *b) {
    double d = *(const double *)a - *(const double *)b;
    return d < 0 ? -1 : d > 0;
}

/* Elements from -10 to 10. */
static void fill(void) {
    uint32_t state = 7;
    for (size_t i = 0; i < MOST; i++) {
        state = state * 1664525 + 1013904223;
        float f = (float)((int)(state >> 8) % 2000 - 1000) / 100.0f;
        uint32_t bits;
        memcpy(&bits, &f, 4);
        if (dtype == SOFTMAX_F32) {
            ((float *)x)[i] = f;
        } else if (dtype == SOFTMAX_F64) {
            ((double *)x)[i] = f;
        } else if (dtype == SOFTMAX_BF16) {
            ((uint16_t *)x)[i] = (uint16_t)(bits >> 16);
        } else {
            /* Cut to the digits of f16; only 0 is subnormal here. */
            uint32_t exponent = bits >> 23 & 0xff;
            uint32_t half = exponent < 113 ? 0 : (exponent - 112) << 10 | (bits >> 13 & 0x3ff);
            ((uint16_t *)x)[i] = (uint16_t)(bits >> 16 & 0x8000) | (uint16_t)half;
        }
    }
}

int main(int argc, char **argv) {
    if (argc < 3) {
        fprintf(stderr, "%s OLD.so NEW.so [KERNEL|- [OPERATION|- [DTYPE]]]\n", argv[0]);
        return 1;
    }
    version versions[2] = {load(argv[1]), load(argv[2])};
    kernel = argc > 3 && strcmp(argv[3], "-") != 0 ? argv[3] : NULL;
    const char *only = argc > 4 && strcmp(argv[4], "-") != 0 ? argv[4] : NULL;
    const char *only_dtype = argc > 5 ? argv[5] : NULL;
    if (posix_memalign(&x, 64, (size_t)MOST * 8) || posix_memalign(&y[0], 64, (size_t)MOST * 8)
        || posix_memalign(&y[1], 64, (size_t)MOST * 8)) {
        return 1;
    }
    mask = malloc(sizeof *mask * MOST);
    per_row = malloc(sizeof *per_row * MOST);
    labels = malloc(sizeof *labels * 16384);
    offsets = malloc(sizeof *offsets * 16385);
    if (mask == NULL || per_row == NULL || labels == NULL || offsets == NULL) {
        return 1;
    }
    for (size_t i = 0; i < MOST; i++) {
        mask[i] = i % 7 == 0 ? -INFINITY : -(float)(i % 13) / 16.0f;
    }
    memset(y[0], 0, (size_t)MOST * 8);
    memset(y[1], 0, (size_t)MOST * 8);
    double logs[OPERATION_COUNT][4] = {{0}}, least[OPERATION_COUNT][4];
    int counts[OPERATION_COUNT][4] = {{0}}, slow = 0, fast = 0, cases = 0;
    for (dtype = SOFTMAX_F32; dtype <= SOFTMAX_BF16; dtype++) {
        if (only_dtype != NULL && strcmp(only_dtype, DTYPES[dtype]) != 0) {
            continue;
        }
        fill();
        for (int op = 0; op < OPERATION_COUNT; op++) {
            if (only != NULL && strcmp(only, OPERATIONS[op]) != 0) {
                continue;
            }
            for (int s = 0; s < SHAPE_COUNT; s++) {
                rows = SHAPES[s][0];
                cols = SHAPES[s][1];
                if ((op == 15 && rows < 64) || (op == 18 && cols > 1024)) {
                    continue;
                }
                for (size_t i = 0; i < rows; i++) {
                    labels[i] = (int64_t)(i * 7 % cols);
                    /* Rows of 1 to 2 cols - 1 elements, pairs of 2 cols. */
                    size_t more = i % 2 == 0 && i + 1 < rows ? i * 7 % cols : 0;
                    offsets[i + 1] = (int32_t)((i + 1) * cols + more);
                }
                offsets[0] = 0;
                for (int v = 0; v < 2; v++) {
                    int status = run(&versions[v], op, y[v]);
                    if (status != SOFTMAX_STATUS_OK) {
                        printf("%s %s %zu x %zu: version %d refuses it: %d\n", OPERATIONS[op],
                               DTYPES[dtype], rows, cols, v, status);
                        return 1;
                    }
                }
#ifndef ANY_BITS
                if (memcmp(y[0], y[1], written(op)) != 0) {
                    printf("%s %s %zu x %zu: bits differ\n", OPERATIONS[op], DTYPES[dtype], rows, cols);
                    return 1;
                }
#endif
                int calls = 0;
                double start = now(), times[2][ROUNDS];
                do {
                    run(&versions[0], op, y[0]);
                    calls++;
                } while (now() - start < 0.0005);
                for (int round = 0; round < ROUNDS; round++) {
                    for (int turn = 0; turn < 2; turn++) {
                        int v = (round + turn) & 1;
                        start = now();
                        for (int i = 0; i < calls; i++) {
                            run(&versions[v], op, y[v]);
                        }
                        times[v][round] = (now() - start) / calls;
                    }
                }
                qsort(times[0], ROUNDS, sizeof(double), compare);
                qsort(times[1], ROUNDS, sizeof(double), compare);
                double ratio = times[0][ROUNDS / 4] / times[1][ROUNDS / 4];
                printf("%-18s %-4s %6zu x %-6zu %12.1f ns %6.3f\n", OPERATIONS[op], DTYPES[dtype],
                       rows, cols, times[1][ROUNDS / 2] * 1e9, ratio);
                fflush(stdout);
                size_t n = rows * cols;
                int place = rows == 1 ? 0 : n <= 1 << 20 ? 1 : n <= 1 << 22 ? 2 : 3;
                if (counts[op][place]++ == 0 || ratio < least[op][place]) {
                    least[op][place] = ratio;
                }
                logs[op][place] += log(ratio);
                cases++;
                slow += ratio < 0.97;
                fast += ratio > 1.03;
            }
        }
    }
    printf("\n%d cases, %d below 0.97, %d above 1.03; geometric means (least):\n", cases, slow, fast);
    printf("| |");
    for (int place = 0; place < 4; place++) {
        printf(" %s |", PLACES[place]);
    }
    printf("\n|---|---|---|---|---|\n");
    for (int op = 0; op < OPERATION_COUNT; op++) {
        printf("| %s |", OPERATIONS[op]);
        for (int place = 0; place < 4; place++) {
            if (counts[op][place] > 0) {
                printf(" %.2f (%.2f) |", exp(logs[op][place] / counts[op][place]), least[op][place]);
            } else {
                printf(" |");
            }
        }
        printf("\n");
    }
    return 0;
}
