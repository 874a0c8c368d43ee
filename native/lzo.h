/* LZO1X, the compression inside an .lzop file, one block at a time. lzo_stream.h describes the format.
 *
 * Pure functions: the caller owns all memory, nothing is allocated or kept. A block is of any size.
 */
#ifndef STREAMSAVE_LZO_H
#define STREAMSAVE_LZO_H

#include <stddef.h>
#include <stdint.h>

/* What the compressors need for themselves. Contents mean nothing, before and after. */
typedef struct {
    uint16_t last[4096];
} ss_lzo_table;

/* The room that n bytes need at most, with what is written beyond the end of the compressed bytes on the way. */
size_t ss_lzo_bound(size_t n);

/* The n bytes at in, compressed into the ss_lzo_bound(n) bytes at out; returns the size. fast: quicker, a bit larger. */
size_t ss_lzo_compress(const uint8_t *in, size_t n, uint8_t *out, ss_lzo_table *table, int fast);

/* What the compressor of the fewest bytes needs for itself. Contents mean nothing, before and after. */
#define SS_LZO_SEGMENT 4096
#define SS_LZO_TREES_BITS 15
typedef struct {
    uint32_t cost[5], run, length, distance;
    uint8_t from;
} ss_lzo_place;
typedef struct {
    uint16_t last2[1 << 16], last3[1 << 14]; /* the last place with the same two and three bytes, modulo 64 KiB */
    uint32_t last4[1 << SS_LZO_TREES_BITS];
    uint16_t tree[1 << 16][2];
    ss_lzo_place places[SS_LZO_SEGMENT + 1];
    uint32_t chosen[SS_LZO_SEGMENT];
} ss_lzo_finder;

/* As ss_lzo_compress, as small as it gets with up to depth places compared at each. */
size_t ss_lzo_compress_best(const uint8_t *in, size_t n, uint8_t *out, ss_lzo_finder *finder, uint32_t depth);

/* Whether all of the n bytes at in are LZO1X data that decompress to exactly out_size bytes, which are then at out.
 * Reads and writes nothing else, whatever in holds; what is at out otherwise means nothing. */
int ss_lzo_decompress(const uint8_t *in, size_t n, uint8_t *out, size_t out_size);

#endif
