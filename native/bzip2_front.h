/* The step behind bzip2's sort: bytes to small numbers, most of them zeros, and runs of zeros to few symbols. */
#ifndef STREAMSAVE_BZIP2_FRONT_H
#define STREAMSAVE_BZIP2_FRONT_H

#include <stdint.h>

#define SS_BZIP2_FRONT_SIZE(n) ((n) + 5) /* symbols: the bytes, the end of the block, some overwritten */

/* Writes the symbols of n bytes, 1 or more, the end of the block included, and returns how many they are.
 * Says which bytes occur, and how many kinds of symbols that makes: 0 and 1 for runs, one for each further byte, the end. */
uint32_t ss_bzip2_move_to_front(const uint8_t *data, uint32_t n, uint8_t used[256], uint16_t *symbols, uint32_t *kinds);

#endif
