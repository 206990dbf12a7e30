#include "sequence.hpp"

#include <algorithm>
#include <cstring>

#include "adapters.hpp"
#include "errors.hpp"

namespace olm {

namespace {

// Ollama ends a request that forgot to at ten times the context (ollama, llm/server.go, commit fb30760).
constexpr int MAX_CONTEXTS = 10;

uint64_t nanoseconds(Clock::duration duration) {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(duration).count();
}

}  // namespace

Limits Limits::read(const Args & args, const Model & model) {
    Limits limits;
    limits.n_predict = static_cast<int>(args.integer("n_predict", limits.n_predict, INT32_MIN, INT32_MAX));
    limits.n_keep    = static_cast<int>(args.integer("n_keep", limits.n_keep, INT32_MIN, INT32_MAX));
    limits.shift     = args.flag("shift", limits.shift);
    limits.stops     = args.texts("stop");
    limits.scales    = read_scales(args, model);
    const auto add_token = [&](const std::string & text, std::set<llama_token> & to) {
        const auto tokens = tokenize(model, text.data(), text.size(), false, true);
        if (tokens.size() == 1) {
            to.insert(tokens[0]);
        }
    };
    for (const std::string & text : args.texts("preserved_tokens")) {
        add_token(text, limits.preserved);
    }
    if (args.has("thinking")) {
        limits.thinking = ThinkingOptions::read(Args(args.object("thinking")));
    }
    if (args.has("constraint")) {
        limits.constraint = ConstraintOptions::read(Args(args.object("constraint")));
    }
    limits.plain = limits.preserved;
    for (const std::string & trigger : limits.constraint.triggers) {
        add_token(trigger, limits.plain);
    }
    return limits;
}

Sequence::Sequence(const Model & model, uint64_t id, std::vector<llama_token> prompt, SamplingOptions sampling,
                   Limits limits, int n_ctx) :
    path(std::move(prompt)),
    id(id),
    sampler(model, sampling, n_ctx),
    limits(std::move(limits)),
    thinking(model, this->limits.thinking),
    n_prompt_(static_cast<int>(path.size())),
    with_logprobs_(sampling.n_logprobs >= 0),
    text_(this->limits.stops) {
    const int most = MAX_CONTEXTS * n_ctx;
    n_predict_     = this->limits.n_predict < 0 ? most : std::min(this->limits.n_predict, most);
    for (const llama_token token : path) {
        sampler.accept(token);
    }
    if (!this->limits.constraint.kind.empty()) {
        constraint = std::make_shared<Constraint>(this->limits.constraint, this->limits.plain, thinking);
    }
}

void Sequence::admitted(int new_slot, int n_cached) {
    slot    = new_slot;
    n_done  = n_cached;
    n_clean = n_cached;
    if (!admitted_) {  // a preempted sequence comes here again, with its first times and counts
        admitted_    = true;
        n_cached_    = n_cached;
        admitted_at_ = Clock::now();
    }
}

void Sequence::draw(const Model & model, float * row) {
    const llama_token forced = thinking.forced();
    if (forced >= 0) {
        take(model, sampler.force(row, forced));
        return;
    }
    const TokenMask * allowed = constraint ? constraint->allowed() : nullptr;
    if (constraint && constraint->complete()) {
        end(DoneReason::STOP);
        return;
    }
    take(model, sampler.sample(row, allowed));
}

void Sequence::take(const Model & model, const Taken & taken) {
    if (n_generated_ == 0) {
        first_token_at_ = Clock::now();
    }
    if (n_predict_ == 0) {
        end(DoneReason::LENGTH);
        return;
    }
    if (llama_vocab_is_eog(model.vocab(), taken.token)) {
        end_token_ = taken.token;
        end(DoneReason::STOP);
        return;
    }
    n_generated_++;
    path.push_back(taken.token);
    sampler.accept(taken.token);
    new_tokens_.push_back(taken.token);
    if (with_logprobs_) {
        append_logprob(model, taken, new_logprobs_);
    }
    piece_.clear();
    append_piece(model, taken.token, limits.preserved.count(taken.token) > 0, piece_);
    const bool stopped = text_.push(piece_, new_text_);
    follow(model, taken.token);
    if (stopped || (constraint && constraint->complete())) {
        end(DoneReason::STOP);
    } else if (n_generated_ >= n_predict_) {
        end(DoneReason::LENGTH);
    }
}

// Tells the token to what watches the answer; there the tags of thinking count even if they are not shown.
void Sequence::follow(const Model & model, llama_token token) {
    piece_.clear();
    append_piece(model, token, true, piece_);
    const std::string_view content = thinking.push(piece_);
    if (constraint) {
        constraint->push(token, content, thinking);
    }
}

void Sequence::end(DoneReason reason) {
    text_.finish(new_text_);
    reason_ = reason;
    ended   = true;
}

Event Sequence::progress() const {
    Event event{EventKind::PROGRESS, id};
    event.numbers[0] = std::min(n_done, n_prompt_);
    event.numbers[1] = n_prompt_;
    event.numbers[2] = n_cached_;
    return event;
}

void Sequence::flush(Outbox & outbox) {
    if (ended) {
        push_done(outbox);
        return;
    }
    if (new_text_.empty()) {
        return;
    }
    Event event{EventKind::PIECE, id};
    event.tokens = &new_tokens_;
    event.text   = new_text_;
    event.extra  = new_logprobs_;
    outbox.push(event);
    new_tokens_.clear();
    new_text_.clear();
    new_logprobs_.clear();
}

void Sequence::push_done(Outbox & outbox) {
    const auto now   = Clock::now();
    const auto first = first_token_at_ == Clock::time_point() ? now : first_token_at_;
    const uint64_t times[2] = {admitted_ ? nanoseconds(first - admitted_at_) : 0, nanoseconds(now - first)};
    std::string extra(reinterpret_cast<const char *>(times), sizeof times);
    extra += new_logprobs_;

    Event event{EventKind::DONE, id};
    event.reason     = reason_;
    event.numbers[0] = n_prompt_;
    event.numbers[1] = n_cached_;
    event.numbers[2] = n_generated_;
    event.numbers[3] = end_token_ + 1;
    event.numbers[4] = text_.stopped_by() + 1;
    event.tokens     = &new_tokens_;
    event.text       = new_text_;
    event.extra      = extra;
    outbox.push(event);
}

}  // namespace olm
