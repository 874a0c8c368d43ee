#include "bzip2_encode.h"
#include "bzip2_crc.h"
#include "bzip2_equal.h"

#include <string.h>

#define LONGEST_RUN 255 /* what libbz2 writes; a decoder may know no more */
#define SHORTEST_RUN 4
#define BLOCK_MAGIC 0x314159265359u
#define END_MAGIC 0x177245385090u
#define LEVEL_UNIT 100000
#define SPARE 19 /* bytes of a block that libbz2 leaves free, and so does every other encoder */
#define FRAMING 32 /* bytes, more than a block's magic, checksum and origin, and the stream's end, take */

static uint64_t load64(const uint8_t *p)
{
    uint64_t value;
    memcpy(&value, p, sizeof value);
    return value;
}

void ss_bzip2_init(ss_bzip2_encoder *encoder)
{
    ss_bzip2_crc_init(encoder->crc_tables);
}

/* How often *p stands there, from the known number on, LONGEST_RUN at most. */
static uint32_t run_at(const uint8_t *p, const uint8_t *end, uint32_t run)
{
    uint32_t limit = end - p < LONGEST_RUN ? (uint32_t)(end - p) : LONGEST_RUN;
    uint64_t same = *p * 0x0101010101010101u;
    while (run + 8 <= limit && load64(p + run) == same)
        run += 8;
    while (run < limit && p[run] == *p)
        run++;
    return run;
}

/* Fills a block: runs of four or more become four and how many more. Moves *data to what follows; returns the size. */
static uint32_t fill(uint8_t *block, uint32_t block_size, const uint8_t **data, const uint8_t *end)
{
    const uint8_t *p = *data;
    uint8_t *out = block, *full = block + block_size;
    while (p < end && full - out > SHORTEST_RUN) {
        uint32_t run = 1;
        if (end - p > 64 && full - out > 64 + SHORTEST_RUN) { /* copy up to the next run */
            uint64_t pairs = ss_equal(p, p + 1), runs = pairs & pairs >> 1 & pairs >> 2;
            uint32_t single = runs ? (uint32_t)__builtin_ctzll(runs) : 62;
            memcpy(out, p, 64);
            out += single;
            p += single;
            if (!runs)
                continue;
            uint64_t others = ~(pairs >> single);
            run = others ? (uint32_t)__builtin_ctzll(others) + 1 : 64;
            if (single + run >= 64)
                run = run_at(p, end, run);
        } else {
            run = run_at(p, end, run);
        }
        memset(out, *p, SHORTEST_RUN);
        out += run < SHORTEST_RUN ? run : SHORTEST_RUN;
        if (run >= SHORTEST_RUN)
            *out++ = (uint8_t)(run - SHORTEST_RUN);
        p += run;
    }
    *data = p;
    return (uint32_t)(out - block);
}

size_t ss_bzip2_encode(ss_bzip2_encoder *encoder, uint32_t level, const uint8_t *data, size_t n, uint8_t *out, size_t room)
{
    const uint8_t *end = data + n, *limit = out + room;
    uint8_t *text = encoder->text + SS_BZIP2_TEXT_BEFORE;
    uint32_t combined = 0;
    ss_bit_writer bits = {.out = out};
    if (room < FRAMING)
        return 0;
    ss_put(&bits, 0x425a6830 + level, 32); /* BZh and a digit */
    while (data < end) {
        const uint8_t *start = data;
        uint32_t size = fill(text, level * LEVEL_UNIT - SPARE, &data, end);
        uint32_t crc = ss_bzip2_crc(encoder->crc_tables, start, (size_t)(data - start));
        uint32_t origin = ss_bzip2_sort(text, size, encoder->last, encoder->work);
        combined = (combined << 1 | combined >> 31) ^ crc;
        if (limit - bits.out < 2 * FRAMING)
            return 0;
        ss_put(&bits, BLOCK_MAGIC >> 24, 24);
        ss_put(&bits, BLOCK_MAGIC & 0xffffff, 24);
        ss_put(&bits, crc, 32);
        ss_put(&bits, origin, 25); /* the highest bit: not randomised */
        if (!ss_bzip2_code(&encoder->coder, encoder->last, size, &bits, (size_t)(limit - bits.out) - FRAMING))
            return 0;
    }
    ss_put(&bits, END_MAGIC >> 24, 24);
    ss_put(&bits, END_MAGIC & 0xffffff, 24);
    ss_put(&bits, combined, 32);
    ss_flush(&bits);
    return (size_t)(bits.out - out);
}

uint32_t ss_bzip2_rotations(ss_bzip2_encoder *encoder, const uint8_t *data, uint32_t n, uint8_t *last)
{
    uint8_t *text = encoder->text + SS_BZIP2_TEXT_BEFORE;
    memcpy(text, data, n);
    return ss_bzip2_sort(text, n, last, encoder->work);
}
