// Rows of weights between types; declared in ../decl/quantize.h. Threads are the caller's: a call works on its own memory only.
#include <algorithm>
#include <cstring>
#include <string>
#include <vector>

#include "errors.hpp"
#include "ggml.h"
#include "halves.hpp"

namespace {

using olm::require;

// Elements converted at a time: their f32 stay in the second-level cache, and a cancel waits for no more than these
// (20 ms of the slowest type).
constexpr int64_t BLOCK = 32 * 1024;

const ggml_type_traits * traits_of(int type) {
    const bool known = type >= 0 && type < GGML_TYPE_COUNT;
    const auto * traits = known ? ggml_get_type_traits(static_cast<ggml_type>(type)) : nullptr;
    require(traits != nullptr && traits->blck_size > 0, OLM_E_INVALID_ARGUMENT, "unknown ggml type");
    return traits;
}

bool is_readable(int type) {
    return type == GGML_TYPE_F32 || traits_of(type)->to_float != nullptr;
}

// What ggml_quantize_chunk would abort on.
bool is_writable(int type) {
    switch (type) {
        case GGML_TYPE_F32:
        case GGML_TYPE_F16:
        case GGML_TYPE_BF16:
            return true;
        case GGML_TYPE_Q8_1:
        case GGML_TYPE_Q8_K:
            return false;  // of activations: ggml has no function for rows of these
        default:
            return traits_of(type)->is_quantized;
    }
}

void to_f32(int type, const void * from, float * to, int64_t n) {
    switch (type) {
        case GGML_TYPE_F32:
            std::memcpy(to, from, n * sizeof(float));
            break;
        case GGML_TYPE_F16:
            olm::f16_to_f32(static_cast<const uint16_t *>(from), to, n);
            break;
        case GGML_TYPE_BF16:
            olm::bf16_to_f32(static_cast<const uint16_t *>(from), to, n);
            break;
        default:
            traits_of(type)->to_float(from, to, n);
    }
}

struct Job {
    int           from;
    int           to;
    int64_t       n_per_row;
    const float * imatrix;
};

// Converts `n_rows` rows whose f32 fit `work`; returns how many elements are not finite.
int64_t convert(const Job & job, const char * src, char * dst, int64_t n_rows, std::vector<float> & work) {
    const int64_t n      = n_rows * job.n_per_row;
    float *       values = job.to == GGML_TYPE_F32 ? reinterpret_cast<float *>(dst) : work.data();
    to_f32(job.from, src, values, n);
    const int64_t n_bad = olm::count_bad_f32(values, n);
    if (job.to == GGML_TYPE_F32 || n_bad > 0) {
        return n_bad;
    }
    switch (job.to) {
        case GGML_TYPE_F16: {
            auto * halves = reinterpret_cast<uint16_t *>(dst);
            olm::f32_to_f16(values, halves, n);
            return olm::count_bad_f16(halves, n);
        }
        case GGML_TYPE_BF16:
            olm::f32_to_bf16(values, reinterpret_cast<uint16_t *>(dst), n);
            return 0;
        default:
            break;
    }
    const auto type = static_cast<ggml_type>(job.to);
    const size_t n_bytes = ggml_quantize_chunk(type, values, dst, 0, n_rows, job.n_per_row, job.imatrix);
    require(n_bytes == n_rows * ggml_row_size(type, job.n_per_row), OLM_E_INTERNAL, "rows of another size than expected");
    require(ggml_validate_row_data(type, dst, n_bytes), OLM_E_INTERNAL, "quantized data is not valid");
    return 0;
}

void check(const Job & job) {
    const auto * from = traits_of(job.from);
    const auto * to   = traits_of(job.to);
    require(is_readable(job.from), OLM_E_INVALID_ARGUMENT, "this type cannot be read");
    require(is_writable(job.to), OLM_E_INVALID_ARGUMENT, "this type cannot be written");
    require(job.n_per_row > 0 && job.n_per_row % from->blck_size == 0 && job.n_per_row % to->blck_size == 0,
            OLM_E_INVALID_ARGUMENT, "rows do not divide into blocks");
    require(job.imatrix != nullptr || !ggml_quantize_requires_imatrix(static_cast<ggml_type>(job.to)),
            OLM_E_INVALID_ARGUMENT, "this type needs an importance matrix");
}

}  // namespace

int olm_rows_convert(int from, const void * src, int to, void * dst, int64_t n_rows, int64_t n_per_row,
                     const float * imatrix, const volatile int32_t * cancel, int64_t * n_bad) {
    return olm::guard([&] {
        require(src && dst && n_bad && n_rows >= 0, OLM_E_INVALID_ARGUMENT, "a pointer is NULL");
        const Job job{from, to, n_per_row, imatrix};
        check(job);
        *n_bad = 0;
        const size_t  row_from = ggml_row_size(static_cast<ggml_type>(from), n_per_row);
        const size_t  row_to   = ggml_row_size(static_cast<ggml_type>(to), n_per_row);
        const int64_t step     = std::max<int64_t>(1, BLOCK / n_per_row);
        thread_local std::vector<float> work;
        if (to != GGML_TYPE_F32) {
            work.resize(std::max<size_t>(work.size(), std::min(step, n_rows) * n_per_row));
        }
        for (int64_t row = 0; row < n_rows; row += step) {
            require(cancel == nullptr || *cancel == 0, OLM_E_CANCELLED, "cancelled");
            const int64_t n = std::min(step, n_rows - row);
            *n_bad += convert(job, static_cast<const char *>(src) + row * row_from,
                              static_cast<char *>(dst) + row * row_to, n, work);
        }
    });
}
