/* Chat templates: from messages to a prompt, and from generated text back to a message. Uses llama.cpp's chat library. */

typedef struct olm_chat olm_chat;
typedef struct olm_chat_parser olm_chat_parser;

/* `jinja` NULL: the template in the GGUF. Thread-safe once made. */
int olm_chat_new(olm_model *model, const char *jinja, olm_chat **out);
void olm_chat_free(olm_chat *chat);

/* JSON: {source, explicit, supports_thinking, caps: {name: bool}}. */
int olm_chat_caps_json(olm_chat *chat, char **out);

/* Render. JSON in, only messages required:
 *   {"messages": [OpenAI form], "tools": [OpenAI form], "tool_choice": "auto"|"required"|"none",
 *    "call_only": name of the tool that must be called (with required), "parallel_tool_calls": bool,
 *    "add_generation_prompt": true, "continue_final_message": bool, "enable_thinking": bool,
 *    "reasoning_format": "auto"|"none"|"deepseek", "chat_template_kwargs": object,
 *    "fresh": true asks the library for everything, and keeps nothing}
 * JSON out:
 *   {"prompt", "grammar": GBNF of the calls, "grammar_lazy": it waits for a trigger (not with required),
 *    "triggers": [{type, value}],
 *    "preserved_tokens": [], "stops": [], "supports_thinking", "thinking_start", "thinking_ends": [],
 *    "thinking_is_open": the prompt's end has opened it, "thinking_is_over": and closed it,
 *    "is_plain": the library has rendered it, for our own way to this template's prompt is another one,
 *    "parser": {...}  to be handed to the functions below as it is}
 * What does not depend on the messages is kept for later calls. */
int olm_chat_apply(olm_chat *chat, const char *json, char **out);

/* Parse generated text as the library does, all of it each time. `parser` is the object of olm_chat_apply as JSON.
 * is_partial: more text will come. JSON out: {content, reasoning_content, tool_calls: [{id, name, arguments}], complete:
 * bool}. With is_partial 0 a text that does not match is no error: complete is false and all of it stands in content. */
int olm_chat_parse(const char *parser, const char *text, size_t n_bytes, int is_partial, char **out);

/* The parser of one answer, as it comes: its cost does not grow with the length. One thread at a time. */
int olm_chat_parser_new(const char *parser, olm_chat_parser **out);
void olm_chat_parser_free(olm_chat_parser *parser);

/* The next text, whole UTF-8 characters. `out` is NULL for no news, else JSON [[kind, text, id], ...]: "c" content, "t"
 * thinking, "s" a call begins (text: its name, id: its id or ""), "a" more of its arguments, "e" it ends, "b" it breaks off
 * (text: how it was written), "m" text of a call that could not be read. No text is ever taken back. */
int olm_chat_parser_push(olm_chat_parser *parser, const char *text, size_t n_bytes, int is_final, char **out);
