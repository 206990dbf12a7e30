// What a request's answer must look like: when a grammar applies, and its masks, made while the model computes.
#pragma once

#include <atomic>
#include <future>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "helper.hpp"
#include "matcher.hpp"
#include "thinking.hpp"

namespace olm {

struct ConstraintOptions {
    std::string              kind;      // "" : there is none
    std::string              text;
    std::string              fallback;  // of the same kind: what holds where `text` does not compile; "" for nothing
    std::vector<std::string> triggers;  // empty: the grammar applies from the beginning of the content
    bool                     ends = false;  // with triggers: the answer ends where the grammar does

    static ConstraintOptions read(const Args & args);
};

// The vocabularies of one model as its constraints need them, and the threads that work for them: one compiles
// grammars, one makes masks, so that no stream waits for another's grammar.
class Grammars {
  public:
    // `built` is called on a helper's thread whenever a constraint has become ready, or has failed to.
    Grammars(std::shared_ptr<Model> model, std::function<void()> built);

    // plain: see GrammarTokenizer. On the thread that compiles.
    std::shared_ptr<const GrammarTokenizer> tokenizer(const std::set<llama_token> & plain);

    std::future<void> build(std::function<void()> job) { return builder_.run(std::move(job)); }
    std::future<void> mask(std::function<void()> job) { return masker_.run(std::move(job)); }

  private:
    struct Known {
        std::set<llama_token>                   plain;
        std::shared_ptr<const GrammarTokenizer> tokenizer;
    };

    std::shared_ptr<Model> model_;
    std::vector<Known>     known_;  // the builder's own; the last used at the end
    Helper                 masker_;
    Helper                 builder_;
};

// The constraint of one sequence. On the engine's thread; the jobs of the helpers hold it too, so a request that ends
// waits for none of them.
class Constraint : public std::enable_shared_from_this<Constraint> {
  public:
    Constraint(ConstraintOptions options, std::set<llama_token> plain, const Thinking & thinking);

    // Compile the grammar; ready() becomes true later.
    void start(Grammars & grammars);
    // Whether tokens may be drawn. Throws, once, if the grammar cannot be used and the answer must match it.
    bool ready();

    // Which tokens may come next; nullptr for all. Waits for the mask if it is still being made. Throws as Matcher does.
    const TokenMask * allowed();
    // The answer is complete: nothing but its end may follow.
    bool complete() const { return phase_ == COMPLETE; }

    // Takes a token that was added to the answer; `content` are its bytes outside of thinking (Thinking::push).
    void push(llama_token token, std::string_view content, const Thinking & thinking);

    // How often a grammar was given up: it could not be compiled and there is a fallback, or it has triggers and could not
    // be compiled, met text that it does not know, or became too complex.
    int n_dropped() const { return n_dropped_; }

  private:
    enum Phase {
        THINKING,  // applies when it ends
        LEADING,   // applies, nothing was matched yet: blanks after thinking, or the start tag, may still come
        ACTIVE,    // applies
        WATCHING,  // waits for a trigger
        FREE,      // given up for good: its grammar could not be compiled
        COMPLETE,
    };

    bool is_lazy() const { return !options_.triggers.empty(); }
    void compile();
    void lead();
    void push_leading(llama_token token, const Thinking & thinking);
    void push_active(llama_token token);
    void watch(std::string_view content);
    void advanced();
    void let_go();
    void give_up();
    void begin_mask();
    bool claim_mask(uint64_t number);
    void make_mask();

    ConstraintOptions        options_;
    std::set<llama_token>    plain_;
    std::vector<llama_token> start_tag_;  // while thinking may begin: its tokens, also allowed
    Phase                    phase_;
    MarkFinder               triggers_;
    size_t                   n_tag_      = 0;      // tokens of the start tag that the answer begins with
    bool                     after_thinking_ = false;
    int                      n_blanks_   = 0;
    bool                     matched_    = true;   // what was written could be the grammar's as well as the start tag
    int                      n_dropped_  = 0;

    Grammars *               grammars_ = nullptr;
    std::future<void>        built_;
    std::unique_ptr<Matcher> pristine_;
    bool                     fell_back_ = false;  // written by the builder before built_ is ready
    std::unique_ptr<Matcher> matcher_;
    // Masks are numbered; who claims one makes it. As long as the helper does, matcher_ and what follows are its own.
    uint64_t                 n_masks_ = 0;
    std::atomic<uint64_t>    n_claimed_{0};
    std::future<void>        masked_;
    TokenMask                by_grammar_;
    TokenMask                mask_;
    bool                     only_end_ = false;
};

}  // namespace olm
