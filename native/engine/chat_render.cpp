// Rendering with memory: what the library derives from a template and its tools is computed once, the prompt each time.
//
// The library's analysis of a template takes 0.5 to 10 ms and renders the conversation three times. What it finds depends on
// the messages only through the prompt's end (the generation prompt), which is compared before a finding is used again.
#include <algorithm>

#include <iterator>

#include "chat.hpp"

namespace olm {

namespace {

// A client keeps its tools over a session; some clients with and without thinking share a model.
constexpr size_t MAX_DERIVED = 32;

const char * trigger_name(common_grammar_trigger_type type) {
    switch (type) {
        case COMMON_GRAMMAR_TRIGGER_TYPE_TOKEN:        return "token";
        case COMMON_GRAMMAR_TRIGGER_TYPE_WORD:         return "word";
        case COMMON_GRAMMAR_TRIGGER_TYPE_PATTERN:      return "pattern";
        case COMMON_GRAMMAR_TRIGGER_TYPE_PATTERN_FULL: return "pattern_full";
    }
    return "unknown";
}

bool ends_with(const std::string & text, const std::string & end) {
    return text.size() >= end.size() && text.compare(text.size() - end.size(), end.size(), end) == 0;
}

// The generation prompt has opened the thinking, and not closed it again. Without a tag the answer begins with it.
bool opens_thinking(const common_chat_params & params) {
    const std::string & tag   = params.thinking_start_tag;
    const size_t        start = tag.empty() ? 0 : params.generation_prompt.rfind(tag);
    if (start == std::string::npos || params.thinking_end_tags.empty()) {
        return false;
    }
    return std::none_of(params.thinking_end_tags.begin(), params.thinking_end_tags.end(), [&](const std::string & tag) {
        return params.generation_prompt.find(tag, start) != std::string::npos;
    });
}

bool closes_thinking(const common_chat_params & params) {
    return !opens_thinking(params) &&
           std::any_of(params.thinking_end_tags.begin(), params.thinking_end_tags.end(), [&](const std::string & tag) {
               return params.generation_prompt.find(tag) != std::string::npos;
           });
}

// The template writes its end differently after a user, a call and a result, so that findings are kept apart by that.
std::string key_of(const ChatRequest & request) {
    std::string key = request.fields;
    if (!request.inputs.messages.empty()) {
        const common_chat_msg & last = request.inputs.messages.back();
        key += '\n' + last.role + (last.content.empty() ? "" : " content") + (last.tool_calls.empty() ? "" : " calls");
    }
    return key;
}

// A grammar under which the model cannot but call: made from a request of its own, for the parser must take prose as well.
std::string required_grammar(const common_chat_templates * templates, const ChatRequest & request) {
    common_chat_templates_inputs inputs = request.inputs;
    inputs.tool_choice                  = COMMON_CHAT_TOOL_CHOICE_REQUIRED;
    inputs.continue_final_message       = COMMON_CHAT_CONTINUATION_NONE;
    common_chat_msg question;
    question.role    = "user";
    question.content = "?";
    inputs.messages  = {question};
    if (!request.call_only.empty()) {
        const auto is_other = [&](const common_chat_tool & tool) { return tool.name != request.call_only; };
        inputs.tools.erase(std::remove_if(inputs.tools.begin(), inputs.tools.end(), is_other), inputs.tools.end());
        require(!inputs.tools.empty(), OLM_E_INVALID_ARGUMENT, "\"call_only\" names no tool");
    }
    try {
        return call_grammar(common_chat_templates_apply(templates, inputs));
    } catch (const std::exception &) {
        return "";  // some templates cannot be held to calls: the answer is worth more than the promise
    }
}

std::string derived_json(const olm_chat & chat, const ChatRequest & request, const Derived & found) {
    const common_chat_params & params = found.params;
    common_json triggers = common_json::array();
    for (const common_grammar_trigger & trigger : params.grammar_triggers) {
        triggers.push_back({{"type", std::string(trigger_name(trigger.type))}, {"value", trigger.value}});
    }
    const bool  lazy      = !request.must_call;
    common_json out       = common_json::object();
    out["grammar"]        = request.must_call ? required_grammar(chat.templates.get(), request) : params.grammar;
    out["grammar_lazy"]   = lazy;
    out["triggers"]       = triggers;
    out["preserved_tokens"]  = params.preserved_tokens;
    out["stops"]             = params.additional_stops;
    out["supports_thinking"] = params.supports_thinking;
    out["thinking_start"]    = params.thinking_start_tag;
    out["thinking_ends"]     = params.thinking_end_tags;
    out["thinking_is_open"]  = opens_thinking(params);
    out["thinking_is_over"]  = closes_thinking(params);
    out["is_plain"]          = found.is_plain;
    out["parser"]            = parser_json(params, request.inputs);
    return out.dump_safe();
}

// The answer: the prompt in front of what is derived.
std::string answer(const std::string & prompt, const std::string & derived) {
    return "{\"prompt\":" + common_json::make(prompt).dump_safe() + "," + derived.substr(1);
}

// Some templates open the thinking at the end of every prompt, asked for an answer or not: to the library that is no
// generation prompt, and it would take the thinking for content.
void open_as_prompt_does(common_chat_params & params) {
    const std::string & tag = params.thinking_start_tag;
    if (!params.generation_prompt.empty() || tag.empty()) {
        return;
    }
    const size_t last = params.prompt.find_last_not_of(" \t\n\r");
    if (last != std::string::npos && ends_with(params.prompt.substr(0, last + 1), tag)) {
        params.generation_prompt = params.prompt.substr(last + 1 - tag.size());
    }
}

std::shared_ptr<Derived> derive(const olm_chat & chat, const ChatRequest & request, const std::string * prompt) {
    auto found = std::make_shared<Derived>();
    found->key = key_of(request);
    try {
        found->params = common_chat_templates_apply(chat.templates.get(), request.inputs);
    } catch (const std::exception & error) {
        if (prompt == nullptr || is_out_of_memory(error)) {
            throw template_error(error);
        }
        // The template renders, but the library cannot tell what its answers look like: they are all content.
        found->params        = common_chat_params();
        found->params.prompt = *prompt;
    }
    open_as_prompt_does(found->params);
    found->is_plain = prompt != nullptr && found->params.prompt != *prompt;
    found->json     = derived_json(chat, request, *found);
    return found;
}

const common_chat_template & choose(olm_chat & chat, const ChatRequest & request) {
    return chat.tool_use && !request.inputs.tools.empty() ? *chat.tool_use : *chat.plain;
}

std::string own_prompt(olm_chat & chat, const ChatRequest & request, bool with_end) {
    common_chat_templates_inputs inputs = request.inputs;
    inputs.add_generation_prompt        = with_end;
    const llama_vocab * vocab           = chat.model->vocab();
    try {
        return render_prompt(choose(chat, request), inputs, llama_vocab_get_add_bos(vocab), llama_vocab_get_add_eos(vocab));
    } catch (const Error &) {
        throw;
    } catch (const std::exception & error) {
        throw template_error(error);
    }
}

// A finding may be used again when the prompt ends as it did; no end at all must be proven by a second rendering.
bool fits(olm_chat & chat, const ChatRequest & request, const Derived & found, const std::string & prompt) {
    const std::string & end = found.params.generation_prompt;
    if (!end.empty() || !request.inputs.add_generation_prompt) {
        return ends_with(prompt, end);
    }
    return own_prompt(chat, request, false) == prompt;
}

std::vector<std::shared_ptr<const Derived>> known(olm_chat & chat, const std::string & key) {
    const std::lock_guard<std::mutex> hold(chat.lock);
    std::vector<std::shared_ptr<const Derived>> found;
    std::copy_if(chat.derived.begin(), chat.derived.end(), std::back_inserter(found),
                 [&](const auto & item) { return item->key == key; });
    return found;
}

void remember(olm_chat & chat, std::shared_ptr<const Derived> found) {
    const std::lock_guard<std::mutex> hold(chat.lock);
    const auto at = std::find(chat.derived.begin(), chat.derived.end(), found);
    if (at != chat.derived.end()) {
        chat.derived.erase(at);
    }
    chat.derived.push_front(std::move(found));
    if (chat.derived.size() > MAX_DERIVED) {
        chat.derived.pop_back();
    }
}

}  // namespace

std::string render_chat(olm_chat & chat, const ChatRequest & request, bool fresh) {
    const bool continues = request.inputs.continue_final_message != COMMON_CHAT_CONTINUATION_NONE;
    if (fresh || continues) {
        const auto found = derive(chat, request, nullptr);
        return answer(found->params.prompt, found->json);
    }
    const auto earlier = known(chat, key_of(request));
    for (const auto & found : earlier) {
        if (found->is_plain) {
            const auto again = derive(chat, request, nullptr);
            return answer(again->params.prompt, again->json);
        }
    }
    const std::string prompt = own_prompt(chat, request, request.inputs.add_generation_prompt);
    for (const auto & found : earlier) {
        if (fits(chat, request, *found, prompt)) {
            remember(chat, found);
            return answer(prompt, found->json);
        }
    }
    const auto found = derive(chat, request, &prompt);
    remember(chat, found);
    return answer(found->params.prompt, found->json);
}

}  // namespace olm
