/* Routers. */
#include "check.h"

enum { ROWS = 21, COLS = 16, K = 4 };

static void values(void) {
    for (int d = 0; d < DTYPES; d++) {
        softmax_dtype dtype = dtypes[d];
        softmax_dtype wide = dtype == SOFTMAX_F64 ? SOFTMAX_F64 : SOFTMAX_F32;
        char x[ROWS * COLS * 8];
        fill_random(dtype, x, ROWS * COLS, 51);
        softmax_matrix logits = softmax_matrix_of(x, dtype, ROWS, COLS);
        size_t top[ROWS * K];
        uint32_t experts[ROWS * K + 1];
        double probs[ROWS * K];
        double weights[ROWS * K + 1];
        size_t bytes = ROWS * K * size_of(wide);
        memset(weights, 0xA5, sizeof weights);
        memset(experts, 0xA5, sizeof experts);

        /* Plain: top-k, with its probabilities. */
        softmax_router r = softmax_router_default(K);
        GOOD(softmax_top_k(&logits, K, NULL, probs, top, NULL));
        GOOD(softmax_route(&logits, weights, experts, &r, NULL));
        for (size_t i = 0; i < ROWS * K; i++) {
            CHECK(experts[i] == top[i]);
        }
        CHECK(memcmp(weights, probs, bytes) == 0);
        CHECK(((unsigned char *)weights)[bytes] == 0xA5 && experts[ROWS * K] == 0xA5A5A5A5);

        /* Renormalised, and a factor. */
        for (uint32_t scoring = 0; scoring < 2; scoring++) {
            r = softmax_router_default(K);
            r.scoring = scoring;
            r.flags = SOFTMAX_ROUTER_RENORMALIZE;
            r.scaling_factor = 2.5;
            GOOD(softmax_route(&logits, weights, experts, &r, NULL));
            for (size_t row = 0; row < ROWS; row++) {
                long double sum = 0.0L;
                long double scores[K];
                for (size_t i = 0; i < K; i++) {
                    CHECK(experts[row * K + i] == top[row * K + i]);
                    double logit = get(dtype, x, row * COLS + experts[row * K + i]);
                    scores[i] = scoring ? 1.0L / (1.0L + expl(-logit)) : expl(logit);
                    sum += scores[i];
                }
                for (size_t i = 0; i < K; i++) {
                    CHECK(near(wide, get(wide, weights, row * K + i), scores[i] / sum * 2.5L, 10.0, 0.0));
                }
            }
        }

        /* A bias for the last expert of each group, and two groups of four. */
        float bias[COLS];
        for (size_t i = 0; i < COLS; i++) {
            bias[i] = i % 4 == 3 ? 9.0f : i == 4 || i == 12 ? 5.0f : 0.0f;
        }
        r = softmax_router_default(K);
        r.scoring = SOFTMAX_SCORING_SIGMOID;
        r.bias = bias;
        r.groups = 4;
        r.group_limit = 2;
        GOOD(softmax_route(&logits, weights, experts, &r, NULL));
        for (size_t row = 0; row < ROWS; row++) {
            uint32_t *e = experts + row * K;
            CHECK((e[0] == 7 && e[1] == 15) || (e[0] == 15 && e[1] == 7));
            CHECK((e[2] == 4 && e[3] == 12) || (e[2] == 12 && e[3] == 4));
        }
        r.group_score = SOFTMAX_GROUP_SCORE_LARGEST;
        GOOD(softmax_route(&logits, weights, experts, &r, NULL));

        /* In lent memory that is just large enough, and too small. */
        size_t needed = 0;
        GOOD(softmax_route_scratch_size(&logits, &r, &needed, NULL));
        CHECK(needed > 0);
        char message[200];
        softmax_options options = told(message, sizeof message);
        uint32_t again[ROWS * K];
        char *lent = (char *)malloc(needed + 1);
        options.scratch = lent + 1;
        options.scratch_size = needed;
        GOOD(softmax_route(&logits, probs, again, &r, &options));
        CHECK(memcmp(again, experts, sizeof again) == 0);
        CHECK(memcmp(probs, weights, bytes) == 0);
        options.scratch_size = needed - 1;
        BAD(SCRATCH, softmax_route(&logits, probs, again, &r, &options));
        free(lent);
    }

    /* A row of nothing but -inf. */
    const float hidden[2] = {-INFINITY, -INFINITY};
    softmax_matrix x = softmax_matrix_of(hidden, SOFTMAX_F32, 1, 2);
    softmax_router r = softmax_router_default(1);
    float weight = 5.0f;
    uint32_t expert = 9;
    softmax_options options = softmax_options_default();
    options.flags = SOFTMAX_MASKED_ZERO;
    GOOD(softmax_route(&x, &weight, &expert, &r, &options));
    CHECK(weight == 0.0f && expert == 0);

    /* None of nothing. */
    softmax_matrix none = softmax_matrix_of(NULL, SOFTMAX_F32, 0, 4);
    GOOD(softmax_route(&none, NULL, NULL, &r, NULL));
    r.k = 0;
    GOOD(softmax_route(&x, NULL, NULL, &r, NULL));
}

static void bad(void) {
    float place[ROWS * COLS] = {0};
    char message[200];
    softmax_options options = told(message, sizeof message);
    softmax_matrix x = softmax_matrix_of(place, SOFTMAX_F32, ROWS, COLS);
    float weights[ROWS * K];
    uint32_t experts[ROWS * K];
    float bias[COLS] = {0};
    size_t needed = 77;
    softmax_router r = softmax_router_default(K);
    memset(weights, 0xA5, sizeof weights);
    memset(experts, 0xA5, sizeof experts);
    watch(weights, sizeof weights);
    watch(experts, sizeof experts);
    watch(place, sizeof place);
    watch(&needed, sizeof needed);
    BAD(NULL_POINTER, softmax_route(NULL, weights, experts, &r, NULL));
    BAD(NULL_POINTER, softmax_route(&x, NULL, experts, &r, &options));
    SAYS(message, "weights is null");
    BAD(NULL_POINTER, softmax_route(&x, weights, NULL, &r, NULL));
    BAD(NULL_POINTER, softmax_route(&x, weights, experts, NULL, NULL));
    BAD(NULL_POINTER, softmax_route_scratch_size(&x, &r, NULL, NULL));
    BAD(NULL_POINTER, softmax_route_scratch_size(&x, NULL, &needed, NULL));
    BAD(ALIGNMENT, softmax_route(&x, (char *)weights + 2, experts, &r, NULL));
    BAD(ALIGNMENT, softmax_route(&x, weights, (uint32_t *)(void *)((char *)experts + 1), &r, NULL));
    BAD(OVERLAP, softmax_route(&x, experts, experts, &r, &options));
    SAYS(message, "weights overlaps experts");
    BAD(OVERLAP, softmax_route(&x, place, experts, &r, NULL));
    r.bias = weights;
    BAD(OVERLAP, softmax_route(&x, weights, experts, &r, &options));
    SAYS(message, "weights overlaps bias");
    bias[3] = NAN;
    r.bias = bias;
    BAD(VALUE, softmax_route(&x, weights, experts, &r, &options));
    SAYS(message, "bias of expert 3 must be finite, got NaN");
    r = softmax_router_default(SIZE_MAX);
    BAD(OVERFLOW, softmax_route(&x, weights, experts, &r, NULL));
    r = softmax_router_default(COLS + 1);
    float many[ROWS * (COLS + 1)];
    uint32_t indices[ROWS * (COLS + 1)];
    BAD(VALUE, softmax_route(&x, many, indices, &r, &options));
    SAYS(message, "at most the number of experts, got 17");
    BAD(VALUE, softmax_route_scratch_size(&x, &r, &needed, NULL));
    r = softmax_router_default(K);
    r.scoring = 2;
    BAD(VALUE, softmax_route(&x, weights, experts, &r, &options));
    SAYS(message, "the scoring 2 does not exist");
    r = softmax_router_default(K);
    r.group_score = 7;
    BAD(VALUE, softmax_route(&x, weights, experts, &r, &options));
    SAYS(message, "the group_score 7 does not exist");
    r = softmax_router_default(K);
    r.flags = 2;
    BAD(VALUE, softmax_route(&x, weights, experts, &r, NULL));
    r = softmax_router_default(K);
    r.groups = 3;
    r.group_limit = 1;
    BAD(VALUE, softmax_route(&x, weights, experts, &r, &options));
    SAYS(message, "divisor of that of experts, got 3");
    r.groups = 8;
    BAD(VALUE, softmax_route(&x, weights, experts, &r, &options));
    SAYS(message, "as many groups as the limit, got 4");
    r = softmax_router_default(K);
    r.scaling_factor = NAN;
    BAD(VALUE, softmax_route(&x, weights, experts, &r, NULL));
    r = softmax_router_default(K);
    softmax_matrix wrong = x;
    wrong.dtype = SOFTMAX_BOOL;
    BAD(DTYPE, softmax_route(&wrong, weights, experts, &r, NULL));
    wrong = x;
    wrong.stride = 1;
    BAD(STRIDE, softmax_route(&wrong, weights, experts, &r, NULL));
    unwatch();
    STRUCT_SIZES(softmax_router, r, p, softmax_route(&x, weights, experts, p, NULL));
    STRUCT_SIZES(softmax_matrix, x, p, softmax_route(p, weights, experts, &r, NULL));
}

int main(void) {
    values();
    bad();
    return checked();
}
