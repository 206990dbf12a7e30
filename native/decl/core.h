/* Start-up, errors, logs, devices. Read by cffi as it is (so: no preprocessor lines) and by C++ through olm_engine.h.
 *
 * Every function returns a code of olm_errors.h, 0 for success, unless it says otherwise. After a failure
 * olm_last_error() of the same thread holds one line for the user. Exceptions never leave the library.
 * A `char **out` receives a NUL-terminated UTF-8 text owned by the caller: free it with olm_free().
 */

/* One line about the last failure on this thread; "" when there was none. Valid until the thread's next call. */
const char *olm_last_error(void);

/* The error table: codes run from 0 to olm_error_count() - 1. An unknown code gives NULL. */
int olm_error_count(void);
const char *olm_error_name(int code);

/* Version of this interface; the Python side refuses another. */
int olm_abi_version(void);

void olm_free(void *memory);

/* Load backends by explicit path; nothing is ever searched for. Call once, before anything else; a second call adds
 * the backends it names. JSON:
 *   {"cpu": "/…/libggml-cpu-haswell.so",    the CPU variant; may be left out when one is registered already
 *    "backends": ["/…/libggml-cuda.so"],    plug-ins; one that does not load is an error
 *    "guidance": "/…/llguidance/_lib.abi3.so"}  for constraints; loaded when the first one comes */
int olm_init(const char *json);

/* JSON array: {name, description, type: cpu|gpu|igpu|accel|meta, backend, device_id, memory_free_bytes, memory_total_bytes}. */
int olm_devices_json(char **out);

/* JSON array of the last warnings and errors of llama.cpp, oldest first: {level: "warn"|"error", text}. */
int olm_log_json(char **out);
