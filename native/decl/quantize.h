/* Rows of weights from one ggml type into another, and llama.cpp's choice of types. Pure functions: any thread, no backend needed.
 * Types are ggml's numbers (enum ggml_type). */

/* Convert n_rows rows of n_per_row elements. Any type with values in, any type that llama.cpp can write out; `src` need not be aligned.
 * imatrix: n_per_row weights, or NULL. `cancel` is looked at every few thousand elements and may be NULL: CANCELLED.
 * *n_bad: how many elements are not finite, before or after (a BF16 beyond F16's range); of them nothing is promised.
 * INVALID_ARGUMENT: a type that cannot be read or written, rows that do not divide into blocks, or no imatrix where the
 * type needs one. */
int olm_rows_convert(int from, const void *src, int to, void *dst, int64_t n_rows, int64_t n_per_row, const float *imatrix,
                     const volatile int32_t *cancel, int64_t *n_bad);

/* The type of each tensor in a file of type `ftype` (enum llama_ftype), as llama-quantize chooses without an importance matrix. JSON:
 *   {"architecture", "ftype", "n_embd", "n_ff", "n_layer", "n_head", "n_head_kv", "n_expert", "head_k", "head_v",
 *    "is_70b": bool (upstream's LLM_TYPE_70B), "pure": bool, "keep_output": bool (leave output.weight as it is),
 *    "output_type": number, "embedding_type": number (-1: not said),
 *    "overrides": [{"pattern": ECMAScript regex, "type": number}],
 *    "tensors": [{"name", "type": number, "shape": [fastest dimension first]}]}
 * Out: JSON array, one for each tensor: {"type": number, "quantizable": bool}. The order of tensors matters: layer, then name. */
int olm_quantize_types(const char *json, char **out);
