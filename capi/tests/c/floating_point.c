/* Whatever floating-point environment the caller's threads have, every function gives the bytes that it gives in the default one, on any threads, and leaves
 * the environment and its flags as they were. */
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

/* Flush to zero is 0x8000, subnormals are zeros 0x40, rounding 0x6000, masks of exceptions are 0x1f80. */
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

/* tests/c.rs looks for one of every function. */
#define CALL(call) CALL_FOR(OK, call)

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

/* Within -50 to 50, with subnormal numbers and -inf; NaN, a signalling one, +inf and nothing but -inf in the first rows, if there are others. */
static void fill(softmax_dtype dtype, void *x, size_t rows, size_t cols, uint32_t seed) {
    uint32_t state = seed;
    size_t size = size_of(dtype);
    for (size_t i = 0; i < rows * cols; i++) {
        uint32_t random = next_random(&state);
        put(dtype, x, i, ((int)(random % 6401) - 3200) / 64.0);
        if (random % 61 == 0) {
            uint64_t subnormal = random % 50 + 1;
            memcpy((char *)x + i * size, &subnormal, size);
        }
        if (random % 67 == 0) {
            put(dtype, x, i, -INFINITY);
        }
    }
    if (rows < 8) {
        return;
    }
    put(dtype, x, cols / 2, NAN);
    uint64_t signalling = dtype == SOFTMAX_F64   ? 0x7ff0000000000001u
                          : dtype == SOFTMAX_F32 ? 0x7f800001u
                          : dtype == SOFTMAX_F16 ? 0x7c01u
                                                 : 0x7f81u;
    memcpy((char *)x + (2 * cols - 1) * size, &signalling, size);
    put(dtype, x, 2 * cols, INFINITY);
    for (size_t i = 3 * cols; i < 4 * cols; i++) {
        put(dtype, x, i, -INFINITY);
    }
}

/* Probabilities are targets that every dtype has. */
static void fill_probs(softmax_dtype dtype, void *q, size_t rows, size_t cols) {
    for (size_t i = 0; i < rows * cols; i++) {
        put(dtype, q, i, i % cols == 1 ? 0.75 : i % cols == 0 ? 0.25 : 0.0);
    }
}

/* The callback runs in the environment of its caller, and the threads that it makes have it, too. */
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

static softmax_parallel own_threads;

/* Kinds of threads: the caller's own thread, the pool's, threads that the caller makes. */
static softmax_options options_of(int kind, double scale) {
    softmax_options options = softmax_options_default();
    options.scale = scale;
    options.threads = kind == 0 ? 1 : 2;
    options.flags = kind == 0 ? 0 : SOFTMAX_THREADS_EXACT;
    options.parallel = kind == 2 ? &own_threads : NULL;
    return options;
}

static void maps(softmax_dtype dtype, size_t rows, size_t cols, const softmax_options *options) {
    size_t bytes = rows * cols * size_of(dtype);
    size_t results = size_of(computed(dtype));
    void *in = memory(bytes);
    void *out = memory(bytes);
    size_t *indices = (size_t *)memory(rows * 3 * sizeof *indices);
    char *logs = (char *)memory(rows * 3 * results);
    char *lse = (char *)memory(rows * results);
    fill(dtype, in, rows, cols, (uint32_t)(rows + cols));
    softmax_matrix x = softmax_matrix_of(in, dtype, rows, cols);
    softmax_matrix y = softmax_matrix_mut(out, dtype, rows, cols);

    CALL(softmax_softmax(&x, &y, options));
    NOTE(out, bytes);
    memcpy(out, in, bytes);
    CALL(softmax_softmax(&y, &y, options));
    NOTE(out, bytes);
    CALL(softmax_log_softmax(&x, &y, options));
    NOTE(out, bytes);
    CALL(softmax_sigmoid(&x, &y, options));
    NOTE(out, bytes);
    CALL(softmax_log_sigmoid(&x, &y, options));
    NOTE(out, bytes);
    CALL(softmax_hardmax(&x, &y, SOFTMAX_TIES_SHARE, options));
    NOTE(out, bytes);
    CALL(softmax_logsumexp(&x, lse, options));
    NOTE(lse, rows * size_of(dtype));
    CALL(softmax_argmax(&x, indices, options));
    NOTE(indices, rows * sizeof *indices);
    for (size_t i = 0; i < rows * 3; i++) {
        indices[i] = i * 7 % cols;
    }
    CALL(softmax_log_probs(&x, indices, 3, logs, lse, options));
    NOTE(logs, rows * 3 * results);
    NOTE(lse, rows * results);
    size_t k = cols < 3 ? cols : 3;
    CALL(softmax_top_k(&x, k, indices, logs, options));
    NOTE(indices, rows * k * sizeof *indices);
    NOTE(logs, rows * k * results);
    softmax_options limit = *options;
    limit.scale = 1.0;
    for (int cold = 0; cold < 2; cold++) {
        limit.temperature = cold ? 0.0 : INFINITY;
        CALL(softmax_softmax(&x, &y, &limit));
        NOTE(out, bytes);
    }
    /* The constants of a temperature. */
    limit.temperature = 0.7;
    CALL(softmax_softmax(&x, &y, &limit));
    NOTE(out, bytes);

    softmax_plan plan = softmax_plan_empty();
    CALL(softmax_plan_of(SOFTMAX_OP_SOFTMAX, &x, 0, &plan, options));
    size_t needed = 0;
    CALL(softmax_scratch_size(SOFTMAX_OP_SOFTMAX, &x, &needed, options));
    CALL(softmax_attention_scratch_size(&x, &y, &needed, options));
    CALL(softmax_cross_entropy_scratch_size(&x, &needed, options));
    const char *name = NULL;
    CALL(softmax_kernel_in_use(&name, options));
    CALL(softmax_kernel(0, &name, NULL));
    free(in);
    free(out);
    free(indices);
    free(logs);
    free(lse);
}

static void losses(softmax_dtype dtype, size_t rows, size_t cols, const softmax_options *options) {
    size_t bytes = rows * cols * size_of(dtype);
    void *in = memory(bytes);
    void *out = memory(bytes);
    void *probs = memory(bytes);
    double *each = (double *)memory(rows * sizeof *each);
    double *factors = (double *)memory(rows * sizeof *factors);
    int64_t *labels = (int64_t *)memory(rows * sizeof *labels);
    float *weights = (float *)memory(cols * sizeof *weights);
    double loss = 0.0;
    fill(dtype, in, rows, cols, 5);
    fill_probs(dtype, probs, rows, cols);
    for (size_t i = 0; i < rows; i++) {
        labels[i] = i % 5 == 4 ? -100 : (int64_t)(i * 11 % cols);
        factors[i] = (double)(i % 7) / 3.0;
    }
    for (size_t i = 0; i < cols; i++) {
        weights[i] = (float)(i % 3) / 3.0f;
    }
    softmax_matrix x = softmax_matrix_of(in, dtype, rows, cols);
    softmax_matrix y = softmax_matrix_mut(out, dtype, rows, cols);
    softmax_matrix q = softmax_matrix_of(probs, dtype, rows, cols);
    for (int which = 0; which < 4; which++) {
        softmax_cross_entropy ce = softmax_cross_entropy_default();
        if (which % 2 == 1) {
            ce.label_smoothing = 0.1;
            ce.z_loss = 0.01;
            ce.weights = weights;
            ce.row_factors = factors;
            ce.gradient_factor = 1.0 / 3.0;
        }
        if (which == 2) {
            ce.flags = SOFTMAX_CROSS_ENTROPY_DIVERGENCE;
            ce.reduction = SOFTMAX_REDUCTION_SUM;
        }
        CALL(softmax_cross_entropy_labels(&x, labels, each, &loss, &y, &ce, options));
        NOTE(each, rows * sizeof *each);
        NOTE(&loss, sizeof loss);
        NOTE(out, bytes);
        CALL(softmax_cross_entropy_labels(&x, labels, NULL, &loss, NULL, &ce, options));
        NOTE(&loss, sizeof loss);
        CALL(softmax_cross_entropy_probs(&x, &q, each, &loss, &y, &ce, options));
        CALL(softmax_cross_entropy_reduce(each, rows, 3.0, &loss));
        NOTE(&loss, sizeof loss);
        NOTE(each, rows * sizeof *each);
        NOTE(out, bytes);
        CALL(softmax_cross_entropy_divisor(labels, rows, cols, &loss, &ce, options));
        NOTE(&loss, sizeof loss);
    }
    CALL(softmax_softmax_backward(&q, &x, &y, options));
    NOTE(out, bytes);
    CALL(softmax_log_softmax_backward(&x, &q, &y, options));
    NOTE(out, bytes);
    double perplexity = 0.0;
    CALL(softmax_perplexity(probs, dtype, rows * cols, &perplexity));
    NOTE(&perplexity, sizeof perplexity);
    free(in);
    free(out);
    free(probs);
    free(each);
    free(factors);
    free(labels);
    free(weights);
}

static void attention(softmax_dtype dtype, size_t heads, size_t queries, size_t keys,
                      const softmax_options *options) {
    size_t rows = heads * queries;
    size_t bytes = rows * keys * size_of(dtype);
    void *in = memory(bytes);
    void *out = memory(bytes);
    float *mask = (float *)memory(rows * keys * sizeof *mask);
    float *slopes = (float *)memory(heads * sizeof *slopes);
    char *lse = (char *)memory(rows * size_of(computed(dtype)));
    fill(dtype, in, rows, keys, 3);
    fill(SOFTMAX_F32, mask, rows, keys, 4);
    for (size_t i = 0; i < heads; i++) {
        slopes[i] = 1.0f / (float)(3 * i + 3);
    }
    softmax_matrix x = softmax_matrix_of(in, dtype, rows, keys);
    softmax_matrix y = softmax_matrix_mut(out, dtype, rows, keys);
    for (int which = 0; which < 3; which++) {
        softmax_attention a = softmax_attention_default(heads, queries);
        if (which > 0) {
            a.flags = SOFTMAX_ATTENTION_CAUSAL;
            a.mask = mask;
            a.mask_dtype = SOFTMAX_F32;
            a.mask_shape[0] = 1;
            a.mask_shape[1] = heads;
            a.mask_shape[2] = queries;
        }
        if (which > 1) {
            a.soft_cap = 30.0;
            a.mask_slopes = slopes;
            a.alibi = slopes;
            a.sinks = slopes;
        }
        CALL(softmax_attention_softmax(&x, &y, lse, &a, options));
        NOTE(out, bytes);
        NOTE(lse, rows * size_of(computed(dtype)));
    }
    free(in);
    free(out);
    free(mask);
    free(slopes);
    free(lse);
}

static void draws(softmax_dtype dtype, size_t rows, size_t cols, const softmax_options *options) {
    void *in = memory(rows * cols * size_of(dtype));
    size_t *drawn = (size_t *)memory(rows * 4 * sizeof *drawn);
    fill(dtype, in, rows, cols, 8);
    softmax_matrix x = softmax_matrix_of(in, dtype, rows, cols);
    static const size_t tokens[3] = {1, 0, 1};
    static const size_t starts[2] = {0, 3};
    static const float bias[3] = {1e-40f, 0.3f, 0.1f};
    for (int which = 0; which < 6; which++) {
        softmax_sampler s = softmax_sampler_default(3);
        s.temperature = which == 4 ? 0.0 : which == 5 ? INFINITY : 1.3;
        s.method = which == 1 ? SOFTMAX_METHOD_GUMBEL_MAX : SOFTMAX_METHOD_INVERSE_CDF;
        s.order = which == 2 ? SOFTMAX_ORDER_LLAMA_CPP : SOFTMAX_ORDER_TRANSFORMERS;
        if (which > 1) {
            s.top_k = 30;
            s.top_p = 0.9;
            s.min_p = 0.001;
            s.typical_p = 0.95;
            s.repetition_penalty = 1.1;
            s.presence_penalty = 0.2;
            s.frequency_penalty = 0.3;
            s.bias_tokens = tokens;
            s.bias = bias;
            s.bias_count = 3;
            s.history = tokens;
            s.history_starts = starts;
            s.history_count = 1;
        }
        CALL(softmax_sample(&x, drawn, 4, &s, options));
        NOTE(drawn, rows * 4 * sizeof *drawn);
        size_t needed = 0;
        CALL(softmax_sample_scratch_size(&x, &s, &needed, options));
    }
    free(in);
    free(drawn);
}

static void tensors(softmax_dtype dtype, const softmax_options *options) {
    static const size_t shape[3] = {7, 40, 30};
    enum { N = 7 * 40 * 30 };
    size_t bytes = N * size_of(dtype);
    void *in = memory(bytes);
    void *out = memory(bytes);
    fill(dtype, in, 7 * 40, 30, 9);
    for (ptrdiff_t axis = 0; axis < 3; axis++) {
        CALL(softmax_softmax_axis(in, out, dtype, shape, 3, axis, options));
        NOTE(out, bytes);
        CALL(softmax_log_softmax_axis(in, out, dtype, shape, 3, axis, options));
        NOTE(out, bytes);
        size_t needed = 0;
        CALL(softmax_axis_scratch_size(dtype, shape, 3, axis, &needed, options));
    }
    free(in);
    free(out);
}

static void shards(softmax_dtype dtype, double shift, const softmax_options *options) {
    enum { BLOCKS = 3, N = 2 * SOFTMAX_BLOCK + 77 };
    size_t bytes = N * size_of(dtype);
    void *in = memory(bytes);
    void *out = memory(bytes);
    softmax_partial partials[BLOCKS];
    softmax_partial row;
    double max = 0.0;
    double lse = 0.0;
    size_t count = 0;
    fill_random(dtype, in, N, 12);
    for (size_t i = 0; i < N; i++) {
        put(dtype, in, i, shift == 0.0 ? get(dtype, in, i) * 4.0 : shift + (double)(i % 2));
    }
    CALL(softmax_partial_count(N, &count));
    CALL(softmax_partials(in, dtype, N, NULL, partials, count, options));
    const softmax_partial *all = partials;
    set_environment(now);
    softmax_status status = softmax_merge(dtype, all, count, &row, &max, options);
    environment after = environment_now();
    set_environment(usual);
    CHECK(is_now(after));
    if (shift != 0.0) {
        CHECK(status == SOFTMAX_STATUS_AGAIN);
        CALL(softmax_partials(in, dtype, N, &max, partials, count, options));
    }
    CALL(softmax_merge(dtype, all, count, &row, &max, options));
    softmax_partial copy = row;
    NOTE(partials, sizeof partials);
    NOTE(&copy, sizeof copy);
    CALL(softmax_shard_softmax(in, out, dtype, N, &row, options));
    NOTE(out, bytes);
    CALL(softmax_shard_log_softmax(in, out, dtype, N, &row, options));
    NOTE(out, bytes);
    CALL(softmax_shard_logsumexp(dtype, &row, &lse, options));
    NOTE(&lse, size_of(dtype));
    free(in);
    free(out);
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

static void all_calls(int kind) {
    seen_count = 0;
    const softmax_options serial = options_of(0, 1.0);
    /* Shared among threads. */
    const softmax_options shared = options_of(kind, 1.0);
    const softmax_options scaled = options_of(kind, 1.0 / 3.0);
    for (int d = 0; d < DTYPES; d++) {
        softmax_dtype dtype = dtypes[d];
        maps(dtype, 1, 10, &serial);
        maps(dtype, 1, 1, &shared);
        maps(dtype, 21, 10, &shared);
        maps(dtype, 9, 100, &scaled);
        maps(dtype, 9, 1100, &shared);
        maps(dtype, 2, 9000, &scaled);
        maps(dtype, 1, 9000, &shared);
        losses(dtype, 9, 33, &shared);
        losses(dtype, 9, 1001, &scaled);
        attention(dtype, 2, 5, 50, &shared);
        attention(dtype, 2, 5, 500, &scaled);
        draws(dtype, 9, 1000, &shared);
        tensors(dtype, &shared);
        shards(dtype, 0.0, &scaled);
        if (dtype != SOFTMAX_F16) {
            shards(dtype, 131072.0, &serial);
        }
    }
    refused(&shared);
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
        all_calls((kind + 1) % 3);
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
    all_calls(0);
    CHECK(seen_count > 500);
    return checked();
}
