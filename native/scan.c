/* See scan.h, and streamsave/format/scanner.py for what each step means: the names are the same, in the same order. */
#include "scan.h"
#include "scan_end.h"

#include <string.h>

enum phase { MAGIC, STRUCTURE, ENDED, OPAQUE, FOREIGN };

enum flag {
    FLAG_ZERO = 0x02, FLAG_MEM_SIZE = 0x04, FLAG_PAGE = 0x08, FLAG_EOS = 0x10, FLAG_CONTINUE = 0x20,
    FLAG_XBZRLE = 0x40, FLAG_COMPRESSED = 0x100, FLAG_FLUSH = 0x200, FLAGS = 0xfff
};

enum step {
    STEP_MAGIC, STEP_TOP, STEP_AFTER_END, STEP_DESCRIPTION_SIZE, STEP_MACHINE_SIZE, STEP_MACHINE, STEP_SUBSECTION_NAME_SIZE,
    STEP_SUBSECTION, STEP_CAPABILITY_COUNT, STEP_CAPABILITY, STEP_PAGE_BITS, STEP_SECTION_NAME_SIZE, STEP_SECTION_NAME,
    STEP_PART, STEP_AFTER_RAM_SECTION, STEP_FOOTER, STEP_COMMAND, STEP_WORD, STEP_BLOCK_NAME_SIZE, STEP_BLOCK, STEP_PAGE_NAME_SIZE, STEP_BODY,
    STEP_PACKED_SIZE
};

static uint32_t be32(const uint8_t *p)
{
    return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static uint64_t be64(const uint8_t *p)
{
    return (uint64_t)be32(p) << 32 | be32(p + 4);
}

static int is(const uint8_t *data, uint32_t size, const char *word)
{
    return size == strlen(word) && memcmp(data, word, size) == 0;
}

static void step(ss_scanner *s, const uint8_t *data, uint32_t size);

static void ask(ss_scanner *s, uint32_t need, enum step next)
{
    s->need = need;
    s->next = next;
    if (need == 0)
        step(s, NULL, 0);
}

static void give_up(ss_scanner *s)
{
    s->phase = OPAQUE;
}

static void top(ss_scanner *s, uint8_t kind)
{
    s->section_start = s->size - 1;
    if (kind == SECTION_END && s->ram_end >= 0) {
        s->phase = ENDED;
        ask(s, 1, STEP_AFTER_END);
    } else if (kind == CONFIGURATION && s->size == 9) {
        ask(s, 4, STEP_MACHINE_SIZE);
    } else if (kind == SUBSECTION && s->ram_offset < 0) {
        ask(s, 1, STEP_SUBSECTION_NAME_SIZE);
    } else if (kind == SECTION_START && s->ram_offset < 0) {
        ask(s, 5, STEP_SECTION_NAME_SIZE);
    } else if ((kind == SECTION_PART || kind == SECTION_LAST) && s->ram_id >= 0) {
        s->last_section = kind == SECTION_LAST;
        ask(s, 4, STEP_PART);
    } else if (kind == COMMAND) {
        ask(s, 4, STEP_COMMAND);
    } else {
        if (kind == SECTION_FULL && s->ram_end >= 0)
            s->device_offset = (int64_t)s->section_start;
        give_up(s);
    }
}

static void after_end(ss_scanner *s, uint8_t kind)
{
    if (kind == DESCRIPTION) {
        s->phase = STRUCTURE;
        ask(s, 4, STEP_DESCRIPTION_SIZE);
    } else {
        give_up(s);
    }
}

static void after_ram_section(ss_scanner *s, uint8_t kind)
{
    if (s->footers == UNKNOWN)
        s->footers = kind == FOOTER ? PRESENT : ABSENT;
    if (s->footers == ABSENT)
        top(s, kind);
    else if (kind == FOOTER)
        ask(s, 4, STEP_FOOTER);
    else
        give_up(s);
}

static void subsection(ss_scanner *s, const uint8_t *data, uint32_t size)
{
    size -= 4;
    if (is(data, size, "configuration/capabilities")) {
        ask(s, 4, STEP_CAPABILITY_COUNT);
    } else if (is(data, size, "configuration/target-page-bits")) {
        ask(s, 4, STEP_PAGE_BITS);
    } else if (is(data, size, "configuration/uuid")) {
        s->skip = 16;
        ask(s, 1, STEP_TOP);
    } else {
        give_up(s);
    }
}

static void next_capability(ss_scanner *s)
{
    if (s->capabilities_left > 0) {
        s->capabilities_left--;
        ask(s, 1, STEP_CAPABILITY);
    } else {
        ask(s, 1, STEP_TOP);
    }
}

static void note_page(ss_scanner *s)
{
    int later = s->block > s->last_block || (s->block == s->last_block && s->page > s->last_page);
    if (s->block < 0 || !later || (s->record != FLAG_PAGE && s->record != FLAG_ZERO))
        s->in_order = 0;
    s->last_block = s->block;
    s->last_page = s->page;
    if (s->log_count < s->log_size) {
        ss_page *noted = &s->log[s->log_count++];
        noted->page = s->page;
        noted->contents = s->size;
        noted->block = (int32_t)s->block;
        noted->record = s->record;
    }
    if (s->record_offset < 0 && s->word_start >= s->piece_start) {
        s->record_offset = (int64_t)s->word_start;
        s->record_block = s->block;
        s->record_page = s->page;
    }
}

static void page_name(ss_scanner *s, const uint8_t *data, uint32_t size)
{
    s->block = -1;
    for (uint32_t i = 0; i < s->block_count && s->block < 0; i++)
        if (s->blocks[i].name_size == size && memcmp(s->blocks[i].name, data, size) == 0)
            s->block = i;
}

static void body(ss_scanner *s)
{
    note_page(s);
    if (s->record == FLAG_ZERO) {
        s->zero_page_count++;
        s->skip = 1;
    } else {
        s->page_count++;
        if (s->record != FLAG_PAGE) {
            ask(s, s->record == FLAG_XBZRLE ? 3 : 4, STEP_PACKED_SIZE);
            return;
        }
        s->skip = s->page_size;
    }
    ask(s, 8, STEP_WORD);
}

static void next_block(ss_scanner *s)
{
    if (s->ram_left > 0)
        ask(s, 1, STEP_BLOCK_NAME_SIZE);
    else
        ask(s, 8, STEP_WORD);
}

static void word(ss_scanner *s, uint64_t value)
{
    int flags = (int)(value & FLAGS);
    s->record = flags & ~FLAG_CONTINUE;
    s->word_start = s->size - 8;
    s->page = value & ~(uint64_t)FLAGS;
    if (flags == FLAG_EOS) {
        if (s->last_section)
            s->ram_end = (int64_t)s->size;
        ask(s, 1, STEP_AFTER_RAM_SECTION);
    } else if (flags == FLAG_FLUSH) {
        ask(s, 8, STEP_WORD);
    } else if (flags == FLAG_MEM_SIZE) {
        s->ram_left = value & ~(uint64_t)FLAGS;
        next_block(s);
    } else if (s->record != FLAG_ZERO && s->record != FLAG_PAGE && s->record != FLAG_XBZRLE && s->record != FLAG_COMPRESSED) {
        give_up(s);
    } else if (flags & FLAG_CONTINUE) {
        body(s);
    } else {
        ask(s, 1, STEP_PAGE_NAME_SIZE);
    }
}

static void block(ss_scanner *s, const uint8_t *data, uint32_t size)
{
    uint64_t used = be64(data + size - 8);
    if (s->block_count == SS_MAX_BLOCKS || used == 0 || used > s->ram_left) {
        give_up(s);
        return;
    }
    ss_block *b = &s->blocks[s->block_count++];
    b->size = used;
    b->name_size = (uint8_t)(size - 8);
    memcpy(b->name, data, size - 8);
    s->ram_size += used;
    s->ram_left -= used;
    next_block(s);
}

static void step(ss_scanner *s, const uint8_t *data, uint32_t size)
{
    switch ((enum step)s->next) {
    case STEP_MAGIC:
        s->phase = memcmp(data, "QEVM\0\0\0\3", 8) == 0 ? STRUCTURE : FOREIGN;
        ask(s, 1, STEP_TOP);
        break;
    case STEP_TOP:
        top(s, data[0]);
        break;
    case STEP_AFTER_END:
        after_end(s, data[0]);
        break;
    case STEP_DESCRIPTION_SIZE:
        s->description_offset = (int64_t)s->size;
        s->description_end = s->description_offset + be32(data);
        give_up(s);
        break;
    case STEP_MACHINE_SIZE:
        if (be32(data) > SS_MAX_NAME)
            give_up(s);
        else
            ask(s, be32(data), STEP_MACHINE);
        break;
    case STEP_MACHINE:
        s->machine_size = size;
        if (size)
            memcpy(s->machine, data, size);
        ask(s, 1, STEP_TOP);
        break;
    case STEP_SUBSECTION_NAME_SIZE:
        ask(s, data[0] + 4u, STEP_SUBSECTION);
        break;
    case STEP_SUBSECTION:
        subsection(s, data, size);
        break;
    case STEP_CAPABILITY_COUNT:
        s->capabilities_left = be32(data);
        next_capability(s);
        break;
    case STEP_CAPABILITY:
        s->skip = data[0];
        next_capability(s);
        break;
    case STEP_PAGE_BITS:
        if (be32(data) >= 12 && be32(data) <= 24) {
            s->page_size = 1u << be32(data);
            ask(s, 1, STEP_TOP);
        } else {
            give_up(s);
        }
        break;
    case STEP_SECTION_NAME_SIZE:
        s->ram_id = be32(data);
        ask(s, data[4] + 8u, STEP_SECTION_NAME);
        break;
    case STEP_SECTION_NAME:
        if (is(data, size - 8, "ram")) {
            s->ram_offset = (int64_t)s->section_start;
            ask(s, 8, STEP_WORD);
        } else {
            give_up(s);
        }
        break;
    case STEP_PART:
        if (be32(data) == (uint64_t)s->ram_id)
            ask(s, 8, STEP_WORD);
        else
            give_up(s);
        break;
    case STEP_AFTER_RAM_SECTION:
        after_ram_section(s, data[0]);
        break;
    case STEP_FOOTER:
        if (be32(data) == (uint64_t)s->ram_id)
            ask(s, 1, STEP_TOP);
        else
            give_up(s);
        break;
    case STEP_COMMAND:
        s->skip = (uint64_t)data[2] << 8 | data[3];
        ask(s, 1, STEP_TOP);
        break;
    case STEP_WORD:
        word(s, be64(data));
        break;
    case STEP_BLOCK_NAME_SIZE:
        if (data[0] > 0)
            ask(s, data[0] + 8u, STEP_BLOCK);
        else
            give_up(s);
        break;
    case STEP_BLOCK:
        block(s, data, size);
        break;
    case STEP_PAGE_NAME_SIZE:
        ask(s, data[0], STEP_BODY);
        break;
    case STEP_BODY:
        page_name(s, data, size);
        body(s);
        break;
    case STEP_PACKED_SIZE:
        s->skip = s->record == FLAG_XBZRLE ? (uint64_t)data[1] << 8 | data[2] : be32(data);
        ask(s, 8, STEP_WORD);
        break;
    }
}

void ss_scan_init(ss_scanner *s)
{
    memset(s, 0, sizeof *s);
    s->ram_offset = s->ram_end = s->device_offset = s->description_offset = s->description_end = s->ram_id = -1;
    s->record_offset = s->record_block = s->block = s->last_block = -1;
    s->in_order = 1;
    s->page_size = 4096;
    s->old = s->recent = UINT64_MAX; /* begins no mark */
    s->need = 8;
    s->next = STEP_MAGIC;
}

void ss_scan_resume(ss_scanner *s, uint64_t offset, uint32_t ram_id, int64_t block)
{
    s->size = offset;
    s->phase = STRUCTURE;
    s->ram_offset = 0; /* it was passed: nothing else looks at where */
    s->ram_id = ram_id;
    s->block = block;
    s->need = 8;
    s->next = STEP_WORD;
}

void ss_scan_feed(ss_scanner *s, const uint8_t *data, size_t n)
{
    const uint8_t *end = data + n;
    s->piece_start = s->size;
    s->record_offset = s->record_block = -1;
    s->record_page = 0;
    while (data < end) {
        size_t left = (size_t)(end - data);
        if (s->phase == OPAQUE || s->phase == FOREIGN) {
            if (s->phase == OPAQUE)
                ss_scan_search_end(s, data, left);
            s->size += left;
            return;
        }
        if (s->skip > 0) {
            size_t taken = s->skip < left ? (size_t)s->skip : left;
            s->skip -= taken;
            s->size += taken;
            data += taken;
        } else if (s->held_size == 0 && left >= s->need) { /* the usual case: without a copy */
            uint32_t need = s->need;
            s->size += need;
            step(s, data, need);
            data += need;
        } else {
            size_t want = s->need - s->held_size;
            size_t taken = want < left ? want : left;
            memcpy(s->held + s->held_size, data, taken);
            s->held_size += (uint32_t)taken;
            s->size += taken;
            data += taken;
            if (s->held_size == s->need) {
                s->held_size = 0;
                step(s, s->held, s->need);
            }
        }
    }
}
