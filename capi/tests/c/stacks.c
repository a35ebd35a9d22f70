/* Every call takes less of its thread's stack than the header says. */
#define _DEFAULT_SOURCE
#include "check.h"

#include <pthread.h>
#include <sys/mman.h>

/* What the header says, in bytes. */
enum { LIMIT = 16 << 10 };

/* The thread's stack. Of what is below a call, so much has the pattern: calls that take more are
 * found to take at least that. */
enum { STACK = 512 << 10, PAINTED = 4 * LIMIT, PATTERN = 0xA5 };
static unsigned char *stack;
static unsigned char *painted;

/* The deepest call, and what it is. */
static size_t deepest = 0;
static const char *deepest_call = "";

/* Paints what is below. */
__attribute__((noinline)) static void paint(void) {
    unsigned char *here = (unsigned char *)__builtin_frame_address(0);
    CHECK((size_t)(here - stack) > PAINTED);
    painted = here - PAINTED;
    for (volatile unsigned char *p = painted; p < here - 256; p++) {
        *p = PATTERN;
    }
}

/* How far down the stack was written. */
__attribute__((noinline)) static void measure(const char *call) {
    unsigned char *here = (unsigned char *)__builtin_frame_address(0);
    const volatile unsigned char *p = painted;
    while (p < here && *p == PATTERN) {
        p++;
    }
    size_t depth = (size_t)(here - p);
    if (depth > deepest) {
        deepest = depth;
        deepest_call = call;
    }
    if (depth > LIMIT) {
        fail(__FILE__, __LINE__, call);
        fprintf(stderr, "    takes %d bytes of the stack\n", (int)depth);
    }
}

#define CALL_FOR(status, call)                                                         \
    do {                                                                               \
        paint();                                                                       \
        softmax_status status_ = (call);                                               \
        measure(#call);                                                                \
        expect(__FILE__, __LINE__, #call, SOFTMAX_STATUS_##status, status_);            \
    } while (0)

#define NOTE(bytes, size) memset(bytes, 0, size)

#include "calls.h"

static const char *kernel;

static void *all(void *argument) {
    (void)argument;
    own_threads = softmax_parallel_of(NULL, 2, on_threads);
    for (int kind = 0; kind < 3; kind++) {
        all_calls(kind);
    }
    return NULL;
}

int main(void) {
    stack = (unsigned char *)mmap(NULL, STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                                  -1, 0);
    CHECK(stack != MAP_FAILED);
    pthread_attr_t attributes;
    pthread_t thread;
    CHECK(pthread_attr_init(&attributes) == 0);
    CHECK(pthread_attr_setstack(&attributes, stack, STACK) == 0);
    for (size_t i = 0; softmax_kernel(i, &kernel, NULL) == SOFTMAX_STATUS_OK; i++) {
        int32_t available = 0;
        GOOD(softmax_kernel(i, NULL, &available));
        if (!available) {
            continue;
        }
        kernel_of_all = kernel;
        CHECK(pthread_create(&thread, &attributes, all, NULL) == 0);
        CHECK(pthread_join(thread, NULL) == 0);
        printf("%s: %d bytes at most: %s\n", kernel, (int)deepest, deepest_call);
        deepest = 0;
        if (quick()) {
            break;
        }
    }
    return checked();
}
