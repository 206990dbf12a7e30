#include "context.hpp"

#include "adapters.hpp"
#include "errors.hpp"
#include "ggml-backend.h"
#include "llama-ext.h"
#include "log.hpp"

namespace olm {

namespace {

bool read_flag(void * flag) {
    return static_cast<std::atomic<bool> *>(flag)->load(std::memory_order_relaxed);
}

}  // namespace

Context::Context(std::shared_ptr<Model> model, const llama_context_params & params, std::atomic<bool> * abort) :
    model_(std::move(model)),
    params_(params),
    scales_(model_->scales()) {
    if (abort != nullptr) {
        params_.abort_callback      = read_flag;
        params_.abort_callback_data = abort;
    }
    make();
}

Context::~Context() {
    llama_free(handle_);
}

void Context::make() {
    const uint64_t mark = log_mark();
    handle_             = llama_init_from_model(model_->llama(), params_);
    if (handle_ == nullptr) {
        throw Error(OLM_E_CONTEXT, errors_since(mark, "llama.cpp could not make a context"));
    }
    if (scales_.empty()) {
        return;
    }
    try {
        apply_adapters(handle_, *model_, scales_);
    } catch (...) {
        llama_free(handle_);
        handle_ = nullptr;
        throw;
    }
}

void Context::use(const Scales & scales) {
    if (scales != scales_) {
        apply_adapters(handle_, *model_, scales);
        scales_ = scales;
    }
}

void Context::recreate() {
    llama_free(handle_);
    handle_ = nullptr;
    make();
}

Context::Result Context::decode(const llama_batch & batch) {
    if (batch.n_tokens <= 0 || batch.n_tokens > n_batch()) {
        return INVALID;  // llama.cpp asserts here
    }
    try {
        switch (llama_decode(handle_, batch)) {
            case 0:  return DONE;
            case 1:  return NO_ROOM;
            case 2:  return ABORTED;
            case -1: return INVALID;
            default: return BROKEN;
        }
    } catch (...) {
        code_of_current_exception();  // keeps its message
        return BROKEN;
    }
}

float * Context::logits(int row) {
    return llama_get_logits_ith(handle_, row);
}

int Context::first_position(int sequence) {
    const llama_memory_t memory = llama_get_memory(handle_);
    return memory == nullptr ? -1 : llama_memory_seq_pos_min(memory, sequence);
}

int Context::length(int sequence) {
    const llama_memory_t memory = llama_get_memory(handle_);
    return memory == nullptr ? 0 : llama_memory_seq_pos_max(memory, sequence) + 1;
}

bool Context::truncate(int sequence, int n_keep) {
    const llama_memory_t memory = llama_get_memory(handle_);
    return memory == nullptr || llama_memory_seq_rm(memory, sequence, n_keep, -1);
}

void Context::clear(int sequence) {
    truncate(sequence, 0);
}

bool Context::can_shift() {
    const llama_memory_t memory = llama_get_memory(handle_);
    return memory != nullptr && llama_memory_can_shift(memory);
}

void Context::discard(int sequence, int from, int n) {
    const llama_memory_t memory = llama_get_memory(handle_);
    if (llama_memory_seq_rm(memory, sequence, from, from + n)) {
        llama_memory_seq_add(memory, sequence, from + n, -1, -n);
    }
}

void Context::clear_all() {
    const llama_memory_t memory = llama_get_memory(handle_);
    if (memory != nullptr) {
        llama_memory_clear(memory, false);
    }
}

size_t Context::memory_bytes(bool on_gpu) const {
    size_t total = 0;
    for (const auto & [buffer_type, bytes] : llama_get_memory_breakdown(handle_)) {
        const ggml_backend_dev_t device = ggml_backend_buft_get_device(buffer_type);
        const auto               type   = device == nullptr ? GGML_BACKEND_DEVICE_TYPE_CPU : ggml_backend_dev_type(device);
        const bool is_gpu = type == GGML_BACKEND_DEVICE_TYPE_GPU || type == GGML_BACKEND_DEVICE_TYPE_IGPU;
        total += is_gpu || !on_gpu ? bytes.total() : 0;
    }
    return total;
}

}  // namespace olm
