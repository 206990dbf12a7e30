#include "thinking.hpp"

#include <climits>

#include "errors.hpp"

namespace olm {

namespace {

std::string_view without_blanks(std::string_view text) {
    const size_t first = text.find_first_not_of(" \t\r\n");
    return first == std::string_view::npos ? std::string_view() : text.substr(first);
}

}  // namespace

ThinkingOptions ThinkingOptions::read(const Args & args) {
    ThinkingOptions options;
    options.start   = args.text("start");
    options.ends    = args.texts("ends");
    options.is_open = args.flag("is_open", false);
    options.budget  = static_cast<int>(args.integer("budget", -1, -1, INT_MAX));
    for (const std::string & end : options.ends) {
        require(!end.empty(), OLM_E_INVALID_ARGUMENT, "an end tag of thinking is empty");
    }
    require(!options.ends.empty() || (!options.is_open && options.start.empty()), OLM_E_INVALID_ARGUMENT,
            "thinking needs an end tag");
    options.close = args.text("close", options.ends.empty() ? "" : options.ends[0]);
    return options;
}

Thinking::Thinking(const Model & model, const ThinkingOptions & options) :
    start_(without_blanks(options.start)),
    ends_(options.ends),
    budget_(options.budget) {
    const auto tokens_of = [&](const std::string & text) {
        return text.empty() ? std::vector<llama_token>() : tokenize(model, text.data(), text.size(), false, true);
    };
    if (ends_.empty()) {
        return;
    }
    start_tokens_ = tokens_of(start_);
    if (budget_ >= 0) {
        close_ = tokens_of(options.close);
    }
    if (options.is_open) {
        begin();
    } else if (!start_.empty()) {
        state_ = MAY_BEGIN;
    }
}

void Thinking::begin() {
    state_    = INSIDE;
    n_inside_ = 0;
    closing_  = budget_ == 0;
}

std::string_view Thinking::push(std::string_view bytes) {
    if (forced() >= 0) {
        n_closed_++;
    }
    switch (state_) {
        case MAY_BEGIN: return before(bytes);
        case INSIDE:    return inside(bytes);
        case OUTSIDE:   break;
    }
    return bytes;
}

std::string_view Thinking::before(std::string_view bytes) {
    opening_.append(bytes);
    const std::string_view written = without_blanks(opening_);
    if (written.substr(0, start_.size()) == start_) {
        rest_ = written.substr(start_.size());
        begin();
        return rest_.empty() ? std::string_view() : inside(rest_);
    }
    if (written != std::string_view(start_).substr(0, written.size())) {
        state_ = OUTSIDE;
    }
    return bytes;
}

std::string_view Thinking::inside(std::string_view bytes) {
    if (ends_.push(bytes)) {
        state_ = OUTSIDE;
        return ends_.rest();
    }
    n_inside_++;
    // An end tag that the model has begun itself may be finished: the close in the middle of it would be no tag at all.
    if (budget_ >= 0 && n_inside_ >= budget_ && !ends_.begun()) {
        closing_ = true;
    }
    return {};
}

llama_token Thinking::forced() const {
    return closing_ && n_closed_ < close_.size() ? close_[n_closed_] : -1;
}

}  // namespace olm
