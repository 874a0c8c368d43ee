#include "bzip2_front.h"
#include "bzip2_equal.h"

#include <string.h>

/* A loop over bytes: also compiled for wider vectors, where the linker can choose. */
#if defined __x86_64__ && defined __gnu_linux__ && !defined SS_PORTABLE
#define WIDE __attribute__((target_clones("avx2", "default")))
#else
#define WIDE
#endif

/* The bytes that occur, and for each its place among them; returns how many. */
static uint32_t find_used(const uint8_t *data, uint32_t n, uint8_t used[256], uint8_t places[256])
{
    uint32_t count = 0;
    memset(used, 0, 256);
    for (uint32_t i = 0; i < n; i++)
        used[data[i]] = 1;
    for (uint32_t byte = 0; byte < 256; byte++) {
        places[byte] = (uint8_t)(used[byte] ? count : 255);
        count += used[byte];
    }
    return count;
}

/* A run of zeros as a number whose digits are worth 1 and 2: the bits of run + 1 below the highest. May write four more. */
static inline uint16_t *put_run(uint16_t *out, uint32_t run)
{
    uint32_t digits = run + 1;
    for (; digits >= 32; digits >>= 1)
        *out++ = digits & 1;
    for (uint32_t i = 0; i < 4; i++)
        out[i] = digits >> i & 1;
    return out + (31 - __builtin_clz(digits));
}

/* Puts the byte to the front of the list that places is the inverse of; returns where it was. */
static inline uint32_t to_front(uint8_t places[256], uint8_t byte)
{
    uint8_t place = places[byte];
    for (uint32_t i = 0; i < 256; i++) /* all of them: without branches, and in vectors, faster than as many as it takes */
        places[i] = (uint8_t)(places[i] == place ? 0 : places[i] + (places[i] <= place));
    return place;
}

/* Each byte as its place in a list that it then moves to the front of. Zeros,
 * the bytes that are equal to the one before them, are found first, for they need no list. Returns the symbols' end. */
WIDE static uint16_t *move_to_front(const uint8_t *data, uint32_t n, uint8_t places[256], uint16_t *out)
{
    uint32_t next = 0; /* the first byte that no symbol stands for yet */
    if (places[data[0]] > 0) {
        *out++ = (uint16_t)(to_front(places, data[0]) + 1);
        next = 1;
    }
    for (uint32_t start = 1; start < n; start += 64) {
        uint64_t mask = 0;
        if (n - start >= 64)
            mask = ~ss_equal(data + start, data + start - 1);
        else
            for (uint32_t i = start; i < n; i++)
                mask |= (uint64_t)(data[i] != data[i - 1]) << (i - start);
        for (; mask; mask &= mask - 1) {
            uint32_t i = start + (uint32_t)__builtin_ctzll(mask);
            out = put_run(out, i - next);
            *out++ = (uint16_t)(to_front(places, data[i]) + 1);
            next = i + 1;
        }
    }
    return put_run(out, n - next);
}

uint32_t ss_bzip2_move_to_front(const uint8_t *data, uint32_t n, uint8_t used[256], uint16_t *symbols, uint32_t *kinds)
{
    uint8_t places[256];
    *kinds = find_used(data, n, used, places) + 2;
    uint16_t *end = move_to_front(data, n, places, symbols);
    *end++ = (uint16_t)(*kinds - 1); /* the end of the block */
    return (uint32_t)(end - symbols);
}
