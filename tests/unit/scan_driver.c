/* Feeds a file to the scanner in pieces of one size, each in memory of its own that ends where the piece ends, so that the
 * address sanitizer sees every byte read beyond it. Prints what was found: scan_driver PIECE FILE...
 */
#include "scan.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void print(const ss_scanner *s)
{
    printf("%" PRId32 " %" PRId64 " %" PRId64 " %" PRIu64 " %" PRIu64 " %" PRId32 " %" PRIu32 " %" PRIu32 " %" PRId64 " %" PRId64 " %" PRId64 " %" PRIu64 " %" PRIu64
           " %" PRId64 " %" PRId64 " %" PRId32 " %" PRIu64 "\n",
           s->in_order, s->record_offset, s->record_block, s->record_page, s->size, s->phase, s->page_size, s->block_count, s->ram_offset, s->ram_end, s->device_offset, s->page_count,
           s->zero_page_count, s->description_offset, s->description_end, s->end_mark, s->ram_size);
}

static int scan_file(const char *path, size_t piece_size)
{
    FILE *file = fopen(path, "rb");
    ss_scanner *scanner = malloc(sizeof *scanner);
    uint8_t *buffer = malloc(piece_size);
    size_t n;
    if (!file || !scanner || !buffer)
        return 1;
    memset(scanner, 0xa5, sizeof *scanner); /* init has to set whatever is read */
    ss_scan_init(scanner);
    while ((n = fread(buffer, 1, piece_size, file)) > 0) {
        uint8_t *piece = malloc(n);
        if (!piece)
            return 1;
        memcpy(piece, buffer, n);
        ss_scan_feed(scanner, piece, n);
        free(piece);
    }
    print(scanner);
    free(buffer);
    free(scanner);
    return fclose(file);
}

int main(int argc, char **argv)
{
    for (int i = 2; i < argc; i++)
        if (scan_file(argv[i], strtoull(argv[1], NULL, 10)) != 0)
            return 1;
    return 0;
}
