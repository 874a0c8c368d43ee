/* See bits.h. */
#include "bits.h"

#include <string.h>

#define NUMBER_BITS 48
#define STRIDE 4
#define OFFSETS 32

static uint64_t load(const uint8_t *p, size_t n)
{
    uint64_t word = 0;
    for (size_t i = 0; i < n; i++)
        word = word << 8 | p[i];
    return word;
}

static void store(uint8_t *p, uint64_t word, size_t n)
{
    for (size_t i = n; i-- > 0; word >>= 8)
        p[i] = (uint8_t)word;
}

/* The 48 bits from bit `from`, which are all there. */
static uint64_t number_at(const uint8_t *data, uint64_t from)
{
    unsigned shift = from % 8;
    size_t width = shift ? 7 : 6;
    return load(data + from / 8, width) >> (8 * width - NUMBER_BITS - shift) & ((UINT64_C(1) << NUMBER_BITS) - 1);
}

/* A number at any bit has five whole bytes, so two of them begin at a multiple of four bytes, at most 31 bits behind its first
 * bit. One look at each such pair, in a table of all that can stand there, leaves one of 500 to look at closely. */
int64_t ss_bits_find(const uint8_t *data, size_t n, uint64_t from, const uint64_t *numbers, size_t count)
{
    uint8_t possible[65536 / 8] = {0};
    for (size_t i = 0; i < count; i++)
        for (unsigned offset = 0; offset < OFFSETS; offset++) {
            unsigned pair = numbers[i] >> (NUMBER_BITS - 16 - offset) & 0xffff;
            possible[pair >> 3] |= (uint8_t)(1 << (pair & 7));
        }
    uint64_t bits = (uint64_t)n * 8;
    for (uint64_t p = (from / 8 + (from % 8 != 0) + STRIDE - 1) / STRIDE * STRIDE; p + 1 < n; p += STRIDE) {
        unsigned pair = (unsigned)data[p] << 8 | data[p + 1];
        if (!(possible[pair >> 3] >> (pair & 7) & 1))
            continue;
        for (unsigned offset = OFFSETS; offset-- > 0;) {
            uint64_t start = 8 * p - offset;
            if (8 * p < from + offset || start + NUMBER_BITS > bits)
                continue;
            uint64_t number = number_at(data, start);
            for (size_t i = 0; i < count; i++)
                if (number == numbers[i])
                    return (int64_t)start;
        }
    }
    return -1;
}

static void copy_few(uint8_t *target, uint64_t to, const uint8_t *source, uint64_t from, unsigned length)
{
    uint8_t *byte = target + to / 8;
    unsigned before = to % 8;
    unsigned shift = from % 8;
    unsigned window = (unsigned)source[from / 8] << 8;
    if (shift + length > 8)
        window |= source[from / 8 + 1];
    unsigned bits = (window >> (16 - shift - length)) & ((1u << length) - 1);
    unsigned kept = before ? *byte & (0xff00u >> before) : 0;
    *byte = (uint8_t)(kept | bits << (8 - before - length));
}

void ss_bits_copy(uint8_t *target, uint64_t to, const uint8_t *source, uint64_t from, uint64_t length)
{
    if (to % 8 && length) {
        unsigned room = 8 - to % 8;
        unsigned few = length < room ? (unsigned)length : room;
        copy_few(target, to, source, from, few);
        to += few, from += few, length -= few;
    }
    const uint8_t *in = source + from / 8;
    uint8_t *out = target + to / 8;
    unsigned shift = from % 8;
    if (shift == 0) {
        memcpy(out, in, length / 8);
    } else {
        uint64_t words = length / 64;
        for (uint64_t i = 0; i < words; i++, in += 8, out += 8)
            store(out, load(in, 8) << shift | in[8] >> (8 - shift), 8);
        for (uint64_t i = words * 8; i < length / 8; i++, in++, out++)
            *out = (uint8_t)(in[0] << shift | in[1] >> (8 - shift));
    }
    if (length % 8)
        copy_few(target, to + length / 8 * 8, source, from + length / 8 * 8, length % 8);
}
