// Every mark as the library's mappers take it (common/chat-peg-parser.cpp), but one by one and only once.
#include "chat_events.hpp"

#include <algorithm>
#include <cctype>

#include "chat-peg-parser.h"

namespace olm {

namespace {

std::string_view without_blanks(std::string_view text, bool front, bool back) {
    const auto is_blank = [](char c) { return std::isspace(static_cast<unsigned char>(c)) != 0; };
    while (back && !text.empty() && is_blank(text.back())) {
        text.remove_suffix(1);
    }
    if (front && !text.empty() && is_blank(text.front())) {
        text.remove_prefix(1);  // the library takes one
    }
    return text;
}

bool is_blank(const std::string & text) {
    return text.find_first_not_of(" \n\r\t") == std::string::npos;
}

std::string escaped(const std::string & text) {
    const std::string quoted = common_json::make(text).dump_safe();
    return quoted.substr(1, quoted.size() - 2);
}

int open_braces(const std::string & json) {
    int  depth     = 0;
    bool in_string = false;
    for (size_t n = 0; n < json.size(); ++n) {
        if (in_string && json[n] == '\\') {
            ++n;
        } else if (json[n] == '"') {
            in_string = !in_string;
        } else if (!in_string) {
            depth += json[n] == '{' ? 1 : json[n] == '}' ? -1 : 0;
        }
    }
    return depth;
}

// The library turns Python's literals into JSON, and lets only mappers do it.
struct Literals : common_chat_peg_mapper {
    using common_chat_peg_mapper::common_chat_peg_mapper;
    using common_chat_peg_mapper::normalize_container_value;
};

std::string as_json_value(const std::string & written) {
    common_chat_msg unused;
    return Literals(unused).normalize_container_value(written);
}

bool is_gemma(Part part) {
    return part >= Part::gemma_dict && part <= Part::gemma_value;
}

}  // namespace

EventWriter::EventWriter(const ChatGrammar & grammar, const common_chat_parser_params & params,
                         std::vector<ChatEvent> & out) :
    grammar_(grammar), params_(params), out_(out), has_ids_(grammar.has_part(Part::tool_id)),
    starts_(static_cast<size_t>(Part::n_parts), 0) {}

void EventWriter::restart() {
    n_marks_    = 0;
    told_       = 0;
    text_part_  = Part::none;
    in_section_ = false;
    n_calls_    = 0;
    call_       = Call();
    commas_.clear();
}

void EventWriter::advance(const std::vector<Mark> & marks, Machine::Limit limit, const std::string & text, size_t base) {
    text_ = &text;
    base_ = base;
    while (n_marks_ < std::min(limit.n_marks, marks.size())) {
        take(marks[n_marks_++]);
    }
    take_text(limit.at);
    tell_call(false);
}

void EventWriter::take(const Mark & mark) {
    if (mark.opens) {
        starts_[static_cast<size_t>(mark.part)] = mark.at;
        open(mark);
    } else {
        if (mark.part == text_part_) {
            take_text(mark.at);
            text_part_ = Part::none;
        }
        close(mark);
    }
}

std::string EventWriter::since(Part part, size_t at) const {
    const size_t start = starts_[static_cast<size_t>(part)];
    return text_->substr(start, at - start);
}

void EventWriter::open(const Mark & mark) {
    switch (mark.part) {
        case Part::content:
        case Part::reasoning:
            text_part_ = mark.part;
            text_at_   = mark.at;
            break;
        case Part::section:
            section_start_ = mark.at;
            in_section_    = true;
            break;
        case Part::tool_open:
            open_call();
            break;
        case Part::tool:
            if (params_.format == COMMON_CHAT_FORMAT_PEG_GEMMA4) {
                open_call();
            }
            break;
        case Part::tool_args:
        case Part::arg_string:
        case Part::gemma_text:
            // Gemma's arguments only look like JSON, MiniMax's are tags in tags: both are rewritten.
            if (call_.is_open && params_.format != COMMON_CHAT_FORMAT_PEG_MINIMAX_M3 &&
                (mark.part != Part::tool_args || params_.format != COMMON_CHAT_FORMAT_PEG_GEMMA4)) {
                text_part_ = mark.part;
                text_at_   = mark.at;
                is_raw_    = false;
                open_value(mark.part);
            }
            break;
        default:
            if (is_gemma(mark.part) && call_.is_open) {
                open_value(mark.part);
            }
    }
}

void EventWriter::open_value(Part part) {
    switch (part) {
        case Part::arg_string:
            call_.arguments += call_.in_quote ? "" : "\"";
            call_.in_quote = true;
            break;
        case Part::gemma_dict:
        case Part::gemma_array:
            if (commas_.empty()) {
                call_.arguments.clear();
            } else {
                comma();
            }
            call_.arguments += part == Part::gemma_dict ? '{' : '[';
            commas_.push_back(false);
            break;
        case Part::gemma_key:
        case Part::gemma_string:
            comma();
            call_.arguments += '"';
            break;
        default:
            break;
    }
}

void EventWriter::close_quote() {
    call_.arguments += call_.in_quote ? "\"" : "";
    call_.in_quote = false;
}

// Before an entry of Gemma's containers: a key, or a value in an array.
void EventWriter::comma() {
    if (commas_.empty() || call_.arguments.back() == ':') {
        return;
    }
    if (commas_.back()) {
        call_.arguments += ',';
    }
    commas_.back() = true;
}

void EventWriter::close(const Mark & mark) {
    switch (mark.part) {
        case Part::section:
            in_section_ = mark.is_partial;
            break;
        case Part::reasoning:
            blank_.clear();
            break;
        case Part::tool:
            if (params_.format == COMMON_CHAT_FORMAT_PEG_MINIMAX_M3 && call_.is_named) {
                call_.arguments = read_again(mark.at);
            }
            if (!mark.is_partial) {
                close_call(mark.at);
            }
            break;
        default:
            if (call_.is_open && !mark.is_partial) {
                close_value(mark.part, mark.at);
            }
    }
}

void EventWriter::close_value(Part part, size_t at) {
    const bool is_minimax = params_.format == COMMON_CHAT_FORMAT_PEG_MINIMAX_M3;
    switch (part) {
        case Part::tool_name:
            call_.name      = std::string(without_blanks(since(part, at), false, true));
            call_.is_named  = true;
            call_.arguments += call_.arguments.empty() ? "{" : "";
            break;
        case Part::tool_id: {
            const std::string whole = since(part, at);
            auto              id    = without_blanks(whole, false, true);
            if (id.size() >= 2 && id.front() == '"' && id.back() == '"') {
                id = id.substr(1, id.size() - 2);
            }
            call_.id = std::string(id);
            break;
        }
        case Part::arg_name:
            if (!is_minimax) {
                const std::string whole = since(part, at);
                call_.arguments += (call_.arguments.empty() ? "{" : call_.n_values > 0 ? "," : "") +
                                   common_json::make(std::string(without_blanks(whole, true, true))).dump_safe() + ":";
                ++call_.n_values;
                call_.in_quote = false;
            }
            break;
        case Part::arg_value:
            if (!is_minimax) {
                call_.arguments += as_json_value(since(part, at));
            }
            break;
        case Part::arg_close:
            close_quote();
            break;
        case Part::tool_close:
            if (!is_minimax) {
                close_call(at);
            }
            break;
        case Part::gemma_dict:
        case Part::gemma_array:
            call_.arguments += part == Part::gemma_dict ? '}' : ']';
            commas_.pop_back();
            break;
        case Part::gemma_key:
            call_.arguments += "\":";
            break;
        case Part::gemma_key_name:
            call_.arguments += escaped(since(part, at));
            break;
        case Part::gemma_string:
            call_.arguments += '"';
            break;
        case Part::gemma_plain:
            comma();
            call_.arguments += since(part, at);
            break;
        default:
            break;
    }
}

// The text of the open part, as far as it is certain.
void EventWriter::take_text(size_t at) {
    if (text_part_ == Part::none || at <= text_at_) {
        return;
    }
    const bool        is_told = text_part_ == Part::content || text_part_ == Part::reasoning;
    const size_t      from    = is_told ? std::max(text_at_, std::min(base_, at)) : text_at_;
    const std::string piece   = text_->substr(from, at - from);
    switch (text_part_) {
        case Part::content:
            add(ChatEvent::Kind::content, piece);
            told_ = at;
            break;
        case Part::reasoning:
            add_thinking(piece);
            told_ = at;
            break;
        case Part::tool_args: {
            // An object is told as it is written; tagged values follow with marks of their own; the rest is no arguments.
            if (from == starts_[static_cast<size_t>(Part::tool_args)] && piece.front() == '{') {
                is_raw_         = true;
                call_.arguments = "";
            }
            if (is_raw_) {
                // Blanks at the end belong to it only when more follows.
                at = from + without_blanks(piece, false, true).size();
                call_.arguments += piece.substr(0, at - from);
            }
            break;
        }
        default:
            call_.arguments += escaped(piece);
    }
    text_at_ = at;
}

// The library's mapper drops thinking of nothing but blanks; those of Gemma and MiniMax keep it.
void EventWriter::add_thinking(const std::string & text) {
    const bool keeps = params_.format == COMMON_CHAT_FORMAT_PEG_GEMMA4 || params_.format == COMMON_CHAT_FORMAT_PEG_MINIMAX_M3;
    blank_ += text;
    if (has_thought_ || keeps || !is_blank(blank_)) {
        add(ChatEvent::Kind::thinking, blank_);
        has_thought_ = true;
        blank_.clear();
    }
}

void EventWriter::add(ChatEvent::Kind kind, const std::string & text) {
    const bool is_text = kind != ChatEvent::Kind::end && kind != ChatEvent::Kind::broken;
    if (is_text && text.empty()) {
        return;
    }
    if (is_text && !out_.empty() && out_.back().kind == kind) {
        out_.back().text += text;
    } else {
        out_.push_back({kind, text, ""});
    }
}

// -- calls ------------------------------------------------------------------------------------------------------------

void EventWriter::open_call() {
    close_call(told_);  // some grammars do not say where a call ends
    call_         = Call();
    call_.is_open = true;
    commas_.clear();
}

void EventWriter::close_call(size_t at) {
    if (!call_.is_open) {
        return;
    }
    if (!call_.is_named) {
        call_ = Call();
        return;
    }
    close_quote();
    for (int depth = open_braces(call_.arguments); depth > 0; --depth) {
        call_.arguments += '}';
    }
    end_call();
    told_ = std::max(told_, at);
}

void EventWriter::end_call() {
    tell_call(true);
    add(ChatEvent::Kind::end, "");
    ++n_calls_;
    call_ = Call();
}

void EventWriter::break_call(const std::string & raw) {
    add(call_.is_started ? ChatEvent::Kind::broken : ChatEvent::Kind::stray, raw);
    call_ = Call();
}

bool EventWriter::is_complete() const {
    return call_.is_named && !common_json::parse_no_throw(call_.arguments).is_discarded();
}

// Where a model writes the id behind the arguments, the call is told when that is known.
void EventWriter::tell_call(bool is_over) {
    if (!call_.is_open || !call_.is_named || (has_ids_ && call_.id.empty() && !is_over)) {
        return;
    }
    if (!call_.is_started) {
        call_.is_started = true;
        out_.push_back({ChatEvent::Kind::start, call_.name, call_.id});
    }
    if (is_over || call_.arguments.size() > 1) {
        add(ChatEvent::Kind::arguments, call_.arguments.substr(call_.n_told));
        call_.n_told = call_.arguments.size();
    }
}

// MiniMax nests values in tags; the library's own mapper reads the call once it is whole.
std::string EventWriter::read_again(size_t at) const {
    const common_chat_msg message = common_chat_peg_parse(grammar_.arena(), text_->substr(0, at), true, [&] {
        common_chat_parser_params params = params_;
        params.generation_prompt.clear();
        return params;
    }());
    return message.tool_calls.empty() ? "{}" : message.tool_calls.back().arguments;
}

}  // namespace olm
