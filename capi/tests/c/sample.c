/* Draws. */
#include "check.h"

enum { ROWS = 6, COLS = 8, N = ROWS * COLS };

static void values(void) {
    for (int d = 0; d < DTYPES; d++) {
        softmax_dtype dtype = dtypes[d];
        char x[N * 8];
        fill_random(dtype, x, N, 50);
        softmax_matrix logits = softmax_matrix_of(x, dtype, ROWS, COLS);
        size_t largest[ROWS];
        size_t draws[ROWS * 3];
        GOOD(softmax_argmax(&logits, largest, NULL));

        /* Whatever leaves the largest only. */
        for (int which = 0; which < 5; which++) {
            softmax_sampler s = softmax_sampler_default(which == 0 ? 1 : 99);
            switch (which) {
            case 0:
                s.temperature = 0.0;
                break;
            case 1:
                s.top_k = 1;
                break;
            case 2:
                s.top_p = 0.0;
                break;
            case 3:
                s.min_p = 1.0;
                s.order = SOFTMAX_ORDER_LLAMA_CPP;
                break;
            default:
                s.top_k = 1;
                s.method = SOFTMAX_METHOD_GUMBEL_MAX;
            }
            GOOD(softmax_sample(&logits, draws, 3, &s, NULL));
            for (size_t i = 0; i < ROWS * 3; i++) {
                double drawn = get(dtype, x, i / 3 * COLS + draws[i]);
                CHECK(draws[i] < COLS && drawn == get(dtype, x, i / 3 * COLS + largest[i / 3]));
                CHECK(which == 3 || draws[i] == largest[i / 3]);
            }
        }

        /* The same again: cut in batches, in lent memory. Other seeds and steps draw others. */
        for (uint32_t method = 0; method < 2; method++) {
            size_t many[3][ROWS * 50];
            softmax_sampler s = softmax_sampler_default(7);
            s.method = method;
            s.temperature = INFINITY;
            GOOD(softmax_sample(&logits, many[0], 50, &s, NULL));
            for (size_t i = 0; i < ROWS; i++) {
                softmax_matrix row = logits;
                row.data = x + i * COLS * size_of(dtype);
                row.rows = 1;
                s.first_row = i;
                GOOD(softmax_sample(&row, many[1] + i * 50, 50, &s, NULL));
            }
            s.first_row = 0;
            CHECK(memcmp(many[0], many[1], sizeof many[0]) == 0);
            softmax_options options = softmax_options_default();
            size_t needed = 0;
            GOOD(softmax_sample_scratch_size(&logits, &s, &needed, &options));
            char *lent = (char *)memory(needed + 7);
            options.scratch = lent + 7;
            options.scratch_size = needed;
            /* They do not count. */
            options.temperature = 9.0;
            GOOD(softmax_sample(&logits, many[1], 50, &s, &options));
            CHECK(memcmp(many[0], many[1], sizeof many[0]) == 0);
            free(lent);
            s.seed = 8;
            GOOD(softmax_sample(&logits, many[1], 50, &s, NULL));
            s.seed = 7;
            s.step = 1;
            GOOD(softmax_sample(&logits, many[2], 50, &s, NULL));
            CHECK(memcmp(many[0], many[1], sizeof many[0]) != 0);
            CHECK(memcmp(many[0], many[2], sizeof many[0]) != 0);
            /* Each token about as often as it should be. */
            size_t seen[COLS] = {0};
            for (size_t i = 0; i < ROWS * 50; i++) {
                seen[many[0][i]]++;
            }
            for (size_t i = 0; i < COLS; i++) {
                CHECK(seen[i] > 15 && seen[i] < 65);
            }
        }
    }
}

/* Bias, histories and penalties; rows without anything to draw. */
static void lists(void) {
    float x[4][4] = {{1.0f, 1.1f, 0.9f, 0.0f},
                     {1.0f, 1.1f, 0.9f, 0.0f},
                     {0.0f, NAN, 0.0f, 0.0f},
                     {-INFINITY, -INFINITY, -INFINITY, -INFINITY}};
    softmax_matrix logits = softmax_matrix_of(x, SOFTMAX_F32, 2, 4);
    size_t draws[4];
    static const size_t history[3] = {1, 0, 1};
    static const size_t starts[3] = {0, 2, 3};
    softmax_sampler s = softmax_sampler_default(1);
    s.temperature = 0.0;
    s.presence_penalty = 1.0;
    s.history = history;
    s.history_starts = starts;
    s.history_count = 2;
    GOOD(softmax_sample(&logits, draws, 1, &s, NULL));
    CHECK(draws[0] == 2 && draws[1] == 0);
    /* One for all. */
    s.history_count = 1;
    GOOD(softmax_sample(&logits, draws, 1, &s, NULL));
    CHECK(draws[0] == 2 && draws[1] == 2);
    s = softmax_sampler_default(1);
    s.temperature = 0.0;
    s.repetition_penalty = 2.0;
    s.history = history;
    s.history_starts = starts;
    s.history_count = 1;
    GOOD(softmax_sample(&logits, draws, 1, &s, NULL));
    CHECK(draws[0] == 2);
    s = softmax_sampler_default(1);
    s.temperature = 0.0;
    static const size_t tokens[2] = {1, 3};
    static const float bias[2] = {-INFINITY, 0.5f};
    s.bias_tokens = tokens;
    s.bias = bias;
    s.bias_count = 2;
    GOOD(softmax_sample(&logits, draws, 1, &s, NULL));
    CHECK(draws[0] == 0 && draws[1] == 0);

    logits.rows = 4;
    s = softmax_sampler_default(3);
    GOOD(softmax_sample(&logits, draws, 1, &s, NULL));
    CHECK(draws[0] < 4 && draws[1] < 4);
    CHECK(draws[2] == SOFTMAX_NO_TOKEN && draws[3] == SOFTMAX_NO_TOKEN);

    softmax_matrix none = softmax_matrix_of(NULL, SOFTMAX_F32, 0, 4);
    GOOD(softmax_sample(&none, NULL, 3, &s, NULL));
}

/* What filters leave, as lists and as whole rows. */
static void left(void) {
    for (int d = 0; d < DTYPES; d++) {
        softmax_dtype dtype = dtypes[d];
        softmax_dtype c = computed(dtype);
        size_t each = size_of(c);
        char x[N * 8];
        char probs[N * 8];
        char logs[N * 8];
        char full[N * 8];
        size_t tokens[N];
        size_t counts[ROWS];
        fill_random(dtype, x, N, 51);
        softmax_matrix logits = softmax_matrix_of(x, dtype, ROWS, COLS);
        softmax_matrix whole = softmax_matrix_mut(full, c, ROWS, COLS);
        softmax_options options = softmax_options_default();
        softmax_sampler s = softmax_sampler_default(1);
        s.temperature = 2.0;
        s.top_p = 0.5;
        s.min_keep = 3;
        size_t needed = 0;
        GOOD(softmax_sample_scratch_size(&logits, &s, &needed, &options));
        char *lent = (char *)memory(needed + 5);
        options.scratch = lent + 5;
        options.scratch_size = needed;
        GOOD(softmax_kept_log_probs(&logits, tokens, logs, counts, COLS, &s, &options));
        GOOD(softmax_kept_probs(&logits, tokens, probs, counts, COLS, &s, &options));
        GOOD(softmax_filtered_probs(&logits, &whole, &s, &options));
        for (size_t row = 0; row < ROWS; row++) {
            CHECK(counts[row] >= 3 && counts[row] <= COLS);
            long double sum = 0.0L;
            for (size_t i = 0; i < counts[row]; i++) {
                sum += expl(get(dtype, x, row * COLS + tokens[row * COLS + i]) / 2.0L);
            }
            size_t zeros = 0;
            for (size_t i = 0; i < COLS; i++) {
                zeros += get(c, full, row * COLS + i) == 0.0;
            }
            CHECK(zeros == COLS - counts[row]);
            for (size_t i = 0; i < counts[row]; i++) {
                size_t at = row * COLS + i;
                size_t token = tokens[at];
                long double wanted = expl(get(dtype, x, row * COLS + token) / 2.0L) / sum;
                CHECK(near(c, get(c, probs, at), wanted, 3.0, 0.0));
                CHECK(near(c, get(c, logs, at), logl(wanted), 3.0, c == SOFTMAX_F64 ? 1e-14 : 1e-6));
                CHECK(get(c, probs, at) == get(c, full, row * COLS + token));
                CHECK(i == 0 || get(c, probs, at) <= get(c, probs, at - 1));
            }
        }
        GOOD(softmax_filtered_log_probs(&logits, &whole, &s, &options));
        for (size_t i = 0; i < counts[0]; i++) {
            CHECK(get(c, full, tokens[i]) == get(c, logs, i));
        }
        /* Of one token no more is left. */
        s = softmax_sampler_default(1);
        s.temperature = 0.0;
        GOOD(softmax_kept_probs(&logits, tokens, probs, counts, 1, &s, NULL));
        for (size_t row = 0; row < ROWS; row++) {
            CHECK(counts[row] == 1 && get(c, probs, row) == 1.0);
        }
        /* No room: the counts say how much. */
        s = softmax_sampler_default(1);
        s.top_k = 4;
        memset(probs, 0, each);
        BAD(ROOM, softmax_kept_probs(&logits, tokens, probs, counts, 3, &s, NULL));
        CHECK(counts[0] == 4 && counts[ROWS - 1] == 4 && get(c, probs, 0) == 0.0);
        GOOD(softmax_kept_probs(&logits, tokens, probs, counts, 4, &s, NULL));
        free(lent);
    }
    softmax_matrix none = softmax_matrix_of(NULL, SOFTMAX_F32, 0, 4);
    softmax_sampler s = softmax_sampler_default(1);
    GOOD(softmax_kept_probs(&none, NULL, NULL, NULL, 3, &s, NULL));
    GOOD(softmax_filtered_probs(&none, &none, &s, NULL));
}

static void bad_left(void) {
    float x[N];
    float probs[N];
    float full[N];
    size_t tokens[N];
    size_t counts[ROWS];
    char message[300];
    softmax_options options = told(message, sizeof message);
    fill_random(SOFTMAX_F32, x, N, 5);
    memset(probs, 0xA5, sizeof probs);
    memset(full, 0xA5, sizeof full);
    memset(tokens, 0xA5, sizeof tokens);
    memset(counts, 0xA5, sizeof counts);
    softmax_matrix logits = softmax_matrix_of(x, SOFTMAX_F32, ROWS, COLS);
    softmax_matrix out = softmax_matrix_mut(full, SOFTMAX_F32, ROWS, COLS);
    softmax_sampler s = softmax_sampler_default(1);
    watch(x, sizeof x);
    watch(probs, sizeof probs);
    watch(full, sizeof full);
    watch(tokens, sizeof tokens);
    watch(counts, sizeof counts);
    BAD(NULL_POINTER, softmax_kept_probs(NULL, tokens, probs, counts, COLS, &s, NULL));
    BAD(NULL_POINTER, softmax_kept_log_probs(&logits, NULL, probs, counts, COLS, &s, &options));
    SAYS(message, "tokens is null");
    BAD(NULL_POINTER, softmax_kept_probs(&logits, tokens, NULL, counts, COLS, &s, NULL));
    BAD(NULL_POINTER, softmax_kept_probs(&logits, tokens, probs, NULL, COLS, &s, &options));
    SAYS(message, "counts is null");
    BAD(NULL_POINTER, softmax_kept_probs(&logits, tokens, probs, counts, COLS, NULL, NULL));
    BAD(ALIGNMENT, softmax_kept_probs(&logits, tokens, (char *)probs + 1, counts, COLS, &s, NULL));
    BAD(ALIGNMENT, softmax_kept_probs(&logits, (size_t *)(void *)((char *)tokens + 4), probs, counts, 1, &s, NULL));
    BAD(OVERLAP, softmax_kept_probs(&logits, tokens, x, counts, COLS, &s, &options));
    BAD(OVERLAP, softmax_kept_probs(&logits, tokens, tokens, counts, COLS, &s, &options));
    BAD(OVERLAP, softmax_kept_probs(&logits, tokens, probs, tokens, COLS, &s, &options));
    BAD(OVERFLOW, softmax_kept_probs(&logits, tokens, probs, counts, SIZE_MAX, &s, NULL));
    BAD(OVERFLOW, softmax_kept_log_probs(&logits, tokens, probs, counts, SIZE_MAX / ROWS, &s, NULL));
    s.top_p = NAN;
    BAD(VALUE, softmax_kept_probs(&logits, tokens, probs, counts, COLS, &s, &options));
    SAYS(message, "top-p");
    BAD(VALUE, softmax_filtered_log_probs(&logits, &out, &s, NULL));
    s.top_p = 1.0;
    softmax_matrix m = logits;
    m.dtype = SOFTMAX_BOOL;
    BAD(DTYPE, softmax_kept_probs(&m, tokens, probs, counts, COLS, &s, NULL));
    BAD(DTYPE, softmax_filtered_probs(&m, &out, &s, NULL));
    BAD(NULL_POINTER, softmax_filtered_probs(NULL, &out, &s, NULL));
    BAD(NULL_POINTER, softmax_filtered_probs(&logits, NULL, &s, NULL));
    BAD(NULL_POINTER, softmax_filtered_probs(&logits, &out, NULL, NULL));
    m = out;
    m.dtype = SOFTMAX_F16;
    BAD(DTYPE, softmax_filtered_probs(&logits, &m, &s, &options));
    SAYS(message, "logits and probabilities have dtypes 0 and 2");
    m = out;
    m.rows = ROWS - 1;
    BAD(SHAPE, softmax_filtered_probs(&logits, &m, &s, NULL));
    m = out;
    m.data = x;
    BAD(OVERLAP, softmax_filtered_probs(&logits, &m, &s, NULL));
    m = out;
    m.data = (char *)full + 2;
    BAD(ALIGNMENT, softmax_filtered_log_probs(&logits, &m, &s, NULL));
    size_t needed = 0;
    GOOD(softmax_sample_scratch_size(&logits, &s, &needed, NULL));
    options.scratch = memory(needed);
    options.scratch_size = needed - 1;
    BAD(SCRATCH, softmax_kept_probs(&logits, tokens, probs, counts, COLS, &s, &options));
    BAD(SCRATCH, softmax_filtered_probs(&logits, &out, &s, &options));
    free(options.scratch);
    unwatch();
    STRUCT_SIZES(softmax_sampler, s, p, softmax_kept_probs(&logits, tokens, probs, counts, COLS, p, NULL));
    STRUCT_SIZES(softmax_matrix, logits, p, softmax_kept_log_probs(p, tokens, probs, counts, COLS, &s, NULL));
    STRUCT_SIZES(softmax_matrix, out, p, softmax_filtered_probs(&logits, p, &s, NULL));
    STRUCT_SIZES(softmax_matrix, logits, p, softmax_filtered_log_probs(p, &out, &s, NULL));
}

static void bad(void) {
    float x[N];
    size_t draws[ROWS + 1];
    size_t bytes = 3;
    char message[300];
    softmax_options options = told(message, sizeof message);
    fill_random(SOFTMAX_F32, x, N, 4);
    memset(draws, 0xA5, sizeof draws);
    softmax_matrix logits = softmax_matrix_of(x, SOFTMAX_F32, ROWS, COLS);
    softmax_sampler s = softmax_sampler_default(1);
    watch(x, sizeof x);
    watch(draws, sizeof draws);
    watch(&bytes, sizeof bytes);
    BAD(NULL_POINTER, softmax_sample(NULL, draws, 1, &s, NULL));
    BAD(NULL_POINTER, softmax_sample(&logits, NULL, 1, &s, &options));
    SAYS(message, "draws is null");
    BAD(NULL_POINTER, softmax_sample(&logits, draws, 1, NULL, &options));
    SAYS(message, "softmax_sampler is null");
    BAD(NULL_POINTER, softmax_sample_scratch_size(NULL, &s, &bytes, NULL));
    BAD(NULL_POINTER, softmax_sample_scratch_size(&logits, NULL, &bytes, NULL));
    BAD(NULL_POINTER, softmax_sample_scratch_size(&logits, &s, NULL, NULL));
    BAD(ALIGNMENT, softmax_sample_scratch_size(&logits, &s, (size_t *)(void *)((char *)&bytes + 1), NULL));
    BAD(ALIGNMENT, softmax_sample(&logits, (size_t *)(void *)((char *)draws + 4), 1, &s, NULL));
    BAD(OVERLAP, softmax_sample(&logits, (size_t *)(void *)x, 1, &s, &options));
    SAYS(message, "draws overlaps logits");
    BAD(LENGTH, softmax_sample(&logits, draws, 0, &s, NULL));
    BAD(OVERFLOW, softmax_sample(&logits, draws, SIZE_MAX, &s, NULL));
    BAD(OVERFLOW, softmax_sample(&logits, draws, SIZE_MAX / ROWS, &s, &options));
    SAYS(message, "draws");
    softmax_matrix m = logits;
    m.data = NULL;
    BAD(NULL_POINTER, softmax_sample(&m, draws, 1, &s, NULL));
    m = logits;
    m.data = (char *)x + 1;
    BAD(ALIGNMENT, softmax_sample(&m, draws, 1, &s, NULL));
    m = logits;
    m.dtype = SOFTMAX_BOOL;
    BAD(DTYPE, softmax_sample(&m, draws, 1, &s, NULL));
    BAD(DTYPE, softmax_sample_scratch_size(&m, &s, &bytes, NULL));
    m = logits;
    m.stride = 1;
    BAD(STRIDE, softmax_sample(&m, draws, 1, &s, NULL));
    m = logits;
    m.stride = SIZE_MAX;
    BAD(OVERFLOW, softmax_sample(&m, draws, 1, &s, NULL));

    /* One option at a time. */
    static const double none[] = {NAN, -1.0, INFINITY, -INFINITY, 1.5, 0.0};
    for (size_t i = 0; i < 6; i++) {
        for (int which = 0; which < 7; which++) {
            s = softmax_sampler_default(1);
            double *const fields[7] = {&s.temperature, &s.top_p, &s.min_p, &s.typical_p,
                                       &s.repetition_penalty, &s.presence_penalty, &s.frequency_penalty};
            /* From what index on a value may be one of the field. */
            static const int negative[7] = {1, 1, 1, 1, 1, 0, 0};
            static const int infinite[7] = {0, 1, 1, 1, 1, 1, 1};
            static const int beyond[7] = {0, 1, 1, 1, 0, 0, 0};
            static const int zero[7] = {0, 0, 0, 0, 1, 0, 0};
            int refused = i == 0 ? 1
                          : i == 1 ? negative[which]
                          : i == 2 ? infinite[which]
                          : i == 3 ? 1
                          : i == 4 ? beyond[which]
                                   : zero[which];
            *fields[which] = none[i];
            if (refused) {
                BAD(VALUE, softmax_sample(&logits, draws, 1, &s, &options));
                SAYS(message, "must be");
                BAD(VALUE, softmax_sample_scratch_size(&logits, &s, &bytes, NULL));
            } else {
                size_t some[ROWS];
                GOOD(softmax_sample(&logits, some, 1, &s, NULL));
            }
        }
    }
    s = softmax_sampler_default(1);
    s.order = 2;
    BAD(VALUE, softmax_sample(&logits, draws, 1, &s, &options));
    SAYS(message, "the order 2 does not exist");
    BAD(VALUE, softmax_sample_scratch_size(&logits, &s, &bytes, NULL));
    s = softmax_sampler_default(1);
    s.method = UINT32_MAX;
    BAD(VALUE, softmax_sample(&logits, draws, 1, &s, &options));
    SAYS(message, "method");
    s = softmax_sampler_default(1);
    s.step = (uint64_t)1 << 48;
    BAD(VALUE, softmax_sample(&logits, draws, 1, &s, &options));
    SAYS(message, "step");
    s = softmax_sampler_default(1);
    s.first_row = ((uint64_t)1 << 48) - ROWS + 1;
    BAD(VALUE, softmax_sample(&logits, draws, 1, &s, &options));
    s.first_row = UINT64_MAX;
    BAD(VALUE, softmax_sample(&logits, draws, 1, &s, NULL));

    /* Lists. */
    size_t tokens[2] = {1, COLS};
    float bias[2] = {1.0f, 1.0f};
    s = softmax_sampler_default(1);
    s.bias_tokens = tokens;
    s.bias = bias;
    s.bias_count = 2;
    BAD(COLUMN, softmax_sample(&logits, draws, 1, &s, &options));
    SAYS(message, "8 is not one of its 8 columns");
    tokens[1] = 2;
    static const float biases[] = {NAN, INFINITY};
    for (size_t i = 0; i < 2; i++) {
        bias[1] = biases[i];
        BAD(VALUE, softmax_sample(&logits, draws, 1, &s, &options));
        SAYS(message, "bias");
    }
    bias[1] = 0.0f;
    s.bias = NULL;
    BAD(NULL_POINTER, softmax_sample(&logits, draws, 1, &s, &options));
    SAYS(message, "bias is null");
    s.bias = (const float *)(const void *)((const char *)bias + 1);
    BAD(ALIGNMENT, softmax_sample(&logits, draws, 1, &s, NULL));
    s.bias = (const float *)(const void *)draws;
    BAD(OVERLAP, softmax_sample(&logits, draws, 1, &s, NULL));
    s.bias = bias;
    s.bias_tokens = NULL;
    BAD(NULL_POINTER, softmax_sample(&logits, draws, 1, &s, NULL));
    s.bias_tokens = draws;
    BAD(OVERLAP, softmax_sample(&logits, draws, 1, &s, NULL));
    s.bias_tokens = tokens;
    s.bias_count = SIZE_MAX;
    BAD(OVERFLOW, softmax_sample(&logits, draws, 1, &s, NULL));

    size_t history[4] = {0, 1, 2, 3};
    size_t starts[ROWS + 1] = {0, 0, 1, 2, 2, 3, 4};
    s = softmax_sampler_default(1);
    s.presence_penalty = 1.0;
    s.history = history;
    s.history_starts = starts;
    s.history_count = ROWS;
    size_t some[ROWS];
    GOOD(softmax_sample(&logits, some, 1, &s, NULL));
    s.history_count = ROWS - 1;
    BAD(LENGTH, softmax_sample(&logits, draws, 1, &s, &options));
    SAYS(message, "histories");
    s.history_count = SIZE_MAX;
    BAD(OVERFLOW, softmax_sample(&logits, draws, 1, &s, NULL));
    s.history_count = SIZE_MAX - 1;
    BAD(OVERFLOW, softmax_sample(&logits, draws, 1, &s, NULL));
    s.history_count = ROWS;
    starts[2] = 3;
    BAD(VALUE, softmax_sample(&logits, draws, 1, &s, &options));
    SAYS(message, "history");
    starts[2] = 1;
    starts[1] = SIZE_MAX;
    BAD(VALUE, softmax_sample(&logits, draws, 1, &s, NULL));
    starts[1] = 0;
    starts[ROWS] = SIZE_MAX;
    BAD(OVERFLOW, softmax_sample(&logits, draws, 1, &s, &options));
    SAYS(message, "history");
    starts[ROWS] = 4;
    history[2] = COLS;
    BAD(COLUMN, softmax_sample(&logits, draws, 1, &s, &options));
    SAYS(message, "row 4");
    history[2] = 2;
    s.history = NULL;
    BAD(NULL_POINTER, softmax_sample(&logits, draws, 1, &s, &options));
    SAYS(message, "history is null");
    s.history = draws;
    BAD(OVERLAP, softmax_sample(&logits, draws, 1, &s, NULL));
    s.history = history;
    s.history_starts = NULL;
    BAD(NULL_POINTER, softmax_sample(&logits, draws, 1, &s, &options));
    SAYS(message, "history_starts is null");
    s.history_starts = (const size_t *)(const void *)((const char *)starts + 1);
    BAD(ALIGNMENT, softmax_sample(&logits, draws, 1, &s, NULL));

    s = softmax_sampler_default(1);
    s.top_p = 0.5;
    size_t needed = 0;
    GOOD(softmax_sample_scratch_size(&logits, &s, &needed, NULL));
    options.scratch = memory(needed);
    options.scratch_size = needed - 1;
    BAD(SCRATCH, softmax_sample(&logits, draws, 1, &s, &options));
    SAYS(message, "bytes of scratch are needed");
    free(options.scratch);
    unwatch();
    STRUCT_SIZES(softmax_matrix, logits, p, softmax_sample(p, some, 1, &s, NULL));
    STRUCT_SIZES(softmax_sampler, s, p, softmax_sample(&logits, some, 1, p, NULL));
    STRUCT_SIZES(softmax_matrix, logits, p, softmax_sample_scratch_size(p, &s, &bytes, NULL));
    STRUCT_SIZES(softmax_sampler, s, p, softmax_sample_scratch_size(&logits, p, &bytes, NULL));
}

int main(void) {
    values();
    lists();
    left();
    bad_left();
    bad();
    return checked();
}
