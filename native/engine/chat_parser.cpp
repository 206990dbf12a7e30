// The parser of one answer: the machine reads, the writer tells, and what matches no grammar comes back as content.
#include <algorithm>
#include <optional>

#include "chat.hpp"
#include "chat_events.hpp"
#include "unicode.h"

namespace olm {

namespace {

common_chat_parser_params parser_params(const Args & args) {
    common_chat_parser_params params;
    params.format = static_cast<common_chat_format>(args.integer("format", 0, 0, COMMON_CHAT_FORMAT_COUNT - 1));
    params.generation_prompt = args.text("generation_prompt");
    params.reasoning_format  = reasoning_format_of(args.text("reasoning_format", "auto"));
    const std::string arena  = args.text("arena");
    if (!arena.empty()) {
        params.parser.load(arena);
    }
    return params;
}

// -- the whole text at once, as the library does it -----------------------------------------------------------------------

common_json as_json(const common_chat_msg & message, bool complete) {
    common_json calls = common_json::array();
    for (const common_chat_tool_call & call : message.tool_calls) {
        calls.push_back({{"id", call.id}, {"name", call.name}, {"arguments", call.arguments}});
    }
    common_json out          = common_json::object();
    out["content"]           = message.content;
    out["reasoning_content"] = message.reasoning_content;
    out["tool_calls"]        = calls;
    out["complete"]          = complete;
    return out;
}

common_json parse_whole(const common_chat_parser_params & params, const std::string & text, bool is_partial) {
    try {
        return as_json(common_chat_parse(text, is_partial, params), !is_partial);
    } catch (const std::bad_alloc &) {
        throw;
    } catch (const std::exception &) {
        if (is_partial) {
            throw;
        }
    }
    common_chat_msg message;
    message.content = text;
    return as_json(message, false);
}

const char * name_of(ChatEvent::Kind kind) {
    switch (kind) {
        case ChatEvent::Kind::content:   return "c";
        case ChatEvent::Kind::thinking:  return "t";
        case ChatEvent::Kind::start:     return "s";
        case ChatEvent::Kind::arguments: return "a";
        case ChatEvent::Kind::end:       return "e";
        case ChatEvent::Kind::broken:    return "b";
        case ChatEvent::Kind::stray:     return "m";
    }
    return "";
}

}  // namespace

common_json parser_json(const common_chat_params & params, const common_chat_templates_inputs & inputs) {
    std::vector<std::string> triggers;
    for (const common_grammar_trigger & trigger : params.grammar_triggers) {
        if (trigger.type == COMMON_GRAMMAR_TRIGGER_TYPE_WORD || trigger.type == COMMON_GRAMMAR_TRIGGER_TYPE_TOKEN) {
            triggers.push_back(trigger.value);
        }
    }
    common_json parser          = common_json::object();
    parser["format"]            = static_cast<int>(params.format);
    parser["generation_prompt"] = params.generation_prompt;
    parser["reasoning_format"]  = std::string(common_reasoning_format_name(inputs.reasoning_format));
    parser["thinking_start"]    = params.thinking_start_tag;
    parser["triggers"]          = triggers;
    parser["preserved_tokens"]  = params.preserved_tokens;
    parser["arena"]             = params.parser;
    return parser;
}

}  // namespace olm

struct olm_chat_parser {
    explicit olm_chat_parser(const olm::Args & args) :
        params(olm::parser_params(args)), grammar(params), thinking_start(args.text("thinking_start")),
        triggers(args.texts("triggers")), preserved(args.texts("preserved_tokens")), writer(grammar, params, events) {
        params.parser = common_peg_arena();  // the grammar has it
        begin(params.generation_prompt, "");
    }

    void push(const std::string & text, bool is_over);

    std::vector<olm::ChatEvent> events;  // of the push under way

  private:
    // What becomes of text that no grammar takes.
    enum class Rest { none, content, stray, dropped };

    void begin(const std::string & prompt, const std::string & text);
    void read();
    void finish();
    void go_on_behind(size_t at);
    void pass(const std::string & text);
    bool has_trigger(const std::string & text) const;

    common_chat_parser_params      params;
    olm::ChatGrammar               grammar;
    std::string                    thinking_start;
    std::vector<std::string>       triggers;
    std::vector<std::string>       preserved;
    olm::EventWriter               writer;
    olm::ChatInput                 input;
    size_t                         base = 0;
    std::optional<olm::Machine>    machine;
    Rest                           rest = Rest::none;
};

void olm_chat_parser::begin(const std::string & prompt, const std::string & text) {
    input      = {prompt + text, false};
    base       = prompt.size();
    machine.emplace(grammar, input);
    writer.restart();
}

void olm_chat_parser::push(const std::string & text, bool is_over) {
    events.clear();
    // Character by character, so that the events do not depend on how the text was cut.
    size_t at = 0;
    while (at < text.size() && rest == Rest::none) {
        size_t n = machine->n_plain(text, at);
        if (n == 0) {
            n = std::max<size_t>(1, common_utf8_sequence_length(static_cast<unsigned char>(text[at])));
        }
        input.text.append(text, at, n);
        at += n;
        read();
    }
    if (at < text.size()) {
        pass(text.substr(at));
    }
    if (is_over && rest == Rest::none) {
        finish();
    }
}

void olm_chat_parser::read() {
    using State = olm::Machine::State;
    while (rest == Rest::none) {
        const State state = machine->run();
        if (state == State::failed) {
            go_on_behind(std::max({writer.told(), machine->failed_end(), base}));
            continue;
        }
        writer.advance(machine->marks(), machine->certain(), input.text, base);
        if (state != State::succeeded || machine->end() >= input.text.size()) {
            return;
        }
        go_on_behind(std::max(machine->end(), base));
    }
}

// The grammar has ended before the text. Behind calls another answer may begin: prose, or more calls.
void olm_chat_parser::go_on_behind(size_t at) {
    const std::string left = input.text.substr(at);
    if (machine->state() != olm::Machine::State::failed && writer.is_open() && writer.is_complete()) {
        writer.end_call();  // some grammars do not say where a call ends
    }
    if (writer.n_calls() > 0 && !writer.has_started()) {
        const std::string & prompt = params.generation_prompt;
        const size_t        think  = thinking_start.empty() ? std::string::npos : prompt.find(thinking_start);
        const size_t        first  = left.find_first_not_of(" \t\n\r");
        begin(prompt.substr(0, think), first == std::string::npos ? "" : left.substr(first));
        return;
    }
    const bool is_marker = std::any_of(preserved.begin(), preserved.end(), [&](const std::string & token) {
        return left.compare(0, token.size(), token) == 0 && !has_trigger(token);
    });
    if (writer.is_open()) {
        rest = Rest::stray;
        writer.break_call(left);
    } else if (machine->state() != olm::Machine::State::failed && is_marker) {
        rest = Rest::dropped;  // tokens that end a part of the answer: the library does not look behind them either
    } else {
        rest = has_trigger(left) ? Rest::stray : Rest::content;
        pass(left);
    }
}

void olm_chat_parser::pass(const std::string & text) {
    using Kind = olm::ChatEvent::Kind;
    if (rest != Rest::dropped) {
        writer.add(rest == Rest::stray ? Kind::stray : Kind::content, text);
    }
}

bool olm_chat_parser::has_trigger(const std::string & text) const {
    return std::any_of(triggers.begin(), triggers.end(), [&](const std::string & trigger) {
        return !trigger.empty() && text.find(trigger) != std::string::npos;
    });
}

void olm_chat_parser::finish() {
    using Kind         = olm::ChatEvent::Kind;
    size_t    marker   = 0;
    size_t    call     = 0;
    bool      within   = false;
    olm::Part part     = olm::Part::none;
    do {
        marker        = machine->waiting_until();
        within        = machine->is_within(olm::Part::tool_open, &call) || machine->is_within(olm::Part::tool, &call);
        part          = writer.text_part();
        input.is_over = true;
        read();
    } while (!input.is_over && rest == Rest::none);  // until no other answer begins behind calls
    if (rest != Rest::none) {
        return;
    }
    // The library forgets text that may have been the beginning of a marker.
    if (marker != std::string::npos && (part == olm::Part::content || part == olm::Part::reasoning)) {
        const std::string text = input.text.substr(std::max(marker, base));
        part == olm::Part::content ? writer.add(Kind::content, text) : writer.add_thinking(text);
    }
    if (writer.is_open() && writer.is_complete()) {
        writer.end_call();
    } else if (writer.is_open() || (within && writer.told() <= call)) {
        const size_t from = writer.in_section() && writer.n_calls() == 0 ? writer.section_start() : call;
        writer.break_call(input.text.substr(std::max({writer.told(), from, base})));
    }
}

// -- the C interface --------------------------------------------------------------------------------------------------

int olm_chat_parse(const char * parser, const char * text, size_t n_bytes, int is_partial, char ** out) {
    return olm::guard([&] {
        olm::require(parser && text && out, OLM_E_INVALID_ARGUMENT, "a pointer is NULL");
        const auto params = olm::parser_params(olm::Args(parser));
        try {
            *out = olm::copy_text(olm::parse_whole(params, std::string(text, n_bytes), is_partial != 0).dump_safe());
        } catch (const std::exception & error) {
            throw olm::Error(OLM_E_PARSE, error.what());
        }
    });
}

int olm_chat_parser_new(const char * json, olm_chat_parser ** out) {
    return olm::guard([&] {
        olm::require(json && out, OLM_E_INVALID_ARGUMENT, "a pointer is NULL");
        *out = std::make_unique<olm_chat_parser>(olm::Args(json)).release();
    });
}

int olm_chat_parser_push(olm_chat_parser * parser, const char * text, size_t n_bytes, int is_final, char ** out) {
    return olm::guard([&] {
        olm::require(parser && text && out, OLM_E_INVALID_ARGUMENT, "a pointer is NULL");
        parser->push(std::string(text, n_bytes), is_final != 0);
        *out = nullptr;
        if (parser->events.empty()) {
            return;
        }
        std::string json = "[";
        for (const olm::ChatEvent & event : parser->events) {
            json += json.size() > 1 ? ",[\"" : "[\"";
            json += olm::name_of(event.kind);
            json += "\"," + common_json::make(event.text).dump_safe() + "," + common_json::make(event.id).dump_safe() + "]";
        }
        *out = olm::copy_text(json + "]");
    });
}

void olm_chat_parser_free(olm_chat_parser * parser) {
    delete parser;
}
