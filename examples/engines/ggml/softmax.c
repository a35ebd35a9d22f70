/* The softmax of attention in ggml, by its own operation and by this library's as a custom one that
 * runs on ggml's threads: checked against each other, and timed. run.sh builds it. Arguments:
 * rounds.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "ggml-cpu.h"
#include "ggml.h"
#include "softmax.h"

enum { KEYS = 1024, QUERIES = 512, HEADS = 16, MOST_THREADS = 64 };

/* What the custom operation is to do. */
struct task {
    float scale;
    /* One matrix of f32 for all heads, which is added to the scores; or none. */
    const struct ggml_tensor *mask;
    int causal;
    /* What became of each thread's part. */
    softmax_status statuses[MOST_THREADS];
};

/* A thread's share of the heads: ggml calls this on all of its threads. */
static void attention_softmax(struct ggml_tensor *probs, const struct ggml_tensor *scores, int thread,
                              int threads, void *argument) {
    struct task *task = argument;
    const size_t keys = (size_t)scores->ne[0], queries = (size_t)scores->ne[1];
    const size_t heads = (size_t)(scores->ne[2] * scores->ne[3]);
    const size_t first = heads * (size_t)thread / (size_t)threads;
    const size_t last = heads * ((size_t)thread + 1) / (size_t)threads;
    softmax_options options = softmax_options_default();
    options.scale = task->scale;
    options.threads = 1;
    softmax_attention attention = softmax_attention_default(last - first, queries);
    if (task->mask != NULL) {
        attention.mask = task->mask->data;
        attention.mask_dtype = SOFTMAX_F32;
        attention.mask_shape[0] = attention.mask_shape[1] = 1;
        attention.mask_shape[2] = queries;
    }
    if (task->causal)
        attention.flags |= SOFTMAX_ATTENTION_CAUSAL;
    const size_t offset = first * queries * keys * sizeof(float);
    const size_t rows = (last - first) * queries;
    const softmax_matrix x =
        softmax_matrix_of((const char *)scores->data + offset, SOFTMAX_F32, rows, keys);
    const softmax_matrix y =
        softmax_matrix_mut((char *)probs->data + offset, SOFTMAX_F32, rows, keys);
    task->statuses[thread] = softmax_attention_softmax(&x, &y, NULL, &attention, &options);
}

static double now(void) {
    struct timespec t;
    timespec_get(&t, TIME_UTC);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int ascending(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void fail(const char *what) {
    fprintf(stderr, "%s\n", what);
    exit(1);
}

/* The largest relative difference of two results; infinite if one sees a key that the other does
 * not. */
static double most_different(const float *a, const float *b) {
    double most = 0.0;
    for (size_t i = 0; i < (size_t)KEYS * QUERIES * HEADS; ++i) {
        if ((a[i] == 0.0f) != (b[i] == 0.0f))
            return INFINITY;
        if (b[i] != 0.0f)
            most = fmax(most, fabs((double)a[i] - b[i]) / b[i]);
    }
    return most;
}

enum { OWN, MASKED, CAUSAL, WAYS };

int main(int argc, char **argv) {
    const int rounds = argc > 1 ? atoi(argv[1]) : 31;
    const int threads = argc > 2 ? atoi(argv[2]) : 1;
    if (rounds < 1 || threads < 1 || threads > MOST_THREADS)
        fail("usage: softmax ROUNDS THREADS");
    const float scale = 1.0f / sqrtf(128.0f);
    struct ggml_init_params params = {.mem_size = (size_t)256 << 20};
    struct ggml_context *context = ggml_init(params);
    struct ggml_tensor *scores = ggml_new_tensor_3d(context, GGML_TYPE_F32, KEYS, QUERIES, HEADS);
    struct ggml_tensor *mask = ggml_new_tensor_2d(context, GGML_TYPE_F32, KEYS, QUERIES);
    float *x = scores->data, *m = mask->data;
    for (size_t i = 0; i < (size_t)KEYS * QUERIES * HEADS; ++i)
        x[i] = (float)(i * 2654435761u % 4001) / 100.0f - 20.0f;
    /* The queries are the last of the tokens. */
    for (size_t q = 0; q < QUERIES; ++q)
        for (size_t k = 0; k < KEYS; ++k)
            m[q * KEYS + k] = k <= q + KEYS - QUERIES ? 0.0f : -INFINITY;

    struct task masked = {.scale = scale, .mask = mask}, causal = {.scale = scale, .causal = 1};
    struct ggml_tensor *probs[WAYS] = {
        ggml_soft_max_ext(context, scores, mask, scale, 0.0f),
        ggml_map_custom1(context, scores, attention_softmax, GGML_N_TASKS_MAX, &masked),
        ggml_map_custom1(context, scores, attention_softmax, GGML_N_TASKS_MAX, &causal),
    };
    struct ggml_cgraph *graphs[WAYS];
    struct ggml_cplan plans[WAYS];
    struct ggml_threadpool_params pool_params = ggml_threadpool_params_default(threads);
    struct ggml_threadpool *pool = ggml_threadpool_new(&pool_params);
    double *times[WAYS];
    for (int way = 0; way < WAYS; ++way) {
        graphs[way] = ggml_new_graph(context);
        ggml_build_forward_expand(graphs[way], probs[way]);
        plans[way] = ggml_graph_plan(graphs[way], threads, pool);
        plans[way].work_data = malloc(plans[way].work_size + 1);
        times[way] = malloc((size_t)rounds * sizeof(double));
        if (plans[way].work_data == NULL || times[way] == NULL)
            fail("no memory");
    }
    /* The first round warms up. */
    for (int round = -1; round < rounds; ++round)
        for (int way = 0; way < WAYS; ++way) {
            const double start = now();
            if (ggml_graph_compute(graphs[way], &plans[way]) != GGML_STATUS_SUCCESS)
                fail("ggml has failed");
            if (round >= 0)
                times[way][round] = now() - start;
        }
    for (int thread = 0; thread < threads; ++thread)
        if (masked.statuses[thread] != SOFTMAX_STATUS_OK || causal.statuses[thread] != SOFTMAX_STATUS_OK)
            fail(softmax_status_message((int)masked.statuses[thread]));

    /* Ours differ by their roundings, 3 ULP each; ggml's also by what x - max loses, 2^-24 of up to
     * 40, and by its exp. */
    const double ulps = most_different(probs[MASKED]->data, probs[CAUSAL]->data);
    const double difference = most_different(probs[OWN]->data, probs[CAUSAL]->data);
    if (!(ulps < 6.0 / (1 << 23) && difference < 1e-4))
        fail("they differ");

    static const char *names[WAYS] = {"ggml's own, with a mask", "softmax, with the mask",
                                      "softmax, causal"};
    double medians[WAYS];
    for (int way = 0; way < WAYS; ++way) {
        qsort(times[way], (size_t)rounds, sizeof(double), ascending);
        medians[way] = times[way][rounds / 2];
        printf("%-24s %7.3f ms  %.2fx\n", names[way], medians[way] * 1e3, medians[OWN] / medians[way]);
    }
    printf("%d heads of %d queries and %d keys, %d threads of ggml; largest relative difference from ggml %.1e\n",
           HEADS, QUERIES, KEYS, threads, difference);
    ggml_threadpool_free(pool);
    for (int way = 0; way < WAYS; ++way) {
        free(plans[way].work_data);
        free(times[way]);
    }
    ggml_free(context);
    return 0;
}
