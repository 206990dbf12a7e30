/* The engine: one thread that decodes many sequences together and never takes Python's lock.
 *
 * An engine belongs to one caller thread (the others may call olm_engine_cancel and olm_engine_pause). No function
 * here waits for a step, but olm_engine_new and olm_engine_free. Request ids are chosen by the caller and must be
 * fresh among those still running.
 */

typedef struct olm_engine olm_engine;

/* JSON, all optional:
 *   {"n_ctx": tokens a request may hold (0: the training context), "n_parallel": 1 (1..64), "n_cells": 0 (n_ctx x n_parallel),
 *    "n_batch": 512, "n_ubatch": 512, "n_chunk": 128 (prompt tokens a step while other streams run),
 *    "n_threads": 0 (physical cores), "n_threads_batch": 0 (n_threads),
 *    "type_k": "f16", "type_v": "f16", "flash_attn": "auto"|"on"|"off", "swa_full": false, "kv_unified": true, "offload_kqv": true,
 *    "rope_freq_base": 0, "rope_freq_scale": 0,
 *    "pooling": "none|mean|cls|last|rank" (for embeddings; default the model's own, else mean)} */
int olm_engine_new(olm_model *model, const char *json, olm_engine **out);

/* Stop the thread, drop everything that runs, free. */
void olm_engine_free(olm_engine *engine);

/* Queue a text request. JSON: the fields of olm.chat.types.Sampling with Ollama's defaults, and
 *   {"adapters": [scale, …] (one for each adapter of the model; left out: as loaded),
 *    "shift": true (context shift when the context is full), "preserved_tokens": ["…"] (specials shown in the text),
 *    "thinking": {"start": "", "ends": ["…"] (tags around thinking), "is_open": false (the prompt has opened it),
 *                 "budget": -1 (tokens of thinking), "close": ends[0] (what is written when they are spent)},
 *    "constraint": {"kind": "lark"|"json_schema"|"regex"|"llguidance", "text": "…",
 *                   "fallback": "" (of the same kind: what holds where "text" cannot be compiled),
 *                   "triggers": [] (texts that begin what must match; none: the content as a whole must),
 *                   "ends": false (with triggers: the answer ends where the grammar does)}}
 * A constraint holds for content, never for thinking. In grammars, preserved tokens are plain text; no other special token
 * can be written. A grammar that cannot be used ends the request with FAILED, INVALID_ARGUMENT and the reason; one with
 * triggers is only a help, so it is given up and counted (n_dropped_constraints).
 * PROMPT_TOO_LONG if n_tokens >= n_ctx; NOT_SUPPORTED for a constraint without llguidance. */
int olm_engine_submit(olm_engine *engine, uint64_t id, const int32_t *tokens, size_t n_tokens, const char *json);

/* Queue n_inputs texts to embed as one request; input i is tokens[offsets[i] .. offsets[i + 1]).
 * JSON: {"normalize": true, "adapters": as for olm_engine_submit}. All of them come back in one EMBEDDING event. */
int olm_engine_embed(olm_engine *engine, uint64_t id, const int32_t *tokens, const uint32_t *offsets, size_t n_inputs,
                     const char *json);

/* End a request within one step; its DONE (reason cancelled) still comes. An unknown id is no error: it may just have ended. */
int olm_engine_cancel(olm_engine *engine, uint64_t id);

/* A paused request keeps its place and takes no steps. */
int olm_engine_pause(olm_engine *engine, uint64_t id, int paused);

/* A descriptor that is readable while a frame waits. Owned by the engine. */
int olm_engine_event_fd(olm_engine *engine, int *fd);

/* Take every event since the last call. Never waits; *size 0 means none. The memory is valid until the next call.
 *
 * A frame is a run of events, little-endian, each a 48-byte header and its parts, padded to 8 bytes:
 *   u32 size of the event with header and padding   u8 kind   u8 reason   u16 code
 *   u64 request id
 *   u32 n_tokens   u32 n_text   u32 n_extra   u32 a   u32 b   u32 c   u32 d   u32 e
 *   i32 tokens[n_tokens], then n_text bytes of UTF-8, then n_extra bytes
 * kinds:
 *   1 PROGRESS   a = prompt tokens done, b = prompt tokens, c = of these cached
 *   2 PIECE      tokens, text; extra = logprobs if asked for
 *   3 DONE       as PIECE for what was held back; reason 0 stop, 1 length, 2 cancelled; a = prompt tokens, b = cached,
 *                c = generated (without the end token), d = the end token + 1 or 0, e = place of the stop string in the
 *                request's "stop" + 1 or 0; then 2 x u64 before the logprobs in extra: prompt_ns, eval_ns
 *   4 FAILED     code = error code, text = message
 *   5 EMBEDDING  a = vectors, b = floats each, c = tokens in all; extra = f32[a][b]
 * logprobs: per token, f32 logprob, u16 n_bytes, u16 n_top, bytes; then n_top times f32 logprob, u16 n_bytes, bytes. */
int olm_engine_next_frame(olm_engine *engine, const uint8_t **data, size_t *size);

/* JSON: n_ctx, n_parallel, n_cells, n_threads, can_generate, n_running, n_waiting, n_paused, n_cached_cells, n_steps, n_prompt_tokens,
 * n_cached_tokens, n_generated_tokens, n_shifts, n_evictions, n_preemptions, n_failed_steps, n_adapter_changes,
 * n_dropped_constraints, decode_ns, sample_ns, memory_bytes. */
int olm_engine_stats_json(olm_engine *engine, char **out);
