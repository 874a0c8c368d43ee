/* See bzip2_decode.h. */
#include "bzip2_decode.h"
#include "bzip2_crc.h"
#include "bzip2_walk.h"

#include <string.h>

#define BLOCK_MAGIC UINT64_C(0x314159265359)
#define END_MAGIC UINT64_C(0x177245385090)
#define LEVEL_UNIT 100000
#define GROUP 50
#define RUNS 2 /* the symbols that are digits of a run's length */

/* -- bits, the first one highest ----------------------------------------------------------------------------------- */

typedef struct {
    const uint8_t *next, *end;
    uint64_t bits; /* the newest lowest */
    uint32_t count; /* of those not taken */
    uint32_t missing; /* zeros that stand for what is behind the end */
} reader;

/* At least 32 bits then. */
static inline void refill(reader *r)
{
    if (r->count >= 32)
        return;
    if (r->end - r->next >= 4) {
        r->bits = r->bits << 32 | ss_load_be32(r->next);
        r->next += 4;
        r->count += 32;
        return;
    }
    while (r->count < 32) {
        int is_there = r->next < r->end;
        r->bits = r->bits << 8 | (is_there ? *r->next++ : 0);
        r->count += 8;
        r->missing += is_there ? 0 : 8;
    }
}

static inline uint32_t peek(const reader *r, uint32_t n)
{
    return (uint32_t)(r->bits >> (r->count - n)) & ((UINT32_C(1) << n) - 1);
}

/* Up to 24 bits. */
static inline uint32_t take(reader *r, uint32_t n)
{
    refill(r);
    uint32_t value = peek(r, n);
    r->count -= n;
    return value;
}

static uint64_t take48(reader *r)
{
    uint64_t high = take(r, 24);
    return high << 24 | take(r, 24);
}

static uint32_t take32(reader *r)
{
    uint32_t high = take(r, 16);
    return high << 16 | take(r, 16);
}

static int is_cut(const reader *r)
{
    return r->missing > r->count;
}

/* -- Huffman's codes ----------------------------------------------------------------------------------------------- */

static uint32_t search(const ss_bzip2_table *t, uint32_t bits, uint32_t length, uint32_t longest, uint32_t *taken)
{
    /* `bits` are `longest` of them; the shortest code that fits counts. */
    for (; length <= longest; length++) {
        uint32_t code = bits >> (longest - length);
        if (code - t->first[length] < t->count[length]) {
            *taken = length;
            return t->symbols[t->offset[length] + code - t->first[length]];
        }
    }
    *taken = 0;
    return 0;
}

static void make_table(ss_bzip2_table *t, const uint8_t *lengths, uint32_t n)
{
    memset(t->count, 0, sizeof t->count);
    for (uint32_t i = 0; i < n; i++)
        t->count[lengths[i]]++;
    uint32_t code = 0, offset = 0;
    for (uint32_t length = 1; length <= SS_BZIP2_CODE_MAX; length++) {
        t->first[length] = code;
        t->offset[length] = (uint16_t)offset;
        for (uint32_t i = 0; i < n; i++)
            if (lengths[i] == length)
                t->symbols[offset++] = (uint16_t)i;
        code = (code + t->count[length]) << 1;
    }
    for (uint32_t bits = 0; bits < 1 << SS_BZIP2_LOOKUP_BITS; bits++) {
        uint32_t taken, symbol = search(t, bits, 1, SS_BZIP2_LOOKUP_BITS, &taken);
        t->lookup[bits] = (uint16_t)(symbol << 5 | taken);
    }
}

/* The next symbol, once there are 20 bits; -1: there is no such code. */
static inline int32_t decode_symbol(const ss_bzip2_table *t, reader *r)
{
    uint32_t entry = t->lookup[peek(r, SS_BZIP2_LOOKUP_BITS)];
    if (entry & 31) {
        r->count -= entry & 31;
        return (int32_t)(entry >> 5);
    }
    uint32_t taken, symbol = search(t, peek(r, SS_BZIP2_CODE_MAX), SS_BZIP2_LOOKUP_BITS + 1, SS_BZIP2_CODE_MAX, &taken);
    r->count -= taken;
    return taken ? (int32_t)symbol : -1;
}

/* -- a block's parts, in their order ------------------------------------------------------------------------------- */

/* The bytes that occur; how many. */
static uint32_t read_used(reader *r, uint8_t used[256])
{
    uint32_t rows = take(r, 16), n = 0;
    for (uint32_t row = 0; row < 16; row++) {
        uint32_t columns = rows >> (15 - row) & 1 ? take(r, 16) : 0;
        for (uint32_t column = 0; column < 16; column++)
            if (columns >> (15 - column) & 1)
                used[n++] = (uint8_t)(16 * row + column);
    }
    return n;
}

/* Which table is whose; how many groups, 0: damaged. */
static uint32_t read_selectors(ss_bzip2_decoder *d, reader *r, uint32_t table_count)
{
    uint8_t order[SS_BZIP2_TABLE_MAX] = {0, 1, 2, 3, 4, 5};
    uint32_t count = take(r, 15);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t place = 0;
        while (take(r, 1))
            if (++place >= table_count)
                return 0;
        uint8_t table = order[place];
        memmove(order + 1, order, place);
        order[0] = table;
        if (i < SS_BZIP2_SELECTOR_MAX) /* some programs write more, none of any use */
            d->selectors[i] = table;
    }
    return count < SS_BZIP2_SELECTOR_MAX ? count : SS_BZIP2_SELECTOR_MAX;
}

static int read_table(ss_bzip2_table *t, reader *r, uint32_t symbol_count)
{
    uint8_t lengths[SS_BZIP2_ALPHABET];
    uint32_t length = take(r, 5);
    for (uint32_t i = 0; i < symbol_count; i++) {
        while (1) {
            if (length < 1 || length > SS_BZIP2_CODE_MAX || is_cut(r))
                return 0;
            if (!take(r, 1))
                break;
            length += take(r, 1) ? UINT32_MAX : 1;
        }
        lengths[i] = (uint8_t)length;
    }
    make_table(t, lengths, symbol_count);
    return 1;
}

static inline uint8_t move_to_front(uint8_t list[256], uint32_t place)
{
    uint8_t value = list[place];
    if (place < 16) {
        for (uint32_t i = place; i > 0; i--)
            list[i] = list[i - 1];
    } else {
        memmove(list + 1, list, place);
    }
    list[0] = value;
    return value;
}

/* The last column, and how often each byte is in it; its size, or what is wrong. */
static int64_t read_column(ss_bzip2_decoder *d, reader *r, uint32_t limit, uint32_t counts[256])
{
    uint8_t list[256] = {0};
    uint32_t used = read_used(r, list), table_count = take(r, 3), n = 0, run = 0, weight = 1;
    if (!used || table_count < 2 || table_count > SS_BZIP2_TABLE_MAX)
        return SS_BZIP2_DAMAGED;
    uint32_t group_count = read_selectors(d, r, table_count);
    for (uint32_t i = 0; i < table_count; i++)
        if (!read_table(d->tables + i, r, used + RUNS))
            return SS_BZIP2_DAMAGED;
    for (uint32_t group = 0; group < group_count; group++) {
        const ss_bzip2_table *table = d->tables + d->selectors[group];
        for (uint32_t i = 0; i < GROUP; i++) {
            refill(r);
            int32_t symbol = decode_symbol(table, r);
            if (symbol < 0)
                return SS_BZIP2_DAMAGED;
            if (symbol < RUNS) {
                run += weight << symbol;
                weight <<= 1;
                if (run > limit)
                    return SS_BZIP2_DAMAGED;
                continue;
            }
            if (run) {
                if (run > limit - n)
                    return SS_BZIP2_DAMAGED;
                memset(d->last + n, list[0], run);
                counts[list[0]] += run;
                n += run;
                run = 0;
                weight = 1;
            }
            if ((uint32_t)symbol == used + 1)
                return n;
            if (n == limit)
                return SS_BZIP2_DAMAGED;
            uint8_t byte = move_to_front(list, (uint32_t)symbol - 1);
            counts[byte]++;
            d->last[n++] = byte;
        }
    }
    return SS_BZIP2_DAMAGED;
}

/* Four of a kind are followed by how many more there are. How many bytes that makes, or what is wrong. */
static int64_t expand(const uint8_t *text, uint32_t n, uint8_t *out, size_t room)
{
    uint8_t *start = out, *end = out + room;
    uint32_t same = 0;
    for (uint32_t i = 0; i < n; i++) {
        uint8_t byte = text[i];
        if (out == end)
            return SS_BZIP2_TOO_LARGE;
        same = same && byte == out[-1] ? same + 1 : 1;
        *out++ = byte;
        if (same == 4) {
            same = 0;
            if (++i == n)
                break; /* a run that ends with the block, of four */
            if (text[i] > end - out)
                return SS_BZIP2_TOO_LARGE;
            memset(out, byte, text[i]);
            out += text[i];
        }
    }
    return out - start;
}

/* -- a stream ------------------------------------------------------------------------------------------------------ */

/* How many bytes a block makes, whose magic was taken; its checksum. */
static int64_t read_block(ss_bzip2_decoder *d, reader *r, uint32_t limit, uint8_t *out, size_t room, uint32_t *crc)
{
    uint32_t counts[256] = {0};
    *crc = take32(r);
    if (take(r, 1))
        return SS_BZIP2_RANDOMISED;
    uint32_t origin = take(r, 24);
    int64_t n = read_column(d, r, limit, counts);
    if (n < 0)
        return n;
    if (is_cut(r))
        return SS_BZIP2_CUT;
    if (origin >= n)
        return SS_BZIP2_DAMAGED;
    ss_bzip2_untransform(&d->walk, d->last, (uint32_t)n, origin, counts, d->text);
    int64_t size = expand(d->text, (uint32_t)n, out, room);
    if (size >= 0 && ss_bzip2_crc(d->crc_tables, out, (size_t)size) != *crc)
        return SS_BZIP2_DAMAGED;
    return size;
}

static int64_t read_stream(ss_bzip2_decoder *d, reader *r, uint8_t *out, size_t room)
{
    size_t done = 0;
    uint32_t combined = 0, head = take(r, 24), level = take(r, 8) - '0';
    if (head != ('B' << 16 | 'Z' << 8 | 'h') || level < 1 || level > 9)
        return SS_BZIP2_DAMAGED;
    while (1) {
        uint64_t magic = take48(r);
        uint32_t crc;
        if (magic != BLOCK_MAGIC)
            return magic == END_MAGIC && take32(r) == combined ? (int64_t)done : SS_BZIP2_DAMAGED;
        int64_t size = read_block(d, r, level * LEVEL_UNIT, out + done, room - done, &crc);
        if (size < 0)
            return size;
        done += (size_t)size;
        combined = (combined << 1 | combined >> 31) ^ crc;
    }
}

void ss_bzip2_decoder_init(ss_bzip2_decoder *decoder)
{
    ss_bzip2_crc_init(decoder->crc_tables);
}

int64_t ss_bzip2_decode(ss_bzip2_decoder *decoder, const uint8_t *in, size_t n, uint8_t *out, size_t room)
{
    reader r = {in, in + n, 0, 0, 0};
    int64_t size = read_stream(decoder, &r, out, room);
    if (is_cut(&r) && size != SS_BZIP2_TOO_LARGE)
        return SS_BZIP2_CUT;
    if (size >= 0 && (r.count - r.missing >= 8 || r.next != r.end))
        return SS_BZIP2_FOLLOWED;
    return size;
}
