/* The scanner of QEMU's migration stream; the twin of streamsave/format/scanner.py, which tells the story.
 *
 * A plain struct that the caller owns: nothing is allocated, nothing is looked back at, and every array has its bound here.
 */
#ifndef STREAMSAVE_SCAN_H
#define STREAMSAVE_SCAN_H

#include <stddef.h>
#include <stdint.h>

#define SS_MAX_BLOCKS 512
#define SS_MAX_NAME 255

typedef struct {
    uint64_t size;
    uint8_t name_size;
    uint8_t name[SS_MAX_NAME];
} ss_block;

/* A page record: its page, by its block and its offset there, and where in the stream its contents begin. */
typedef struct {
    uint64_t page, contents;
    int32_t block, record;
} ss_page;

typedef struct {
    /* what was found; offsets are -1 until then */
    uint64_t size;
    int64_t ram_offset, ram_end, device_offset, description_offset, description_end;
    uint64_t page_count, zero_page_count, ram_size;
    uint32_t page_size, block_count, machine_size;
    int32_t phase, end_mark, in_order;
    /* the first page record that begins in the piece fed last: -1, or where it begins, its block and its page's offset */
    int64_t record_offset, record_block;
    uint64_t record_page;
    ss_block blocks[SS_MAX_BLOCKS];
    uint8_t machine[SS_MAX_NAME];
    /* where page records are noted, if anybody wants them: not beyond log_size */
    ss_page *log;
    size_t log_size, log_count;
    /* where it stands */
    uint64_t skip, ram_left, section_start;
    uint64_t old, recent; /* the last 16 bytes of the opaque part, the newest lowest */
    uint64_t piece_start, word_start, page, last_page;
    int64_t ram_id, block, last_block;
    uint32_t capabilities_left, need, held_size;
    int32_t next, record, last_section, footers;
    uint8_t held[SS_MAX_NAME + 8]; /* the most that a step asks for: a name and eight bytes */
} ss_scanner;

void ss_scan_init(ss_scanner *s);

/* Make an initialised scanner stand before the page record at offset, whose block is the one that records name from then on. The
 * blocks and the page size are the caller's to set. */
void ss_scan_resume(ss_scanner *s, uint64_t offset, uint32_t ram_id, int64_t block);

/* The next n bytes of the stream. */
void ss_scan_feed(ss_scanner *s, const uint8_t *data, size_t n);

#endif
