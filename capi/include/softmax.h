/* Softmax over the rows of matrices, and its relatives: at most 3 ULP of error, the same bits on
 * every CPU, thread count and sharding. MIT OR Apache-2.0.
 *
 * Made by cbindgen from capi/src; do not edit.
 *
 * Every function that can fail returns a status. When that is not SOFTMAX_STATUS_OK, nothing was
 * written, but for a message where softmax_options.message says, and for what that status itself
 * says. No panic and no exception leaves a function. All functions may be called by any number of
 * threads at the same time, as long as what one writes no other uses. The library keeps no state
 * but the choice of the kernel (the environment variable SOFTMAX_KERNEL, read once), the sizes of
 * the caches (SOFTMAX_CACHES, likewise), its pool of threads, and each thread's scratch memory.
 *
 * The floating-point environment of the caller (rounding, flush to zero, traps, sticky flags) makes
 * no difference and is as it was afterwards. A call takes less than 16 KiB of its thread's stack.
 * After a fork the child may make calls, too.
 *
 * Structs start with their size, so that later versions can add fields: fill them by the functions
 * ..._default at the end of this file, and then set what differs. Options may be null: that is the
 * default.
 *
 * Safety, of all functions: pointers are null or valid for what the function and its structs say of
 * them, for the time of the call; what is read is not written meanwhile, and what is written is
 * used by nobody else. What can be checked is checked, and is a status: null pointers, alignment,
 * lengths, strides, overlaps, sizes that overflow.
 */

#ifndef SOFTMAX_H
#define SOFTMAX_H


#include <stddef.h>
#include <stdint.h>

/* Written as a token where there is none to draw. */
#define SOFTMAX_NO_TOKEN SIZE_MAX

// Hides the keys after the query's position.
#define SOFTMAX_ATTENTION_CAUSAL 1

// `window` is used.
#define SOFTMAX_ATTENTION_WINDOW 2

// `offset` is used.
#define SOFTMAX_ATTENTION_OFFSET 4

// `window_ahead` is used.
#define SOFTMAX_ATTENTION_WINDOW_AHEAD 8

// `mask_keys` counts.
#define SOFTMAX_ATTENTION_MASK_KEYS 16

// The mean of the rows' losses.
#define SOFTMAX_REDUCTION_MEAN 0

// The sum of the rows' losses.
#define SOFTMAX_REDUCTION_SUM 1

// Subtracts the entropy of the targets from the loss: the Kullback-Leibler divergence.
#define SOFTMAX_CROSS_ENTROPY_DIVERGENCE 1

// Numbers that `softmax_online_to_array` writes for each row.
#define SOFTMAX_ONLINE_NUMBERS 5

// Rows of nothing but -inf become 0 instead of NaN.
#define SOFTMAX_MASKED_ZERO 1

// `threads` threads work, however small the call is.
#define SOFTMAX_THREADS_EXACT 2

// `cache_core` and `cache_last` are used.
#define SOFTMAX_CACHES 4

// Factors of rows are scales.
#define SOFTMAX_FACTORS_SCALES 0

// Factors of rows are temperatures.
#define SOFTMAX_FACTORS_TEMPERATURES 1

// Scores are the softmax of the row.
#define SOFTMAX_SCORING_SOFTMAX 0

// Scores are the sigmoids of the logits.
#define SOFTMAX_SCORING_SIGMOID 1

// The score of a group is the sum of its two largest scores, as in DeepSeek-V3.
#define SOFTMAX_GROUP_SCORE_TOP_TWO 0

// The score of a group is its largest score, as in DeepSeek-V2.
#define SOFTMAX_GROUP_SCORE_LARGEST 1

// The weights of each token are divided by their sum.
#define SOFTMAX_ROUTER_RENORMALIZE 1

// Short rows in groups.
#define SOFTMAX_REGIME_TINY 0

// One row after another.
#define SOFTMAX_REGIME_ROWS 1

// Each row in pieces.
#define SOFTMAX_REGIME_PIECES 2

// The order of Hugging Face transformers: temperature, top-k, top-p, min-p, typical-p.
#define SOFTMAX_ORDER_TRANSFORMERS 0

// The order of llama.cpp: top-k, typical-p, top-p, min-p at temperature 1, and then the
// temperature.
#define SOFTMAX_ORDER_LLAMA_CPP 1

// One random number for each draw.
#define SOFTMAX_METHOD_INVERSE_CDF 0

// The largest sum of logarithm and Gumbel noise: one random number for each token.
#define SOFTMAX_METHOD_GUMBEL_MAX 1

// The rows of the target are probabilities, not logits.
#define SOFTMAX_SPECULATIVE_TARGET_PROBS 1

// The rows of the draft are probabilities, not logits.
#define SOFTMAX_SPECULATIVE_DRAFT_PROBS 2

// Elements of a block: shards of a row start at multiples of it.
#define SOFTMAX_BLOCK 4096

// The status of a call. Unless it is `SOFTMAX_STATUS_OK`, nothing was written except a message;
// but after `SOFTMAX_STATUS_MEMORY` and `SOFTMAX_STATUS_INTERNAL` some rows may have been written,
// after `SOFTMAX_STATUS_AGAIN` the row's largest element, and after `SOFTMAX_STATUS_ROOM` all
// counts and the rows that fit.
typedef enum softmax_status {
    // The call has done its work.
    SOFTMAX_STATUS_OK = 0,
    // A pointer that must not be null is null.
    SOFTMAX_STATUS_NULL_POINTER = 1,
    // The `size` of a struct is unknown to this library, or a newer field is set that it does not
    // have.
    SOFTMAX_STATUS_STRUCT_SIZE = 2,
    // The dtype does not exist, or this call does not take it.
    SOFTMAX_STATUS_DTYPE = 3,
    // Shapes do not fit each other.
    SOFTMAX_STATUS_SHAPE = 4,
    // Sizes overflow the address space.
    SOFTMAX_STATUS_OVERFLOW = 5,
    // Rows of one matrix overlap: its stride is less than its columns.
    SOFTMAX_STATUS_STRIDE = 6,
    // An output overlaps something else.
    SOFTMAX_STATUS_OVERLAP = 7,
    // A pointer is not aligned as its type needs.
    SOFTMAX_STATUS_ALIGNMENT = 8,
    // An array does not have the required length.
    SOFTMAX_STATUS_LENGTH = 9,
    // An option is out of its range.
    SOFTMAX_STATUS_VALUE = 10,
    // A label or token is not a column.
    SOFTMAX_STATUS_COLUMN = 11,
    // The tensor has no such axis.
    SOFTMAX_STATUS_AXIS = 12,
    // There is no memory.
    SOFTMAX_STATUS_MEMORY = 13,
    // The scratch buffer is too small.
    SOFTMAX_STATUS_SCRATCH = 14,
    // There is no such kernel, or this CPU cannot run it.
    SOFTMAX_STATUS_KERNEL = 15,
    // The environment variable SOFTMAX_CACHES is not two sizes.
    SOFTMAX_STATUS_CACHES = 16,
    // The partials have to be computed again, by the row's largest element: see `softmax_merge`.
    SOFTMAX_STATUS_AGAIN = 17,
    // A row has more results than there is room for: the counts say how many.
    SOFTMAX_STATUS_ROOM = 18,
    // A bug in this library.
    SOFTMAX_STATUS_INTERNAL = 19,
} softmax_status;

// The caller's own threads.
typedef struct softmax_parallel {
    // `sizeof(softmax_parallel)`.
    size_t size;
    // Passed to `parallel_for`.
    void *context;
    // Number of threads.
    size_t threads;
    // Calls `body(argument, 0)` to `body(argument, count - 1)`, in any order and on any threads,
    // mostly at the same time, and returns when all of these calls have returned. `count` is at
    // most `threads`. If it leaves out calls, the calling thread does their work; it must not make
    // any later. It must not throw.
    void (*parallel_for)(void *context,
                         size_t count,
                         void (*body)(void *argument, size_t index),
                         void *argument);
} softmax_parallel;

// The options of all calls. `softmax_options_default` has those of a call with a null pointer.
typedef struct softmax_options {
    // `sizeof(softmax_options)`.
    size_t size;
    // The factor of inputs, within 2^-60 to 2^60; exact, at no cost. 1 by default. Its negative
    // (softmin) is allowed, too, and costs a copy of the rows.
    double scale;
    // The divisor of inputs; 1 by default. One of scale and temperature must be 1. Softmax and
    // log-softmax of rows also take 0 and infinity.
    double temperature;
    // Any of `SOFTMAX_MASKED_ZERO`, `SOFTMAX_THREADS_EXACT` and `SOFTMAX_CACHES`.
    uint32_t flags;
    // The name of a kernel; null for the fastest that this CPU can run.
    const char *kernel;
    // Number of threads that may work: 0 for as many as pay, 1 for the calling thread alone.
    size_t threads;
    // The caller's threads; null for the library's pool, which is made when a call first needs it.
    // In a child of a process that has the pool, and where no thread can be made, the calling
    // thread works alone.
    const struct softmax_parallel *parallel;
    // Memory for intermediate results, as large as the function `softmax_scratch_size` or one of
    // its relatives says, with any alignment. Null for the threads' own memory, which they keep
    // for the next call, until `softmax_release_scratch`.
    void *scratch;
    // Bytes of `scratch`.
    size_t scratch_size;
    // Bytes of the largest cache that a core has to itself. Speed depends on it, results do not.
    size_t cache_core;
    // Bytes of output that a call may expect to stay in a cache.
    size_t cache_last;
    // The place of a message, with a 0 at its end, if the call fails: it names the sizes or values
    // that are wrong. Null for none.
    char *message;
    // Bytes of `message`. Longer messages are cut.
    size_t message_size;
} softmax_options;

// The type of elements: one of `SOFTMAX_F32`, `SOFTMAX_F64`, `SOFTMAX_F16` and `SOFTMAX_BF16`; for
// masks also `SOFTMAX_BOOL` and `SOFTMAX_BITS`.
typedef uint32_t softmax_dtype;

// The result for several largest elements of a row: `SOFTMAX_TIES_SHARE` or `SOFTMAX_TIES_FIRST`.
typedef uint32_t softmax_ties;

// The options of losses. With target probabilities `q` (1 at a label), label smoothing `s`, class
// weights `w`, `C` classes and scale `a` the loss of a row of logits `x` is `- sum_j t_j
// log_softmax(a x)_j + z logsumexp(a x)^2` with `t_j = w_j ((1 - s) q_j + s / C)`.
// `softmax_cross_entropy_default` has those of a call with a null pointer.
typedef struct softmax_cross_entropy {
    // `sizeof(softmax_cross_entropy)`.
    size_t size;
    // `SOFTMAX_REDUCTION_MEAN` or `SOFTMAX_REDUCTION_SUM`.
    uint32_t reduction;
    // 0 or `SOFTMAX_CROSS_ENTROPY_DIVERGENCE`.
    uint32_t flags;
    // Rows with this label have loss 0 and gradient 0, and do not count in the mean. -100 by
    // default.
    int64_t ignore_index;
    // The share of every target's mass that is spread over all classes, within 0 to 1.
    double label_smoothing;
    // The factor of the square of each row's log-sum-exp.
    double z_loss;
    // One weight for each class, finite and not negative (else `SOFTMAX_STATUS_VALUE`). Null for
    // 1.
    const float *weights;
    // One factor for each row's loss and gradient; null for 1.
    const double *row_factors;
    // Multiplies the gradient, but not the loss. 1 by default.
    double gradient_factor;
    // As `weights`, in double; null if there are none, or if there are `weights`.
    const double *weights_f64;
} softmax_cross_entropy;

// A matrix: `rows` rows of `cols` contiguous elements, with `stride` elements from the start of
// one row to the start of the next. Elements between rows are neither read nor written, so others
// may use them at the same time. `softmax_matrix_of` makes one to read, `softmax_matrix_mut` one
// to write.
typedef struct softmax_matrix {
    // `sizeof(softmax_matrix)`.
    size_t size;
    // The first element of row 0. May be null if there are no elements.
    void *data;
    // The type of the elements.
    softmax_dtype dtype;
    // Number of rows.
    size_t rows;
    // Elements in a row.
    size_t cols;
    // Elements from one row to the next: `cols` or more.
    size_t stride;
} softmax_matrix;

// A mask of rows: elements of `SOFTMAX_BOOL`, not 0 where an element is seen, or `SOFTMAX_BITS`,
// or numbers that are added to the scaled elements, -inf hiding: of `SOFTMAX_F32`, `SOFTMAX_F16`
// or `SOFTMAX_BF16`, for rows of f64 also `SOFTMAX_F64`.
typedef struct softmax_mask {
    // `sizeof(softmax_mask)`.
    size_t size;
    // The elements, without gaps.
    const void *data;
    // Their type.
    softmax_dtype dtype;
    // Rows of the mask: 1, which serves for all, or as many as there are.
    size_t rows;
    // Of bits: the words from one row to the next; 0 if there are no gaps.
    size_t stride;
    // Of bits: columns from this one on are hidden, and there need be no bits for them; 0 for no
    // such column. (Models pad their vocabularies.)
    size_t hidden_from;
} softmax_mask;

// The options of attention. Scores are a matrix whose rows are those of a tensor of batch, heads,
// queries and keys, in C order: row `(b * heads + h) * queries + q` has the scores of query `q` of
// head `h`, one for each key. The logit of the score `x` of a key is `cap(scale * x) +
// mask_slopes[h] * mask[b][h][q][key] + alibi[h] * (key - position(q))` with `cap(u) = c * tanh(u
// / c)`; the probability is `exp(logit) / (exp(sinks[h]) + sum exp(logits))` over the keys that
// the query sees, and 0 for the others. `softmax_attention_default` makes one.
typedef struct softmax_attention {
    // `sizeof(softmax_attention)`.
    size_t size;
    // Heads.
    size_t heads;
    // Queries of a head.
    size_t queries;
    // Any of `SOFTMAX_ATTENTION_...`.
    uint32_t flags;
    // The soft cap `c`, within 2^-20 to 2^20; 0 for none.
    double soft_cap;
    // A mask without gaps; null for none.
    const void *mask;
    // `SOFTMAX_F32`, `SOFTMAX_F16` or `SOFTMAX_BF16`, which are added, or `SOFTMAX_BOOL`: not 0
    // where a key is seen, or `SOFTMAX_BITS`: each row starts at a word.
    softmax_dtype mask_dtype;
    // The mask's batch, heads and queries: each as many as the scores have, or 1 for one that
    // serves all. Its rows are as long as the scores', or `mask_keys`.
    size_t mask_shape[3];
    // Each head's factor of the mask; null for 1.
    const float *mask_slopes;
    // Each head's slope of ALiBi; null for none. Keys that queries see may be at most 2^24 - 16
    // (f64: 2^53 - 16) away from them.
    const float *alibi;
    // Each head's sink; null for none.
    const float *sinks;
    // Number of valid keys, for each sequence of the batch or for each row; null for all.
    const size_t *lengths;
    // Number of lengths.
    size_t lengths_count;
    // Number of keys up to its position that a query sees, its own among them: the last ones. Keys
    // after its position are not changed by this.
    size_t window;
    // The position of the first query among the keys; without the flag it is keys - queries.
    // (PyTorch's is_causal counts from 0, and so does ONNX's without a cache.)
    ptrdiff_t offset;
    // Number of keys after its position that a query sees: the first ones. None if causal.
    size_t window_ahead;
    // The position of the first query of each sequence of the batch, or of the query of each row;
    // null for `offset`, whose flag is not set otherwise.
    const ptrdiff_t *offsets;
    // How many offsets there are.
    size_t offsets_count;
    // How long the mask's rows are: keys from there on are hidden. No more than there are.
    size_t mask_keys;
} softmax_attention;

// The state of a row between its tiles: plain memory, which may be copied and moved, but not sent
// to another machine or kept for another version of this library (for that there is
// `softmax_online_to_array`). `softmax_online_new` makes that of a row that has seen no key.
typedef struct softmax_online_row {
    // Of the library.
    uint64_t state[22];
} softmax_online_row;

// The place of a tile in the whole matrix of scores that `softmax_attention` describes.
// `softmax_tile_of` makes one of the first row and key.
typedef struct softmax_tile {
    // `sizeof(softmax_tile)`.
    size_t size;
    // Rows of the whole: those of all sequences, heads and queries.
    size_t rows;
    // Keys of the whole.
    size_t keys;
    // The row of the whole that is the tile's first.
    size_t first_row;
    // The key of the whole that is the tile's first.
    size_t first_key;
} softmax_tile;

// The type of offsets: `SOFTMAX_I32` or `SOFTMAX_I64`.
typedef uint32_t softmax_index_type;

// Rows of different lengths that follow each other in one array: row `i` has the elements from
// number `offsets[i]` to the one before number `offsets[i + 1]`, and may be empty. Offsets are
// not negative, never fall, and end within the array (else `SOFTMAX_STATUS_VALUE` or
// `SOFTMAX_STATUS_LENGTH`); elements before the first row and behind the last are not touched.
// `softmax_ragged_of` makes one to read, `softmax_ragged_mut` one to write.
typedef struct softmax_ragged {
    // `sizeof(softmax_ragged)`.
    size_t size;
    // The array. May be null if it has no elements.
    void *data;
    // Elements of the array.
    size_t elements;
    // The type of the elements.
    softmax_dtype dtype;
    // The type of the offsets.
    softmax_index_type index_type;
    // Number of rows.
    size_t rows;
    // `rows + 1` offsets.
    const void *offsets;
} softmax_ragged;

// How experts are chosen. `softmax_router_default` makes one that takes the `k` largest of the
// softmax. (Scale and temperature of `softmax_options` have no effect.)
typedef struct softmax_router {
    // `sizeof(softmax_router)`.
    size_t size;
    // Number of experts of each token.
    size_t k;
    // `SOFTMAX_SCORING_SOFTMAX` or `SOFTMAX_SCORING_SIGMOID`.
    uint32_t scoring;
    // 0 or `SOFTMAX_ROUTER_RENORMALIZE`.
    uint32_t flags;
    // Numbers that are added to the scores for the choice alone, one for each expert; null for
    // none.
    const float *bias;
    // Number of groups of experts, all of the same size; 0 for none.
    size_t groups;
    // Number of groups from which the experts of a token are chosen.
    size_t group_limit;
    // `SOFTMAX_GROUP_SCORE_TOP_TWO` or `SOFTMAX_GROUP_SCORE_LARGEST`.
    uint32_t group_score;
    // The factor of all weights, after they are renormalised. 1 by default.
    double scaling_factor;
} softmax_router;

// An operation on rows: one of `SOFTMAX_OP_...`.
typedef uint32_t softmax_op;

// How a call is computed: see `softmax_plan_of`.
typedef struct softmax_plan {
    // `sizeof(softmax_plan)`, set by the caller.
    size_t size;
    // The name of the kernel, valid for as long as the library is loaded.
    const char *kernel;
    // The most threads that work.
    size_t threads;
    // One of `SOFTMAX_REGIME_...`.
    uint32_t regime;
    // Whether the output is written past the caches.
    uint32_t streams;
} softmax_plan;

// How tokens are drawn. A draw depends on nothing but its row, these options, the seed, the number
// of the row, the step and the number of the draw. `softmax_sampler_default` makes one that draws
// from the plain distribution.
typedef struct softmax_sampler {
    // `sizeof(softmax_sampler)`.
    size_t size;
    // The seed.
    uint64_t seed;
    // The position in the sequence, below 2^48.
    uint64_t step;
    // The number of the first row of the matrix, so that a batch may be cut. Rows are numbered
    // below 2^48.
    uint64_t first_row;
    // The divisor of logits; 0 takes the largest. 1 by default. (Scale and temperature of
    // `softmax_options` have no effect.)
    double temperature;
    // `SOFTMAX_ORDER_TRANSFORMERS` or `SOFTMAX_ORDER_LLAMA_CPP`.
    uint32_t order;
    // `SOFTMAX_METHOD_INVERSE_CDF` or `SOFTMAX_METHOD_GUMBEL_MAX`.
    uint32_t method;
    // Keeps this number of the most likely tokens; 0 for all.
    size_t top_k;
    // Keeps the most likely tokens that together have this share of the mass; 1, the default,
    // keeps all.
    double top_p;
    // Keeps the tokens that are at least this many times as likely as the most likely one; 0 keeps
    // all.
    double min_p;
    // Keeps the tokens nearest to the entropy that together have this share of the mass; 1, the
    // default, keeps all.
    double typical_p;
    // Divides positive logits of tokens in the history and multiplies the others. 1 by default.
    double repetition_penalty;
    // Subtracted from the logits of tokens in the history.
    double presence_penalty;
    // Subtracted for each time that a token is in the history.
    double frequency_penalty;
    // Tokens whose logits are changed first.
    const size_t *bias_tokens;
    // Numbers that are added to their logits; -inf bans a token.
    const float *bias;
    // Number of these tokens.
    size_t bias_count;
    // The histories, one after another.
    const size_t *history;
    // The start of each history in `history`, and the end of the last one: `history_count + 1`
    // numbers.
    const size_t *history_starts;
    // Number of histories: 0, one for all rows, or one for each row.
    size_t history_count;
    // How many tokens top-p, min-p and typical-p leave at least, if there are so many. 0 is 1.
    size_t min_keep;
    // Hides tokens; null for none. Its numbers, if it is not of bits or bools, must be 0 or -inf.
    const struct softmax_mask *mask;
    // A temperature for each row, in place of `temperature`; null for none. A row with settings of
    // its own has the draws that it has alone with them.
    const double *temperatures;
    // The same in place of `top_k`.
    const size_t *top_ks;
    // The same in place of `top_p`.
    const double *top_ps;
    // The same in place of `min_p`.
    const double *min_ps;
    // The same in place of `typical_p`.
    const double *typical_ps;
    // The same in place of `seed`. Every row then has the number `first_row`, wherever it lies.
    const uint64_t *seeds;
    // The same in place of `step`.
    const uint64_t *steps;
} softmax_sampler;

// How drafted tokens are verified. `softmax_speculative_default` makes one for logits at
// temperature 1. (Scale and temperature of `softmax_options` have no effect.)
typedef struct softmax_speculative {
    // `sizeof(softmax_speculative)`.
    size_t size;
    // The seed of all sequences, if `seeds` is null.
    uint64_t seed;
    // The position of the first drafted token of all sequences, if `steps` is null. Positions are
    // below 2^48.
    uint64_t step;
    // The number of the first sequence, so that a batch may be cut. Sequences are numbered below
    // 2^48.
    uint64_t first_row;
    // The divisor of logits of all sequences, if `temperatures` is null; 0 verifies greedily.
    double temperature;
    // A seed for each sequence, or null. With it, every sequence has the number `first_row`, so
    // that its place in the batch makes no difference.
    const uint64_t *seeds;
    // The position of the first drafted token of each sequence, or null.
    const uint64_t *steps;
    // A temperature for each sequence, or null.
    const double *temperatures;
    // 0, `SOFTMAX_SPECULATIVE_TARGET_PROBS`, `SOFTMAX_SPECULATIVE_DRAFT_PROBS` or both.
    uint32_t flags;
} softmax_speculative;

// The partial of a block of a row: four numbers, which may be stored and sent.
typedef struct softmax_partial {
    // The block's largest element, or the row's.
    double max;
    // A lower bound of the elements that count.
    double least;
    // The sum of the exponentials.
    double sum;
    // The correction of the sum.
    double rest;
} softmax_partial;

// `int32_t`.
#define SOFTMAX_I32 0

// `int64_t`.
#define SOFTMAX_I64 1

// `float`.
#define SOFTMAX_F32 0

// `double`.
#define SOFTMAX_F64 1

// IEEE half precision, two bytes.
#define SOFTMAX_F16 2

// bfloat16, the upper half of a float.
#define SOFTMAX_BF16 3

// A byte, 0 or not 0. For masks only.
#define SOFTMAX_BOOL 4

// Bits in `uint32_t`, as grammar engines make them: element i of a row is seen where bit i % 32 of
// its word i / 32 is set, least significant first. Each row starts at a word, and bits behind the
// last element are ignored. For masks only.
#define SOFTMAX_BITS 5

// `softmax_softmax`.
#define SOFTMAX_OP_SOFTMAX 0

// `softmax_log_softmax`.
#define SOFTMAX_OP_LOG_SOFTMAX 1

// `softmax_logsumexp`.
#define SOFTMAX_OP_LOGSUMEXP 2

// `softmax_sigmoid`.
#define SOFTMAX_OP_SIGMOID 3

// `softmax_log_sigmoid`.
#define SOFTMAX_OP_LOG_SIGMOID 4

// `softmax_hardmax`.
#define SOFTMAX_OP_HARDMAX 5

// Each of N gets 1/N.
#define SOFTMAX_TIES_SHARE 0

// The first of them gets 1.
#define SOFTMAX_TIES_FIRST 1

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

// The version of the library, like "0.1.0". Never null.
const char *softmax_version(void);

// The name of kernel number `index` among those that are compiled for this architecture, the
// fastest first, and whether (not 0) this CPU can run it. Each is written unless it is null.
// `SOFTMAX_STATUS_LENGTH` if there are fewer kernels.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_kernel(size_t index, const char **name, int32_t *available);

// The name of the kernel that calls use with these options.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_kernel_in_use(const char **name, const struct softmax_options *options);

// The log-sum-exp along an axis (negative ones count from the end) of a tensor of `dims`
// dimensions in C order, without gaps: one element of `dtype` for each lane, in the order of the
// tensor without the axis. The bits are those of `softmax_logsumexp` for the same axis as the last
// one.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_logsumexp_axis(const void *x,
                                           void *logsumexp,
                                           softmax_dtype dtype,
                                           const size_t *shape,
                                           size_t dims,
                                           ptrdiff_t axis,
                                           const struct softmax_options *options);

// As `softmax_softmax_axis`, for `softmax_hardmax`.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_hardmax_axis(const void *x,
                                         void *y,
                                         softmax_dtype dtype,
                                         const size_t *shape,
                                         size_t dims,
                                         ptrdiff_t axis,
                                         softmax_ties ties,
                                         const struct softmax_options *options);

// As `softmax_logsumexp_axis`, for `softmax_argmax`: one index for each lane.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_argmax_axis(const void *x,
                                        size_t *indices,
                                        softmax_dtype dtype,
                                        const size_t *shape,
                                        size_t dims,
                                        ptrdiff_t axis,
                                        const struct softmax_options *options);

// As `softmax_top_k`, along an axis of a tensor in C order: outputs are tensors of its shape, but
// for `k` elements along the axis. Not both of `log_probs` and `probs` are wanted: one is null.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_top_k_axis(const void *x,
                                       softmax_dtype dtype,
                                       const size_t *shape,
                                       size_t dims,
                                       ptrdiff_t axis,
                                       size_t k,
                                       void *log_probs,
                                       void *probs,
                                       size_t *indices,
                                       const struct softmax_options *options);

// As `softmax_log_probs`, along an axis of a tensor in C order: `tokens` and `log_probs` are
// tensors of its shape, but for `tokens_per_lane` elements along the axis; `logsumexp` has one
// element for each lane.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_log_probs_axis(const void *x,
                                           softmax_dtype dtype,
                                           const size_t *shape,
                                           size_t dims,
                                           ptrdiff_t axis,
                                           const size_t *tokens,
                                           size_t tokens_per_lane,
                                           void *log_probs,
                                           void *logsumexp,
                                           const struct softmax_options *options);

// As `softmax_cross_entropy_labels`, along an axis of a tensor in C order, of classes: the second
// of PyTorch's N, C, d1, d2. There is one label, one loss and one row factor for each lane, in the
// order of the tensor without the axis. The gradient is a tensor of the logits' shape, which is
// `logits` itself (in place) or does not overlap it.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_cross_entropy_labels_axis(const void *logits,
                                                      softmax_dtype dtype,
                                                      const size_t *shape,
                                                      size_t dims,
                                                      ptrdiff_t axis,
                                                      const int64_t *labels,
                                                      double *losses,
                                                      double *loss,
                                                      void *gradient,
                                                      const struct softmax_cross_entropy *cross_entropy,
                                                      const struct softmax_options *options);

// As `softmax_cross_entropy_labels_axis`, against the probabilities `targets`, a tensor of the
// logits' shape and dtype.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_cross_entropy_probs_axis(const void *logits,
                                                     softmax_dtype dtype,
                                                     const size_t *shape,
                                                     size_t dims,
                                                     ptrdiff_t axis,
                                                     const void *targets,
                                                     double *losses,
                                                     double *loss,
                                                     void *gradient,
                                                     const struct softmax_cross_entropy *cross_entropy,
                                                     const struct softmax_options *options);

// As `softmax_axis_scratch_size`, for `softmax_top_k_axis` and, with the two sizes of a matrix and
// axis 1, for `softmax_top_k`.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_top_k_scratch_size(softmax_dtype dtype,
                                               const size_t *shape,
                                               size_t dims,
                                               ptrdiff_t axis,
                                               size_t k,
                                               size_t *bytes,
                                               const struct softmax_options *options);

// As `softmax_axis_scratch_size`, for losses of logits along an axis.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_cross_entropy_axis_scratch_size(softmax_dtype dtype,
                                                            const size_t *shape,
                                                            size_t dims,
                                                            ptrdiff_t axis,
                                                            size_t *bytes,
                                                            const struct softmax_options *options);

// As `softmax_softmax`, with a mask. Hidden elements have probability 0, whatever their value.
// What scratch memory is too small for (1 MiB and 17 rows of double a thread are enough) the
// allocator provides.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_softmax_masked(const struct softmax_matrix *x,
                                           const struct softmax_matrix *y,
                                           const struct softmax_mask *mask,
                                           const struct softmax_options *options);

// As `softmax_softmax_masked`, the logarithms: -inf where the mask hides. In f64, where numbers
// are added, as of logits that were rounded first.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_log_softmax_masked(const struct softmax_matrix *x,
                                               const struct softmax_matrix *y,
                                               const struct softmax_mask *mask,
                                               const struct softmax_options *options);

// As `softmax_logsumexp`, with a mask (as in `softmax_log_softmax_masked`), or null for none, and
// weights: the logarithm of `sum_j w_j exp(scale * x_j)`. Weights are `SOFTMAX_F32` or
// `SOFTMAX_F64`, finite and not negative (else `SOFTMAX_STATUS_VALUE`): `weights_rows` rows of
// them, 1, which serves for all, or as many as there are. What has weight 0 is as if it were not
// there. Null for 1. Error with weights: 0.51 ULP (f64: 1) and 5e-16 on top.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_logsumexp_of(const struct softmax_matrix *x,
                                         const struct softmax_mask *mask,
                                         const void *weights,
                                         softmax_dtype weights_dtype,
                                         size_t weights_rows,
                                         void *logsumexp,
                                         const struct softmax_options *options);

// The softmax of attention scores, into `probs`: a matrix of the same shape, which is `scores`
// itself (in place) or does not overlap it. Its dtype is that of the scores; scores of f32 may
// also give f16 or bf16, and scores of f16 or bf16 may give f32. Scores that causality, windows
// and lengths hide are not read, and those under a mask's -inf may be anything. The log-sum-exp of
// each row's logits is written to `logsumexp` (float, or double for f64), unless it is null.
//
// Errors are those of `softmax_softmax` and `softmax_logsumexp`, as if logits had been computed
// exactly, while logits are below 45,000 (probabilities of f16 from 16,384 on: 0.54 ULP); larger
// logits are rounded to the type first. Log-sum-exps beside probabilities of f16 and bf16 are
// within 2 ULP or 2e-5, whichever is larger. In f64 a soft cap `c` adds up to `1.25 c` ULP to
// probabilities, and `0.61 c` 2^-53 to log-sum-exps.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_attention_softmax(const struct softmax_matrix *scores,
                                              const struct softmax_matrix *probs,
                                              void *logsumexp,
                                              const struct softmax_attention *attention,
                                              const struct softmax_options *options);

// As `softmax_scratch_size`, for scores and probabilities with the shape and dtypes of these
// matrices; their data is not used.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_attention_scratch_size(const struct softmax_matrix *scores,
                                                   const struct softmax_matrix *probs,
                                                   size_t *bytes,
                                                   const struct softmax_options *options);

// The entropy of the softmax of every row of `x`, in nats, into `entropy`: one element of the
// dtype of `x` for each row. `mask` is as in `softmax_log_softmax_masked`, or null for none. With
// one, and with a scale below 0, rows are copied; what scratch memory is too small for (1 MiB and
// 17 rows of double a thread are enough) the allocator provides.
//
// Rows that are all -inf, or have no elements, give NaN or, with `SOFTMAX_MASKED_ZERO`, 0.
// Temperatures 0 and infinity are refused (`SOFTMAX_STATUS_VALUE`).
//
// Error: 3 ULP (f64: 5; f16, bf16: 0.51), near 0, too.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_entropy(const struct softmax_matrix *x,
                                    const struct softmax_mask *mask,
                                    void *entropy,
                                    const struct softmax_options *options);

// The entropy along an axis (negative ones count from the end) of a tensor of `dims` dimensions in
// C order, without gaps: one element of `dtype` for each lane, in the order of the tensor without
// the axis. The bits are those of `softmax_entropy` for the same axis as the last one. Scratch
// memory is as for `softmax_logsumexp_axis`.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_entropy_axis(const void *x,
                                         void *entropy,
                                         softmax_dtype dtype,
                                         const size_t *shape,
                                         size_t dims,
                                         ptrdiff_t axis,
                                         const struct softmax_options *options);

// The gradient of `sum_i upstream_i H_i` with respect to `x`, where `H_i` is the entropy of row
// `i` that `softmax_entropy` gives: `-upstream_i scale p_j (ln p_j + H_i)`. `upstream` has one
// element of the dtype of `x` for each row; `gradient` is a matrix of the shape and dtype of `x`
// elsewhere. `mask` is null, or only hides (numbers are 0 or -inf).
//
// Rows without an entropy have a gradient of NaN; where it is 0 by `SOFTMAX_MASKED_ZERO`, of 0.
//
// Error: 6 ULP (f64: 14; f16, bf16: 0.51) of the largest of `upstream_i scale p_j` times `scale
// (max - x_j)`, the same times the mean of these, and the gradient; in f64 also
// `2^-1040 scale^2 upstream_i p_j`, for logits that differ by less than 2^-960.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_entropy_backward(const struct softmax_matrix *x,
                                             const struct softmax_mask *mask,
                                             const void *upstream,
                                             const struct softmax_matrix *gradient,
                                             const struct softmax_options *options);

// The Kullback-Leibler divergence of every row, in nats, into `kl`: `sum_j p_j (ln p_j - ln q_j)`
// of the softmax p of a row of `x` and the softmax q of that row of `y`, which has the shape and
// dtype of `x`; one element of the dtype for each row. The scale or temperature of the options
// holds for both. `mask` is null, or hides in both (numbers are 0 or -inf). With one, and with a
// scale below 0, rows are copied; what scratch memory is too small for (two rows a thread are
// enough) the allocator provides.
//
// Rows of `x` that are all -inf, or have no elements, give NaN or, with `SOFTMAX_MASKED_ZERO`, 0.
// Where p is not 0, a `y` of -inf gives +inf. Temperatures 0 and infinity are refused
// (`SOFTMAX_STATUS_VALUE`).
//
// Error: 0.51 ULP and 1e-24 (f64: 8 ULP and 1e-31), for rows that hardly differ, too; 0 for equal
// ones.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_kl_divergence(const struct softmax_matrix *x,
                                          const struct softmax_matrix *y,
                                          const struct softmax_mask *mask,
                                          void *kl,
                                          const struct softmax_options *options);

// The gradients of `sum_i upstream_i KL_i`, where `KL_i` is the divergence of row `i` that
// `softmax_kl_divergence` gives: with respect to `x`, `upstream_i scale p_j (d_j - KL_i)` with
// `d_j = ln p_j - ln q_j`, into `x_gradient`; with respect to `y`, `upstream_i scale (q_j - p_j)`,
// into `y_gradient`. Both are null or matrices of the shape and dtype of `x` elsewhere. `upstream`
// has one element of that dtype for each row. `mask` and scratch memory are as there.
//
// Where the divergence is NaN or 0 by `SOFTMAX_MASKED_ZERO`, so are the gradients. Where it is
// +inf, the first is NaN but for elements with p 0, the second NaN if `y` is nothing but -inf.
//
// Error: of the first 0.51 ULP (f64: 12) of the largest of `upstream_i scale p_j |d_j|`,
// `upstream_i scale p_j KL_i` and the gradient; of the second as much of the gradient; plus 1e-12
// (f64: 1e-15) of `upstream_i scale p_j`.
// Exponentials below 2^-1022 of their row's largest count 0.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_kl_divergence_backward(const struct softmax_matrix *x,
                                                   const struct softmax_matrix *y,
                                                   const struct softmax_mask *mask,
                                                   const void *upstream,
                                                   const struct softmax_matrix *x_gradient,
                                                   const struct softmax_matrix *y_gradient,
                                                   const struct softmax_options *options);

// Cross-entropy of rows of logits against `labels`, one for each row: the loss of each row to
// `losses`, the reduced loss to `loss`, the gradient with respect to the logits to `gradient`,
// each unless it is null. The gradient is a matrix of the logits' shape and dtype, which is
// `logits` itself (in place) or does not overlap it. A `cross_entropy` of null is the default.
//
// Error of a row's loss: 1e-7 of it (f64: 2e-15), however near to 0 it is; of a divergence, 5e-13
// (f64: 2e-15) of the sum of cross-entropy, entropy and targets. Error of the gradient: 3 ULP
// (f16, bf16: 0.51); with smoothing, probabilities or z, that many ULP of the larger of its two
// terms or of itself, and 6 in f64; one more in f64 for a mean. A z-loss adds the effect of an
// error of 5e-13 (f64: 2e-15) of `1 + |lse|` in the log-sum-exp. Where nothing counts (rows that
// are ignored, or whose targets have weight 0) the gradient is 0, and the mean NaN.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_cross_entropy_labels(const struct softmax_matrix *logits,
                                                 const int64_t *labels,
                                                 double *losses,
                                                 double *loss,
                                                 const struct softmax_matrix *gradient,
                                                 const struct softmax_cross_entropy *cross_entropy,
                                                 const struct softmax_options *options);

// As `softmax_cross_entropy_labels`, against the probabilities `targets`, a matrix of the logits'
// shape and dtype.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_cross_entropy_probs(const struct softmax_matrix *logits,
                                                const struct softmax_matrix *targets,
                                                double *losses,
                                                double *loss,
                                                const struct softmax_matrix *gradient,
                                                const struct softmax_cross_entropy *cross_entropy,
                                                const struct softmax_options *options);

// The divisor of the sum of the losses of `rows` rows with these labels. It serves callers who
// compute rows in several calls: each call as a sum, with the inverse of this divisor as its
// `gradient_factor`, and at the end one reduction of all losses.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_cross_entropy_divisor(const int64_t *labels,
                                                  size_t rows,
                                                  size_t cols,
                                                  double *divisor,
                                                  const struct softmax_cross_entropy *cross_entropy,
                                                  const struct softmax_options *options);

// The loss from the losses of all rows: their sum, in the order of all calls, divided by
// `divisor`.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_cross_entropy_reduce(const double *losses,
                                                 size_t rows,
                                                 double divisor,
                                                 double *loss);

// As `softmax_scratch_size`, for losses of logits with the shape and dtype of this matrix; its
// data is not used.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_cross_entropy_scratch_size(const struct softmax_matrix *logits,
                                                       size_t *bytes,
                                                       const struct softmax_options *options);

// The gradient through a softmax: from its output `probs` and the gradient `upstream` with respect
// to that output, the gradient with respect to its input, into `gradient`. Three matrices of one
// shape and dtype, of which the last overlaps neither of the others.
//
// Error: 0.51 ULP (f64: 3) plus 5e-13 (f64: 1e-24) of `scale p_j sum_i p_i |u_i|`, for rows of up
// to 2^24 elements.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_softmax_backward(const struct softmax_matrix *probs,
                                             const struct softmax_matrix *upstream,
                                             const struct softmax_matrix *gradient,
                                             const struct softmax_options *options);

// As `softmax_softmax_backward`, through a log-softmax, whose output is `log_probs`.
//
// Error: 3 ULP (f16, bf16: 0.51) of the largest of `scale |u_j|`, `scale p_j |sum_i u_i|` and the
// gradient, plus 5e-13 (f64: 1e-24) of `scale p_j sum_i |u_i|`.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_log_softmax_backward(const struct softmax_matrix *log_probs,
                                                 const struct softmax_matrix *upstream,
                                                 const struct softmax_matrix *gradient,
                                                 const struct softmax_options *options);

// Writes the state of rows that have seen no key.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_online_new(struct softmax_online_row *states, size_t count);

// The weights of a tile of scores (f32), for attention whose scores are never stored as a whole:
// docs/attention.md. `weights` is a matrix of f32, f16 or bf16 with the tile's shape, which is
// `scores` itself (in place) or does not overlap it. There is a state for each row of the tile,
// which the call changes, and a factor, which it writes: what the row has accumulated is to be
// multiplied by it, before the weights times the values are added. It is a power of two, mostly 1,
// and 0 if the row has seen nothing before the tile.
//
// All tiles of a row have the same options and the same `rows` and `keys`; lists and masks of
// `attention` are those of the whole. The calling thread does the work: `threads` and `parallel`
// of the options have no effect. With a scale below 0 the tile is copied to scratch memory; what
// is lent too little for that (4 bytes an element and 64 more are enough) the allocator provides.
//
// Error: a weight of f32 times the reciprocal that `softmax_online_finish` gives is within 4 ULP
// of the probability. Tiles in the order of keys give the same bits however they are cut.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_online_tile(const struct softmax_tile *tile,
                                        const struct softmax_matrix *scores,
                                        const struct softmax_matrix *weights,
                                        struct softmax_online_row *states,
                                        float *factors,
                                        const struct softmax_attention *attention,
                                        const struct softmax_options *options);

// The end of `count` rows, of which `first_row` of `tile` is the first (`first_key` has no
// meaning): the number by which what each row has accumulated is to be multiplied, one divided by
// the sum of its weights and its sink; and the log-sum-exp of its logits with its sink, unless
// `logsumexp` is null. The options are those of the tiles.
//
// A row without a key and a sink has the reciprocal NaN or, with `SOFTMAX_MASKED_ZERO`, 0, and the
// log-sum-exp -inf; a row that has nothing but a sink has the reciprocal 0. The states are not
// changed.
//
// Error: the reciprocal has one rounding; the log-sum-exp is within 2 ULP or 2e-7, whichever is
// larger (logits beyond 45,000 are rounded to f32 first).
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_online_finish(const struct softmax_tile *tile,
                                          const struct softmax_online_row *states,
                                          size_t count,
                                          float *reciprocals,
                                          float *logsumexp,
                                          const struct softmax_attention *attention,
                                          const struct softmax_options *options);

// Merges states of `count` rows: `states` becomes the state of what either has seen, where
// `others` have seen later keys of the same rows. What either has accumulated is to be multiplied
// by its factor, a power of two; then they are added.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_online_merge(struct softmax_online_row *states,
                                         const struct softmax_online_row *others,
                                         size_t count,
                                         float *factors,
                                         float *other_factors);

// The states of `count` rows as `SOFTMAX_ONLINE_NUMBERS` numbers for each, to be sent to other
// machines and merged there. They have the same bits on every machine; NaN may be any.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_online_to_array(const struct softmax_online_row *states,
                                            size_t count,
                                            double *numbers);

// The states of the numbers of `softmax_online_to_array`. Other numbers make states whose weights
// are not specified.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_online_from_array(const double *numbers,
                                              size_t count,
                                              struct softmax_online_row *states);

// Merges outputs of attention over different keys, from whatever library: `exp(logsumexps[i] -
// logsumexp) outputs[i]`, added, with `logsumexp` the log-sum-exp of all, which is written, too.
// `outputs` and `logsumexps` are lists of `parts` pointers: to matrices of f32 with the shape of
// `output`, and to one number for each row.
//
// A part whose log-sum-exp is -inf has seen no key, and its output is not read. Rows whose parts
// all are so become NaN or, with `SOFTMAX_MASKED_ZERO`, 0. Unlike `softmax_online_merge` this
// rounds: once, from double, and log-sum-exps have been rounded before. It allocates some 50 bytes
// for each part.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_merge_outputs(const struct softmax_matrix *const *outputs,
                                          const float *const *logsumexps,
                                          size_t parts,
                                          const struct softmax_matrix *output,
                                          float *logsumexp,
                                          const struct softmax_options *options);

// As `softmax_softmax`, with a factor for each row of `x` in place of the scale or temperature of
// the options: `factors` are `SOFTMAX_FACTORS_SCALES` or `SOFTMAX_FACTORS_TEMPERATURES`, as many
// as rows. Each row has the bits that it has alone with its factor. `mask` is as in
// `softmax_softmax_masked`, or null for none.
//
// `SOFTMAX_STATUS_VALUE` if a factor is out of range (with a mask 0 and infinity are, too);
// nothing is written then. What scratch memory is too small for (1 MiB and 17 rows of double a
// thread are enough) the allocator provides.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_softmax_per_row(const struct softmax_matrix *x,
                                            const struct softmax_matrix *y,
                                            const struct softmax_mask *mask,
                                            uint32_t kind,
                                            const double *factors,
                                            const struct softmax_options *options);

// As `softmax_softmax_per_row`, the logarithms.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_log_softmax_per_row(const struct softmax_matrix *x,
                                                const struct softmax_matrix *y,
                                                const struct softmax_mask *mask,
                                                uint32_t kind,
                                                const double *factors,
                                                const struct softmax_options *options);

// As `softmax_logsumexp`, with factors and a mask as in `softmax_softmax_per_row`. Temperatures 0
// and infinity are refused.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_logsumexp_per_row(const struct softmax_matrix *x,
                                              void *logsumexp,
                                              const struct softmax_mask *mask,
                                              uint32_t kind,
                                              const double *factors,
                                              const struct softmax_options *options);

// As `softmax_entropy`, with factors and a mask as in `softmax_logsumexp_per_row`.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_entropy_per_row(const struct softmax_matrix *x,
                                            void *entropy,
                                            const struct softmax_mask *mask,
                                            uint32_t kind,
                                            const double *factors,
                                            const struct softmax_options *options);

// The softmax of every row of `x`, into the same places of `y`, an array of as many elements of
// the same type, which is `x->data` itself (in place) or does not overlap it. Each row has the
// bits that it has alone by `softmax_softmax`. Many short rows are computed in groups. Scratch
// memory may have any size in all calls on ragged rows: what does not fit is allocated.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_softmax_ragged(const struct softmax_ragged *x,
                                           void *y,
                                           const struct softmax_options *options);

// As `softmax_softmax_ragged`, the logarithms: each row has the bits of `softmax_log_softmax`.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_log_softmax_ragged(const struct softmax_ragged *x,
                                               void *y,
                                               const struct softmax_options *options);

// As `softmax_softmax_ragged`, but 1 for the largest element of each row and 0 for the others:
// see `softmax_hardmax`.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_hardmax_ragged(const struct softmax_ragged *x,
                                           void *y,
                                           softmax_ties ties,
                                           const struct softmax_options *options);

// The log-sum-exp of every row of `x`, into `logsumexp`: one element of the dtype of `x` for each
// row, `-inf` for an empty one.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_logsumexp_ragged(const struct softmax_ragged *x,
                                             void *logsumexp,
                                             const struct softmax_options *options);

// The index, within its row, of the largest element of every row of `x`, into `indices`, one for
// each row: the first of equals, or the row's first NaN; `SIZE_MAX` for an empty row.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_argmax_ragged(const struct softmax_ragged *x,
                                          size_t *indices,
                                          const struct softmax_options *options);

// Cross-entropy of rows of different lengths against `labels`, one for each row, which are columns
// within their rows; otherwise as `softmax_cross_entropy_labels`. The gradient is at the same
// places of an array of as many elements, which is `logits->data` itself (in place) or does not
// overlap it. There are as many weights as elements in the longest row. An empty row must be
// ignored.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_cross_entropy_labels_ragged(const struct softmax_ragged *logits,
                                                        const int64_t *labels,
                                                        double *losses,
                                                        double *loss,
                                                        void *gradient,
                                                        const struct softmax_cross_entropy *cross_entropy,
                                                        const struct softmax_options *options);

// As `softmax_cross_entropy_labels_ragged`, against the probabilities `targets`, an array of as
// many elements of the same type as `logits->data`, at the same places.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_cross_entropy_probs_ragged(const struct softmax_ragged *logits,
                                                       const void *targets,
                                                       double *losses,
                                                       double *loss,
                                                       void *gradient,
                                                       const struct softmax_cross_entropy *cross_entropy,
                                                       const struct softmax_options *options);

// The gradient through a softmax of rows of different lengths, as `softmax_softmax_backward`, from
// its output `probs` and the gradient `upstream` with respect to that output, into `gradient`:
// arrays of as many elements of the same type, with the rows at the same places. The last overlaps
// neither of the others.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_softmax_backward_ragged(const struct softmax_ragged *probs,
                                                    const void *upstream,
                                                    void *gradient,
                                                    const struct softmax_options *options);

// As `softmax_softmax_backward_ragged`, through a log-softmax, whose output is `log_probs`.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_log_softmax_backward_ragged(const struct softmax_ragged *log_probs,
                                                        const void *upstream,
                                                        void *gradient,
                                                        const struct softmax_options *options);

// The experts of each token, whose logits are a row, one for each expert: `k` of them for a row,
// those with the largest scores, the largest first, and of equals the first; and their weights
// (float, or double for f64). The documentation of the crate's `Router` has the details, and the
// options that give the routers of well-known models.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_route(const struct softmax_matrix *logits,
                                  void *weights,
                                  uint32_t *experts,
                                  const struct softmax_router *router,
                                  const struct softmax_options *options);

// As `softmax_scratch_size`, for the experts of logits with the shape and dtype of this matrix,
// whose data is not used.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_route_scratch_size(const struct softmax_matrix *logits,
                                               const struct softmax_router *router,
                                               size_t *bytes,
                                               const struct softmax_options *options);

// The softmax of every row of `x`, into the rows of `y`: a matrix of the same shape and dtype,
// which is `x` itself (in place) or does not overlap it. At most 3 ULP of error in f32 and f64; in
// f16 at most 0.53 ULP of the type, and in bf16 0.51, with 0 for results below 2^-126.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_softmax(const struct softmax_matrix *x,
                                    const struct softmax_matrix *y,
                                    const struct softmax_options *options);

// As `softmax_softmax`, the logarithms: `scale * x_i - ln(sum_j exp(scale * x_j))`. At most 2 ULP
// or 1e-7 of error in f32, 3 ULP or 3e-16 in f64, whichever is larger; in f16 and bf16 at most
// 0.51 ULP of the type and 1e-7 on top.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_log_softmax(const struct softmax_matrix *x,
                                        const struct softmax_matrix *y,
                                        const struct softmax_options *options);

// As `softmax_softmax`, the sigmoid of every element: `1 / (1 + exp(-scale * x_i))`.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_sigmoid(const struct softmax_matrix *x,
                                    const struct softmax_matrix *y,
                                    const struct softmax_options *options);

// As `softmax_softmax`, the logarithm of the sigmoid of every element.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_log_sigmoid(const struct softmax_matrix *x,
                                        const struct softmax_matrix *y,
                                        const struct softmax_options *options);

// As `softmax_softmax`, but 1 for the largest element of each row and 0 for the others. Scale and
// temperature have no effect.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_hardmax(const struct softmax_matrix *x,
                                    const struct softmax_matrix *y,
                                    softmax_ties ties,
                                    const struct softmax_options *options);

// The log-sum-exp of every row of `x`, into `logsumexp`: one element of the dtype of `x` for each
// row.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_logsumexp(const struct softmax_matrix *x,
                                      void *logsumexp,
                                      const struct softmax_options *options);

// The index of the largest element of every row of `x`, into `indices`, one for each row: the
// first of equals, or the row's first NaN.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_argmax(const struct softmax_matrix *x,
                                   size_t *indices,
                                   const struct softmax_options *options);

// The log-probabilities of some elements of each row, `tokens_per_row` of them: those of row `i`
// have the numbers `tokens[i * tokens_per_row + j]`, and their log-probabilities are written to
// the same places of `log_probs`; the log-sum-exp of each row to `logsumexp`, unless it is null.
// Both are float, or double for f64. With a scale below 0 rows are copied; what scratch memory is
// too small for (1 MiB and 17 rows a thread are enough) the allocator provides.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_log_probs(const struct softmax_matrix *x,
                                      const size_t *tokens,
                                      size_t tokens_per_row,
                                      void *log_probs,
                                      void *logsumexp,
                                      const struct softmax_options *options);

// As `softmax_log_probs`, with a mask that only hides: of bits, bools, or numbers that are 0 or
// -inf. Hidden elements count as -inf. Rows are copied, as with a scale below 0.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_log_probs_masked(const struct softmax_matrix *x,
                                             const size_t *tokens,
                                             size_t tokens_per_row,
                                             void *log_probs,
                                             void *logsumexp,
                                             const struct softmax_mask *mask,
                                             const struct softmax_options *options);

// The `k` largest elements of each row, the largest first and the first of equals first: their
// log-probabilities and their probabilities in the whole row (float, or double for f64), unless
// these are null, and their indices; `k` of each for a row. (If log-probabilities are not wanted,
// they go to scratch memory: see `softmax_top_k_scratch_size`.)
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_top_k(const struct softmax_matrix *x,
                                  size_t k,
                                  void *log_probs,
                                  void *probs,
                                  size_t *indices,
                                  const struct softmax_options *options);

// As `softmax_top_k`, with a mask that only hides: of bits, bools, or numbers that are 0 or -inf.
// Hidden elements count as -inf; where fewer than `k` are seen, they follow in the order of the
// row, with probability 0. Rows are copied: 1 MiB and 17 rows a thread are enough beside what
// `softmax_top_k_scratch_size` says; what scratch memory is too small for the allocator provides.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_top_k_masked(const struct softmax_matrix *x,
                                         size_t k,
                                         void *log_probs,
                                         void *probs,
                                         size_t *indices,
                                         const struct softmax_mask *mask,
                                         const struct softmax_options *options);

// The perplexity of a text from the log-probabilities of its tokens: `exp(-mean)`. NaN if there
// are none.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_perplexity(const void *log_probs,
                                       softmax_dtype dtype,
                                       size_t len,
                                       double *perplexity);

// Frees the memory that this thread, and those of the library's pool, keep for their next calls:
// as much as the largest call so far needed. Other threads free theirs when they end, or when they
// call this.
void softmax_release_scratch(void);

// How a call of an operation is computed for a matrix with the shape and dtype of `x` (its data is
// not used), in place (not 0) or not.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_plan_of(softmax_op op,
                                    const struct softmax_matrix *x,
                                    int32_t in_place,
                                    struct softmax_plan *plan,
                                    const struct softmax_options *options);

// Bytes of scratch memory that a call of an operation needs for a matrix with the shape and dtype
// of `x` (its data is not used), with these options, in place or not.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_scratch_size(softmax_op op,
                                         const struct softmax_matrix *x,
                                         size_t *bytes,
                                         const struct softmax_options *options);

// Draws `draws_per_row` tokens from every row of `logits`, into `draws`: those of a row follow
// each other. `SOFTMAX_NO_TOKEN` is written where there is nothing to draw, because the row has
// NaN or +inf, or nothing but -inf.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_sample(const struct softmax_matrix *logits,
                                   size_t *draws,
                                   size_t draws_per_row,
                                   const struct softmax_sampler *sampler,
                                   const struct softmax_options *options);

// The tokens of each row that filters leave, and their probabilities, most likely first and
// equally likely ones by rising index: of row `i` the first `counts[i]` of the `room` places of
// `tokens` and `probs` (float, or double for f64) from `i * room` on. What follows stays as it is.
// `counts` has one place for each row.
//
// What is left are the tokens that `softmax_sample` may draw. The probabilities add up to 1: they
// are those of `softmax_softmax` for a row of the logits of these tokens alone, with its bits and
// its bound. No random number is used. Rows where there is nothing to draw have no tokens.
//
// Returns `SOFTMAX_STATUS_ROOM` if a row has more tokens than `room`: all counts are written then,
// and the rows that fit.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_kept_probs(const struct softmax_matrix *logits,
                                       size_t *tokens,
                                       void *probs,
                                       size_t *counts,
                                       size_t room,
                                       const struct softmax_sampler *sampler,
                                       const struct softmax_options *options);

// As `softmax_kept_probs`, with the logarithms of the probabilities, which are those of
// `softmax_log_softmax`.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_kept_log_probs(const struct softmax_matrix *logits,
                                           size_t *tokens,
                                           void *log_probs,
                                           size_t *counts,
                                           size_t room,
                                           const struct softmax_sampler *sampler,
                                           const struct softmax_options *options);

// The probabilities of `softmax_kept_probs`, the same bits, in whole rows of `probs`, a matrix of
// the shape of the logits and of f32, or f64 for f64, which does not overlap them: 0 for tokens
// that are not left. Rows where there is nothing to draw become NaN.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_filtered_probs(const struct softmax_matrix *logits,
                                           const struct softmax_matrix *probs,
                                           const struct softmax_sampler *sampler,
                                           const struct softmax_options *options);

// As `softmax_filtered_probs`, with the logarithms of the probabilities: -inf for tokens that are
// not left.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_filtered_log_probs(const struct softmax_matrix *logits,
                                               const struct softmax_matrix *log_probs,
                                               const struct softmax_sampler *sampler,
                                               const struct softmax_options *options);

// As `softmax_scratch_size`, for draws from logits with the shape and dtype of this matrix, whose
// data is not used, nor are lists of rows, and for the tokens that filters leave of them.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_sample_scratch_size(const struct softmax_matrix *logits,
                                                const struct softmax_sampler *sampler,
                                                size_t *bytes,
                                                const struct softmax_options *options);

// Verifies drafted tokens (speculative decoding): accepts each with probability min(1, p / q) and
// draws one more token for each sequence, from the residual max(p - q, 0) in place of the first
// that is not accepted, or from the last row of `target` if all are. docs/sampling.md defines it.
//
// Sequence `i` has the tokens from `drafted[offsets[i]]` to the one before
// `drafted[offsets[i + 1]]`, which may be none; there are `sequences + 1` offsets, which never
// fall. `target` has a row for each drafted token and one more for each sequence, those of the
// first sequence first; `draft` has a row for each drafted token, and the dtype and columns of
// `target`, or is null, if each drafted token had probability 1.
//
// `tokens` has a place for each row of `target`: of each sequence the accepted tokens, whose
// number is in `accepted[i]`, one more, and `SOFTMAX_NO_TOKEN` in what is left. That is also in
// place of a token that cannot be drawn, because a row of the target or the draft has NaN or +inf,
// or nothing but -inf, or numbers that are not probabilities. `accepted` has one place for each
// sequence.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_verify(const struct softmax_matrix *target,
                                   const struct softmax_matrix *draft,
                                   const size_t *drafted,
                                   const size_t *offsets,
                                   size_t sequences,
                                   size_t *tokens,
                                   size_t *accepted,
                                   const struct softmax_speculative *speculative,
                                   const struct softmax_options *options);

// As `softmax_scratch_size`, for verification with a target of the shape and dtype of this matrix,
// whose data is not used, nor are the arrays of `speculative`.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_verify_scratch_size(const struct softmax_matrix *target,
                                                const struct softmax_speculative *speculative,
                                                size_t *bytes,
                                                const struct softmax_options *options);

// The meaning of a status, in a few English words; never null, and valid as long as the library is
// loaded. Other numbers have a text, too. (For what was wrong with a call, see
// `softmax_options.message`.)
const char *softmax_status_message(int32_t status);

// The softmax along an axis (negative ones count from the end) of a tensor of `dims` dimensions in
// C order, without gaps, from `x` to `y`, which is `x` itself (in place) or does not overlap it.
// The bits are those of the same axis as the last one.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_softmax_axis(const void *x,
                                         void *y,
                                         softmax_dtype dtype,
                                         const size_t *shape,
                                         size_t dims,
                                         ptrdiff_t axis,
                                         const struct softmax_options *options);

// As `softmax_softmax_axis`, for log-softmax.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_log_softmax_axis(const void *x,
                                             void *y,
                                             softmax_dtype dtype,
                                             const size_t *shape,
                                             size_t dims,
                                             ptrdiff_t axis,
                                             const struct softmax_options *options);

// As `softmax_scratch_size`, for calls along an axis.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_axis_scratch_size(softmax_dtype dtype,
                                              const size_t *shape,
                                              size_t dims,
                                              ptrdiff_t axis,
                                              size_t *bytes,
                                              const struct softmax_options *options);

// Number of partials of a shard of `len` elements: one for each block of `SOFTMAX_BLOCK` elements,
// and one for the last few.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_partial_count(size_t len, size_t *count);

// The partials of a shard of a row: `x` has `len` elements and starts at a multiple of
// `SOFTMAX_BLOCK` in its row; `count` must be the number that `softmax_partial_count` gives.
// `row_max` is null, or the row's largest element, if `softmax_merge` has asked for that. With a
// scale below 0 a block is negated in scratch memory, or in what the allocator provides if that
// has less than 32 KiB and 64 bytes; and the largest elements are those of the negated row.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_partials(const void *x,
                                     softmax_dtype dtype,
                                     size_t len,
                                     const double *row_max,
                                     struct softmax_partial *partials,
                                     size_t count,
                                     const struct softmax_options *options);

// Merges the partials of all blocks of a row of this dtype, in their order, into `row`: the
// partial of the whole row, with which its shards are finished. (Do not merge some blocks first
// and the results later: sums are in the order of the blocks.)
//
// Returns `SOFTMAX_STATUS_AGAIN`, and the row's largest element in `row_max`, if the partials have
// to be computed again, by that element; then merging succeeds.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_merge(const struct softmax_partial *partials,
                                  size_t count,
                                  struct softmax_partial *row,
                                  double *row_max,
                                  softmax_dtype dtype,
                                  const struct softmax_options *options);

// The probabilities of a shard of a merged row, from `x` to `y`, which is `x` itself or does not
// overlap it. The bits are those of the whole row in one call. The options must be those that the
// row was merged with.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_shard_softmax(const struct softmax_partial *row,
                                          const void *x,
                                          void *y,
                                          softmax_dtype dtype,
                                          size_t len,
                                          const struct softmax_options *options);

// As `softmax_shard_softmax`, the log-probabilities.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_shard_log_softmax(const struct softmax_partial *row,
                                              const void *x,
                                              void *y,
                                              softmax_dtype dtype,
                                              size_t len,
                                              const struct softmax_options *options);

// The log-sum-exp of a merged row: one element of the dtype, which is the row's.
//
// # Safety
// As the head of this file says.
enum softmax_status softmax_shard_logsumexp(const struct softmax_partial *row,
                                            void *logsumexp,
                                            softmax_dtype dtype,
                                            const struct softmax_options *options);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#include <string.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A matrix to read or write, without padding. */
static inline softmax_matrix softmax_matrix_mut(void *data, softmax_dtype dtype, size_t rows,
                                                size_t cols) {
    softmax_matrix matrix;
    memset(&matrix, 0, sizeof matrix);
    matrix.size = sizeof matrix;
    matrix.data = data;
    matrix.dtype = dtype;
    matrix.rows = rows;
    matrix.cols = cols;
    matrix.stride = cols;
    return matrix;
}

/* A matrix to read, without padding. */
static inline softmax_matrix softmax_matrix_of(const void *data, softmax_dtype dtype, size_t rows,
                                               size_t cols) {
    softmax_matrix matrix = softmax_matrix_mut(NULL, dtype, rows, cols);
    memcpy(&matrix.data, &data, sizeof data);
    return matrix;
}

/* Rows of different lengths to read or write, with offsets of int32_t. */
static inline softmax_ragged softmax_ragged_mut(void *data, size_t elements, softmax_dtype dtype,
                                                const int32_t *offsets, size_t rows) {
    softmax_ragged ragged;
    memset(&ragged, 0, sizeof ragged);
    ragged.size = sizeof ragged;
    ragged.data = data;
    ragged.elements = elements;
    ragged.dtype = dtype;
    ragged.index_type = SOFTMAX_I32;
    ragged.rows = rows;
    ragged.offsets = offsets;
    return ragged;
}

/* Rows of different lengths to read, with offsets of int32_t. */
static inline softmax_ragged softmax_ragged_of(const void *data, size_t elements,
                                               softmax_dtype dtype, const int32_t *offsets,
                                               size_t rows) {
    softmax_ragged ragged = softmax_ragged_mut(NULL, elements, dtype, offsets, rows);
    memcpy(&ragged.data, &data, sizeof data);
    return ragged;
}

/* The options of a call with a null pointer. */
static inline softmax_options softmax_options_default(void) {
    softmax_options options;
    memset(&options, 0, sizeof options);
    options.size = sizeof options;
    options.scale = 1.0;
    options.temperature = 1.0;
    return options;
}

/* The caller's own threads. */
static inline softmax_parallel softmax_parallel_of(
    void *context, size_t threads,
    void (*parallel_for)(void *context, size_t count, void (*body)(void *argument, size_t index),
                         void *argument)) {
    softmax_parallel parallel;
    memset(&parallel, 0, sizeof parallel);
    parallel.size = sizeof parallel;
    parallel.context = context;
    parallel.threads = threads;
    parallel.parallel_for = parallel_for;
    return parallel;
}

/* The plain softmax of scores of so many heads, and queries for each. */
static inline softmax_attention softmax_attention_default(size_t heads, size_t queries) {
    softmax_attention attention;
    memset(&attention, 0, sizeof attention);
    attention.size = sizeof attention;
    attention.heads = heads;
    attention.queries = queries;
    return attention;
}

/* The tile of the first row and key of a matrix of scores with so many rows and keys. */
static inline softmax_tile softmax_tile_of(size_t rows, size_t keys) {
    softmax_tile tile;
    memset(&tile, 0, sizeof tile);
    tile.size = sizeof tile;
    tile.rows = rows;
    tile.keys = keys;
    return tile;
}

/* The mean loss, no smoothing, no weights, label -100 ignored. */
static inline softmax_cross_entropy softmax_cross_entropy_default(void) {
    softmax_cross_entropy cross_entropy;
    memset(&cross_entropy, 0, sizeof cross_entropy);
    cross_entropy.size = sizeof cross_entropy;
    cross_entropy.ignore_index = -100;
    cross_entropy.gradient_factor = 1.0;
    return cross_entropy;
}

/* Draws from the plain distribution. */
static inline softmax_sampler softmax_sampler_default(uint64_t seed) {
    softmax_sampler sampler;
    memset(&sampler, 0, sizeof sampler);
    sampler.size = sizeof sampler;
    sampler.seed = seed;
    sampler.temperature = 1.0;
    sampler.top_p = 1.0;
    sampler.typical_p = 1.0;
    sampler.repetition_penalty = 1.0;
    return sampler;
}

/* Logits of the target and the draft, at temperature 1. */
static inline softmax_speculative softmax_speculative_default(uint64_t seed) {
    softmax_speculative speculative;
    memset(&speculative, 0, sizeof speculative);
    speculative.size = sizeof speculative;
    speculative.seed = seed;
    speculative.temperature = 1.0;
    return speculative;
}

/* The k largest of the softmax, with their probabilities as weights. */
static inline softmax_router softmax_router_default(size_t k) {
    softmax_router router;
    memset(&router, 0, sizeof router);
    router.size = sizeof router;
    router.k = k;
    router.scaling_factor = 1.0;
    return router;
}

/* A plan to be filled by softmax_plan_of. */
static inline softmax_plan softmax_plan_empty(void) {
    softmax_plan plan;
    memset(&plan, 0, sizeof plan);
    plan.size = sizeof plan;
    return plan;
}

#ifdef __cplusplus
}
#endif

#endif /* SOFTMAX_H */
