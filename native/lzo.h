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
    uint16_t last[8192];
} ss_lzo_table;

/* The room that n bytes need at most, with what is written beyond the end of the compressed bytes on the way. */
size_t ss_lzo_bound(size_t n);

/* The n bytes at in, compressed into the ss_lzo_bound(n) bytes at out; returns the size. fast: quicker, a bit larger. */
size_t ss_lzo_compress(const uint8_t *in, size_t n, uint8_t *out, ss_lzo_table *table, int fast);

/* Whether all of the n bytes at in are LZO1X data that decompress to exactly out_size bytes, which are then at out.
 * Reads and writes nothing else, whatever in holds; what is at out otherwise means nothing. */
int ss_lzo_decompress(const uint8_t *in, size_t n, uint8_t *out, size_t out_size);

#endif
