/* What is behind the sort in a block of bzip2: move to front, runs of zeros, up to six Huffman tables, bits. */
#ifndef STREAMSAVE_BZIP2_BLOCK_H
#define STREAMSAVE_BZIP2_BLOCK_H

#include "bzip2_bits.h"
#include "bzip2_front.h"
#include "bzip2_huffman.h"

#include <stddef.h>
#include <stdint.h>

#define SS_BZIP2_BLOCK 900000 /* the largest block, in bytes */
#define SS_BZIP2_GROUP 50 /* symbols that share a table */
#define SS_BZIP2_TABLES 6
#define SS_BZIP2_LANES 8 /* the tables in a vector */

typedef struct {
    uint16_t symbols[SS_BZIP2_FRONT_SIZE(SS_BZIP2_BLOCK)];
    uint8_t selectors[SS_BZIP2_BLOCK / SS_BZIP2_GROUP + 1];
    uint8_t lengths[SS_BZIP2_TABLES][SS_BZIP2_SYMBOLS];
    uint32_t counts[SS_BZIP2_TABLES][SS_BZIP2_SYMBOLS];
    uint32_t codes[SS_BZIP2_TABLES][SS_BZIP2_SYMBOLS];
    uint16_t packed[SS_BZIP2_SYMBOLS][SS_BZIP2_LANES]; /* a symbol's length in each table */
} ss_bzip2_coder;

/* Writes what follows a block's checksum and origin: the last column of its sorted rotations, n bytes, 1 to SS_BZIP2_BLOCK.
 * Returns 0, and has written nothing, if that takes more than room bytes. */
int ss_bzip2_code(ss_bzip2_coder *coder, const uint8_t *last, uint32_t n, ss_bit_writer *bits, size_t room);

#endif
