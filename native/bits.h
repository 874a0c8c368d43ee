/* Bit strings as bzip2 writes them: the highest bit of a byte comes first, and what matters begins at any bit.
 *
 * Pure functions over the caller's memory; positions and lengths are in bits.
 */
#ifndef STREAMSAVE_BITS_H
#define STREAMSAVE_BITS_H

#include <stddef.h>
#include <stdint.h>

/* Where the first of `count` (1 to 4) numbers of 48 bits begins, at or behind bit `from` and wholly in the n bytes; -1: nowhere. */
int64_t ss_bits_find(const uint8_t *data, size_t n, uint64_t from, const uint64_t *numbers, size_t count);

/* Copies `length` bits from bit `from` of `source` to bit `to` of `target`. Of the first byte written to, the bits before
 * `to` stay; of the last one, the bits behind become 0. No byte without a bit of the two strings is touched. */
void ss_bits_copy(uint8_t *target, uint64_t to, const uint8_t *source, uint64_t from, uint64_t length);

#endif
