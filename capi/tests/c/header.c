/* The header alone, twice, as C and as C++. */
#include "softmax.h"

#include "softmax.h"

#include "check.h"

static void twice(void *context, size_t count, void (*body)(void *argument, size_t index), void *argument) {
    (void)context;
    for (size_t i = 0; i < count; i++) {
        body(argument, i);
    }
}

int main(void) {
    double x[4] = {0.0, 0.0, 1.0, 1.0};
    softmax_matrix m = softmax_matrix_mut(x, SOFTMAX_F64, 2, 2);
    softmax_parallel parallel = softmax_parallel_of(NULL, 2, twice);
    softmax_options options = softmax_options_default();
    options.parallel = &parallel;
    options.flags = SOFTMAX_THREADS_EXACT;
    GOOD(softmax_softmax(&m, &m, &options));
    for (int i = 0; i < 4; i++) {
        CHECK(x[i] == 0.5);
    }
    char message[100];
    options = told(message, sizeof message);
    options.scale = 0.0;
    BAD(VALUE, softmax_softmax(&m, &m, &options));
    SAYS(message, "scale");
    double loss = 0.0;
    int64_t labels[2] = {0, 1};
    softmax_cross_entropy cross_entropy = softmax_cross_entropy_default();
    GOOD(softmax_cross_entropy_labels(&m, labels, NULL, &loss, NULL, &cross_entropy, NULL));
    CHECK(fabs(loss - log(2.0)) < 1e-15);
    softmax_attention attention = softmax_attention_default(1, 2);
    GOOD(softmax_attention_softmax(&m, &m, NULL, &attention, NULL));
    softmax_sampler sampler = softmax_sampler_default(1);
    size_t draws[2];
    GOOD(softmax_sample(&m, draws, 1, &sampler, NULL));
    CHECK(draws[0] < 2 && draws[1] < 2 && SOFTMAX_NO_TOKEN == SIZE_MAX);
    softmax_plan plan = softmax_plan_empty();
    GOOD(softmax_plan_of(SOFTMAX_OP_SOFTMAX, &m, 1, &plan, NULL));
    CHECK(plan.kernel != NULL && softmax_version()[0] != 0);
    return checked();
}
