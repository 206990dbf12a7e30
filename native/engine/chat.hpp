// What the files of the chat share: a template ready to render, what one request asks of it, what the library makes of it.
#pragma once

#include <deque>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "args.hpp"
#include "chat.h"
#include "errors.hpp"
#include "model.hpp"

namespace olm {

// A template is the model's program: what it does wrong is its own error, running out of memory included.
Error template_error(const std::exception & error);
bool is_out_of_memory(const std::exception & error);

common_reasoning_format reasoning_format_of(const std::string & name);

// One call of olm_chat_apply, checked.
struct ChatRequest {
    common_chat_templates_inputs inputs;
    std::string                  fields;     // everything but the messages, as text: the key of what is derived
    bool                         must_call;  // a grammar that begins with a call, of `call_only` if that is named
    std::string                  call_only;
};

ChatRequest chat_request_of(const Args & args);

// The messages as the template sees them, and the text it makes of them: what common_chat_templates_apply computes as
// `prompt`, and nothing else. `tmpl` is the one that the library would choose for these inputs.
std::string render_prompt(const common_chat_template & tmpl, const common_chat_templates_inputs & inputs, bool add_bos,
                          bool add_eos);

// What a request's fields come to, whatever the messages: all of common_chat_params but the prompt.
struct Derived {
    std::string        key;
    common_chat_params params;
    std::string        json;            // the part of olm_chat_apply's answer behind the prompt
    bool               is_plain = false;  // our own rendering differed: the library renders
};

}  // namespace olm

struct olm_chat {
    std::shared_ptr<olm::Model> model;  // the templates look at its vocabulary
    common_chat_templates_ptr   templates;
    // The library does not hand out its parsed templates, so that they are parsed once more to render with.
    std::unique_ptr<common_chat_template> plain;
    std::unique_ptr<common_chat_template> tool_use;

    std::mutex                                       lock;     // of what is below
    std::deque<std::shared_ptr<const olm::Derived>>  derived;  // the latest first
};

namespace olm {

// Answers olm_chat_apply.
std::string render_chat(olm_chat & chat, const ChatRequest & request, bool fresh);

// The part of the answer that the parser needs, see chat_parser.cpp.
common_json parser_json(const common_chat_params & params, const common_chat_templates_inputs & inputs);

// "root" of a grammar of calls, from which on they must come; empty when the library made none.
std::string call_grammar(const common_chat_params & params);

}  // namespace olm
