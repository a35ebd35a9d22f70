/* Attention over heads, on the program's own threads: causal, with sinks, a row that is split in
 * two shards, a loss with its gradient, and a seeded draw.
 *
 *     cc -std=c99 attention.c $(pkg-config --cflags --libs softmax) -lpthread -o attention && ./attention
 */
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "softmax.h"

enum { HEADS = 4, QUERIES = 3, KEYS = 5, THREADS = 2, VOCABULARY = 2 * SOFTMAX_BLOCK };

/* Stops with what was wrong. */
static void check(softmax_status status, const char *message) {
    if (status != SOFTMAX_STATUS_OK) {
        fprintf(stderr, "%s: %s\n", softmax_status_message(status), message);
        exit(1);
    }
}

/* One of this program's threads, which takes every THREADS-th part. */
struct worker {
    pthread_t thread;
    void (*body)(void *argument, size_t index);
    void *argument;
    size_t first, count;
};

static void *work(void *pointer) {
    struct worker *worker = pointer;
    for (size_t i = worker->first; i < worker->count; i += THREADS)
        worker->body(worker->argument, i);
    return NULL;
}

/* An engine would wake threads that it has; this one makes them. */
static void parallel_for(void *calls, size_t count, void (*body)(void *argument, size_t index),
                         void *argument) {
    struct worker workers[THREADS];
    size_t started = 0;
    ++*(int *)calls;
    for (; started + 1 < THREADS; ++started) {
        struct worker *worker = &workers[started];
        *worker = (struct worker){.body = body, .argument = argument, .first = started, .count = count};
        if (pthread_create(&worker->thread, NULL, work, worker) != 0)
            break;
    }
    /* The calling thread is one of them. What is left out for want of threads, the library does. */
    struct worker own = {.body = body, .argument = argument, .first = started, .count = count};
    work(&own);
    while (started > 0)
        pthread_join(workers[--started].thread, NULL);
}

int main(void) {
    char message[200] = "";
    int calls = 0;
    softmax_parallel threads = softmax_parallel_of(&calls, THREADS, parallel_for);
    softmax_options options = softmax_options_default();
    options.scale = 1.0 / sqrt(64.0);
    options.message = message;
    options.message_size = sizeof message;
    options.parallel = &threads;
    /* So little work would be done by one thread, if these were not asked for. */
    options.threads = THREADS;
    options.flags = SOFTMAX_THREADS_EXACT;

    /* Scores of 4 heads, 3 queries (the last of 5 tokens), 5 keys. */
    float scores[HEADS * QUERIES * KEYS], probs[HEADS * QUERIES * KEYS], lse[HEADS * QUERIES];
    for (size_t i = 0; i < HEADS * QUERIES * KEYS; ++i)
        scores[i] = (float)(i * 7 % 11);
    const float sinks[HEADS] = {0.0f, 0.5f, -1.0f, -INFINITY};
    softmax_attention attention = softmax_attention_default(HEADS, QUERIES);
    attention.flags = SOFTMAX_ATTENTION_CAUSAL;
    attention.sinks = sinks;
    softmax_matrix x = softmax_matrix_of(scores, SOFTMAX_F32, HEADS * QUERIES, KEYS);
    softmax_matrix p = softmax_matrix_mut(probs, SOFTMAX_F32, HEADS * QUERIES, KEYS);
    check(softmax_attention_softmax(&x, &p, lse, &attention, &options), message);
    for (size_t head = 0; head < HEADS; ++head) {
        const float *row = probs + head * QUERIES * KEYS;
        printf("head %zu, first query: %.4f %.4f %.4f %.4f %.4f, log-sum-exp %.4f\n", head, row[0],
               row[1], row[2], row[3], row[4], lse[head * QUERIES]);
        if (row[3] != 0.0f || row[4] != 0.0f)
            return fprintf(stderr, "keys behind the query are seen\n"), 1;
    }
    if (calls == 0)
        return fprintf(stderr, "this program's threads were not asked\n"), 1;

    /* Softmax of rows, and the same row in two shards: the same bits. */
    float *logits = malloc(3 * VOCABULARY * sizeof *logits);
    if (logits == NULL)
        return fprintf(stderr, "no memory\n"), 1;
    float *whole = logits + VOCABULARY, *shards = whole + VOCABULARY;
    for (size_t i = 0; i < VOCABULARY; ++i)
        logits[i] = (float)(i * 2654435761u % 1000) / 100.0f;
    x = softmax_matrix_of(logits, SOFTMAX_F32, 1, VOCABULARY);
    p = softmax_matrix_mut(whole, SOFTMAX_F32, 1, VOCABULARY);
    check(softmax_softmax(&x, &p, &options), message);

    softmax_partial partials[2], row;
    double row_max, *known = NULL;
    softmax_status status;
    do {
        /* Each of these two might be on another machine. */
        for (size_t i = 0; i < 2; ++i)
            check(softmax_partials(logits + i * SOFTMAX_BLOCK, SOFTMAX_F32, SOFTMAX_BLOCK, known,
                                   &partials[i], 1, &options),
                  message);
        status = softmax_merge(partials, 2, &row, &row_max, SOFTMAX_F32, &options);
        known = &row_max;
    } while (status == SOFTMAX_STATUS_AGAIN);
    check(status, message);
    for (size_t i = 0; i < 2; ++i)
        check(softmax_shard_softmax(&row, logits + i * SOFTMAX_BLOCK, shards + i * SOFTMAX_BLOCK,
                                    SOFTMAX_F32, SOFTMAX_BLOCK, &options),
              message);
    if (memcmp(whole, shards, VOCABULARY * sizeof *whole) != 0)
        return fprintf(stderr, "shards differ from the whole row\n"), 1;
    printf("two shards of %d: the bits of the whole row\n", SOFTMAX_BLOCK);

    /* Cross-entropy and its gradient, over the logits themselves. */
    const int64_t label = 123;
    double loss;
    x = softmax_matrix_mut(whole, SOFTMAX_F32, 1, VOCABULARY);
    memcpy(whole, logits, VOCABULARY * sizeof *whole);
    check(softmax_cross_entropy_labels(&x, &label, NULL, &loss, &x, NULL, &options), message);
    printf("loss %.4f, gradient at the label %.4f\n", loss, whole[label]);
    if (!(loss > 0.0 && whole[label] < 0.0f))
        return fprintf(stderr, "a loss must be positive and its label must gain\n"), 1;

    /* A draw that is the same on every machine. */
    softmax_sampler sampler = softmax_sampler_default(42);
    sampler.top_k = 40;
    sampler.top_p = 0.95;
    size_t token;
    x = softmax_matrix_of(logits, SOFTMAX_F32, 1, VOCABULARY);
    check(softmax_sample(&x, &token, 1, &sampler, &options), message);
    printf("seed 42 draws token %zu\n", token);

    /* What is wrong has a name. */
    x.stride = 1;
    x.rows = 2;
    status = softmax_softmax(&x, &x, &options);
    printf("refused: %s\n", message);
    free(logits);
    return status == SOFTMAX_STATUS_STRIDE ? 0 : 1;
}
