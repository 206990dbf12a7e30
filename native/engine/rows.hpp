// Scans over one row of logits, [n_vocab] f32, that never build a candidate array of the whole vocabulary.
//
// llama.cpp's samplers fill n_vocab candidates of 12 bytes for every token and row; at 152 k entries that alone is
// 160 us. These read the 4-byte logits once, in vector registers.
#pragma once

#include <vector>

#include "llama.h"

namespace olm {

// The place of the highest logit; the first of equals; -1 if none is a number above -inf.
int argmax(const float * row, int n);

// The k highest, in falling order, without those at -inf.
void select_top(const float * row, int n, int k, std::vector<llama_token_data> & out);

// log(sum(exp(row))), exact to about 1e-6.
float log_sum_exp(const float * row, int n);

// Highest, mean and standard deviation of what is above -inf.
struct Moments {
    float high;
    float mean;
    float deviation;
};
Moments moments(const float * row, int n);

}  // namespace olm
