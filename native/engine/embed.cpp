#include "embed.hpp"

#include <algorithm>
#include <cmath>

#include "errors.hpp"

namespace olm {

namespace {

// Every token of an embedding step is an output row, and for a model with a head each row has room for its logits: so
// the step is small where the vocabulary is large (512 x 152 k x 4 B = 300 MiB).
constexpr int STEP_TOKENS       = 2048;
constexpr int STEP_TOKENS_LARGE = 512;
constexpr int LARGE_VOCABULARY  = 65536;

struct BatchCloser {
    llama_batch batch;
    ~BatchCloser() { llama_batch_free(batch); }
};

// The pooling that a model does not name is the last token's state, as Ollama's runner takes it.
enum llama_pooling_type resolve_pooling(const Model & model, enum llama_pooling_type wanted) {
    if (wanted != LLAMA_POOLING_TYPE_UNSPECIFIED) {
        return wanted;
    }
    char arch[128] = "";
    char value[32] = "";
    llama_model_meta_val_str(model.llama(), "general.architecture", arch, sizeof arch);
    const std::string key = std::string(arch) + ".pooling_type";
    if (llama_model_meta_val_str(model.llama(), key.c_str(), value, sizeof value) > 0 && std::atoi(value) > 0) {
        return LLAMA_POOLING_TYPE_UNSPECIFIED;  // llama.cpp reads the model's own
    }
    return LLAMA_POOLING_TYPE_LAST;
}

}  // namespace

Embedder::Embedder(std::shared_ptr<Model> model, const EngineConfig & config) :
    model_(std::move(model)),
    config_(config) {
    config_.pooling = resolve_pooling(*model_, config_.pooling);
    n_embd_         = llama_model_n_embd_out(model_->llama());
}

void Embedder::add(EmbedJob job) {
    jobs_.push_back(std::move(job));
}

bool Embedder::cancel(uint64_t id) {
    const auto found = std::find_if(jobs_.begin(), jobs_.end(), [&](const EmbedJob & job) { return job.id == id; });
    if (found == jobs_.end()) {
        return false;
    }
    jobs_.erase(found);
    return true;
}

void Embedder::make_room_for(int n_tokens) {
    if (context_ && n_tokens <= n_step_) {
        return;
    }
    const int usual = model_->n_vocab() > LARGE_VOCABULARY ? STEP_TOKENS_LARGE : STEP_TOKENS;
    n_step_         = std::max(n_tokens, std::min(usual, config_.n_ctx));
    context_.reset();
    context_ = std::make_unique<Context>(model_, config_.embedding_params(n_step_), nullptr);
    n_embd_  = llama_pooling_type(context_->llama()) == LLAMA_POOLING_TYPE_RANK
                   ? static_cast<int>(llama_model_n_cls_out(model_->llama()))
                   : llama_model_n_embd_out(model_->llama());
}

// The longest run of inputs with the same adapters, from the oldest request on, that fits one step; at least one.
std::vector<Embedder::Place> Embedder::choose() {
    std::vector<Place> places;
    make_room_for(static_cast<int>(jobs_.front().inputs[jobs_.front().n_started].size()));
    const size_t most = std::min(MAX_EMBEDDING_INPUTS, n_step_);
    int          room = n_step_;
    for (EmbedJob & job : jobs_) {
        if (job.scales != jobs_.front().scales) {
            return places;  // adapters act on a whole batch
        }
        while (job.n_started < job.inputs.size()) {
            const int n = static_cast<int>(job.inputs[job.n_started].size());
            if (n > room || places.size() == most) {
                return places;
            }
            places.push_back({&job, job.n_started++});
            room -= n;
        }
    }
    return places;
}

void Embedder::compute(const std::vector<Place> & places) {
    size_t n_tokens = 0;
    for (const Place & place : places) {
        n_tokens += place.job->inputs[place.input].size();
    }
    BatchCloser   owned{llama_batch_init(static_cast<int32_t>(n_tokens), 0, 1)};
    llama_batch & batch = owned.batch;
    for (size_t i = 0; i < places.size(); i++) {
        const auto & tokens = places[i].job->inputs[places[i].input];
        for (size_t position = 0; position < tokens.size(); position++) {
            const int row        = batch.n_tokens++;
            batch.token[row]     = tokens[position];
            batch.pos[row]       = static_cast<llama_pos>(position);
            batch.n_seq_id[row]  = 1;
            batch.seq_id[row][0] = static_cast<llama_seq_id>(i);
            batch.logits[row]    = 1;  // pooling wants every row
        }
    }
    context_->clear_all();
    context_->use(places.front().job->scales);
    const Context::Result result = context_->decode(batch);
    if (result != Context::DONE) {
        context_.reset();
        throw Error(OLM_E_DECODE, "the embedding step failed (" + std::to_string(result) + ")");
    }
    for (size_t i = 0; i < places.size(); i++) {
        const float * vector = llama_get_embeddings_seq(context_->llama(), static_cast<llama_seq_id>(i));
        require(vector != nullptr, OLM_E_NOT_SUPPORTED, "this model gives no embeddings");
        keep(places[i], vector);
    }
}

void Embedder::keep(const Place & place, const float * vector) {
    double squares = 0.0;
    for (int i = 0; i < n_embd_; i++) {
        require(std::isfinite(vector[i]), OLM_E_DECODE, "embedding contains NaN or Inf values");
        squares += static_cast<double>(vector[i]) * vector[i];
    }
    const double scale = place.job->normalize && squares > 0.0 ? 1.0 / std::sqrt(squares) : 1.0;
    for (int i = 0; i < n_embd_; i++) {
        place.job->vectors.push_back(static_cast<float>(vector[i] * scale));
    }
}

void Embedder::step(Outbox & outbox, std::vector<uint64_t> & ended) {
    try {
        compute(choose());
    } catch (...) {
        const int code = code_of_current_exception();
        fail_all(code, olm_last_error(), outbox, ended);
        return;
    }
    while (!jobs_.empty() && jobs_.front().n_started == jobs_.front().inputs.size()) {
        const EmbedJob & job = jobs_.front();
        Event            event{EventKind::EMBEDDING, job.id};
        event.numbers[0] = static_cast<uint32_t>(job.inputs.size());
        event.numbers[1] = n_embd_;
        for (const auto & input : job.inputs) {
            event.numbers[2] += static_cast<uint32_t>(input.size());
        }
        event.extra = {reinterpret_cast<const char *>(job.vectors.data()), job.vectors.size() * sizeof(float)};
        outbox.push(event);
        ended.push_back(job.id);
        jobs_.pop_front();
    }
}

void Embedder::fail_all(int code, const char * message, Outbox & outbox, std::vector<uint64_t> & ended) {
    for (const EmbedJob & job : jobs_) {
        outbox.push(failed(job.id, code, message));
        ended.push_back(job.id);
    }
    jobs_.clear();
}

}  // namespace olm
