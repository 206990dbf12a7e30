// From messages to the prompt by the template alone. The library does this too, but only together with the analysis of
// the template and with two more renderings: here is what it does to messages first, step by step in its order
// (llama.cpp common/chat.cpp and common/parsers/*.cpp at the pinned version). A test holds every step to the library's.
#include <algorithm>
#include <chrono>
#include <ctime>
#include <map>
#include <optional>

#include "chat.hpp"
#include "parsers/parsers.h"

namespace olm {

namespace {

bool contains(const std::string & text, const char * part) {
    return text.find(part) != std::string::npos;
}

std::string trimmed(const std::string & text) {
    static const char * const BLANKS = " \t\n\r\f\v";
    const size_t first = text.find_first_not_of(BLANKS);
    return first == std::string::npos ? "" : text.substr(first, text.find_last_not_of(BLANKS) - first + 1);
}

bool has_calls(const common_json & message) {
    return message.contains("tool_calls") && message.at("tool_calls").is_array() && !message.at("tool_calls").empty();
}

// Templates that know content only as a list of parts.
void split_into_parts(common_json & messages) {
    for (auto & message : messages) {
        if (message.contains("content") && message.at("content").is_string()) {
            common_json part = common_json::object();
            part["type"]     = "text";
            part["text"]     = message.at("content").get<std::string>();
            common_json parts = common_json::array();
            parts.push_back(part);
            message["content"] = parts;
        }
    }
}

// Templates without a system role: its text goes in front of the next message.
void fold_system(common_json & messages) {
    if (messages.empty() || messages.front().at("role") != "system") {
        return;
    }
    if (messages.size() > 1) {
        messages[1]["content"] = messages.front().at("content").get<std::string>() + "\n" +
                                 messages[1].at("content").get<std::string>();
    }
    messages.erase(0);
}

void parse_arguments(common_json & messages) {
    for (auto & message : messages) {
        if (!message.contains("tool_calls")) {
            continue;
        }
        for (auto & call : message["tool_calls"]) {
            auto & arguments = call["function"]["arguments"];
            if (arguments.is_string()) {
                try {
                    arguments = common_json::parse(arguments.get<std::string>());
                } catch (const common_json_error & error) {
                    throw Error(OLM_E_INVALID_ARGUMENT, std::string("a tool call's arguments are no JSON: ") + error.what());
                }
            }
        }
    }
}

common_json messages_json(const common_chat_template & tmpl, const std::vector<common_chat_msg> & given) {
    const auto & source = tmpl.source();
    const auto   caps   = tmpl.original_caps();
    const bool   trims  = contains(source, "You have access to the following functions in JSONSchema format");  // StepFun

    common_json messages = common_json::array();
    for (const common_chat_msg & message : given) {
        if (!trims) {
            messages.push_back(message.to_json_oaicompat(false));
            continue;
        }
        common_chat_msg copy   = message;
        copy.content           = trimmed(copy.content);
        copy.reasoning_content = trimmed(copy.reasoning_content);
        messages.push_back(copy.to_json_oaicompat(false));
    }
    if (!caps.supports_string_content && caps.supports_typed_content) {
        split_into_parts(messages);
    }
    if (!contains(source, "<|channel|>")) {
        for (auto & message : messages) {
            if (message.at("role") == "developer") {
                message["role"] = "system";
            }
        }
    }
    if (!caps.supports_system_role) {
        fold_system(messages);
    }
    if (caps.supports_object_arguments) {
        parse_arguments(messages);
    }
    return messages;
}

// -- what families do on top -------------------------------------------------------------------------------------

// gpt-oss and LFM2 read reasoning from "thinking"; gpt-oss has no content beside calls that were thought about.
common_json with_thinking_field(const common_json & messages, bool drop_content) {
    common_json adjusted = messages;
    for (auto & message : adjusted) {
        if (message.contains("reasoning_content") && message.at("reasoning_content").is_string()) {
            message["thinking"] = message.at("reasoning_content");
            if (drop_content && has_calls(message)) {
                message.erase("content");
            }
        }
    }
    return adjusted;
}

// Ministral 3 knows thinking and text as parts of the content.
common_json with_thinking_parts(const common_json & messages) {
    common_json adjusted = messages;
    for (auto & message : adjusted) {
        const std::string role = message.value("role", "");
        if (role != "system" && role != "assistant") {
            continue;
        }
        common_json parts = common_json::array();
        if (message.contains("reasoning_content") && message.at("reasoning_content").is_string()) {
            parts.push_back({{"type", "thinking"}, {"thinking", message.at("reasoning_content").get<std::string>()}});
        }
        if (message.contains("content")) {
            if (message.at("content").is_string()) {
                parts.push_back({{"type", "text"}, {"text", message.at("content").get<std::string>()}});
            } else if (message.at("content").is_array()) {
                const common_json blocks = message.at("content");
                parts.insert(blocks);
            }
        }
        message["content"] = parts;
        message.erase("reasoning_content");
    }
    return adjusted;
}

// DeepSeek V4 wants the results of a round in the order of its calls.
common_json with_sorted_results(const common_json & messages) {
    common_json                        adjusted = messages;
    std::map<std::string, size_t>      order;
    size_t                             at = 0;
    while (at < adjusted.size()) {
        const std::string role = adjusted[at].value("role", "");
        if (role == "assistant" && has_calls(adjusted[at])) {
            order.clear();
            const auto & calls = adjusted[at].at("tool_calls");
            for (size_t n = 0; n < calls.size(); ++n) {
                const std::string id = calls[n].value("id", "");
                if (!id.empty()) {
                    order[id] = n;
                }
            }
        }
        if (role != "user" && role != "tool") {
            ++at;
            continue;
        }
        std::vector<size_t>      places;
        std::vector<common_json> results;
        for (; at < adjusted.size(); ++at) {
            const std::string next = adjusted[at].value("role", "");
            if (next == "tool") {
                places.push_back(at);
                results.push_back(adjusted[at]);
            } else if (next != "user") {
                break;
            }
        }
        if (order.empty()) {
            continue;
        }
        const auto rank = [&](const common_json & message) {
            const auto found = order.find(message.value("tool_call_id", ""));
            return found == order.end() ? size_t(0) : found->second;
        };
        std::stable_sort(results.begin(), results.end(),
                         [&](const common_json & a, const common_json & b) { return rank(a) < rank(b); });
        for (size_t n = 0; n < places.size(); ++n) {
            adjusted[places[n]] = std::move(results[n]);
        }
    }
    return adjusted;
}

// The library's own ways of telling families apart, in its order.
std::optional<common_json> adjusted_messages(const std::string & source, common_json & messages) {
    if (contains(source, "[SYSTEM_PROMPT]") && contains(source, "[TOOL_CALLS]") && contains(source, "[ARGS]") &&
        !contains(source, "[CALL_ID]")) {
        return with_thinking_parts(messages);
    }
    if (contains(source, "<|channel|>")) {
        return with_thinking_field(messages, true);
    }
    if (is_lfm2_template(source) || contains(source, "List of tools: [")) {
        return with_thinking_field(messages, false);
    }
    if (contains(source, "dsml_token") && contains(source, "DSML") && !contains(source, "function_calls")) {
        return with_sorted_results(messages);
    }
    if (contains(source, "'<|tool_call>call:'") && !contains(source, "{#- OpenAI Chat Completions:")) {
        workaround::convert_tool_responses_gemma4(messages);  // older templates of Gemma 4
    }
    return std::nullopt;
}

std::string day(const char * format) {
    const std::time_t now = std::chrono::system_clock::to_time_t(std::chrono::system_clock::now());
    std::tm           local{};
    localtime_r(&now, &local);
    char text[64];
    return std::string(text, std::strftime(text, sizeof(text), format, &local));
}

}  // namespace

std::string render_prompt(const common_chat_template & tmpl, const common_chat_templates_inputs & inputs, bool add_bos,
                          bool add_eos) {
    autoparser::generation_params params;
    params.messages              = messages_json(tmpl, inputs.messages);
    params.tools                 = common_chat_tools_to_json_oaicompat(inputs.tools);
    params.enable_thinking       = inputs.enable_thinking;
    params.add_generation_prompt = inputs.add_generation_prompt;
    params.add_bos               = add_bos;
    params.add_eos               = add_eos;
    params.extra_context         = common_json::object();
    params.extra_context["datetime"]    = day("%b %d %Y");
    params.extra_context["date_string"] = day("%d %b %Y");
    for (const auto & [name, value] : inputs.chat_template_kwargs) {
        params.extra_context[name] = common_json::parse(value);
    }
    const auto  adjusted = adjusted_messages(tmpl.source(), params.messages);
    std::string prompt   = common_chat_template_direct_apply_impl(tmpl, params, adjusted);
    if (inputs.add_generation_prompt && contains(tmpl.source(), "'<|tool_call>call:'") &&
        prompt.size() >= 8 && prompt.compare(prompt.size() - 8, 8, "<turn|>\n") == 0) {
        prompt += "<|turn>model\n";  // Gemma 4 forgets the answer's beginning after a call
    }
    return prompt;
}

}  // namespace olm
