#include "bzip2_block.h"

#include <string.h>

typedef uint16_t lanes __attribute__((vector_size(2 * SS_BZIP2_LANES)));

/* As many as pay for themselves; libbz2's numbers. */
static uint32_t choose_table_count(uint32_t n)
{
    return n < 200 ? 2 : n < 600 ? 3 : n < 1200 ? 4 : n < 2400 ? 5 : 6;
}

/* To begin with, each table likes an interval of the symbols: all intervals occur about equally often. */
static void divide(ss_bzip2_coder *coder, uint32_t n, uint32_t tables, uint32_t kinds)
{
    uint32_t *counts = coder->counts[0];
    memset(counts, 0, sizeof coder->counts[0]);
    for (uint32_t i = 0; i < n; i++)
        counts[coder->symbols[i]]++;
    memset(coder->lengths, 15, sizeof coder->lengths);
    for (uint32_t table = 0, symbol = 0; table < tables; table++) {
        uint32_t share = n / (tables - table), sum = 0;
        while (symbol < kinds && (sum < share || table + 1 == tables)) {
            sum += counts[symbol];
            coder->lengths[table][symbol++] = 0;
        }
        n -= sum;
    }
}

static void pack(ss_bzip2_coder *coder, uint32_t tables, uint32_t kinds)
{
    memset(coder->packed, 0, sizeof coder->packed);
    for (uint32_t symbol = 0; symbol < kinds; symbol++)
        for (uint32_t table = 0; table < tables; table++)
            coder->packed[symbol][table] = coder->lengths[table][symbol];
}

/* The table that takes the fewest bits for these symbols. */
static uint32_t cheapest(const ss_bzip2_coder *coder, const uint16_t *symbols, uint32_t n, uint32_t tables)
{
    lanes bits = {0}; /* 50 codes of 17 bits at most are below 2^16 */
    for (uint32_t i = 0; i < n; i++) {
        lanes more;
        memcpy(&more, coder->packed[symbols[i]], sizeof more); /* it need not be aligned */
        bits += more;
    }
    uint32_t best = 0;
    for (uint32_t table = 1; table < tables; table++)
        if (bits[table] < bits[best])
            best = table;
    return best;
}

/* Gives each group the table that is best for it, then each table the lengths that are best for its groups. */
static void improve(ss_bzip2_coder *coder, int round, uint32_t n, uint32_t tables, uint32_t kinds)
{
    pack(coder, tables, kinds);
    if (round == 0)
        memset(coder->counts, 0, sizeof coder->counts);
    for (uint32_t start = 0, group = 0; start < n; start += SS_BZIP2_GROUP, group++) {
        uint32_t size = n - start < SS_BZIP2_GROUP ? n - start : SS_BZIP2_GROUP;
        const uint16_t *symbols = coder->symbols + start;
        uint32_t table = cheapest(coder, symbols, size, tables);
        if (round > 0 && coder->selectors[group] == table)
            continue;
        for (uint32_t i = 0; i < size; i++)
            coder->counts[table][symbols[i]]++;
        if (round > 0)
            for (uint32_t i = 0; i < size; i++)
                coder->counts[coder->selectors[group]][symbols[i]]--;
        coder->selectors[group] = (uint8_t)table;
    }
    for (uint32_t table = 0; table < tables; table++)
        ss_bzip2_code_lengths(coder->counts[table], kinds, coder->lengths[table]);
}

static void put_used(ss_bit_writer *bits, const uint8_t used[256])
{
    uint32_t rows[17] = {0};
    for (uint32_t byte = 0; byte < 256; byte++) {
        rows[1 + byte / 16] |= (uint32_t)used[byte] << (15 - byte % 16);
        rows[0] |= (uint32_t)used[byte] << (15 - byte / 16);
    }
    for (uint32_t row = 0; row < 17; row++)
        if (row == 0 || rows[row])
            ss_put(bits, rows[row], 16);
}

/* Which table each group has: its place in a list that it then moves to the front of, as so many ones and a zero. */
static uint64_t put_selectors(ss_bit_writer *bits, const uint8_t *selectors, uint32_t groups)
{
    uint8_t list[SS_BZIP2_TABLES] = {0, 1, 2, 3, 4, 5};
    uint64_t total = 0;
    for (uint32_t group = 0; group < groups; group++) {
        uint32_t place = 0;
        while (list[place] != selectors[group])
            place++;
        memmove(list + 1, list, place);
        list[0] = selectors[group];
        total += place + 1;
        if (bits)
            ss_put(bits, (2u << place) - 2, place + 1);
    }
    return total;
}

/* The first length, then for each symbol so many steps up (10) or down (11), and a zero. */
static uint64_t put_lengths(ss_bit_writer *bits, const uint8_t *lengths, uint32_t kinds)
{
    uint32_t length = lengths[0];
    uint64_t total = 5;
    if (bits)
        ss_put(bits, length, 5);
    for (uint32_t i = 0; i < kinds; i++) {
        for (; length != lengths[i]; length += length < lengths[i] ? 1 : -1u) {
            total += 2;
            if (bits)
                ss_put(bits, length < lengths[i] ? 2 : 3, 2);
        }
        total++;
        if (bits)
            ss_put(bits, 0, 1);
    }
    return total;
}

static void put_symbols(ss_bzip2_coder *coder, ss_bit_writer *bits, uint32_t n, uint32_t tables, uint32_t kinds)
{
    ss_bit_writer writer = *bits; /* where no store can change it */
    for (uint32_t table = 0; table < tables; table++)
        ss_bzip2_codes(coder->lengths[table], kinds, coder->codes[table]);
    for (uint32_t start = 0, group = 0; start < n; start += SS_BZIP2_GROUP, group++) {
        const uint32_t *codes = coder->codes[coder->selectors[group]];
        const uint16_t *symbols = coder->symbols + start;
        uint32_t size = n - start < SS_BZIP2_GROUP ? n - start : SS_BZIP2_GROUP, i = 0;
        for (; i + 3 <= size; i += 3) {
            for (uint32_t k = 0; k < 3; k++) {
                uint32_t code = codes[symbols[i + k]];
                ss_add(&writer, code >> SS_BZIP2_LENGTH_BITS, code % (1u << SS_BZIP2_LENGTH_BITS));
            }
            ss_drain(&writer);
        }
        for (; i < size; i++) {
            uint32_t code = codes[symbols[i]];
            ss_put(&writer, code >> SS_BZIP2_LENGTH_BITS, code % (1u << SS_BZIP2_LENGTH_BITS));
        }
    }
    *bits = writer;
}

/* The bits that everything takes. */
static uint64_t measure(const ss_bzip2_coder *coder, uint32_t groups, uint32_t tables, uint32_t kinds)
{
    uint64_t total = 17 * 16 + 3 + 15 + put_selectors(NULL, coder->selectors, groups);
    for (uint32_t table = 0; table < tables; table++) {
        total += put_lengths(NULL, coder->lengths[table], kinds);
        for (uint32_t symbol = 0; symbol < kinds; symbol++)
            total += (uint64_t)coder->counts[table][symbol] * coder->lengths[table][symbol];
    }
    return total;
}

int ss_bzip2_code(ss_bzip2_coder *coder, const uint8_t *last, uint32_t n, ss_bit_writer *bits, size_t room)
{
    uint8_t used[256];
    uint32_t kinds, count = ss_bzip2_move_to_front(last, n, used, coder->symbols, &kinds);
    uint32_t tables = choose_table_count(count), groups = (count + SS_BZIP2_GROUP - 1) / SS_BZIP2_GROUP;
    divide(coder, count, tables, kinds);
    for (int round = 0; round < 4; round++)
        improve(coder, round, count, tables, kinds);
    if (measure(coder, groups, tables, kinds) > (room - SS_BITS_BEHIND) * 8)
        return 0;
    put_used(bits, used);
    ss_put(bits, tables, 3);
    ss_put(bits, groups, 15);
    put_selectors(bits, coder->selectors, groups);
    for (uint32_t table = 0; table < tables; table++)
        put_lengths(bits, coder->lengths[table], kinds);
    put_symbols(coder, bits, count, tables, kinds);
    return 1;
}
