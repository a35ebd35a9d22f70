/* Losses and gradients. */
#include "check.h"

enum { ROWS = 5, COLS = 6, N = ROWS * COLS };

static const int64_t labels[ROWS] = {0, 5, -100, 3, 3};
static const float weights[COLS] = {1.0f, 0.5f, 2.0f, 0.25f, 1.0f, 3.0f};
static const double factors[ROWS] = {1.0, 0.5, 3.0, 2.0, 0.0};

/* The formula of the header; `q` has the targets, and `counted` whether a row counts. */
static void reference(const softmax_cross_entropy *o, const double *x, const double *q, const int *counted,
                      double divisor, double scale, long double *losses, long double *loss,
                      long double *gradient) {
    *loss = 0.0L;
    for (size_t i = 0; i < ROWS; i++) {
        long double sum = 0.0L;
        for (size_t j = 0; j < COLS; j++) {
            sum += expl(scale * x[i * COLS + j]);
        }
        long double lse = logl(sum);
        long double mass = 0.0L;
        long double t[COLS];
        losses[i] = o->z_loss * lse * lse;
        for (size_t j = 0; j < COLS; j++) {
            long double w = o->weights != NULL ? o->weights[j] : 1.0L;
            t[j] = w * ((1.0L - o->label_smoothing) * q[i * COLS + j] + o->label_smoothing / COLS);
            mass += t[j];
            losses[i] -= t[j] * (scale * x[i * COLS + j] - lse);
            if ((o->flags & SOFTMAX_CROSS_ENTROPY_DIVERGENCE) != 0 && t[j] > 0.0L) {
                losses[i] += t[j] * logl(t[j] / w);
            }
        }
        long double factor = (o->row_factors != NULL ? o->row_factors[i] : 1.0) * counted[i];
        losses[i] *= factor;
        *loss += losses[i] / divisor;
        for (size_t j = 0; j < COLS; j++) {
            long double p = expl(scale * x[i * COLS + j] - lse);
            long double g = scale * (p * (mass + 2.0L * o->z_loss * lse) - t[j]);
            gradient[i * COLS + j] = g * factor * o->gradient_factor / divisor;
        }
    }
}

/* All places that results may be wanted in: each with the values of the reference, and with the
 * same bits, in lent memory, too. */
static void compare(softmax_dtype dtype, const softmax_cross_entropy *o, const int64_t *of,
                    const softmax_matrix *targets, double scale) {
    char x[N * 8];
    double wide[N];
    double q[N];
    int counted[ROWS];
    double divisor = ROWS;
    fill_random(dtype, x, N, 90);
    for (size_t i = 0; i < N; i++) {
        wide[i] = get(dtype, x, i);
        q[i] = targets != NULL ? get(dtype, targets->data, i) : (size_t)of[i / COLS] == i % COLS;
    }
    for (size_t i = 0; i < ROWS; i++) {
        counted[i] = of == NULL || of[i] != -100;
    }
    softmax_options options = softmax_options_default();
    options.scale = scale;
    if (of != NULL) {
        GOOD(softmax_cross_entropy_divisor(of, ROWS, COLS, &divisor, o, &options));
        double wanted = 0.0;
        for (size_t i = 0; i < ROWS; i++) {
            wanted += counted[i] ? o->weights != NULL ? o->weights[of[i]] : 1.0 : 0.0;
        }
        CHECK(divisor == (o->reduction == SOFTMAX_REDUCTION_SUM ? 1.0 : wanted));
    } else if (o->reduction == SOFTMAX_REDUCTION_SUM) {
        divisor = 1.0;
    }
    long double wanted_losses[ROWS];
    long double wanted_loss;
    long double wanted_gradient[N];
    reference(o, wide, q, counted, divisor, scale, wanted_losses, &wanted_loss, wanted_gradient);

    softmax_matrix logits = softmax_matrix_of(x, dtype, ROWS, COLS);
    size_t needed = 0;
    GOOD(softmax_cross_entropy_scratch_size(&logits, &needed, &options));
    char *lent = (char *)memory(needed + 5);
    double first_losses[ROWS];
    double first_loss = 0.0;
    char first_gradient[N * 8];
    for (int wanted = 15; wanted >= 0; wanted--) {
        double losses[ROWS];
        double loss = -1.0;
        char gradient[N * 8];
        memset(losses, 0xA5, sizeof losses);
        memset(gradient, 0xA5, sizeof gradient);
        double *to_losses = (wanted & 1) != 0 ? losses : NULL;
        double *to_loss = (wanted & 2) != 0 ? &loss : NULL;
        softmax_matrix g = softmax_matrix_mut(gradient, dtype, ROWS, COLS);
        softmax_matrix *to_gradient = (wanted & 4) != 0 ? &g : NULL;
        options.scratch = (wanted & 8) != 0 ? NULL : lent + 5;
        options.scratch_size = needed;
        for (int in_place = 0; in_place <= (to_gradient != NULL); in_place++) {
            softmax_matrix from = logits;
            if (in_place) {
                memcpy(gradient, x, sizeof gradient);
                from = g;
            }
            if (of != NULL) {
                GOOD(softmax_cross_entropy_labels(&from, of, to_losses, to_loss, to_gradient, o, &options));
            } else {
                GOOD(softmax_cross_entropy_probs(&from, targets, to_losses, to_loss, to_gradient, o, &options));
            }
            if (wanted == 15 && !in_place) {
                memcpy(first_losses, losses, sizeof losses);
                memcpy(first_gradient, gradient, sizeof gradient);
                first_loss = loss;
            }
            if (to_losses != NULL) {
                CHECK(memcmp(losses, first_losses, sizeof losses) == 0);
            }
            if (to_loss != NULL) {
                CHECK(loss == first_loss);
            }
            if (to_gradient != NULL) {
                CHECK(memcmp(gradient, first_gradient, N * size_of(dtype)) == 0);
            }
        }
    }
    free(lent);

    double relative = dtype == SOFTMAX_F64 ? 1e-14 : 1e-7;
    for (size_t i = 0; i < ROWS; i++) {
        CHECK(fabsl(first_losses[i] - wanted_losses[i]) <= relative * (fabsl(wanted_losses[i]) + 4.0L));
    }
    CHECK(fabsl(first_loss - wanted_loss) <= relative * (fabsl(wanted_loss) + 4.0L));
    for (size_t i = 0; i < N; i++) {
        double slack = dtype == SOFTMAX_F64 ? 1e-14 : 3e-6;
        int half = dtype == SOFTMAX_F16 || dtype == SOFTMAX_BF16;
        CHECK(near(dtype, get(dtype, first_gradient, i), wanted_gradient[i], half ? 0.51 : 3.0, slack));
    }
    double reduced = 0.0;
    GOOD(softmax_cross_entropy_reduce(first_losses, ROWS, divisor, &reduced));
    CHECK(reduced == first_loss);
}

static void values(void) {
    for (int d = 0; d < DTYPES; d++) {
        softmax_dtype dtype = dtypes[d];
        char q[N * 8];
        for (size_t i = 0; i < N; i++) {
            put(dtype, q, i, (double)(1 + i % 3) / 16.0 + (i % COLS == 0 ? 0.25 : 0.0));
        }
        softmax_matrix targets = softmax_matrix_of(q, dtype, ROWS, COLS);
        for (int which = 0; which < 7; which++) {
            softmax_cross_entropy o = softmax_cross_entropy_default();
            double scale = 1.0;
            switch (which) {
            case 0:
                break;
            case 1:
                o.reduction = SOFTMAX_REDUCTION_SUM;
                o.gradient_factor = 8.0;
                break;
            case 2:
                o.label_smoothing = 0.125;
                break;
            case 3:
                o.weights = weights;
                break;
            case 4:
                o.row_factors = factors;
                scale = 0.5;
                break;
            case 5:
                o.z_loss = 0.5;
                break;
            default:
                o.flags = SOFTMAX_CROSS_ENTROPY_DIVERGENCE;
            }
            compare(dtype, &o, labels, NULL, scale);
            compare(dtype, &o, NULL, &targets, scale);
        }
    }
    /* A null pointer is the default. */
    double x[N];
    double loss[2] = {0.0, 0.0};
    double divisor = 0.0;
    fill_random(SOFTMAX_F64, x, N, 9);
    softmax_matrix logits = softmax_matrix_of(x, SOFTMAX_F64, ROWS, COLS);
    softmax_cross_entropy o = softmax_cross_entropy_default();
    GOOD(softmax_cross_entropy_labels(&logits, labels, NULL, &loss[0], NULL, &o, NULL));
    GOOD(softmax_cross_entropy_labels(&logits, labels, NULL, &loss[1], NULL, NULL, NULL));
    CHECK(loss[0] == loss[1]);
    GOOD(softmax_cross_entropy_probs(&logits, &logits, NULL, &loss[0], NULL, &o, NULL));
    GOOD(softmax_cross_entropy_probs(&logits, &logits, NULL, &loss[1], NULL, NULL, NULL));
    CHECK(loss[0] == loss[1]);
    GOOD(softmax_cross_entropy_divisor(labels, ROWS, COLS, &divisor, NULL, NULL));
    CHECK(divisor == 4.0);
    /* The mean of nothing. */
    softmax_matrix none = softmax_matrix_of(NULL, SOFTMAX_F64, 0, COLS);
    GOOD(softmax_cross_entropy_labels(&none, NULL, NULL, &loss[0], &none, NULL, NULL));
    CHECK(loss[0] != loss[0]);
    GOOD(softmax_cross_entropy_reduce(NULL, 0, 1.0, &loss[0]));
    CHECK(loss[0] == 0.0);
}

/* In parts: the bits of one call. */
static void parts(void) {
    float x[N];
    float whole[N];
    float part[N];
    double losses[ROWS];
    double loss[2];
    double divisor = 0.0;
    fill_random(SOFTMAX_F32, x, N, 19);
    softmax_matrix logits = softmax_matrix_of(x, SOFTMAX_F32, ROWS, COLS);
    softmax_matrix g = softmax_matrix_mut(whole, SOFTMAX_F32, ROWS, COLS);
    softmax_cross_entropy o = softmax_cross_entropy_default();
    o.weights = weights;
    GOOD(softmax_cross_entropy_labels(&logits, labels, NULL, &loss[0], &g, &o, NULL));
    GOOD(softmax_cross_entropy_divisor(labels, ROWS, COLS, &divisor, &o, NULL));
    o.reduction = SOFTMAX_REDUCTION_SUM;
    o.gradient_factor = 1.0 / divisor;
    for (size_t i = 0; i < ROWS; i++) {
        softmax_matrix row = softmax_matrix_mut(x + i * COLS, SOFTMAX_F32, 1, COLS);
        softmax_matrix to = softmax_matrix_mut(part + i * COLS, SOFTMAX_F32, 1, COLS);
        GOOD(softmax_cross_entropy_labels(&row, labels + i, losses + i, NULL, &to, &o, NULL));
    }
    GOOD(softmax_cross_entropy_reduce(losses, ROWS, divisor, &loss[1]));
    CHECK(loss[0] == loss[1]);
    CHECK(memcmp(whole, part, sizeof part) == 0);
}

static void backward_values(void) {
    for (int d = 0; d < DTYPES; d++) {
        softmax_dtype dtype = dtypes[d];
        static const double probs[4] = {0.5, 0.25, 0.125, 0.125};
        static const double upstream[4] = {1.0, -2.0, 4.0, 0.0};
        char p[4 * 8];
        char u[4 * 8];
        char g[4 * 8];
        for (size_t i = 0; i < 4; i++) {
            put(dtype, p, i, probs[i]);
            put(dtype, u, i, upstream[i]);
        }
        softmax_matrix mp = softmax_matrix_of(p, dtype, 1, 4);
        softmax_matrix mu = softmax_matrix_of(u, dtype, 1, 4);
        softmax_matrix mg = softmax_matrix_mut(g, dtype, 1, 4);
        softmax_options options = softmax_options_default();
        options.scale = 2.0;
        GOOD(softmax_softmax_backward(&mp, &mu, &mg, &options));
        /* sum p u = 0.5 */
        for (size_t i = 0; i < 4; i++) {
            CHECK(get(dtype, g, i) == 2.0 * probs[i] * (upstream[i] - 0.5));
        }
        for (size_t i = 0; i < 4; i++) {
            put(dtype, p, i, -(double)(1 + i));
        }
        GOOD(softmax_log_softmax_backward(&mp, &mu, &mg, &options));
        int half = dtype == SOFTMAX_F16 || dtype == SOFTMAX_BF16;
        for (size_t i = 0; i < 4; i++) {
            long double wanted = 2.0L * (upstream[i] - 3.0L * expl(-1.0L - i));
            CHECK(near(dtype, get(dtype, g, i), wanted, half ? 1.0 : 3.0, dtype == SOFTMAX_F64 ? 3e-15 : 2e-6));
        }
    }
    softmax_matrix none = softmax_matrix_of(NULL, SOFTMAX_F32, 0, 4);
    GOOD(softmax_softmax_backward(&none, &none, &none, NULL));
    GOOD(softmax_log_softmax_backward(&none, &none, &none, NULL));
}

typedef softmax_status (*backward)(const softmax_matrix *output, const softmax_matrix *upstream,
                                   const softmax_matrix *gradient, const softmax_options *options);

static void bad_backward(backward f) {
    double p[N];
    double u[N];
    double g[N];
    char message[200];
    softmax_options options = told(message, sizeof message);
    fill_random(SOFTMAX_F64, p, N, 1);
    fill_random(SOFTMAX_F64, u, N, 2);
    memset(g, 0xA5, sizeof g);
    softmax_matrix m[3] = {softmax_matrix_of(p, SOFTMAX_F64, ROWS, COLS),
                           softmax_matrix_of(u, SOFTMAX_F64, ROWS, COLS),
                           softmax_matrix_of(g, SOFTMAX_F64, ROWS, COLS)};
    const softmax_matrix good[3] = {m[0], m[1], m[2]};
    watch(p, sizeof p);
    watch(u, sizeof u);
    watch(g, sizeof g);
    for (size_t i = 0; i < 3; i++) {
        const softmax_matrix *pointers[3] = {&m[0], &m[1], &m[2]};
        pointers[i] = NULL;
        BAD(NULL_POINTER, f(pointers[0], pointers[1], pointers[2], NULL));
        m[i].data = NULL;
        BAD(NULL_POINTER, f(&m[0], &m[1], &m[2], &options));
        m[i] = good[i];
        m[i].data = (char *)good[i].data + 4;
        BAD(ALIGNMENT, f(&m[0], &m[1], &m[2], NULL));
        m[i] = good[i];
        m[i].dtype = SOFTMAX_F32;
        BAD(DTYPE, f(&m[0], &m[1], &m[2], &options));
        SAYS(message, "have dtypes");
        m[i] = good[i];
        m[i].rows = ROWS - 1;
        BAD(SHAPE, f(&m[0], &m[1], &m[2], NULL));
        m[i] = good[i];
        m[i].stride = COLS - 2;
        BAD(STRIDE, f(&m[0], &m[1], &m[2], NULL));
        m[i] = good[i];
        m[i].rows = SIZE_MAX;
        BAD(OVERFLOW, f(&m[0], &m[1], &m[2], NULL));
        m[i] = good[i];
        for (size_t j = 0; j < 3; j++) {
            m[j].dtype = SOFTMAX_BOOL;
        }
        BAD(DTYPE, f(&m[0], &m[1], &m[2], NULL));
        m[0] = good[0];
        m[1] = good[1];
        m[2] = good[2];
    }
    BAD(OVERLAP, f(&m[0], &m[1], &m[0], &options));
    SAYS(message, "gradient overlaps output");
    BAD(OVERLAP, f(&m[0], &m[1], &m[1], &options));
    SAYS(message, "gradient overlaps upstream");
    unwatch();
    STRUCT_SIZES(softmax_matrix, good[0], q, f(q, &m[1], &m[2], NULL));
    STRUCT_SIZES(softmax_matrix, good[1], q, f(&m[0], q, &m[2], NULL));
    STRUCT_SIZES(softmax_matrix, good[2], q, f(&m[0], &m[1], q, NULL));
}

static void bad_options(void) {
    float x[N];
    float y[N];
    double losses[ROWS + 1];
    double loss[2];
    double divisor = 1.25;
    char message[300];
    int64_t of[ROWS + 1] = {0};
    softmax_options options = told(message, sizeof message);
    fill_random(SOFTMAX_F32, x, N, 4);
    memcpy(of, labels, sizeof labels);
    memset(y, 0xA5, sizeof y);
    memset(losses, 0xA5, sizeof losses);
    memset(loss, 0xA5, sizeof loss);
    softmax_matrix logits = softmax_matrix_of(x, SOFTMAX_F32, ROWS, COLS);
    softmax_matrix g = softmax_matrix_mut(y, SOFTMAX_F32, ROWS, COLS);
    softmax_cross_entropy o = softmax_cross_entropy_default();
    watch(x, sizeof x);
    watch(y, sizeof y);
    watch(losses, sizeof losses);
    watch(loss, sizeof loss);
    watch(&divisor, sizeof divisor);
    watch(of, sizeof of);
#define BOTH(status)                                                                                 \
    do {                                                                                             \
        BAD(status, softmax_cross_entropy_labels(&logits, of, losses, loss, &g, &o, &options));      \
        BAD(status, softmax_cross_entropy_probs(&logits, &logits, losses, loss, &g, &o, NULL));      \
    } while (0)
#define ALL(status)                                                                                  \
    do {                                                                                             \
        BOTH(status);                                                                                \
        BAD(status, softmax_cross_entropy_divisor(of, ROWS, COLS, &divisor, &o, NULL));              \
    } while (0)
    o.reduction = 2;
    ALL(VALUE);
    SAYS(message, "the reduction 2 does not exist");
    o = softmax_cross_entropy_default();
    o.flags = 2;
    ALL(VALUE);
    SAYS(message, "0x2");
    static const double smoothings[] = {NAN, -0.001, 1.001, INFINITY};
    for (size_t i = 0; i < 4; i++) {
        o = softmax_cross_entropy_default();
        o.label_smoothing = smoothings[i];
        ALL(VALUE);
        SAYS(message, "smoothing");
    }
    static const double zs[] = {NAN, -1.0, INFINITY};
    for (size_t i = 0; i < 3; i++) {
        o = softmax_cross_entropy_default();
        o.z_loss = zs[i];
        ALL(VALUE);
    }
    static const float none[][COLS] = {{1.0f, 0.5f, -2.0f, 0.25f, 1.0f, -3.0f}, {1.0f, 1.0f, NAN, 1.0f, 1.0f, 1.0f}};
    for (size_t i = 0; i < 2; i++) {
        o = softmax_cross_entropy_default();
        o.weights = none[i];
        ALL(VALUE);
        SAYS(message, "the weight of class 2 must be finite and not negative");
    }
    o = softmax_cross_entropy_default();
    o.weights = (const float *)(const void *)((const char *)weights + 1);
    ALL(ALIGNMENT);
    o.weights = y + 2;
    BOTH(OVERLAP);
    SAYS(message, "gradient overlaps weights");
    o = softmax_cross_entropy_default();
    o.row_factors = (const double *)(const void *)((const char *)factors + 1);
    BOTH(ALIGNMENT);
    /* They do not count for the divisor, and are not looked at. */
    double ignored = 0.0;
    GOOD(softmax_cross_entropy_divisor(of, ROWS, COLS, &ignored, &o, NULL));
    o.row_factors = losses;
    BOTH(OVERLAP);
    o = softmax_cross_entropy_default();
    options.temperature = 0.0;
    BAD(VALUE, softmax_cross_entropy_labels(&logits, of, losses, loss, &g, &o, &options));
    options.temperature = 1.0;
    unwatch();
    memset(y, 0xA5, sizeof y);
    STRUCT_SIZES(softmax_cross_entropy, o, p,
                 softmax_cross_entropy_labels(&logits, of, losses, loss, &g, p, NULL));
    STRUCT_SIZES(softmax_cross_entropy, o, p,
                 softmax_cross_entropy_probs(&logits, &logits, losses, loss, &g, p, NULL));
    STRUCT_SIZES(softmax_cross_entropy, o, p,
                 softmax_cross_entropy_divisor(of, ROWS, COLS, &divisor, p, NULL));
    STRUCT_SIZES(softmax_matrix, logits, p,
                 softmax_cross_entropy_labels(p, of, losses, loss, &g, NULL, NULL));
    STRUCT_SIZES(softmax_matrix, g, p,
                 softmax_cross_entropy_labels(&logits, of, losses, loss, p, NULL, NULL));
    STRUCT_SIZES(softmax_matrix, logits, p,
                 softmax_cross_entropy_probs(p, &logits, losses, loss, &g, NULL, NULL));
    STRUCT_SIZES(softmax_matrix, logits, p,
                 softmax_cross_entropy_probs(&logits, p, losses, loss, &g, NULL, NULL));
}

static void bad_places(void) {
    float x[N];
    float q[N];
    float y[N];
    double losses[ROWS + 1];
    double loss[2];
    double divisor[2] = {1.25, 1.5};
    char message[300];
    int64_t of[ROWS + 1] = {0};
    softmax_options options = told(message, sizeof message);
    fill_random(SOFTMAX_F32, x, N, 4);
    fill_random(SOFTMAX_F32, q, N, 5);
    memcpy(of, labels, sizeof labels);
    memset(y, 0xA5, sizeof y);
    memset(losses, 0xA5, sizeof losses);
    memset(loss, 0xA5, sizeof loss);
    softmax_matrix logits = softmax_matrix_of(x, SOFTMAX_F32, ROWS, COLS);
    softmax_matrix t = softmax_matrix_of(q, SOFTMAX_F32, ROWS, COLS);
    softmax_matrix g = softmax_matrix_mut(y, SOFTMAX_F32, ROWS, COLS);
    watch(x, sizeof x);
    watch(q, sizeof q);
    watch(y, sizeof y);
    watch(losses, sizeof losses);
    watch(loss, sizeof loss);
    watch(divisor, sizeof divisor);
    watch(of, sizeof of);
    double *odd_losses = (double *)(void *)((char *)losses + 4);
    double *odd_loss = (double *)(void *)((char *)loss + 4);
    double *odd_divisor = (double *)(void *)((char *)divisor + 1);
    int64_t *odd_labels = (int64_t *)(void *)((char *)of + 4);
    BAD(NULL_POINTER, softmax_cross_entropy_labels(NULL, of, losses, loss, &g, NULL, NULL));
    BAD(NULL_POINTER, softmax_cross_entropy_labels(&logits, NULL, losses, loss, &g, NULL, &options));
    SAYS(message, "labels is null");
    BAD(NULL_POINTER, softmax_cross_entropy_labels(&logits, NULL, NULL, NULL, NULL, NULL, NULL));
    BAD(NULL_POINTER, softmax_cross_entropy_probs(NULL, &t, losses, loss, &g, NULL, NULL));
    BAD(NULL_POINTER, softmax_cross_entropy_probs(&logits, NULL, losses, loss, &g, NULL, NULL));
    softmax_matrix m = logits;
    m.data = NULL;
    BAD(NULL_POINTER, softmax_cross_entropy_labels(&m, of, losses, loss, &g, NULL, NULL));
    BAD(NULL_POINTER, softmax_cross_entropy_labels(&logits, of, losses, loss, &m, NULL, NULL));
    BAD(NULL_POINTER, softmax_cross_entropy_probs(&logits, &m, losses, loss, &g, NULL, &options));
    SAYS(message, "targets is null");
    BAD(ALIGNMENT, softmax_cross_entropy_labels(&logits, odd_labels, losses, loss, &g, NULL, NULL));
    BAD(ALIGNMENT, softmax_cross_entropy_labels(&logits, of, odd_losses, loss, &g, NULL, NULL));
    BAD(ALIGNMENT, softmax_cross_entropy_labels(&logits, of, losses, odd_loss, &g, NULL, &options));
    SAYS(message, "loss is not aligned");
    BAD(ALIGNMENT, softmax_cross_entropy_probs(&logits, &t, odd_losses, loss, &g, NULL, NULL));
    BAD(ALIGNMENT, softmax_cross_entropy_probs(&logits, &t, losses, odd_loss, &g, NULL, NULL));
    BAD(ALIGNMENT, softmax_cross_entropy_probs(&g, &t, NULL, odd_loss, &g, NULL, NULL));
    m = t;
    m.data = (char *)q + 2;
    BAD(ALIGNMENT, softmax_cross_entropy_probs(&logits, &m, losses, loss, &g, NULL, NULL));
    static const softmax_dtype others[] = {SOFTMAX_F64, SOFTMAX_F16, SOFTMAX_BOOL, 12345};
    for (size_t i = 0; i < 4; i++) {
        m = g;
        m.dtype = others[i];
        BAD(DTYPE, softmax_cross_entropy_labels(&logits, of, losses, loss, &m, NULL, &options));
        m = t;
        m.dtype = others[i];
        BAD(DTYPE, softmax_cross_entropy_probs(&logits, &m, losses, loss, &g, NULL, NULL));
    }
    m = logits;
    m.dtype = SOFTMAX_BOOL;
    BAD(DTYPE, softmax_cross_entropy_labels(&m, of, losses, loss, NULL, NULL, NULL));
    BAD(DTYPE, softmax_cross_entropy_probs(&m, &m, losses, loss, NULL, NULL, NULL));
    m = g;
    m.rows = ROWS - 1;
    BAD(SHAPE, softmax_cross_entropy_labels(&logits, of, losses, loss, &m, NULL, &options));
    SAYS(message, "5 x 6");
    m = t;
    m.cols = COLS - 1;
    BAD(SHAPE, softmax_cross_entropy_probs(&logits, &m, losses, loss, &g, NULL, NULL));
    m = t;
    m.stride = COLS - 1;
    BAD(STRIDE, softmax_cross_entropy_probs(&logits, &m, losses, loss, &g, NULL, NULL));
    BAD(STRIDE, softmax_cross_entropy_labels(&m, of, losses, loss, &g, NULL, NULL));
    m = t;
    m.rows = SIZE_MAX;
    BAD(OVERFLOW, softmax_cross_entropy_probs(&logits, &m, losses, loss, &g, NULL, NULL));
    BAD(OVERFLOW, softmax_cross_entropy_labels(&m, of, losses, loss, &g, NULL, NULL));
    BAD(OVERFLOW, softmax_cross_entropy_labels(&logits, of, losses, loss, &m, NULL, NULL));
    m = logits;
    m.data = x + 3;
    m.rows = ROWS - 1;
    BAD(OVERLAP, softmax_cross_entropy_labels(&logits, of, losses, loss, &m, NULL, &options));
    SAYS(message, "gradient overlaps logits");
    BAD(OVERLAP, softmax_cross_entropy_labels(&logits, of, losses, &losses[2], &g, NULL, &options));
    SAYS(message, "losses overlaps loss");
    BAD(OVERLAP, softmax_cross_entropy_labels(&logits, of, (double *)(void *)of, loss, &g, NULL, NULL));
    BAD(OVERLAP, softmax_cross_entropy_probs(&logits, &t, losses, loss, &t, NULL, NULL));
    BAD(OVERLAP, softmax_cross_entropy_probs(&logits, &t, (double *)(void *)q, NULL, NULL, NULL, NULL));

    static const int64_t wrong[] = {COLS, -1, INT64_MAX, INT64_MIN};
    for (size_t i = 0; i < 4; i++) {
        of[3] = wrong[i];
        BAD(COLUMN, softmax_cross_entropy_labels(&logits, of, losses, loss, &g, NULL, &options));
        SAYS(message, "row 3");
        SAYS(message, "6 columns");
        BAD(COLUMN, softmax_cross_entropy_labels(&logits, of, NULL, loss, NULL, NULL, NULL));
        BAD(COLUMN, softmax_cross_entropy_labels(&logits, of, losses, NULL, NULL, NULL, NULL));
        BAD(COLUMN, softmax_cross_entropy_divisor(of, ROWS, COLS, divisor, NULL, &options));
    }
    of[3] = 3;
    softmax_cross_entropy o = softmax_cross_entropy_default();
    o.ignore_index = 77;
    BAD(COLUMN, softmax_cross_entropy_labels(&logits, of, losses, loss, &g, &o, &options));
    SAYS(message, "-100");

    size_t needed = 0;
    GOOD(softmax_cross_entropy_scratch_size(&logits, &needed, NULL));
    options.scratch = memory(needed);
    options.scratch_size = needed - 1;
    BAD(SCRATCH, softmax_cross_entropy_labels(&logits, of, losses, loss, &g, NULL, &options));
    BAD(SCRATCH, softmax_cross_entropy_probs(&logits, &t, NULL, loss, NULL, NULL, &options));
    free(options.scratch);
    options.scratch = losses;
    options.scratch_size = sizeof losses;
    BAD(OVERLAP, softmax_cross_entropy_labels(&logits, of, losses, loss, &g, NULL, &options));

    BAD(NULL_POINTER, softmax_cross_entropy_divisor(NULL, ROWS, COLS, divisor, NULL, NULL));
    BAD(NULL_POINTER, softmax_cross_entropy_divisor(of, ROWS, COLS, NULL, NULL, NULL));
    BAD(ALIGNMENT, softmax_cross_entropy_divisor(of, ROWS, COLS, odd_divisor, NULL, NULL));
    BAD(OVERFLOW, softmax_cross_entropy_divisor(of, SIZE_MAX, COLS, divisor, NULL, NULL));
    o.weights = weights;
    BAD(OVERFLOW, softmax_cross_entropy_divisor(of, ROWS, SIZE_MAX, divisor, &o, NULL));
    BAD(NULL_POINTER, softmax_cross_entropy_reduce(NULL, ROWS, 1.0, loss));
    BAD(NULL_POINTER, softmax_cross_entropy_reduce(losses, ROWS, 1.0, NULL));
    BAD(ALIGNMENT, softmax_cross_entropy_reduce(odd_losses, ROWS, 1.0, loss));
    BAD(ALIGNMENT, softmax_cross_entropy_reduce(losses, ROWS, 1.0, odd_loss));
    BAD(OVERFLOW, softmax_cross_entropy_reduce(losses, SIZE_MAX, 1.0, loss));

    size_t bytes = 99;
    watch(&bytes, sizeof bytes);
    BAD(NULL_POINTER, softmax_cross_entropy_scratch_size(NULL, &bytes, NULL));
    BAD(NULL_POINTER, softmax_cross_entropy_scratch_size(&logits, NULL, NULL));
    BAD(ALIGNMENT, softmax_cross_entropy_scratch_size(&logits, (size_t *)(void *)((char *)&bytes + 1), NULL));
    m = logits;
    m.dtype = 50;
    BAD(DTYPE, softmax_cross_entropy_scratch_size(&m, &bytes, NULL));
    unwatch();
    STRUCT_SIZES(softmax_matrix, logits, p, softmax_cross_entropy_scratch_size(p, &bytes, NULL));
}

int main(void) {
    values();
    parts();
    backward_values();
    bad_options();
    bad_places();
    bad_backward(softmax_softmax_backward);
    bad_backward(softmax_log_softmax_backward);
    BAD(NULL_POINTER, softmax_softmax_backward(NULL, NULL, NULL, NULL));
    BAD(NULL_POINTER, softmax_log_softmax_backward(NULL, NULL, NULL, NULL));
    return checked();
}
