// CUDA as far as the kernels need it, for a host's C++ compiler: a launch is a plain loop over its threads, or where a
// block's threads share memory, one that goes on with another thread whenever one waits.
#include <cstdint>
#include <cstring>
#include <functional>
#include <type_traits>
#include <utility>

#define __global__ static
#define __device__
#define __forceinline__ inline
#define __launch_bounds__(...)

struct Index { unsigned x, y, z; };
static Index gridDim, blockIdx, blockDim, threadIdx;

#include "cuda_blocks_on_host.h"

static inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned)((uint64_t)a * b >> 32); }
static inline float __uint_as_float(unsigned bits) { float x; std::memcpy(&x, &bits, 4); return x; }
static inline unsigned __float_as_uint(float x) { unsigned bits; std::memcpy(&bits, &x, 4); return bits; }

// float16, IEEE 754 binary16; to the nearest, ties to even.
static inline float from_float16_bits(unsigned short bits) {
    unsigned exponent = bits >> 10 & 31, fraction = bits & 1023, sign = (unsigned)(bits >> 15) << 31;
    if (exponent == 31) return __uint_as_float(sign | 0x7f800000 | fraction << 13);
    float size = exponent ? __uint_as_float((exponent + 112) << 23 | fraction << 13) : fraction * 0x1p-24f;
    return sign ? -size : size;
}

static inline unsigned short to_float16_bits(float x) {
    unsigned bits = __float_as_uint(x), sign = bits >> 16 & 0x8000, size = bits & 0x7fffffff;
    if (size > 0x7f800000) return (unsigned short)(sign | 0x7e00);
    if (size >= 0x477ff000) return (unsigned short)(sign | 0x7c00);  // from half way to 65536 on
    if (size < 0x38800000) {  // below the smallest normal number: add so that the sum's last place is 2^-24
        return (unsigned short)(sign | (__float_as_uint(__uint_as_float(size) + 0.5f) - 0x3f000000));
    }
    return (unsigned short)(sign | ((size - 0x38000000 + 0xfff + (size >> 13 & 1)) >> 13));
}

// float32 with 10 bits of fraction; to the nearest, ties away from zero.
static inline unsigned rounded_to_tf32(unsigned bits) {
    return (bits & 0x7fffffff) > 0x7f800000 ? bits : (bits + 0x1000) & ~0x1fffu;
}

template <typename... P, std::size_t... I>
static void launch(void (*kernel)(P...), Index grid, unsigned threads, unsigned shared, void **arguments,
                   std::index_sequence<I...>) {
    auto call = [&] { kernel(*static_cast<std::remove_const_t<P> *>(arguments[I])...); };
    blockDim.x = threads;
    gridDim = grid;
    for (blockIdx.z = 0; blockIdx.z < grid.z; blockIdx.z++) {
        for (blockIdx.y = 0; blockIdx.y < grid.y; blockIdx.y++) {
            for (blockIdx.x = 0; blockIdx.x < grid.x; blockIdx.x++) {
                if (shared) {
                    run_together(call, threads, shared);
                    continue;
                }
                for (threadIdx.x = 0; threadIdx.x < threads; threadIdx.x++) call();
            }
        }
    }
}

template <typename... P>
static void launch(void (*kernel)(P...), Index grid, unsigned threads, unsigned shared, void **arguments) {
    launch(kernel, grid, threads, shared, arguments, std::index_sequence_for<P...>());
}
