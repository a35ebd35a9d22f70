// Output logits in C++: many rows of a vocabulary in half precision, log-probabilities of tokens,
// the most likely ones.
//
//     c++ -std=c++17 logits.cpp $(pkg-config --cflags --libs softmax) -o logits && ./logits
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <stdexcept>
#include <string>
#include <vector>

#include "softmax.h"

namespace {

// Options whose failures are exceptions with the library's message.
class Session {
  public:
    Session() : options(softmax_options_default()) {
        options.message = message;
        options.message_size = sizeof message;
    }

    void check(softmax_status status) const {
        if (status != SOFTMAX_STATUS_OK)
            throw std::runtime_error(std::string(softmax_status_message(status)) + ": " + message);
    }

    softmax_options options;

  private:
    char message[200] = "";
};

// bfloat16, rounded to nearest even; no NaN comes here.
std::uint16_t bf16(float x) {
    std::uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    return static_cast<std::uint16_t>((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}

float from_bf16(std::uint16_t x) {
    const std::uint32_t bits = std::uint32_t{x} << 16;
    float value;
    std::memcpy(&value, &bits, sizeof value);
    return value;
}

void run() {
    constexpr std::size_t rows = 8, vocabulary = 32000, k = 3;
    std::vector<std::uint16_t> logits(rows * vocabulary), probs(logits.size());
    for (std::size_t i = 0; i < logits.size(); ++i)
        logits[i] = bf16(static_cast<float>(i * 2654435761u % 1999) / 100.0f);
    Session session;
    session.options.temperature = 0.7;
    const auto x = softmax_matrix_of(logits.data(), SOFTMAX_BF16, rows, vocabulary);
    const auto y = softmax_matrix_mut(probs.data(), SOFTMAX_BF16, rows, vocabulary);

    // Scratch memory of one's own: nothing is allocated by the library.
    std::size_t bytes;
    session.check(softmax_scratch_size(SOFTMAX_OP_SOFTMAX, &x, &bytes, &session.options));
    std::vector<unsigned char> scratch(bytes);
    session.options.scratch = scratch.data();
    session.options.scratch_size = scratch.size();
    session.check(softmax_softmax(&x, &y, &session.options));
    session.options.scratch = nullptr;

    std::vector<std::size_t> top(rows * k);
    std::vector<float> log_probs(rows * k);
    session.check(softmax_top_k(&x, k, log_probs.data(), nullptr, top.data(), &session.options));
    for (std::size_t row = 0; row < rows; ++row) {
        double sum = 0.0;
        for (std::size_t i = 0; i < vocabulary; ++i)
            sum += from_bf16(probs[row * vocabulary + i]);
        // Each is rounded to 8 bits; the sum is not.
        if (std::abs(sum - 1.0) > 1e-2)
            throw std::runtime_error("row " + std::to_string(row) + " sums to " + std::to_string(sum));
        const float best = from_bf16(probs[row * vocabulary + top[row * k]]);
        std::printf("row %zu: token %zu has %.3e, exp of its log-probability is %.3e\n", row,
                    top[row * k], static_cast<double>(best), std::exp(log_probs[row * k]));
        if (std::abs(best - std::exp(log_probs[row * k])) > best / 128)
            throw std::runtime_error("the two differ");
    }

    softmax_plan plan = softmax_plan_empty();
    session.check(softmax_plan_of(SOFTMAX_OP_SOFTMAX, &x, 0, &plan, &session.options));
    std::printf("kernel %s, threads %zu\n", plan.kernel, plan.threads);
}

} // namespace

int main() {
    try {
        run();
    } catch (const std::exception &e) {
        std::fprintf(stderr, "%s\n", e.what());
        return 1;
    }
    return 0;
}
