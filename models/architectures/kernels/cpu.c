/* The decode step of the native engine on a CPU: what stands between two matrix products, in one pass over memory.
 *
 * Compiled by the machine's own C compiler on first use (see cpu.py) and tested against the plain torch code, which
 * runs where there is none. Everything is computed in float32; caches and activations are float32 or bfloat16. The
 * OpenMP runtime is the one that torch has loaded, so that both share their threads.
 *
 * Notation as in the Python modules: rows b, heads H, head dimension P or D, state size N, K taps.
 */

#include <stdint.h>
#include <string.h>

typedef int64_t i64;
typedef uint16_t bf16;

static inline float from_bits(uint32_t bits) {
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

static inline uint32_t to_bits(float value) {
    uint32_t bits;
    memcpy(&bits, &value, 4);
    return bits;
}

static inline float load_f32(float value) { return value; }
static inline float load_bf16(bf16 value) { return from_bits((uint32_t)value << 16); }
static inline float store_f32(float value) { return value; }

/* Round to nearest, ties to even; a NaN stays one. */
static inline bf16 store_bf16(float value) {
    uint32_t bits = to_bits(value);
    uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    return value != value ? 0x7fc0 : (bf16)rounded;
}

/* exp to about 2 units in the last place: 2^n times a polynomial on [-ln 2 / 2, ln 2 / 2]; 0 below the least normal. */
static inline float exp_f32(float x) {
    float clipped = x < -87.3f ? -87.3f : (x > 88.7f ? 88.7f : x);
    float n = __builtin_floorf(clipped * 1.44269504f + 0.5f);
    float r = (clipped - n * 0.693359375f) + n * 2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * r * r + r + 1.0f;
    float y = p * from_bits((uint32_t)((int32_t)n + 127) << 23);
    return x < -87.3f ? 0.0f : y;
}

static inline float sigmoid(float x) { return 1.0f / (1.0f + exp_f32(-x)); }

/* Eight floats side by side, in whatever registers the processor has for them. */
typedef float lanes __attribute__((vector_size(32), aligned(4)));

static inline lanes splat(float value) { return (lanes){value, value, value, value, value, value, value, value}; }

/* The eight sums over the lanes of eight vectors, by three rounds of adding neighbours. */
static inline lanes sum_each(const lanes *p)
{
    lanes pairs[4], fours[2];
    for (int i = 0; i < 4; i++)
        pairs[i] = __builtin_shufflevector(p[2 * i], p[2 * i + 1], 0, 8, 2, 10, 4, 12, 6, 14)
                 + __builtin_shufflevector(p[2 * i], p[2 * i + 1], 1, 9, 3, 11, 5, 13, 7, 15);
    for (int i = 0; i < 2; i++)
        fours[i] = __builtin_shufflevector(pairs[2 * i], pairs[2 * i + 1], 0, 1, 8, 9, 4, 5, 12, 13)
                 + __builtin_shufflevector(pairs[2 * i], pairs[2 * i + 1], 2, 3, 10, 11, 6, 7, 14, 15);
    return __builtin_shufflevector(fours[0], fours[1], 0, 1, 2, 3, 8, 9, 10, 11)
         + __builtin_shufflevector(fours[0], fours[1], 4, 5, 6, 7, 12, 13, 14, 15);
}

/* Sixteen channels as two vectors. Those of bfloat16 come out as the even ones and the odd ones, because that takes one
 * instruction each; `place` says where in the two a channel is. */
static inline void load16_f32(const float *source, lanes *low, lanes *high)
{
    *low = *(const lanes *)source;
    *high = *(const lanes *)(source + 8);
}

static inline void load16_bf16(const bf16 *source, lanes *low, lanes *high)
{
    typedef uint32_t words __attribute__((vector_size(32)));
    words pairs;
    memcpy(&pairs, source, 32);
    *low = (lanes)(pairs << 16);
    *high = (lanes)(pairs & 0xffff0000u);
}

static inline int place_f32(int channel) { return channel; }
static inline int place_bf16(int channel) { return (channel & ~15) + (channel & 1) * 8 + (channel & 15) / 2; }

/* Ask for memory before it is needed; asking past the end of a buffer does no harm. */
static inline void fetch(const void *start, i64 bytes)
{
    for (i64 i = 0; i < bytes; i += 64) __builtin_prefetch((const char *)start + i, 0, 2);
}

#define BLOCK 64
#define MAX_GROUP 4
#define MAX_WIDTH 256
/* Work below which waking the other threads costs more than it saves. */
#define SMALL 16384

#define T float
#define NAME(function) function##_f32
#define LOAD load_f32
#define LOAD16 load16_f32
#define PLACE place_f32
#define STORE store_f32
#include "cpu_kernels.h"
#undef T
#undef NAME
#undef LOAD
#undef LOAD16
#undef PLACE
#undef STORE

#define T bf16
#define NAME(function) function##_bf16
#define LOAD load_bf16
#define LOAD16 load16_bf16
#define PLACE place_bf16
#define STORE store_bf16
#include "cpu_kernels.h"
