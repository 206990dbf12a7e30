// From the marks of a parse to what a client is told: content, thinking, and tool calls with their arguments in deltas.
#pragma once

#include <string>
#include <vector>

#include "chat_machine.hpp"

namespace olm {

struct ChatEvent {
    // content, thinking: text. start: id and name of a call. arguments: JSON text. end: of the call. broken: the call is no
    // call; text, what was written. stray: text of a call that could not be read, without a call begun.
    enum class Kind : uint8_t { content, thinking, start, arguments, end, broken, stray };

    Kind        kind;
    std::string text;
    std::string id;
};

// Follows one parse. What it was given is never taken back.
class EventWriter {
  public:
    EventWriter(const ChatGrammar & grammar, const common_chat_parser_params & params, std::vector<ChatEvent> & out);

    // Read on up to the limit. Text before `base` is the prompt's, and not told.
    void advance(const std::vector<Mark> & marks, Machine::Limit limit, const std::string & text, size_t base);

    // A parse of another text begins.
    void restart();

    // The text from here on has not been told, calls that are under way included.
    size_t told() const { return told_; }
    size_t n_marks() const { return n_marks_; }
    int    n_calls() const { return n_calls_; }  // since the last restart
    bool   is_open() const { return call_.is_open; }
    bool   has_started() const { return call_.is_started; }
    bool   is_complete() const;  // the open call's arguments are a whole object
    Part   text_part() const { return text_part_; }
    size_t section_start() const { return section_start_; }
    bool   in_section() const { return in_section_; }

    void end_call();
    void break_call(const std::string & raw);
    void add(ChatEvent::Kind kind, const std::string & text);
    void add_thinking(const std::string & text);

  private:
    struct Call {
        bool        is_open    = false;
        bool        is_named   = false;
        bool        is_started = false;  // told
        std::string id;
        std::string name;
        std::string arguments;
        size_t      n_told   = 0;
        int         n_values = 0;
        bool        in_quote = false;
    };

    void take(const Mark & mark);
    void open(const Mark & mark);
    void close(const Mark & mark);
    void take_text(size_t at);
    void open_call();
    void close_call(size_t at);
    void tell_call(bool is_over);
    void open_value(Part part);
    void close_value(Part part, size_t at);
    void close_quote();
    void comma();
    std::string read_again(size_t at) const;
    std::string since(Part part, size_t at) const;

    const ChatGrammar &               grammar_;
    const common_chat_parser_params & params_;
    std::vector<ChatEvent> &          out_;
    const bool                        has_ids_;
    const std::string *               text_      = nullptr;
    size_t                            base_      = 0;
    size_t                            n_marks_   = 0;
    size_t                            told_      = 0;
    Part                              text_part_ = Part::none;
    size_t                            text_at_   = 0;
    bool                              is_raw_    = false;  // arguments are told as they are written
    std::string                       blank_;              // thinking that is only blanks so far
    bool                              has_thought_   = false;
    size_t                            section_start_ = 0;
    bool                              in_section_    = false;
    int                               n_calls_       = 0;
    Call                              call_;
    std::vector<size_t>               starts_;  // by part
    std::vector<bool>                 commas_;  // of Gemma's containers: something stands before
};

}  // namespace olm
