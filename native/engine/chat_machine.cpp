// The machine's steps: llama.cpp's lenient parse (common/peg-parser.cpp) with its recursion laid open.
#include "chat_machine.hpp"

#include <algorithm>
#include <cctype>

#include "unicode.h"

namespace olm {

Machine::Machine(const ChatGrammar & grammar, const ChatInput & input) : grammar_(grammar), input_(input) {
    go(grammar.arena().root(), 0);
}

void Machine::go(size_t id, size_t at) {
    step_    = Step::call;
    call_id_ = id;
    call_at_ = scan_ = at;
    n_chars_ = 0;
}

void Machine::give(Reply reply, size_t at) {
    step_     = Step::reply;
    reply_    = reply;
    reply_at_ = at;
}

// The leaf has used the input up.
bool Machine::give_or_wait(Reply at_end, size_t at) {
    if (!input_.is_over) {
        return false;
    }
    give(at_end, at);
    return true;
}

Machine::State Machine::run() {
    if (state_ != State::waiting) {
        return state_;
    }
    for (;;) {
        if (step_ == Step::reply) {
            if (reply_ == Reply::fail && stack_.size() <= floor_ && !stack_.empty() && may_go_back(stack_.back())) {
                return state_ = State::failed;  // a shadow that fails below its frame: that frame's shadow sees to it
            }
            if (stack_.empty()) {
                return state_ = reply_ == Reply::fail      ? State::failed
                                : reply_ == Reply::success ? State::succeeded
                                                           : State::ended_within;
            }
            take_reply();
        } else if (!(step_ == Step::call ? call() : repeat())) {
            return State::waiting;
        }
    }
}

bool Machine::call() {
    call_id_            = grammar_.unwrapped(call_id_);
    const auto & parser = grammar_.arena().get(call_id_);
    const auto   enter  = [&](size_t child) {
        stack_.push_back({call_id_, call_at_, call_at_, first_mark_ + marks_.size()});
        const Part part = grammar_.part(call_id_);
        if (part != Part::none) {
            marks_.push_back({part, true, false, call_at_});
        }
        go(child, call_at_);
        return true;
    };
    if (const auto * sequence = std::get_if<common_peg_sequence_parser>(&parser)) {
        if (!sequence->children.empty()) {
            return enter(sequence->children.front());
        }
        give(Reply::success, call_at_);
        return true;
    }
    if (const auto * choice = std::get_if<common_peg_choice_parser>(&parser)) {
        if (!choice->children.empty()) {
            return enter(choice->children.front());
        }
        give(Reply::fail, call_at_);
        return true;
    }
    if (std::holds_alternative<common_peg_repetition_parser>(parser)) {
        stack_.push_back({call_id_, call_at_, call_at_, first_mark_ + marks_.size()});
        step_ = Step::repeat;
        return true;
    }
    if (const auto * rule = std::get_if<common_peg_rule_parser>(&parser)) {
        return enter(rule->child);
    }
    if (const auto * tag = std::get_if<common_peg_tag_parser>(&parser)) {
        return enter(tag->child);
    }
    if (const auto * atomic = std::get_if<common_peg_atomic_parser>(&parser)) {
        return enter(atomic->child);
    }
    if (const auto * peek = std::get_if<common_peg_and_parser>(&parser)) {
        return enter(peek->child);
    }
    if (const auto * negate = std::get_if<common_peg_not_parser>(&parser)) {
        return enter(negate->child);
    }
    return call_leaf(parser);
}

bool Machine::call_leaf(const common_peg_parser_variant & parser) {
    const std::string & text = input_.text;
    if (const auto * literal = std::get_if<common_peg_literal_parser>(&parser)) {
        return scan_literal(literal->literal);
    }
    if (const auto * until = std::get_if<common_peg_until_parser>(&parser)) {
        return scan_until(until->delimiters);
    }
    if (const auto * string = std::get_if<common_peg_string_parser>(&parser)) {
        return scan_string(string->delimiter);
    }
    if (const auto * chars = std::get_if<common_peg_chars_parser>(&parser)) {
        return scan_chars(*chars);
    }
    if (std::holds_alternative<common_peg_space_parser>(parser)) {
        while (scan_ < text.size() && std::isspace(static_cast<unsigned char>(text[scan_]))) {
            ++scan_;
        }
        if (scan_ >= text.size()) {
            return give_or_wait(Reply::success, scan_);
        }
        give(Reply::success, scan_);
        return true;
    }
    if (std::holds_alternative<common_peg_end_parser>(parser)) {
        if (call_at_ >= text.size()) {
            return give_or_wait(Reply::success, call_at_);
        }
        failed_end_ = std::max(failed_end_, call_at_);
        give(Reply::fail, call_at_);
        return true;
    }
    if (std::holds_alternative<common_peg_any_parser>(parser)) {
        const auto point = common_parse_utf8_codepoint(text, call_at_);
        if (point.status == utf8_parse_result::INCOMPLETE) {
            return give_or_wait(Reply::more, call_at_);
        }
        give(point.status == utf8_parse_result::SUCCESS ? Reply::success : Reply::fail, call_at_ + point.bytes_consumed);
        return true;
    }
    const bool at_start = std::holds_alternative<common_peg_start_parser>(parser) && call_at_ != 0;
    give(at_start ? Reply::fail : Reply::success, call_at_);
    return true;
}

bool Machine::scan_literal(const std::string & literal) {
    const size_t n = std::min(literal.size(), input_.text.size() - std::min(input_.text.size(), call_at_));
    if (input_.text.compare(call_at_, n, literal, 0, n) != 0) {
        give(Reply::fail, call_at_);
    } else if (n < literal.size()) {
        return give_or_wait(Reply::more, call_at_ + n);
    } else {
        give(Reply::success, call_at_ + n);
    }
    return true;
}

bool Machine::scan_until(const std::vector<std::string> & delimiters) {
    const std::string & text = input_.text;
    for (; scan_ < text.size(); ++scan_) {
        if (delimiters.empty()) {
            scan_ = text.size();
            break;
        }
        bool may_begin = false;
        for (const std::string & delimiter : delimiters) {
            if (delimiter.empty() || delimiter[0] != text[scan_]) {
                continue;
            }
            const size_t n = std::min(delimiter.size(), text.size() - scan_);
            if (text.compare(scan_, n, delimiter, 0, n) != 0) {
                continue;
            }
            if (n == delimiter.size()) {
                give(Reply::success, scan_);
                return true;
            }
            may_begin = true;
        }
        if (may_begin) {
            return give_or_wait(Reply::success, scan_);
        }
    }
    return give_or_wait(Reply::more, scan_);
}

bool Machine::scan_string(char delimiter) {
    const std::string & text = input_.text;
    while (scan_ < text.size()) {
        const char c = text[scan_];
        if (c == delimiter) {
            give(Reply::success, scan_);
            return true;
        }
        size_t n = 1;
        if (c == '\\') {
            const char next = scan_ + 1 < text.size() ? text[scan_ + 1] : '\\';
            n               = next == 'u' ? 6 : 2;
            bool is_escape  = next == delimiter || std::string_view("\\/bfnrtu").find(next) != std::string_view::npos;
            for (size_t digit = scan_ + 2; n == 6 && digit < std::min(scan_ + 6, text.size()); ++digit) {
                is_escape = is_escape && std::isxdigit(static_cast<unsigned char>(text[digit]));
            }
            if (!is_escape) {
                give(Reply::fail, call_at_);
                return true;
            }
            if (scan_ + n > text.size()) {
                return give_or_wait(Reply::more, scan_);
            }
        } else if (static_cast<unsigned char>(c) >= 0x80) {
            const auto point = common_parse_utf8_codepoint(text, scan_);
            if (point.status == utf8_parse_result::INCOMPLETE) {
                return give_or_wait(Reply::more, scan_);
            }
            if (point.status == utf8_parse_result::INVALID) {
                give(Reply::fail, call_at_);
                return true;
            }
            n = point.bytes_consumed;
        }
        scan_ += n;
    }
    return give_or_wait(Reply::more, scan_);
}

bool Machine::scan_chars(const common_peg_chars_parser & chars) {
    while (chars.max_count == -1 || n_chars_ < chars.max_count) {
        const auto point = common_parse_utf8_codepoint(input_.text, scan_);
        if (point.status == utf8_parse_result::INCOMPLETE) {
            return give_or_wait(n_chars_ >= chars.min_count ? Reply::success : Reply::more, scan_);
        }
        const bool is_in = std::any_of(chars.ranges.begin(), chars.ranges.end(),
                                       [&](const auto & range) { return range.contains(point.codepoint); });
        if (point.status == utf8_parse_result::INVALID || is_in == chars.negated) {
            break;
        }
        scan_ += point.bytes_consumed;
        ++n_chars_;
    }
    give(n_chars_ >= chars.min_count ? Reply::success : Reply::fail, scan_);
    return true;
}

// -- replies ----------------------------------------------------------------------------------------------------------

void Machine::forget_marks(size_t n_marks) {
    marks_.resize(std::min(marks_.size(), n_marks - std::min(n_marks, first_mark_)));
}

void Machine::new_branch(Frame & frame, size_t at) {
    frame.branch  = at;
    frame.n_marks = first_mark_ + marks_.size();
    frame.settled = false;
    frame.shadow.reset();
    n_settled_ = std::min(n_settled_, stack_.size() - 1);  // it is the one on top
}

// The next round of the repetition on top of the stack.
bool Machine::repeat() {
    Frame &      frame      = stack_.back();
    const auto & repetition = std::get<common_peg_repetition_parser>(grammar_.arena().get(frame.id));
    const bool   may        = repetition.max_count == -1 || static_cast<int>(frame.n) < repetition.max_count;
    if (may && frame.branch >= input_.text.size() && !input_.is_over) {
        return false;
    }
    if (may && frame.branch < input_.text.size()) {
        go(repetition.child, frame.branch);
    } else {
        end_repetition(frame, repetition);
    }
    return true;
}

void Machine::end_repetition(Frame & frame, const common_peg_repetition_parser & repetition) {
    const size_t at     = frame.branch;
    const bool   enough = repetition.min_count <= 0 || static_cast<int>(frame.n) >= repetition.min_count;
    stack_.pop_back();
    give(enough ? Reply::success : at >= input_.text.size() ? Reply::more : Reply::fail, at);
}

// Hands the reply of a child to the frame on top.
void Machine::take_reply() {
    Frame &      frame  = stack_.back();
    const auto & parser = grammar_.arena().get(frame.id);
    const auto   leave  = [&](Reply reply, size_t at) {
        stack_.pop_back();
        give(reply, at);
    };
    if (const auto * sequence = std::get_if<common_peg_sequence_parser>(&parser)) {
        if (reply_ == Reply::success && ++frame.n < sequence->children.size()) {
            go(sequence->children[frame.n], reply_at_);
        } else {
            stack_.pop_back();
        }
    } else if (const auto * choice = std::get_if<common_peg_choice_parser>(&parser)) {
        if (reply_ != Reply::fail) {
            stack_.pop_back();
            return;
        }
        forget_marks(frame.n_marks);
        if (++frame.n < choice->children.size()) {
            new_branch(frame, frame.start);
            go(choice->children[frame.n], frame.start);
        } else {
            stack_.pop_back();
        }
    } else if (const auto * repetition = std::get_if<common_peg_repetition_parser>(&parser)) {
        if (reply_ == Reply::success && reply_at_ != frame.branch) {
            ++frame.n;
            new_branch(frame, reply_at_);
            floor_ = std::min(floor_, stack_.size() - 1);
            step_  = Step::repeat;
        } else if (reply_ == Reply::more) {
            stack_.pop_back();
        } else {
            forget_marks(frame.n_marks);
            end_repetition(frame, *repetition);
        }
    } else if (std::holds_alternative<common_peg_and_parser>(parser)) {
        forget_marks(frame.n_marks);
        leave(reply_, frame.start);
    } else if (std::holds_alternative<common_peg_not_parser>(parser)) {
        forget_marks(frame.n_marks);
        leave(reply_ == Reply::more   ? Reply::more
              : reply_ == Reply::fail ? Reply::success
                                      : Reply::fail,
              frame.start);
    } else if (std::holds_alternative<common_peg_atomic_parser>(parser)) {
        if (reply_ == Reply::more) {
            forget_marks(frame.n_marks);
        }
        stack_.pop_back();
    } else {
        if (reply_ != Reply::fail) {
            marks_.push_back({grammar_.part(frame.id), false, reply_ == Reply::more, reply_at_});
        }
        stack_.pop_back();
    }
}

}  // namespace olm
