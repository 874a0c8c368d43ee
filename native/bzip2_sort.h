/* The order of all rotations of a text, as bzip2 wants it. */
#ifndef STREAMSAVE_BZIP2_SORT_H
#define STREAMSAVE_BZIP2_SORT_H

#include <stdint.h>

#define SS_BZIP2_TEXT_BEFORE 16 /* bytes in front of a text that are written to */
#define SS_BZIP2_TEXT_SIZE(n) (2 * (n) + 2) /* bytes from its start on */
#define SS_BZIP2_WORK_SIZE(n) (12 * (n) + 4096) /* numbers, most of them never touched */

/* Writes the last column of the sorted rotations of the n bytes at text, 1 to 2^20 - 1; returns the row of the text itself.
 * Clobbers what is around the text, as said above, and work. */
uint32_t ss_bzip2_sort(uint8_t *text, uint32_t n, uint8_t *last, uint32_t *work);

#endif
