// Chat templates through llama.cpp's chat library: the only file that includes it.
#include "chat.h"

#include "args.hpp"
#include "errors.hpp"
#include "model.hpp"

struct olm_chat {
    std::shared_ptr<olm::Model> model;  // the templates look at its vocabulary
    common_chat_templates_ptr   templates;
};

namespace olm {

namespace {

// A template is the model's program: what it does wrong is its own error, running out of memory included.
Error template_error(const std::exception & error) {
    // The interpreter wraps what is thrown inside it: only the words tell.
    const std::string what = error.what();
    if (what.find("std::bad_alloc") != std::string::npos || dynamic_cast<const std::length_error *>(&error)) {
        return {OLM_E_TEMPLATE, "the model's chat template needs too much memory"};
    }
    if (is_bare(error)) {
        return {OLM_E_TEMPLATE, "the model's chat template does not parse (" + in_one_line(what) + ")"};
    }
    return {OLM_E_TEMPLATE, in_one_line(what)};
}

const char * trigger_name(common_grammar_trigger_type type) {
    switch (type) {
        case COMMON_GRAMMAR_TRIGGER_TYPE_TOKEN:        return "token";
        case COMMON_GRAMMAR_TRIGGER_TYPE_WORD:         return "word";
        case COMMON_GRAMMAR_TRIGGER_TYPE_PATTERN:      return "pattern";
        case COMMON_GRAMMAR_TRIGGER_TYPE_PATTERN_FULL: return "pattern_full";
    }
    return "unknown";
}

common_chat_continuation continuation_of(const Args & args) {
    return args.flag("continue_final_message", false) ? COMMON_CHAT_CONTINUATION_AUTO : COMMON_CHAT_CONTINUATION_NONE;
}

common_reasoning_format reasoning_format_of(const std::string & name) {
    require(name == "auto" || name == "none" || name == "deepseek" || name == "deepseek-legacy",
            OLM_E_INVALID_ARGUMENT, "\"reasoning_format\" must be auto, none, deepseek or deepseek-legacy");
    return common_reasoning_format_from_name(name);
}

common_chat_tool_choice tool_choice_of(const std::string & name) {
    require(name == "auto" || name == "required" || name == "none", OLM_E_INVALID_ARGUMENT,
            "\"tool_choice\" must be auto, required or none");
    return common_chat_tool_choice_parse_oaicompat(name);
}

common_chat_templates_inputs inputs_of(const Args & args) {
    common_chat_templates_inputs inputs;
    require(args.has("messages"), OLM_E_INVALID_ARGUMENT, "\"messages\" is missing");
    try {
        inputs.messages = common_chat_msgs_parse_oaicompat(args.array("messages"));
        inputs.tools    = common_chat_tools_parse_oaicompat(args.array("tools"));
    } catch (const std::runtime_error & error) {
        throw Error(OLM_E_INVALID_ARGUMENT, error.what());
    }
    inputs.grammar                = args.text("grammar");
    inputs.json_schema            = args.has("json_schema") ? args.object("json_schema").dump() : "";
    inputs.add_generation_prompt  = args.flag("add_generation_prompt", true);
    inputs.continue_final_message = continuation_of(args);
    inputs.tool_choice            = tool_choice_of(args.text("tool_choice", "auto"));
    inputs.parallel_tool_calls    = args.flag("parallel_tool_calls", true);
    inputs.reasoning_format       = reasoning_format_of(args.text("reasoning_format", "auto"));
    inputs.enable_thinking        = args.flag("enable_thinking", true);
    const common_json extra = args.object("chat_template_kwargs");
    for (const auto & [key, value] : extra.items()) {
        inputs.chat_template_kwargs[key] = value.dump();
    }
    if (args.has("now_s")) {
        inputs.now = std::chrono::system_clock::time_point(
            std::chrono::seconds(args.integer("now_s", 0, INT32_MIN, UINT32_MAX)));
    }
    return inputs;
}

common_json parser_of(const common_chat_params & params, const common_chat_templates_inputs & inputs) {
    common_json parser           = common_json::object();
    parser["format"]             = static_cast<int>(params.format);
    parser["generation_prompt"]  = params.generation_prompt;
    parser["reasoning_format"]   = std::string(common_reasoning_format_name(inputs.reasoning_format));
    parser["parse_tool_calls"]   = inputs.tool_choice != COMMON_CHAT_TOOL_CHOICE_NONE;
    parser["is_continuation"]    = inputs.continue_final_message != COMMON_CHAT_CONTINUATION_NONE;
    parser["arena"]              = params.parser;
    return parser;
}

common_json rendered(const common_chat_params & params, const common_chat_templates_inputs & inputs) {
    common_json triggers = common_json::array();
    for (const common_grammar_trigger & trigger : params.grammar_triggers) {
        triggers.push_back({{"type", std::string(trigger_name(trigger.type))},
                            {"value", trigger.value},
                            {"token", static_cast<int>(trigger.token)}});
    }
    common_json out           = common_json::object();
    out["prompt"]             = params.prompt;
    out["grammar"]            = params.grammar;
    out["grammar_lazy"]       = params.grammar_lazy;
    out["triggers"]           = triggers;
    out["preserved_tokens"]   = params.preserved_tokens;
    out["stops"]              = params.additional_stops;
    out["supports_thinking"]  = params.supports_thinking;
    out["thinking_start"]     = params.thinking_start_tag;
    out["thinking_ends"]      = params.thinking_end_tags;
    out["parser"]             = parser_of(params, inputs);
    return out;
}

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

common_chat_parser_params parser_params(const Args & args) {
    common_chat_parser_params params;
    params.format = static_cast<common_chat_format>(args.integer("format", 0, 0, COMMON_CHAT_FORMAT_COUNT - 1));
    params.generation_prompt = args.text("generation_prompt");
    params.reasoning_format  = reasoning_format_of(args.text("reasoning_format", "auto"));
    params.parse_tool_calls  = args.flag("parse_tool_calls", true);
    params.is_continuation   = args.flag("is_continuation", false);
    const std::string arena  = args.text("arena");
    if (!arena.empty()) {
        params.parser.load(arena);
    }
    return params;
}

common_json parse(const common_chat_parser_params & params, const std::string & text, bool is_partial) {
    if (is_partial) {
        return as_json(common_chat_parse(text, true, params), false);
    }
    try {
        return as_json(common_chat_parse(text, false, params), true);
    } catch (const std::exception &) {
        // The tokens are paid for: what can be read is given, and otherwise the whole text as content.
    }
    try {
        common_chat_msg message = common_chat_parse(text, true, params);
        if (!message.empty()) {
            return as_json(message, false);
        }
    } catch (const std::exception &) {
    }
    common_chat_msg message;
    message.content = text;
    return as_json(message, false);
}

}  // namespace

}  // namespace olm

int olm_chat_new(olm_model * model, const char * jinja, olm_chat ** out) {
    return olm::guard([&] {
        olm::require(model && out, OLM_E_INVALID_ARGUMENT, "a pointer is NULL");
        auto chat   = std::make_unique<olm_chat>();
        chat->model = model->model;
        try {
            chat->templates = common_chat_templates_init(model->model->llama(), jinja == nullptr ? "" : jinja);
        } catch (const std::exception & error) {
            throw olm::template_error(error);
        }
        *out = chat.release();
    });
}

void olm_chat_free(olm_chat * chat) {
    delete chat;
}

int olm_chat_caps_json(olm_chat * chat, char ** out) {
    return olm::guard([&] {
        olm::require(chat && out, OLM_E_INVALID_ARGUMENT, "a pointer is NULL");
        common_json all = common_json::object();
        common_json caps = common_json::object();
        for (const auto & [name, value] : common_chat_templates_get_caps(chat->templates.get())) {
            caps[name] = value;
        }
        all["source"]            = common_chat_templates_source(chat->templates.get());
        all["explicit"]          = common_chat_templates_was_explicit(chat->templates.get());
        all["supports_thinking"] = common_chat_templates_support_enable_thinking(chat->templates.get());
        all["caps"]              = caps;
        *out = olm::copy_text(all.dump_safe());
    });
}

int olm_chat_apply(olm_chat * chat, const char * json, char ** out) {
    return olm::guard([&] {
        olm::require(chat && out, OLM_E_INVALID_ARGUMENT, "a pointer is NULL");
        const auto inputs = olm::inputs_of(olm::Args(json));
        common_chat_params params;
        try {
            params = common_chat_templates_apply(chat->templates.get(), inputs);
        } catch (const std::exception & error) {
            throw olm::template_error(error);
        }
        *out = olm::copy_text(olm::rendered(params, inputs).dump_safe());
    });
}

int olm_chat_parse(const char * parser, const char * text, size_t n_bytes, int is_partial, char ** out) {
    return olm::guard([&] {
        olm::require(parser && text && out, OLM_E_INVALID_ARGUMENT, "a pointer is NULL");
        const auto params = olm::parser_params(olm::Args(parser));
        try {
            *out = olm::copy_text(olm::parse(params, std::string(text, n_bytes), is_partial != 0).dump_safe());
        } catch (const std::exception & error) {
            throw olm::Error(OLM_E_PARSE, error.what());
        }
    });
}
