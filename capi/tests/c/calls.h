/* Calls of every function, over types, shapes and kinds of threads. Whoever includes this says what
 * a CALL is, and a NOTE of what it has written. */
#ifndef CALLS_H
#define CALLS_H

#include "threads.h"

#ifndef CALL_FOR
#error "what is a call?"
#endif

/* tests/c.rs looks for one of every function. */
#define CALL(call) CALL_FOR(OK, call)

/* Within -50 to 50, with subnormal numbers and -inf; NaN, a signalling one, +inf and nothing but
 * -inf in the first rows, if there are others. */
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

static softmax_parallel own_threads;

/* Null for the fastest. */
static const char *kernel_of_all;

/* Kinds of threads: the caller's own thread, the pool's, threads that the caller makes. */
static softmax_options options_of(int kind, double scale) {
    softmax_options options = softmax_options_default();
    options.scale = scale;
    options.kernel = kernel_of_all;
    options.threads = kind == 0 ? 1 : 2;
    options.flags = kind == 0 ? 0 : SOFTMAX_THREADS_EXACT;
    options.parallel = kind == 2 ? &own_threads : NULL;
    return options;
}

/* Offsets of as many rows with as many elements together, in turn short and long. */
static int32_t *ragged_offsets(size_t rows, size_t cols) {
    int32_t *offsets = (int32_t *)memory((rows + 1) * sizeof *offsets);
    for (size_t i = 0; i <= rows; i++) {
        offsets[i] = (int32_t)(i * cols - (i % 2 == 1 && i < rows ? cols / 3 : 0));
    }
    return offsets;
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
    CALL(softmax_entropy(&x, NULL, lse, options));
    NOTE(lse, rows * size_of(dtype));
    CALL(softmax_entropy_backward(&x, NULL, lse, &y, options));
    NOTE(out, bytes);
    char *other = (char *)memory(bytes);
    fill(dtype, other, rows, cols, (uint32_t)(rows + cols + 1));
    softmax_matrix q = softmax_matrix_of(other, dtype, rows, cols);
    CALL(softmax_kl_divergence(&x, &q, NULL, lse, options));
    NOTE(lse, rows * size_of(dtype));
    CALL(softmax_kl_divergence_backward(&x, &q, NULL, lse, &y, NULL, options));
    NOTE(out, bytes);
    CALL(softmax_kl_divergence_backward(&x, &q, NULL, lse, NULL, &y, options));
    NOTE(out, bytes);
    free(other);
    double *factors = (double *)memory(rows * sizeof *factors);
    for (size_t i = 0; i < rows; i++) {
        factors[i] = i % 3 == 2 ? 0.7 : 1.0;
    }
    for (uint32_t kind = 0; kind < 2; kind++) {
        CALL(softmax_softmax_per_row(&x, &y, NULL, kind, factors, options));
        NOTE(out, bytes);
        CALL(softmax_log_softmax_per_row(&x, &y, NULL, kind, factors, options));
        NOTE(out, bytes);
        CALL(softmax_logsumexp_per_row(&x, lse, NULL, kind, factors, options));
        NOTE(lse, rows * size_of(dtype));
        CALL(softmax_entropy_per_row(&x, lse, NULL, kind, factors, options));
        NOTE(lse, rows * size_of(dtype));
    }
    free(factors);
    CALL(softmax_argmax(&x, indices, options));
    NOTE(indices, rows * sizeof *indices);
    for (size_t i = 0; i < rows * 3; i++) {
        indices[i] = i * 7 % cols;
    }
    CALL(softmax_log_probs(&x, indices, 3, logs, lse, options));
    NOTE(logs, rows * 3 * results);
    NOTE(lse, rows * results);
    size_t k = cols < 3 ? cols : 3;
    CALL(softmax_top_k(&x, k, logs, NULL, indices, options));
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

    /* Rows of one matrix as the lanes of a tensor whose axis is the first of two. */
    size_t shape[2] = {rows, cols};
    CALL(softmax_logsumexp_axis(in, out, dtype, shape, 2, 0, options));
    NOTE(out, cols * size_of(dtype));
    CALL(softmax_entropy_axis(in, out, dtype, shape, 2, 0, options));
    NOTE(out, cols * size_of(dtype));
    CALL(softmax_hardmax_axis(in, out, dtype, shape, 2, 0, SOFTMAX_TIES_FIRST, options));
    NOTE(out, bytes);
    size_t *columns = (size_t *)memory(cols * sizeof *columns);
    CALL(softmax_argmax_axis(in, columns, dtype, shape, 2, 0, options));
    NOTE(columns, cols * sizeof *columns);
    char *of_columns = (char *)memory(cols * results);
    CALL(softmax_top_k_axis(in, dtype, shape, 2, 0, 1, of_columns, NULL, columns, options));
    NOTE(of_columns, cols * results);
    int64_t *labels = (int64_t *)memory(cols * sizeof *labels);
    double *losses = (double *)memory(cols * sizeof *losses);
    for (size_t i = 0; i < cols; i++) {
        labels[i] = (int64_t)(i % rows);
    }
    double mean = 0.0;
    CALL(softmax_cross_entropy_labels_axis(in, dtype, shape, 2, 0, labels, losses, &mean, out, NULL, options));
    NOTE(losses, cols * sizeof *losses);
    NOTE(out, bytes);
    /* Targets are never negative, whatever else the results of hardmax are. */
    CALL(softmax_hardmax_axis(in, out, dtype, shape, 2, 0, SOFTMAX_TIES_SHARE, options));
    CALL(softmax_cross_entropy_probs_axis(in, dtype, shape, 2, 0, out, losses, &mean, NULL, NULL, options));
    NOTE(losses, cols * sizeof *losses);
    NOTE(&mean, sizeof mean);
    for (size_t i = 0; i < cols; i++) {
        columns[i] = i % rows;
    }
    CALL(softmax_log_probs_axis(in, dtype, shape, 2, 0, columns, 1, of_columns, NULL, options));
    NOTE(of_columns, cols * results);
    unsigned char *seen = (unsigned char *)memory(cols);
    float *weights = (float *)memory(cols * sizeof *weights);
    for (size_t i = 0; i < cols; i++) {
        seen[i] = i % 3 != 1;
        weights[i] = (float)(i % 4);
    }
    softmax_mask mask = {sizeof mask, seen, SOFTMAX_BOOL, 1, 0, 0};
    CALL(softmax_softmax_masked(&x, &y, &mask, options));
    NOTE(out, bytes);
    mask.data = weights;
    mask.dtype = SOFTMAX_F32;
    CALL(softmax_log_softmax_masked(&x, &y, &mask, options));
    NOTE(out, bytes);
    CALL(softmax_logsumexp_of(&x, &mask, weights, SOFTMAX_F32, 1, out, options));
    NOTE(out, rows * size_of(dtype));
    /* The same elements in rows of different lengths. */
    int32_t *offsets = ragged_offsets(rows, cols);
    softmax_ragged uneven = softmax_ragged_of(in, rows * cols, dtype, offsets, rows);
    CALL(softmax_softmax_ragged(&uneven, out, options));
    NOTE(out, bytes);
    CALL(softmax_log_softmax_ragged(&uneven, out, options));
    NOTE(out, bytes);
    CALL(softmax_hardmax_ragged(&uneven, out, SOFTMAX_TIES_FIRST, options));
    NOTE(out, bytes);
    CALL(softmax_logsumexp_ragged(&uneven, lse, options));
    NOTE(lse, rows * size_of(dtype));
    CALL(softmax_argmax_ragged(&uneven, indices, options));
    NOTE(indices, rows * sizeof *indices);
    free(offsets);
    size_t *of_rows = (size_t *)memory(rows * sizeof *of_rows);
    char *of_rows_logs = (char *)memory(rows * results);
    size_t words = (cols + 31) / 32;
    uint32_t *bits = (uint32_t *)memory(words * sizeof *bits);
    for (size_t i = 0; i < words; i++) {
        bits[i] = 0x9249b6dbu;
    }
    mask.data = bits;
    mask.dtype = SOFTMAX_BITS;
    CALL(softmax_softmax_masked(&x, &y, &mask, options));
    NOTE(out, bytes);
    CALL(softmax_log_softmax_masked(&x, &y, &mask, options));
    NOTE(out, bytes);
    CALL(softmax_top_k_masked(&x, 1, of_rows_logs, NULL, of_rows, &mask, options));
    NOTE(of_rows_logs, rows * results);
    CALL(softmax_log_probs_masked(&x, of_rows, 1, of_rows_logs, NULL, &mask, options));
    NOTE(of_rows_logs, rows * results);
    softmax_sampler allowed = softmax_sampler_default(5);
    allowed.mask = &mask;
    CALL(softmax_sample(&x, of_rows, 1, &allowed, options));
    NOTE(of_rows, rows * sizeof *of_rows);
    free(of_rows_logs);
    free(of_rows);
    free(bits);
    free(columns);
    free(of_columns);
    free(labels);
    free(losses);
    free(seen);
    free(weights);

    softmax_plan plan = softmax_plan_empty();
    CALL(softmax_plan_of(SOFTMAX_OP_SOFTMAX, &x, 0, &plan, options));
    size_t needed = 0;
    CALL(softmax_scratch_size(SOFTMAX_OP_SOFTMAX, &x, &needed, options));
    CALL(softmax_attention_scratch_size(&x, &y, &needed, options));
    CALL(softmax_cross_entropy_scratch_size(&x, &needed, options));
    CALL(softmax_cross_entropy_axis_scratch_size(dtype, shape, 2, 0, &needed, options));
    CALL(softmax_top_k_scratch_size(dtype, shape, 2, 0, 1, &needed, options));
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
    int32_t *offsets = ragged_offsets(rows, cols);
    softmax_ragged uneven = softmax_ragged_of(in, rows * cols, dtype, offsets, rows);
    softmax_ragged uneven_probs = softmax_ragged_of(probs, rows * cols, dtype, offsets, rows);
    for (size_t i = 0; i < rows; i++) {
        labels[i] = i % 5 == 4 ? -100 : 0;
    }
    CALL(softmax_cross_entropy_labels_ragged(&uneven, labels, each, &loss, out, NULL, options));
    NOTE(each, rows * sizeof *each);
    NOTE(out, bytes);
    CALL(softmax_cross_entropy_probs_ragged(&uneven, probs, each, &loss, out, NULL, options));
    NOTE(&loss, sizeof loss);
    NOTE(out, bytes);
    CALL(softmax_softmax_backward_ragged(&uneven_probs, in, out, options));
    NOTE(out, bytes);
    CALL(softmax_log_softmax_backward_ragged(&uneven, probs, out, options));
    NOTE(out, bytes);
    free(offsets);
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

/* Attention in tiles, in two halves whose states and outputs are merged. */
static void online(size_t heads, size_t queries, size_t keys, const softmax_options *options) {
    size_t rows = heads * queries;
    size_t half = keys / 2 + 1;
    float *in = (float *)memory(rows * keys * sizeof *in);
    float *out = (float *)memory(rows * keys * sizeof *out);
    float *mask = (float *)memory(rows * keys * sizeof *mask);
    float *slopes = (float *)memory(heads * sizeof *slopes);
    float *lists = (float *)memory(5 * rows * sizeof *lists);
    double *numbers = (double *)memory(rows * SOFTMAX_ONLINE_NUMBERS * sizeof *numbers);
    softmax_online_row *states = (softmax_online_row *)memory(2 * rows * sizeof *states);
    fill(SOFTMAX_F32, in, rows, keys, 3);
    fill(SOFTMAX_F32, mask, rows, keys, 4);
    for (size_t i = 0; i < heads; i++) {
        slopes[i] = 1.0f / (float)(3 * i + 3);
    }
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
            a.alibi = slopes;
            a.sinks = slopes;
        }
        CALL(softmax_online_new(states, 2 * rows));
        softmax_tile tile = softmax_tile_of(rows, keys);
        for (int dtype = 0; dtype < 3; dtype++) {
            softmax_dtype to = dtype == 0 ? SOFTMAX_F32 : dtype == 1 ? SOFTMAX_F16 : SOFTMAX_BF16;
            for (size_t part = 0; part < 2; part++) {
                tile.first_key = part * half;
                size_t cols = part == 0 ? half : keys - half;
                softmax_matrix x = softmax_matrix_of(in + part * half, SOFTMAX_F32, rows, cols);
                x.stride = keys;
                softmax_matrix y = softmax_matrix_mut(out, to, rows, cols);
                CALL(softmax_online_tile(&tile, &x, &y, states + part * rows, lists, &a, options));
                NOTE(out, rows * cols * size_of(to));
                NOTE(lists, rows * sizeof *lists);
                CALL(softmax_online_finish(&tile, states + part * rows, rows, lists, lists + (3 + part) * rows, &a,
                                           options));
                NOTE(lists, rows * sizeof *lists);
            }
        }
        memcpy(out, in, rows * half * sizeof *out);
        softmax_matrix z = softmax_matrix_mut(out, SOFTMAX_F32, rows, half);
        tile.first_key = 0;
        CALL(softmax_online_tile(&tile, &z, &z, states, lists, &a, options));
        NOTE(out, rows * half * sizeof *out);
        CALL(softmax_online_to_array(states + rows, rows, numbers));
        NOTE(numbers, rows * SOFTMAX_ONLINE_NUMBERS * sizeof *numbers);
        CALL(softmax_online_from_array(numbers, rows, states + rows));
        CALL(softmax_online_merge(states, states + rows, rows, lists, lists + rows));
        NOTE(lists, 2 * rows * sizeof *lists);
        CALL(softmax_online_finish(&tile, states, rows, lists, lists + 2 * rows, &a, options));
        NOTE(lists + 2 * rows, rows * sizeof *lists);
        softmax_matrix part = softmax_matrix_of(in, SOFTMAX_F32, rows, keys);
        const softmax_matrix *outputs[2] = {&part, &part};
        const float *of_parts[2] = {lists + 3 * rows, lists + 4 * rows};
        softmax_matrix merged = softmax_matrix_mut(out, SOFTMAX_F32, rows, keys);
        CALL(softmax_merge_outputs(outputs, of_parts, 2, &merged, lists, options));
        NOTE(out, rows * keys * sizeof *out);
        NOTE(lists, rows * sizeof *lists);
    }
    free(in);
    free(out);
    free(mask);
    free(slopes);
    free(lists);
    free(numbers);
    free(states);
}

static void draws(softmax_dtype dtype, size_t rows, size_t cols, const softmax_options *options) {
    void *in = memory(rows * cols * size_of(dtype));
    size_t *drawn = (size_t *)memory(rows * 4 * sizeof *drawn);
    fill(dtype, in, rows, cols, 8);
    softmax_matrix x = softmax_matrix_of(in, dtype, rows, cols);
    softmax_dtype computed_in = computed(dtype);
    size_t size = rows * cols * size_of(computed_in);
    void *values = memory(size);
    size_t *tokens_left = (size_t *)memory(rows * cols * sizeof *tokens_left);
    size_t *counts = (size_t *)memory(rows * sizeof *counts);
    memset(values, 0, size);
    memset(tokens_left, 0, rows * cols * sizeof *tokens_left);
    softmax_matrix y = softmax_matrix_mut(values, computed_in, rows, cols);
    static const size_t tokens[3] = {1, 0, 1};
    static const size_t starts[2] = {0, 3};
    static const float bias[3] = {1e-40f, 0.3f, 0.1f};
    double *shares = (double *)memory(rows * sizeof *shares);
    size_t *ks = (size_t *)memory(rows * sizeof *ks);
    uint64_t *counters = (uint64_t *)memory(rows * sizeof *counters);
    for (size_t i = 0; i < rows; i++) {
        shares[i] = i % 2 == 0 ? 0.9 : 0.3;
        ks[i] = i * 5;
        counters[i] = i / 2;
    }
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
        if (which == 3) {
            s.temperatures = shares;
            s.top_ks = ks;
            s.top_ps = s.min_ps = s.typical_ps = shares;
            s.seeds = s.steps = counters;
        }
        CALL(softmax_sample(&x, drawn, 4, &s, options));
        NOTE(drawn, rows * 4 * sizeof *drawn);
        size_t needed = 0;
        CALL(softmax_sample_scratch_size(&x, &s, &needed, options));
        CALL(softmax_kept_probs(&x, tokens_left, values, counts, cols, &s, options));
        NOTE(values, size);
        CALL(softmax_kept_log_probs(&x, tokens_left, values, counts, cols, &s, options));
        NOTE(values, size);
        NOTE(tokens_left, rows * cols * sizeof *tokens_left);
        CALL(softmax_filtered_probs(&x, &y, &s, options));
        NOTE(values, size);
        CALL(softmax_filtered_log_probs(&x, &y, &s, options));
        NOTE(values, size);
    }
    free(shares);
    free(ks);
    free(counters);
    free(in);
    free(drawn);
    free(values);
    free(tokens_left);
    free(counts);
}

static void verified(softmax_dtype dtype, size_t cols, const softmax_options *options) {
    enum { SEQUENCES = 5, EACH = 2, ROWS = SEQUENCES * (EACH + 1) };
    void *in = memory(ROWS * cols * size_of(dtype));
    void *of_draft = memory(SEQUENCES * EACH * cols * size_of(dtype));
    fill(dtype, in, ROWS, cols, 13);
    fill(dtype, of_draft, SEQUENCES * EACH, cols, 14);
    softmax_matrix x = softmax_matrix_of(in, dtype, ROWS, cols);
    softmax_matrix draft = softmax_matrix_of(of_draft, dtype, SEQUENCES * EACH, cols);
    size_t drafted[SEQUENCES * EACH];
    size_t offsets[SEQUENCES + 1];
    for (size_t i = 0; i <= SEQUENCES; i++) {
        offsets[i] = i * EACH;
    }
    for (size_t i = 0; i < SEQUENCES * EACH; i++) {
        drafted[i] = i * 7 % cols;
    }
    for (int which = 0; which < 4; which++) {
        softmax_speculative s = softmax_speculative_default(4);
        s.temperature = which == 2 ? 0.0 : which == 3 ? INFINITY : 1.3;
        size_t tokens[ROWS];
        size_t accepted[SEQUENCES];
        const softmax_matrix *q = which == 1 ? NULL : &draft;
        CALL(softmax_verify(&x, q, drafted, offsets, SEQUENCES, tokens, accepted, &s, options));
        NOTE(tokens, sizeof tokens);
        NOTE(accepted, sizeof accepted);
        size_t needed = 0;
        CALL(softmax_verify_scratch_size(&x, &s, &needed, options));
    }
    free(in);
    free(of_draft);
}

static void routes(softmax_dtype dtype, size_t rows, const softmax_options *options) {
    enum { EXPERTS = 24, K = 5 };
    void *in = memory(rows * EXPERTS * size_of(dtype));
    size_t size = rows * K * size_of(computed(dtype));
    void *weights = memory(size);
    uint32_t *experts = (uint32_t *)memory(rows * K * sizeof *experts);
    fill(dtype, in, rows, EXPERTS, 11);
    softmax_matrix x = softmax_matrix_of(in, dtype, rows, EXPERTS);
    float bias[EXPERTS];
    for (size_t i = 0; i < EXPERTS; i++) {
        bias[i] = (float)(i % 5) * 0.1f;
    }
    for (uint32_t which = 0; which < 6; which++) {
        softmax_router r = softmax_router_default(K);
        r.scoring = which % 2;
        r.flags = which / 2 % 2;
        if (which > 3) {
            r.bias = bias;
            r.groups = 6;
            r.group_limit = 3;
            r.scaling_factor = 1.1;
        }
        CALL(softmax_route(&x, weights, experts, &r, options));
        NOTE(weights, size);
        NOTE(experts, rows * K * sizeof *experts);
        size_t needed = 0;
        CALL(softmax_route_scratch_size(&x, &r, &needed, options));
    }
    free(in);
    free(weights);
    free(experts);
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
    if (shift != 0.0) {
        CALL_FOR(AGAIN, softmax_merge(all, count, &row, &max, dtype, options));
        CALL(softmax_partials(in, dtype, N, &max, partials, count, options));
    }
    CALL(softmax_merge(all, count, &row, &max, dtype, options));
    softmax_partial copy = row;
    NOTE(partials, sizeof partials);
    NOTE(&copy, sizeof copy);
    CALL(softmax_shard_softmax(&row, in, out, dtype, N, options));
    NOTE(out, bytes);
    CALL(softmax_shard_log_softmax(&row, in, out, dtype, N, options));
    NOTE(out, bytes);
    CALL(softmax_shard_logsumexp(&row, &lse, dtype, options));
    NOTE(&lse, size_of(dtype));
    free(in);
    free(out);
}

static void all_calls(int kind) {
    const softmax_options serial = options_of(0, 1.0);
    /* Shared among threads. */
    const softmax_options shared = options_of(kind, 1.0);
    const softmax_options scaled = options_of(kind, 1.0 / 3.0);
    online(2, 5, 50, &shared);
    online(2, 5, 500, &scaled);
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
        verified(dtype, 50, &shared);
        verified(dtype, 5000, &shared);
        routes(dtype, 37, &shared);
        tensors(dtype, &shared);
        shards(dtype, 0.0, &scaled);
        if (dtype != SOFTMAX_F16) {
            shards(dtype, 131072.0, &serial);
        }
    }
}

#endif
