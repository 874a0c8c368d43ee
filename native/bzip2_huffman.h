/* Huffman's codes for one of bzip2's tables. */
#ifndef STREAMSAVE_BZIP2_HUFFMAN_H
#define STREAMSAVE_BZIP2_HUFFMAN_H

#include <stdint.h>

#define SS_BZIP2_SYMBOLS 258 /* RUNA, RUNB, 255 places in the list, the end of the block */
#define SS_BZIP2_LONGEST 17 /* what libbz2 writes; decoders take 20 */

/* The lengths of the codes, 1 to 17, for symbols that occur this often (below 2^22 in all); 2 <= n <= 258.
 * Every symbol gets a code, for the format has no length of 0. */
void ss_bzip2_code_lengths(const uint32_t *counts, uint32_t n, uint8_t *lengths);

#define SS_BZIP2_LENGTH_BITS 5

/* The codes of these lengths, each above its length: the shortest first, then in the order of the symbols. */
void ss_bzip2_codes(const uint8_t *lengths, uint32_t n, uint32_t *codes);

#endif
