/* LZO1X-1: the last place of each hash of five bytes, and the first match that shows up is taken. */
#include "lzo.h"
#include "lzo_stream.h"

enum {
    TAIL = 32, /* the last bytes are literals, so that nothing is read beyond them */
    SMALLEST_MATCH = 4,
    HASH_BITS = 12
};

size_t ss_lzo_bound(size_t n)
{
    return n + n / 16 + 64;
}

static inline uint32_t hash5(uint64_t bytes)
{
    return (uint32_t)((bytes << 24) * 0x9e3779b185ebca87u >> (64 - HASH_BITS));
}

/* Places are kept modulo 64 KiB. What one means of old does not matter: it is a place within reach, and is compared.
 * The longer nothing is found, the larger the steps: one more byte every 1 << patience places. */
static inline size_t compress(const uint8_t *in, size_t n, uint8_t *out, uint16_t *last, int patience)
{
    uint8_t *const out_start = out;
    const uint8_t *const end = in + n;
    size_t at = 1, literals = 0; /* where we look, and where those begin that are not written yet */
    size_t stop = n > TAIL ? n - TAIL : 0;
    memset(last, 0, sizeof *last << HASH_BITS);
    while (at < stop) {
        size_t distance, length, step = (size_t)1 << patience;
        uint64_t bytes = load64(in + at);
        for (;;) {
            uint32_t hash = hash5(bytes);
            distance = (uint16_t)(at - last[hash]);
            last[hash] = (uint16_t)at;
            if (load32(in + at - distance) == (uint32_t)bytes && distance - 1 < FAR_DISTANCE)
                break;
            at += step++ >> patience;
            if (at >= stop)
                goto done;
            bytes = load64(in + at);
        }
        while (at > literals && at > distance && in[at - 1] == in[at - 1 - distance])
            at--;
        if (at > literals) {
            size_t count = at - literals;
            out = put_literal_count(out, count, out == out_start);
            for (size_t i = 0; i < count; i += WILD)
                memcpy(out + i, in + literals + i, WILD);
            out += count;
        }
    match:
        length = SMALLEST_MATCH + same(in + at + SMALLEST_MATCH - distance, in + at + SMALLEST_MATCH, end);
        out = put_match(out, distance, length);
        literals = at += length;
        if (at >= stop)
            break;
        last[hash5(load64(in + at - 2))] = (uint16_t)(at - 2);
        bytes = load64(in + at);
        uint32_t hash = hash5(bytes);
        distance = (uint16_t)(at - last[hash]);
        last[hash] = (uint16_t)at;
        if (load32(in + at - distance) == (uint32_t)bytes && distance - 1 < FAR_DISTANCE)
            goto match;
        at++;
    }
done:
    out = put_end(out, in + literals, n - literals, out == out_start);
    return (size_t)(out - out_start);
}

size_t ss_lzo_compress(const uint8_t *in, size_t n, uint8_t *out, ss_lzo_table *table, int fast)
{
    return fast ? compress(in, n, out, table->last, 4) : compress(in, n, out, table->last, 6);
}
