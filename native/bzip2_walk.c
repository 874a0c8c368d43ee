/* See bzip2_walk.h. */
#include "bzip2_walk.h"

#include <string.h>

#define LANES 8
#define STEPS SS_BZIP2_WALK_STEPS
#define MARK (UINT32_C(1) << 31) /* on an entry that leads to where a walk began */
#define ROW(entry) ((entry) >> 8 & 0xfffff)
#define NOBODY SS_BZIP2_PIECES
#define ROWS_PER_WALK 512 /* at least */

/* Where walks begin: spread over the rows, and at the text's. How many. */
static uint32_t choose_starts(ss_bzip2_walk *w, uint32_t n, uint32_t origin)
{
    uint32_t wanted = n / ROWS_PER_WALK + 1, count = 0;
    if (wanted > SS_BZIP2_WALKS)
        wanted = SS_BZIP2_WALKS;
    int is_in = 0;
    for (uint32_t i = 0; i < wanted; i++) {
        uint32_t row = (uint32_t)((uint64_t)n * i / wanted);
        if (!is_in && row >= origin) {
            is_in = 1;
            if (row > origin)
                w->walks[count++].start = origin;
        }
        w->walks[count++].start = row;
    }
    if (!is_in)
        w->walks[count++].start = origin;
    return count;
}

static void make_steps(ss_bzip2_walk *w, const uint8_t *last, uint32_t n, uint32_t walk_count, const uint32_t counts[256])
{
    uint32_t starts[256], sum = 0;
    for (uint32_t byte = 0; byte < 256; byte++) {
        starts[byte] = sum;
        sum += counts[byte];
    }
    for (uint32_t i = 0; i < walk_count; i++) { /* the first start is row 0 */
        uint32_t row = w->walks[i].start, end = i + 1 < walk_count ? w->walks[i + 1].start : n, mark = MARK;
        for (; row < end; row++, mark = 0)
            w->table[starts[last[row]]++] = mark | row << 8 | last[row];
    }
    w->table[n] = n << 8; /* for lanes without a walk */
}

/* The walks that go on at the same time, one in each lane. */
typedef struct {
    uint32_t row[LANES];
    uint32_t at[LANES]; /* where in `pieces` the byte of the round's step 0 would be; unsigned, it may be before them */
    uint32_t piece[LANES];
    uint32_t from[LANES]; /* the step of the round with which the piece begins */
    uint32_t walk[LANES]; /* NOBODY: none */
    uint32_t live, walks_begun, pieces_begun;
} lanes;

static void begin_piece(ss_bzip2_walk *w, lanes *l, uint32_t lane, uint32_t step)
{
    uint32_t piece = l->pieces_begun++;
    w->following[piece] = NOBODY;
    l->piece[lane] = piece;
    l->from[lane] = step;
    l->at[lane] = piece * STEPS - step;
}

static void end_piece(ss_bzip2_walk *w, const lanes *l, uint32_t lane, uint32_t step)
{
    w->sizes[l->piece[lane]] = (uint16_t)(step - l->from[lane]);
}

static void begin_walk(ss_bzip2_walk *w, lanes *l, uint32_t lane, uint32_t step, uint32_t walk_count, uint32_t n)
{
    if (l->walks_begun == walk_count) {
        l->live--;
        l->walk[lane] = NOBODY;
        l->row[lane] = n;
        l->at[lane] = NOBODY * STEPS;
        return;
    }
    begin_piece(w, l, lane, step);
    l->walk[lane] = l->walks_begun;
    w->walks[l->walks_begun].first = l->piece[lane];
    l->row[lane] = w->walks[l->walks_begun++].start;
}

/* All walks, each into its pieces. */
static void walk_all(ss_bzip2_walk *w, uint32_t n, uint32_t walk_count)
{
    lanes l = {.live = LANES};
    for (uint32_t lane = 0; lane < LANES; lane++)
        begin_walk(w, &l, lane, 0, walk_count, n);
    while (l.live) {
        for (uint32_t step = 0; step < STEPS; step++) {
            uint32_t any = 0, entries[LANES];
            for (uint32_t lane = 0; lane < LANES; lane++) {
                uint32_t entry = w->table[l.row[lane]];
                w->pieces[l.at[lane] + step] = (uint8_t)entry;
                l.row[lane] = ROW(entry);
                entries[lane] = entry;
                any |= entry;
            }
            if (!(any & MARK))
                continue;
            for (uint32_t lane = 0; lane < LANES; lane++)
                if (entries[lane] & MARK) {
                    w->walks[l.walk[lane]].next = l.row[lane];
                    end_piece(w, &l, lane, step + 1);
                    begin_walk(w, &l, lane, step + 1, walk_count, n);
                }
        }
        for (uint32_t lane = 0; lane < LANES; lane++)
            if (l.walk[lane] != NOBODY) {
                uint32_t piece = l.piece[lane];
                end_piece(w, &l, lane, STEPS);
                begin_piece(w, &l, lane, 0);
                w->following[piece] = l.piece[lane];
            }
    }
}

static const ss_bzip2_walked *walk_from(const ss_bzip2_walk *w, uint32_t row, uint32_t walk_count)
{
    uint32_t low = 0, high = walk_count - 1;
    while (low < high) {
        uint32_t middle = (low + high) / 2;
        if (w->walks[middle].start < row)
            low = middle + 1;
        else
            high = middle;
    }
    return w->walks + low;
}

void ss_bzip2_untransform(ss_bzip2_walk *w, const uint8_t *last, uint32_t n, uint32_t origin, const uint32_t counts[256],
                          uint8_t *text)
{
    uint32_t walk_count = choose_starts(w, n, origin), row = origin, done = 0;
    make_steps(w, last, n, walk_count, counts);
    walk_all(w, n, walk_count);
    while (done < n) { /* a text that repeats itself comes by more than once */
        const ss_bzip2_walked *walk = walk_from(w, row, walk_count);
        for (uint32_t piece = walk->first; piece != NOBODY && done < n; piece = w->following[piece]) {
            uint32_t size = w->sizes[piece] < n - done ? w->sizes[piece] : n - done;
            memcpy(text + done, w->pieces + piece * STEPS, size);
            done += size;
        }
        row = walk->next;
    }
}
