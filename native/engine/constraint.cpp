#include "constraint.hpp"

#include <algorithm>

#include "errors.hpp"

namespace olm {

namespace {

constexpr size_t MAX_GRAMMAR_BYTES = 1 << 20;
constexpr size_t MAX_TOKENIZERS    = 2;  // sets of plain tokens whose vocabularies are kept; docs/engine.md says what one takes
constexpr int    MAX_BLANKS        = 2;  // tokens of blanks between the end of thinking and the answer

bool is_ready(const std::future<void> & future) {
    return future.wait_for(std::chrono::seconds(0)) == std::future_status::ready;
}

}  // namespace

ConstraintOptions ConstraintOptions::read(const Args & args) {
    ConstraintOptions options;
    options.kind     = args.text("kind");
    options.text     = args.text("text");
    options.fallback = args.text("fallback");
    options.triggers = args.texts("triggers");
    options.ends     = args.flag("ends", false);
    if (options.kind.empty()) {
        return options;
    }
    const char * kinds[] = {"lark", "json_schema", "regex", "llguidance"};
    if (std::find(std::begin(kinds), std::end(kinds), options.kind) == std::end(kinds)) {
        throw Error(OLM_E_INVALID_ARGUMENT, "unknown kind of constraint \"" + options.kind + "\"");
    }
    for (const std::string & text : {options.text, options.fallback}) {
        require(text.size() <= MAX_GRAMMAR_BYTES, OLM_E_INVALID_ARGUMENT, "the grammar is larger than 1 MiB");
        require(text.find('\0') == std::string::npos, OLM_E_INVALID_ARGUMENT, "the grammar has a NUL byte");
    }
    for (const std::string & trigger : options.triggers) {
        require(!trigger.empty(), OLM_E_INVALID_ARGUMENT, "a trigger is empty");
    }
    return options;
}

Grammars::Grammars(std::shared_ptr<Model> model, std::function<void()> built) :
    model_(std::move(model)),
    masker_("olm-masks"),
    builder_("olm-grammars", std::move(built)) {}

std::shared_ptr<const GrammarTokenizer> Grammars::tokenizer(const std::set<llama_token> & plain) {
    const auto found = std::find_if(known_.begin(), known_.end(), [&](const Known & k) { return k.plain == plain; });
    if (found != known_.end()) {
        std::rotate(found, found + 1, known_.end());
        return known_.back().tokenizer;
    }
    if (known_.size() == MAX_TOKENIZERS) {
        known_.erase(known_.begin());
    }
    known_.push_back({plain, std::make_shared<GrammarTokenizer>(model_, plain)});
    return known_.back().tokenizer;
}

Constraint::Constraint(ConstraintOptions options, std::set<llama_token> plain, const Thinking & thinking) :
    options_(std::move(options)),
    plain_(std::move(plain)),
    phase_(is_lazy() ? WATCHING : thinking.is_inside() ? THINKING : LEADING),
    triggers_(options_.triggers) {
    if (thinking.may_begin()) {
        start_tag_ = thinking.start_tokens();
    }
}

void Constraint::start(Grammars & grammars) {
    guidance();  // missing: said at once
    grammars_ = &grammars;
    built_    = grammars.build([self = shared_from_this()] {
        self->compile();
        if (self->phase_ == LEADING) {
            self->matcher_ = std::make_unique<Matcher>(*self->pristine_);
            self->make_mask();
        }
    });
}

// On the builder's thread.
void Constraint::compile() {
    const auto tokenizer = grammars_->tokenizer(plain_);
    try {
        pristine_ = std::make_unique<Matcher>(tokenizer, options_.kind, options_.text);
    } catch (const Error &) {
        if (options_.fallback.empty()) {
            throw;
        }
        pristine_  = std::make_unique<Matcher>(tokenizer, options_.kind, options_.fallback);
        fell_back_ = true;
    }
}

bool Constraint::ready() {
    if (!built_.valid()) {
        return true;
    }
    if (!is_ready(built_)) {
        return false;
    }
    try {
        built_.get();
        n_dropped_ += fell_back_ ? 1 : 0;
    } catch (const Error &) {
        give_up();
        phase_ = FREE;
    }
    return true;
}

const TokenMask * Constraint::allowed() {
    if (phase_ != LEADING && phase_ != ACTIVE) {
        return nullptr;
    }
    try {
        if (claim_mask(n_masks_)) {
            make_mask();
        } else if (masked_.valid()) {
            masked_.get();
        }
    } catch (const Error &) {
        give_up();
        return nullptr;
    }
    if (!only_end_) {
        return &mask_;
    }
    let_go();
    return nullptr;
}

void Constraint::push(llama_token token, std::string_view content, const Thinking & thinking) {
    switch (phase_) {
        case THINKING:
            // A forced close may go on behind the end tag; what it says there is no part of the answer.
            if (!thinking.is_inside() && thinking.forced() < 0) {
                after_thinking_ = true;
                lead();
                const size_t first = content.find_first_not_of(" \t\r\n");
                if (first != std::string_view::npos) {
                    matcher_->feed(content.substr(first));
                    phase_ = ACTIVE;
                    advanced();
                } else {
                    begin_mask();
                }
            }
            break;
        case LEADING:
            push_leading(token, thinking);
            break;
        case ACTIVE:
            push_active(token);
            break;
        case WATCHING:
            watch(content);
            break;
        case FREE:
        case COMPLETE:
            break;
    }
}

// Stands at the beginning of the grammar.
void Constraint::lead() {
    phase_   = LEADING;
    matched_ = true;
    start_tag_.clear();
    matcher_ = std::make_unique<Matcher>(*pristine_);
}

void Constraint::push_leading(llama_token token, const Thinking & thinking) {
    if (thinking.is_inside()) {
        phase_ = THINKING;
        return;
    }
    const bool by_grammar = matched_ && has_bit(by_grammar_, token);
    const bool by_tag     = n_tag_ < start_tag_.size() && token == start_tag_[n_tag_];
    if (by_tag) {
        n_tag_++;
        matched_ = by_grammar;
        if (by_grammar) {
            matcher_->consume(token);
        }
        // The whole tag without thinking having begun cannot be, unless thinking begins and ends in one token.
        if (n_tag_ == start_tag_.size()) {
            start_tag_.clear();
        }
        begin_mask();
    } else if (by_grammar) {
        push_active(token);
    } else {
        n_blanks_++;
        begin_mask();
    }
}

void Constraint::push_active(llama_token token) {
    phase_ = ACTIVE;
    try {
        matcher_->consume(token);
    } catch (const Error &) {
        give_up();
        return;
    }
    advanced();
}

void Constraint::watch(std::string_view content) {
    while (triggers_.push(content)) {
        matcher_ = std::make_unique<Matcher>(*pristine_);
        try {
            matcher_->feed(triggers_.found() + std::string(triggers_.rest()));
        } catch (const Error &) {
            n_dropped_++;
            content = triggers_.rest();
            continue;
        }
        phase_ = ACTIVE;
        advanced();
        return;
    }
}

void Constraint::advanced() {
    if (matcher_->is_stopped()) {
        let_go();
    } else {
        begin_mask();
    }
}

// The grammar has ended.
void Constraint::let_go() {
    matcher_.reset();
    triggers_.reset();
    phase_ = is_lazy() && !options_.ends ? WATCHING : COMPLETE;
}

// In a catch block. An answer that must match fails with the reason; one that need not goes on without the grammar.
void Constraint::give_up() {
    if (!is_lazy()) {
        throw;
    }
    n_dropped_++;
    matcher_.reset();
    phase_ = WATCHING;
}

void Constraint::begin_mask() {
    n_masks_++;
    masked_ = grammars_->mask([self = shared_from_this(), number = n_masks_] {
        if (self->claim_mask(number)) {
            self->make_mask();
        }
    });
}

// On a busy machine the helper may not have got to it when the step is over; then the engine makes the mask itself.
bool Constraint::claim_mask(uint64_t number) {
    uint64_t before = number - 1;
    return n_claimed_.compare_exchange_strong(before, number);
}

void Constraint::make_mask() {
    if (matched_) {
        matcher_->mask(by_grammar_);
        mask_ = by_grammar_;
    } else {
        std::fill(mask_.begin(), mask_.end(), 0);
    }
    const GrammarTokenizer & tokenizer = matcher_->tokenizer();
    if (phase_ == LEADING && n_tag_ < start_tag_.size()) {
        set_bit(mask_, start_tag_[n_tag_]);
    }
    const TokenMask & ends   = tokenizer.ends();
    const TokenMask & blanks = tokenizer.blanks();
    const bool with_blanks   = phase_ == LEADING && after_thinking_ && n_blanks_ < MAX_BLANKS;
    only_end_                = true;
    for (size_t i = 0; i < mask_.size(); i++) {
        mask_[i] |= with_blanks ? blanks[i] : 0;
        only_end_ = only_end_ && (mask_[i] & ~ends[i]) == 0;
    }
}

}  // namespace olm
