/* The options of all calls, what is told about kernels and plans, and memory that is lent. */
#include "check.h"

enum { ROWS = 4, COLS = 9 };

static float input[ROWS][COLS];
static float output[ROWS][COLS];
static float plain[ROWS][COLS];
static softmax_matrix x;
static softmax_matrix y;
static char message[400];

static void statuses(void) {
    for (int32_t i = 0; i <= SOFTMAX_STATUS_INTERNAL; i++) {
        const char *text = softmax_status_message(i);
        CHECK(text != NULL && strlen(text) > 5);
        for (int32_t j = 0; j < i; j++) {
            CHECK(strcmp(text, softmax_status_message(j)) != 0);
        }
    }
    static const int32_t unknown[] = {-1, SOFTMAX_STATUS_INTERNAL + 1, INT32_MAX, INT32_MIN};
    for (size_t i = 0; i < 4; i++) {
        CHECK(strcmp(softmax_status_message(unknown[i]), "no status of this library") == 0);
    }
    CHECK(strcmp(softmax_status_message(SOFTMAX_STATUS_SCRATCH), "the scratch buffer is too small") == 0);

    int major;
    int minor;
    int patch;
    CHECK(sscanf(softmax_version(), "%d.%d.%d", &major, &minor, &patch) == 3);
}

static void kernels(void) {
    size_t n = 0;
    const char *name = NULL;
    const char *first = NULL;
    int32_t available = -1;
    while (softmax_kernel(n, &name, &available) == SOFTMAX_STATUS_OK) {
        CHECK(name != NULL && strlen(name) > 0 && strcmp(name, "unknown") != 0);
        CHECK(available == 0 || available == 1);
        if (first == NULL && available) {
            first = name;
        }
        /* Of each kernel the same bits, or the answer that the CPU lacks it. */
        softmax_options options = told(message, sizeof message);
        options.kernel = name;
        const char *used = NULL;
        if (available) {
            memset(output, 0xA5, sizeof output);
            GOOD(softmax_softmax(&x, &y, &options));
            CHECK(memcmp(output, plain, sizeof plain) == 0);
            softmax_matrix none = softmax_matrix_mut(NULL, SOFTMAX_F32, 0, SIZE_MAX);
            GOOD(softmax_softmax(&none, &none, &options));
            GOOD(softmax_kernel_in_use(&used, &options));
            CHECK(strcmp(used, name) == 0);
        } else {
            memset(output, 0xA5, sizeof output);
            watch(output, sizeof output);
            watch(&used, sizeof used);
            BAD(KERNEL, softmax_softmax(&x, &y, &options));
            CHECK(strstr(message, name) != NULL);
            BAD(KERNEL, softmax_kernel_in_use(&used, &options));
            unwatch();
        }
        n++;
    }
    CHECK(n >= 2 && first != NULL);
    const char *used = NULL;
    GOOD(softmax_kernel_in_use(&used, NULL));
    if (getenv("SOFTMAX_KERNEL") == NULL) {
        CHECK(used != NULL && strcmp(used, first) == 0);
    }
    GOOD(softmax_kernel(0, NULL, NULL));
    GOOD(softmax_kernel(0, &name, NULL));
    GOOD(softmax_kernel(0, NULL, &available));

    name = NULL;
    available = -7;
    used = NULL;
    watch(&name, sizeof name);
    watch(&available, sizeof available);
    watch(&used, sizeof used);
    BAD(LENGTH, softmax_kernel(n, &name, &available));
    BAD(LENGTH, softmax_kernel(SIZE_MAX, &name, &available));
    char place[2 * sizeof name];
    memset(place, 0xA5, sizeof place);
    watch(place, sizeof place);
    BAD(ALIGNMENT, softmax_kernel(0, (const char **)(void *)((char *)&name + 1), &available));
    BAD(ALIGNMENT, softmax_kernel(0, &name, (int32_t *)(void *)((char *)&available + 1)));
    BAD(NULL_POINTER, softmax_kernel_in_use(NULL, NULL));
    BAD(ALIGNMENT, softmax_kernel_in_use((const char **)(void *)((char *)&used + 4), NULL));

    static const char *const none[] = {"sse9", "", " avx2", "AVX2", "\xff\xfe", "unknown"};
    for (size_t i = 0; i < sizeof none / sizeof *none; i++) {
        softmax_options options = told(message, sizeof message);
        options.kernel = none[i];
        BAD(KERNEL, softmax_kernel_in_use(&used, &options));
        BAD(KERNEL, softmax_softmax(&x, &y, &options));
        SAYS(message, "no kernel is called");
        if (i == 0) {
            SAYS(message, "\"sse9\"");
            SAYS(message, "scalar");
        }
    }
    unwatch();
}

static void arithmetic(void) {
    softmax_options options = softmax_options_default();
    GOOD(softmax_softmax(&x, &y, &options));
    CHECK(memcmp(output, plain, sizeof plain) == 0);

    /* A scale is exact: as if the input had been multiplied. */
    float half[ROWS][COLS];
    float wanted[ROWS][COLS];
    for (size_t i = 0; i < ROWS * COLS; i++) {
        half[i / COLS][i % COLS] = input[i / COLS][i % COLS] / 2.0f;
    }
    softmax_matrix h = softmax_matrix_of(half, SOFTMAX_F32, ROWS, COLS);
    softmax_matrix w = softmax_matrix_mut(wanted, SOFTMAX_F32, ROWS, COLS);
    GOOD(softmax_softmax(&h, &w, NULL));
    options.scale = 0.5;
    GOOD(softmax_softmax(&x, &y, &options));
    CHECK(memcmp(output, wanted, sizeof wanted) == 0);
    options.scale = 1.0;
    options.temperature = 2.0;
    GOOD(softmax_softmax(&x, &y, &options));
    CHECK(memcmp(output, wanted, sizeof wanted) == 0);

    /* The limits of the temperature. */
    options.temperature = INFINITY;
    GOOD(softmax_softmax(&x, &y, &options));
    CHECK(near(SOFTMAX_F32, output[0][0], 1.0L / COLS, 1.0, 0.0));
    CHECK(output[0][0] == output[0][COLS - 1]);
    options.temperature = 0.0;
    GOOD(softmax_softmax(&x, &y, &options));
    GOOD(softmax_hardmax(&x, &w, SOFTMAX_TIES_SHARE, NULL));
    CHECK(memcmp(output, wanted, sizeof wanted) == 0);
    GOOD(softmax_log_softmax(&x, &y, &options));
    memset(output, 0xA5, sizeof output);
    watch(output, sizeof output);
    options = told(message, sizeof message);
    options.temperature = 0.0;
    BAD(VALUE, softmax_sigmoid(&x, &y, &options));
    float lse[ROWS];
    memset(lse, 0xA5, sizeof lse);
    watch(lse, sizeof lse);
    BAD(VALUE, softmax_logsumexp(&x, lse, &options));
    SAYS(message, "temperature");

    static const double scales[] = {NAN, -1e-20, -0.0, 0.0, INFINITY, -INFINITY, 1e-20, 2e18};
    for (size_t i = 0; i < sizeof scales / sizeof *scales; i++) {
        options = told(message, sizeof message);
        options.scale = scales[i];
        BAD(VALUE, softmax_softmax(&x, &y, &options));
        SAYS(message, "scale");
        BAD(VALUE, softmax_logsumexp(&x, lse, &options));
    }
    static const double temperatures[] = {NAN, -1.0, -INFINITY, -1e-300};
    for (size_t i = 0; i < sizeof temperatures / sizeof *temperatures; i++) {
        options = told(message, sizeof message);
        options.temperature = temperatures[i];
        BAD(VALUE, softmax_softmax(&x, &y, &options));
        SAYS(message, "temperature");
    }
    options = told(message, sizeof message);
    options.scale = 2.0;
    options.temperature = 2.0;
    BAD(VALUE, softmax_softmax(&x, &y, &options));

    static const uint32_t flags[] = {8, 0x80000000u, UINT32_MAX};
    for (size_t i = 0; i < 3; i++) {
        options = told(message, sizeof message);
        options.flags = flags[i];
        BAD(VALUE, softmax_softmax(&x, &y, &options));
        SAYS(message, "flags");
    }
    options.flags = 8 | SOFTMAX_CACHES;
    BAD(VALUE, softmax_softmax(&x, &y, &options));
    SAYS(message, "0x8 ");
    unwatch();
}

static void sizes(void) {
    softmax_options options = softmax_options_default();
    memset(output, 0xA5, sizeof output);
    STRUCT_SIZES(softmax_options, options, p, softmax_softmax(&x, &y, p));
    /* A struct of zeroes is none. */
    memset(&options, 0, sizeof options);
    watch(output, sizeof output);
    BAD(STRUCT_SIZE, softmax_softmax(&x, &y, &options));
    options.size = sizeof options;
    BAD(VALUE, softmax_softmax(&x, &y, &options));
    unwatch();
}

/* Caches and threads change no bits. */
static void ways(void) {
    enum { MANY = 64, WIDE = 5000 };
    float *big = (float *)memory(MANY * WIDE * sizeof *big);
    float *first = (float *)memory(MANY * WIDE * sizeof *big);
    float *second = (float *)memory(MANY * WIDE * sizeof *big);
    fill_random(SOFTMAX_F32, big, MANY * WIDE, 77);
    softmax_matrix in = softmax_matrix_of(big, SOFTMAX_F32, MANY, WIDE);
    softmax_matrix one = softmax_matrix_mut(first, SOFTMAX_F32, MANY, WIDE);
    softmax_matrix two = softmax_matrix_mut(second, SOFTMAX_F32, MANY, WIDE);
    softmax_options options = softmax_options_default();
    options.threads = 1;
    GOOD(softmax_softmax(&in, &one, &options));
    static const size_t caches[][2] = {
        {0, 0}, {4096, 4096}, {SIZE_MAX, SIZE_MAX}, {SIZE_MAX, 0}, {0, SIZE_MAX}};
    static const size_t threads[] = {0, 1, 2, 3, SIZE_MAX};
    for (size_t i = 0; i < 5; i++) {
        for (size_t j = 0; j < 5; j += quick() ? 2 : 1) {
            for (uint32_t exact = 0; exact <= 2; exact += 2) {
                options = softmax_options_default();
                options.flags = SOFTMAX_CACHES | exact;
                options.cache_core = caches[i][0];
                options.cache_last = caches[i][1];
                options.threads = threads[j];
                memset(second, 0, MANY * WIDE * sizeof *big);
                GOOD(softmax_softmax(&in, &two, &options));
                CHECK(memcmp(first, second, MANY * WIDE * sizeof *big) == 0);
            }
        }
    }
    free(big);
    free(first);
    free(second);
}

static void messages(void) {
    softmax_matrix bad = y;
    bad.cols = COLS - 1;
    memset(message, 0xA5, sizeof message);
    softmax_options options = told(message, sizeof message);
    BAD(SHAPE, softmax_softmax(&x, &bad, &options));
    char whole[400];
    strcpy(whole, message);
    SAYS(whole, "4 x 9");
    /* Cut to what there is room for, always with a 0 at its end. */
    for (size_t n = 0; n < strlen(whole) + 3; n++) {
        memset(message, 0xA5, sizeof message);
        options = told(message, n);
        BAD(SHAPE, softmax_softmax(&x, &bad, &options));
        size_t kept = n == 0 ? 0 : n - 1 < strlen(whole) ? n - 1 : strlen(whole);
        CHECK(memcmp(message, whole, kept) == 0);
        CHECK(n == 0 || message[kept] == 0);
        for (size_t i = n == 0 ? 0 : kept + 1; i < sizeof message; i++) {
            CHECK((unsigned char)message[i] == 0xA5);
        }
    }
    /* None without a place, whatever its size; none if all is well. */
    options = told(NULL, 100);
    BAD(SHAPE, softmax_softmax(&x, &bad, &options));
    memset(message, 0xA5, sizeof message);
    options = told(message, sizeof message);
    GOOD(softmax_softmax(&x, &y, &options));
    CHECK((unsigned char)message[0] == 0xA5);
    /* What is not ASCII is not cut within a character. */
    options.kernel = "\xc3\xa4\xc3\xb6\xc3\xbc";
    for (size_t n = 1; n < 40; n++) {
        options.message_size = n;
        BAD(KERNEL, softmax_softmax(&x, &y, &options));
        size_t len = strlen(message);
        CHECK(len < n && (len == 0 || (unsigned char)message[len - 1] != 0xc3));
    }
}

static void plans(void) {
    softmax_plan plan = softmax_plan_empty();
    softmax_options options = softmax_options_default();
    options.threads = 1;
    /* The data does not count. */
    softmax_matrix shape = softmax_matrix_of(NULL, SOFTMAX_F32, 10, 100);
    for (softmax_op op = SOFTMAX_OP_SOFTMAX; op <= SOFTMAX_OP_HARDMAX; op++) {
        for (int d = 0; d < DTYPES; d++) {
            shape.dtype = dtypes[d];
            plan = softmax_plan_empty();
            GOOD(softmax_plan_of(op, &shape, (int32_t)op % 2, &plan, &options));
            CHECK(plan.size == sizeof plan && plan.threads == 1 && plan.streams <= 1);
            CHECK(plan.kernel != NULL && plan.regime <= SOFTMAX_REGIME_PIECES);
        }
    }
    options.kernel = "portable";
    shape = softmax_matrix_of(NULL, SOFTMAX_F32, 1000, 4);
    GOOD(softmax_plan_of(SOFTMAX_OP_SOFTMAX, &shape, 0, &plan, &options));
    CHECK(plan.regime == SOFTMAX_REGIME_TINY && strcmp(plan.kernel, "portable") == 0);
    options.flags = SOFTMAX_CACHES;
    options.cache_core = 1 << 20;
    options.cache_last = 1 << 22;
    shape = softmax_matrix_of(NULL, SOFTMAX_F32, 2, 1 << 24);
    GOOD(softmax_plan_of(SOFTMAX_OP_SOFTMAX, &shape, 0, &plan, &options));
    /* Rows of softmax go past the caches on some CPUs only, maps of elements on all. */
    CHECK(plan.regime == SOFTMAX_REGIME_PIECES && plan.streams <= 1);
    GOOD(softmax_plan_of(SOFTMAX_OP_SIGMOID, &shape, 0, &plan, &options));
    CHECK(plan.streams == 1);
    GOOD(softmax_plan_of(SOFTMAX_OP_SOFTMAX, &shape, 1, &plan, &options));
    CHECK(plan.streams == 0);

    plan = softmax_plan_empty();
    plan.kernel = "untouched";
    size_t bytes = 1234;
    options = told(message, sizeof message);
    watch(&plan, sizeof plan);
    watch(&bytes, sizeof bytes);
    BAD(NULL_POINTER, softmax_plan_of(SOFTMAX_OP_SOFTMAX, NULL, 0, &plan, NULL));
    BAD(NULL_POINTER, softmax_plan_of(SOFTMAX_OP_SOFTMAX, &shape, 0, NULL, &options));
    SAYS(message, "softmax_plan is null");
    BAD(VALUE, softmax_plan_of(6, &shape, 0, &plan, &options));
    SAYS(message, "the operation 6 does not exist");
    BAD(VALUE, softmax_plan_of(UINT32_MAX, &shape, 0, &plan, NULL));
    BAD(NULL_POINTER, softmax_scratch_size(SOFTMAX_OP_SOFTMAX, NULL, &bytes, NULL));
    BAD(NULL_POINTER, softmax_scratch_size(SOFTMAX_OP_SOFTMAX, &shape, NULL, NULL));
    BAD(ALIGNMENT, softmax_scratch_size(SOFTMAX_OP_SOFTMAX, &shape,
                                        (size_t *)(void *)((char *)&bytes + 1), NULL));
    BAD(VALUE, softmax_scratch_size(6, &shape, &bytes, NULL));
    softmax_matrix bad = shape;
    bad.dtype = SOFTMAX_BOOL;
    BAD(DTYPE, softmax_plan_of(SOFTMAX_OP_SOFTMAX, &bad, 0, &plan, NULL));
    BAD(DTYPE, softmax_scratch_size(SOFTMAX_OP_SOFTMAX, &bad, &bytes, NULL));
    options.kernel = "none";
    BAD(KERNEL, softmax_plan_of(SOFTMAX_OP_SOFTMAX, &shape, 0, &plan, &options));
    BAD(KERNEL, softmax_scratch_size(SOFTMAX_OP_SOFTMAX, &shape, &bytes, &options));
    options = softmax_options_default();
    options.temperature = 0.0;
    BAD(VALUE, softmax_scratch_size(SOFTMAX_OP_LOGSUMEXP, &shape, &bytes, &options));
    unwatch();
    STRUCT_SIZES(softmax_matrix, shape, p, softmax_plan_of(SOFTMAX_OP_SOFTMAX, p, 0, &plan, NULL));
    STRUCT_SIZES(softmax_plan, plan, p,
                 softmax_plan_of(SOFTMAX_OP_SOFTMAX, &shape, 0, (softmax_plan *)(size_t)p, NULL));
    STRUCT_SIZES(softmax_matrix, shape, p, softmax_scratch_size(SOFTMAX_OP_SOFTMAX, p, &bytes, NULL));
    /* A plan of a later version is filled as far as this one knows it, and keeps its size. */
    softmax_plan *later = (softmax_plan *)longer(&plan, sizeof plan, 0);
    later->kernel = NULL;
    GOOD(softmax_plan_of(SOFTMAX_OP_SOFTMAX, &shape, 0, later, NULL));
    CHECK(later->kernel != NULL && later->size == sizeof plan + 24);
    free(later);
    /* Shapes that no memory has: no overflow on the way to the plan, and none to the size. */
    shape = softmax_matrix_of(NULL, SOFTMAX_F64, SIZE_MAX, SIZE_MAX);
    plan = softmax_plan_empty();
    GOOD(softmax_plan_of(SOFTMAX_OP_SOFTMAX, &shape, 0, &plan, NULL));
    GOOD(softmax_scratch_size(SOFTMAX_OP_SOFTMAX, &shape, &bytes, NULL));
    CHECK(bytes > SIZE_MAX / 2);
}

/* All maps of a matrix in memory that is lent: as much as is asked for, starting anywhere. */
static void scratch(void) {
    static const size_t shapes[][2] = {{1, 1}, {4, 9}, {3, 5000}, {1, 70000}, {40, 4000}};
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        size_t rows = shapes[s][0];
        size_t cols = shapes[s][1];
        for (int d = 0; d < (quick() ? 1 : DTYPES); d++) {
            softmax_dtype dtype = dtypes[d];
            size_t bytes = rows * cols * size_of(dtype);
            void *in = memory(bytes);
            void *out = memory(bytes);
            void *wanted = memory(bytes);
            fill_random(dtype, in, rows * cols, 8);
            softmax_matrix a = softmax_matrix_of(in, dtype, rows, cols);
            softmax_matrix b = softmax_matrix_mut(out, dtype, rows, cols);
            softmax_matrix c = softmax_matrix_mut(wanted, dtype, rows, cols);
            for (size_t threads = 0; threads <= 2; threads++) {
                softmax_options options = told(message, sizeof message);
                options.threads = threads;
                options.flags = threads == 2 ? SOFTMAX_THREADS_EXACT : 0;
                size_t needed = 0;
                GOOD(softmax_scratch_size(SOFTMAX_OP_LOG_SOFTMAX, &a, &needed, &options));
                CHECK(needed > 0);
                for (size_t off = 0; off < 9; off += 4) {
                    char *lent = (char *)memory(needed + off + 64);
                    options.scratch = lent + off;
                    options.scratch_size = needed;
                    GOOD(softmax_log_softmax(&a, &c, NULL));
                    GOOD(softmax_log_softmax(&a, &b, &options));
                    CHECK(memcmp(out, wanted, bytes) == 0);
                    for (size_t i = 0; i < 64; i++) {
                        CHECK((unsigned char)lent[needed + off + i] == 0xA5);
                    }
                    for (size_t i = 0; i < off; i++) {
                        CHECK((unsigned char)lent[i] == 0xA5);
                    }
                    memset(out, 0xA5, bytes);
                    watch(out, bytes);
                    options.scratch_size = needed - 1;
                    BAD(SCRATCH, softmax_log_softmax(&a, &b, &options));
                    SAYS(message, "bytes of scratch are needed, got");
                    options.scratch_size = 0;
                    BAD(SCRATCH, softmax_log_softmax(&a, &b, &options));
                    unwatch();
                    free(lent);
                }
            }
            free(in);
            free(out);
            free(wanted);
        }
    }
    /* At every temperature as much as is said is enough, of short rows and of long ones. */
    static const double temperatures[] = {1.0, 0.0, INFINITY};
    static const size_t ways[][2] = {{78, 38}, {3, 5000}, {40, 400}};
    for (size_t w = 0; w < sizeof ways / sizeof *ways; w++) {
        size_t n = ways[w][0] * ways[w][1];
        float *both = (float *)memory(n * sizeof(float));
        softmax_matrix a = softmax_matrix_mut(both, SOFTMAX_F32, ways[w][0], ways[w][1]);
        for (size_t t = 0; t < sizeof temperatures / sizeof *temperatures; t++) {
            fill_random(SOFTMAX_F32, both, n, 9);
            softmax_options options = told(message, sizeof message);
            options.temperature = temperatures[t];
            options.threads = 5;
            options.flags = SOFTMAX_THREADS_EXACT;
            GOOD(softmax_scratch_size(SOFTMAX_OP_SOFTMAX, &a, &options.scratch_size, &options));
            char *lent = (char *)memory(options.scratch_size);
            options.scratch = lent;
            GOOD(softmax_softmax(&a, &a, &options));
            free(lent);
        }
        free(both);
    }
    /* Memory of the call itself is none. */
    size_t needed = 0;
    GOOD(softmax_scratch_size(SOFTMAX_OP_SOFTMAX, &x, &needed, NULL));
    softmax_options options = told(message, sizeof message);
    options.scratch = output;
    options.scratch_size = needed;
    watch(output, sizeof output);
    watch(input, sizeof input);
    BAD(OVERLAP, softmax_softmax(&x, &y, &options));
    SAYS(message, "scratch overlaps output");
    options.scratch = &input[ROWS - 1][COLS - 1];
    BAD(OVERLAP, softmax_softmax(&x, &y, &options));
    float lse[ROWS];
    BAD(OVERLAP, softmax_logsumexp(&x, lse, &options));
    char *lent = (char *)memory(needed);
    options.scratch = lent;
    options.scratch_size = SIZE_MAX;
    BAD(OVERFLOW, softmax_softmax(&x, &y, &options));
    free(lent);
    unwatch();
}

/* Matrices may lie in the gaps between each other's rows, if their strides are equal. */
static void overlaps(void) {
    enum { LONG = 16, STRIDE = 32, AT = 200, LAST = 3 * STRIDE + LONG };
    static const struct {
        int at;
        size_t stride;
        int overlaps;
    } others[] = {{-LAST, STRIDE, 0}, {-LAST + 1, STRIDE, 1}, {LAST, STRIDE, 0},
                  {LAST - 1, STRIDE, 1}, {LONG, STRIDE, 0}, {LONG - 1, STRIDE, 1},
                  {LONG + 1, STRIDE, 1}, {-LONG, STRIDE, 0}, {-LONG + 1, STRIDE, 1},
                  {-LONG - 1, STRIDE, 1}, {LAST, LONG, 0}, {LAST - 1, LONG, 1},
                  {LONG, 48, 1}, {0, 48, 1}};
    static float place[AT + 200 + LAST];
    softmax_matrix a = softmax_matrix_of(place + AT, SOFTMAX_F32, 4, LONG);
    a.stride = STRIDE;
    for (size_t i = 0; i < sizeof others / sizeof *others; i++) {
        softmax_matrix b = softmax_matrix_mut(place + AT + others[i].at, SOFTMAX_F32, 4, LONG);
        b.stride = others[i].stride;
        watch(place, sizeof place);
        if (others[i].overlaps) {
            BAD(OVERLAP, softmax_softmax(&a, &b, NULL));
            BAD(OVERLAP, softmax_softmax(&b, &a, NULL));
        }
        unwatch();
        if (!others[i].overlaps) {
            GOOD(softmax_softmax(&a, &b, NULL));
            GOOD(softmax_softmax(&b, &a, NULL));
        }
    }
    /* Rows of half as many bytes, 128 apart as those of `a`, which are 64 long. */
    static const struct {
        int at;
        int overlaps;
    } halves[] = {{64, 0}, {62, 1}, {96, 0}, {98, 1}, {-32, 0}, {-30, 1}, {-34, 0}, {0, 1}};
    softmax_attention attention = softmax_attention_default(1, 4);
    for (size_t i = 0; i < sizeof halves / sizeof *halves; i++) {
        char *probs = (char *)(place + AT) + halves[i].at;
        softmax_matrix b = softmax_matrix_mut(probs, SOFTMAX_F16, 4, LONG);
        b.stride = 2 * STRIDE;
        watch(place, sizeof place);
        if (halves[i].overlaps) {
            BAD(OVERLAP, softmax_attention_softmax(&a, &b, NULL, &attention, NULL));
        }
        unwatch();
        if (!halves[i].overlaps) {
            GOOD(softmax_attention_softmax(&a, &b, NULL, &attention, NULL));
        }
    }
}

int main(void) {
    fill_random(SOFTMAX_F32, input, ROWS * COLS, 1);
    x = softmax_matrix_of(input, SOFTMAX_F32, ROWS, COLS);
    y = softmax_matrix_of(plain, SOFTMAX_F32, ROWS, COLS);
    GOOD(softmax_softmax(&x, &y, NULL));
    y = softmax_matrix_of(output, SOFTMAX_F32, ROWS, COLS);
    statuses();
    kernels();
    arithmetic();
    sizes();
    ways();
    messages();
    plans();
    scratch();
    overlaps();
    return checked();
}
