/* The one table of error codes. The order is the interface: append only. Python's half is in olm/native/lib.py. */
#ifndef OLM_ERRORS_H
#define OLM_ERRORS_H

#define OLM_ERROR_TABLE(X) \
    X(OK)                  \
    X(INVALID_ARGUMENT)    \
    X(NOT_INITIALIZED)     \
    X(BACKEND)             \
    X(MODEL_LOAD)          \
    X(CANCELLED)           \
    X(ADAPTER)             \
    X(VOCABULARY)          \
    X(TEMPLATE)            \
    X(PARSE)               \
    X(CONTEXT)             \
    X(PROMPT_TOO_LONG)     \
    X(NOT_SUPPORTED)       \
    X(DUPLICATE_ID)        \
    X(NO_ROOM)             \
    X(DECODE)              \
    X(STOPPED)             \
    X(OUT_OF_MEMORY)       \
    X(INTERNAL)

#define OLM_ERROR_ENUM(name) OLM_E_##name,
enum { OLM_ERROR_TABLE(OLM_ERROR_ENUM) OLM_ERROR_COUNT };
#undef OLM_ERROR_ENUM

#endif
