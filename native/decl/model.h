/* Weights, vocabulary, adapters. A model may be used by any number of threads; engines and chats keep it alive. */

typedef struct olm_model olm_model;

/* Shared with a loading thread instead of a callback: C writes progress (0..1), the caller may set cancel to 1. */
typedef struct olm_load_state {
    volatile float progress;
    volatile int32_t cancel;
} olm_load_state;

/* Load a GGUF. Blocks. `state` may be NULL; it must outlive the call. JSON, all but path optional:
 *   {"path": "…", "paths": ["…"] (all parts of a split model, instead of path),
 *    "n_gpu_layers": -1, "main_gpu": int (one GPU only), "use_mmap": bool, "use_mlock": bool, "vocab_only": bool,
 *    "check_tensors": bool, "use_extra_bufts": bool (repacked weights),
 *    "adapters": [{"path": "…", "scale": 1.0}],
 *    "override": {"gguf.key": int|float|bool|string}} */
int olm_model_load(const char *json, olm_load_state *state, olm_model **out);
void olm_model_free(olm_model *model);

/* JSON object: arch, description, n_params, size_bytes, n_ctx_train, n_embd, n_embd_out, n_layer, n_head, n_head_kv,
 * n_swa, n_vocab, vocab_type, pooling, can_rank, has_encoder, has_decoder, is_recurrent, is_hybrid, has_chat_template, add_bos,
 * add_eos, bos, eos, eot, sep, add_sep, eog (all end tokens), n_adapters, rerank_template ("" if there is none).
 * Tokens that the vocabulary lacks are -1. */
int olm_model_info_json(olm_model *model, char **out);

/* All scalar metadata as a JSON object of strings. */
int olm_model_meta_json(olm_model *model, char **out);

/* `*tokens` is owned by the caller (olm_free). parse_special: special tokens written in the text are recognised. */
int olm_tokenize(olm_model *model, const char *text, size_t n_bytes, int add_special, int parse_special,
                 int32_t **tokens, size_t *n_tokens);

/* Bytes of the tokens' text, which need not be whole UTF-8; `*text` is owned by the caller. special: show them. */
int olm_detokenize(olm_model *model, const int32_t *tokens, size_t n_tokens, int special, char **text, size_t *n_bytes);
