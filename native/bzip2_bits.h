/* Bits into bytes, the first bit highest, as bzip2 has them. Writes up to SS_BITS_BEHIND bytes behind what was put. */
#ifndef STREAMSAVE_BZIP2_BITS_H
#define STREAMSAVE_BZIP2_BITS_H

#include <stdint.h>
#include <string.h>

#define SS_BITS_BEHIND 8

typedef struct {
    uint8_t *out;
    uint64_t bits; /* the newest lowest */
    uint32_t count; /* of those that are in no whole byte yet: below 8 between calls of ss_drain */
} ss_bit_writer;

/* The lowest n bits of value; no others are set. Up to 56 may be added before they have to be drained. */
static inline void ss_add(ss_bit_writer *b, uint32_t value, uint32_t n)
{
    b->bits = b->bits << n | value;
    b->count += n;
}

static inline void ss_drain(ss_bit_writer *b)
{
    uint64_t bits = b->bits << 1 << (63 - b->count);
    const uint8_t bytes[SS_BITS_BEHIND] = {(uint8_t)(bits >> 56), (uint8_t)(bits >> 48), (uint8_t)(bits >> 40),
                                           (uint8_t)(bits >> 32), (uint8_t)(bits >> 24), (uint8_t)(bits >> 16),
                                           (uint8_t)(bits >> 8), (uint8_t)bits};
    memcpy(b->out, bytes, sizeof bytes);
    b->out += b->count / 8;
    b->count %= 8;
}

static inline void ss_put(ss_bit_writer *b, uint32_t value, uint32_t n)
{
    ss_add(b, value, n);
    ss_drain(b);
}

/* Up to seven zero bits, to the end of a byte. */
static inline void ss_flush(ss_bit_writer *b)
{
    ss_put(b, 0, -b->count % 8);
}

#endif
