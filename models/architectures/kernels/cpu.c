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

#define BLOCK 64
#define MAX_GROUP 16
#define MAX_WIDTH 256
/* Work below which waking the other threads costs more than it saves. */
#define SMALL 16384

#define T float
#define NAME(function) function##_f32
#define LOAD load_f32
#define STORE store_f32
#include "cpu_kernels.h"
#undef T
#undef NAME
#undef LOAD
#undef STORE

#define T bf16
#define NAME(function) function##_bf16
#define LOAD load_bf16
#define STORE store_bf16
#include "cpu_kernels.h"
