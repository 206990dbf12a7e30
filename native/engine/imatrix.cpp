// A model that reads chunks of text for an importance matrix; declared in ../decl/imatrix.h. What it gathers is `activations`'.
#include <algorithm>
#include <memory>

#include "activations.hpp"
#include "args.hpp"
#include "config.hpp"
#include "context.hpp"
#include "errors.hpp"

namespace {

using olm::require;

constexpr int FEWEST_TOKENS = 16;  // products of fewer rows are not looked at
constexpr int MOST_TOKENS   = 1 << 20;
constexpr int MOST_CHUNKS   = 64;
constexpr int STEP_TOKENS   = 512;  // every row of a step has its logits: with 152 k tokens they take 300 MiB

struct BatchCloser {
    llama_batch batch;
    ~BatchCloser() { llama_batch_free(batch); }
};

bool read_flag(void * flag) {
    return *static_cast<const volatile int32_t *>(flag) != 0;
}

}  // namespace

struct olm_imatrix {
    olm_imatrix(std::shared_ptr<olm::Model> model, const olm::Args & args, const volatile int32_t * cancel);

    void read(const int32_t * tokens, size_t n_tokens);

    const olm::Activations & activations() const { return activations_; }

  private:
    void make_context(const olm::Args & args);
    void step(const int32_t * tokens, int n_chunks, int from, int n);

    std::shared_ptr<olm::Model>   model_;
    const volatile int32_t *      cancel_;
    olm::Activations              activations_;
    std::unique_ptr<olm::Context> context_;
    int                           n_ctx_    = 0;
    int                           n_chunks_ = 0;
    llama_token                   bos_      = LLAMA_TOKEN_NULL;
};

olm_imatrix::olm_imatrix(std::shared_ptr<olm::Model> model, const olm::Args & args, const volatile int32_t * cancel) :
    model_(std::move(model)),
    cancel_(cancel) {
    require(!model_->vocab_only, OLM_E_NOT_SUPPORTED, "the model was loaded without its weights");
    require(!(llama_model_has_encoder(model_->llama()) && llama_model_has_decoder(model_->llama())),
            OLM_E_NOT_SUPPORTED, "a model of an encoder and a decoder has no importance matrix here");
    const int trained = llama_model_n_ctx_train(model_->llama());
    n_ctx_    = static_cast<int>(args.integer("n_ctx", STEP_TOKENS, FEWEST_TOKENS, MOST_TOKENS));
    n_chunks_ = static_cast<int>(args.integer("n_chunks", 1, 1, MOST_CHUNKS));
    if (n_ctx_ > trained) {
        throw olm::Error(OLM_E_INVALID_ARGUMENT, "a chunk of " + std::to_string(n_ctx_) +
                                                     " tokens is more than the model's context of " +
                                                     std::to_string(trained));
    }
    if (llama_vocab_get_add_bos(model_->vocab())) {
        bos_ = llama_vocab_bos(model_->vocab());
    }
    make_context(args);
}

void olm_imatrix::make_context(const olm::Args & args) {
    common_json wanted = common_json::object();
    wanted["n_threads"] = args.integer("n_threads", 0, 0, 512);
    llama_context_params params = olm::EngineConfig::read(olm::Args(wanted), *model_).params;
    params.n_ctx             = n_ctx_ * n_chunks_;
    params.n_batch           = std::min<int>(STEP_TOKENS, params.n_ctx);
    params.n_ubatch          = params.n_batch;
    params.n_outputs_max     = params.n_batch;
    params.n_seq_max         = n_chunks_;
    params.kv_unified        = false;
    params.cb_eval           = olm::Activations::on_node;
    params.cb_eval_user_data = &activations_;
    if (cancel_ != nullptr) {
        params.abort_callback      = read_flag;
        params.abort_callback_data = const_cast<int32_t *>(cancel_);
    }
    context_ = std::make_unique<olm::Context>(model_, params, nullptr);
    if (!context_->has_memory()) {
        // It sees a chunk as a whole or not at all; and what it gives are embeddings.
        params.n_batch = params.n_ubatch = params.n_outputs_max = params.n_ctx;
        params.embeddings = true;
        context_.reset();
        context_ = std::make_unique<olm::Context>(model_, params, nullptr);
    }
}

void olm_imatrix::read(const int32_t * tokens, size_t n_tokens) {
    const size_t n_ctx = n_ctx_;
    require(n_tokens > 0 && n_tokens % n_ctx == 0 && n_tokens / n_ctx <= static_cast<size_t>(n_chunks_),
            OLM_E_INVALID_ARGUMENT, "these are not whole chunks");
    olm::check_tokens(*model_, tokens, n_tokens);
    const int n_chunks = static_cast<int>(n_tokens / n_ctx);
    const int width    = std::max(1, context_->n_batch() / n_chunks);
    context_->clear_all();
    for (int from = 0; from < n_ctx_; from += width) {
        step(tokens, n_chunks, from, std::min(width, n_ctx_ - from));
    }
}

// Tokens from .. from + n of each chunk.
void olm_imatrix::step(const int32_t * tokens, int n_chunks, int from, int n) {
    BatchCloser   owned{llama_batch_init(n_chunks * n, 0, 1)};
    llama_batch & batch = owned.batch;
    for (int chunk = 0; chunk < n_chunks; chunk++) {
        for (int position = from; position < from + n; position++) {
            const bool is_bos    = position == 0 && bos_ != LLAMA_TOKEN_NULL;
            const int  row       = batch.n_tokens++;
            batch.token[row]     = is_bos ? bos_ : tokens[chunk * n_ctx_ + position];
            batch.pos[row]       = position;
            batch.n_seq_id[row]  = 1;
            batch.seq_id[row][0] = chunk;
            batch.logits[row]    = 1;  // without them the last layer would skip rows
        }
    }
    const olm::Context::Result result = context_->decode(batch);
    require(cancel_ == nullptr || *cancel_ == 0, OLM_E_CANCELLED, "cancelled");
    if (!activations_.failure().empty()) {
        throw olm::Error(OLM_E_DECODE, activations_.failure());
    }
    if (result != olm::Context::DONE) {
        throw olm::Error(OLM_E_DECODE, "a step failed (" + std::to_string(result) + ")");
    }
}

int olm_imatrix_new(olm_model * model, const char * json, const volatile int32_t * cancel, olm_imatrix ** out) {
    return olm::guard([&] {
        require(model && out, OLM_E_INVALID_ARGUMENT, "a pointer is NULL");
        *out = new olm_imatrix(model->model, olm::Args(json), cancel);
    });
}

void olm_imatrix_free(olm_imatrix * imatrix) {
    delete imatrix;
}

int olm_imatrix_read(olm_imatrix * imatrix, const int32_t * tokens, size_t n_tokens) {
    return olm::guard([&] {
        require(imatrix && tokens, OLM_E_INVALID_ARGUMENT, "a pointer is NULL");
        imatrix->read(tokens, n_tokens);
    });
}

int olm_imatrix_entries_json(olm_imatrix * imatrix, char ** out) {
    return olm::guard([&] {
        require(imatrix && out, OLM_E_INVALID_ARGUMENT, "a pointer is NULL");
        common_json all = common_json::array();
        for (const auto & [name, entry] : imatrix->activations().entries()) {
            common_json item = common_json::object();
            item["name"]     = name;
            item["n_values"] = entry.sums.size();
            item["n_counts"] = entry.counts.size();
            all.push_back(item);
        }
        *out = olm::copy_text(all.dump_safe());
    });
}

int olm_imatrix_entry(olm_imatrix * imatrix, const char * name, float * sums, float * counts) {
    return olm::guard([&] {
        require(imatrix && name && sums && counts, OLM_E_INVALID_ARGUMENT, "a pointer is NULL");
        const auto & entries = imatrix->activations().entries();
        const auto   found   = entries.find(name);
        require(found != entries.end(), OLM_E_INVALID_ARGUMENT, "there is no such entry");
        const auto & [all, rows] = found->second;
        std::transform(all.begin(), all.end(), sums, [](double value) { return static_cast<float>(value); });
        std::transform(rows.begin(), rows.end(), counts, [](int64_t value) { return static_cast<float>(value); });
    });
}
