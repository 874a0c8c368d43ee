/* The LZO1X stream: its instructions, and how they are written. (Described in Linux' Documentation/staging/lzo.rst.)
 *
 *     first byte, 18 and more      copy (byte - 17) literals
 *     0000 LLLL                    copy L + 3 literals, where none were copied since the last match (L 0: 15 and more follow)
 *     0000 DDSS  H                 2 bytes from H * 4 + D + 1 back, behind 1 to 3 literals;
 *                                  3 bytes from H * 4 + D + 2049 back, behind 4 and more
 *     0001 HLLL  DDDDDDDD DDDDDDSS L + 2 bytes from H * 16384 + D + 16384 back (L 0: 7 and more follow); D and H 0: the end
 *     001L LLLL  DDDDDDDD DDDDDDSS L + 2 bytes from D + 1 back (L 0: 31 and more follow); D is little-endian
 *     01LD DDSS  HHHHHHHH          L + 3 bytes from H * 8 + D + 1 back
 *     1LLD DDSS  HHHHHHHH          L + 5 bytes from H * 8 + D + 1 back
 *
 * S literals follow a match. A length that goes on is as many zero bytes as it holds 255, then the rest, 1 to 255.
 */
#ifndef STREAMSAVE_LZO_STREAM_H
#define STREAMSAVE_LZO_STREAM_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "matches are measured from the low end of a word");

enum {
    NEAR_DISTANCE = 0x800, /* two bytes say it, up to NEAR_LENGTH */
    NEAR_LENGTH = 8,
    MIDDLE_DISTANCE = 0x4000,
    MIDDLE_LENGTH = 33, /* without more length bytes */
    FAR_DISTANCE = 0xbfff,
    FAR_LENGTH = 9,
    FAR_BASE = 0x4000,
    TRAILING_LITERALS = 3, /* a match has room for their number */
    SHORT_LITERALS = 18,   /* without more length bytes */
    FIRST_LITERALS = 238,  /* the first byte's most */
    END_SIZE = 3,
    WILD = 16 /* copies go in steps of this many bytes, and so beyond their end where there is room */
};

static inline uint64_t load64(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, 8);
    return v;
}

static inline uint32_t load32(const uint8_t *p)
{
    uint32_t v;
    memcpy(&v, p, 4);
    return v;
}

/* How many bytes are the same at a and at b, which is before it, up to end. */
static inline size_t same(const uint8_t *a, const uint8_t *b, const uint8_t *end)
{
    const uint8_t *start = b;
    while (end - b >= 8) {
        uint64_t difference = load64(a) ^ load64(b);
        if (difference)
            return (size_t)(b - start) + ((size_t)__builtin_ctzll(difference) >> 3);
        a += 8;
        b += 8;
    }
    while (b < end && *a == *b) {
        a++;
        b++;
    }
    return (size_t)(b - start);
}

static inline uint8_t *put_length(uint8_t *out, size_t rest)
{
    for (; rest > 255; rest -= 255)
        *out++ = 0;
    *out++ = (uint8_t)rest;
    return out;
}

/* The number of literals that follow; is_first: nothing was written yet. */
static inline uint8_t *put_literal_count(uint8_t *out, size_t count, int is_first)
{
    if (is_first && count <= FIRST_LITERALS) {
        *out++ = (uint8_t)(count + 17);
    } else if (count <= TRAILING_LITERALS) {
        out[-2] |= (uint8_t)count;
    } else if (count <= SHORT_LITERALS) {
        *out++ = (uint8_t)(count - 3);
    } else {
        *out++ = 0;
        out = put_length(out, count - SHORT_LITERALS);
    }
    return out;
}

/* A match of 3 bytes and more, with no literals behind it yet. */
static inline uint8_t *put_match(uint8_t *out, size_t distance, size_t length)
{
    size_t code, marker, shortest;
    if (length <= NEAR_LENGTH && distance <= NEAR_DISTANCE) {
        code = distance - 1;
        out[0] = (uint8_t)((length - 1) << 5 | (code & 7) << 2);
        out[1] = (uint8_t)(code >> 3);
        return out + 2;
    }
    if (distance <= MIDDLE_DISTANCE) {
        code = distance - 1;
        marker = 32;
        shortest = MIDDLE_LENGTH;
    } else {
        code = distance - FAR_BASE;
        marker = 16 | (code >> 11 & 8);
        shortest = FAR_LENGTH;
    }
    if (length <= shortest) {
        *out++ = (uint8_t)(marker | (length - 2));
    } else {
        *out++ = (uint8_t)marker;
        out = put_length(out, length - shortest);
    }
    out[0] = (uint8_t)(code << 2);
    out[1] = (uint8_t)(code >> 6);
    return out + 2;
}

/* The literals that are left, and the end. */
static inline uint8_t *put_end(uint8_t *out, const uint8_t *literals, size_t count, int is_first)
{
    static const uint8_t end[END_SIZE] = {17, 0, 0};
    if (count) {
        out = put_literal_count(out, count, is_first);
        memcpy(out, literals, count);
        out += count;
    }
    memcpy(out, end, END_SIZE);
    return out + END_SIZE;
}

#endif
