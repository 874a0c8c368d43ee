/* The search for the end of a migration stream in the states of its devices, which have no structure that can be walked. */
#ifndef STREAMSAVE_SCAN_END_H
#define STREAMSAVE_SCAN_END_H

#include "scan.h"

/* The byte that each section begins with, and the one before its footer. */
enum section {
    SECTION_END = 0, SECTION_START = 1, SECTION_PART = 2, SECTION_LAST = 3, SECTION_FULL = 4,
    SUBSECTION = 5, DESCRIPTION = 6, CONFIGURATION = 7, COMMAND = 8, FOOTER = 0x7e
};

/* What is known of the footers behind each section: ss_scanner's field of that name. */
enum footers { UNKNOWN, PRESENT, ABSENT };

/* The next n bytes of the opaque part: note the last place that announces a description, and whether the end mark is the last
 * thing so far. */
void ss_scan_search_end(ss_scanner *s, const uint8_t *data, size_t n);

#endif
