/* The decompressor of LZO1X, however it was compressed. See lzo_stream.h for the instructions.
 *
 * Where there is room on both sides, literals and matches are copied in steps and beyond their ends; what was copied too much
 * is overwritten by the next instruction. The last bytes are copied one by one.
 */
#include "lzo.h"
#include "lzo_stream.h"

enum {
    BEHIND_MATCH = 0, /* none were copied since; 1 to 3: so many literals */
    BEHIND_RUN = 4,
    MATCH_ROOM = 2 * WILD
};

/* Reads the rest of a length that goes on. 0: the input ends in it. */
static size_t long_length(const uint8_t **in, const uint8_t *end)
{
    size_t length = 0;
    while (end - *in > END_SIZE) {
        uint8_t byte = *(*in)++;
        if (byte)
            return length + byte;
        length += 255;
    }
    return 0;
}

/* length bytes from distance back; writes up to MATCH_ROOM more. */
static inline void copy_match(uint8_t *out, size_t distance, size_t length)
{
    const uint8_t *from = out - distance;
    uint8_t *const end = out + length;
    if (distance >= WILD) {
        do {
            memcpy(out, from, WILD);
            out += WILD;
            from += WILD;
        } while (out < end);
    } else if (distance == 1) {
        memset(out, *from, length);
    } else {
        size_t wide = distance;
        for (int i = 0; i < 8; i++)
            out[i] = from[i];
        while (wide < 8)
            wide += distance; /* the bytes repeat at every multiple */
        for (out += 8; out < end; out += 8)
            memcpy(out, out - wide, 8);
    }
}

int ss_lzo_decompress(const uint8_t *in, size_t n, uint8_t *out, size_t out_size)
{
    const uint8_t *const in_end = in + n;
    uint8_t *const out_start = out, *const out_end = out + out_size;
    unsigned state = BEHIND_MATCH;
    size_t length, distance;
    if (n < END_SIZE)
        return 0;
    if (*in > 17) {
        length = *in++ - 17u;
        state = length < BEHIND_RUN ? (unsigned)length : BEHIND_RUN;
        goto literals;
    }
    while (in_end - in >= END_SIZE) {
        unsigned code = *in++;
        if (code >= 64) {
            length = (code >> 5) + 1;
            distance = (code >> 2 & 7) + ((size_t)*in++ << 3) + 1;
            state = code & 3;
        } else if (code >= 16) {
            unsigned mask = code >= 32 ? 31 : 7;
            length = code & mask;
            if (!length) {
                if (!(length = long_length(&in, in_end)))
                    return 0;
                length += mask;
            }
            length += 2;
            distance = (size_t)in[0] >> 2 | (size_t)in[1] << 6;
            state = in[0] & 3;
            in += 2;
            if (code >= 32) {
                distance += 1;
            } else {
                distance += FAR_BASE + ((code & 8) << 11);
                if (distance == FAR_BASE)
                    return code == 17 && state == 0 && in == in_end && out == out_end;
            }
        } else if (state == BEHIND_MATCH) {
            length = code;
            if (!length) {
                if (!(length = long_length(&in, in_end)))
                    return 0;
                length += 15;
            }
            length += 3;
            state = BEHIND_RUN;
        literals:
            if ((size_t)(in_end - in) < length || (size_t)(out_end - out) < length)
                return 0;
            if ((size_t)(in_end - in) >= length + WILD && (size_t)(out_end - out) >= length + WILD)
                for (size_t i = 0; i < length; i += WILD)
                    memcpy(out + i, in + i, WILD);
            else
                memcpy(out, in, length);
            out += length;
            in += length;
            continue;
        } else {
            length = state == BEHIND_RUN ? 3 : 2;
            distance = (code >> 2) + ((size_t)*in++ << 2) + (state == BEHIND_RUN ? NEAR_DISTANCE + 1 : 1);
            state = code & 3;
        }
        if (distance > (size_t)(out - out_start))
            return 0;
        if ((size_t)(out_end - out) >= length + MATCH_ROOM && in_end - in >= 4) {
            copy_match(out, distance, length);
            out += length;
            memcpy(out, in, 4);
        } else {
            if ((size_t)(out_end - out) < length + state || (size_t)(in_end - in) < state)
                return 0;
            if (out_end - out > MATCH_ROOM) {
                size_t wide = (size_t)(out_end - out) - MATCH_ROOM;
                wide = wide < length ? wide : length;
                copy_match(out, distance, wide);
                out += wide;
                length -= wide;
            }
            for (; length; length--, out++)
                *out = *(out - distance);
            memcpy(out, in, state);
        }
        out += state;
        in += state;
    }
    return 0;
}
