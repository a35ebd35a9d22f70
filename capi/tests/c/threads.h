/* A caller's own threads, of several kinds. */
#ifndef THREADS_H
#define THREADS_H

#include "check.h"

#include <pthread.h>

enum { MOST_THREADS = 8 };

/* What has been asked for. */
typedef struct {
    size_t calls;
    size_t bodies;
    size_t most;
} counts;

typedef struct {
    void (*body)(void *argument, size_t index);
    void *argument;
    size_t index;
    pthread_t thread;
    int started;
} job;

static inline void *run_job(void *pointer) {
    job *j = (job *)pointer;
    j->body(j->argument, j->index);
    return NULL;
}

static inline void count_call(void *context, size_t count) {
    counts *c = (counts *)context;
    if (c != NULL) {
        c->calls += 1;
        c->bodies += count;
        c->most = count > c->most ? count : c->most;
    }
}

/* Every call on a thread of its own. */
static inline void on_threads(void *context, size_t count,
                              void (*body)(void *argument, size_t index), void *argument) {
    job jobs[MOST_THREADS];
    count_call(context, count);
    if (count > MOST_THREADS) {
        fail(__FILE__, __LINE__, "more calls than there are threads");
        return;
    }
    for (size_t i = 0; i < count; i++) {
        jobs[i].body = body;
        jobs[i].argument = argument;
        jobs[i].index = i;
        jobs[i].started = pthread_create(&jobs[i].thread, NULL, run_job, &jobs[i]) == 0;
        CHECK(jobs[i].started);
    }
    for (size_t i = 0; i < count; i++) {
        if (jobs[i].started) {
            CHECK(pthread_join(jobs[i].thread, NULL) == 0);
        }
    }
}

/* One after the other, the last one first, on the thread that called. */
static inline void serially(void *context, size_t count,
                            void (*body)(void *argument, size_t index), void *argument) {
    count_call(context, count);
    while (count-- > 0) {
        body(argument, count);
    }
}

/* Leaves out all calls but one. */
static inline void lazily(void *context, size_t count, void (*body)(void *argument, size_t index),
                          void *argument) {
    count_call(context, count);
    if (count > 1) {
        body(argument, 1);
    }
}

/* Leaves out all. */
static inline void not_at_all(void *context, size_t count,
                              void (*body)(void *argument, size_t index), void *argument) {
    (void)body;
    (void)argument;
    count_call(context, count);
}

typedef void (*parallel_for)(void *context, size_t count,
                             void (*body)(void *argument, size_t index), void *argument);

static const parallel_for kinds_of_threads[] = {on_threads, serially, lazily, not_at_all};
enum { KINDS_OF_THREADS = 4 };

#endif
