/* Two static libraries in Rust in one program: see other.rs. */
#include "../c/check.h"

uint64_t other(uint64_t n);

int main(void) {
    float in[4] = {1, 1, 1, 1};
    float out[4];
    softmax_matrix x = softmax_matrix_of(in, SOFTMAX_F32, 1, 4);
    softmax_matrix y = softmax_matrix_mut(out, SOFTMAX_F32, 1, 4);
    GOOD(softmax_softmax(&x, &y, NULL));
    CHECK(out[3] == 0.25f);
    CHECK(other(5) == 11 && other(7) == 1);
    return checked();
}
