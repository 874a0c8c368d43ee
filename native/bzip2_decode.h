/* A bzip2 decompressor: one stream becomes a chunk. Everything that it works with is in a struct that the caller owns. */
#ifndef STREAMSAVE_BZIP2_DECODE_H
#define STREAMSAVE_BZIP2_DECODE_H

#include "bzip2_walk.h"

#include <stddef.h>
#include <stdint.h>

#define SS_BZIP2_ALPHABET 258
#define SS_BZIP2_TABLE_MAX 6
#define SS_BZIP2_SELECTOR_MAX 18002 /* of 50 symbols each, a whole block and its end */
#define SS_BZIP2_CODE_MAX 20
#define SS_BZIP2_LOOKUP_BITS 10

/* What is wrong with a stream. */
enum {
    SS_BZIP2_DAMAGED = -1,
    SS_BZIP2_CUT = -2,
    SS_BZIP2_TOO_LARGE = -3, /* for the room */
    SS_BZIP2_FOLLOWED = -4, /* by other bytes */
    SS_BZIP2_RANDOMISED = -5 /* as bzip2 0.9.0 (1998) did to some blocks; not written here */
};

typedef struct {
    uint32_t first[SS_BZIP2_CODE_MAX + 2]; /* the first code of each length */
    uint16_t count[SS_BZIP2_CODE_MAX + 2], offset[SS_BZIP2_CODE_MAX + 2];
    uint16_t symbols[SS_BZIP2_ALPHABET]; /* by code */
    uint16_t lookup[1 << SS_BZIP2_LOOKUP_BITS]; /* symbol << 5 | length; 0: the code is longer, or none */
} ss_bzip2_table;

typedef struct {
    uint32_t crc_tables[8][256];
    ss_bzip2_table tables[SS_BZIP2_TABLE_MAX];
    uint8_t selectors[SS_BZIP2_SELECTOR_MAX];
    uint8_t last[SS_BZIP2_BLOCK_MAX]; /* the last column of the sorted rotations */
    uint8_t text[SS_BZIP2_BLOCK_MAX]; /* the block, with its runs still short */
    ss_bzip2_walk walk;
} ss_bzip2_decoder;

void ss_bzip2_decoder_init(ss_bzip2_decoder *decoder);

/* Decompresses the stream that is in the n bytes into out; returns how many bytes that makes, or what is wrong. */
int64_t ss_bzip2_decode(ss_bzip2_decoder *decoder, const uint8_t *in, size_t n, uint8_t *out, size_t room);

#endif
