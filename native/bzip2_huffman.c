#include "bzip2_huffman.h"

#include <string.h>

#define SYMBOL_BITS 9

/* Sorts by the bits from SYMBOL_BITS up to 32, a digit of 8 at a time; keeps the order of the symbols. */
static void sort(uint32_t *keys, uint32_t n)
{
    uint32_t other[SS_BZIP2_SYMBOLS], *from = keys, *to = other;
    for (uint32_t shift = SYMBOL_BITS; shift < 32; shift += 8) {
        uint32_t starts[256] = {0};
        for (uint32_t i = 0; i < n; i++)
            starts[from[i] >> shift & 255]++;
        for (uint32_t digit = 0, start = 0; digit < 256; digit++) {
            uint32_t count = starts[digit];
            starts[digit] = start;
            start += count;
        }
        for (uint32_t i = 0; i < n; i++)
            to[starts[from[i] >> shift & 255]++] = from[i];
        uint32_t *swap = from;
        from = to;
        to = swap;
    }
    memcpy(keys, other, n * sizeof *keys); /* after an odd number of rounds */
}

/* The depths of the leaves of Huffman's tree over ascending weights, in place (Moffat and Katajainen 1995); the deepest. */
static uint32_t depths(uint32_t *w, uint32_t n)
{
    uint32_t leaf = 0, root = 0;
    for (uint32_t next = 0; next + 1 < n; next++) { /* inner nodes: their weights, then, once used, their parents */
        uint32_t sum = 0;
        for (int child = 0; child < 2; child++) {
            if (leaf >= n || (root < next && w[root] < w[leaf])) {
                sum += w[root];
                w[root++] = next;
            } else {
                sum += w[leaf++];
            }
        }
        w[next] = sum;
    }
    w[n - 2] = 0;
    for (uint32_t i = n - 2; i-- > 0;)
        w[i] = w[w[i]] + 1; /* the depths of the inner nodes */
    uint32_t depth = 0, open = 1, inner = n - 1, at = n;
    while (open > 0) {
        uint32_t used = 0;
        while (inner > 0 && w[inner - 1] == depth) {
            inner--;
            used++;
        }
        for (; open > used; open--)
            w[--at] = depth;
        open = 2 * used;
        depth++;
    }
    return w[0];
}

void ss_bzip2_code_lengths(const uint32_t *counts, uint32_t n, uint8_t *lengths)
{
    uint32_t keys[SS_BZIP2_SYMBOLS], weights[SS_BZIP2_SYMBOLS];
    for (uint32_t i = 0; i < n; i++)
        keys[i] = (counts[i] + (counts[i] == 0)) << SYMBOL_BITS | i;
    sort(keys, n);
    for (uint32_t flatter = 0;; flatter++) { /* as flat as it takes; rarely needed at all */
        for (uint32_t i = 0; i < n; i++) {
            uint32_t weight = keys[i] >> SYMBOL_BITS;
            weights[i] = (weight >> flatter) + (flatter > 0);
        }
        if (depths(weights, n) <= SS_BZIP2_LONGEST)
            break;
    }
    for (uint32_t i = 0; i < n; i++)
        lengths[keys[i] & ((1u << SYMBOL_BITS) - 1)] = (uint8_t)weights[i];
}

void ss_bzip2_codes(const uint8_t *lengths, uint32_t n, uint32_t *codes)
{
    uint32_t code = 0;
    for (uint32_t length = 1; length <= SS_BZIP2_LONGEST; length++, code <<= 1)
        for (uint32_t i = 0; i < n; i++)
            if (lengths[i] == length)
                codes[i] = code++ << SS_BZIP2_LENGTH_BITS | length;
}
