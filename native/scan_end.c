/* See scan_end.h, and _search in streamsave/format/scanner.py, the twin. */
#include "scan_end.h"

/* What announces a description, the newest byte lowest: 7e 00 00 i i 00 06 n n n n, or without footers 00 06 n n n n 7b. */
static int is_mark(int footed, uint64_t old, uint64_t recent)
{
    if (footed)
        return (recent >> 32 & 0xffff) == 0x0006 && (old & 0xffffff) == 0x7e0000;
    return (recent >> 40 & 0xffff) == 0x0006 && (recent & 0xff) == 0x7b;
}

void ss_scan_search_end(ss_scanner *s, const uint8_t *data, size_t n)
{
    const int footed = s->footers != ABSENT;
    uint64_t old = s->old, recent = s->recent;
    for (size_t i = 0; i < n; i++) {
        old = old << 8 | recent >> 56;
        recent = recent << 8 | data[i];
        if (is_mark(footed, old, recent)) {
            s->description_offset = (int64_t)(s->size + i + footed); /* without footers, the mark has its first byte */
            s->description_end = s->description_offset + (uint32_t)(footed ? recent : recent >> 8);
        }
    }
    s->old = old;
    s->recent = recent;
    s->end_mark = (recent & 0xff) == SECTION_END && (!footed || (recent >> 24 & 0xffffff) == 0x7e0000);
}
