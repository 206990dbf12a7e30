#include "rows.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace olm {

namespace {

// The same scans for each width of vector register; which one runs is decided once, when the library is loaded.
#define OLM_ROWS  rows_128
#define OLM_BYTES 16
#include "rows_kernels.inc"
#undef OLM_ROWS
#undef OLM_BYTES

#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#    define OLM_WIDE 1
#    pragma GCC push_options
#    pragma GCC target("avx2,fma")
#    define OLM_ROWS  rows_256
#    define OLM_BYTES 32
#    include "rows_kernels.inc"
#    undef OLM_ROWS
#    undef OLM_BYTES
#    pragma GCC pop_options
#    pragma GCC push_options
#    pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,fma")
#    define OLM_ROWS  rows_512
#    define OLM_BYTES 64
#    include "rows_kernels.inc"
#    undef OLM_ROWS
#    undef OLM_BYTES
#    pragma GCC pop_options
#endif

struct Kernels {
    float (*highest)(const float * row, int n);
    // Writes what is above `bound` to out[0..*n_out), at most `room`; returns how many places of the row it has read.
    int (*collect_above)(const float * row, int n, float bound, int room, llama_token_data * out, int * n_out);
    float (*sum_exp)(const float * row, int n, float high);
};

Kernels choose() {
#ifdef OLM_WIDE
    if (__builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl")) {
        return {rows_512::highest, rows_512::collect_above, rows_512::sum_exp};
    }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        return {rows_256::highest, rows_256::collect_above, rows_256::sum_exp};
    }
#endif
    return {rows_128::highest, rows_128::collect_above, rows_128::sum_exp};
}

const Kernels KERNELS = choose();

bool above(const llama_token_data & a, const llama_token_data & b) {
    return a.logit != b.logit ? a.logit > b.logit : a.id < b.id;
}

}  // namespace

int argmax(const float * row, int n) {
    const float high = KERNELS.highest(row, n);
    if (!(high > -INFINITY)) {
        return -1;
    }
    return static_cast<int>(std::find(row, row + n, high) - row);
}

void select_top(const float * row, int n, int k, std::vector<llama_token_data> & out) {
    k = std::min(k, n);
    if (k <= 0) {
        out.clear();
        return;
    }
    // Collect what beats the k-th best so far; each time the buffer is full, cut it back to k and raise the bar.
    constexpr int SPARE = 256;  // must hold a block, or the scan would stand still
    const int     full  = 2 * k + SPARE;
    out.resize(full);
    float bound = -INFINITY;
    int   held  = 0;
    for (int from = 0; from < n;) {
        int found = 0;
        const int read = KERNELS.collect_above(row + from, n - from, bound, full - held, out.data() + held, &found);
        for (int i = held; i < held + found; i++) {
            out[i].id += from;
        }
        from += read;
        held += found;
        if (held > k) {
            std::nth_element(out.begin(), out.begin() + (k - 1), out.begin() + held, above);
            held  = k;
            bound = out[k - 1].logit;
        }
    }
    out.resize(held);
    std::sort(out.begin(), out.end(), above);
}

float log_sum_exp(const float * row, int n) {
    const float high = KERNELS.highest(row, n);
    if (!(high > -INFINITY)) {
        return -INFINITY;
    }
    return high + std::log(KERNELS.sum_exp(row, n, high));
}

Moments moments(const float * row, int n) {
    const float high = KERNELS.highest(row, n);
    if (!(high > -INFINITY)) {
        return {-INFINITY, 0.0f, 0.0f};
    }
    double sum     = 0;
    double squares = 0;
    int    n_valid = 0;
    for (int i = 0; i < n; i++) {
        if (row[i] > -INFINITY) {
            const double distance = row[i] - high;  // from the highest, so that the squares lose no digits
            sum += distance;
            squares += distance * distance;
            n_valid++;
        }
    }
    const double mean = sum / n_valid;
    return {high, static_cast<float>(high + mean),
            static_cast<float>(std::sqrt(std::max(0.0, squares / n_valid - mean * mean)))};
}

}  // namespace olm
