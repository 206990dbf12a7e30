/* What the tests need and nobody else: references to compare the engine with, and pure parts of it alone. */

/* Greedy decoding by llama.cpp in the plainest loop: one sequence, one token a step, adapters as loaded. Stops after an end token.
 * `*out` is owned by the caller. n_chunk > 0 splits the prompt. */
int olm_test_greedy(olm_model *model, const int32_t *tokens, size_t n_tokens, int n_predict, int n_chunk, int n_threads,
                    int32_t **out, size_t *n_out);

/* All logits after the last token, [n_vocab], computed at once with an f32 cache and without flash attention: as exact as llama.cpp is.
 * `*out` is owned by the caller. */
int olm_test_logits(olm_model *model, const int32_t *tokens, size_t n_tokens, int n_threads, float **out, size_t *n_out);

/* llama_model_quantize itself, from file to file. JSON: {"in", "out", "ftype", "pure", "keep_output", "allow_requantize", "output_type",
 * "embedding_type" (-1: not said), "overrides": [{"pattern", "type"}], "imatrix": {tensor: [numbers]}}. */
int olm_test_quantize(const char *json);

/* Run chunks of bytes through the text stage. JSON: {"stop": ["…"], "chunks": ["hex…"]};
 * out: {"pieces": ["…"], "stopped": bool, "stop": its place in the list or -1}. */
int olm_test_text(const char *json, char **out);

/* Sample n times from a row of logits as a request with this JSON would, the taken tokens fed back.
 * Out: JSON array of tokens. */
int olm_test_sample(olm_model *model, const char *json, const float *logits, size_t n_logits, int n, char **out);

/* The next `times` decodes of the engine are not run and end with this result (1 no room, -1 invalid, -2 broken). */
int olm_test_fail_decode(olm_engine *engine, int result, int times);

/* The batch that a step would take. JSON: {"items": [{"n_left": 5, "stream": false}], "n_batch": 512, "n_chunk": 128};
 * out: JSON array of tokens for each item. */
int olm_test_plan(const char *json, char **out);
