// Which products count, under which name and how is a fact of llama.cpp's tools/imatrix/imatrix.cpp: its files and ours are
// made of the same numbers. It adds up in f32; here each product's rows are summed in f32 and the products in f64.
#include "activations.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "errors.hpp"
#include "ggml-backend.h"

namespace olm {

namespace {

// Products of fewer rows are those of single outputs, and say little.
constexpr int64_t FEWEST_ROWS = 16;

// Columns summed at a time: their sums stay in the first-level cache while the rows pass by.
constexpr int64_t TILE = 1024;

// The last hidden state. What comes after it is the product with the vocabulary: a quarter of the work of a small model.
constexpr const char * LAST_STATE = "result_norm";

// A backend's copy of a weight is called `CUDA0#blk.0.attn_k.weight#0`.
std::string weight_name(const ggml_tensor * weight) {
    const std::string name  = weight->name;
    const size_t      first = name.find('#');
    if (first == std::string::npos) {
        return name;
    }
    const size_t last = name.find('#', first + 1);
    return name.substr(first + 1, last == std::string::npos ? last : last - first - 1);
}

bool is_of_a_layer(const ggml_tensor * weight) {
    return weight_name(weight).rfind("blk.", 0) == 0;
}

const float * row_at(const char * data, const ggml_tensor * rows, int64_t i1, int64_t i2, int64_t i3) {
    return reinterpret_cast<const float *>(data + i1 * rows->nb[1] + i2 * rows->nb[2] + i3 * rows->nb[3]);
}

template <typename T> void add_squares(const float * row, T * sums, int64_t n) {
    for (int64_t i = 0; i < n; i++) {
        sums[i] += row[i] * row[i];
    }
}

bool all_finite(const double * values, int64_t n) {
    return std::all_of(values, values + n, [](double value) { return std::isfinite(value); });
}

}  // namespace

bool Activations::on_node(ggml_tensor * node, bool ask, void * self) {
    auto * activations = static_cast<Activations *>(self);
    try {
        return ask ? activations->wants(node) : activations->take(node);
    } catch (const std::exception & error) {
        activations->failure_ = error.what();
        return false;
    }
}

bool Activations::wants(const ggml_tensor * node) const {
    if (!failure_.empty()) {
        return false;
    }
    if (node->op == GGML_OP_MUL_MAT_ID || std::strcmp(node->name, LAST_STATE) == 0) {
        return true;
    }
    return node->op == GGML_OP_MUL_MAT && node->src[1]->type == GGML_TYPE_F32 &&
           node->src[1]->ne[1] >= FEWEST_ROWS && is_of_a_layer(node->src[0]);
}

// False ends the graph.
bool Activations::take(const ggml_tensor * node) {
    if (node->op != GGML_OP_MUL_MAT && node->op != GGML_OP_MUL_MAT_ID) {
        return false;
    }
    const ggml_tensor * rows = node->src[1];
    require(rows->type == GGML_TYPE_F32 && rows->nb[0] == sizeof(float), OLM_E_DECODE, "activations are not f32");
    const char * data = static_cast<const char *>(rows->data);
    if (!ggml_backend_buffer_is_host(rows->buffer)) {
        copied_.resize(ggml_nbytes(rows));
        ggml_backend_tensor_get(rows, copied_.data(), 0, copied_.size());
        data = copied_.data();
    }
    if (node->op == GGML_OP_MUL_MAT_ID) {
        add_experts(node, data);
    } else {
        add_dense(node, data);
    }
    return true;
}

Activations::Entry & Activations::entry(const std::string & name, size_t n_sums, size_t n_counts) {
    Entry & found = entries_[name];
    if (found.sums.empty()) {
        found.sums.resize(n_sums);
        found.counts.resize(n_counts);
    }
    if (found.sums.size() != n_sums) {
        throw Error(OLM_E_DECODE, "the rows of " + name + " changed their size");
    }
    return found;
}

// src1: [columns, rows, …]; every 2-d slice belongs to one matrix of the weight.
void Activations::add_dense(const ggml_tensor * node, const char * data) {
    const ggml_tensor * weight = node->src[0];
    const ggml_tensor * rows   = node->src[1];
    const int64_t       n = rows->ne[0], n_matrices = weight->ne[2] * weight->ne[3];
    const std::string   name = weight_name(weight);
    Entry &             sums = entry(name, n * n_matrices, 1);
    partial_.resize(TILE);
    for (int64_t i3 = 0; i3 < rows->ne[3]; i3++) {
        for (int64_t i2 = 0; i2 < rows->ne[2]; i2++) {
            const int64_t matrix = (i3 % weight->ne[3]) * weight->ne[2] + i2 % weight->ne[2];
            double *      total  = sums.sums.data() + matrix * n;
            for (int64_t from = 0; from < n; from += TILE) {
                const int64_t width = std::min(TILE, n - from);
                std::fill(partial_.begin(), partial_.end(), 0.0f);
                for (int64_t i1 = 0; i1 < rows->ne[1]; i1++) {
                    add_squares(row_at(data, rows, i1, i2, i3) + from, partial_.data(), width);
                }
                for (int64_t i = 0; i < width; i++) {
                    total[from + i] += partial_[i];
                }
            }
        }
    }
    if (!all_finite(sums.sums.data(), sums.sums.size())) {
        throw Error(OLM_E_DECODE, "the activations of " + name + " are not finite");
    }
    for (int64_t & count : sums.counts) {
        count += ggml_nrows(rows) / n_matrices;
    }
}

// src1: [columns, experts of a token or 1, tokens]; src2: [experts of a token, tokens] says which.
void Activations::add_experts(const ggml_tensor * node, const char * data) {
    const ggml_tensor * weight = node->src[0];
    const ggml_tensor * rows   = node->src[1];
    const ggml_tensor * ids    = node->src[2];
    const int64_t       n = rows->ne[0], n_experts = weight->ne[2];
    const std::string   name = weight_name(weight);
    require(ids->ne[1] == rows->ne[2] && rows->ne[3] == 1, OLM_E_DECODE, "unexpected experts");
    chosen_.resize(ggml_nbytes(ids));
    ggml_backend_tensor_get(ids, chosen_.data(), 0, chosen_.size());
    Entry & sums = entry(name, n * n_experts, n_experts);
    for (int64_t token = 0; token < rows->ne[2]; token++) {
        for (int64_t i = 0; i < ids->ne[0]; i++) {
            int32_t expert;
            std::memcpy(&expert, chosen_.data() + token * ids->nb[1] + i * ids->nb[0], sizeof expert);
            require(expert >= 0 && expert < n_experts, OLM_E_DECODE, "an expert that is not there was chosen");
            add_squares(row_at(data, rows, i % rows->ne[1], token, 0), sums.sums.data() + expert * n, n);
            sums.counts[expert]++;
        }
    }
    if (!all_finite(sums.sums.data(), sums.sums.size())) {
        throw Error(OLM_E_DECODE, "the activations of " + name + " are not finite");
    }
}

}  // namespace olm
