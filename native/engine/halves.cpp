#include "halves.hpp"

#include <cstring>

#include "ggml.h"

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#    include <immintrin.h>
#    define OLM_F16C 1
// The attribute gives one function these instructions and no template that the rest of the library shares.
#    define OLM_TARGET __attribute__((target("avx2,f16c")))
#endif

namespace olm {

namespace {

#ifdef OLM_F16C

const bool HAS_F16C = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("f16c");

OLM_TARGET int64_t wide_f16_to_f32(const uint16_t * from, float * to, int64_t n) {
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i *>(from + i));
        _mm256_storeu_ps(to + i, _mm256_cvtph_ps(halves));
    }
    return i;
}

OLM_TARGET int64_t wide_bf16_to_f32(const uint16_t * from, float * to, int64_t n) {
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i *>(from + i));
        const __m256i bits   = _mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16);
        _mm256_storeu_si256(reinterpret_cast<__m256i *>(to + i), bits);
    }
    return i;
}

OLM_TARGET int64_t wide_f32_to_f16(const float * from, uint16_t * to, int64_t n) {
    int64_t i = 0;
    for (; i + 8 <= n; i += 8) {
        const __m128i halves = _mm256_cvtps_ph(_mm256_loadu_ps(from + i), _MM_FROUND_TO_NEAREST_INT);
        _mm_storeu_si128(reinterpret_cast<__m128i *>(to + i), halves);
    }
    return i;
}

OLM_TARGET int64_t wide_count_bad_f32(const float * row, int64_t n, int64_t * n_bad) {
    const __m256i mask = _mm256_set1_epi32(0x7f800000);
    __m256i       sum  = _mm256_setzero_si256();
    int64_t       i    = 0;
    for (; i + 8 <= n; i += 8) {
        const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(row + i));
        sum = _mm256_sub_epi32(sum, _mm256_cmpeq_epi32(_mm256_and_si256(bits, mask), mask));
    }
    int32_t lanes[8];
    _mm256_storeu_si256(reinterpret_cast<__m256i *>(lanes), sum);
    for (const int32_t lane : lanes) {
        *n_bad += lane;
    }
    return i;
}

OLM_TARGET int64_t wide_count_bad_f16(const uint16_t * row, int64_t n, int64_t * n_bad) {
    const __m256i mask = _mm256_set1_epi16(0x7c00);
    int64_t       i    = 0;
    for (; i + 16 <= n; i += 16) {
        const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i *>(row + i));
        const __m256i bad  = _mm256_cmpeq_epi16(_mm256_and_si256(bits, mask), mask);
        *n_bad += __builtin_popcount(static_cast<unsigned>(_mm256_movemask_epi8(bad))) / 2;
    }
    return i;
}

#endif

}  // namespace

#ifdef OLM_F16C
#    define OLM_START(call) (HAS_F16C ? (call) : 0)
#else
#    define OLM_START(call) 0
#endif

void f16_to_f32(const uint16_t * from, float * to, int64_t n) {
    const int64_t i = OLM_START(wide_f16_to_f32(from, to, n));
    ggml_fp16_to_fp32_row(from + i, to + i, n - i);
}

void bf16_to_f32(const uint16_t * from, float * to, int64_t n) {
    const int64_t i = OLM_START(wide_bf16_to_f32(from, to, n));
    ggml_bf16_to_fp32_row(reinterpret_cast<const ggml_bf16_t *>(from + i), to + i, n - i);
}

void f32_to_f16(const float * from, uint16_t * to, int64_t n) {
    const int64_t i = OLM_START(wide_f32_to_f16(from, to, n));
    ggml_fp32_to_fp16_row(from + i, to + i, n - i);
}

void f32_to_bf16(const float * from, uint16_t * to, int64_t n) {
    ggml_fp32_to_bf16_row_ref(from, reinterpret_cast<ggml_bf16_t *>(to), n);
}

int64_t count_bad_f32(const float * row, int64_t n) {
    int64_t n_bad = 0;
    for (int64_t i = OLM_START(wide_count_bad_f32(row, n, &n_bad)); i < n; i++) {
        uint32_t bits;
        std::memcpy(&bits, row + i, sizeof(bits));
        n_bad += (bits & 0x7f800000) == 0x7f800000;
    }
    return n_bad;
}

int64_t count_bad_f16(const uint16_t * row, int64_t n) {
    int64_t n_bad = 0;
    for (int64_t i = OLM_START(wide_count_bad_f16(row, n, &n_bad)); i < n; i++) {
        n_bad += (row[i] & 0x7c00) == 0x7c00;
    }
    return n_bad;
}

}  // namespace olm
