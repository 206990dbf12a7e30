// The C interface of chat templates, through llama.cpp's chat library. Rendering: chat_render; parsing: chat_parser.
#include "chat.hpp"

namespace olm {

namespace {

// The library's own reading of special tokens, for templates that print them.
std::string token_text(const Model & model, llama_token token) {
    return token == LLAMA_TOKEN_NULL ? "" : common_token_to_piece(model.vocab(), token, true);
}

std::unique_ptr<common_chat_template> parsed(const Model & model, const std::string & source) {
    return std::make_unique<common_chat_template>(source, token_text(model, llama_vocab_bos(model.vocab())),
                                                  token_text(model, llama_vocab_eos(model.vocab())));
}

// Parse it again for the words of the failure.
void explain(const Model & model, const std::string & source) {
    try {
        parsed(model, source);
    } catch (const std::exception & error) {
        throw template_error(error);
    }
}

void open_chat(olm_chat & chat, const char * jinja) {
    try {
        chat.templates = common_chat_templates_init(chat.model->llama(), jinja == nullptr ? "" : jinja);
        chat.plain     = parsed(*chat.model, common_chat_templates_source(chat.templates.get()));
        const std::string tool_use = common_chat_templates_source(chat.templates.get(), "tool_use");
        if (!tool_use.empty()) {
            chat.tool_use = parsed(*chat.model, tool_use);
        }
    } catch (const std::exception & error) {
        if (is_bare(error) && jinja != nullptr) {
            explain(*chat.model, jinja);  // the library cuts its own errors down to their base class
        }
        throw template_error(error);
    }
}

}  // namespace

}  // namespace olm

int olm_chat_new(olm_model * model, const char * jinja, olm_chat ** out) {
    return olm::guard([&] {
        olm::require(model && out, OLM_E_INVALID_ARGUMENT, "a pointer is NULL");
        auto chat   = std::make_unique<olm_chat>();
        chat->model = model->model;
        olm::open_chat(*chat, jinja);
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
        bool thinks = false;
        try {
            thinks = common_chat_templates_support_enable_thinking(chat->templates.get());
        } catch (const std::exception &) {
            // A template that the library cannot analyse renders all the same; see chat_render.
        }
        all["source"]            = common_chat_templates_source(chat->templates.get());
        all["explicit"]          = common_chat_templates_was_explicit(chat->templates.get());
        all["supports_thinking"] = thinks;
        all["caps"]              = caps;
        *out = olm::copy_text(all.dump_safe());
    });
}

int olm_chat_apply(olm_chat * chat, const char * json, char ** out) {
    return olm::guard([&] {
        olm::require(chat && out, OLM_E_INVALID_ARGUMENT, "a pointer is NULL");
        const olm::Args args(json);
        *out = olm::copy_text(olm::render_chat(*chat, olm::chat_request_of(args), args.flag("fresh", false)));
    });
}
