/* Calls in forked processes, where no thread can be made, and when the program ends. */
#define _DEFAULT_SOURCE
#include "threads.h"

#include <errno.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

enum { ROWS = 300, COLS = 1000, N = ROWS * COLS };

static float *in;
static float *wanted;

/* Rows, and one row in pieces: `n` elements. */
typedef struct {
    size_t rows;
    size_t cols;
} shape;

static const shape shapes[] = {{ROWS, COLS}, {1, N}, {5, 10}};
enum { SHAPES = 3 };

/* Serially, before any thread is there. */
static void compute_wanted(void) {
    in = (float *)memory(N * sizeof *in);
    wanted = (float *)memory(SHAPES * N * sizeof *wanted);
    fill_random(SOFTMAX_F32, in, N, 70);
    softmax_options serial = softmax_options_default();
    serial.threads = 1;
    for (int i = 0; i < SHAPES; i++) {
        softmax_matrix x = softmax_matrix_of(in, SOFTMAX_F32, shapes[i].rows, shapes[i].cols);
        softmax_matrix y = softmax_matrix_mut(wanted + i * N, SOFTMAX_F32, x.rows, x.cols);
        GOOD(softmax_softmax(&x, &y, &serial));
    }
}

/* How many of these calls fail or give other bytes, with so many threads (0: as many as pay). */
static int wrong(size_t threads, const softmax_parallel *parallel) {
    float *out = (float *)memory(N * sizeof *out);
    int wrong = 0;
    for (int i = 0; i < SHAPES; i++) {
        size_t n = shapes[i].rows * shapes[i].cols;
        softmax_matrix x = softmax_matrix_of(in, SOFTMAX_F32, shapes[i].rows, shapes[i].cols);
        softmax_matrix y = softmax_matrix_mut(out, SOFTMAX_F32, x.rows, x.cols);
        softmax_options options = softmax_options_default();
        options.threads = threads;
        options.flags = threads > 1 ? SOFTMAX_THREADS_EXACT : 0;
        options.parallel = parallel;
        memset(out, 0, n * sizeof *out);
        wrong += softmax_softmax(&x, &y, &options) != SOFTMAX_STATUS_OK;
        wrong += memcmp(out, wanted + i * N, n * sizeof *out) != 0;
    }
    free(out);
    return wrong;
}

static size_t planned_threads(void) {
    softmax_matrix x = softmax_matrix_of(in, SOFTMAX_F32, ROWS, COLS);
    softmax_plan plan = softmax_plan_empty();
    softmax_options options = softmax_options_default();
    options.threads = 2;
    options.flags = SOFTMAX_THREADS_EXACT;
    GOOD(softmax_plan_of(SOFTMAX_OP_SOFTMAX, &x, 0, &plan, &options));
    return plan.threads;
}

/* Runs a function in a child, which must return 0 within a minute or two. */
static int in_child(int (*function)(void)) {
    pid_t child = fork();
    if (child == 0) {
        alarm(quick() ? 300 : 100);
        failures = 0;
        _exit((function() != 0) | checked());
    }
    int status = -1;
    CHECK(child > 0 && waitpid(child, &status, 0) == child);
    return status;
}

static int calls(void) {
    return wrong(2, NULL) + wrong(0, NULL) + wrong(1, NULL);
}

/* In a child of a process that has the pool: alone, or with threads of its own; its children, too.
 * Memory can be given back. */
static int calls_alone(void) {
    int bad = calls();
    CHECK(planned_threads() == 1);
    softmax_parallel parallel = softmax_parallel_of(NULL, 2, on_threads);
    bad += wrong(2, &parallel);
    softmax_release_scratch();
    bad += calls();
    CHECK(in_child(calls) == 0);
    return bad;
}

/* Those that have not called before have the pool for themselves. */
static int calls_together(void) {
    CHECK(planned_threads() == 2 || sysconf(_SC_NPROCESSORS_ONLN) < 2 ||
          getenv("SOFTMAX_KERNEL") != NULL);
    return calls() + (in_child(calls_alone) != 0);
}

static volatile int stop;

static void *call_until_stopped(void *count) {
    for (int i = 0; !stop && i < 100000; i++) {
        *(int *)count += i % 2 == 0 ? wrong(2, NULL) : wrong(0, NULL);
        softmax_release_scratch();
    }
    return NULL;
}

/* Forks while other threads are in calls; the first of these have just begun. */
static int forks_amid_calls(void) {
    pthread_t threads[3];
    int counts[3] = {0, 0, 0};
    stop = 0;
    for (int i = 0; i < 3; i++) {
        CHECK(pthread_create(&threads[i], NULL, call_until_stopped, &counts[i]) == 0);
    }
    for (int i = 0; i < (quick() ? 2 : 10); i++) {
        usleep((useconds_t)(i * 50));
        CHECK(in_child(calls) == 0);
    }
    stop = 1;
    for (int i = 0; i < 3; i++) {
        CHECK(pthread_join(threads[i], NULL) == 0);
        CHECK(counts[i] == 0);
    }
    return 0;
}

static void *nothing(void *argument) {
    return argument;
}

/* Where no thread can be made, the calls are done by the one that there is, in silence. */
static int calls_without_threads(void) {
    struct rlimit none = {0, 0};
    int said[2];
    CHECK(setrlimit(RLIMIT_NPROC, &none) == 0 && pipe(said) == 0);
    /* The limit is not for root. */
    CHECK(geteuid() != 0 || setuid(65534) == 0);
    pthread_t thread;
    CHECK(pthread_create(&thread, NULL, nothing, NULL) == EAGAIN);
    int own = dup(2);
    CHECK(own >= 0 && dup2(said[1], 2) == 2);
    int bad = calls();
    size_t threads = planned_threads();
    char byte;
    CHECK(dup2(own, 2) == 2 && close(said[1]) == 0);
    CHECK(read(said[0], &byte, 1) == 0);
    CHECK(threads == 1);
    return bad;
}

/* The thread that ends the program has no memory of its own any more. */
static void at_exit(void) {
    if (calls() != 0) {
        _exit(1);
    }
}

static int calls_first_at_exit(void) {
    CHECK(atexit(at_exit) == 0);
    exit(0);
}

int main(void) {
    compute_wanted();
    /* Here nothing has been shared among threads yet. */
    CHECK(in_child(calls_together) == 0);
    CHECK(in_child(calls_without_threads) == 0);
    CHECK(in_child(calls_first_at_exit) == 0);
    for (int i = 0; i < (quick() ? 1 : 20); i++) {
        CHECK(in_child(forks_amid_calls) == 0);
    }
    CHECK(calls_together() == 0);
    CHECK(forks_amid_calls() == 0);
    CHECK(atexit(at_exit) == 0);
    return checked();
}
