/* The sort by induction, for one type of character; bzip2_sort.c, which tells the story, includes this once for each.
 *
 * TEXT is the type of a character, NAMED(x) the name of a function, RESULT what each rank gets, and
 * RESULT_OF(position, before) its value, from the rotation's position and the character before it.
 */

/* Where a valley is, and there is one unless all characters are equal: then n. */
static uint32_t NAMED(first_valley)(const TEXT *text, uint32_t n)
{
    uint32_t i = 1, valley;
    while (i < n && text[i - 1] <= text[i])
        i++;
    if (i == n && text[n - 1] <= text[0])
        return n;
    for (valley = i;; i++) { /* down from here, to where the last step down leads before a step up */
        TEXT here = text[i < n ? i : i - n], right = text[i + 1 < n ? i + 1 : i + 1 - n];
        if (right > here)
            return valley < n ? valley : valley - n;
        if (right < here)
            valley = i + 1;
    }
}

/* Counts each character's rotations by class, and lists the valleys, ascending, at the end of room for n / 2 + 1. */
static uint32_t NAMED(classify)(const TEXT *text, uint32_t first, uint32_t n, struct tally *tallies, uint32_t *valleys)
{
    uint32_t at = n / 2, rises = 1;
    TEXT right = text[first + n];
    for (uint32_t i = first + n; i-- > first;) {
        TEXT here = text[i];
        uint32_t type = here < right + rises, class = rises << 1 | type;
        tallies[right].of[class]++; /* the one of i + 1, now that the type on its left is known */
        valleys[at] = i + 1;
        at -= class == VALLEY;
        right = here;
        rises = type;
    }
    return n / 2 - at;
}

/* Puts the valleys, in the order of the text, behind the falls of their characters. */
static void NAMED(scatter)(const TEXT *text, const uint32_t *valleys, uint32_t count, uint32_t *w, struct bucket *buckets)
{
    for (uint32_t i = 0; i < count; i++) {
        struct bucket *b = &buckets[text[valleys[i]]];
        w[b->valley++] = valleys[i] | b->mark;
        b->mark = 0;
    }
}

/* Has the text at hand for a step to come. The entry may not be there yet; then whatever it is does no harm. */
static inline void NAMED(look_ahead)(const TEXT *text, uint32_t entry)
{
    __builtin_prefetch(text + (int32_t)(entry & POSITION) - 2);
}

/* From valleys sorted by their character to falls and peaks sorted by what they hold up to the next valley. */
static void NAMED(name_falls)(const TEXT *text, uint32_t *w, uint32_t end, struct bucket *buckets)
{
    uint32_t group = FALLING_GROUPS;
    for (uint32_t i = 0; i < end; i++) {
        NAMED(look_ahead)(text, w[i + AHEAD]);
        uint32_t entry = w[i], j = (entry & POSITION) - 1;
        TEXT here = text[j], before = text[(int32_t)j - 1];
        uint32_t peak = before < here;
        struct bucket *b = &buckets[here];
        group += entry >> 31;
        uint32_t fresh = b->last[peak] != group;
        b->last[peak] = group;
        __builtin_prefetch(w + b->next[peak] + LINE, 1);
        w[b->next[peak]++] = j | fresh << (31 - peak); /* a peak's mark is read from the other side */
    }
}

/* From peaks to rises and valleys, from the greatest down. */
static void NAMED(name_rises)(const TEXT *text, uint32_t *w, uint32_t start, uint32_t end, struct bucket *buckets)
{
    uint32_t group = RISING_GROUPS;
    for (uint32_t i = end; i-- > start;) {
        NAMED(look_ahead)(text, w[(int32_t)i - AHEAD]);
        uint32_t entry = w[i], j = (entry & POSITION) - 1;
        TEXT here = text[j], before = text[(int32_t)j - 1];
        uint32_t valley = before > here;
        struct bucket *b = &buckets[here];
        group += entry >> 31;
        uint32_t fresh = b->last[valley] != group;
        b->last[valley] = group;
        __builtin_prefetch(w - LINE + b->next[valley], 1);
        w[--b->next[valley]] = j | fresh << 31;
        group += entry >> 30 & 1;
    }
}

/* As above, but from sorted valleys, and so to the ranks. */
static void NAMED(rank_falls)(const TEXT *text, uint32_t n, uint32_t *w, uint32_t fork, struct bucket *buckets,
                              RESULT *result, uint32_t origin, uint32_t *origin_rank)
{
    for (uint32_t i = 0; i < fork; i++) {
        NAMED(look_ahead)(text, w[i + AHEAD]);
        uint32_t j = w[i] - 1;
        TEXT here = text[j], before = text[(int32_t)j - 1];
        uint32_t peak = before < here;
        struct bucket *b = &buckets[here];
        uint32_t rank = b->next[0] + b->next[1] - fork;
        __builtin_prefetch(w + b->next[peak] + LINE, 1);
        w[b->next[peak]++] = j;
        result[rank] = RESULT_OF(j, before);
        if (j == origin)
            *origin_rank = rank;
    }
    (void)n; /* not every RESULT_OF wants it */
}

static void NAMED(rank_rises)(const TEXT *text, uint32_t n, uint32_t *w, uint32_t fork,
                              struct bucket *buckets, RESULT *result, uint32_t origin, uint32_t *origin_rank)
{
    for (uint32_t i = n; i-- > fork;) {
        NAMED(look_ahead)(text, w[(int32_t)i - AHEAD]);
        uint32_t j = w[i] - 1;
        TEXT here = text[j], before = text[(int32_t)j - 1];
        uint32_t valley = before > here;
        struct bucket *b = &buckets[here];
        uint32_t rank = b->next[0] + b->next[1] - fork - 1;
        __builtin_prefetch(w - LINE + b->next[valley], 1);
        w[--b->next[valley]] = j;
        result[rank] = RESULT_OF(j, before);
        if (j == origin)
            *origin_rank = rank;
    }
}

/* Sorts the rotations of a text of characters below kinds; returns the rank of the one that begins at its start. */
static uint32_t NAMED(sort)(TEXT *text, uint32_t n, uint32_t kinds, RESULT *result, uint32_t *work)
{
    uint32_t first = NAMED(first_valley)(text, n), origin = first > 0 ? n : 0, origin_rank = 0;
    if (first == n) { /* they are all equal */
        for (uint32_t i = 0; i < n; i++)
            result[i] = RESULT_OF(i, text[i]);
        return 0;
    }
    text[-1] = text[n - 1];
    memcpy(text + n, text, (first + 1) * sizeof *text);

    struct tally *tallies = (struct tally *)work;
    struct bucket *buckets = (struct bucket *)(tallies + kinds);
    uint32_t *room = (uint32_t *)(buckets + kinds);
    memset(tallies, 0, kinds * sizeof *tallies);
    uint32_t count = NAMED(classify)(text, first, n, tallies, room);
    const uint32_t *valleys = room + n / 2 + 1 - count;
    uint32_t *w = room + n / 2 + 1, *sorted = w + n;

    uint32_t fork = prepare_falls(tallies, buckets, kinds);
    NAMED(scatter)(text, valleys, count, w, buckets);
    NAMED(name_falls)(text, w, fork, buckets);
    prepare_rises(tallies, buckets, kinds, n, count, w);
    NAMED(name_rises)(text, w, fork, n, buckets);
    sort_valleys(valleys, count, first, n, w);

    prepare_ranks_of_falls(tallies, buckets, kinds, fork, w, sorted);
    NAMED(rank_falls)(text, n, w, fork, buckets, result, origin, &origin_rank);
    prepare_ranks_of_rises(tallies, buckets, kinds, fork, n);
    NAMED(rank_rises)(text, n, w, fork, buckets, result, origin, &origin_rank);
    return origin_rank;
}
