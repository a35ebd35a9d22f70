/* Softmax of attention scores. */
#include "check.h"

enum { BATCH = 2, HEADS = 3, QUERIES = 4, KEYS = 11, ROWS = BATCH * HEADS * QUERIES, N = ROWS * KEYS };

static const float slopes[HEADS] = {0.5f, 1.0f, 2.0f};
static const float alibi[HEADS] = {0.25f, 0.0f, 0.125f};
static const float sinks[HEADS] = {0.0f, -INFINITY, 2.0f};
static const size_t lengths[BATCH] = {11, 7};
static const ptrdiff_t offsets[BATCH] = {7, 2};

/* The formula of the header. */
static void reference(const softmax_attention *a, double scale, const double *scores, long double *probs,
                      long double *lse) {
    for (size_t row = 0; row < ROWS; row++) {
        size_t q = row % QUERIES;
        size_t h = row / QUERIES % HEADS;
        size_t b = row / QUERIES / HEADS;
        ptrdiff_t offset =
            (a->flags & SOFTMAX_ATTENTION_OFFSET) != 0 ? a->offset : (ptrdiff_t)KEYS - QUERIES;
        ptrdiff_t position = (ptrdiff_t)q + offset;
        if (a->offsets != NULL) {
            position = a->offsets_count == BATCH ? (ptrdiff_t)q + a->offsets[b] : a->offsets[row];
        }
        size_t mask_keys = (a->flags & SOFTMAX_ATTENTION_MASK_KEYS) != 0 ? a->mask_keys : KEYS;
        long double logits[KEYS];
        long double sum = a->sinks != NULL ? expl(a->sinks[h]) : 0.0L;
        for (ptrdiff_t key = 0; key < KEYS; key++) {
            long double z = scale * scores[row * KEYS + (size_t)key];
            if (a->soft_cap != 0.0) {
                z = a->soft_cap * tanhl(z / a->soft_cap);
            }
            if (a->mask != NULL && (size_t)key >= mask_keys) {
                z = -INFINITY;
            } else if (a->mask != NULL) {
                size_t mb = a->mask_shape[0] == 1 ? 0 : b;
                size_t mh = a->mask_shape[1] == 1 ? 0 : h;
                size_t mq = a->mask_shape[2] == 1 ? 0 : q;
                size_t at =
                    ((mb * a->mask_shape[1] + mh) * a->mask_shape[2] + mq) * mask_keys + (size_t)key;
                if (a->mask_dtype == SOFTMAX_BITS) {
                    size_t word = at / mask_keys * ((mask_keys + 31) / 32) + (size_t)key / 32;
                    z = (((const uint32_t *)a->mask)[word] >> key % 32 & 1) != 0 ? z : -INFINITY;
                } else if (a->mask_dtype == SOFTMAX_BOOL) {
                    z = ((const unsigned char *)a->mask)[at] != 0 ? z : -INFINITY;
                } else {
                    z += (a->mask_slopes != NULL ? a->mask_slopes[h] : 1.0) * get(a->mask_dtype, a->mask, at);
                }
            }
            if (a->alibi != NULL) {
                z += (long double)a->alibi[h] * (key - position);
            }
            int hidden = (a->flags & SOFTMAX_ATTENTION_CAUSAL) != 0 && key > position;
            hidden |= (a->flags & SOFTMAX_ATTENTION_WINDOW) != 0 && key <= position - (ptrdiff_t)a->window;
            hidden |= (a->flags & SOFTMAX_ATTENTION_WINDOW_AHEAD) != 0 && key > position + (ptrdiff_t)a->window_ahead;
            if (a->lengths != NULL) {
                hidden |= (size_t)key >= (a->lengths_count == BATCH ? a->lengths[b] : a->lengths[row]);
            }
            logits[key] = hidden ? -INFINITY : z;
            sum += expl(logits[key]);
        }
        for (size_t key = 0; key < KEYS; key++) {
            probs[row * KEYS + key] = expl(logits[key]) / sum;
        }
        lse[row] = logl(sum);
    }
}

static void compare(const softmax_attention *a, softmax_dtype in, softmax_dtype out, double scale) {
    char scores[N * 8];
    char probs[N * 8];
    char lse[ROWS * 8];
    double wide[N];
    long double wanted[N];
    long double wanted_lse[ROWS];
    fill_random(in, scores, N, 21);
    for (size_t i = 0; i < N; i++) {
        wide[i] = get(in, scores, i);
    }
    reference(a, scale, wide, wanted, wanted_lse);
    softmax_matrix x = softmax_matrix_of(scores, in, ROWS, KEYS);
    softmax_matrix y = softmax_matrix_mut(probs, out, ROWS, KEYS);
    softmax_options options = softmax_options_default();
    options.scale = scale;
    GOOD(softmax_attention_softmax(&x, &y, lse, a, &options));
    double ulps = out == SOFTMAX_F16 ? 0.53 : out == SOFTMAX_BF16 ? 0.51 : 3.0;
    ulps += in == SOFTMAX_F64 ? 1.25 * a->soft_cap : 0.0;
    for (size_t i = 0; i < N; i++) {
        int good = near(out, get(out, probs, i), wanted[i], ulps, 0.0);
        CHECK(good);
        CHECK(wanted[i] != 0.0L || get(out, probs, i) == 0.0);
    }
    softmax_dtype c = computed(in);
    double absolute = c == SOFTMAX_F64 ? 1e-14 : ulps < 1.0 ? 2e-5 : 1e-6;
    for (size_t i = 0; i < ROWS; i++) {
        CHECK(near(c, get(c, lse, i), wanted_lse[i], ulps, absolute));
    }
    /* Without the log-sum-exp, in lent memory, in place. */
    char again[N * 8];
    softmax_matrix z = softmax_matrix_mut(again, out, ROWS, KEYS);
    GOOD(softmax_attention_softmax(&x, &z, NULL, a, &options));
    CHECK(memcmp(again, probs, N * size_of(out)) == 0);
    size_t needed = 0;
    GOOD(softmax_attention_scratch_size(&x, &y, &needed, &options));
    char *lent = (char *)memory(needed + 3);
    options.scratch = lent + 3;
    options.scratch_size = needed;
    memset(again, 0, sizeof again);
    GOOD(softmax_attention_softmax(&x, &z, NULL, a, &options));
    CHECK(memcmp(again, probs, N * size_of(out)) == 0);
    if (in == out) {
        char lse_again[ROWS * 8];
        GOOD(softmax_attention_softmax(&x, &x, lse_again, a, &options));
        CHECK(memcmp(scores, probs, N * size_of(out)) == 0);
        CHECK(memcmp(lse, lse_again, ROWS * size_of(c)) == 0);
    }
    free(lent);
}

static void values(void) {
    static float mask_f32[BATCH * HEADS * QUERIES * KEYS];
    static uint16_t mask_f16[QUERIES * KEYS];
    static unsigned char mask_bool[BATCH * KEYS];
    static uint32_t mask_bits[BATCH * QUERIES];
    for (size_t i = 0; i < BATCH * QUERIES; i++) {
        mask_bits[i] = 0x9249b6dbu * (uint32_t)(i + 1) | 1u;
    }
    static ptrdiff_t all_offsets[ROWS];
    for (size_t i = 0; i < ROWS; i++) {
        all_offsets[i] = (ptrdiff_t)(i * 5 % KEYS);
    }
    fill_random(SOFTMAX_F32, mask_f32, BATCH * HEADS * QUERIES * KEYS, 41);
    fill_random(SOFTMAX_F16, mask_f16, QUERIES * KEYS, 42);
    for (size_t i = 0; i < BATCH * KEYS; i++) {
        mask_bool[i] = i % 3 == 0 ? 0 : (unsigned char)i;
    }
    static const softmax_dtype pairs[][2] = {
        {SOFTMAX_F32, SOFTMAX_F32},  {SOFTMAX_F32, SOFTMAX_F16},
        {SOFTMAX_F32, SOFTMAX_BF16}, {SOFTMAX_F16, SOFTMAX_F16},
        {SOFTMAX_F16, SOFTMAX_F32},  {SOFTMAX_BF16, SOFTMAX_BF16},
        {SOFTMAX_BF16, SOFTMAX_F32}, {SOFTMAX_F64, SOFTMAX_F64}};
    for (size_t p = 0; p < sizeof pairs / sizeof *pairs; p++) {
        for (int which = 0; which < 16; which++) {
            softmax_attention a = softmax_attention_default(HEADS, QUERIES);
            double scale = 0.25;
            switch (which) {
            case 0:
                break;
            case 1:
                a.flags = SOFTMAX_ATTENTION_CAUSAL;
                break;
            case 2:
                a.flags = SOFTMAX_ATTENTION_CAUSAL | SOFTMAX_ATTENTION_WINDOW | SOFTMAX_ATTENTION_OFFSET;
                a.window = 3;
                a.offset = 2;
                break;
            case 3:
                a.sinks = sinks;
                a.alibi = alibi;
                break;
            case 4:
                a.soft_cap = 1.5;
                break;
            case 5:
                a.mask = mask_f32;
                a.mask_dtype = SOFTMAX_F32;
                a.mask_shape[0] = BATCH;
                a.mask_shape[1] = HEADS;
                a.mask_shape[2] = QUERIES;
                a.mask_slopes = slopes;
                break;
            case 6:
                a.mask = mask_f16;
                a.mask_dtype = SOFTMAX_F16;
                a.mask_shape[0] = 1;
                a.mask_shape[1] = 1;
                a.mask_shape[2] = QUERIES;
                break;
            case 7:
                a.mask = mask_bool;
                a.mask_dtype = SOFTMAX_BOOL;
                a.mask_shape[0] = BATCH;
                a.mask_shape[1] = 1;
                a.mask_shape[2] = 1;
                break;
            case 8:
                a.lengths = lengths;
                a.lengths_count = BATCH;
                break;
            case 9:
                a.flags = SOFTMAX_ATTENTION_WINDOW | SOFTMAX_ATTENTION_OFFSET;
                a.window = 3;
                a.offset = 2;
                break;
            case 10:
                a.flags = SOFTMAX_ATTENTION_WINDOW | SOFTMAX_ATTENTION_WINDOW_AHEAD | SOFTMAX_ATTENTION_OFFSET;
                a.window = 2;
                a.window_ahead = 3;
                a.offset = 1;
                break;
            case 11:
                a.flags = SOFTMAX_ATTENTION_CAUSAL | SOFTMAX_ATTENTION_WINDOW;
                a.window = 4;
                a.alibi = alibi;
                a.offsets = offsets;
                a.offsets_count = BATCH;
                break;
            case 12:
                a.flags = SOFTMAX_ATTENTION_CAUSAL;
                a.offsets = all_offsets;
                a.offsets_count = ROWS;
                break;
            case 13:
                a.flags = SOFTMAX_ATTENTION_MASK_KEYS;
                a.mask = mask_f16;
                a.mask_dtype = SOFTMAX_F16;
                a.mask_shape[0] = 1;
                a.mask_shape[1] = 1;
                a.mask_shape[2] = QUERIES;
                a.mask_keys = 6;
                break;
            case 14:
                a.flags = SOFTMAX_ATTENTION_MASK_KEYS;
                a.mask = mask_bits;
                a.mask_dtype = SOFTMAX_BITS;
                a.mask_shape[0] = BATCH;
                a.mask_shape[1] = 1;
                a.mask_shape[2] = QUERIES;
                a.mask_keys = 6;
                break;
            default:
                scale = 0.125;
                a.lengths = lengths;
                a.lengths_count = BATCH;
                a.flags = SOFTMAX_ATTENTION_CAUSAL;
                a.sinks = sinks;
                a.alibi = alibi;
                a.mask = mask_f32;
                a.mask_dtype = SOFTMAX_F32;
                a.mask_shape[0] = BATCH;
                a.mask_shape[1] = HEADS;
                a.mask_shape[2] = QUERIES;
            }
            compare(&a, pairs[p][0], pairs[p][1], scale);
        }
    }
}

/* What is hidden is not read: memory that is not initialised (valgrind would tell), and NaN. */
static void hidden(void) {
    float x[2][3] = {{1.0f, NAN, NAN}, {1.0f, 1.0f, NAN}};
    float y[2][3];
    softmax_matrix in = softmax_matrix_of(x, SOFTMAX_F32, 2, 3);
    softmax_matrix out = softmax_matrix_mut(y, SOFTMAX_F32, 2, 3);
    softmax_attention a = softmax_attention_default(1, 2);
    a.flags = SOFTMAX_ATTENTION_CAUSAL | SOFTMAX_ATTENTION_OFFSET;
    GOOD(softmax_attention_softmax(&in, &out, NULL, &a, NULL));
    CHECK(y[0][0] == 1.0f && y[0][1] == 0.0f && y[0][2] == 0.0f);
    CHECK(y[1][0] == 0.5f && y[1][1] == 0.5f && y[1][2] == 0.0f);
    /* Queries that see nothing. */
    a.offset = -2;
    softmax_options options = softmax_options_default();
    options.flags = SOFTMAX_MASKED_ZERO;
    float lse[2];
    GOOD(softmax_attention_softmax(&in, &out, lse, &a, &options));
    CHECK(y[0][0] == 0.0f && y[1][2] == 0.0f && lse[0] == -INFINITY && lse[1] == -INFINITY);
    /* None of anything. */
    softmax_matrix none = softmax_matrix_of(NULL, SOFTMAX_F32, 0, 3);
    a = softmax_attention_default(1, 2);
    GOOD(softmax_attention_softmax(&none, &none, NULL, &a, NULL));
}

static void bad(void) {
    float x[N];
    float y[N];
    float lse[ROWS + 1];
    float mask[QUERIES * KEYS + 1];
    size_t all_lengths[ROWS];
    char message[300];
    softmax_options options = told(message, sizeof message);
    fill_random(SOFTMAX_F32, x, N, 2);
    fill_random(SOFTMAX_F32, mask, QUERIES * KEYS + 1, 3);
    memset(y, 0xA5, sizeof y);
    memset(lse, 0xA5, sizeof lse);
    for (size_t i = 0; i < ROWS; i++) {
        all_lengths[i] = i;
    }
    softmax_matrix in = softmax_matrix_of(x, SOFTMAX_F32, ROWS, KEYS);
    softmax_matrix out = softmax_matrix_mut(y, SOFTMAX_F32, ROWS, KEYS);
    softmax_attention a = softmax_attention_default(HEADS, QUERIES);
    watch(x, sizeof x);
    watch(y, sizeof y);
    watch(lse, sizeof lse);
    watch(mask, sizeof mask);
    watch(all_lengths, sizeof all_lengths);
    BAD(NULL_POINTER, softmax_attention_softmax(NULL, &out, lse, &a, NULL));
    BAD(NULL_POINTER, softmax_attention_softmax(&in, NULL, lse, &a, NULL));
    BAD(NULL_POINTER, softmax_attention_softmax(&in, &out, lse, NULL, &options));
    SAYS(message, "softmax_attention is null");
    softmax_matrix m = in;
    m.data = NULL;
    BAD(NULL_POINTER, softmax_attention_softmax(&m, &out, lse, &a, NULL));
    BAD(NULL_POINTER, softmax_attention_softmax(&in, &m, lse, &a, NULL));
    BAD(NULL_POINTER, softmax_attention_softmax(&m, &m, lse, &a, NULL));
    m = out;
    m.dtype = SOFTMAX_F64;
    BAD(DTYPE, softmax_attention_softmax(&in, &m, lse, &a, &options));
    SAYS(message, "0 and 1");
    m.dtype = SOFTMAX_BOOL;
    BAD(DTYPE, softmax_attention_softmax(&in, &m, lse, &a, NULL));
    BAD(DTYPE, softmax_attention_softmax(&m, &m, lse, &a, NULL));
    m = out;
    m.data = (char *)y + 2;
    BAD(ALIGNMENT, softmax_attention_softmax(&in, &m, lse, &a, NULL));
    BAD(ALIGNMENT, softmax_attention_softmax(&in, &out, (char *)lse + 1, &a, NULL));
    BAD(ALIGNMENT, softmax_attention_softmax(&in, &in, (char *)lse + 1, &a, NULL));
    m = in;
    m.data = x + 1;
    m.rows = ROWS - QUERIES * HEADS;
    BAD(OVERLAP, softmax_attention_softmax(&in, &m, lse, &a, NULL));
    BAD(OVERLAP, softmax_attention_softmax(&in, &out, y, &a, &options));
    SAYS(message, "probs overlaps logsumexp");
    BAD(OVERLAP, softmax_attention_softmax(&in, &out, x + 5, &a, NULL));
    /* As another type there is no place that is the same. */
    m = in;
    m.dtype = SOFTMAX_F16;
    BAD(OVERLAP, softmax_attention_softmax(&in, &m, lse, &a, NULL));
    m = out;
    m.rows = ROWS - 1;
    BAD(SHAPE, softmax_attention_softmax(&in, &m, lse, &a, NULL));
    m = out;
    m.cols = KEYS - 1;
    BAD(SHAPE, softmax_attention_softmax(&in, &m, lse, &a, &options));
    SAYS(message, "24");
    m = out;
    m.stride = KEYS - 1;
    BAD(STRIDE, softmax_attention_softmax(&in, &m, lse, &a, NULL));
    m = out;
    m.rows = SIZE_MAX;
    BAD(OVERFLOW, softmax_attention_softmax(&in, &m, lse, &a, NULL));
    BAD(OVERFLOW, softmax_attention_softmax(&m, &m, lse, &a, NULL));
    m.rows = ROWS;
    m.stride = SIZE_MAX;
    BAD(OVERFLOW, softmax_attention_softmax(&m, &out, lse, &a, NULL));
    BAD(OVERFLOW, softmax_attention_softmax(&in, &m, lse, &a, NULL));

    static const size_t shapes[][2] = {{5, 4}, {3, 5}, {0, 4}, {3, 0}, {SIZE_MAX, 4}, {3, SIZE_MAX}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        a = softmax_attention_default(shapes[i][0], shapes[i][1]);
        BAD(SHAPE, softmax_attention_softmax(&in, &out, lse, &a, &options));
        SAYS(message, "24");
    }
    static const uint32_t flags[] = {32, UINT32_MAX};
    for (size_t i = 0; i < 2; i++) {
        a = softmax_attention_default(HEADS, QUERIES);
        a.flags = flags[i];
        BAD(VALUE, softmax_attention_softmax(&in, &out, lse, &a, &options));
        SAYS(message, "flags");
    }
    static const double caps[] = {NAN, -1.0, 1e-9, 1e9, INFINITY};
    for (size_t i = 0; i < sizeof caps / sizeof *caps; i++) {
        a = softmax_attention_default(HEADS, QUERIES);
        a.soft_cap = caps[i];
        BAD(VALUE, softmax_attention_softmax(&in, &out, lse, &a, &options));
        SAYS(message, "cap");
    }
    options.temperature = 0.0;
    a = softmax_attention_default(HEADS, QUERIES);
    BAD(VALUE, softmax_attention_softmax(&in, &out, lse, &a, &options));
    options.temperature = 1.0;

    /* Masks. */
    a.mask = mask;
    a.mask_shape[0] = 1;
    a.mask_shape[1] = 1;
    a.mask_shape[2] = QUERIES;
    GOOD(softmax_attention_softmax(&in, &out, NULL, &a, NULL));
    memset(y, 0xA5, sizeof y);
    a.mask_dtype = SOFTMAX_F64;
    BAD(DTYPE, softmax_attention_softmax(&in, &out, lse, &a, &options));
    SAYS(message, "a mask cannot have the dtype 1");
    a.mask_dtype = 99;
    BAD(DTYPE, softmax_attention_softmax(&in, &out, lse, &a, NULL));
    a.mask_dtype = SOFTMAX_F32;
    a.mask = (char *)mask + 2;
    BAD(ALIGNMENT, softmax_attention_softmax(&in, &out, lse, &a, NULL));
    a.mask = y;
    BAD(OVERLAP, softmax_attention_softmax(&in, &out, lse, &a, &options));
    SAYS(message, "probs overlaps mask");
    a.mask = x;
    BAD(OVERLAP, softmax_attention_softmax(&in, &in, lse, &a, NULL));
    a.mask = mask;
    a.flags = SOFTMAX_ATTENTION_MASK_KEYS;
    a.mask_keys = KEYS + 1;
    BAD(VALUE, softmax_attention_softmax(&in, &out, lse, &a, &options));
    SAYS(message, "columns of the mask");
    a.mask_keys = SIZE_MAX;
    BAD(OVERFLOW, softmax_attention_softmax(&in, &out, lse, &a, NULL));
    a.mask_keys = 0;
    GOOD(softmax_attention_softmax(&in, &out, NULL, &a, NULL));
    memset(y, 0xA5, sizeof y);
    a.flags = 0;
    a.mask_shape[2] = QUERIES - 1;
    BAD(SHAPE, softmax_attention_softmax(&in, &out, lse, &a, NULL));
    a.mask_shape[2] = 0;
    BAD(SHAPE, softmax_attention_softmax(&in, &out, lse, &a, NULL));
    a.mask_shape[2] = SIZE_MAX;
    BAD(OVERFLOW, softmax_attention_softmax(&in, &out, lse, &a, NULL));
    a.mask_shape[2] = SIZE_MAX / KEYS;
    BAD(OVERFLOW, softmax_attention_softmax(&in, &out, lse, &a, NULL));
    a = softmax_attention_default(HEADS, QUERIES);
    a.mask_slopes = slopes;
    softmax_status without_mask = softmax_attention_softmax(&in, &out, NULL, &a, NULL);
    CHECK(without_mask == SOFTMAX_STATUS_OK || without_mask == SOFTMAX_STATUS_SHAPE);
    memset(y, 0xA5, sizeof y);

    /* Arrays of the heads. */
    for (int which = 0; which < 3; which++) {
        a = softmax_attention_default(HEADS, QUERIES);
        const float **array = which == 0 ? &a.mask_slopes : which == 1 ? &a.alibi : &a.sinks;
        *array = (const float *)(const void *)((const char *)mask + 1);
        BAD(ALIGNMENT, softmax_attention_softmax(&in, &out, lse, &a, NULL));
        *array = y + N - 1;
        BAD(OVERLAP, softmax_attention_softmax(&in, &out, lse, &a, NULL));
        *array = lse;
        BAD(OVERLAP, softmax_attention_softmax(&in, &in, lse, &a, NULL));
    }

    /* Lengths. */
    a = softmax_attention_default(HEADS, QUERIES);
    a.alibi = alibi;
    a.flags = SOFTMAX_ATTENTION_OFFSET;
    a.offset = 19692841;
    BAD(VALUE, softmax_attention_softmax(&in, &out, lse, &a, &options));
    SAYS(message, "distance of a key");
    a = softmax_attention_default(HEADS, QUERIES);
    a.lengths = all_lengths;
    static const size_t wrong[] = {0, 1, 3, ROWS - 1};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        a.lengths_count = wrong[i];
        BAD(LENGTH, softmax_attention_softmax(&in, &out, lse, &a, &options));
        SAYS(message, "lengths");
    }
    a.lengths_count = SIZE_MAX;
    BAD(OVERFLOW, softmax_attention_softmax(&in, &out, lse, &a, NULL));
    a.lengths = (size_t *)(void *)((char *)all_lengths + 1);
    a.lengths_count = BATCH;
    BAD(ALIGNMENT, softmax_attention_softmax(&in, &out, lse, &a, NULL));
    a.lengths = (size_t *)(void *)y;
    BAD(OVERLAP, softmax_attention_softmax(&in, &out, lse, &a, NULL));

    /* Offsets. */
    ptrdiff_t some_offsets[ROWS] = {0};
    a = softmax_attention_default(HEADS, QUERIES);
    a.offsets = some_offsets;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        a.offsets_count = wrong[i];
        BAD(LENGTH, softmax_attention_softmax(&in, &out, lse, &a, &options));
        SAYS(message, "offsets");
    }
    a.offsets_count = SIZE_MAX;
    BAD(OVERFLOW, softmax_attention_softmax(&in, &out, lse, &a, NULL));
    a.offsets_count = BATCH;
    a.flags = SOFTMAX_ATTENTION_OFFSET;
    BAD(VALUE, softmax_attention_softmax(&in, &out, lse, &a, &options));
    SAYS(message, "offsets");
    a.flags = SOFTMAX_ATTENTION_CAUSAL;
    a.alibi = alibi;
    some_offsets[1] = -19692841;
    GOOD(softmax_attention_softmax(&in, &out, NULL, &a, NULL));
    memset(y, 0xA5, sizeof y);
    some_offsets[1] = 19692841;
    BAD(VALUE, softmax_attention_softmax(&in, &out, lse, &a, &options));
    SAYS(message, "distance of a key");
    a.offsets = (const ptrdiff_t *)(const void *)((char *)some_offsets + 1);
    BAD(ALIGNMENT, softmax_attention_softmax(&in, &out, lse, &a, NULL));
    a.offsets = (const ptrdiff_t *)(const void *)y;
    BAD(OVERLAP, softmax_attention_softmax(&in, &out, lse, &a, NULL));

    /* Lent memory. */
    a = softmax_attention_default(HEADS, QUERIES);
    size_t needed = 0;
    GOOD(softmax_attention_scratch_size(&in, &out, &needed, &options));
    options.scratch = memory(needed);
    options.scratch_size = needed - 1;
    BAD(SCRATCH, softmax_attention_softmax(&in, &out, lse, &a, &options));
    BAD(SCRATCH, softmax_attention_softmax(&in, &in, lse, &a, &options));
    free(options.scratch);
    options.scratch = mask;
    options.scratch_size = sizeof mask;
    a.mask = mask;
    a.mask_shape[0] = 1;
    a.mask_shape[1] = 1;
    a.mask_shape[2] = 1;
    BAD(OVERLAP, softmax_attention_softmax(&in, &out, lse, &a, &options));
    options = told(message, sizeof message);
    unwatch();

    size_t bytes = 5;
    watch(&bytes, sizeof bytes);
    BAD(NULL_POINTER, softmax_attention_scratch_size(NULL, &out, &bytes, NULL));
    BAD(NULL_POINTER, softmax_attention_scratch_size(&in, NULL, &bytes, NULL));
    BAD(NULL_POINTER, softmax_attention_scratch_size(&in, &out, NULL, NULL));
    BAD(ALIGNMENT, softmax_attention_scratch_size(&in, &out, (size_t *)(void *)((char *)&bytes + 4), NULL));
    m = out;
    m.dtype = SOFTMAX_F64;
    BAD(DTYPE, softmax_attention_scratch_size(&in, &m, &bytes, NULL));
    options.temperature = INFINITY;
    BAD(VALUE, softmax_attention_scratch_size(&in, &out, &bytes, &options));
    options.temperature = 1.0;
    unwatch();
    a = softmax_attention_default(HEADS, QUERIES);
    STRUCT_SIZES(softmax_matrix, in, p, softmax_attention_softmax(p, &out, NULL, &a, NULL));
    STRUCT_SIZES(softmax_matrix, out, p, softmax_attention_softmax(&in, p, NULL, &a, NULL));
    STRUCT_SIZES(softmax_attention, a, p, softmax_attention_softmax(&in, &out, NULL, p, NULL));
    STRUCT_SIZES(softmax_matrix, in, p, softmax_attention_scratch_size(p, &out, &bytes, NULL));
    STRUCT_SIZES(softmax_matrix, out, p, softmax_attention_scratch_size(&in, p, &bytes, NULL));
}

int main(void) {
    values();
    hidden();
    bad();
    return checked();
}
