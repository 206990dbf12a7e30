// Repairs _tile_loadconfig for gcc. Force-included (-include) into the CPU variants that use AMX; see docs/native.md.
//
// gcc declares the operand of its intrinsic as one pointer-sized memory input,
//     __asm__ volatile ("ldtilecfg\t%X0" :: "m" (*((const void **)__config)));
// while the instruction reads 64 bytes. Up to gcc 12 at least the optimiser therefore drops the stores to the bytes behind
// the first eight, the tiles stay unconfigured, and the first tile instruction dies with SIGILL. Declaring all 64 bytes as
// input, and memory as clobbered, keeps every store alive. Newer compilers lose nothing by it.
#ifndef OLM_AMX_TILECONFIG_H
#define OLM_AMX_TILECONFIG_H

#if defined(__AMX_TILE__) && defined(__GNUC__) && !defined(__clang__) && defined(__x86_64__)

#include <immintrin.h>

static inline __attribute__((always_inline)) void olm_tile_loadconfig(const void * config) {
    typedef struct {
        unsigned char bytes[64];
    } olm_tile_bytes;
    __asm__ volatile("ldtilecfg\t%X0" : : "m"(*(const olm_tile_bytes *) config) : "memory");
}

#define _tile_loadconfig(config) olm_tile_loadconfig(config)

#endif

#endif
