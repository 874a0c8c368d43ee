/* From the last column of the sorted rotations back to the text.
 *
 * Each row's entry has the row's first byte and says which row begins one byte later: a walk of as many steps as there are
 * bytes, each to anywhere in a table larger than a cache, and each has to wait for the one before it. So it is begun at many
 * rows at once, and each walk ends where another began; in the end they are put in order.
 */
#ifndef STREAMSAVE_BZIP2_WALK_H
#define STREAMSAVE_BZIP2_WALK_H

#include <stdint.h>

#define SS_BZIP2_BLOCK_MAX 900000
#define SS_BZIP2_WALK_STEPS 256 /* in a round, of all lanes; and the bytes in a piece of a walk */
#define SS_BZIP2_WALKS 256 /* and one from the row of the text */
/* Those that are full, and for each walk its first and last, and one that it may begin just before a round ends. */
#define SS_BZIP2_PIECES (SS_BZIP2_BLOCK_MAX / SS_BZIP2_WALK_STEPS + 3 * (SS_BZIP2_WALKS + 1) + 1)

typedef struct {
    uint32_t start; /* its first row */
    uint32_t next; /* the row where another goes on */
    uint32_t first; /* piece */
} ss_bzip2_walked;

typedef struct {
    uint32_t table[SS_BZIP2_BLOCK_MAX + 1]; /* next row << 8 | byte */
    ss_bzip2_walked walks[SS_BZIP2_WALKS + 1]; /* by their first rows */
    uint32_t following[SS_BZIP2_PIECES]; /* the next piece of the same walk */
    uint16_t sizes[SS_BZIP2_PIECES];
    uint8_t pieces[(SS_BZIP2_PIECES + 1) * SS_BZIP2_WALK_STEPS]; /* the last one is nobody's */
} ss_bzip2_walk;

/* Writes the n bytes (1 to SS_BZIP2_BLOCK_MAX) to text; `last` is the last column, in which each byte is as often as `counts`
 * says, and row `origin`, below n, the text. */
void ss_bzip2_untransform(ss_bzip2_walk *walk, const uint8_t *last, uint32_t n, uint32_t origin, const uint32_t counts[256],
                          uint8_t *text);

#endif
