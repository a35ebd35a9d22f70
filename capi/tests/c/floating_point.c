/* Whatever floating-point environment the caller's threads have, every function gives the bytes
 * that it gives in the default one, on any threads, and leaves the environment and its flags as
 * they were. */
#include "threads.h"

/* A control word and the flags of exceptions. */
typedef struct {
    uint64_t control;
    uint64_t flags;
} environment;

#if defined(__x86_64__)

static environment environment_now(void) {
    uint32_t word;
    __asm__ volatile("stmxcsr %0" : "=m"(word));
    environment e = {word & 0xffc0u, word & 0x3fu};
    return e;
}

static void set_environment(environment e) {
    uint32_t word = (uint32_t)(e.control | e.flags);
    __asm__ volatile("ldmxcsr %0" : : "m"(word) : "memory");
}

static const environment usual = {0x1f80, 0};

/* Flush to zero is 0x8000, subnormals are zeros 0x40, rounding 0x6000, masks of exceptions are
 * 0x1f80. */
static const environment odd[] = {
    {0x9fc0, 0},    {0x9fc0, 0x3f}, {0x5f80, 0}, {0x3f80, 0x11}, {0x7f80, 0},
    {0x0000, 0},    {0x0000, 0x3f}, {0xe040, 0}, {0x1f80, 0},    {0x1f80, 0x3f},
};

#elif defined(__aarch64__)

static environment environment_now(void) {
    environment e;
    __asm__ volatile("mrs %0, fpcr" : "=r"(e.control));
    __asm__ volatile("mrs %0, fpsr" : "=r"(e.flags));
    return e;
}

static void set_environment(environment e) {
    __asm__ volatile("msr fpcr, %0" : : "r"(e.control) : "memory");
    __asm__ volatile("msr fpsr, %0" : : "r"(e.flags) : "memory");
}

static const environment usual = {0, 0};

/* Flush to zero is bit 24, rounding bits 22 and 23. Traps are not there on all CPUs. */
static const environment odd[] = {
    {1 << 24, 0}, {1 << 24, 0x9f}, {1 << 22, 0}, {2 << 22, 0x11}, {3 << 22, 0}, {0, 0}, {0, 0x9f},
};

#else
#error "the library computes in the caller's environment"
#endif

enum { ENVIRONMENTS = sizeof odd / sizeof *odd };

/* That of the calls. */
static environment now;

static int is_now(environment e) {
    return e.control == now.control && e.flags == now.flags;
}

/* What calls have written, one number for each. */
static uint64_t seen[8000];
static size_t seen_count = 0;
static uint64_t wanted[8000];

/* In the odd environment nothing is done but the call. */
#define CALL_FOR(status, call)                                              \
    do {                                                                    \
        set_environment(now);                                               \
        softmax_status status_ = (call);                                    \
        environment after_ = environment_now();                             \
        set_environment(usual);                                             \
        expect(__FILE__, __LINE__, #call, SOFTMAX_STATUS_##status, status_); \
        if (!is_now(after_)) {                                              \
            fail(__FILE__, __LINE__, #call);                                \
            fprintf(stderr, "    has changed the environment %#x, flags %#x to %#x, %#x\n", \
                    (unsigned)now.control, (unsigned)now.flags, (unsigned)after_.control,   \
                    (unsigned)after_.flags);                                \
        }                                                                   \
    } while (0)

/* Notes the bytes that a call has written, and makes them others. */
static void note_at(int line, void *bytes, size_t size) {
    uint64_t hash = 0xcbf29ce484222325u;
    unsigned char *b = (unsigned char *)bytes;
    for (size_t i = 0; i < size; i++) {
        hash = (hash ^ b[i]) * 0x100000001b3u;
        b[i] = 0xA5;
    }
    if (seen_count == sizeof seen / sizeof *seen) {
        fail(__FILE__, line, "no room for so many results");
        return;
    }
    seen[seen_count] = hash;
    if (wanted[seen_count] == 0) {
        wanted[seen_count] = hash;
    } else if (wanted[seen_count] != hash) {
        fail(__FILE__, line, "other bytes");
        fprintf(stderr, "    result %d, environment %#x\n", (int)seen_count, (unsigned)now.control);
    }
    seen_count += 1;
}

#define NOTE(bytes, size) note_at(__LINE__, bytes, size)

#include "calls.h"

/* The callback runs in the environment of its caller, and so do the threads that it makes. */
static void checked_threads(void *context, size_t count,
                            void (*body)(void *argument, size_t index), void *argument) {
    (void)context;
    environment e = environment_now();
    on_threads(NULL, count, body, argument);
    environment after = environment_now();
    if (e.control != now.control || after.control != now.control) {
        fail(__FILE__, __LINE__, "the callback is called in another environment than the caller's");
    }
}

/* Options that are no numbers, or subnormal ones, are refused. */
static void refused(const softmax_options *options) {
    float in[12] = {0};
    float out[12] = {0};
    size_t drawn[12];
    char message[200];
    softmax_matrix x = softmax_matrix_of(in, SOFTMAX_F32, 1, 12);
    softmax_matrix y = softmax_matrix_mut(out, SOFTMAX_F32, 1, 12);
    static const uint64_t bad[3] = {0x7ff0000000000001u, 0x7ff8000000000000u, 1};
    for (int i = 0; i < 3; i++) {
        softmax_options o = *options;
        o.message = message;
        o.message_size = sizeof message;
        memcpy(&o.scale, &bad[i], sizeof o.scale);
        CALL_FOR(VALUE, softmax_softmax(&x, &y, &o));
        o.scale = 1.0;
        softmax_attention a = softmax_attention_default(1, 1);
        memcpy(&a.soft_cap, &bad[i], sizeof a.soft_cap);
        CALL_FOR(VALUE, softmax_attention_softmax(&x, &y, NULL, &a, &o));
        if (i == 2) {
            continue;
        }
        memcpy(&o.temperature, &bad[i], sizeof o.temperature);
        CALL_FOR(VALUE, softmax_softmax(&x, &y, &o));
        o.temperature = 1.0;
        softmax_sampler s = softmax_sampler_default(1);
        memcpy(&s.top_p, &bad[i], sizeof s.top_p);
        CALL_FOR(VALUE, softmax_sample(&x, drawn, 1, &s, &o));
        s = softmax_sampler_default(1);
        s.step = UINT64_MAX;
        CALL_FOR(VALUE, softmax_sample(&x, drawn, 1, &s, &o));
        softmax_cross_entropy ce = softmax_cross_entropy_default();
        memcpy(&ce.label_smoothing, &bad[i], sizeof ce.label_smoothing);
        double loss = 0.0;
        int64_t label = 0;
        CALL_FOR(VALUE, softmax_cross_entropy_labels(&x, &label, NULL, &loss, NULL, &ce, &o));
    }
}

static void all_at(int kind) {
    seen_count = 0;
    all_calls(kind);
    const softmax_options options = options_of(kind, 1.0);
    refused(&options);
}

/* A large call as it is made without options. */
static void large(void) {
    enum { ROWS = 400, COLS = 1000 };
    void *in = memory(ROWS * COLS * 4);
    void *out = memory(ROWS * COLS * 4);
    fill(SOFTMAX_F32, in, ROWS, COLS, 6);
    softmax_matrix x = softmax_matrix_of(in, SOFTMAX_F32, ROWS, COLS);
    softmax_matrix y = softmax_matrix_mut(out, SOFTMAX_F32, ROWS, COLS);
    CALL(softmax_softmax(&x, &y, NULL));
    free(in);
    free(out);
}

static void *in_odd_thread(void *which) {
    now = odd[*(const int *)which];
    for (int kind = 0; kind < 3; kind++) {
        /* The pool's threads first: those that this thread makes have its environment. */
        all_at((kind + 1) % 3);
    }
    large();
    return NULL;
}

int main(void) {
    own_threads = softmax_parallel_of(NULL, 2, checked_threads);
    set_environment(usual);
    /* What the first environment gives is compared with all others, the default one among them. */
    for (int i = 0; i < (quick() ? 6 : ENVIRONMENTS); i++) {
        pthread_t thread;
        CHECK(pthread_create(&thread, NULL, in_odd_thread, &i) == 0);
        CHECK(pthread_join(thread, NULL) == 0);
    }
    now = usual;
    all_at(0);
    CHECK(seen_count > 500);
    return checked();
}
