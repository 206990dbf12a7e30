// Reads an answer by its grammar as the text comes. The library's own parser needs the whole text each time, and its cost
// grows with the square of the length; this one stops where the input ends, goes on there, and comes to the same result.
//
// Where the library looks beyond the end of the input, the machine waits. So each of its steps is one that the library's
// parse of the whole text takes as well; only failures that lead back may still change what has been read. `certain` says
// how far that cannot happen.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "chat_grammar.hpp"

namespace olm {

// A part of the answer begins or ends. `is_partial`: the input ended within it.
struct Mark {
    Part   part;
    bool   opens;
    bool   is_partial;
    size_t at;

    bool operator==(const Mark & other) const {
        return part == other.part && opens == other.opens && at == other.at;
    }
};

// The text that all machines of an answer read. `is_over`: nothing comes any more.
struct ChatInput {
    std::string text;
    bool        is_over = false;
};

class Machine {
  public:
    enum class State : uint8_t { waiting, failed, succeeded, ended_within };

    struct Limit {
        size_t n_marks;
        size_t at;  // text before it is certain as well
    };

    // The input must outlive it.
    Machine(const ChatGrammar & grammar, const ChatInput & input);

    State run();
    State state() const { return state_; }

    // After run(): the marks and the text that no further input can change.
    Limit certain();

    const std::vector<Mark> & marks() const { return marks_; }
    size_t end() const { return reply_at_; }           // where a parse that is over ended
    size_t failed_end() const { return failed_end_; }  // the last place where the input should have ended and did not
    bool   is_within(Part part, size_t * start) const;  // it has begun and taken some input
    size_t waiting_until() const;                       // where a text waits that may be a marker's beginning, or npos
    size_t n_plain(const std::string & text, size_t from) const;  // how much more input changes nothing but the text's end

  private:
    enum class Step : uint8_t { call, repeat, reply };
    enum class Reply : uint8_t { fail, success, more };

    struct Frame {
        size_t                   id;
        size_t                   start;
        size_t                   branch;   // where the child under way began, of choices and repetitions
        size_t                   n_marks;  // at that time
        uint32_t                 n = 0;    // the child's number, or how often it matched
        bool                     settled = false;
        std::shared_ptr<Machine> shadow;   // what happens if the branch fails
    };

    Machine(const Machine & other, size_t frame);

    void go(size_t id, size_t at);
    void give(Reply reply, size_t at);
    bool give_or_wait(Reply at_end, size_t at);
    bool call();
    bool call_leaf(const common_peg_parser_variant & parser);
    bool scan_literal(const std::string & literal);
    bool scan_until(const std::vector<std::string> & delimiters);
    bool scan_string(char delimiter);
    bool scan_chars(const common_peg_chars_parser & chars);
    bool repeat();
    void take_reply();
    void end_repetition(Frame & frame, const common_peg_repetition_parser & repetition);
    void forget_marks(size_t n_marks);
    void new_branch(Frame & frame, size_t at);

    bool  may_go_back(const Frame & frame) const;
    bool  leaf_cannot_fail(const std::vector<std::string> ** next) const;
    bool  branch_cannot_fail(size_t frame) const;
    bool  leaves_rest(const Frame & frame, const Machine & shadow) const;
    Limit agreed(const Frame & frame, Machine & shadow) const;
    size_t progress() const;

    const ChatGrammar & grammar_;
    const ChatInput &   input_;
    std::vector<Frame>  stack_;
    std::vector<Mark>   marks_;
    size_t              first_mark_ = 0;  // the number of marks_[0]: a shadow has only its own
    size_t              floor_      = 0;  // a shadow that fails below is dead
    size_t              n_settled_  = 0;  // so many frames at the bottom of the stack hold nothing back
    int                 depth_      = 0;
    State               state_      = State::waiting;
    Step                step_       = Step::call;
    size_t              call_id_    = 0;
    size_t              call_at_    = 0;
    size_t              scan_       = 0;  // how far the leaf under way has read
    int                 n_chars_    = 0;
    Reply               reply_      = Reply::fail;
    size_t              reply_at_   = 0;
    size_t              failed_end_ = 0;
};

}  // namespace olm
