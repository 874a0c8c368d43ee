/* Compares 64 bytes at once, in vectors where the machine surely has them. */
#ifndef STREAMSAVE_BZIP2_EQUAL_H
#define STREAMSAVE_BZIP2_EQUAL_H

#include <stdint.h>

#if defined __SSE2__ && !defined SS_PORTABLE
#include <emmintrin.h>

/* Bit i tells whether a[i] == b[i]. */
static inline uint64_t ss_equal(const uint8_t *a, const uint8_t *b)
{
    uint64_t mask = 0;
    for (int i = 3; i >= 0; i--) {
        __m128i left = _mm_loadu_si128((const __m128i *)(const void *)(a + 16 * i));
        __m128i right = _mm_loadu_si128((const __m128i *)(const void *)(b + 16 * i));
        mask = mask << 16 | (uint32_t)_mm_movemask_epi8(_mm_cmpeq_epi8(left, right));
    }
    return mask;
}

#else

static inline uint64_t ss_load_le64(const uint8_t *p)
{
    uint64_t value = 0;
    for (int i = 7; i >= 0; i--)
        value = value << 8 | p[i];
    return value;
}

static inline uint64_t ss_equal(const uint8_t *a, const uint8_t *b)
{
    const uint64_t low = 0x7f7f7f7f7f7f7f7f;
    uint64_t mask = 0;
    for (int i = 7; i >= 0; i--) {
        uint64_t x = ss_load_le64(a + 8 * i) ^ ss_load_le64(b + 8 * i);
        uint64_t zeros = ~(((x & low) + low) | x | low) >> 7; /* one in each byte that is zero in x */
        mask = mask << 8 | (zeros * 0x0102040810204080) >> 56;
    }
    return mask;
}

#endif
#endif
