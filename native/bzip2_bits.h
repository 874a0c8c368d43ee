/* Bits into bytes, the first bit highest, as bzip2 has them. The caller has made sure of the room. */
#ifndef STREAMSAVE_BZIP2_BITS_H
#define STREAMSAVE_BZIP2_BITS_H

#include <stdint.h>
#include <string.h>

typedef struct {
    uint8_t *out;
    uint64_t bits; /* the newest lowest */
    uint32_t count; /* of those that are not written yet: below 32 between calls */
} ss_bit_writer;

static inline void ss_store_be32(uint8_t *out, uint32_t value)
{
    const uint8_t bytes[4] = {(uint8_t)(value >> 24), (uint8_t)(value >> 16), (uint8_t)(value >> 8), (uint8_t)value};
    memcpy(out, bytes, 4);
}

/* The lowest n bits of value, up to 32; no others are set. */
static inline void ss_put(ss_bit_writer *b, uint32_t value, uint32_t n)
{
    b->bits = b->bits << n | value;
    b->count += n;
    if (b->count >= 32) {
        b->count -= 32;
        ss_store_be32(b->out, (uint32_t)(b->bits >> b->count));
        b->out += 4;
    }
}

/* Up to seven zero bits, to the end of a byte. */
static inline void ss_flush(ss_bit_writer *b)
{
    ss_put(b, 0, -b->count & 7);
    for (; b->count > 0; b->count -= 8)
        *b->out++ = (uint8_t)(b->bits >> (b->count - 8));
}

#endif
