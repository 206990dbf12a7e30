/* Chat templates: from messages to a prompt, and from generated text back to a message. Uses llama.cpp's chat library. */

typedef struct olm_chat olm_chat;

/* `jinja` NULL: the template in the GGUF. Thread-safe once made. */
int olm_chat_new(olm_model *model, const char *jinja, olm_chat **out);
void olm_chat_free(olm_chat *chat);

/* JSON: {source, explicit, supports_thinking, caps: {name: bool}}. */
int olm_chat_caps_json(olm_chat *chat, char **out);

/* Render. JSON in, only messages required:
 *   {"messages": [OpenAI form], "tools": [OpenAI form], "tool_choice": "auto"|"required"|"none",
 *    "parallel_tool_calls": bool, "json_schema": object, "grammar": "…", "add_generation_prompt": true,
 *    "continue_final_message": bool, "enable_thinking": bool, "reasoning_format": "auto"|"none"|"deepseek",
 *    "chat_template_kwargs": object, "now_s": unix seconds (makes dates in prompts repeatable)}
 * JSON out:
 *   {"prompt", "grammar", "grammar_lazy", "triggers": [{type, value, token}], "preserved_tokens": [], "stops": [],
 *    "thinking_start", "thinking_ends": [], "supports_thinking",
 *    "parser": {...}  to be handed to olm_chat_parse as it is} */
int olm_chat_apply(olm_chat *chat, const char *json, char **out);

/* Parse generated text. `parser` is the object of olm_chat_apply as JSON. is_partial: more text will come.
 * JSON out: {content, reasoning_content, tool_calls: [{id, name, arguments}], complete: bool}. With is_partial 0 a
 * text that does not match is no error: complete is false and what could not be read stands in content. */
int olm_chat_parse(const char *parser, const char *text, size_t n_bytes, int is_partial, char **out);
