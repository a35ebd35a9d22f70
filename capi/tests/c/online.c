/* Softmax of attention scores in tiles. */
#include "check.h"

enum { BATCH = 2, HEADS = 3, QUERIES = 4, KEYS = 70, ROWS = BATCH * HEADS * QUERIES, N = ROWS * KEYS };

static const float alibi[HEADS] = {0.25f, 0.0f, 0.125f};
static const float sinks[HEADS] = {0.0f, -INFINITY, 2.0f};
static const size_t lengths[BATCH] = {61, 70};
static uint32_t mask_bits[QUERIES * ((KEYS + 31) / 32)];
static float mask_numbers[HEADS * QUERIES * KEYS];

enum { KINDS = 8 };

/* Options of some kind. */
static softmax_attention attention_of(int kind) {
    softmax_attention a = softmax_attention_default(HEADS, QUERIES);
    switch (kind) {
    case 0:
        break;
    case 1:
        a.flags = SOFTMAX_ATTENTION_CAUSAL;
        break;
    case 2:
        a.flags = SOFTMAX_ATTENTION_WINDOW | SOFTMAX_ATTENTION_WINDOW_AHEAD | SOFTMAX_ATTENTION_OFFSET;
        a.window = 20;
        a.window_ahead = 9;
        a.offset = 30;
        break;
    case 3:
        a.sinks = sinks;
        a.alibi = alibi;
        break;
    case 4:
        a.soft_cap = 2.5;
        break;
    case 5:
        a.mask = mask_numbers;
        a.mask_dtype = SOFTMAX_F32;
        a.mask_shape[0] = 1;
        a.mask_shape[1] = HEADS;
        a.mask_shape[2] = QUERIES;
        break;
    case 6:
        a.mask = mask_bits;
        a.mask_dtype = SOFTMAX_BITS;
        a.mask_shape[0] = 1;
        a.mask_shape[1] = 1;
        a.mask_shape[2] = QUERIES;
        break;
    default:
        a.flags = SOFTMAX_ATTENTION_CAUSAL;
        a.lengths = lengths;
        a.lengths_count = BATCH;
        a.sinks = sinks;
    }
    return a;
}

/* The whole in tiles between these rows and keys, in place or not: the weights, multiplied by all
 * later factors; the states; what finishes the rows. */
typedef struct {
    double weights[N];
    softmax_online_row states[ROWS];
    float reciprocals[ROWS];
    float logs[ROWS];
} result;

static void tiles(const softmax_attention *a, const float *scores, softmax_dtype dtype, int in_place, size_t rows,
                  size_t keys, const softmax_options *options, result *to) {
    softmax_tile tile = softmax_tile_of(ROWS, KEYS);
    GOOD(softmax_online_new(to->states, ROWS));
    for (size_t row = 0; row < ROWS; row += rows) {
        for (size_t key = 0; key < KEYS; key += keys) {
            size_t n = ROWS - row < rows ? ROWS - row : rows;
            size_t cols = KEYS - key < keys ? KEYS - key : keys;
            float copy[N];
            float y[N];
            float factors[ROWS];
            for (size_t r = 0; r < n; r++) {
                memcpy(copy + r * cols, scores + (row + r) * KEYS + key, cols * sizeof *copy);
            }
            softmax_matrix x = softmax_matrix_of(scores + row * KEYS + key, SOFTMAX_F32, n, cols);
            x.stride = KEYS;
            softmax_matrix weights = softmax_matrix_mut(in_place ? copy : y, dtype, n, cols);
            tile.first_row = row;
            tile.first_key = key;
            GOOD(softmax_online_tile(&tile, in_place ? &weights : &x, &weights, to->states + row, factors, a, options));
            for (size_t r = 0; r < n; r++) {
                for (size_t k = 0; k < key; k++) {
                    to->weights[(row + r) * KEYS + k] *= factors[r];
                }
                for (size_t k = 0; k < cols; k++) {
                    to->weights[(row + r) * KEYS + key + k] = get(dtype, weights.data, r * cols + k);
                }
            }
        }
    }
    tile.first_row = 5;
    GOOD(softmax_online_finish(&tile, to->states + 5, ROWS - 5, to->reciprocals + 5, to->logs + 5, a, options));
    tile.first_row = 0;
    GOOD(softmax_online_finish(&tile, to->states, 5, to->reciprocals, NULL, a, options));
    float reciprocals[5];
    GOOD(softmax_online_finish(&tile, to->states, 5, reciprocals, to->logs, a, options));
    CHECK(memcmp(reciprocals, to->reciprocals, sizeof reciprocals) == 0);
}

/* Probabilities and log-sum-exps are those of attention in double, whatever the tiles. */
static void values(void) {
    static float scores[N];
    static double wide[N];
    static double probs[N];
    static result one;
    static result other;
    double logs[ROWS];
    fill_random(SOFTMAX_F32, scores, N, 21);
    for (size_t i = 0; i < N; i++) {
        wide[i] = scores[i];
    }
    softmax_matrix x = softmax_matrix_of(wide, SOFTMAX_F64, ROWS, KEYS);
    softmax_matrix y = softmax_matrix_mut(probs, SOFTMAX_F64, ROWS, KEYS);
    for (int kind = 0; kind < KINDS; kind++) {
        softmax_attention a = attention_of(kind);
        softmax_options options = softmax_options_default();
        options.scale = kind == 0 ? -0.5 : kind == 1 ? 1.0 : 0.25;
        GOOD(softmax_attention_softmax(&x, &y, logs, &a, &options));
        tiles(&a, scores, SOFTMAX_F32, 0, ROWS, KEYS, &options, &one);
        for (size_t i = 0; i < N; i++) {
            double p = (float)one.weights[i] * one.reciprocals[i / KEYS];
            CHECK(near(SOFTMAX_F32, (float)p, probs[i], 4.0, 0.0));
        }
        for (size_t row = 0; row < ROWS; row++) {
            CHECK(near(SOFTMAX_F32, one.logs[row], logs[row], 2.0, 2e-7));
        }
        /* Any tiles, in place or in the caller's memory, give the same bits up to powers of 2. */
        static const size_t sizes[][2] = {{1, 1}, {5, 16}, {24, 33}, {7, 69}};
        char lent[N * 4 + 64];
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            softmax_options own = options;
            own.scratch = i % 2 == 0 ? lent : NULL;
            own.scratch_size = i % 2 == 0 ? sizeof lent : 0;
            tiles(&a, scores, SOFTMAX_F32, i > 1, sizes[i][0], sizes[i][1], &own, &other);
            CHECK(kind == 3 || kind == 7 || memcmp(one.logs, other.logs, sizeof one.logs) == 0);
            for (size_t at = 0; at < N; at++) {
                float p = (float)one.weights[at] * one.reciprocals[at / KEYS];
                float q = (float)other.weights[at] * other.reciprocals[at / KEYS];
                CHECK(kind == 3 || kind == 5 || kind == 7 || memcmp(&p, &q, sizeof p) == 0);
                CHECK(near(SOFTMAX_F32, q, probs[at], 4.0, 0.0));
            }
        }
        /* Half types have the weights of f32, rounded, and the same sums. */
        for (int d = 2; d < 4; d++) {
            tiles(&a, scores, dtypes[d], 0, ROWS, KEYS, &options, &other);
            CHECK(memcmp(one.states, other.states, sizeof one.states) == 0);
            for (size_t i = 0; i < N; i++) {
                double slack = dtypes[d] == SOFTMAX_F16 ? 3e-8 : 0.0;
                CHECK(near(dtypes[d], other.weights[i], one.weights[i], 0.5, slack));
            }
        }
    }
}

/* States that are sent, merged, and outputs that are merged. */
static void merges(void) {
    static float scores[ROWS][KEYS];
    static float weights[2][ROWS * KEYS];
    static softmax_online_row states[2][ROWS];
    static softmax_online_row sent[ROWS];
    enum { SPLIT = 40 };
    double numbers[ROWS * SOFTMAX_ONLINE_NUMBERS];
    float factors[2][ROWS];
    float reciprocals[2][ROWS];
    float logs[3][ROWS];
    fill_random(SOFTMAX_F32, scores, N, 5);
    /* A row of large scores on either side, and one that sees nothing on the first. */
    scores[1][3] = 60.0f;
    scores[2][60] = 60.0f;
    for (size_t key = 0; key < SPLIT; key++) {
        scores[4][key] = -INFINITY;
    }
    softmax_attention a = softmax_attention_default(HEADS, QUERIES);
    softmax_tile tile = softmax_tile_of(ROWS, KEYS);
    for (int half = 0; half < 2; half++) {
        size_t cols = half == 0 ? SPLIT : KEYS - SPLIT;
        tile.first_key = half == 0 ? 0 : SPLIT;
        softmax_matrix x = softmax_matrix_of(&scores[0][tile.first_key], SOFTMAX_F32, ROWS, cols);
        x.stride = KEYS;
        softmax_matrix y = softmax_matrix_mut(weights[half], SOFTMAX_F32, ROWS, cols);
        GOOD(softmax_online_new(states[half], ROWS));
        GOOD(softmax_online_tile(&tile, &x, &y, states[half], factors[0], &a, NULL));
        for (size_t row = 0; row < ROWS; row++) {
            CHECK(factors[0][row] == 0.0f);
        }
        GOOD(softmax_online_finish(&tile, states[half], ROWS, reciprocals[half], logs[half], &a, NULL));
    }
    /* Outputs of one column: the share of the first key. */
    float of_first[2][ROWS];
    float merged[ROWS];
    for (size_t row = 0; row < ROWS; row++) {
        of_first[0][row] = row == 4 ? NAN : weights[0][row * SPLIT] * reciprocals[0][row];
        of_first[1][row] = 0.0f;
    }
    softmax_matrix parts[2];
    parts[0] = softmax_matrix_of(of_first[0], SOFTMAX_F32, ROWS, 1);
    parts[1] = softmax_matrix_of(of_first[1], SOFTMAX_F32, ROWS, 1);
    const softmax_matrix *outputs[2] = {&parts[0], &parts[1]};
    const float *lists[2] = {logs[0], logs[1]};
    softmax_matrix to = softmax_matrix_mut(merged, SOFTMAX_F32, ROWS, 1);
    GOOD(softmax_merge_outputs(outputs, lists, 2, &to, logs[2], NULL));

    GOOD(softmax_online_to_array(states[1], ROWS, numbers));
    GOOD(softmax_online_from_array(numbers, ROWS, sent));
    double again[ROWS * SOFTMAX_ONLINE_NUMBERS];
    GOOD(softmax_online_to_array(sent, ROWS, again));
    CHECK(memcmp(numbers, again, sizeof numbers) == 0);
    GOOD(softmax_online_merge(states[0], sent, ROWS, factors[0], factors[1]));
    GOOD(softmax_online_finish(&tile, states[0], ROWS, reciprocals[0], logs[0], &a, NULL));
    CHECK(factors[0][1] == 1.0f && factors[1][1] < 1.0f);
    CHECK(factors[0][2] < 1.0f && factors[1][2] == 1.0f);
    CHECK(factors[0][4] == 0.0f && factors[1][4] == 1.0f);

    static double wide[N];
    static double probs[N];
    double wanted[ROWS];
    for (size_t i = 0; i < N; i++) {
        wide[i] = scores[i / KEYS][i % KEYS];
    }
    softmax_matrix x = softmax_matrix_of(wide, SOFTMAX_F64, ROWS, KEYS);
    softmax_matrix y = softmax_matrix_mut(probs, SOFTMAX_F64, ROWS, KEYS);
    GOOD(softmax_attention_softmax(&x, &y, wanted, &a, NULL));
    for (size_t row = 0; row < ROWS; row++) {
        CHECK(near(SOFTMAX_F32, logs[0][row], wanted[row], 2.0, 2e-7));
        CHECK(near(SOFTMAX_F32, logs[2][row], wanted[row], 3.0, 4e-7));
        for (size_t key = 0; key < KEYS; key++) {
            int half = key >= SPLIT;
            float w = half ? weights[1][row * (KEYS - SPLIT) + key - SPLIT] : weights[0][row * SPLIT + key];
            w = w * factors[half][row] * reciprocals[0][row];
            CHECK(near(SOFTMAX_F32, w, probs[row * KEYS + key], 4.0, 0.0));
        }
        /* Log-sum-exps of up to 61 are right to 2^-19. */
        CHECK(near(SOFTMAX_F32, merged[row], probs[row * KEYS], 128.0, 0.0));
    }
}

/* An address of no multiple of 4. */
#define ASKEW(type, p) ((type *)(void *)((char *)(p) + 2))

/* Rows without anything, and nothing at all. */
static void nothing(void) {
    float reciprocals[2];
    float logs[2];
    softmax_online_row states[2];
    softmax_tile tile = softmax_tile_of(2, 5);
    softmax_attention a = softmax_attention_default(2, 1);
    softmax_options zero = softmax_options_default();
    zero.flags = SOFTMAX_MASKED_ZERO;
    GOOD(softmax_online_new(states, 2));
    GOOD(softmax_online_finish(&tile, states, 2, reciprocals, logs, &a, NULL));
    CHECK(reciprocals[0] != reciprocals[0] && logs[1] == -INFINITY);
    GOOD(softmax_online_finish(&tile, states, 2, reciprocals, logs, &a, &zero));
    CHECK(reciprocals[0] == 0.0f && logs[1] == -INFINITY);
    a.sinks = sinks + 1;
    GOOD(softmax_online_finish(&tile, states, 2, reciprocals, logs, &a, &zero));
    CHECK(reciprocals[0] == 0.0f && reciprocals[1] == 0.0f);
    CHECK(logs[0] == -INFINITY && near(SOFTMAX_F32, logs[1], 2.0, 2.0, 0.0));
    /* Hidden scores are not read: NaN, and memory that is not initialised. */
    float x[2] = {NAN, 1.0f};
    float factor = 7.0f;
    a = softmax_attention_default(2, 1);
    a.flags = SOFTMAX_ATTENTION_CAUSAL | SOFTMAX_ATTENTION_OFFSET;
    a.offset = 1;
    tile.first_key = 2;
    softmax_matrix m = softmax_matrix_mut(x, SOFTMAX_F32, 1, 2);
    GOOD(softmax_online_tile(&tile, &m, &m, states, &factor, &a, NULL));
    CHECK(x[0] == 0.0f && x[1] == 0.0f && factor == 0.0f);
    /* A NaN that is seen stays. */
    x[1] = NAN;
    a.offset = 3;
    GOOD(softmax_online_tile(&tile, &m, &m, states, &factor, &a, NULL));
    GOOD(softmax_online_finish(&tile, states, 1, reciprocals, logs, &a, &zero));
    CHECK(x[0] != x[0] && reciprocals[0] != reciprocals[0] && logs[0] != logs[0]);

    softmax_matrix none = softmax_matrix_of(NULL, SOFTMAX_F32, 0, 3);
    /* Without elements the address does not count. */
    float factors[2] = {7.0f, 7.0f};
    GOOD(softmax_online_new(states, 2));
    tile.first_key = 0;
    for (int i = 0; i < 2; i++) {
        none = softmax_matrix_of(i == 0 ? NULL : ASKEW(float, x), SOFTMAX_F32, 2, 0);
        GOOD(softmax_online_tile(&tile, &none, &none, states, factors, &a, NULL));
        CHECK(factors[0] == 0.0f && factors[1] == 0.0f);
    }
    none = softmax_matrix_of(NULL, SOFTMAX_F32, 0, 3);
    GOOD(softmax_online_new(NULL, 0));
    GOOD(softmax_online_tile(&tile, &none, &none, NULL, NULL, &a, NULL));
    GOOD(softmax_online_finish(&tile, NULL, 0, NULL, NULL, &a, NULL));
    GOOD(softmax_online_merge(NULL, NULL, 0, NULL, NULL));
    GOOD(softmax_online_to_array(NULL, 0, NULL));
    GOOD(softmax_online_from_array(NULL, 0, NULL));
    GOOD(softmax_merge_outputs(NULL, NULL, 0, &none, NULL, NULL));
    float one[1] = {5.0f};
    softmax_matrix y = softmax_matrix_mut(one, SOFTMAX_F32, 1, 1);
    GOOD(softmax_merge_outputs(NULL, NULL, 0, &y, logs, &zero));
    CHECK(one[0] == 0.0f && logs[0] == -INFINITY);
}

static void bad_tiles(void) {
    enum { R = 2, K = 6 };
    float x[R * K];
    float y[R * K];
    float factors[R];
    softmax_online_row states[R];
    char message[300];
    softmax_options options = told(message, sizeof message);
    fill_random(SOFTMAX_F32, x, R * K, 2);
    memset(y, 0xA5, sizeof y);
    memset(factors, 0xA5, sizeof factors);
    GOOD(softmax_online_new(states, R));
    softmax_matrix in = softmax_matrix_of(x, SOFTMAX_F32, R, K);
    softmax_matrix out = softmax_matrix_mut(y, SOFTMAX_F32, R, K);
    softmax_tile tile = softmax_tile_of(ROWS, KEYS);
    softmax_attention a = softmax_attention_default(HEADS, QUERIES);
    watch(x, sizeof x);
    watch(y, sizeof y);
    watch(factors, sizeof factors);
    watch(states, sizeof states);
    BAD(NULL_POINTER, softmax_online_tile(NULL, &in, &out, states, factors, &a, &options));
    SAYS(message, "softmax_tile is null");
    BAD(NULL_POINTER, softmax_online_tile(&tile, NULL, &out, states, factors, &a, NULL));
    BAD(NULL_POINTER, softmax_online_tile(&tile, &in, NULL, states, factors, &a, NULL));
    BAD(NULL_POINTER, softmax_online_tile(&tile, &in, &out, NULL, factors, &a, &options));
    SAYS(message, "states is null");
    BAD(NULL_POINTER, softmax_online_tile(&tile, &in, &out, states, NULL, &a, NULL));
    BAD(NULL_POINTER, softmax_online_tile(&tile, &in, &in, states, NULL, &a, NULL));
    BAD(NULL_POINTER, softmax_online_tile(&tile, &in, &out, states, factors, NULL, NULL));
    softmax_matrix m = in;
    m.dtype = SOFTMAX_F64;
    BAD(DTYPE, softmax_online_tile(&tile, &m, &out, states, factors, &a, &options));
    SAYS(message, "scores and weights have dtypes 1 and 0");
    BAD(DTYPE, softmax_online_tile(&tile, &in, &m, states, factors, &a, NULL));
    m.dtype = SOFTMAX_F16;
    BAD(DTYPE, softmax_online_tile(&tile, &m, &m, states, factors, &a, NULL));
    BAD(OVERLAP, softmax_online_tile(&tile, &in, &m, states, factors, &a, &options));
    SAYS(message, "weights overlaps scores");
    m = out;
    m.cols = K - 1;
    BAD(SHAPE, softmax_online_tile(&tile, &in, &m, states, factors, &a, NULL));
    m.cols = m.stride = SIZE_MAX;
    BAD(OVERFLOW, softmax_online_tile(&tile, &in, &m, states, factors, &a, NULL));
    m = out;
    m.stride = 1;
    BAD(STRIDE, softmax_online_tile(&tile, &in, &m, states, factors, &a, NULL));
    BAD(ALIGNMENT, softmax_online_tile(&tile, &in, &out, ASKEW(softmax_online_row, states), factors, &a, NULL));
    BAD(ALIGNMENT, softmax_online_tile(&tile, &in, &out, states, ASKEW(float, factors), &a, NULL));
    BAD(OVERLAP, softmax_online_tile(&tile, &in, &out, states, x + 1, &a, NULL));
    BAD(OVERLAP, softmax_online_tile(&tile, &in, &out, states, y + 1, &a, &options));
    SAYS(message, "weights overlaps factors");
    BAD(OVERLAP, softmax_online_tile(&tile, &in, &out, states, (float *)(void *)&states[1], &a, NULL));
    BAD(OVERLAP, softmax_online_tile(&tile, &in, &in, states, x + 1, &a, NULL));
    a.sinks = factors;
    a.heads = 2;
    a.queries = 6;
    BAD(OVERLAP, softmax_online_tile(&tile, &in, &out, states, factors, &a, &options));
    SAYS(message, "factors overlaps sinks");
    a = softmax_attention_default(HEADS, QUERIES);

    /* Beyond the whole. */
    tile.first_key = KEYS - K + 1;
    BAD(VALUE, softmax_online_tile(&tile, &in, &out, states, factors, &a, &options));
    SAYS(message, "keys");
    tile.first_key = SIZE_MAX;
    BAD(VALUE, softmax_online_tile(&tile, &in, &in, states, factors, &a, NULL));
    tile.first_key = 0;
    tile.first_row = ROWS - 1;
    BAD(VALUE, softmax_online_tile(&tile, &in, &out, states, factors, &a, &options));
    SAYS(message, "rows");
    tile.first_row = 0;
    tile.rows = ROWS - 1;
    BAD(SHAPE, softmax_online_tile(&tile, &in, &out, states, factors, &a, NULL));
    tile.rows = ROWS;
    a.flags = 32;
    BAD(VALUE, softmax_online_tile(&tile, &in, &out, states, factors, &a, NULL));
    a.flags = 0;
    a.soft_cap = -1.0;
    BAD(VALUE, softmax_online_tile(&tile, &in, &out, states, factors, &a, NULL));
    a.soft_cap = 0.0;
    a.lengths = lengths;
    a.lengths_count = 1;
    BAD(LENGTH, softmax_online_tile(&tile, &in, &out, states, factors, &a, NULL));
    a.lengths = NULL;
    a.mask = mask_numbers;
    a.mask_shape[0] = 1;
    a.mask_shape[1] = HEADS;
    a.mask_shape[2] = QUERIES + 1;
    BAD(SHAPE, softmax_online_tile(&tile, &in, &out, states, factors, &a, NULL));
    a.mask = NULL;
    options.temperature = 0.0;
    BAD(VALUE, softmax_online_tile(&tile, &in, &out, states, factors, &a, &options));
    options.temperature = 1.0;
    options.scale = -1.0;
    options.scratch = x;
    options.scratch_size = sizeof x;
    BAD(OVERLAP, softmax_online_tile(&tile, &in, &out, states, factors, &a, &options));
    unwatch();
    STRUCT_SIZES(softmax_tile, tile, p, softmax_online_tile(p, &in, &out, states, factors, &a, NULL));
    STRUCT_SIZES(softmax_matrix, in, p, softmax_online_tile(&tile, p, &out, states, factors, &a, NULL));
    STRUCT_SIZES(softmax_matrix, out, p, softmax_online_tile(&tile, &in, p, states, factors, &a, NULL));
    STRUCT_SIZES(softmax_attention, a, p, softmax_online_tile(&tile, &in, &out, states, factors, p, NULL));
}

static void bad_ends(void) {
    enum { R = 3 };
    softmax_online_row states[R];
    softmax_online_row others[R];
    float a_list[R];
    float b_list[R];
    double numbers[R * SOFTMAX_ONLINE_NUMBERS];
    char message[300];
    softmax_options options = told(message, sizeof message);
    memset(a_list, 0xA5, sizeof a_list);
    memset(b_list, 0xA5, sizeof b_list);
    memset(numbers, 0, sizeof numbers);
    GOOD(softmax_online_new(states, R));
    GOOD(softmax_online_new(others, R));
    softmax_tile tile = softmax_tile_of(ROWS, KEYS);
    softmax_attention a = softmax_attention_default(HEADS, QUERIES);
    watch(states, sizeof states);
    watch(others, sizeof others);
    watch(a_list, sizeof a_list);
    watch(b_list, sizeof b_list);
    watch(numbers, sizeof numbers);
    BAD(NULL_POINTER, softmax_online_new(NULL, 1));
    BAD(ALIGNMENT, softmax_online_new(ASKEW(softmax_online_row, states), 1));
    BAD(OVERFLOW, softmax_online_new(states, SIZE_MAX / 8));

    BAD(NULL_POINTER, softmax_online_finish(NULL, states, R, a_list, b_list, &a, NULL));
    BAD(NULL_POINTER, softmax_online_finish(&tile, NULL, R, a_list, b_list, &a, NULL));
    BAD(NULL_POINTER, softmax_online_finish(&tile, states, R, NULL, b_list, &a, NULL));
    BAD(NULL_POINTER, softmax_online_finish(&tile, states, R, a_list, b_list, NULL, NULL));
    BAD(ALIGNMENT, softmax_online_finish(&tile, states, R, ASKEW(float, a_list), b_list, &a, NULL));
    BAD(ALIGNMENT, softmax_online_finish(&tile, states, R, a_list, ASKEW(float, b_list), &a, NULL));
    BAD(OVERLAP, softmax_online_finish(&tile, states, R, a_list, a_list, &a, &options));
    SAYS(message, "reciprocals overlaps logsumexp");
    BAD(OVERLAP, softmax_online_finish(&tile, states, R, (float *)(void *)states, b_list, &a, NULL));
    BAD(OVERFLOW, softmax_online_finish(&tile, states, SIZE_MAX / 8, a_list, b_list, &a, NULL));
    tile.first_row = ROWS - R + 1;
    BAD(VALUE, softmax_online_finish(&tile, states, R, a_list, b_list, &a, &options));
    SAYS(message, "rows");
    tile.first_row = 0;
    tile.rows = 5;
    BAD(SHAPE, softmax_online_finish(&tile, states, R, a_list, b_list, &a, NULL));
    tile.rows = ROWS;
    options.temperature = INFINITY;
    BAD(VALUE, softmax_online_finish(&tile, states, R, a_list, b_list, &a, &options));
    options.temperature = 1.0;

    BAD(NULL_POINTER, softmax_online_merge(NULL, others, R, a_list, b_list));
    BAD(NULL_POINTER, softmax_online_merge(states, NULL, R, a_list, b_list));
    BAD(NULL_POINTER, softmax_online_merge(states, others, R, NULL, b_list));
    BAD(NULL_POINTER, softmax_online_merge(states, others, R, a_list, NULL));
    BAD(ALIGNMENT, softmax_online_merge(states, ASKEW(softmax_online_row, others), 1, a_list, b_list));
    BAD(OVERLAP, softmax_online_merge(states, states, R, a_list, b_list));
    BAD(OVERLAP, softmax_online_merge(states, others, R, a_list, a_list));
    BAD(OVERFLOW, softmax_online_merge(states, others, SIZE_MAX / 8, a_list, b_list));

    BAD(NULL_POINTER, softmax_online_to_array(NULL, R, numbers));
    BAD(NULL_POINTER, softmax_online_to_array(states, R, NULL));
    BAD(ALIGNMENT, softmax_online_to_array(states, R, ASKEW(double, numbers)));
    BAD(OVERLAP, softmax_online_to_array(states, R, (double *)(void *)states));
    BAD(OVERFLOW, softmax_online_to_array(states, SIZE_MAX / 4, numbers));
    BAD(NULL_POINTER, softmax_online_from_array(NULL, R, states));
    BAD(NULL_POINTER, softmax_online_from_array(numbers, R, NULL));
    BAD(ALIGNMENT, softmax_online_from_array(ASKEW(double, numbers), 1, states));
    BAD(OVERLAP, softmax_online_from_array((double *)(void *)states, R, states));
    BAD(OVERFLOW, softmax_online_from_array(numbers, SIZE_MAX / 4, states));
    unwatch();
    STRUCT_SIZES(softmax_tile, tile, p, softmax_online_finish(p, states, R, a_list, b_list, &a, NULL));
    STRUCT_SIZES(softmax_attention, a, p, softmax_online_finish(&tile, states, R, a_list, b_list, p, NULL));
}

static void bad_outputs(void) {
    enum { R = 2, C = 3 };
    float parts[2][R * C];
    float of_parts[2][R];
    float to[R * C];
    float lse[R + 1];
    char message[300];
    softmax_options options = told(message, sizeof message);
    fill_random(SOFTMAX_F32, parts, 2 * R * C, 1);
    fill_random(SOFTMAX_F32, of_parts, 2 * R, 1);
    memset(to, 0xA5, sizeof to);
    memset(lse, 0xA5, sizeof lse);
    softmax_matrix a = softmax_matrix_of(parts[0], SOFTMAX_F32, R, C);
    softmax_matrix b = softmax_matrix_of(parts[1], SOFTMAX_F32, R, C);
    softmax_matrix out = softmax_matrix_mut(to, SOFTMAX_F32, R, C);
    const softmax_matrix *outputs[2] = {&a, &b};
    const float *lists[2] = {of_parts[0], of_parts[1]};
    watch(parts, sizeof parts);
    watch(of_parts, sizeof of_parts);
    watch(to, sizeof to);
    watch(lse, sizeof lse);
    BAD(NULL_POINTER, softmax_merge_outputs(NULL, lists, 2, &out, lse, NULL));
    BAD(NULL_POINTER, softmax_merge_outputs(outputs, NULL, 2, &out, lse, NULL));
    BAD(NULL_POINTER, softmax_merge_outputs(outputs, lists, 2, NULL, lse, NULL));
    BAD(NULL_POINTER, softmax_merge_outputs(outputs, lists, 2, &out, NULL, &options));
    SAYS(message, "logsumexp is null");
    BAD(ALIGNMENT, softmax_merge_outputs(outputs, lists, 2, &out, ASKEW(float, lse), NULL));
    BAD(OVERFLOW, softmax_merge_outputs(outputs, lists, SIZE_MAX / 8, &out, lse, NULL));
    outputs[1] = NULL;
    BAD(NULL_POINTER, softmax_merge_outputs(outputs, lists, 2, &out, lse, NULL));
    outputs[1] = &out;
    BAD(OVERLAP, softmax_merge_outputs(outputs, lists, 2, &out, lse, &options));
    SAYS(message, "output overlaps outputs");
    outputs[1] = &b;
    lists[1] = NULL;
    BAD(NULL_POINTER, softmax_merge_outputs(outputs, lists, 2, &out, lse, NULL));
    lists[1] = ASKEW(const float, of_parts[0]);
    BAD(ALIGNMENT, softmax_merge_outputs(outputs, lists, 2, &out, lse, NULL));
    lists[1] = lse + 1;
    BAD(OVERLAP, softmax_merge_outputs(outputs, lists, 2, &out, lse, NULL));
    lists[1] = of_parts[1];
    BAD(OVERLAP, softmax_merge_outputs(outputs, lists, 2, &out, to, NULL));
    b.dtype = SOFTMAX_F64;
    BAD(DTYPE, softmax_merge_outputs(outputs, lists, 2, &out, lse, NULL));
    b.dtype = SOFTMAX_F32;
    b.cols = C - 1;
    BAD(SHAPE, softmax_merge_outputs(outputs, lists, 2, &out, lse, &options));
    SAYS(message, "part");
    b.cols = C;
    b.rows = R - 1;
    BAD(SHAPE, softmax_merge_outputs(outputs, lists, 2, &out, lse, NULL));
    b.rows = SIZE_MAX;
    BAD(OVERFLOW, softmax_merge_outputs(outputs, lists, 2, &out, lse, NULL));
    b.rows = R;
    out.dtype = SOFTMAX_BF16;
    BAD(DTYPE, softmax_merge_outputs(outputs, lists, 2, &out, lse, NULL));
    out.dtype = SOFTMAX_F32;
    unwatch();
    const softmax_matrix *of_a[1];
    STRUCT_SIZES(softmax_matrix, a, p, (of_a[0] = p, softmax_merge_outputs(of_a, lists, 1, &out, lse, NULL)));
    STRUCT_SIZES(softmax_matrix, out, p, softmax_merge_outputs(outputs, lists, 2, p, lse, NULL));
}

int main(void) {
    for (size_t i = 0; i < sizeof mask_bits / sizeof *mask_bits; i++) {
        mask_bits[i] = 0x9249b6dbu * (uint32_t)(i + 1) | 1u;
    }
    fill_random(SOFTMAX_F32, mask_numbers, HEADS * QUERIES * KEYS, 41);
    values();
    merges();
    nothing();
    bad_tiles();
    bad_ends();
    bad_outputs();
    return checked();
}
