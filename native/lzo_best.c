/* In the place of LZO1X-999: of all ways to write a block the one of the fewest bytes, as far as the matches are known.
 *
 * Places are looked at one after the other. Each has a cost, in bytes, for every number of literals that may stand before it
 * since the last match (0, 1, 2, 3; 4 and more), for a match has room for up to three, and two of its forms depend on them.
 * A literal leads to the next place, a match to the one behind it; in the end the cheapest way is followed back.
 */
#include "lzo.h"
#include "lzo_stream.h"

enum {
    LONG_RUN = 4, /* the state of four and more literals */
    STATES = 5,
    NO_COST = 1 << 30,
    CANDIDATES = 32,
    LONG_MATCH = 64, /* taken without a look at what else there is */
    PAIR_DISTANCE = 0x400,
    TRIPLE_DISTANCE = NEAR_DISTANCE + 0x400
};

typedef struct {
    uint32_t length, distance;
} match;

static uint32_t hash(uint64_t bytes, int size, int bits)
{
    return (uint32_t)((bytes << (64 - 8 * size)) * 0x9e3779b185ebca87u >> (64 - bits));
}

/* The link from a place that far back to one further back: the difference, 0 if that is none or out of reach. */
static uint16_t link_to(size_t from, size_t distance)
{
    return (uint16_t)(distance > FAR_DISTANCE ? 0 : distance - from);
}

/* The places with the same four bytes form a tree: each stands above those before it, and between those whose bytes sort
 * before and behind its own. This puts at on top, and splits the tree that was there. On the way down it meets the longest
 * match: found gets each that is longer than best and those already found, nearest first. */
static size_t descend(ss_lzo_finder *f, const uint8_t *in, size_t at, size_t n, uint32_t depth, match *found, size_t best)
{
    uint32_t *root = f->last4 + hash(load64(in + at), 4, SS_LZO_TREES_BITS); /* plus one, 0: none */
    size_t count = 0, limit = n - at < LONG_MATCH ? n - at : LONG_MATCH;
    uint16_t *before = &f->tree[(uint16_t)at][0], *behind = &f->tree[(uint16_t)at][1]; /* to be filled */
    size_t before_from = 0, behind_from = 0, before_same = 0, behind_same = 0;
    size_t distance = *root ? at + 1 - *root : 0;
    *root = (uint32_t)(at + 1);
    while (distance && distance <= FAR_DISTANCE && depth--) {
        const uint8_t *other = in + at - distance;
        const uint16_t *children = f->tree[(uint16_t)(at - distance)];
        size_t length = before_same < behind_same ? before_same : behind_same;
        length += same(other + length, in + at + length, in + at + limit);
        if (length > best && count < CANDIDATES) {
            best = length;
            found[count++] = (match){(uint32_t)length, (uint32_t)distance};
        }
        if (length == limit) { /* nearer, at is all that this place is: it leaves the tree */
            *before = children[0] ? link_to(before_from, distance + children[0]) : 0;
            *behind = children[1] ? link_to(behind_from, distance + children[1]) : 0;
            return count;
        }
        int is_before = other[length] < in[at + length];
        uint16_t next = children[is_before];
        if (is_before) {
            *before = link_to(before_from, distance);
            before = &f->tree[(uint16_t)(at - distance)][1];
            before_from = distance;
            before_same = length;
        } else {
            *behind = link_to(behind_from, distance);
            behind = &f->tree[(uint16_t)(at - distance)][0];
            behind_from = distance;
            behind_same = length;
        }
        distance = next ? distance + next : 0;
    }
    *before = *behind = 0;
    return count;
}

/* The places before at with the same bytes, nearest first, each match longer than the one before it; then at is such a place
 * too. pair: how far back the same two bytes are, 0 if too far. */
static size_t find(ss_lzo_finder *f, const uint8_t *in, size_t at, size_t n, uint32_t depth, match *found, uint32_t *pair)
{
    size_t count = 0, best = 2, distance;
    *pair = 0;
    if (n - at < 8)
        return 0;
    uint64_t bytes = load64(in + at);
    uint16_t *last2 = f->last2 + (bytes & 0xffff), *last3 = f->last3 + hash(bytes, 3, 14);
    distance = (uint16_t)(at - *last2); /* kept modulo 64 KiB; what one means that was never set does not matter */
    if (distance && distance <= PAIR_DISTANCE && !((load32(in + at - distance) ^ bytes) & 0xffff))
        *pair = (uint32_t)distance;
    distance = (uint16_t)(at - *last3);
    if (distance && distance <= MIDDLE_DISTANCE && !((load32(in + at - distance) ^ bytes) & 0xffffff)) {
        best = same(in + at - distance, in + at, in + n);
        found[count++] = (match){(uint32_t)best, (uint32_t)distance};
    }
    *last2 = *last3 = (uint16_t)at;
    return count + descend(f, in, at, n, depth, found + count, best);
}

static uint32_t match_cost(uint32_t length, uint32_t distance)
{
    uint32_t shortest = distance <= MIDDLE_DISTANCE ? MIDDLE_LENGTH : FAR_LENGTH;
    if (length <= NEAR_LENGTH && distance <= NEAR_DISTANCE)
        return 2;
    return length <= shortest ? 3 : 4 + (length - shortest - 1) / 255;
}

static void arrive(ss_lzo_place *place, uint32_t cost, uint32_t length, uint32_t distance, unsigned state)
{
    if (cost < place->cost[0]) {
        place->cost[0] = cost;
        place->length = length;
        place->distance = distance;
        place->from = (uint8_t)state;
    }
}

static void step_literal(const ss_lzo_place *here, ss_lzo_place *next)
{
    uint32_t longer = here->cost[LONG_RUN] + 1, run = here->run + 1;
    for (int state = 1; state < LONG_RUN; state++)
        next->cost[state] = here->cost[state - 1] + 1;
    if (run > SHORT_LITERALS && (run - SHORT_LITERALS - 1) % 255 == 0)
        longer++;
    next->cost[LONG_RUN] = here->cost[LONG_RUN - 1] + 2;
    next->run = LONG_RUN;
    if (longer <= next->cost[LONG_RUN]) {
        next->cost[LONG_RUN] = longer;
        next->run = run;
    }
}

static unsigned cheapest(const ss_lzo_place *place, unsigned first, unsigned last)
{
    unsigned best = first;
    for (unsigned state = first + 1; state <= last; state++)
        if (place->cost[state] <= place->cost[best])
            best = state;
    return best;
}

static uint8_t *put(uint8_t *out, const uint8_t *literals, size_t count, size_t distance, size_t length, int is_first)
{
    if (count) {
        out = put_literal_count(out, count, is_first);
        memcpy(out, literals, count);
        out += count;
    }
    if (length == 2 || (length == 3 && count > TRAILING_LITERALS && distance > NEAR_DISTANCE && distance <= TRIPLE_DISTANCE)) {
        size_t code = distance - (length == 2 ? 1 : NEAR_DISTANCE + 1);
        *out++ = (uint8_t)((code & 3) << 2);
        *out++ = (uint8_t)(code >> 2);
        return out;
    }
    return put_match(out, distance, length);
}

/* Where a match of found can lead to from here, at each of its lengths; size: no further than so many places. */
static void step_matches(ss_lzo_place *here, const match *found, size_t count, size_t size)
{
    unsigned best = cheapest(here, 0, LONG_RUN);
    uint32_t length = 3;
    for (; count; count--, found++) {
        uint32_t longest = found->length < size ? found->length : (uint32_t)size, distance = found->distance;
        if (length == 3 && longest >= 3 && distance > NEAR_DISTANCE && distance <= TRIPLE_DISTANCE)
            arrive(here + 3, here->cost[LONG_RUN] + 2, 3, distance, LONG_RUN);
        for (; length <= longest; length++)
            arrive(here + length, here->cost[best] + match_cost(length, distance), length, distance, best);
    }
}

/* The costs of all places from start on, up to a long match or the end of the segment; how many places those are.
 * pending: so many literals stand before start. taken: the long match, if there is one. */
static size_t walk(ss_lzo_finder *f, const uint8_t *in, size_t n, size_t start, size_t pending, uint32_t depth, match *taken)
{
    size_t size = n - start < SS_LZO_SEGMENT ? n - start : SS_LZO_SEGMENT;
    for (size_t i = 0; i <= size; i++)
        for (int state = 0; state < STATES; state++)
            f->places[i].cost[state] = NO_COST;
    f->places[0].cost[pending < LONG_RUN ? pending : LONG_RUN] = 0;
    f->places[0].run = (uint32_t)pending;
    for (size_t i = 0; i < size; i++) {
        ss_lzo_place *here = f->places + i;
        match found[CANDIDATES];
        uint32_t pair;
        size_t count = find(f, in, start + i, n, depth, found, &pair);
        if (count && found[count - 1].length >= LONG_MATCH) {
            *taken = found[count - 1];
            return i;
        }
        step_literal(here, here + 1);
        if (pair && i + 2 <= size) {
            unsigned few = cheapest(here, 1, LONG_RUN - 1);
            arrive(here + 2, here->cost[few] + 2, 2, pair, few);
        }
        step_matches(here, found, count, size - i);
    }
    return size;
}

/* The matches on the cheapest way to place i, into the end of chosen; the first one's number there. */
static size_t follow_back(ss_lzo_finder *f, size_t i)
{
    size_t first = SS_LZO_SEGMENT;
    unsigned state = cheapest(f->places + i, 0, LONG_RUN);
    while (i > 0) {
        const ss_lzo_place *here = f->places + i;
        if (state == 0) {
            f->chosen[--first] = (uint32_t)i;
            state = here->from;
            i -= here->length;
        } else {
            state = state < LONG_RUN || here->run == LONG_RUN ? state - 1 : LONG_RUN;
            i--;
        }
    }
    return first;
}

size_t ss_lzo_compress_best(const uint8_t *in, size_t n, uint8_t *out, ss_lzo_finder *f, uint32_t depth)
{
    uint8_t *const out_start = out;
    size_t start = 0, literals = 0; /* of the segment; of what is not written yet */
    memset(f->last2, 0, sizeof f->last2);
    memset(f->last3, 0, sizeof f->last3);
    memset(f->last4, 0, sizeof f->last4);
    while (start < n) {
        match taken = {0, 0};
        size_t count = walk(f, in, n, start, start - literals, depth, &taken);
        for (size_t number = follow_back(f, count); number < SS_LZO_SEGMENT; number++) {
            const ss_lzo_place *place = f->places + f->chosen[number];
            size_t at = start + f->chosen[number] - place->length;
            out = put(out, in + literals, at - literals, place->distance, place->length, out == out_start);
            literals = at + place->length;
        }
        start += count;
        if (taken.length) {
            const uint8_t *behind = in + start + taken.length;
            size_t length = taken.length + same(behind - taken.distance, behind, in + n);
            out = put(out, in + literals, start - literals, taken.distance, length, out == out_start);
            for (size_t at = start + 1; at < start + length; at++) {
                match found[CANDIDATES];
                uint32_t pair;
                find(f, in, at, n, depth, found, &pair);
            }
            literals = start += length;
        }
    }
    out = put_end(out, in + literals, n - literals, out == out_start);
    return (size_t)(out - out_start);
}
