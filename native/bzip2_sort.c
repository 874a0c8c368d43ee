/* Sorts rotations as SA-IS sorts suffixes (Nong, Zhang and Chan 2009), in linear time whatever the text is.
 *
 * A rotation rises if it is less than the one that begins one place on, else it falls. The text is a circle, so this holds
 * of every rotation, without an end of the text or a least rotation to begin with; equal rotations, of a text that repeats,
 * may come in any order. By what the rotation on the left does there are four classes:
 *
 *     valley: rises after a fall   rise: rises after a rise   peak: falls after a rise   fall: falls after a fall
 *
 * Falls and peaks of one character stand before its rises and valleys. If the valleys are sorted, one pass upwards sorts
 * what falls, each rotation found from the next one, which is less; and a pass downwards from the peaks sorts what rises.
 * The same two passes, from valleys sorted by their first character alone, sort the valleys by what they hold up to the
 * next valley. Those that differ get different names; the names, in the order of the text, are a text again, at most half
 * as long, and its sorted rotations are the sorted valleys.
 *
 * Each class has places of its own, so that every step goes to where it is needed and none has to look at what it is:
 *
 *     w:  falls and valleys of character 0, of 1, ... | peaks and rises of 0, of 1, ... | sorted valleys
 *         0                                           fork                              n
 *
 * Positions run from behind the first valley to the same place one round later: no step leads over its edge.
 */
#include "bzip2_sort.h"

#include <string.h>

enum class { FALL, PEAK, VALLEY, RISE };

#define FRESH (1u << 31) /* unlike the entry before it in its class and character */
#define POSITION ((1u << 30) - 1)
#define FALLING_GROUPS (1u << 21) /* numbers above all positions; and those of what rises above all of these */
#define RISING_GROUPS (1u << 22)

#define AHEAD 16 /* steps; it matters little how many */
#define LINE 16 /* entries in a cache line: the next one is wanted before the first store to it */

/* How many rotations of one character there are, by class. */
struct tally {
    uint32_t of[4];
};

/* Where in w the next rotation of a character goes: a fall and a peak; then a rise and a valley. */
struct bucket {
    uint32_t next[2];
    union {
        uint32_t last[2]; /* the group from which the last one came */
        struct {
            uint32_t valley, mark; /* where the next one goes that is not sorted yet, and whether it is the first */
        };
    };
};

/* Readies the buckets for what falls, from the lowest on; returns where what rises begins. */
static uint32_t prepare_falls(const struct tally *tallies, struct bucket *buckets, uint32_t kinds)
{
    uint32_t fork = 0;
    for (uint32_t c = 0; c < kinds; c++)
        fork += tallies[c].of[FALL] + tallies[c].of[VALLEY];
    for (uint32_t c = 0, at = 0, peaks = fork; c < kinds; c++) {
        const uint32_t *count = tallies[c].of;
        buckets[c].next[0] = at;
        buckets[c].next[1] = peaks;
        buckets[c].valley = at + count[FALL];
        buckets[c].mark = FRESH;
        at += count[FALL] + count[VALLEY];
        peaks += count[PEAK] + count[RISE];
    }
    return fork;
}

/* Readies them for what rises, from the highest down; and marks the last peak of each character, for it is met first. */
static void prepare_rises(const struct tally *tallies, struct bucket *buckets, uint32_t kinds, uint32_t n, uint32_t count,
                          uint32_t *w)
{
    for (uint32_t c = kinds, at = n, valleys = n + count; c-- > 0;) {
        const uint32_t *of = tallies[c].of;
        buckets[c].next[0] = at;
        buckets[c].next[1] = valleys;
        w[at - of[RISE] - 1] |= of[PEAK] > 0 ? FRESH : 0;
        at -= of[RISE] + of[PEAK];
        valleys -= of[VALLEY];
    }
}

/* The same for ranks: the sorted valleys go behind the falls of their characters. What is before a character's place for
 * falls and before its place for peaks is all that ranks below: a rank is the sum of both places less where peaks begin. */
static void prepare_ranks_of_falls(const struct tally *tallies, struct bucket *buckets, uint32_t kinds, uint32_t fork,
                                   uint32_t *w, const uint32_t *sorted)
{
    for (uint32_t c = 0, at = 0, peaks = fork; c < kinds; c++) {
        const uint32_t *count = tallies[c].of;
        buckets[c].next[0] = at;
        buckets[c].next[1] = peaks;
        at += count[FALL];
        w[at] = *sorted; /* most names have one valley or none */
        for (uint32_t i = 1; i < count[VALLEY]; i++)
            w[at + i] = sorted[i];
        at += count[VALLEY];
        sorted += count[VALLEY];
        peaks += count[PEAK] + count[RISE];
    }
}

/* As above, with places for rises and valleys: nobody needs the valleys any more, but they keep the sum right. */
static void prepare_ranks_of_rises(const struct tally *tallies, struct bucket *buckets, uint32_t kinds, uint32_t fork,
                                   uint32_t n)
{
    for (uint32_t c = kinds, at = n, valleys = fork; c-- > 0;) {
        const uint32_t *count = tallies[c].of;
        buckets[c].next[0] = at;
        buckets[c].next[1] = valleys;
        at -= count[RISE] + count[PEAK];
        valleys -= count[VALLEY] + count[FALL];
    }
}

static void sort_valleys(const uint32_t *valleys, uint32_t count, uint32_t first, uint32_t n, uint32_t *w);

#define TEXT uint32_t
#define RESULT uint32_t
#define RESULT_OF(position, before) ((position) < n ? (position) : (position)-n)
#define NAMED(x) x##_names
#include "bzip2_induce.h"
#undef TEXT
#undef RESULT
#undef RESULT_OF
#undef NAMED

#define TEXT uint8_t
#define RESULT uint8_t
#define RESULT_OF(position, before) (before)
#define NAMED(x) x##_bytes
#include "bzip2_induce.h"

/* Sorts the valleys from w + n on, which are sorted as far as the next valley and marked where they differ in that. */
static void sort_valleys(const uint32_t *valleys, uint32_t count, uint32_t first, uint32_t n, uint32_t *w)
{
    uint32_t *sorted = w + n, *name_at = w, *names = w + n / 2 + 1, kinds = 0;
    for (uint32_t i = 0; i < count; i++)
        kinds += sorted[i] >> 31;
    for (uint32_t i = count, name = kinds; i-- > 0;) {
        name -= sorted[i] >> 31;
        sorted[i] &= POSITION;
        name_at[(sorted[i] - first) / 2] = name; /* no two valleys are neighbours */
        sorted[i] += sorted[i] == first ? n : 0;
    }
    if (kinds == count)
        return;
    for (uint32_t i = 0; i + 1 < count; i++)
        names[i] = name_at[(valleys[i] - first) / 2];
    names[count - 1] = name_at[0];
    uint32_t *order = w;
    sort_names(names, count, kinds, order, w + n + n / 2 + 1);
    for (uint32_t i = 0; i < count; i++)
        sorted[i] = valleys[order[i]];
}

uint32_t ss_bzip2_sort(uint8_t *text, uint32_t n, uint8_t *last, uint32_t *work)
{
    return sort_bytes(text, n, 256, last, work);
}
