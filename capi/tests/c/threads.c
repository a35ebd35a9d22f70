/* The caller's own threads, and calls from several threads at once. */
#include "threads.h"

enum { ROWS = 300, COLS = 1500, N = ROWS * COLS };

/* Many rows, and one row that is worked on in pieces. */
static void same_bits(softmax_dtype dtype, size_t rows, size_t cols) {
    size_t bytes = rows * cols * size_of(dtype);
    void *in = memory(bytes);
    void *wanted = memory(bytes);
    void *out = memory(bytes);
    fill_random(dtype, in, rows * cols, 4);
    softmax_matrix x = softmax_matrix_of(in, dtype, rows, cols);
    softmax_matrix y = softmax_matrix_mut(out, dtype, rows, cols);
    softmax_matrix w = softmax_matrix_mut(wanted, dtype, rows, cols);
    softmax_options serial = softmax_options_default();
    serial.threads = 1;
    GOOD(softmax_softmax(&x, &w, &serial));
    for (int kind = 0; kind < KINDS_OF_THREADS; kind++) {
        for (size_t threads = 1; threads <= 5; threads += quick() ? 4 : 2) {
            counts c = {0, 0, 0};
            softmax_parallel parallel = softmax_parallel_of(&c, threads, kinds_of_threads[kind]);
            softmax_options options = softmax_options_default();
            options.parallel = &parallel;
            memset(out, 0, bytes);
            GOOD(softmax_softmax(&x, &y, &options));
            CHECK(memcmp(out, wanted, bytes) == 0);
            /* As many as the plan says: each row of the scalar kernel is one thread's. */
            softmax_plan plan = softmax_plan_empty();
            GOOD(softmax_plan_of(SOFTMAX_OP_SOFTMAX, &x, 0, &plan, &options));
            CHECK(plan.threads == 1 ? c.calls == 0 : c.calls >= 1 && c.most == plan.threads);
            CHECK(plan.threads == threads || (rows == 1 && strcmp(plan.kernel, "scalar") == 0));
            /* With lent memory, in place. */
            size_t needed = 0;
            GOOD(softmax_scratch_size(SOFTMAX_OP_SOFTMAX, &x, &needed, &options));
            options.scratch = memory(needed);
            options.scratch_size = needed;
            memcpy(out, in, bytes);
            GOOD(softmax_softmax(&y, &y, &options));
            CHECK(memcmp(out, wanted, bytes) == 0);
            free(options.scratch);
        }
    }
    free(in);
    free(wanted);
    free(out);
}

static void numbers(void) {
    float *in = (float *)memory(N * sizeof *in);
    float *out = (float *)memory(N * sizeof *out);
    fill_random(SOFTMAX_F32, in, N, 6);
    softmax_matrix x = softmax_matrix_of(in, SOFTMAX_F32, ROWS, COLS);
    softmax_matrix y = softmax_matrix_mut(out, SOFTMAX_F32, ROWS, COLS);
    counts c = {0, 0, 0};
    softmax_parallel parallel = softmax_parallel_of(&c, 6, serially);
    softmax_options options = softmax_options_default();
    options.parallel = &parallel;
    /* No more than the call may have. */
    options.threads = 2;
    GOOD(softmax_softmax(&x, &y, &options));
    CHECK(c.calls > 0 && c.most == 2);
    options.threads = 1;
    c.calls = 0;
    GOOD(softmax_softmax(&x, &y, &options));
    CHECK(c.calls == 0);
    /* A small call is not shared, unless it has to be. */
    x.rows = 8;
    y.rows = 8;
    options.threads = 2;
    GOOD(softmax_softmax(&x, &y, &options));
    CHECK(c.calls == 0);
    options.flags = SOFTMAX_THREADS_EXACT;
    GOOD(softmax_softmax(&x, &y, &options));
    CHECK(c.calls > 0 && c.most == 2);
    /* The plan knows them. */
    softmax_plan plan = softmax_plan_empty();
    GOOD(softmax_plan_of(SOFTMAX_OP_SOFTMAX, &x, 0, &plan, &options));
    CHECK(plan.threads == 2);
    /* None at all is the thread that calls; a context may be null. */
    c.calls = 0;
    parallel.threads = 0;
    GOOD(softmax_softmax(&x, &y, &options));
    CHECK(c.calls == 0);
    parallel = softmax_parallel_of(NULL, 2, on_threads);
    GOOD(softmax_softmax(&x, &y, &options));
    free(in);
    free(out);
}

static void bad(void) {
    float in[4] = {0.0f, 1.0f, 2.0f, 3.0f};
    float out[4];
    char message[200];
    memset(out, 0xA5, sizeof out);
    softmax_matrix x = softmax_matrix_of(in, SOFTMAX_F32, 2, 2);
    softmax_matrix y = softmax_matrix_mut(out, SOFTMAX_F32, 2, 2);
    softmax_parallel parallel = softmax_parallel_of(NULL, 4, NULL);
    softmax_options options = told(message, sizeof message);
    options.parallel = &parallel;
    watch(out, sizeof out);
    BAD(NULL_POINTER, softmax_softmax(&x, &y, &options));
    SAYS(message, "parallel_for is null");
    parallel.parallel_for = serially;
    parallel.size = 12;
    BAD(STRUCT_SIZE, softmax_softmax(&x, &y, &options));
    SAYS(message, "softmax_parallel of 12 bytes");
    parallel.size = sizeof parallel;
    STRUCT_SIZES(softmax_parallel, parallel, p,
                 (options.parallel = p, softmax_sigmoid(&x, &x, &options)));
    unwatch();
}

/* All other calls that share their work. */
static void other_calls(void) {
    float *in = (float *)memory(N * sizeof *in);
    float *wanted = (float *)memory(N * sizeof *in);
    float *out = (float *)memory(N * sizeof *in);
    fill_random(SOFTMAX_F32, in, N, 60);
    softmax_matrix x = softmax_matrix_of(in, SOFTMAX_F32, ROWS, COLS);
    softmax_matrix w = softmax_matrix_mut(wanted, SOFTMAX_F32, ROWS, COLS);
    softmax_matrix y = softmax_matrix_mut(out, SOFTMAX_F32, ROWS, COLS);
    static float lse[2][ROWS];
    static size_t indices[2][ROWS * 3];
    static float log_probs[2][ROWS * 3];
    static int64_t labels[ROWS];
    static double losses[2][ROWS];
    double loss[2];
    static size_t shape[3] = {ROWS, COLS / 5, 5};
    softmax_attention attention = softmax_attention_default(3, 10);
    attention.flags = SOFTMAX_ATTENTION_CAUSAL;
    softmax_sampler sampler = softmax_sampler_default(5);
    for (int64_t i = 0; i < ROWS; i++) {
        labels[i] = i * 3 % COLS;
    }
    for (int kind = 0; kind < KINDS_OF_THREADS; kind += quick() ? 2 : 1) {
        counts c = {0, 0, 0};
        softmax_parallel parallel = softmax_parallel_of(&c, 3, kinds_of_threads[kind]);
        softmax_options serial = softmax_options_default();
        softmax_options shared = softmax_options_default();
        serial.threads = 1;
        shared.parallel = &parallel;
        size_t calls = 0;
#define SAME(a, b) CHECK(memcmp(a, b, sizeof(a)) == 0)
#define SHARED()                                                   \
    do {                                                           \
        CHECK(c.calls > calls);                                    \
        calls = c.calls;                                           \
    } while (0)
        GOOD(softmax_logsumexp(&x, lse[0], &serial));
        GOOD(softmax_logsumexp(&x, lse[1], &shared));
        SAME(lse[0], lse[1]);
        SHARED();
        GOOD(softmax_argmax(&x, indices[0], &serial));
        GOOD(softmax_argmax(&x, indices[1], &shared));
        SAME(indices[0], indices[1]);
        SHARED();
        GOOD(softmax_top_k(&x, 3, log_probs[0], NULL, indices[0], &serial));
        GOOD(softmax_top_k(&x, 3, log_probs[1], NULL, indices[1], &shared));
        SAME(indices[0], indices[1]);
        SAME(log_probs[0], log_probs[1]);
        SHARED();
        GOOD(softmax_log_probs(&x, indices[0], 3, log_probs[0], lse[0], &serial));
        GOOD(softmax_log_probs(&x, indices[0], 3, log_probs[1], lse[1], &shared));
        SAME(log_probs[0], log_probs[1]);
        SAME(lse[0], lse[1]);
        SHARED();
        GOOD(softmax_sample(&x, indices[0], 3, &sampler, &serial));
        GOOD(softmax_sample(&x, indices[1], 3, &sampler, &shared));
        SAME(indices[0], indices[1]);
        SHARED();
        GOOD(softmax_attention_softmax(&x, &w, lse[0], &attention, &serial));
        GOOD(softmax_attention_softmax(&x, &y, lse[1], &attention, &shared));
        CHECK(memcmp(wanted, out, N * sizeof *out) == 0);
        SAME(lse[0], lse[1]);
        SHARED();
        GOOD(softmax_cross_entropy_labels(&x, labels, losses[0], &loss[0], &w, NULL, &serial));
        GOOD(softmax_cross_entropy_labels(&x, labels, losses[1], &loss[1], &y, NULL, &shared));
        CHECK(memcmp(wanted, out, N * sizeof *out) == 0);
        SAME(losses[0], losses[1]);
        CHECK(loss[0] == loss[1]);
        SHARED();
        GOOD(softmax_softmax_axis(in, wanted, SOFTMAX_F32, shape, 3, 1, &serial));
        GOOD(softmax_softmax_axis(in, out, SOFTMAX_F32, shape, 3, 1, &shared));
        CHECK(memcmp(wanted, out, N * sizeof *out) == 0);
        SHARED();
        GOOD(softmax_softmax_backward(&w, &x, &y, &serial));
        memcpy(wanted, out, N * sizeof *out);
        GOOD(softmax_softmax_axis(in, out, SOFTMAX_F32, shape, 3, 1, &serial));
        float *gradient = (float *)memory(N * sizeof *gradient);
        softmax_matrix g = softmax_matrix_mut(gradient, SOFTMAX_F32, ROWS, COLS);
        GOOD(softmax_softmax_backward(&y, &x, &g, &shared));
        CHECK(memcmp(wanted, gradient, N * sizeof *out) == 0);
        SHARED();
        free(gradient);
    }
    free(in);
    free(wanted);
    free(out);
}

/* What several threads do at the same time: calls of their own, on the pool, on threads of theirs,
 * with wrong sizes. */
typedef struct {
    const float *in;
    const float *wanted;
    int number;
    int wrong;
} caller;

static void *call_again_and_again(void *pointer) {
    caller *c = (caller *)pointer;
    float *out = (float *)malloc(N * sizeof *out);
    char message[200];
    for (int round = 0; round < (quick() ? 1 : 6) && out != NULL; round++) {
        softmax_matrix x = softmax_matrix_of(c->in, SOFTMAX_F32, ROWS, COLS);
        softmax_matrix y = softmax_matrix_mut(out, SOFTMAX_F32, ROWS, COLS);
        softmax_options options = told(message, sizeof message);
        softmax_parallel parallel = softmax_parallel_of(NULL, 2, on_threads);
        if (c->number % 2 == 0) {
            options.parallel = &parallel;
        }
        options.flags = SOFTMAX_THREADS_EXACT;
        options.threads = 2;
        memset(out, 0, N * sizeof *out);
        c->wrong += softmax_softmax(&x, &y, &options) != SOFTMAX_STATUS_OK;
        c->wrong += memcmp(out, c->wanted, N * sizeof *out) != 0;
        char wanted[80];
        y.rows = (size_t)(c->number + 1);
        sprintf(wanted, "the output must be %d x %d, got %d x", ROWS, COLS, c->number + 1);
        c->wrong += softmax_softmax(&x, &y, &options) != SOFTMAX_STATUS_SHAPE;
        c->wrong += strstr(message, wanted) == NULL;
    }
    c->wrong += out == NULL;
    free(out);
    return NULL;
}

static void at_once(void) {
    float *in = (float *)memory(N * sizeof *in);
    float *wanted = (float *)memory(N * sizeof *wanted);
    fill_random(SOFTMAX_F32, in, N, 66);
    softmax_matrix x = softmax_matrix_of(in, SOFTMAX_F32, ROWS, COLS);
    softmax_matrix w = softmax_matrix_mut(wanted, SOFTMAX_F32, ROWS, COLS);
    softmax_options serial = softmax_options_default();
    serial.threads = 1;
    GOOD(softmax_softmax(&x, &w, &serial));
    pthread_t threads[4];
    caller callers[4];
    for (int i = 0; i < 4; i++) {
        caller c = {in, wanted, i, 0};
        callers[i] = c;
        CHECK(pthread_create(&threads[i], NULL, call_again_and_again, &callers[i]) == 0);
    }
    for (int i = 0; i < 4; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
        CHECK(callers[i].wrong == 0);
    }
    free(in);
    free(wanted);
}

int main(void) {
    for (int d = 0; d < (quick() ? 1 : DTYPES); d++) {
        same_bits(dtypes[d], ROWS, COLS);
        same_bits(dtypes[d], 1, N);
    }
    numbers();
    bad();
    other_calls();
    at_once();
    return checked();
}
