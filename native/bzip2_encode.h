/* A bzip2 compressor: a chunk becomes one stream. Everything that it works with is in a struct that the caller owns. */
#ifndef STREAMSAVE_BZIP2_ENCODE_H
#define STREAMSAVE_BZIP2_ENCODE_H

#include "bzip2_block.h"
#include "bzip2_sort.h"

#include <stddef.h>
#include <stdint.h>

typedef struct {
    uint32_t crc_tables[8][256];
    uint8_t text[SS_BZIP2_TEXT_BEFORE + SS_BZIP2_TEXT_SIZE(SS_BZIP2_BLOCK)];
    uint8_t last[SS_BZIP2_BLOCK];
    uint32_t work[SS_BZIP2_WORK_SIZE(SS_BZIP2_BLOCK)];
    ss_bzip2_coder coder;
} ss_bzip2_encoder;

void ss_bzip2_init(ss_bzip2_encoder *encoder);

/* Compresses n bytes at a level of 1 to 9 into out; returns the size of the stream, or 0 if it takes more than room. */
size_t ss_bzip2_encode(ss_bzip2_encoder *encoder, uint32_t level, const uint8_t *data, size_t n, uint8_t *out, size_t room);

/* The sort alone: the last column of the sorted rotations of n bytes, 1 to SS_BZIP2_BLOCK; returns the row of the data. */
uint32_t ss_bzip2_rotations(ss_bzip2_encoder *encoder, const uint8_t *data, uint32_t n, uint8_t *last);

#endif
