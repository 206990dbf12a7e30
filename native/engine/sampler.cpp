#include "sampler.hpp"

#include <algorithm>
#include <cmath>

#include "errors.hpp"
#include "rows.hpp"

namespace olm {

namespace {

constexpr int MAX_LOGPROBS  = 256;  // the APIs allow 20; a bound on what one event may weigh
constexpr int MAX_WINDOW    = 1 << 20;
constexpr int FIRST_MASS_CUT = 256;  // candidates first tried when top-p stands alone

// DRY's sequence breakers, llama.cpp's default.
const char * DRY_BREAKERS[] = {"\n", ":", "\"", "*"};

void append(llama_sampler * chain, llama_sampler * stage) {
    llama_sampler_chain_add(chain, stage);
}

int window_of(int wanted, int n_ctx) {
    return wanted < 0 ? n_ctx : std::min(wanted, n_ctx);
}

}  // namespace

SamplingOptions SamplingOptions::read(const Args & args, const Model & model) {
    SamplingOptions o;
    const auto      integer = [&](const char * key, int absent, int64_t low, int64_t high) {
        return static_cast<int>(args.integer(key, absent, low, high));
    };
    o.seed               = args.integer("seed", o.seed, INT64_MIN, INT64_MAX);
    o.temperature        = args.number("temperature", o.temperature);
    o.top_k              = integer("top_k", o.top_k, INT32_MIN, INT32_MAX);
    o.top_p              = args.number("top_p", o.top_p);
    o.min_p              = args.number("min_p", o.min_p);
    o.typical_p          = args.number("typical_p", o.typical_p);
    o.top_n_sigma        = args.number("top_n_sigma", o.top_n_sigma);
    o.repeat_last_n      = integer("repeat_last_n", o.repeat_last_n, -1, INT32_MAX);
    o.repeat_penalty     = args.number("repeat_penalty", o.repeat_penalty);
    o.presence_penalty   = args.number("presence_penalty", o.presence_penalty);
    o.frequency_penalty  = args.number("frequency_penalty", o.frequency_penalty);
    o.mirostat           = integer("mirostat", o.mirostat, 0, 2);
    o.mirostat_tau       = args.number("mirostat_tau", o.mirostat_tau);
    o.mirostat_eta       = args.number("mirostat_eta", o.mirostat_eta);
    o.dry_multiplier     = args.number("dry_multiplier", o.dry_multiplier);
    o.dry_base           = args.number("dry_base", o.dry_base);
    o.dry_allowed_length = integer("dry_allowed_length", o.dry_allowed_length, 0, MAX_WINDOW);
    o.dry_penalty_last_n = integer("dry_penalty_last_n", o.dry_penalty_last_n, -1, INT32_MAX);
    o.xtc_probability    = args.number("xtc_probability", o.xtc_probability);
    o.xtc_threshold      = args.number("xtc_threshold", o.xtc_threshold);
    o.dynatemp_range     = args.number("dynatemp_range", o.dynatemp_range);
    o.dynatemp_exponent  = args.number("dynatemp_exponent", o.dynatemp_exponent);
    o.ignore_eos         = args.flag("ignore_eos", o.ignore_eos);
    o.n_logprobs         = integer("n_logprobs", o.n_logprobs, -1, MAX_LOGPROBS);
    require(o.repeat_penalty > 0.0f && std::isfinite(1.0f / o.repeat_penalty), OLM_E_INVALID_ARGUMENT,
            "\"repeat_penalty\" must be greater than 0");

    const common_json biases = args.object("logit_bias");
    for (const auto & [key, value] : biases.items()) {
        const bool digits = !key.empty() && key.size() < 10 && key.find_first_not_of("0123456789") == std::string::npos;
        require(digits && value.is_number(), OLM_E_INVALID_ARGUMENT, "\"logit_bias\" must map token ids to numbers");
        const int32_t token = std::stoi(key);
        check_tokens(model, &token, 1);
        o.logit_bias.push_back({token, static_cast<float>(value.get<double>())});
    }
    return o;
}

Sampler::Sampler(const Model & model, SamplingOptions options, int n_ctx) :
    options_(std::move(options)),
    n_vocab_(model.n_vocab()),
    biases_(options_.logit_bias) {
    const SamplingOptions & o = options_;
    const bool penalties = o.repeat_penalty != 1.0f || o.presence_penalty != 0.0f || o.frequency_penalty != 0.0f;
    window_ = penalties ? window_of(o.repeat_last_n, n_ctx) : 0;
    // Typical-p and XTC may remove even the best candidate, so then the whole chain runs at temperature 0 too.
    greedy_    = o.temperature <= 0.0f && o.dynatemp_range <= 0.0f &&
              (o.mirostat != 0 || (o.typical_p >= 1.0f && o.xtc_probability <= 0.0f));
    const bool whole = o.top_k <= 0 || o.top_k >= n_vocab_;
    cuts_mass_ = whole && o.top_n_sigma <= 0.0f && o.typical_p >= 1.0f && o.top_p < 1.0f;

    int32_t             n_suppressed = 0;
    const llama_token * suppressed   = llama_vocab_get_suppress_tokens(model.vocab(), &n_suppressed);
    for (int32_t i = 0; i < n_suppressed; i++) {
        biases_.push_back({suppressed[i], -INFINITY});
    }
    if (o.ignore_eos) {
        for (llama_token token = 0; token < n_vocab_; token++) {
            if (llama_vocab_is_eog(model.vocab(), token)) {
                biases_.push_back({token, -INFINITY});
            }
        }
    }

    if (o.dry_multiplier != 0.0f && o.dry_base >= 1.0f && o.dry_penalty_last_n != 0) {
        dry_.reset(llama_sampler_init_dry(model.vocab(), o.dry_multiplier, o.dry_base, o.dry_allowed_length,
                                          window_of(o.dry_penalty_last_n, n_ctx), DRY_BREAKERS,
                                          sizeof DRY_BREAKERS / sizeof *DRY_BREAKERS));
        is_seen_.resize(n_vocab_);
    }

    if (greedy_) {
        return;
    }
    const uint32_t seed = o.seed < 0 ? LLAMA_DEFAULT_SEED : static_cast<uint32_t>(o.seed);
    tail_.reset(llama_sampler_chain_init(llama_sampler_chain_default_params()));
    llama_sampler * chain = tail_.get();
    if (o.mirostat != 0) {
        append(chain, llama_sampler_init_temp(o.temperature));
        append(chain, o.mirostat == 1
                          ? llama_sampler_init_mirostat(n_vocab_, seed, o.mirostat_tau, o.mirostat_eta, 100)
                          : llama_sampler_init_mirostat_v2(seed, o.mirostat_tau, o.mirostat_eta));
        return;
    }
    if (o.typical_p < 1.0f) {
        append(chain, llama_sampler_init_typical(o.typical_p, 0));
    }
    if (o.top_p < 1.0f && !cuts_mass_) {
        append(chain, llama_sampler_init_top_p(o.top_p, 0));
    }
    if (o.min_p > 0.0f) {
        append(chain, llama_sampler_init_min_p(o.min_p, 0));
    }
    if (o.xtc_probability > 0.0f) {
        append(chain, llama_sampler_init_xtc(o.xtc_probability, o.xtc_threshold, 0, seed));
    }
    append(chain, llama_sampler_init_temp_ext(o.temperature, o.dynatemp_range, o.dynatemp_exponent));
    append(chain, llama_sampler_init_dist(seed));
}

void Sampler::accept(llama_token token) {
    if (window_ > 0) {
        recent_.push_back(token);
        counts_[token]++;
        if (recent_.size() > static_cast<size_t>(window_)) {
            const auto oldest = counts_.find(recent_.front());
            if (--oldest->second == 0) {
                counts_.erase(oldest);
            }
            recent_.pop_front();
        }
    }
    if (dry_) {
        llama_sampler_accept(dry_.get(), token);
        if (!is_seen_[token]) {
            is_seen_[token] = true;
            seen_.push_back(token);
        }
    }
}

void Sampler::add(float * row, llama_token token, float value) {
    edits_.push_back({token, row[token]});
    row[token] = value;
}

void Sampler::bias(float * row) {
    for (const llama_logit_bias & item : biases_) {
        add(row, item.token, row[item.token] + item.bias);
    }
}

// As llama_sampler_penalties: a negative logit is multiplied, for dividing would make the token likelier.
void Sampler::penalize(float * row) {
    for (const auto & [token, count] : counts_) {
        const float logit    = row[token];
        const float repeated = logit <= 0.0f ? logit * options_.repeat_penalty : logit / options_.repeat_penalty;
        add(row, token,
            repeated - static_cast<float>(count) * options_.frequency_penalty - options_.presence_penalty);
    }
}

void Sampler::avoid_repeats(float * row) {
    candidates_.clear();
    for (const llama_token token : seen_) {
        candidates_.push_back({token, row[token], 0.0f});
    }
    llama_token_data_array array = {candidates_.data(), candidates_.size(), -1, false};
    llama_sampler_apply(dry_.get(), &array);
    for (const llama_token_data & item : candidates_) {
        if (item.logit != row[item.id]) {
            add(row, item.id, item.logit);
        }
    }
}

// Keeps the fewest best candidates whose probability reaches top-p of the whole row; sorting 152 k candidates for
// that, as a top-p without top-k does, costs 10 ms.
void Sampler::cut_mass(const float * row) {
    const double whole = log_sum_exp(row, n_vocab_);
    for (int k = std::min(FIRST_MASS_CUT, n_vocab_);; k = std::min(k * 8, n_vocab_)) {
        select_top(row, n_vocab_, k, candidates_);
        double mass = 0.0;
        for (size_t i = 0; i < candidates_.size(); i++) {
            mass += std::exp(candidates_[i].logit - whole);
            if (mass >= options_.top_p) {
                candidates_.resize(i + 1);
                return;
            }
        }
        if (k == n_vocab_) {
            return;
        }
    }
}

// Every token whose logit is a number and at least `bound`, in vocabulary order.
void Sampler::take_all(const float * row, float bound) {
    candidates_.clear();
    for (llama_token token = 0; token < n_vocab_; token++) {
        if (row[token] > -INFINITY && row[token] >= bound) {
            candidates_.push_back({token, row[token], 0.0f});
        }
    }
}

// Fills candidates_; true if they are in falling order.
bool Sampler::select(const float * row) {
    if (options_.mirostat != 0) {
        take_all(row, -INFINITY);
        return false;
    }
    if (cuts_mass_) {
        cut_mass(row);
        return true;
    }
    float bound = -INFINITY;
    if (options_.top_n_sigma > 0.0f) {
        const Moments m = moments(row, n_vocab_);
        bound = m.high - options_.top_n_sigma * m.deviation;
    }
    if (options_.top_k <= 0 || options_.top_k >= n_vocab_) {
        take_all(row, bound);
        return false;
    }
    select_top(row, n_vocab_, options_.top_k, candidates_);
    while (candidates_.size() > 1 && candidates_.back().logit < bound) {
        candidates_.pop_back();
    }
    return true;
}

llama_token Sampler::draw(const float * row) {
    if (greedy_) {
        return argmax(row, n_vocab_);
    }
    const bool sorted = select(row);
    if (candidates_.empty()) {
        return -1;
    }
    llama_token_data_array array = {candidates_.data(), candidates_.size(), -1, sorted};
    llama_sampler_apply(tail_.get(), &array);
    if (array.selected < 0 || array.selected >= static_cast<int64_t>(array.size)) {
        return -1;
    }
    return array.data[array.selected].id;
}

float Sampler::original(const float * row, llama_token token) const {
    for (const Edit & edit : edits_) {  // the first edit of a token holds its logit as the model gave it
        if (edit.token == token) {
            return edit.before;
        }
    }
    return row[token];
}

// Fills in the best candidates; returns what turns a logit into a logprob.
float Sampler::rank(const float * row, Taken & taken) {
    if (options_.n_logprobs < 0) {
        return 0.0f;
    }
    const float total = log_sum_exp(row, n_vocab_);
    if (options_.n_logprobs > 0) {
        select_top(row, n_vocab_, options_.n_logprobs, candidates_);
        for (const llama_token_data & item : candidates_) {
            taken.top.push_back({item.id, item.logit - total});
        }
    }
    return total;
}

// Most words of a mask forbid all of their 32 tokens, or none.
void Sampler::forbid(float * row, const TokenMask & mask) const {
    for (int from = 0; from < n_vocab_; from += 32) {
        const uint32_t word = mask[from / 32];
        const int      n    = std::min(32, n_vocab_ - from);
        if (word == 0) {
            std::fill_n(row + from, n, -INFINITY);
        } else if (word != UINT32_MAX) {
            for (int i = 0; i < n; i++) {
                row[from + i] = (word >> i & 1) != 0 ? row[from + i] : -INFINITY;
            }
        }
    }
}

Taken Sampler::sample(float * row, const TokenMask * mask) {
    Taken       taken = {};
    const float total = rank(row, taken);
    if (mask != nullptr) {
        forbid(row, *mask);
    }
    edits_.clear();
    bias(row);
    penalize(row);
    if (dry_) {
        avoid_repeats(row);
    }
    taken.token = draw(row);
    require(taken.token >= 0, OLM_E_DECODE, "the model gave no usable logits");
    if (options_.n_logprobs >= 0) {
        taken.logprob = std::min(0.0f, original(row, taken.token) - total);
    }
    return taken;
}

Taken Sampler::force(const float * row, llama_token token) {
    Taken       taken = {};
    const float total = rank(row, taken);
    taken.token       = token;
    taken.logprob     = options_.n_logprobs >= 0 ? std::min(0.0f, row[token] - total) : 0.0f;
    return taken;
}

}  // namespace olm
