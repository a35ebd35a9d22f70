/* Verification of drafted tokens. */
#include "check.h"

enum { COLS = 12, SEQUENCES = 4, DRAFTED = 6, ROWS = DRAFTED + SEQUENCES };

/* The sequences' drafted tokens: 2, none, 3 and 1. */
static const size_t offsets[SEQUENCES + 1] = {0, 2, 2, 5, 6};

static void values(void) {
    for (int d = 0; d < DTYPES; d++) {
        softmax_dtype dtype = dtypes[d];
        size_t row_bytes = COLS * size_of(dtype);
        char x[ROWS * COLS * 8];
        char q[DRAFTED * COLS * 8];
        fill_random(dtype, x, ROWS * COLS, 61);
        softmax_matrix target = softmax_matrix_of(x, dtype, ROWS, COLS);
        softmax_matrix draft = softmax_matrix_of(q, dtype, DRAFTED, COLS);
        size_t largest[ROWS];
        GOOD(softmax_argmax(&target, largest, NULL));
        size_t drafted[DRAFTED];
        size_t tokens[ROWS + 1];
        size_t accepted[SEQUENCES + 1];
        memset(tokens, 0xA5, sizeof tokens);
        memset(accepted, 0xA5, sizeof accepted);

        /* Greedy: the third sequence has a wrong second token. Without a draft. */
        softmax_speculative s = softmax_speculative_default(3);
        s.temperature = 0.0;
        for (size_t i = 0; i < SEQUENCES; i++) {
            for (size_t at = offsets[i]; at < offsets[i + 1]; at++) {
                drafted[at] = largest[at + i];
                memcpy(q + at * row_bytes, x + (at + i) * row_bytes, row_bytes);
            }
        }
        drafted[3] = (drafted[3] + 1) % COLS;
        GOOD(softmax_verify(&target, NULL, drafted, offsets, SEQUENCES, tokens, accepted, &s, NULL));
        CHECK(accepted[0] == 2 && accepted[1] == 0 && accepted[2] == 1 && accepted[3] == 1);
        for (size_t i = 0; i < ROWS; i++) {
            CHECK(tokens[i] == (i == 6 || i == 7 ? SOFTMAX_NO_TOKEN : largest[i]));
        }
        CHECK(((unsigned char *)(tokens + ROWS))[0] == 0xA5);
        CHECK(((unsigned char *)(accepted + SEQUENCES))[0] == 0xA5);

        /* A draft that is its target: all of its tokens, and a bonus. */
        double hot[SEQUENCES] = {1.0, 3.0, 0.5, INFINITY};
        s.temperatures = hot;
        GOOD(softmax_verify(&target, &draft, drafted, offsets, SEQUENCES, tokens, accepted, &s, NULL));
        for (size_t i = 0; i < SEQUENCES; i++) {
            size_t n = offsets[i + 1] - offsets[i];
            CHECK(accepted[i] == n && tokens[offsets[i] + i + n] < COLS);
            CHECK(memcmp(tokens + offsets[i] + i, drafted + offsets[i], n * sizeof *tokens) == 0);
        }

        /* Each sequence by itself, by its number, and by its own seed; rows as probabilities. */
        fill_random(dtype, q, DRAFTED * COLS, 62);
        char p[ROWS * COLS * 8];
        softmax_matrix probs = softmax_matrix_mut(p, dtype, ROWS, COLS);
        GOOD(softmax_softmax(&target, &probs, NULL));
        uint64_t seeds[SEQUENCES] = {5, 6, 7, 8};
        uint64_t steps[SEQUENCES] = {100, 4, 1ull << 40, 0};
        size_t rejected = 0;
        for (uint32_t which = 0; which < 32; which++) {
            s = softmax_speculative_default(which);
            s.flags = which & 1 ? SOFTMAX_SPECULATIVE_TARGET_PROBS : 0;
            s.seeds = which & 2 ? seeds : NULL;
            s.steps = which & 4 ? steps : NULL;
            s.step = 9;
            s.temperatures = which & 8 ? hot : NULL;
            const softmax_matrix *rows = which & 1 ? &probs : &target;
            const softmax_matrix *of_draft = which & 16 ? NULL : &draft;
            GOOD(softmax_verify(rows, of_draft, drafted, offsets, SEQUENCES, tokens, accepted, &s, NULL));
            for (size_t i = 0; i < SEQUENCES; i++) {
                size_t n = offsets[i + 1] - offsets[i];
                softmax_matrix own = *rows;
                own.data = (char *)own.data + (offsets[i] + i) * row_bytes;
                own.rows = n + 1;
                softmax_matrix own_draft = draft;
                own_draft.data = q + offsets[i] * row_bytes;
                own_draft.rows = n;
                softmax_speculative alone = s;
                alone.seeds = NULL;
                alone.seed = which & 2 ? seeds[i] : which;
                alone.first_row = which & 2 ? 0 : i;
                alone.steps = NULL;
                alone.step = which & 4 ? steps[i] : 9;
                alone.temperatures = NULL;
                alone.temperature = which & 8 ? hot[i] : 1.0;
                size_t of_alone[2] = {offsets[i], offsets[i + 1]};
                size_t own_tokens[4];
                size_t own_accepted = 77;
                GOOD(softmax_verify(&own, of_draft ? &own_draft : NULL, drafted, of_alone, 1, own_tokens,
                                    &own_accepted, &alone, NULL));
                CHECK(own_accepted == accepted[i]);
                CHECK(memcmp(own_tokens, tokens + offsets[i] + i, (n + 1) * sizeof *tokens) == 0);
                rejected += accepted[i] < n;
            }
        }
        CHECK(rejected > 5);

        /* In lent memory that is just large enough, and too small. */
        size_t needed = 0;
        GOOD(softmax_verify_scratch_size(&target, &s, &needed, NULL));
        CHECK(needed > 0);
        char message[200];
        softmax_options options = told(message, sizeof message);
        size_t again[ROWS];
        char *lent = (char *)malloc(needed + 1);
        options.scratch = lent + 1;
        options.scratch_size = needed;
        s.flags = 0;
        GOOD(softmax_verify(&target, &draft, drafted, offsets, SEQUENCES, tokens, accepted, &s, NULL));
        GOOD(softmax_verify(&target, &draft, drafted, offsets, SEQUENCES, again, accepted, &s, &options));
        CHECK(memcmp(again, tokens, sizeof again) == 0);
        options.scratch_size = needed - 1;
        BAD(SCRATCH, softmax_verify(&target, &draft, drafted, offsets, SEQUENCES, again, accepted, &s, &options));
        free(lent);
    }

    /* A row without a token ends its sequence; probabilities of the draft. */
    const float rows[6] = {0.5f, 0.5f, NAN, 0.0f, 0.0f, 1.0f};
    const float half[4] = {0.5f, 0.5f, 0.0f, 1.0f};
    const size_t drafted[2] = {0, 1};
    const size_t two[2] = {0, 2};
    softmax_matrix target = softmax_matrix_of(rows, SOFTMAX_F32, 3, 2);
    softmax_matrix draft = softmax_matrix_of(half, SOFTMAX_F32, 2, 2);
    softmax_speculative s = softmax_speculative_default(1);
    s.flags = SOFTMAX_SPECULATIVE_TARGET_PROBS | SOFTMAX_SPECULATIVE_DRAFT_PROBS;
    size_t tokens[3];
    size_t accepted = 9;
    GOOD(softmax_verify(&target, &draft, drafted, two, 1, tokens, &accepted, &s, NULL));
    CHECK(accepted == 1 && tokens[0] == 0);
    CHECK(tokens[1] == SOFTMAX_NO_TOKEN && tokens[2] == SOFTMAX_NO_TOKEN);

    /* No sequences. */
    softmax_matrix none = softmax_matrix_of(NULL, SOFTMAX_F32, 0, 4);
    GOOD(softmax_verify(&none, NULL, NULL, two, 0, NULL, NULL, &s, NULL));
}

static void bad(void) {
    float place[ROWS * COLS] = {0};
    float q[DRAFTED * COLS] = {0};
    char message[200];
    softmax_options options = told(message, sizeof message);
    softmax_matrix x = softmax_matrix_of(place, SOFTMAX_F32, ROWS, COLS);
    softmax_matrix draft = softmax_matrix_of(q, SOFTMAX_F32, DRAFTED, COLS);
    size_t drafted[DRAFTED] = {0};
    size_t from[SEQUENCES + 1];
    memcpy(from, offsets, sizeof from);
    size_t tokens[ROWS];
    size_t accepted[SEQUENCES];
    uint64_t numbers[SEQUENCES] = {0};
    double temperatures[SEQUENCES] = {1.0, 1.0, -1.0, 1.0};
    size_t needed = 77;
    softmax_speculative s = softmax_speculative_default(1);
    memset(tokens, 0xA5, sizeof tokens);
    memset(accepted, 0xA5, sizeof accepted);
    watch(tokens, sizeof tokens);
    watch(accepted, sizeof accepted);
    watch(place, sizeof place);
    watch(&needed, sizeof needed);
#define VERIFY(x, draft, drafted, from, n, tokens, accepted, s) \
    softmax_verify(x, draft, drafted, from, n, tokens, accepted, s, &options)
    BAD(NULL_POINTER, VERIFY(NULL, &draft, drafted, from, SEQUENCES, tokens, accepted, &s));
    BAD(NULL_POINTER, VERIFY(&x, &draft, NULL, from, SEQUENCES, tokens, accepted, &s));
    SAYS(message, "drafted is null");
    BAD(NULL_POINTER, VERIFY(&x, &draft, drafted, NULL, SEQUENCES, tokens, accepted, &s));
    SAYS(message, "offsets is null");
    BAD(NULL_POINTER, VERIFY(&x, &draft, drafted, from, SEQUENCES, NULL, accepted, &s));
    SAYS(message, "tokens is null");
    BAD(NULL_POINTER, VERIFY(&x, &draft, drafted, from, SEQUENCES, tokens, NULL, &s));
    BAD(NULL_POINTER, VERIFY(&x, &draft, drafted, from, SEQUENCES, tokens, accepted, NULL));
    BAD(NULL_POINTER, softmax_verify_scratch_size(NULL, &s, &needed, NULL));
    BAD(NULL_POINTER, softmax_verify_scratch_size(&x, NULL, &needed, NULL));
    BAD(NULL_POINTER, softmax_verify_scratch_size(&x, &s, NULL, NULL));
    BAD(ALIGNMENT, VERIFY(&x, &draft, drafted, from, SEQUENCES, (size_t *)(void *)((char *)tokens + 1), accepted, &s));
    BAD(OVERLAP, VERIFY(&x, &draft, drafted, from, SEQUENCES, tokens, tokens, &s));
    SAYS(message, "tokens overlaps accepted");
    BAD(OVERLAP, VERIFY(&x, &draft, tokens, from, SEQUENCES, tokens, accepted, &s));
    SAYS(message, "tokens overlaps drafted");
    BAD(OVERLAP, VERIFY(&x, &draft, drafted, from, SEQUENCES, from, accepted, &s));
    BAD(OVERFLOW, VERIFY(&x, &draft, drafted, from, SIZE_MAX, tokens, accepted, &s));
    BAD(LENGTH, VERIFY(&x, &draft, drafted, from, SEQUENCES - 1, tokens, accepted, &s));
    SAYS(message, "number of the target's rows (one for each drafted token and for each sequence) must be 8, got 10");
    softmax_matrix wrong = draft;
    wrong.rows--;
    BAD(SHAPE, VERIFY(&x, &wrong, drafted, from, SEQUENCES, tokens, accepted, &s));
    SAYS(message, "the matrix of the draft must be 6 x 12, got 5 x 12");
    wrong = draft;
    wrong.dtype = SOFTMAX_F64;
    BAD(DTYPE, VERIFY(&x, &wrong, drafted, from, SEQUENCES, tokens, accepted, &s));
    SAYS(message, "target and draft have dtypes");
    wrong = x;
    wrong.dtype = SOFTMAX_BOOL;
    BAD(DTYPE, VERIFY(&wrong, NULL, drafted, from, SEQUENCES, tokens, accepted, &s));
    wrong = x;
    wrong.stride = 1;
    BAD(STRIDE, VERIFY(&wrong, NULL, drafted, from, SEQUENCES, tokens, accepted, &s));
    from[2] = 1;
    BAD(VALUE, VERIFY(&x, &draft, drafted, from, SEQUENCES, tokens, accepted, &s));
    SAYS(message, "the offset 2 must be at least the one before, got 1");
    memcpy(from, offsets, sizeof from);
    drafted[4] = COLS;
    BAD(COLUMN, VERIFY(&x, &draft, drafted, from, SEQUENCES, tokens, accepted, &s));
    SAYS(message, "row 6: 12 is not one of its 12 columns");
    drafted[4] = 0;
    s.temperature = NAN;
    BAD(VALUE, VERIFY(&x, &draft, drafted, from, SEQUENCES, tokens, accepted, &s));
    BAD(VALUE, softmax_verify_scratch_size(&x, &s, &needed, NULL));
    s.temperature = 1.0;
    s.temperatures = temperatures;
    BAD(VALUE, VERIFY(&x, &draft, drafted, from, SEQUENCES, tokens, accepted, &s));
    SAYS(message, "the temperature 2 must be 0 or above, got -1");
    s = softmax_speculative_default(1);
    s.step = 1ull << 48;
    BAD(VALUE, VERIFY(&x, &draft, drafted, from, SEQUENCES, tokens, accepted, &s));
    numbers[3] = UINT64_MAX;
    s.steps = numbers;
    BAD(VALUE, VERIFY(&x, &draft, drafted, from, SEQUENCES, tokens, accepted, &s));
    SAYS(message, "step of a sequence's last token must be below 2^48");
    s = softmax_speculative_default(1);
    s.seeds = (const uint64_t *)(const void *)((const char *)numbers + 1);
    BAD(ALIGNMENT, VERIFY(&x, &draft, drafted, from, SEQUENCES, tokens, accepted, &s));
    s = softmax_speculative_default(1);
    s.first_row = 1ull << 48;
    BAD(VALUE, VERIFY(&x, &draft, drafted, from, SEQUENCES, tokens, accepted, &s));
    s = softmax_speculative_default(1);
    s.flags = 4;
    BAD(VALUE, VERIFY(&x, &draft, drafted, from, SEQUENCES, tokens, accepted, &s));
    SAYS(message, "the flags 0x4 of softmax_speculative are unknown");
    s = softmax_speculative_default(1);
    unwatch();
    STRUCT_SIZES(softmax_speculative, s, p, softmax_verify(&x, &draft, drafted, from, SEQUENCES, tokens, accepted, p, NULL));
    STRUCT_SIZES(softmax_matrix, draft, p, softmax_verify(&x, p, drafted, from, SEQUENCES, tokens, accepted, &s, NULL));
}

int main(void) {
    values();
    bad();
    return checked();
}
