/* What the C tests share: GOOD and BAD calls, memory that is watched, elements of all dtypes,
 * references in long double. */
#ifndef CHECK_H
#define CHECK_H

#ifndef _POSIX_C_SOURCE
#define _POSIX_C_SOURCE 200809L
#endif

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "softmax.h"

static int failures = 0;

/* The failures of a test are all told, up to a limit. */
static inline void fail(const char *file, int line, const char *what) {
    fprintf(stderr, "%s:%d: %s\n", file, line, what);
    if (++failures >= 50) {
        fprintf(stderr, "and so on\n");
        exit(1);
    }
}

#define CHECK(condition)                        \
    do {                                        \
        if (!(condition)) {                     \
            fail(__FILE__, __LINE__, #condition); \
        }                                       \
    } while (0)

/* To be returned by main. */
static inline int checked(void) {
    return failures != 0;
}

/* Fewer cases, for those who emulate the CPU. */
static inline int quick(void) {
    return getenv("SOFTMAX_TEST_QUICK") != NULL;
}

/* Memory that no bad call may change. */
typedef struct {
    const unsigned char *place;
    unsigned char *copy;
    size_t bytes;
} watched;

static watched watched_places[64];
static size_t watched_count = 0;

static inline void watch(const void *place, size_t bytes) {
    if (watched_count == sizeof watched_places / sizeof *watched_places) {
        fail(__FILE__, __LINE__, "no room to watch more memory");
        return;
    }
    watched *w = &watched_places[watched_count++];
    w->place = (const unsigned char *)place;
    w->copy = (unsigned char *)malloc(bytes);
    w->bytes = bytes;
}

/* Forgets what is watched. */
static inline void unwatch(void) {
    while (watched_count > 0) {
        free(watched_places[--watched_count].copy);
    }
}

static inline void before_bad_call(void) {
    for (size_t i = 0; i < watched_count; i++) {
        memcpy(watched_places[i].copy, watched_places[i].place, watched_places[i].bytes);
    }
}

static inline void after_bad_call(const char *file, int line, const char *call) {
    for (size_t i = 0; i < watched_count; i++) {
        if (memcmp(watched_places[i].copy, watched_places[i].place, watched_places[i].bytes) != 0) {
            fail(file, line, call);
            fprintf(stderr, "    has written to watched memory number %d\n", (int)i);
        }
    }
}

static inline void expect(const char *file, int line, const char *call, softmax_status wanted,
                          softmax_status got) {
    if (got != wanted) {
        fail(file, line, call);
        fprintf(stderr, "    returned %d (%s) instead of %d\n", (int)got,
                softmax_status_message((int32_t)got), (int)wanted);
    }
}

/* Calls that must succeed, and calls that must return a status and write nothing to watched memory.
 * tests/c.rs looks for both of every function. */
#define GOOD(call) expect(__FILE__, __LINE__, #call, SOFTMAX_STATUS_OK, (call))
#define BAD(status, call)                                                 \
    do {                                                                  \
        before_bad_call();                                                \
        expect(__FILE__, __LINE__, #call, SOFTMAX_STATUS_##status, (call)); \
        after_bad_call(__FILE__, __LINE__, #call);                        \
    } while (0)

/* The message of the last bad call has this text. */
#define SAYS(message, text)                              \
    do {                                                 \
        if (strstr(message, text) == NULL) {             \
            fail(__FILE__, __LINE__, "message without " text); \
            fprintf(stderr, "    it is: %s\n", message); \
        }                                                \
    } while (0)

/* Options whose messages go to a place. */
static inline softmax_options told(char *message, size_t size) {
    softmax_options options = softmax_options_default();
    options.message = message;
    options.message_size = size;
    return options;
}

static inline void *memory(size_t bytes) {
    void *place = malloc(bytes > 0 ? bytes : 1);
    if (place == NULL) {
        fprintf(stderr, "no memory for the test\n");
        exit(1);
    }
    memset(place, 0xA5, bytes);
    return place;
}

/* Elements of all dtypes but bool. */
static const softmax_dtype dtypes[] = {SOFTMAX_F32, SOFTMAX_F64, SOFTMAX_F16, SOFTMAX_BF16};
enum { DTYPES = 4 };

static inline size_t size_of(softmax_dtype dtype) {
    return dtype == SOFTMAX_F64 ? 8 : dtype == SOFTMAX_F32 ? 4 : 2;
}

/* The dtype of what is computed from elements of this one. */
static inline softmax_dtype computed(softmax_dtype dtype) {
    return dtype == SOFTMAX_F64 ? SOFTMAX_F64 : SOFTMAX_F32;
}

static inline double get(softmax_dtype dtype, const void *elements, size_t i) {
    const unsigned char *place = (const unsigned char *)elements + i * size_of(dtype);
    if (dtype == SOFTMAX_F64) {
        double value;
        memcpy(&value, place, sizeof value);
        return value;
    }
    if (dtype == SOFTMAX_F32) {
        float value;
        memcpy(&value, place, sizeof value);
        return value;
    }
    uint16_t bits;
    memcpy(&bits, place, sizeof bits);
    int mantissa_bits = dtype == SOFTMAX_F16 ? 10 : 7;
    int bias = dtype == SOFTMAX_F16 ? 15 : 127;
    int largest = dtype == SOFTMAX_F16 ? 31 : 255;
    int exponent = (bits >> mantissa_bits) & largest;
    int mantissa = bits & ((1 << mantissa_bits) - 1);
    double value;
    if (exponent == largest) {
        value = mantissa != 0 ? NAN : INFINITY;
    } else if (exponent == 0) {
        value = ldexp(mantissa, 1 - bias - mantissa_bits);
    } else {
        value = ldexp(mantissa + (1 << mantissa_bits), exponent - bias - mantissa_bits);
    }
    return (bits & 0x8000) != 0 ? -value : value;
}

/* Writes a value that the dtype has exactly: zero, normal, infinite or NaN. */
static inline void put(softmax_dtype dtype, void *elements, size_t i, double value) {
    unsigned char *place = (unsigned char *)elements + i * size_of(dtype);
    if (dtype == SOFTMAX_F64) {
        memcpy(place, &value, sizeof value);
        return;
    }
    if (dtype == SOFTMAX_F32) {
        float narrow = (float)value;
        memcpy(place, &narrow, sizeof narrow);
        return;
    }
    int mantissa_bits = dtype == SOFTMAX_F16 ? 10 : 7;
    int bias = dtype == SOFTMAX_F16 ? 15 : 127;
    int largest = dtype == SOFTMAX_F16 ? 31 : 255;
    int exponent = 0;
    int bits;
    if (value != value) {
        bits = (largest << mantissa_bits) | 1;
    } else if (fabs(value) > DBL_MAX) {
        bits = largest << mantissa_bits;
    } else if (value == 0.0) {
        bits = 0;
    } else {
        double fraction = frexp(fabs(value), &exponent);
        int mantissa = (int)ldexp(fraction, mantissa_bits + 1) - (1 << mantissa_bits);
        bits = ((exponent - 1 + bias) << mantissa_bits) | mantissa;
    }
    uint16_t stored = (uint16_t)(bits | (value < 0.0 ? 0x8000 : 0));
    memcpy(place, &stored, sizeof stored);
}

/* The distance of neighbours at this value. */
static inline long double ulp(softmax_dtype dtype, long double value) {
    int digits = dtype == SOFTMAX_F64 ? 52 : dtype == SOFTMAX_F32 ? 23 : dtype == SOFTMAX_F16 ? 10 : 7;
    int least = dtype == SOFTMAX_F64 ? -1022 : dtype == SOFTMAX_F16 ? -14 : -126;
    int exponent = least;
    if (value != 0.0L) {
        (void)frexpl(value, &exponent);
        exponent -= 1;
    }
    return ldexpl(1.0L, (exponent < least ? least : exponent) - digits);
}

/* Whether long double is no better than double: under valgrind, which computes it so, and on some
 * machines. */
static inline int references_are_coarse(void) {
    volatile long double one = 1.0L;
    volatile long double more = one + DBL_EPSILON / 4.0L;
    return more == one;
}

/* Whether it is that, within so many ULP or so much. */
static inline int near(softmax_dtype dtype, double got, long double wanted, double ulps,
                       double slack) {
    if (dtype == SOFTMAX_F64 && references_are_coarse()) {
        ulps += 1000.0;
        slack += 1e-13;
    }
    if (got == (double)wanted || (got != got && wanted != wanted)) {
        return 1;
    }
    long double off = fabsl((long double)got - wanted);
    return off <= ulps * ulp(dtype, wanted) || off <= slack;
}

/* Numbers that are the same in every run. */
static inline uint32_t next_random(uint32_t *state) {
    *state = *state * 1664525u + 1013904223u;
    return *state >> 8;
}

/* Multiples of 1/16 within -8 to 8, which every dtype has. */
static inline void fill_random(softmax_dtype dtype, void *elements, size_t n, uint32_t seed) {
    uint32_t state = seed;
    for (size_t i = 0; i < n; i++) {
        put(dtype, elements, i, ((int)(next_random(&state) % 255) - 127) / 16.0);
    }
}

/* The same struct with more bytes at its end, of which the last one is `tail`: what a program that
 * knows a later version hands over. */
static inline void *longer(const void *object, size_t size, unsigned char tail) {
    size_t more = size + 24;
    unsigned char *bytes = (unsigned char *)memory(more);
    memset(bytes, 0, more);
    memcpy(bytes, object, size);
    memcpy(bytes, &more, sizeof more);
    bytes[more - 1] = tail;
    return bytes;
}

/* Calls with every wrong size that a struct may have, with one that it may have in a later version,
 * and with a pointer that is not aligned. `call` uses `pointer`. */
#define STRUCT_SIZES(type, object, pointer, call)                                     \
    do {                                                                              \
        const size_t wrong[] = {0, 1, sizeof(type) - 8, sizeof(type) - 1, 4097, SIZE_MAX}; \
        type changed = object;                                                        \
        const type *pointer = &changed;                                               \
        for (size_t i_ = 0; i_ < sizeof wrong / sizeof *wrong; i_++) {                \
            changed.size = wrong[i_];                                                 \
            BAD(STRUCT_SIZE, call);                                                   \
        }                                                                             \
        unsigned char *later = (unsigned char *)longer(&object, sizeof(type), 1);     \
        pointer = (const type *)(const void *)later;                                  \
        BAD(STRUCT_SIZE, call);                                                       \
        later[sizeof(type) + 23] = 0;                                                 \
        GOOD(call);                                                                   \
        memmove(later + 1, &object, sizeof(type));                                    \
        pointer = (const type *)(const void *)(later + 1);                            \
        BAD(ALIGNMENT, call);                                                         \
        free(later);                                                                  \
    } while (0)

#endif
