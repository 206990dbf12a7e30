/* olm's engine over llama.cpp: the C interface. The declarations are in ../decl, one file per concern, so that cffi
 * and the compiler read the same text. */
#ifndef OLM_ENGINE_H
#define OLM_ENGINE_H

#include <stddef.h>
#include <stdint.h>

#include "olm_errors.h"

#define OLM_ABI_VERSION 1

#ifdef __cplusplus
extern "C" {
#endif
#pragma GCC visibility push(default)

#include "../decl/core.h"
#include "../decl/model.h"
#include "../decl/chat.h"
#include "../decl/engine.h"
#include "../decl/quantize.h"
#include "../decl/imatrix.h"
#include "../decl/testing.h"

#pragma GCC visibility pop
#ifdef __cplusplus
}
#endif

#endif
