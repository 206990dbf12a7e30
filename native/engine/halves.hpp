// Between 16-bit and 32-bit floats at the speed of memory. ggml's own row functions are scalar: they convert some
// 300 million elements a second, a tenth of what a disk cache gives.
#pragma once

#include <cstdint>

namespace olm {

void f16_to_f32(const uint16_t * from, float * to, int64_t n);
void bf16_to_f32(const uint16_t * from, float * to, int64_t n);

// Rounds to nearest, ties to even, as ggml does.
void f32_to_f16(const float * from, uint16_t * to, int64_t n);
void f32_to_bf16(const float * from, uint16_t * to, int64_t n);

// How many are NaN or infinite.
int64_t count_bad_f32(const float * row, int64_t n);
int64_t count_bad_f16(const uint16_t * row, int64_t n);

}  // namespace olm
