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
static uint32_t NAMED(classify)(const TEXT *text, uint32_t first, uint32_t n, struct bucket *buckets, uint32_t *valleys)
{
    uint32_t at = n / 2, rises = 1;
    TEXT right = text[first + n];
    for (uint32_t i = first + n; i-- > first;) {
        TEXT here = text[i];
        uint32_t type = here < right + rises, class = rises << 1 | type;
        buckets[right].count[class]++; /* the one of i + 1, now that the type on its left is known */
        valleys[at] = i + 1;
        at -= class == VALLEY;
        right = here;
        rises = type;
    }
    return n / 2 - at;
}

/* Puts the valleys, in the order of the text, behind the falls of their characters. */
static void NAMED(scatter)(const TEXT *text, const uint32_t *valleys, uint32_t count, uint32_t *w, struct bucket *buckets,
                           uint32_t kinds)
{
    for (uint32_t c = 0, at = 0; c < kinds; c++) {
        buckets[c].next[0] = at += buckets[c].count[FALL];
        at += buckets[c].count[VALLEY];
    }
    for (uint32_t i = 0; i < count; i++)
        w[buckets[text[valleys[i]]].next[0]++] = valleys[i];
}

/* From valleys sorted by their character to falls and peaks sorted by what they hold up to the next valley. */
static void NAMED(name_falls)(const TEXT *text, uint32_t *w, uint32_t end, struct bucket *buckets)
{
    uint32_t group = 0;
    for (uint32_t i = 0; i < end; i++) {
        uint32_t entry = w[i], j = (entry & POSITION) - 1;
        TEXT here = text[j], before = text[(int32_t)j - 1];
        uint32_t peak = before < here;
        struct bucket *b = &buckets[here];
        group += entry >> 31;
        uint32_t fresh = b->last[peak] != group;
        b->last[peak] = group;
        w[b->next[peak]++] = j | fresh << (31 - peak); /* a peak's mark is read from the other side */
    }
}

/* From peaks to rises and valleys, from the greatest down. */
static void NAMED(name_rises)(const TEXT *text, uint32_t *w, uint32_t start, uint32_t end, struct bucket *buckets)
{
    uint32_t group = 0;
    for (uint32_t i = end; i-- > start;) {
        uint32_t entry = w[i], j = (entry & POSITION) - 1;
        TEXT here = text[j], before = text[(int32_t)j - 1];
        uint32_t valley = before > here;
        struct bucket *b = &buckets[here];
        group += entry >> 31;
        uint32_t fresh = b->last[valley] != group;
        b->last[valley] = group;
        w[--b->next[valley]] = j | fresh << 31;
        group += entry >> 30 & 1;
    }
}

/* As above, but from sorted valleys, and so to the ranks. */
static void NAMED(rank_falls)(const TEXT *text, uint32_t n, uint32_t *w, uint32_t end, struct bucket *buckets,
                              RESULT *result, uint32_t origin, uint32_t *origin_rank)
{
    for (uint32_t i = 0; i < end; i++) {
        uint32_t j = w[i] - 1;
        TEXT here = text[j], before = text[(int32_t)j - 1];
        uint32_t peak = before < here;
        struct bucket *b = &buckets[here];
        uint32_t rank = b->rank++;
        w[b->next[peak]++] = j;
        result[rank] = RESULT_OF(j, before);
        if (j == origin)
            *origin_rank = rank;
    }
    (void)n; /* not every RESULT_OF wants it */
}

static void NAMED(rank_rises)(const TEXT *text, uint32_t n, uint32_t *w, uint32_t start, uint32_t end,
                              struct bucket *buckets, RESULT *result, uint32_t origin, uint32_t *origin_rank)
{
    for (uint32_t i = end; i-- > start;) {
        uint32_t j = w[i] - 1;
        TEXT here = text[j], before = text[(int32_t)j - 1];
        uint32_t valley = before > here;
        struct bucket *b = &buckets[here];
        uint32_t rank = --b->rank;
        w[--b->next[valley]] = j;
        result[rank] = RESULT_OF(j, before);
        if (j == origin)
            *origin_rank = rank;
    }
    (void)n;
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

    struct bucket *buckets = (struct bucket *)work;
    uint32_t *room = work + kinds * (sizeof *buckets / sizeof *work);
    memset(buckets, 0, kinds * sizeof *buckets);
    uint32_t count = NAMED(classify)(text, first, n, buckets, room);
    const uint32_t *valleys = room + n / 2 + 1 - count;
    uint32_t *w = room + n / 2 + 1, *sorted = w + n;

    NAMED(scatter)(text, valleys, count, w, buckets, kinds);
    uint32_t fork = prepare_falls(buckets, kinds);
    mark_valleys(buckets, kinds, w);
    NAMED(name_falls)(text, w, fork, buckets);
    prepare_rises(buckets, kinds, n, count);
    mark_peaks(buckets, kinds, w);
    NAMED(name_rises)(text, w, fork, n, buckets);
    sort_valleys(valleys, count, first, n, w);

    place(buckets, kinds, sorted, w);
    prepare_falls(buckets, kinds);
    NAMED(rank_falls)(text, n, w, fork, buckets, result, origin, &origin_rank);
    prepare_rises(buckets, kinds, n, count);
    NAMED(rank_rises)(text, n, w, fork, n, buckets, result, origin, &origin_rank);
    return origin_rank;
}
