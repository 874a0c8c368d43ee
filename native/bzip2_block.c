#include "bzip2_block.h"

#include <string.h>

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
        places[i] = (uint8_t)(places[i] == place ? 0 : places[i] + (places[i] < place));
    return place;
}

/* Which of the 64 bytes from p on differ from the one before them. */
static inline uint64_t changes(const uint8_t *p)
{
    uint64_t mask = 0;
    for (uint32_t i = 0; i < 64; i++)
        mask |= (uint64_t)(p[i] != p[(int32_t)i - 1]) << i;
    return mask;
}

/* Each byte as its place in a list that it then moves to the front of; returns the number of symbols.
 * Zeros, the bytes that are equal to the one before them, are found first, for they need no list. */
static uint32_t move_to_front(const uint8_t *data, uint32_t n, uint8_t places[256], uint32_t used_count, uint16_t *symbols)
{
    uint16_t *out = symbols;
    uint32_t next = 0; /* the first byte that no symbol stands for yet */
    if (places[data[0]] > 0) {
        *out++ = (uint16_t)(to_front(places, data[0]) + 1);
        next = 1;
    }
    for (uint32_t start = 1; start < n; start += 64) {
        uint64_t mask = 0;
        if (n - start >= 64)
            mask = changes(data + start);
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
    out = put_run(out, n - next);
    *out++ = (uint16_t)(used_count + 1); /* the end of the block */
    return (uint32_t)(out - symbols);
}

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
    for (uint32_t symbol = 0; symbol < kinds; symbol++) {
        uint64_t packed[2] = {0, 0};
        for (uint32_t table = 0; table < tables; table++)
            packed[table / 4] |= (uint64_t)coder->lengths[table][symbol] << 16 * (table % 4);
        memcpy(coder->packed[symbol], packed, sizeof packed);
    }
}

/* The table that takes the fewest bits for these symbols. */
static uint32_t cheapest(const ss_bzip2_coder *coder, const uint16_t *symbols, uint32_t n, uint32_t tables)
{
    uint64_t low = 0, high = 0;
    for (uint32_t i = 0; i < n; i++) {
        low += coder->packed[symbols[i]][0];
        high += coder->packed[symbols[i]][1];
    }
    uint32_t best = 0, least = UINT32_MAX;
    for (uint32_t table = 0; table < tables; table++) {
        uint32_t bits = (uint32_t)((table < 4 ? low : high) >> 16 * (table % 4)) & 0xffff;
        if (bits < least) {
            least = bits;
            best = table;
        }
    }
    return best;
}

/* Gives each group the table that is best for it, then each table the lengths that are best for its groups. */
static void improve(ss_bzip2_coder *coder, uint32_t n, uint32_t tables, uint32_t kinds)
{
    pack(coder, tables, kinds);
    memset(coder->counts, 0, sizeof coder->counts);
    for (uint32_t start = 0, group = 0; start < n; start += SS_BZIP2_GROUP, group++) {
        uint32_t size = n - start < SS_BZIP2_GROUP ? n - start : SS_BZIP2_GROUP;
        const uint16_t *symbols = coder->symbols + start;
        uint32_t table = cheapest(coder, symbols, size, tables);
        coder->selectors[group] = (uint8_t)table;
        for (uint32_t i = 0; i < size; i++)
            coder->counts[table][symbols[i]]++;
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
    for (uint32_t table = 0; table < tables; table++)
        ss_bzip2_codes(coder->lengths[table], kinds, coder->codes[table]);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t table = coder->selectors[i / SS_BZIP2_GROUP], symbol = coder->symbols[i];
        ss_put(bits, coder->codes[table][symbol], coder->lengths[table][symbol]);
    }
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

int ss_bzip2_code(ss_bzip2_coder *coder, const uint8_t *last, uint32_t n, ss_bit_writer *bits, uint64_t room)
{
    uint8_t used[256], places[256];
    uint32_t used_count = find_used(last, n, used, places), kinds = used_count + 2;
    uint32_t count = move_to_front(last, n, places, used_count, coder->symbols);
    uint32_t tables = choose_table_count(count), groups = (count + SS_BZIP2_GROUP - 1) / SS_BZIP2_GROUP;
    divide(coder, count, tables, kinds);
    for (int round = 0; round < 4; round++)
        improve(coder, count, tables, kinds);
    if (measure(coder, groups, tables, kinds) > room * 8)
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
