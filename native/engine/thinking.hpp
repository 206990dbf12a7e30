// A request's thinking: where it begins and ends in the generated text, and how long it may get.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "args.hpp"
#include "marks.hpp"
#include "model.hpp"

namespace olm {

// The tags around thinking. Without ends there is no thinking to follow.
struct ThinkingOptions {
    std::string              start;
    std::vector<std::string> ends;
    bool                     is_open = false;  // the prompt has opened it
    int                      budget  = -1;     // tokens of thinking; -1: no bound
    std::string              close;            // what is written when the budget is spent

    static ThinkingOptions read(const Args & args);
};

// Follows the tags through an answer. Thinking is only looked for at its beginning (blanks aside), as the parsers of chat
// templates do: a tag that is spoken of later is text.
class Thinking {
  public:
    Thinking(const Model & model, const ThinkingOptions & options);

    // Takes a token's bytes; returns those that are outside of thinking. Valid until the next call.
    std::string_view push(std::string_view bytes);

    bool is_inside() const { return state_ == INSIDE; }
    // Thinking may still begin: nothing but blanks was written.
    bool may_begin() const { return state_ == MAY_BEGIN; }
    // The start tag as the vocabulary writes it; empty when there is none.
    const std::vector<llama_token> & start_tokens() const { return start_tokens_; }

    // The token that must come next because the budget is spent, or -1. push() it like a sampled one.
    llama_token forced() const;

  private:
    enum State { MAY_BEGIN, INSIDE, OUTSIDE };

    std::string_view inside(std::string_view bytes);
    std::string_view before(std::string_view bytes);
    void begin();

    State       state_ = OUTSIDE;
    std::string start_;   // without blanks before it
    std::string opening_; // what was written so far, while that may become the start tag
    std::string rest_;
    MarkFinder  ends_;
    int        budget_;
    int        n_inside_ = 0;
    std::vector<llama_token> start_tokens_;
    std::vector<llama_token> close_;
    size_t                   n_closed_ = 0;  // tokens of close_ that were taken
    bool                     closing_  = false;
};

}  // namespace olm
