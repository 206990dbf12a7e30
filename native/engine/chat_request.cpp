// Reading what is asked of a chat template: messages and tools in OpenAI's form, and the settings around them.
#include "chat.hpp"

namespace olm {

namespace {

common_chat_tool_choice tool_choice_of(const std::string & name) {
    require(name == "auto" || name == "required" || name == "none", OLM_E_INVALID_ARGUMENT,
            "\"tool_choice\" must be auto, required or none");
    return common_chat_tool_choice_parse_oaicompat(name);
}

// "While executing CallExpression at line 3, column 5 in source: <lines of it> Error: words"
std::string at_line(const std::string & what) {
    const size_t line = what.rfind(" at line ");
    const size_t end  = line == std::string::npos ? line : what.find(" in source:", line);
    const size_t word = what.rfind("Error: ");
    if (end == std::string::npos || word == std::string::npos || word < end) {
        return what;
    }
    return "line " + what.substr(line + 9, end - line - 9) + ": " + what.substr(word + 7);
}

}  // namespace

common_reasoning_format reasoning_format_of(const std::string & name) {
    require(name == "auto" || name == "none" || name == "deepseek" || name == "deepseek-legacy",
            OLM_E_INVALID_ARGUMENT, "\"reasoning_format\" must be auto, none, deepseek or deepseek-legacy");
    return common_reasoning_format_from_name(name);
}

bool is_out_of_memory(const std::exception & error) {
    // The interpreter wraps what is thrown inside it: only the words tell.
    return std::string(error.what()).find("std::bad_alloc") != std::string::npos ||
           dynamic_cast<const std::length_error *>(&error) != nullptr;
}

Error template_error(const std::exception & error) {
    const std::string what = error.what();
    if (is_out_of_memory(error)) {
        return {OLM_E_TEMPLATE, "the model's chat template needs too much memory"};
    }
    if (is_bare(error)) {
        return {OLM_E_TEMPLATE, "the model's chat template does not parse (" + in_one_line(what) + ")"};
    }
    return {OLM_E_TEMPLATE, "the model's chat template failed, " + in_one_line(at_line(what))};
}

ChatRequest chat_request_of(const Args & args) {
    ChatRequest request;
    auto &      inputs = request.inputs;
    require(args.has("messages"), OLM_E_INVALID_ARGUMENT, "\"messages\" is missing");
    const common_json tools = args.array("tools");
    try {
        inputs.messages = common_chat_msgs_parse_oaicompat(args.array("messages"));
        inputs.tools    = common_chat_tools_parse_oaicompat(tools);
    } catch (const std::runtime_error & error) {
        throw Error(OLM_E_INVALID_ARGUMENT, error.what());
    }
    inputs.tool_choice           = tool_choice_of(args.text("tool_choice", "auto"));
    inputs.parallel_tool_calls   = args.flag("parallel_tool_calls", true);
    inputs.reasoning_format      = reasoning_format_of(args.text("reasoning_format", "auto"));
    inputs.enable_thinking       = args.flag("enable_thinking", true);
    inputs.add_generation_prompt = args.flag("add_generation_prompt", true);
    if (args.flag("continue_final_message", false)) {
        inputs.continue_final_message = COMMON_CHAT_CONTINUATION_AUTO;
    }
    const common_json extra = args.object("chat_template_kwargs");
    for (const auto & [key, value] : extra.items()) {
        inputs.chat_template_kwargs[key] = value.dump();
    }
    // A call can only be asked for where there are tools: elsewhere the library would promise a grammar of nothing.
    request.must_call = inputs.tool_choice == COMMON_CHAT_TOOL_CHOICE_REQUIRED && !inputs.tools.empty();
    request.call_only = args.text("call_only");
    if (inputs.tool_choice == COMMON_CHAT_TOOL_CHOICE_REQUIRED) {
        // The parser takes what comes, also prose: to hold the model to a call is the grammar's business.
        inputs.tool_choice = COMMON_CHAT_TOOL_CHOICE_AUTO;
    }
    common_json fields            = common_json::object();
    fields["tools"]               = tools;
    fields["tool_choice"]         = args.text("tool_choice", "auto");
    fields["call_only"]           = request.call_only;
    fields["parallel_tool_calls"] = inputs.parallel_tool_calls;
    fields["reasoning_format"]    = args.text("reasoning_format", "auto");
    fields["enable_thinking"]     = inputs.enable_thinking;
    fields["generation_prompt"]   = inputs.add_generation_prompt;
    fields["kwargs"]              = extra;
    request.fields                = fields.dump();
    return request;
}

}  // namespace olm
