/* Importance matrices: how large the numbers are that each column of a weight is multiplied with, gathered while the model
 * reads a text. What is gathered, under which names, is llama.cpp's llama-imatrix'. One thread at a time. */

typedef struct olm_imatrix olm_imatrix;

/* A context for it. JSON, all optional:
 *   {"n_ctx": 512 (tokens of a chunk; 16 at least), "n_chunks": 1 (chunks read side by side), "n_threads": 0 (physical cores)}
 * `cancel` may be NULL; it is looked at between the operations of a graph and must outlive the object.
 * INVALID_ARGUMENT: n_ctx beyond what the model was trained for. NOT_SUPPORTED: an encoder with a decoder. */
int olm_imatrix_new(olm_model *model, const char *json, const volatile int32_t *cancel, olm_imatrix **out);
void olm_imatrix_free(olm_imatrix *imatrix);

/* Read chunks, each n_ctx tokens that know nothing of the others; where the model has such a token, a chunk's first becomes BOS.
 * n_tokens: a multiple of n_ctx, n_chunks times n_ctx at most. Blocks.
 * CANCELLED, or DECODE when the model computes numbers that are not finite: nothing may be read after these. */
int olm_imatrix_read(olm_imatrix *imatrix, const int32_t *tokens, size_t n_tokens);

/* What has been gathered. JSON array, sorted by name: {"name": the tensor's, "n_values": columns times matrices,
 * "n_counts": 1, or one for each expert}. */
int olm_imatrix_entries_json(olm_imatrix *imatrix, char **out);

/* Of one entry, into the caller's memory of the sizes told: the sums of squares, and of how many rows each is. */
int olm_imatrix_entry(olm_imatrix *imatrix, const char *name, float *sums, float *counts);
