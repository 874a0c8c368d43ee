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

/* All about one character, in half a cache line. */
struct bucket {
    uint32_t count[4]; /* of rotations, by class */
    uint32_t next[2]; /* where in w the next one goes: a fall and a peak; then a rise and a valley */
    union {
        uint32_t last[2]; /* the group from which the last one came */
        uint32_t rank; /* of the next one */
    };
};

/* Where what falls goes, from the lowest on; returns where what rises begins. */
static uint32_t prepare_falls(struct bucket *buckets, uint32_t kinds)
{
    uint32_t fork = 0, at = 0, rank = 0;
    for (uint32_t c = 0; c < kinds; c++)
        fork += buckets[c].count[FALL] + buckets[c].count[VALLEY];
    for (uint32_t c = 0, peaks = fork; c < kinds; c++) {
        struct bucket *b = &buckets[c];
        b->next[0] = at;
        b->next[1] = peaks;
        b->rank = rank;
        at += b->count[FALL] + b->count[VALLEY];
        peaks += b->count[PEAK] + b->count[RISE];
        rank += b->count[FALL] + b->count[PEAK] + b->count[VALLEY] + b->count[RISE];
    }
    return fork;
}

/* Where what rises goes, from the highest down. */
static void prepare_rises(struct bucket *buckets, uint32_t kinds, uint32_t n, uint32_t count)
{
    uint32_t rises = n, valleys = n + count, rank = n;
    for (uint32_t c = kinds; c-- > 0;) {
        struct bucket *b = &buckets[c];
        b->next[0] = rises;
        b->next[1] = valleys;
        b->rank = rank;
        rises -= b->count[RISE] + b->count[PEAK];
        valleys -= b->count[VALLEY];
        rank -= b->count[FALL] + b->count[PEAK] + b->count[VALLEY] + b->count[RISE];
    }
}

/* The first valley of each character begins a group; and nothing has come from any group. */
static void mark_valleys(struct bucket *buckets, uint32_t kinds, uint32_t *w)
{
    for (uint32_t c = 0; c < kinds; c++) {
        if (buckets[c].count[VALLEY])
            w[buckets[c].next[0] + buckets[c].count[FALL]] |= FRESH;
        buckets[c].last[0] = buckets[c].last[1] = 0;
    }
}

/* As above, of the last peaks, which are met first. */
static void mark_peaks(struct bucket *buckets, uint32_t kinds, uint32_t *w)
{
    for (uint32_t c = 0; c < kinds; c++) {
        if (buckets[c].count[PEAK])
            w[buckets[c].next[0] - buckets[c].count[RISE] - 1] |= FRESH;
        buckets[c].last[0] = buckets[c].last[1] = 0;
    }
}

/* Puts the sorted valleys behind the falls of their characters. */
static void place(const struct bucket *buckets, uint32_t kinds, const uint32_t *sorted, uint32_t *w)
{
    for (uint32_t c = 0; c < kinds; c++) {
        w += buckets[c].count[FALL];
        for (uint32_t left = buckets[c].count[VALLEY]; left > 0; left--)
            *w++ = *sorted++;
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
